"""A process that runs specifications for another one: it isolates crashes and leaves its parent free to answer.

The parent sends jobs over a pipe; the child writes events to its own sink and sends back what became of each.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

from simulator.checkpoint import Checkpoint
from simulator.errors import DoesNotFit, InputError, StorageError, VqeError, one_line
from simulator.garbage import collect_garbage_seldom
from simulator.runs.checkpoints import Keeper
from simulator.runs.sink import make_sink
from simulator.settings import Settings
from simulator.signals import STOP_SIGNALS
from simulator.tasks.registry import task_from_json


@dataclass(frozen=True)
class ChildJob:
    """A run for a child: everything it needs, as it travels over the pipe."""

    kind: str
    spec_json: str
    name: str
    sweep_id: str | None
    attempt: int = 1
    checkpoint: Checkpoint | None = None  # from which the run goes on


@dataclass(frozen=True)
class ChildAnswer:
    """What became of a job."""

    spec_id: str
    exit_code: int  # as of `vqe run`: 0, 1, 2, 130
    summary: dict[str, Any] | None  # what `--json` prints of the run
    error: str | None
    delivered: bool  # whether the sink has acknowledged all of it: it is on disk, or Kafka has it
    died: bool = False  # the process ended in the run: whose fault that was is not known
    does_not_fit: bool = False  # there was too little memory at that moment

    @property
    def completed(self) -> bool:
        """Whether the run has a completed result, converged and physical or not."""
        return self.summary is not None and self.summary["status"] == "completed"


@dataclass(frozen=True)
class _Reached:
    """What a child tells while it runs a job: the run's id when it begins, later its checkpoints."""

    run_id: str
    checkpoint: Checkpoint | None


@dataclass(frozen=True)
class _CannotWork:
    """Why a child ends, e.g. a disk that is full: no job is to blame, and the next would fare no better."""

    error: VqeError


DELIVERY = ("delivered", "delivered_bytes", "failed", "rejected")
"""What a child with the Kafka sink shares with its parent while it works: fields of `Delivery`."""
_DELIVER = "deliver"
"""Said to a child in place of a job: wait for Kafka once more and answer the last job again."""
_SHARE_SECONDS = 1.0
_END_SECONDS = 5.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_STARTS = 3
"""Fresh processes that a job is offered before a child that dies at once is an error."""


class Child:
    """One child process and the job it has."""

    def __init__(self, settings: Settings, *, threads: int = 1) -> None:
        self._settings, self._threads = settings, threads
        self.job: ChildJob | None = None
        self.run_id: str | None = None
        """Of the job's run, as soon as it has begun."""
        self.checkpoint: Checkpoint | None = None
        """The run's last one; who stores it sets it to None."""
        self._shared: Any = None
        self._before = dict.fromkeys(DELIVERY, 0)
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._before = self.delivery
        self._shared = context.RawArray("q", len(DELIVERY))
        self.pipe, theirs = context.Pipe()
        in_main_thread = threading.current_thread() is threading.main_thread()
        self.process = context.Process(
            target=_child, args=(theirs, self._settings, self._threads, self._shared, in_main_thread), daemon=False
        )
        # Numerical libraries read the environment when they are loaded.
        with _environment(self._threads), _signals_wait(), _without_main_module():
            self.process.start()
        theirs.close()

    @property
    def delivery(self) -> dict[str, int]:
        """What this child, and those that it replaced, delivered to Kafka; a second old at most."""
        shared = self._shared or (0,) * len(DELIVERY)
        return {name: self._before[name] + shared[i] for i, name in enumerate(DELIVERY)}

    def submit(self, job: ChildJob) -> None:
        """Give the child a job; it must have none. A child that died while it was idle is replaced.

        Raises:
            VqeError: no child can be started.
        """
        for _ in range(_STARTS):
            if not self.process.is_alive():
                self._replace()
            try:
                self.pipe.send(job)
            except OSError:  # it died meanwhile
                self.process.join(_END_SECONDS)
                continue
            self.job, self.run_id, self.checkpoint = job, None, None
            return
        raise VqeError(f"the process that is to run VQE {self._how_it_ended()}, {_STARTS} times in a row")

    def deliver(self) -> None:
        """Let the child wait for Kafka once more; the answer to its last job comes again, delivered or not."""
        with contextlib.suppress(OSError):  # it died meanwhile, and the next look at its answer says so
            self.pipe.send(_DELIVER)

    def answer(self) -> ChildAnswer | None:
        """What became of the job, when the child has said so or died; a dead child is replaced.

        Raises:
            VqeError: the child cannot work at all, for a reason that is not the job's.
        """
        job = self.job
        if (answer := self._received()) is not None:
            self._take(answer)
            return answer
        if self.process.is_alive() or job is None:
            return None
        self.process.join()
        if (answer := self._received()) is not None:  # sent between the look into the pipe and the end
            self._take(answer)
            return answer
        how = self._how_it_ended()
        self.job = None
        self._replace()
        spec_id = task_from_json(job.kind, job.spec_json).spec_id
        return ChildAnswer(spec_id, 1, None, f"the process that ran it {how}", False, died=True)

    def _take(self, answer: ChildAnswer) -> None:
        if answer.delivered or answer.exit_code == 130:  # else it may be asked to deliver
            self.job = None

    def _received(self) -> ChildAnswer | None:
        while True:
            try:
                received: ChildAnswer | _CannotWork | _Reached | None = self.pipe.recv() if self.pipe.poll() else None
            except (EOFError, OSError):
                return None
            if isinstance(received, _CannotWork):
                raise received.error
            if not isinstance(received, _Reached):
                return received
            self.run_id, self.checkpoint = received.run_id, received.checkpoint or self.checkpoint

    def _how_it_ended(self) -> str:
        code = self.process.exitcode or 0
        return f"was killed by signal {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"

    def _replace(self) -> None:
        """Start a process in place of the one that has ended; raises what kept that one from working."""
        self._received()
        self.pipe.close()
        self.process.join()
        self._start()

    def interrupt(self) -> None:
        """Ask the run to stop at its next evaluation; its result says `interrupted`."""
        if self.process.is_alive() and self.process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGTERM)

    def close(self, seconds: float = 30.0) -> None:
        """Let the child finish what it has and end."""
        with contextlib.suppress(OSError):
            self.pipe.send(None)
        self.process.join(seconds)
        self.kill()

    def kill(self) -> None:
        """End the child at once, if it has not ended; what its sink has written is recovered by the next process."""
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self.pipe.close()


@contextlib.contextmanager
def _environment(threads: int):  # type: ignore[no-untyped-def]
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _signals_wait():  # type: ignore[no-untyped-def]
    """A process started in this block has no stop signal before it is ready for them: it takes over the signal mask."""
    from multiprocessing.resource_tracker import ensure_running

    ensure_running()  # which resets the mask where it has to start its own process
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _without_main_module():  # type: ignore[no-untyped-def]
    """A process started in this block does not load this one's main module, of which it needs nothing: that of the command takes
    0.1 s, and a script of a user would be run again."""
    main = sys.modules["__main__"]
    before: dict[str, Any] = {name: vars(main)[name] for name in ("__spec__", "__file__") if name in vars(main)}
    main.__spec__ = None
    vars(main).pop("__file__", None)
    try:
        yield
    finally:
        vars(main).update(before)


def _child(pipe: Connection, settings: Settings, threads: int, shared: Any, parents_main_thread: bool) -> None:
    """Run jobs until the pipe says stop or its other end is gone."""
    _end_with_parent(parents_main_thread)
    from simulator import log
    from simulator.runs.session import Session, switch_threads_often

    switch_threads_often()
    collect_garbage_seldom()

    for number in (signal.SIGINT, signal.SIGHUP):  # reach the whole group; the parent says who stops
        signal.signal(number, signal.SIG_IGN)
    log.configure(settings.log_level, settings.log_format)
    try:
        sink = make_sink(settings)
    except VqeError as error:
        with contextlib.suppress(OSError):
            pipe.send(_CannotWork(error))
        return
    session = Session(sink, settings)
    signal.signal(signal.SIGTERM, lambda *_: session.request_stop())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    if settings.sink == "kafka":
        threading.Thread(target=_share, args=(sink.delivery, shared), name="share", daemon=True).start()
    try:
        while True:
            try:
                job = pipe.recv()
            except (EOFError, OSError):
                return
            if job is None:
                return
            try:
                if job != _DELIVER:
                    answer = _run_job(session, job, pipe)
                answer = replace(answer, delivered=sink.deliver(settings.delivery_seconds))
            except StorageError as error:
                with contextlib.suppress(OSError):
                    pipe.send(_CannotWork(error))
                return
            if settings.sink == "kafka":
                _copy(sink.delivery, shared)
            with contextlib.suppress(OSError):
                pipe.send(answer)
    finally:
        with contextlib.suppress(Exception):
            sink.close()
        sys.stdout.flush()


def _end_with_parent(parents_main_thread: bool) -> None:
    """End this process as soon as its parent has ended, however that ended: a run that goes on alone would be
    completed beside the one that the parent's successor makes of the same specification.

    Linux' own signal does not depend on this process: its main thread may be in a library for minutes. But the kernel
    sends it when the parent's *thread* ends, so it is asked for only where that thread is the main one. A thread that
    waits for the parent's end of a pipe to close works everywhere.
    """
    from multiprocessing import connection, parent_process

    parent = parent_process()
    assert parent is not None, "children are started by multiprocessing"

    def watch() -> None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="parent", daemon=True).start()
    if sys.platform == "linux" and parents_main_thread:
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent.pid:  # it ended before the kernel was asked
            os.kill(os.getpid(), signal.SIGKILL)


def _share(delivery: Any, shared: Any) -> None:
    while True:
        _copy(delivery, shared)
        time.sleep(_SHARE_SECONDS)


def _copy(delivery: Any, shared: Any) -> None:
    for i, name in enumerate(DELIVERY):
        shared[i] = getattr(delivery, name)


def _run_job(session: Any, job: ChildJob, pipe: Connection) -> ChildAnswer:
    session.sweep_id = job.sweep_id

    def tell(run_id: str, checkpoint: Checkpoint | None = None) -> None:
        with contextlib.suppress(OSError):  # the parent is gone, and this process ends with it
            pipe.send(_Reached(run_id, checkpoint))

    keeper = Keeper(lambda checkpoint: tell(checkpoint.run_id, checkpoint), session.settings.checkpoint_seconds)
    try:
        task = task_from_json(job.kind, job.spec_json)
    except InputError as error:
        return ChildAnswer("", 2, None, str(error), True)
    try:
        result = session.execute(
            task, job.name, attempt=job.attempt, resumed=job.checkpoint, keep=keeper, begins=tell
        )  # fmt: skip
    except InputError as error:
        return ChildAnswer(task.spec_id, 2, None, str(error), True, does_not_fit=isinstance(error, DoesNotFit))
    except StorageError:
        raise
    except Exception as error:
        return ChildAnswer(task.spec_id, 1, None, f"{type(error).__name__}: {one_line(error)}", False)
    finally:
        session.stop_requested = False
    summary = task.summary(result)
    if summary["status"] == "interrupted":
        keeper.flush()
    return ChildAnswer(task.spec_id, task.exit_code(result), summary, summary["error"], True)
