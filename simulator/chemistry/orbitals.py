"""Molecular orbitals with what an SCF leaves to chance decided: order and mixtures of degenerate ones, and signs."""

from typing import Any

import numpy as np

DEGENERACY = 1e-6
"""Orbitals closer than this, in hartree, are degenerate: which mixture of them the SCF found is chance."""

SYMMETRY_TOLERANCE = 1e-6
"""Hartree: integrals between irreps above which the labels are not believed and the space is searched as a whole."""


def canonical_orbitals(mf: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Orbitals and their irreps, with what the SCF leaves to chance decided: order and mixtures of degenerate ones, signs.

    Doubly occupied orbitals stand first, then singly occupied, then empty ones. A degenerate set is ordered by irrep, those
    of one irrep become the eigenvectors of a position operator with unequal weights on x, y and z; a sign makes the largest
    coefficient (the first among equals) positive.
    """
    coefficients, orbsym = np.array(mf.mo_coeff), irreps(mf)
    energies, occupations = np.asarray(mf.mo_energy), np.asarray(mf.mo_occ)
    order = np.argsort(-occupations, kind="stable")
    coefficients, energies, occupations = coefficients[:, order], energies[order], occupations[order]
    orbsym = None if orbsym is None else orbsym[order]
    return _decided(mf.mol, coefficients, orbsym, energies, occupations)


def irreps(mf: Any) -> np.ndarray | None:
    """Irrep numbers that combine by XOR; PySCF's linear groups hold theirs in the last digit."""
    orbsym = getattr(mf.mo_coeff, "orbsym", None)
    return None if orbsym is None else np.asarray(orbsym, dtype=np.int64) % 10


def largest_forbidden(labels: np.ndarray, h1: np.ndarray, eri: np.ndarray) -> float:
    """The largest integral that symmetry forbids, hartree: what joins determinants of different irreps.

    Args:
        labels: irrep of each orbital, combined by XOR, shape: (norb,).
        h1: hartree, shape: (norb, norb).
        eri: (pq|rs), hartree, shape: (norb, norb, norb, norb).
    """
    pairs = labels[:, None] ^ labels[None, :]
    largest = np.abs(h1[pairs != 0]).max(initial=0.0)
    return float(max(largest, np.abs(eri[pairs[:, :, None, None] != pairs[None, None, :, :]]).max(initial=0.0)))


def canonical_within(
    mf: Any, coefficients: np.ndarray, orbsym: np.ndarray | None, block: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """Coefficients, and irreps, with the orbitals of `block` as eigenvectors of its part of the Fock matrix, irrep by irrep.

    Energies ascend within each irrep; neighbours of which the second lies no higher are then ordered by irrep.
    """
    if not len(block):
        return coefficients, orbsym
    fock, out = fock_matrix(mf, coefficients), np.array(coefficients)
    energies = np.zeros(len(block))
    for same in by_irrep(block, orbsym):
        values, vectors = np.linalg.eigh(fock[np.ix_(same, same)])
        out[:, same] = coefficients[:, same] @ vectors
        energies[same - block[0]] = values
    labels = None if orbsym is None else np.array(orbsym[block])
    out[:, block], labels = _decided(mf.mol, out[:, block], labels, energies, np.zeros(len(block)))
    if orbsym is None:
        return out, None
    orbsym = np.array(orbsym)
    orbsym[block] = labels
    return out, orbsym


def by_irrep(block: np.ndarray, orbsym: np.ndarray | None) -> list[np.ndarray]:
    """The block's indices, those of each irrep together."""
    if orbsym is None:
        return [block] if len(block) else []
    return [block[orbsym[block] == label] for label in np.unique(orbsym[block])]


def fock_matrix(mf: Any, coefficients: np.ndarray) -> np.ndarray:
    """The mean field's Fock matrix (Roothaan's for open shells) in orbitals, hartree."""
    fock = np.asarray(mf.get_fock(dm=mf.make_rdm1()))
    return np.asarray(coefficients.T @ fock @ coefficients)


def fock_diagonal(mf: Any, coefficients: np.ndarray) -> np.ndarray:
    """Orbital energies, hartree."""
    return np.asarray(fock_matrix(mf, coefficients).diagonal())


def _decided(
    mol: Any, coefficients: np.ndarray, orbsym: np.ndarray | None, energies: np.ndarray, occupations: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    x, y, z = mol.intor_symmetric("int1e_r", comp=3)
    position = x + np.sqrt(2) * y + np.sqrt(3) * z
    labels = np.zeros(len(energies), np.int64) if orbsym is None else orbsym
    apart = (np.diff(energies) > DEGENERACY) | (np.diff(occupations) != 0)
    for chosen in np.split(np.arange(len(energies)), np.flatnonzero(apart) + 1):
        order = chosen[np.argsort(labels[chosen], kind="stable")]
        coefficients[:, chosen], labels[chosen] = coefficients[:, order], labels[order]
        for label in np.unique(labels[chosen]):
            same = chosen[labels[chosen] == label]
            if len(same) > 1:
                block = coefficients[:, same]
                coefficients[:, same] = block @ np.linalg.eigh(block.T @ position @ block)[1]
    for column in coefficients.T:
        magnitude = np.abs(column)
        if column[np.flatnonzero(magnitude > magnitude.max() - 1e-6)[0]] < 0:
            column *= -1
    return coefficients, None if orbsym is None else labels
