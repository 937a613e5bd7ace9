"""How often the garbage collector looks for cycles, in processes that do nothing but run: the command and its children."""

import gc

NEW_OBJECTS = 100_000
"""Containers that are made between two looks. Loading packages makes hundreds of thousands that stay: with Python's default of 700
the looks at them took 0.4 of the 2.6 CPU seconds of `vqe run h2`, with this 0.1."""


def collect_garbage_seldom() -> None:
    """Have the collector look after 100,000 new containers instead of 700, in the whole process.

    Arrays are freed by their reference counts, so this does not let large ones wait. The library never calls this: a program
    that imports it has its own idea of its collector.
    """
    first, *others = gc.get_threshold()
    if first:  # 0: the collector is off, and whoever turned it off wants that
        gc.set_threshold(max(first, NEW_OBJECTS), *others)
