"""Energies of molecules in random orientations with rounded coordinates, against PySCF without symmetry at the same coordinates.

OMP_NUM_THREADS=1 python benchmarks/orientations.py [orientations]

Rounding moves atoms, and the energy with them; what must not change is the energy at given coordinates, whatever point group is
detected in them. Prints a line a molecule and number of decimals, and ends with 1 where an energy differs by more than 1e-7
hartree.
"""

import sys
from collections import Counter

import numpy as np
from pyscf import gto, scf
from scipy.stats import special_ortho_group

from simulator.chemistry.integrals import solve_orbitals
from simulator.chemistry.molecules import Molecule, load_molecule
from simulator.chemistry.scf import without_checkpoint
from simulator.vqe.spec import make_spec

TOLERANCE = 1e-7
"""Hartree."""

# fmt: off
OTHERS = {
    "ethylene": (("C", (0, 0, 0.6695)), ("C", (0, 0, -0.6695)), ("H", (0, 0.9289, 1.2321)), ("H", (0, -0.9289, 1.2321)),
                 ("H", (0, 0.9289, -1.2321)), ("H", (0, -0.9289, -1.2321))),
    "acetylene": (("C", (0, 0, 0.6)), ("C", (0, 0, -0.6)), ("H", (0, 0, 1.66)), ("H", (0, 0, -1.66))),
    "benzene": tuple(
        (element, (radius * np.cos(k * np.pi / 3), radius * np.sin(k * np.pi / 3), 0.0))
        for element, radius in (("C", 1.395), ("H", 2.482)) for k in range(6)
    ),
    "borane": tuple([("B", (0, 0, 0))] + [
        ("H", (1.19 * np.cos(2 * k * np.pi / 3), 1.19 * np.sin(2 * k * np.pi / 3), 0.0)) for k in range(3)
    ]),
}
# fmt: on
BUNDLED = ("h2o", "nh3", "ch4", "beh2", "n2", "h3+")


def main() -> int:
    orientations = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    worst = 0.0
    for name, elements, positions, charge in _molecules():
        for decimals in (4, 5, 6):
            differences, groups = [], Counter[str]()
            for seed in range(orientations):
                rotation = special_ortho_group.rvs(3, random_state=seed)
                rounded = tuple(map(tuple, np.round(positions @ rotation.T, decimals).tolist()))
                spec = make_spec(Molecule("", elements, rounded, charge, 1))
                found = solve_orbitals(spec, check=False)
                groups[str(found.solution.mf.mol.topgroup) if found.orbsym is not None else "C1"] += 1
                differences.append(abs(found.solution.energy - _plain(spec.molecule)))
            worst = max(worst, *differences)
            print(f"{name:10} {decimals} decimals: {max(differences):.1e} hartree at most, {dict(groups)}", flush=True)
    print(f"worst of all: {worst:.1e} hartree")
    return int(worst > TOLERANCE)


def _molecules() -> list[tuple[str, tuple[str, ...], np.ndarray, int]]:
    found = []
    for name in BUNDLED:
        molecule = load_molecule(name)
        found.append((name, molecule.elements, np.array(molecule.geometry), molecule.charge))
    for name, atoms in OTHERS.items():
        found.append((name, tuple(e for e, _ in atoms), np.array([p for _, p in atoms], dtype=float), 0))
    return found


def _plain(molecule: Molecule) -> float:
    """RHF by PySCF without symmetry, hartree."""
    atoms = list(zip(molecule.elements, molecule.geometry, strict=True))
    mol = gto.M(atom=atoms, basis="sto-3g", charge=molecule.charge, verbose=0)
    return float(without_checkpoint(scf.RHF(mol)).run(conv_tol=1e-11).e_tot)


if __name__ == "__main__":
    sys.exit(main())
