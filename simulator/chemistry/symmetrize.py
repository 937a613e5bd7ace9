"""Coordinates moved onto the symmetry that they nearly have; done only when it is asked for."""

from dataclasses import replace

import numpy as np

from simulator.chemistry.molecules import Molecule
from simulator.errors import InputError

TOLERANCE = 1e-3
"""Angstrom: how far the image of an atom may lie from an atom for an operation to count."""


def symmetrized(molecule: Molecule, tolerance: float = TOLERANCE) -> Molecule:
    """The molecule with each atom at the mean of its images under all operations that hold within a tolerance.

    Args:
        molecule: what to move; elements, charge, multiplicity and name stay.
        tolerance: angstrom.

    Raises:
        InputError: the tolerance is no positive number below 0.1, or there are integrals but no atoms.
    """
    if not 0 < tolerance < 0.1:
        raise InputError(f"symmetrize: the tolerance must be above 0 and below 0.1 angstrom, not {tolerance!r}")
    if molecule.integrals is not None:
        raise InputError(f"symmetrize: molecule {molecule.name or molecule.formula} has integrals and no atoms to move")
    positions = np.array(molecule.geometry)
    centre = positions.mean(axis=0)
    positions = positions - centre
    if len(positions) > 1:
        for _ in range(3):  # operations come out the better, the better the coordinates are
            positions = _averaged(positions, molecule.elements, tolerance)
    return replace(molecule, geometry=tuple((float(x), float(y), float(z)) for x, y, z in positions + centre))


def largest_move(before: Molecule, after: Molecule) -> float:
    """Angstrom."""
    return float(np.max(np.linalg.norm(np.array(before.geometry) - np.array(after.geometry), axis=1)))


def _averaged(positions: np.ndarray, elements: tuple[str, ...], tolerance: float) -> np.ndarray:
    axis = _axis(positions, tolerance)
    if axis is not None:  # linear: onto the axis, and both ends alike where they are
        along = positions @ axis
        images = [along] + ([-along[order]] if (order := _partners(-along[:, None], along[:, None], elements, tolerance)) is not None else [])  # fmt: skip
        return np.outer(np.mean(images, axis=0), axis)
    images = [positions[order] @ operation for operation, order in _operations(positions, elements, tolerance)]
    return np.asarray(np.mean(images, axis=0))


def _axis(positions: np.ndarray, tolerance: float) -> np.ndarray | None:
    """The unit vector along a linear molecule, None for others."""
    _, _, directions = np.linalg.svd(positions)
    beside = positions - np.outer(positions @ directions[0], directions[0])
    return directions[0] if np.abs(beside).max() < tolerance else None


def _operations(
    positions: np.ndarray, elements: tuple[str, ...], tolerance: float
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Orthogonal matrices R and for each the atom that R takes every atom to: R x_i = x_order[i]; the identity first."""
    distances = np.linalg.norm(positions, axis=1)
    first = int(np.argmax(distances))
    sines = np.linalg.norm(np.cross(positions[first], positions), axis=1)
    second = int(np.argmax(sines))
    frame = _frame(positions[first], positions[second], 1.0)
    found = [(np.eye(3), np.arange(len(positions)))]
    for i in range(len(positions)):
        if elements[i] != elements[first] or abs(distances[i] - distances[first]) > tolerance:
            continue
        for j in range(len(positions)):
            if i == j or elements[j] != elements[second] or abs(distances[j] - distances[second]) > tolerance:
                continue
            if np.linalg.norm(np.cross(positions[i], positions[j])) < 0.5 * sines[second]:
                continue
            for hand in (1.0, -1.0):
                operation = _frame(positions[i], positions[j], hand) @ frame.T
                order = _partners(positions @ operation.T, positions, elements, tolerance)
                if order is not None and not np.allclose(operation, np.eye(3), atol=0.05):
                    found.append((operation, order))
    return found


def _frame(first: np.ndarray, second: np.ndarray, hand: float) -> np.ndarray:
    """Orthonormal columns: along the sum of two directions, along their difference's rest, and perpendicular to both."""
    x = first / np.linalg.norm(first) + second / np.linalg.norm(second)
    if np.linalg.norm(x) < 1e-6:
        x = first
    x = x / np.linalg.norm(x)
    z = np.cross(first, second)
    z = hand * z / np.linalg.norm(z)
    return np.column_stack([x, hand * np.cross(z, x), z])


def _partners(
    images: np.ndarray, positions: np.ndarray, elements: tuple[str, ...], tolerance: float
) -> np.ndarray | None:
    """For each image the atom of its element that lies there; None where one has none."""
    order = []
    for image, element in zip(images, elements, strict=True):
        apart = np.linalg.norm(positions - image, axis=1)
        nearest = int(np.argmin(apart))
        if apart[nearest] > tolerance or elements[nearest] != element:
            return None
        order.append(nearest)
    return np.array(order) if len(set(order)) == len(order) else None
