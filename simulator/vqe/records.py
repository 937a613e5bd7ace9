"""A VQE specification and its molecule as the records `Spec` and `Molecule` of the events."""

import json
from typing import Any

from simulator.chemistry.molecules import Molecule
from simulator.vqe.spec import LATER_FIELDS, RunSpec


def molecule_record(molecule: Molecule) -> dict[str, Any]:
    """The `Molecule` record of `vqe_run`."""
    return {
        "formula": molecule.formula,
        "elements": list(molecule.elements),
        "geometry": [list(atom) for atom in molecule.geometry],
        "charge": molecule.charge,
        "multiplicity": molecule.multiplicity,
        "n_electrons": molecule.n_electrons,
        "nuclear_repulsion": molecule.nuclear_repulsion,
    }


def spec_record(spec: RunSpec) -> dict[str, Any]:
    """The `Spec` record of `vqe_run` and `vqe_result`; option values are JSON, as their types differ."""
    values = {**spec.to_dict(), "optimizer_options": {k: json.dumps(v) for k, v in spec.optimizer_options}}
    # The record is as the first release made it: later fields of specifications are fields of the result, and all are in its
    # JSON.
    return {name: value for name, value in values.items() if name not in LATER_FIELDS}
