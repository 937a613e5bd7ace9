"""Kernels in threads: how many, and pieces of work shared out among them.

numba's own parallel loops cost seconds of compilation and a second runtime of threads; kernels that hold no lock of Python's run in
ordinary threads as well.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from itertools import pairwise

from simulator.chemistry.integrals import SINGLE_THREADED


def engine_threads(size: int) -> int:
    """Threads for vectors over `size` determinants or amplitudes; one for short ones."""
    return 1 if size < SINGLE_THREADED else allowed_threads()


def allowed_threads() -> int:
    """OMP_NUM_THREADS, else as many threads as this process may run on processors."""
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(given) if given.isdecimal() and int(given) > 0 else len(os.sched_getaffinity(0))


def in_threads(n_threads: int, n_items: int, work: Callable[[int, int], None]) -> None:
    """Call work(first, last) for pieces of range(n_items), which must not write to the same place; one a thread, the caller's first.

    More pieces would share the work out more evenly, but each call of a kernel holds Python's lock while its arrays are handed over:
    eight a thread took longer with two threads than with one (853,776 determinants).

    Raises:
        Exception: the first that a piece raised.
    """
    if n_threads == 1 or n_items < 2:
        work(0, n_items)
        return
    n_pieces = min(n_items, n_threads)
    edges = [n_items * piece // n_pieces for piece in range(n_pieces + 1)]
    (first, last), *others = pairwise(edges)
    futures = [_pool(n_threads - 1).submit(work, i, j) for i, j in others]
    try:
        work(first, last)
    finally:
        wait(futures)
    for future in futures:
        future.result()


@cache
def _pool(n_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n_threads, thread_name_prefix="engine")
