"""One thread a process: the tests run one process a core, and threads that wait for each other on a busy core spin.

The tests of simulator/chemistry/fci.py took 72 CPU seconds with two threads on two cores, 10 with one.
"""

import gc
import os

for library in ("OMP", "OPENBLAS", "MKL", "NUMBA"):  # before the first test loads NumPy
    os.environ[f"{library}_NUM_THREADS"] = "1"

# A process that has loaded thousands of tests and every library has millions of objects that the collector looks through in vain.
gc.set_threshold(100_000, 20, 20)
