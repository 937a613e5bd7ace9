"""The electronic Hamiltonian of an active space: what chemistry hands to operators, engines and references."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from simulator.chemistry.given_integrals import n_packed
from simulator.chemistry.molecules import Molecule


@dataclass(frozen=True)
class Problem:
    """Electronic Hamiltonian of the active space, in molecular orbitals, hartree.

    H = energy_offset + sum_pq h1[p,q] E_pq + 1/2 sum_pqrs (pq|rs) (E_pq E_rs - delta_qr E_ps).
    """

    molecule: Molecule
    basis: str
    problem_id: str
    norb: int
    nelec: tuple[int, int]  # alpha, beta
    h1: np.ndarray  # hartree, shape: (norb, norb); the frozen core's mean field is in it
    eri: (
        np.ndarray
    )  # (pq|rs), hartree, 8-fold packed, shape: (n_pairs (n_pairs + 1) / 2,) with n_pairs = norb (norb + 1) / 2
    energy_offset: float  # hartree: nuclear repulsion and frozen core
    hf_energy: float  # total, hartree
    mo_energy: np.ndarray  # hartree, shape: (norb,); the mean of mo_ea and mo_eb in an open shell
    mo_ea: np.ndarray  # alpha Fock diagonal, hartree, shape: (norb,)
    mo_eb: np.ndarray  # beta Fock diagonal, hartree, shape: (norb,)
    orbsym: np.ndarray | None  # irrep of each orbital in D2h or a subgroup, combined by XOR, shape: (norb,)
    group: str  # point group that was used, C1 where none
    active_orbitals: tuple[int, ...]  # indices of the molecular orbitals
    n_core: int  # doubly occupied orbitals that are frozen
    n_molecular_orbitals: int
    scf_retried: bool  # the first SCF did not converge
    notes: tuple[str, ...] = ()  # what a result should say about the orbitals
    orbital_names: tuple[str, ...] = ()  # e.g. 2a1, of the active orbitals; empty without symmetry
    is_canonical: bool = (
        True  # whether the Fock matrix is diagonal within the occupied and within the empty orbitals for sure
    )
    coupling: float = (
        0.0  # hartree: largest element of the Fock matrix between orbitals of unequal occupation, not told of an SCF's
    )

    def __post_init__(self) -> None:
        for name, wanted in (
            ("h1", (self.norb, self.norb)),
            ("eri", (n_packed(self.norb),)),
            ("mo_energy", (self.norb,)),
        ):
            got = getattr(self, name).shape
            if got != wanted:
                raise ValueError(f"{name} has shape {got}, not {wanted}")

    @property
    def n_qubits(self) -> int:
        """Spin orbitals of the active space; parity with two-qubit reduction needs two qubits fewer."""
        return 2 * self.norb

    @property
    def is_closed_shell(self) -> bool:
        return self.nelec[0] == self.nelec[1]

    @property
    def is_full_space(self) -> bool:
        return self.norb == self.n_molecular_orbitals

    @property
    def spin_squared(self) -> float:
        """The <S^2> asked for, S(S+1)."""
        s = (self.molecule.multiplicity - 1) / 2
        return s * (s + 1)


SizeCheck = Callable[[int, tuple[int, int]], None]
"""Raises InputError for a number of orbitals and of (alpha, beta) electrons that would not fit into memory."""


def fock_diagonals(h1: np.ndarray, eri: np.ndarray, norb: int, nelec: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Diagonals of the alpha and beta Fock matrices, which an ROHF's own orbital energies are not."""
    from pyscf import ao2mo

    full = ao2mo.restore(1, eri, norb)
    coulomb = np.einsum("ppqq->pq", full)
    exchange = np.einsum("pqqp->pq", full)
    n_alpha, n_beta = nelec
    direct = h1.diagonal() + coulomb[:, :n_alpha].sum(1) + coulomb[:, :n_beta].sum(1)
    return direct - exchange[:, :n_alpha].sum(1), direct - exchange[:, :n_beta].sum(1)
