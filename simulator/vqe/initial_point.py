"""Where the optimizer starts."""

import numpy as np

from simulator.chemistry.problem import Problem
from simulator.errors import InputError
from simulator.operators.excitations import Excitation, ExcitationSet
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


SMALLEST_CURVATURE_GAP = 0.1
"""Hartree. Gaps below count as this large in the search's scale; from 0.05 to 0.5 the evaluations of 32 molecules and geometries,
many of them stretched, were the same within 2 %."""


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

    D is what the excitation makes of Hartree-Fock's determinant. Further repetitions start from zero.
    """
    from pyscf import ao2mo

    amplitudes = np.zeros(excitations.n_parameters)
    eri = ao2mo.restore(1, problem.eri, problem.norb)
    distinct = len(dict.fromkeys(excitations.excitations))
    for k, excitation in enumerate(excitations.excitations[:distinct]):
        gap = max(excitation.gap(problem.mo_ea, problem.mo_eb), MIN_GAP)
        amplitudes[excitations.parameter[k]] = -coupling(excitation, problem.h1, eri, problem.nelec) / gap
    return np.clip(amplitudes, -MAX_START_AMPLITUDE, MAX_START_AMPLITUDE)


def natural_steps(problem: Problem, excitations: ExcitationSet) -> np.ndarray:
    """How far each parameter moves where the energy rises as much as with any other, shape (n_parameters,), radian.

    At the Hartree-Fock determinant the energy's second derivative by an amplitude is twice the gap of its excitation, but for the
    electrons' interaction. In units of these steps it is nearly a sphere, which an optimizer descends three to four times faster.
    """
    curvature = np.zeros(excitations.n_parameters)
    for parameter, excitation in zip(excitations.parameter, excitations.excitations, strict=True):
        curvature[parameter] += 2.0 * max(excitation.gap(problem.mo_ea, problem.mo_eb), SMALLEST_CURVATURE_GAP)
    return 1.0 / np.sqrt(curvature)


def coupling(excitation: Excitation, h1: np.ndarray, eri: np.ndarray, nelec: tuple[int, int]) -> float:
    """<HF| T^dagger H |HF> of a single or double excitation out of the lowest orbitals, hartree (Slater and Condon's rules).

    Args:
        excitation: T.
        h1: hartree, shape: (norb, norb).
        eri: (pq|rs), hartree, shape: (norb, norb, norb, norb).
        nelec: alpha and beta electrons.
    """
    (created, removed), (created_beta, removed_beta) = excitation.alpha, excitation.beta
    if created and created_beta:
        return float(eri[created[0], removed[0], created_beta[0], removed_beta[0]])
    spin = 0 if created else 1
    created, removed = (excitation.alpha, excitation.beta)[spin]
    if len(created) == 2:  # a+_a a+_b a_j a_i
        (a, b), (j, i) = created, removed
        return float(eri[a, i, b, j] - eri[a, j, b, i])
    (a,), (i,) = created, removed
    direct = sum(np.trace(eri[a, i, :n, :n]) for n in nelec)
    return float(h1[a, i] + direct - np.trace(eri[a, : nelec[spin], : nelec[spin], i]))
