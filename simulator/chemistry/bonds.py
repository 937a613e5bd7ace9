"""Bonds as far as distances tell, and where one is stretched so far that electrons uncouple."""

import math
from functools import cache
from typing import TYPE_CHECKING

from simulator.chemistry.elements import SYMBOLS

if TYPE_CHECKING:
    from simulator.chemistry.molecules import Molecule

# fmt: off
_SINGLE = (
    0.37, 0.46, 1.33, 1.02, 0.85, 0.75, 0.71, 0.63, 0.64, 0.67, 1.55, 1.39, 1.26, 1.16, 1.11, 1.03, 0.99, 0.96, 1.96, 1.71,
    1.48, 1.36, 1.34, 1.22, 1.19, 1.16, 1.11, 1.10, 1.12, 1.18, 1.24, 1.21, 1.21, 1.16, 1.14, 1.17, 2.10, 1.85, 1.63, 1.54,
    1.47, 1.38, 1.28, 1.25, 1.25, 1.20, 1.28, 1.36, 1.42, 1.40, 1.40, 1.36, 1.33, 1.31, 2.32, 1.96, 1.80, 1.63, 1.76, 1.74,
    1.73, 1.72, 1.68, 1.69, 1.68, 1.67, 1.66, 1.65, 1.64, 1.70, 1.62, 1.52, 1.46, 1.37, 1.31, 1.29, 1.22, 1.23, 1.24, 1.33,
    1.44, 1.44, 1.51, 1.45, 1.47, 1.42, 2.23, 2.01, 1.86, 1.75, 1.69, 1.70,
)
"""Covalent radii of single bonds in angstrom, from hydrogen to uranium: Pyykko and Atsumi, Chem. Eur. J. 15, 186 (2009);
hydrogen's is half the bond of H2."""

_MULTIPLE = {  # double, triple: Chem. Eur. J. 15, 12770 (2009); 11, 3511 (2005)
    "Be": (0.90, 0.85), "B": (0.78, 0.73), "C": (0.67, 0.60), "N": (0.60, 0.54), "O": (0.57, 0.53), "Si": (1.07, 1.02),
    "P": (1.02, 0.94), "S": (0.94, 0.95), "Ge": (1.11, 1.06), "As": (1.14, 1.06), "Se": (1.07, 1.07),
}

_VALENCE = {
    "H": 1, "He": 0, "Li": 1, "Be": 2, "B": 3, "C": 4, "N": 3, "O": 2, "F": 1, "Ne": 0, "Na": 1, "Mg": 2, "Al": 3, "Si": 4,
    "P": 3, "S": 2, "Cl": 1, "Ar": 0, "K": 1, "Ca": 2, "Ga": 3, "Ge": 4, "As": 3, "Se": 2, "Br": 1, "Kr": 0, "Rb": 1,
    "Sr": 2, "In": 3, "Sn": 4, "Sb": 3, "Te": 2, "I": 1, "Xe": 0,
}
# fmt: on

BONDED = 1.3
"""Times the sum of single-bond radii up to which two atoms are bonded."""

STRETCHED_S_ONLY = 2.4
STRETCHED_TO_HYDROGEN = 1.8
STRETCHED_SINGLE = 1.35
STRETCHED_MULTIPLE = 1.2
STRETCHED_RADICAL = 1.4
"""Times the sum of radii of its order beyond which a bond counts as stretched: between atoms with s electrons only, to
hydrogen, single, multiple, and to hydrogen in a radical. RHF's and ROHF's solutions of 40 diatomics and the bundled molecules
lose their stability from these on."""

_S_ONLY = {"H", "Li", "Be", "Na", "Mg", "K", "Ca", "Rb", "Sr"}


def stretched_bond(molecule: "Molecule") -> bool:
    """Whether a bond is stretched so far that SCF solutions compete, or wants more than a triple bond (C2).

    Rings and lattices of hydrogen atoms count as well: a square has two determinants of one energy. The bonds looked at are those of the shortest tree that connects all atoms. One between atoms whose valences are
    satisfied without it (two water molecules, He2) is none.
    """
    elements, n_atoms = molecule.elements, len(molecule.elements)
    if set(elements) == {"H"} and n_atoms > 3 and not _is_linear(molecule):
        return True
    radii = [_radius(e) for e in elements]
    ratio = {
        (i, j): math.dist(molecule.geometry[i], molecule.geometry[j]) / (radii[i] + radii[j])
        for i in range(n_atoms)
        for j in range(i)
    }
    tree = _shortest_tree(ratio, n_atoms)
    bonds = {pair for pair, value in ratio.items() if value <= BONDED}
    degree = [sum(i in pair for pair in bonds) for i in range(n_atoms)]
    for pair in tree:
        loose = [max(0, _VALENCE.get(elements[i], 0) - degree[i] + (pair in bonds)) for i in pair]  # without this bond
        if pair not in bonds and not all(loose):
            continue
        order = max(1, min(loose))
        if order > 3:
            return True
        length = math.dist(*(molecule.geometry[i] for i in pair))
        first, second = (elements[i] for i in pair)
        if length > _limit(first, second, order, molecule.multiplicity):
            return True
    return False


def _is_linear(molecule: "Molecule") -> bool:
    (x0, y0, z0), *others = molecule.geometry
    a, b, c = (others[0][0] - x0, others[0][1] - y0, others[0][2] - z0)
    size = math.hypot(a, b, c)
    for x, y, z in others[1:]:
        u, v, w = x - x0, y - y0, z - z0
        if math.hypot(b * w - c * v, c * u - a * w, a * v - b * u) > 1e-2 * size * math.hypot(u, v, w):
            return False
    return True


def _limit(first: str, second: str, order: int, multiplicity: int) -> float:
    """Angstrom."""
    single = _radius(first) + _radius(second)
    if first in _S_ONLY and second in _S_ONLY:
        return STRETCHED_S_ONLY * single
    if "H" in (first, second):
        return single * (STRETCHED_RADICAL if multiplicity == 2 else STRETCHED_TO_HYDROGEN)
    if order > 1 and first in _MULTIPLE and second in _MULTIPLE:
        return STRETCHED_MULTIPLE * (_MULTIPLE[first][order - 2] + _MULTIPLE[second][order - 2])
    return STRETCHED_SINGLE * single


def _shortest_tree(lengths: dict[tuple[int, int], float], n_atoms: int) -> list[tuple[int, int]]:
    """Prim's minimum spanning tree: pairs (i, j) with i > j."""
    joined, tree = {0}, []
    while len(joined) < n_atoms:
        pair = min((p for p in lengths if (p[0] in joined) != (p[1] in joined)), key=lambda p: (lengths[p], p))
        joined |= set(pair)
        tree.append(pair)
    return tree


@cache
def _radius(element: str) -> float:
    return _SINGLE[min(SYMBOLS.index(element), len(_SINGLE) - 1)]
