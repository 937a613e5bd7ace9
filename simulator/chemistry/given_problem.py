"""From given integrals to the Hamiltonian of an active space: the reference determinant, its Fock matrix, and what is frozen.

The orbitals are taken as they come. Whoever made the integrals chose them, and nothing is rotated here; what does not hold for
any orbitals (that the first ones are occupied, that the Fock matrix is diagonal, that irreps are obeyed) is looked at and told.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from simulator.chemistry.active_space import ActiveOrbitals, checked_space, cut_sets
from simulator.chemistry.given_integrals import GivenIntegrals
from simulator.chemistry.orbitals import SYMMETRY_TOLERANCE, largest_forbidden
from simulator.chemistry.problem import Problem, SizeCheck, fock_diagonals
from simulator.chemistry.scf import STATIONARY_GRADIENT
from simulator.errors import InputError

if TYPE_CHECKING:
    from simulator.chemistry.problem_spec import ProblemSpec

LOWER = 1e-6
"""Hartree. A determinant must lie this much lower than the file's first orbitals to be the reference in their place."""

_AUFBAU = 1e-6


@dataclass(frozen=True)
class GivenOrbitals:
    """The orbitals of given integrals in the order of the reference determinant: doubly, singly occupied, empty ones.

    Within each the order is the file's. Arrays are in this order.
    """

    order: tuple[int, ...]  # index in the file of each orbital
    h1: np.ndarray  # hartree, shape: (norb, norb)
    eri: np.ndarray  # (pq|rs), hartree, shape: (norb, norb, norb, norb)
    orbsym: (
        np.ndarray | None
    )  # irrep of each orbital, combined by XOR; None where none are given or the integrals break them
    active: ActiveOrbitals
    hf_energy: float  # of the reference determinant, total, hartree
    coupling: float  # largest element of the Fock matrix between orbitals of unequal occupation, hartree
    notes: tuple[str, ...]


def given_orbitals(spec: "ProblemSpec") -> GivenOrbitals:
    """The orbitals of a specification's integrals, and which of them are active.

    Raises:
        InputError: the active space does not fit the integrals.
    """
    from pyscf import ao2mo

    integrals = _integrals(spec)
    h1, eri = integrals.one_body_matrix(), ao2mo.restore(1, integrals.two_body_packed(), integrals.norb)
    determinant = _reference(h1, eri, spec.nelec)
    order = np.argsort(-determinant.occupation, kind="stable")
    first = _Determinant(h1, eri, _first_orbitals(integrals.norb, spec.nelec))
    h1, eri = h1[np.ix_(order, order)], eri[np.ix_(order, order, order, order)]
    determinant = _Determinant(h1, eri, determinant.occupation[order])
    orbsym, broken = _irreps(integrals, h1, eri, order)
    active = _active(spec, order, orbsym, determinant)
    notes = (
        f"nuclear repulsion is an unknown part of the integrals' core energy of {integrals.core_energy:.8f} hartree",
        _on_determinant(order, determinant, first.energy - determinant.energy), _on_orbitals(determinant), broken,
        _on_state(integrals, orbsym, determinant), *cut_sets(spec, active),
    )  # fmt: skip
    hf_energy = determinant.energy + integrals.core_energy
    return GivenOrbitals(
        tuple(map(int, order)), h1, eri, orbsym, active, hf_energy, determinant.coupling, tuple(filter(None, notes))
    )


def given_problem(spec: "ProblemSpec", check_size: SizeCheck | None = None) -> Problem:
    """The Hamiltonian of the active space; the mean field of what is frozen is in it.

    Args:
        spec: a specification with integrals.
        check_size: refuses an active space that would not fit into memory.

    Raises:
        InputError: the active space does not fit the integrals, or the run not the machine.
    """
    from pyscf import ao2mo

    integrals, found = _integrals(spec), given_orbitals(spec)
    active = found.active
    norb = len(active.indices)
    if check_size is not None:
        check_size(norb, active.nelec)
    core, space = list(active.core), list(active.indices)
    coulomb = np.einsum("pqcc->pq", found.eri[:, :, core][:, :, :, core])
    exchange = np.einsum("pccq->pq", found.eri[:, core][:, :, core])
    mean_field = 2 * coulomb - exchange
    offset = integrals.core_energy + float(np.sum((2 * found.h1 + mean_field)[core, core]))
    h1 = (found.h1 + mean_field)[np.ix_(space, space)]
    eri = found.eri[np.ix_(space, space, space, space)]
    packed = ao2mo.restore(8, eri, norb)
    mo_ea, mo_eb = fock_diagonals(h1, packed, norb, active.nelec)
    labels = np.zeros(len(found.order), np.int64) if found.orbsym is None else found.orbsym
    return Problem(
        molecule=spec.molecule, basis=spec.basis, problem_id=spec.problem_id, norb=norb, nelec=active.nelec,
        h1=0.5 * (h1 + h1.T), eri=np.ascontiguousarray(packed), energy_offset=offset,
        hf_energy=found.hf_energy, mo_energy=0.5 * (mo_ea + mo_eb), mo_ea=mo_ea, mo_eb=mo_eb,
        orbsym=labels[space], group="C1" if found.orbsym is None else "unknown",
        active_orbitals=tuple(found.order[i] for i in space), n_core=len(core), n_molecular_orbitals=len(found.order),
        scf_retried=False, notes=found.notes, orbital_names=tuple(active.names[i] for i in space),
        is_canonical=False, coupling=found.coupling,
    )  # fmt: skip


def semicanonical_orbitals(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Rotation of a closed shell's occupied and of its empty orbitals that makes the Fock matrix diagonal within either.

    Returns:
        coefficients, shape (norb, norb), and orbital energies in hartree, shape (norb,).
    """
    from pyscf import ao2mo

    n_occupied, norb = problem.nelec[0], problem.norb
    occupation = _first_orbitals(norb, problem.nelec)
    fock, _ = _Determinant(problem.h1, ao2mo.restore(1, problem.eri, norb), occupation).fock
    coefficients, energies = np.zeros((norb, norb)), np.zeros(norb)
    for block in (slice(0, n_occupied), slice(n_occupied, norb)):
        energies[block], coefficients[block, block] = np.linalg.eigh(fock[block, block])
    return coefficients, energies


def _integrals(spec: "ProblemSpec") -> GivenIntegrals:
    if spec.integrals is None:
        raise ValueError("the specification has atoms, not integrals")
    return spec.integrals


# --- the reference determinant ---------------------------------------------------------------------------------------


class _Determinant:
    """A determinant of doubly and singly (alpha) occupied orbitals: its energy and Fock matrices.

    Args:
        h1: hartree, shape: (norb, norb).
        eri: (pq|rs), hartree, shape: (norb, norb, norb, norb).
        occupation: 2, 1 or 0 of each orbital, shape: (norb,).
    """

    def __init__(self, h1: np.ndarray, eri: np.ndarray, occupation: np.ndarray) -> None:
        self.h1, self.eri, self.occupation = h1, eri, np.asarray(occupation)
        self.spins = (self.occupation > 0).astype(float), (self.occupation > 1).astype(float)

    @cached_property
    def energy(self) -> float:
        """Hartree, without the core energy."""
        (alpha, beta), total = self.spins, self.occupation.astype(float)
        coulomb, exchange = np.einsum("ppqq->pq", self.eri), np.einsum("pqqp->pq", self.eri)
        two = total @ coulomb @ total - alpha @ exchange @ alpha - beta @ exchange @ beta
        return float(self.h1.diagonal() @ total + 0.5 * two)

    @cached_property
    def fock(self) -> tuple[np.ndarray, np.ndarray]:
        """Fock matrices of alpha and beta electrons, hartree, shape: (norb, norb) each."""
        direct = self.h1 + np.einsum("pqrr,r->pq", self.eri, self.occupation.astype(float))
        alpha, beta = (direct - np.einsum("prrq,r->pq", self.eri, spin) for spin in self.spins)
        return alpha, beta

    @cached_property
    def coupling(self) -> float:
        """Largest element of the Fock matrix between orbitals of unequal occupation: zero for Hartree-Fock orbitals."""
        (alpha, beta), n = self.fock, self.occupation
        largest = 0.0
        for high, low, matrix in ((2, 0, 0.5 * (alpha + beta)), (2, 1, beta), (1, 0, alpha)):
            largest = max(largest, float(np.abs(matrix[np.ix_(n == high, n == low)]).max(initial=0.0)))
        return largest

    @property
    def mixing(self) -> float:
        """Largest element of the Fock matrix between two orbitals of equal occupation: zero for canonical orbitals."""
        alpha, beta = self.fock
        matrix = 0.5 * (alpha + beta)
        same = (self.occupation[:, None] == self.occupation[None, :]) & ~np.eye(len(matrix), dtype=bool)
        return float(np.abs(matrix[same]).max(initial=0.0))

    @property
    def is_aufbau(self) -> bool:
        """Whether no empty orbital lies below an occupied one."""
        for matrix, spin in zip(self.fock, self.spins, strict=True):
            energies = matrix.diagonal()
            highest, lowest = energies[spin > 0].max(initial=-np.inf), energies[spin == 0].min(initial=np.inf)
            if highest > lowest + _AUFBAU:
                return False
        return True

    def lower(self) -> "_Determinant":
        """The determinant at the end of the way down by exchanging the occupations of two orbitals, steepest first."""
        best, energy = self, self.energy
        while True:
            found = best
            for p, q in zip(*np.triu_indices(len(self.occupation), 1), strict=True):
                if best.occupation[p] == best.occupation[q]:
                    continue
                occupation = best.occupation.copy()
                occupation[[p, q]] = occupation[[q, p]]
                other = _Determinant(self.h1, self.eri, occupation)
                if other.energy < energy - 1e-9:
                    found, energy = other, other.energy
            if found is best:
                return best
            best = found


def _reference(h1: np.ndarray, eri: np.ndarray, nelec: tuple[int, int]) -> _Determinant:
    """The file's first orbitals where they are a Hartree-Fock solution that fills from below, else the lowest one found.

    Files are ordered by energy (PySCF and most others) or by irrep (Molpro), where the first orbitals are just a determinant; the
    orbitals may be no Hartree-Fock orbitals at all. In 1,200 mixtures of the orbitals of six molecules, random ones among them, the
    way down ended at the lowest determinant of all.
    """
    first = _Determinant(h1, eri, _first_orbitals(len(h1), nelec))
    if first.coupling < STATIONARY_GRADIENT and first.is_aufbau:
        return first
    lowest = first.lower()
    return first if first.energy < lowest.energy + LOWER else lowest


def _first_orbitals(norb: int, nelec: tuple[int, int]) -> np.ndarray:
    n_alpha, n_beta = nelec
    return np.array([2, 1, 0]).repeat([n_beta, n_alpha - n_beta, norb - n_alpha])


# --- irreps and the active orbitals ----------------------------------------------------------------------------------


def _irreps(
    integrals: GivenIntegrals, h1: np.ndarray, eri: np.ndarray, order: np.ndarray
) -> tuple[np.ndarray | None, str | None]:
    """Irreps that combine by XOR, in the reference's order, where the integrals obey them; else None and a note."""
    if integrals.orbsym is None:
        return None, None
    labels = np.array(integrals.orbsym, dtype=np.int64)[order] - 1
    largest = largest_forbidden(labels, h1, eri)
    if largest < SYMMETRY_TOLERANCE:
        return labels, None
    return None, f"ORBSYM is not used: an integral of {largest:.1e} hartree joins different irreps"


def _on_determinant(order: np.ndarray, determinant: _Determinant, gained: float) -> str | None:
    if np.all(np.diff(order) > 0):
        return None
    occupied = ", ".join(str(i + 1) for i in order[determinant.occupation > 0])
    return (
        f"reference determinant: orbitals {occupied} are occupied, {gained:.6f} hartree below the file's first orbitals"
    )


def _on_orbitals(determinant: _Determinant) -> str | None:
    coupling, mixing = determinant.coupling, determinant.mixing
    if coupling >= STATIONARY_GRADIENT:
        return (
            "orbitals are not Hartree-Fock orbitals (the Fock matrix joins occupied and empty ones by up to"
            f" {coupling:.1e} hartree): HF is the reference determinant's energy, and amplitudes of initial point mp2 are"
            " estimates by its diagonal"
        )
    if mixing >= STATIONARY_GRADIENT:
        return (
            f"orbitals are not canonical (the Fock matrix joins equally occupied ones by up to {mixing:.1e} hartree): MP2 is"
            " that of canonical ones, amplitudes of initial point mp2 are estimates by the diagonal"
        )
    return None


def _on_state(integrals: GivenIntegrals, orbsym: np.ndarray | None, determinant: _Determinant) -> str | None:
    if orbsym is None or not integrals.isym:
        return None
    irrep = 1 + int(np.bitwise_xor.reduce(orbsym[determinant.occupation == 1], initial=0))
    if irrep == integrals.isym:
        return None
    return (
        f"ISYM={integrals.isym} is not followed: the reference determinant has irrep {irrep}, and the lowest state of the spin is"
        " looked for"
    )


def _active(
    spec: "ProblemSpec", order: np.ndarray, orbsym: np.ndarray | None, determinant: _Determinant
) -> ActiveOrbitals:
    alpha, beta = determinant.fock
    energies = 0.5 * (alpha + beta).diagonal()
    chosen = _by_number(spec, order) if spec.orbitals is not None else _by_energy(spec, energies)
    n_alpha, n_beta = spec.nelec
    core = tuple(i for i in range(n_beta) if i not in set(chosen))
    names = tuple(str(i + 1) for i in order) if orbsym is None else _names(order, orbsym)
    return ActiveOrbitals(
        chosen, core, (n_alpha - len(core), n_beta - len(core)), names, energies, determinant.occupation.astype(float),
        tuple(int(i) + 1 for i in order),
    )  # fmt: skip


def _by_energy(spec: "ProblemSpec", energies: np.ndarray) -> tuple[int, ...]:
    """Positions of the active orbitals: those nearest the gap. Their order stays."""
    space = checked_space(spec, len(energies))
    assert space is not None  # only names and natural orbitals leave it open
    n_alpha, n_beta = spec.nelec
    by_energy = lambda block: sorted(block, key=lambda i: (round(float(energies[i]), 9), i))  # noqa: E731
    doubly, empty = by_energy(range(n_beta)), by_energy(range(n_alpha, len(energies)))
    n_empty = space.norb - (n_alpha - space.n_core)
    return tuple(sorted([*doubly[space.n_core :], *range(n_beta, n_alpha), *empty[:n_empty]]))


def _by_number(spec: "ProblemSpec", order: np.ndarray) -> tuple[int, ...]:
    """Positions of the active orbitals that are named by their numbers in the file."""
    assert spec.orbitals is not None
    norb, (n_alpha, n_beta) = len(order), spec.nelec
    for name in spec.orbitals:
        if not name.isdigit():
            raise InputError(f"orbitals: {name} is a name, and an FCIDUMP tells no point group (give numbers from 1)")
        if int(name) > norb:
            raise InputError(f"orbitals: {name} is more than the {norb} of the integrals")
    wanted, listed = {int(name) - 1 for name in spec.orbitals}, ",".join(spec.orbitals)
    chosen = tuple(position for position, index in enumerate(order) if int(index) in wanted)
    if missing := [i for i in range(n_beta, n_alpha) if i not in chosen]:
        singly = ", ".join(str(order[i] + 1) for i in missing)
        raise InputError(f"orbitals {listed}: the singly occupied {singly} must be among them")
    if not any(i < n_alpha for i in chosen):
        occupied = ", ".join(str(i + 1) for i in sorted(order[:n_alpha]))
        raise InputError(f"orbitals {listed}: none of them holds an electron (occupied are {occupied})")
    return chosen


def _names(order: np.ndarray, orbsym: np.ndarray) -> tuple[str, ...]:
    """Molpro's names of orbitals, e.g. 3.1: the third of irrep 1, counted in the file's order."""
    counts: dict[int, int] = {}
    names: dict[int, str] = {}
    for index in np.argsort(order):
        label = int(orbsym[index]) + 1
        counts[label] = counts.get(label, 0) + 1
        names[int(index)] = f"{counts[label]}.{label}"
    return tuple(names[i] for i in range(len(order)))
