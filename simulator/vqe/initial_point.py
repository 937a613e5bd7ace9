"""Where the optimizer starts."""

import numpy as np

from simulator.chemistry.integrals import omp_threads
from simulator.chemistry.problem import Problem
from simulator.engines.limits import check_sector
from simulator.errors import InputError
from simulator.operators.excitations import ExcitationSet, Ladder
from simulator.vqe.spec import RunSpec

MOVABLE_POINTS = ("mp2", "hf", "zeros")
"""Initial points that may be perturbed where no gradient leaves them. A random point is on none of these, and a vector is the user's."""

RANDOM_RANGE = {"uccsd": 0.1}
"""Radians: largest random angle. Beyond a few tenths an amplitude of UCCSD is another state altogether."""

PERTURBATION = 0.1
"""Radians: how far a start on a stationary point is moved; at 0.01, L-BFGS-B leaves square H4's late or never."""

MAX_START_AMPLITUDE = 0.3
"""Radians. MP2 amplitudes grow without bound where gaps close; a rotation that large is no better a start."""

MIN_GAP = 1e-3
"""Hartree. Smaller or negative gaps (ROHF) say nothing about an amplitude but its sign."""


def initial_parameters(
    spec: RunSpec, labels: tuple[str, ...], hf_parameters: np.ndarray, mp2_parameters: np.ndarray | None
) -> np.ndarray:
    """The start that the specification asks for, shape (n_parameters,), radian.

    Args:
        spec: initial_point mp2 (amplitudes), hf (the Hartree-Fock determinant), zeros, random (seeded; uniform, up to pi, up
            to 0.1 for uccsd) or vector (as given).
        labels: the ansatz's parameters.
        hf_parameters: where the ansatz is the Hartree-Fock determinant, shape: (n_parameters,).
        mp2_parameters: shape (n_parameters,), None where the ansatz has none.

    Raises:
        InputError: a vector of another length, or mp2 for an ansatz without amplitudes.
    """
    n = len(labels)
    if spec.initial_point == "zeros":
        return np.zeros(n)
    if spec.initial_point == "hf":
        return hf_parameters.copy()
    if spec.initial_point == "random":
        limit = RANDOM_RANGE.get(spec.ansatz, np.pi)
        return np.random.default_rng(spec.seed).uniform(-limit, limit, n)
    if spec.initial_point == "mp2":
        if mp2_parameters is None:
            raise InputError(f"initial point mp2 is for the uccsd ansatz, not {spec.ansatz} (use zeros, random or hf)")
        return mp2_parameters.copy()
    vector = np.array(spec.initial_vector or (), dtype=float)
    if len(vector) != n:
        raise InputError(f"initial vector has {len(vector)} values, ansatz {spec.ansatz} has {n} parameters here")
    return vector


def perturbed(start: np.ndarray, seed: int) -> np.ndarray:
    """The start moved by up to PERTURBATION in every parameter, seeded, shape: (n_parameters,)."""
    return start + np.random.default_rng([seed, 1]).uniform(-PERTURBATION, PERTURBATION, len(start))


def mp2_parameters(problem: Problem, excitations: ExcitationSet) -> np.ndarray:
    """UCCSD's second-order amplitudes -<D|H|HF> / gap, up to MAX_START_AMPLITUDE, shape (n_parameters,), radian.

    D is the determinant that the excitation makes of Hartree-Fock's. Further repetitions start from zero.

    Raises:
        InputError: the vector H|HF> over the sector's determinants would not fit in memory.
    """
    from pyscf.fci import cistring

    amplitudes = np.zeros(excitations.n_parameters)
    coupling = _hamiltonian_on_hartree_fock(problem)
    distinct = len(dict.fromkeys(excitations.excitations))
    for k, excitation in enumerate(excitations.excitations[:distinct]):
        address, sign = [], 1.0
        for ladder, n_electrons in zip((excitation.alpha, excitation.beta), problem.nelec, strict=True):
            string, its_sign = _moved_from_hartree_fock(ladder, n_electrons)
            address.append(cistring.str2addr(problem.norb, n_electrons, string))
            sign *= its_sign
        gap = max(excitation.gap(problem.mo_ea, problem.mo_eb), MIN_GAP)
        amplitudes[excitations.parameter[k]] = -sign * coupling[tuple(address)] / gap
    return np.clip(amplitudes, -MAX_START_AMPLITUDE, MAX_START_AMPLITUDE)


def _hamiltonian_on_hartree_fock(problem: Problem) -> np.ndarray:
    """H|HF> without the energy offset, hartree, PySCF's FCI vector, shape: (n_alpha_strings, n_beta_strings)."""
    from pyscf.fci import cistring, direct_spin1

    norb, nelec = problem.norb, problem.nelec
    check_sector(norb, nelec)
    hartree_fock = np.zeros([cistring.num_strings(norb, n) for n in nelec])
    hartree_fock[0, 0] = 1.0
    h2 = direct_spin1.absorb_h1e(problem.h1, problem.eri, norb, nelec, 0.5)
    with omp_threads(hartree_fock.size):
        found = direct_spin1.contract_2e(h2, hartree_fock, norb, nelec)
    return np.asarray(found).reshape(hartree_fock.shape)


def _moved_from_hartree_fock(ladder: Ladder, n_electrons: int) -> tuple[int, float]:
    """The occupation string that a ladder makes of the lowest orbitals', and its sign."""
    created, removed = ladder
    string, sign = (1 << n_electrons) - 1, 1.0
    for orbital in reversed((*created, *removed)):  # the rightmost operator acts first
        if (string & ((1 << orbital) - 1)).bit_count() % 2:
            sign = -sign
        string ^= 1 << orbital
    return string, sign
