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

from simulator.errors import InputError
from simulator.settings import Settings
from simulator.spec import RunSpec


@dataclass(frozen=True)
class ChildJob:
    """A run for a child: everything it needs, as it travels over the pipe."""

    spec_json: str
    name: str
    sweep_id: str | None
    attempt: int = 1


@dataclass(frozen=True)
class ChildAnswer:
    """What became of a job."""

    spec_id: str
    exit_code: int  # as of `vqe run`: 0, 1, 2, 130
    summary: dict[str, Any] | None  # what `--json` prints of the run
    error: str | None
    delivered: bool  # whether Kafka has all of it (True with the file sink)

    @property
    def completed(self) -> bool:
        """Whether the run has a completed result, converged and physical or not."""
        return self.summary is not None and self.summary["status"] == "completed"


DELIVERY = ("delivered", "delivered_bytes", "failed", "rejected")
"""What a child with the Kafka sink shares with its parent while it works: fields of `Delivery`."""
_SHARE_SECONDS = 1.0


class Child:
    """One child process and the job it has."""

    def __init__(self, settings: Settings, *, threads: int = 1) -> None:
        self._settings, self._threads = settings, threads
        self.job: ChildJob | None = None
        self._shared: Any = None
        self._before = dict.fromkeys(DELIVERY, 0)
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._before = self.delivery
        self._shared = context.RawArray("q", len(DELIVERY))
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=_child, args=(theirs, self._settings, self._threads, self._shared), daemon=False
        )
        with _environment(self._threads):  # numerical libraries read it when they are loaded
            self.process.start()
        theirs.close()

    @property
    def delivery(self) -> dict[str, int]:
        """What this child, and those that it replaced, delivered to Kafka; a second old at most."""
        shared = self._shared or (0,) * len(DELIVERY)
        return {name: self._before[name] + shared[i] for i, name in enumerate(DELIVERY)}

    def submit(self, job: ChildJob) -> None:
        """Give the child a job; it must have none."""
        self.job = job
        self.pipe.send(job)

    def answer(self) -> ChildAnswer | None:
        """What became of the job, when the child has said so or died; a dead child is replaced."""
        job = self.job
        try:
            if self.pipe.poll():
                answer: ChildAnswer = self.pipe.recv()
                self.job = None
                return answer
        except (EOFError, OSError):
            pass
        if self.process.is_alive() or job is None:
            return None
        self.process.join()
        code = self.process.exitcode or 0
        how = f"killed by signal {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        self.job = None
        self.pipe.close()
        self._start()
        spec_id = RunSpec.from_json(job.spec_json).spec_id
        return ChildAnswer(spec_id, 1, None, f"the process that ran it was {how}", False)

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


def make_sink(settings: Settings):  # type: ignore[no-untyped-def]
    """The sink that the settings ask for.

    Raises:
        InputError: the kafka extra is missing.
        StorageError: its folder cannot be written.
    """
    sink = _make_sink(settings)
    if settings.pushgateway_url is None:
        return sink
    from simulator.metrics import PushingSink

    return PushingSink(sink, settings)


def _make_sink(settings: Settings):  # type: ignore[no-untyped-def]
    if settings.sink == "kafka":
        from simulator.streaming.clients import kafka_config, require_kafka

        require_kafka()
        kafka_config(settings)  # bad settings are bad input, told before anything runs
        from simulator.sinks.kafka import KafkaSink

        return KafkaSink(settings)
    from simulator.sinks.file import FileSink

    return FileSink(settings.raw_dir)


def _child(pipe: Connection, settings: Settings, threads: int, shared: Any) -> None:
    """Run jobs until the pipe says stop or its other end is gone."""
    from simulator import log
    from simulator.cli.progress import summary_record
    from simulator.run import Session, exit_code

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent says who stops
    log.configure(settings.log_level, settings.log_format)
    sink = make_sink(settings)
    session = Session(sink, settings)
    signal.signal(signal.SIGTERM, lambda *_: _stop(session))
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
            answer = _run_job(session, job, exit_code, summary_record)
            if settings.sink == "kafka":
                answer = replace(answer, delivered=sink.deliver(settings.delivery_seconds))
                _copy(sink.delivery, shared)
            with contextlib.suppress(OSError):
                pipe.send(answer)
    finally:
        with contextlib.suppress(Exception):
            sink.close()
        sys.stdout.flush()


def _share(delivery: Any, shared: Any) -> None:
    while True:
        _copy(delivery, shared)
        time.sleep(_SHARE_SECONDS)


def _copy(delivery: Any, shared: Any) -> None:
    for i, name in enumerate(DELIVERY):
        shared[i] = getattr(delivery, name)


def _stop(session: Any) -> None:
    session.stop_requested = True


def _run_job(session: Any, job: ChildJob, exit_code: Any, summary_record: Any) -> ChildAnswer:
    session.sweep_id = job.sweep_id
    try:
        spec = RunSpec.from_json(job.spec_json)
    except InputError as error:
        return ChildAnswer("", 2, None, str(error), True)
    try:
        result = session.execute(spec, job.name, attempt=job.attempt)
    except InputError as error:
        return ChildAnswer(spec.spec_id, 2, None, str(error), True)
    except Exception as error:
        return ChildAnswer(spec.spec_id, 1, None, f"{type(error).__name__}: {error}", False)
    finally:
        session.stop_requested = False
    return ChildAnswer(spec.spec_id, exit_code(result), summary_record(result), result.error, True)
