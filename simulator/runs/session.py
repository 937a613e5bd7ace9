"""One run of a task from its specification to the event that ends it: what every command that runs something calls."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any

import structlog

from simulator.checkpoint import Checkpoint
from simulator.errors import InputError, Interrupted, StorageError, VqeError
from simulator.events.records import Event, new_id, now_micros
from simulator.log import get_logger
from simulator.settings import Settings
from simulator.sinks import Sink
from simulator.stages import Stages
from simulator.tasks.base import Ended, Execution, Observer, Task, TaskRun

SWITCH_SECONDS = 5e-4


class Session:
    """Runs tasks one after another into a sink.

    What the tasks of one kind share, e.g. integrals and Hamiltonians of the last problems, is kept from one to the next.

    Args:
        sink: takes the events; the session's owner closes it.
        settings: how much is recorded.
        sweep_id: the sweep that the runs belong to, if any.
    """

    def __init__(self, sink: Sink, settings: Settings, *, sweep_id: str | None = None) -> None:
        self.sink, self.settings, self.sweep_id = sink, settings, sweep_id
        self.stop_requested = False
        self._may_be_left = False
        self._memory: dict[str, dict[str, Any]] = {}

    def request_stop(self) -> None:
        """End the run under way as interrupted; for signal handlers, which Python calls in the main thread.

        What keeps something when it ends, such as an optimizer with its best point, ends at its next step. Every other stage
        has nothing to keep and may take minutes, so it is left at once.

        Raises:
            Interrupted: from within such a stage.
        """
        self.stop_requested = True
        if self._may_be_left and not _importing():
            self._may_be_left = False
            raise Interrupted

    def memory(self, kind: str) -> dict[str, Any]:
        """What this session keeps for the tasks of a kind."""
        return self._memory.setdefault(kind, {})

    def execute(
        self,
        task: Task,
        name: str,
        *,
        attempt: int = 1,
        observer: Observer | None = None,
        resumed: Checkpoint | None = None,
        keep: Callable[[Checkpoint], None] | None = None,
        begins: Callable[[str], None] | None = None,
    ) -> Any:
        """Run one task; its events go to the sink, the last of them is returned.

        Args:
            task: what to run.
            name: what the user calls it.
            attempt: which attempt at this specification, from 1.
            observer: is told stages and iterations.
            resumed: the checkpoint of an earlier attempt, from which this one goes on.
            keep: is given the best point so far, where the task has one.
            begins: is told the run's id before anything else happens.

        Raises:
            InputError: the specification cannot be run, e.g. an unknown basis; a failed result was emitted.
            StorageError: events could not be kept.
        """
        run_id, began = new_id(), time.monotonic()
        stages = Stages(partial(self._begin_stage, task.keeps_in))
        run = TaskRun(
            run_id=run_id, name=name, sweep_id=self.sweep_id, attempt=attempt, started_at=now_micros(), settings=self.settings,
            emit=self.sink.emit, stages=stages, stop_requested=lambda: self.stop_requested, may_be_left=self._leaving,
            memory=self.memory(task.kind), observer=observer, resumed=resumed, keep=keep,
        )  # fmt: skip
        if begins is not None:
            begins(run_id)
        with structlog.contextvars.bound_contextvars(run_id=run_id, spec_id=task.spec_id):
            execution = task.execution(run)
            self.sink.emit(execution.began())
            status, error, raised, samples = self._work(run_id, task, execution)
            seconds = time.monotonic() - began
            result: Event = execution.ended(Ended(status, error, seconds, tuple(stages.rows()), samples))
            self.sink.emit(result)
        if isinstance(raised, InputError):
            raise raised
        return result

    def _work(self, run_id: str, task: Task, execution: Execution) -> tuple[str, str | None, BaseException | None, int]:
        """Status, error line, the exception behind it, and the monitor's samples."""
        from simulator.observability.monitor import Monitor

        monitor = Monitor(run_id, self.sink.emit, interval=self.settings.monitor_interval)
        try:
            with monitor:
                task.check_size()
                whole = execution.execute()
            # A stop that came too late to shorten the run counts all the same: its caller is told one thing.
            self.stop_requested |= not whole
            status = "interrupted" if self.stop_requested else "completed"
            outcome: tuple[str, str | None, BaseException | None] = (status, None, None)
        except KeyboardInterrupt as stop:
            self.stop_requested = True
            outcome = ("interrupted", None, stop)
        except StorageError:
            raise
        except VqeError as known:
            outcome = ("failed", str(known), known)
        except MemoryError as known:
            outcome = ("failed", "the machine ran out of memory", known)
        except Exception as unknown:
            if _from_stop(unknown):
                self.stop_requested = True
                return ("interrupted", None, unknown, monitor.samples)
            get_logger().error("run failed", exc_info=True)
            line = " ".join(str(unknown).split())
            outcome = ("failed", f"{type(unknown).__name__}: {line}"[:2000], unknown)
        finally:
            self._may_be_left = False
        return (*outcome, monitor.samples)

    def _begin_stage(self, keeping: frozenset[str], stage: str) -> None:
        self._may_be_left = stage not in keeping
        if self.stop_requested:
            raise Interrupted

    @contextlib.contextmanager
    def _leaving(self) -> Iterator[None]:
        before, self._may_be_left = self._may_be_left, True
        try:
            if self.stop_requested:
                raise Interrupted
            yield
        finally:
            self._may_be_left = before


def switch_threads_often() -> None:
    """Let threads that write and deliver events have the interpreter after 0.5 instead of 5 ms, in the whole process.

    It is for processes that do nothing else: the command and its children, never the library.
    """
    sys.setswitchinterval(min(SWITCH_SECONDS, sys.getswitchinterval()))


def _importing() -> bool:
    """Whether a module is being loaded: NumPy and others cannot be loaded again after an interrupted attempt."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _from_stop(error: BaseException | None) -> bool:
    """Whether an error is how a library passed on that the run was asked to stop."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False
