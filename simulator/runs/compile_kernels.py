"""Compiles the engines' kernels, by short runs in memory that need each of them: `python -m simulator.runs.compile_kernels`.

Installers and images call it. Without it the first run that needs a kernel compiles it while somebody waits for an energy.
Nothing is written but Numba's cache.
"""

from typing import Any

import numpy as np

from simulator.chemistry.molecules import load_molecule
from simulator.engines.contraction import SMALL, Contraction
from simulator.engines.rotations import Rotations
from simulator.engines.sector import sector_layout
from simulator.engines.strings import number_pairs
from simulator.operators.excitations import uccsd
from simulator.runs.library import run_vqe
from simulator.vqe.spec import make_spec

RUNS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("lih", {"engine": "sector"}),
    ("lih", {"engine": "statevector"}),  # large enough for occupation strings
    ("h2", {"engine": "statevector", "ansatz": "efficient_su2", "max_iterations": 3}),
    ("h2", {"shots": 100, "optimizer": "spsa", "max_iterations": 1}),
)
"""Molecules and options of runs that between them need every kernel of small vectors."""


def compile_kernels() -> None:
    """Compile what is not in Numba's cache."""
    for name, options in RUNS:
        run_vqe(make_spec(load_molecule(name), **options))
    # Large vectors are shared out among threads and rotated in several runs: here small ones are made to count as large.
    Rotations(sector_layout(4, (2, 2), None), uccsd(4, (2, 2)), cached=64)
    norb, nelec = 9, (4, 4)
    layout = sector_layout(norb, nelec, None)
    assert layout.size >= SMALL
    h_of_nothing = Contraction(
        layout, number_pairs(np.zeros(norb, np.int64)), np.zeros((norb,) * 2), np.zeros((norb,) * 4), 2
    )
    h_of_nothing(np.zeros(layout.size))


if __name__ == "__main__":
    compile_kernels()
