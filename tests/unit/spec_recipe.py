"""Two hundred specifications whose ids must never change (the spec_id of those with shots has), as arguments of `make_spec`."""

import itertools
import json
import random
from pathlib import Path
from typing import Any

from simulator.chemistry.molecules import Molecule, bundled_molecules

IDS = Path(__file__).parent / "spec_ids.json"
"""spec_id and problem_id of each, as the first release gave them."""

_OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"basis": "6-31g"},
    {"basis": "cc-pvdz", "freeze_core": True},
    {"basis": "def2-svp", "mapper": "parity"},
    {"mapper": "bravyi_kitaev", "optimizer": "slsqp", "seed": 7},
    {"ansatz": "efficient_su2", "reps": 3, "seed": 4_294_967_295},
    {"ansatz": "excitation_preserving", "optimizer": "cobyla", "max_iterations": 77},
    {"engine": "aer", "shots": 1024, "optimizer": "spsa"},
    {"initial_point": "random", "seed": 3, "tolerance": 1e-7},
)


def recipes() -> list[tuple[Molecule, dict[str, Any]]]:
    """Bundled molecules with many options, ions and doublets of them, slightly stretched ones, and water at random places."""
    found = list(itertools.product(bundled_molecules(), _OPTIONS))  # 18 * 9 = 162
    for molecule, scale in itertools.product(bundled_molecules(), (0.95, 1.05)):
        if molecule.multiplicity > 2 or molecule.name == "h4-square":
            continue  # several unpaired electrons, degenerate determinants: specifications of version 2
        geometry = tuple((x * scale, y * scale, z * scale) for x, y, z in molecule.geometry)
        found.append((Molecule("", molecule.elements, geometry, molecule.charge, molecule.multiplicity), {"seed": 1}))
    place = random.Random(7)
    for _ in range(8):
        x, y, z = (round(place.uniform(-3, 3), 5) for _ in range(3))
        water = (
            (x, y, z),
            (x, round(y + 0.7572, 5), round(z + 0.5865, 5)),
            (x, round(y - 0.7572, 5), round(z + 0.5865, 5)),
        )
        found.append(
            (
                Molecule("", ("O", "H", "H"), water, 0, 1),
                {"basis": "6-31g**", "active_electrons": 4, "active_orbitals": 4},
            )
        )
    return found


def ids() -> list[list[str]]:
    """spec_id and problem_id of each."""
    from simulator.vqe.spec import make_spec

    specs = [make_spec(molecule, **options) for molecule, options in recipes()]
    return [[spec.spec_id, spec.problem_id] for spec in specs]


if __name__ == "__main__":  # only ever run with the first release: what is written must not change
    IDS.write_text(json.dumps(ids(), indent=0) + "\n")
