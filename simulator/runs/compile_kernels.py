"""Compiles the engines' kernels, by short runs in memory that need each of them: `python -m simulator.runs.compile_kernels`.

Installers and images call it. Without it the first run that needs a kernel compiles it while somebody waits for an energy.
Nothing is written but Numba's cache.
"""

from typing import Any

from simulator.chemistry.molecules import load_molecule
from simulator.engines.rotations import Rotations
from simulator.engines.sector import sector_layout
from simulator.operators.excitations import uccsd
from simulator.runs.library import run_vqe
from simulator.vqe.spec import make_spec

RUNS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("lih", {"engine": "sector"}),
    ("lih", {"engine": "statevector"}),  # large enough for occupation strings
    ("h2", {"engine": "statevector", "ansatz": "efficient_su2", "max_iterations": 3}),
)
"""Molecules and options of runs that between them need every kernel but one; a test holds that."""


def compile_kernels() -> None:
    """Compile what is not in Numba's cache."""
    for name, options in RUNS:
        run_vqe(make_spec(load_molecule(name), **options))
    # Only vectors that no cache of a processor holds are rotated in several runs; here a small one counts as such.
    Rotations(sector_layout(4, (2, 2), None), uccsd(4, (2, 2)), cached=64)


if __name__ == "__main__":
    compile_kernels()
