"""The VQE pipeline as a library. Names are loaded when they are first used, so that importing the package costs nothing.

>>> from simulator import load_molecule, make_spec, run_vqe
>>> result = run_vqe(make_spec(load_molecule("h2")))
>>> round(result.energy, 6)
-1.137306
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulator.chemistry.molecules import Molecule as Molecule
    from simulator.chemistry.molecules import load_molecule as load_molecule
    from simulator.chemistry.molecules import molecule_from_atoms as molecule_from_atoms
    from simulator.operators.hamiltonian import QubitHamiltonian as QubitHamiltonian
    from simulator.operators.hamiltonian_input import load_hamiltonian as load_hamiltonian
    from simulator.runs.library import Result as Result
    from simulator.runs.library import run_vqe as run_vqe
    from simulator.vqe.spec import Noise as Noise
    from simulator.vqe.spec import RunSpec as RunSpec
    from simulator.vqe.spec import make_spec as make_spec
    from spark_jobs.opened import Tables as Tables
    from spark_jobs.opened import open_tables as open_tables

__version__ = "0.1.0"

_FOUND_IN = {
    "Molecule": "simulator.chemistry.molecules",
    "load_molecule": "simulator.chemistry.molecules",
    "molecule_from_atoms": "simulator.chemistry.molecules",
    "QubitHamiltonian": "simulator.operators.hamiltonian",
    "load_hamiltonian": "simulator.operators.hamiltonian_input",
    "Noise": "simulator.vqe.spec",
    "RunSpec": "simulator.vqe.spec",
    "make_spec": "simulator.vqe.spec",
    "Result": "simulator.runs.library",
    "run_vqe": "simulator.runs.library",
    "Tables": "spark_jobs.opened",
    "open_tables": "spark_jobs.opened",
}
"""The public names and the modules that hold them."""

__all__ = ["__version__", *_FOUND_IN]


def __getattr__(name: str) -> Any:
    if name not in _FOUND_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_FOUND_IN[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_FOUND_IN})
