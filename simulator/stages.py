"""Where a run's time goes: seconds and calls of each named stage."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class StageRow:
    """Time of one stage, summed over its calls."""

    stage: str
    seconds: float
    calls: int


class Stages:
    """A stopwatch: `with stages("integrals"): ...` adds the time of the block to that stage.

    Stages may nest; an outer stage's time includes the inner one's.

    Args:
        begins: told the name of each stage before it begins; what it raises ends the run there.
    """

    def __init__(self, begins: Callable[[str], None] | None = None) -> None:
        self._begins = begins
        self._seconds: dict[str, float] = {}
        self._calls: dict[str, int] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        if self._begins is not None:
            self._begins(stage)
        began = time.perf_counter()
        self._seconds.setdefault(stage, 0.0)
        self._calls.setdefault(stage, 0)
        try:
            yield
        finally:
            self._seconds[stage] += time.perf_counter() - began
            self._calls[stage] += 1

    def rows(self) -> list[StageRow]:
        """One row a stage, in the order in which they began first."""
        return [StageRow(stage, seconds, self._calls[stage]) for stage, seconds in self._seconds.items()]
