"""The point group of a molecule: found with PySCF, at a looser tolerance where coordinates are rounded, else given up.

Symmetry is a convenience (it labels orbitals and drops excitations), so its detection never ends a run.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

TOLERANCES = (1e-5, 1e-4, 1e-3)
"""Bohr: how far an atom may lie from the image of another. PySCF's own comes first; coordinates with four or five decimals
need the others."""

MIXED_OVERLAP = 1e-4
"""Largest overlap of symmetry-adapted functions of two irreps. It is zero for an exact symmetry; energies are off by its
square, 1e-8 hartree at most."""

_LOCK = threading.Lock()  # PySCF's tolerance is a variable of its module


def with_point_group(build: Callable[[bool], Any]) -> tuple[Any, tuple[str, ...]]:
    """PySCF's molecule with its point group, and a note where the group was found at a looser tolerance or not at all.

    Args:
        build: makes the molecule, with symmetry or without.
    """
    for tolerance in TOLERANCES:
        with _tolerance(tolerance):
            try:
                mol = build(True)
            except (IndexError, ValueError, RuntimeError, KeyError, AssertionError, TypeError, np.linalg.LinAlgError):
                continue  # PySCF took an operation for a symmetry that maps no atom onto another
        if _is_sound(mol):
            if tolerance == TOLERANCES[0]:
                return mol, ()
            return mol, (
                f"point group {mol.topgroup} found at a tolerance of {tolerance:g} bohr: coordinates are rounded",
            )
    return build(False), ("point group not used: the coordinates are near a symmetry, not on it",)


def _is_sound(mol: Any) -> bool:
    """Whether the symmetry-adapted functions span the basis and those of different irreps are orthogonal."""
    if sum(c.shape[1] for c in mol.symm_orb) != mol.nao:
        return False
    overlap = mol.intor_symmetric("int1e_ovlp")
    return all(
        np.abs(a.T @ overlap @ b).max(initial=0.0) < MIXED_OVERLAP
        for i, a in enumerate(mol.symm_orb)
        for b in mol.symm_orb[:i]
    )


@contextmanager
def _tolerance(value: float) -> Iterator[None]:
    """PySCF's tolerance of atomic positions, for the time of the block."""
    from pyscf.symm import geom

    with _LOCK:
        before, geom.TOLERANCE = geom.TOLERANCE, value
        try:
            yield
        finally:
            geom.TOLERANCE = before
