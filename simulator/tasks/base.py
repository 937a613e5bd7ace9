"""What a task is: something that can be asked for, run by any session, and told of in events.

A kind of task is a class with the members of `Task`. It is asked for by a frozen specification whose canonical JSON can be kept in
a queue, and it becomes an `Execution` each time it is run. Sessions, child processes, workers and the queue know these two and
nothing of what a kind computes.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self

from simulator.checkpoint import Checkpoint
from simulator.events.records import Event
from simulator.settings import Settings
from simulator.stages import StageRow, Stages


class Observer(Protocol):
    """Is told how a run goes on, in the run's own thread; must return at once."""

    def stage(self, name: str) -> None: ...
    def iteration(self, event: Any) -> None: ...


@dataclass(frozen=True)
class TaskRun:
    """One run of a task, as its session gives it to the task.

    Args:
        run_id: names the run in every event.
        name: what the user calls what is run.
        sweep_id: the sweep that it belongs to, if any.
        attempt: which attempt at the specification, from 1.
        started_at: microseconds since 1970, UTC.
        settings: how much is recorded, and where.
        emit: sends an event; never waits.
        stages: a stopwatch: `with stages("integrals"): ...`. A stop that was asked for ends the run where a stage begins.
        stop_requested: whether the run is to end with what it has.
        may_be_left: `with may_be_left(): ...` marks work that keeps nothing when it is left in its middle.
        memory: what the session keeps for all tasks of this kind, e.g. problems that they share.
        observer: is told stages and iterations.
        resumed: the point from which the run goes on, where an earlier attempt left one.
        keep: is given the best point so far; how often it is stored is the keeper's to decide.
    """

    run_id: str
    name: str
    sweep_id: str | None
    attempt: int
    started_at: int
    settings: Settings
    emit: Callable[[Event], None]
    stages: Stages
    stop_requested: Callable[[], bool]
    may_be_left: Callable[[], AbstractContextManager[None]]
    memory: dict[str, Any] = field(default_factory=dict)
    observer: Observer | None = None
    resumed: Checkpoint | None = None
    keep: Callable[[Checkpoint], None] | None = None

    def tell_stage(self, name: str) -> None:
        """Tell the observer what begins now."""
        if self.observer is not None:
            self.observer.stage(name)


@dataclass(frozen=True)
class Ended:
    """How a run ended: what a session knows of it and the task does not."""

    status: str  # completed, failed or interrupted
    error: str | None
    seconds: float
    stages: tuple[StageRow, ...]
    samples: int  # records of the performance monitor


class Execution(Protocol):
    """A task while it is run. It keeps what it has reached, so that a failed or interrupted run is told of, too."""

    def began(self) -> Event:
        """The event that tells of the run's begin."""

    def execute(self) -> bool:
        """Do the work; returns whether it was done to its end, False where it was asked to stop and kept what it had.

        Raises:
            InputError: what was asked for cannot be run.
            RunFailed: it went wrong.
            Interrupted: asked to stop with nothing to keep.
        """

    def ended(self, how: Ended) -> Event:
        """The event that tells how the run ended."""


class Task(Protocol):
    """What can be asked for."""

    kind: ClassVar[str]
    """The name under which the registry, the queue and the metrics know it."""
    result_stream: ClassVar[str]
    """The stream of the events that end its runs; they have run_id, spec_id, status and recorded_at."""
    keeps_in: ClassVar[frozenset[str]]
    """Stages that end by themselves when a stop is asked for, with something to keep; any other is left at once."""

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The task of a canonical JSON.

        Raises:
            InputError: the text is not that of a specification.
        """

    def canonical_json(self) -> str:
        """The specification as canonical JSON (RFC 8785), from which `from_json` makes it again."""

    @property
    def spec_id(self) -> str:
        """SHA-256 of the canonical JSON, in hex."""

    @property
    def device(self) -> str:
        """Where it runs: `cpu` or `gpu`."""

    @property
    def title(self) -> str:
        """What it is called where its user gave no name."""

    def check_size(self) -> None:
        """Refuse what would not fit, as far as the specification alone tells it; nothing is allocated.

        Raises:
            InputError: what is too large, and what would fit.
        """

    def execution(self, run: TaskRun) -> Execution:
        """The task as one run of it."""

    @staticmethod
    def summary(result: Any) -> dict[str, Any]:
        """The event that ended a run as `--json` prints it, with at least run_id, spec_id, status and error."""

    @staticmethod
    def exit_code(result: Any) -> int:
        """0 done; 1 failed or not to be believed; 130 interrupted."""
