"""The file sink: every event into local Avro container files, by a thread of its own."""

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from simulator.errors import StorageError
from simulator.events.records import Event, Result, to_record
from simulator.events.schemas import current
from simulator.sinks.container import ContainerFile, recover

FLUSH_SECONDS = 1.0
LOOK_SECONDS = 0.1
ROLL_BYTES = 64 * 2**20
ROLL_SECONDS = 3600.0


class QueuedSink:
    """A sink whose events are written by a thread of its own; subclasses say how.

    Args:
        folder: where the events go, for messages.
    """

    flush_seconds = FLUSH_SECONDS

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.closed = False
        # The thread polls a deque. A queue would wake it, and a woken thread takes the interpreter's lock in the middle of the
        # optimizer's step (p99 of an emit: 5 ms instead of microseconds).
        self._events: deque[Event | threading.Event | None] = deque()
        self._wake = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="sink", daemon=True)
        self._thread.start()

    def emit(self, event: Event) -> None:
        """Queue an event; never waits."""
        self._check()
        self._events.append(event)

    def flush(self) -> None:
        """Wait until all that was emitted is on disk."""
        if self.closed:
            return
        done = threading.Event()
        self._events.append(done)
        self._wake.set()
        while not done.wait(0.1):
            if not self._thread.is_alive():
                break
        self._check()

    def deliver(self, seconds: float) -> bool:
        """Wait until all that was emitted is on disk, which is where it goes."""
        self.flush()
        return True

    def close(self) -> None:
        """Write what was emitted and complete the files."""
        if self.closed:
            return
        self.closed = True
        self._events.append(None)
        self._wake.set()
        self._thread.join()
        self._check()

    def _check(self) -> None:
        if self._error is not None:
            error = self._error
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise StorageError(f"events cannot be written below {self.folder}: {reason}")

    def _work(self) -> None:
        next_flush = time.monotonic() + self.flush_seconds
        while True:
            self._wake.wait(LOOK_SECONDS)
            self._wake.clear()
            while self._events:
                item = self._events.popleft()
                if item is None:
                    self._guarded(self._complete_all)
                    return
                if isinstance(item, threading.Event):
                    self._guarded(self._flush_all)
                    item.set()
                elif self._error is None:
                    self._guarded(self._write, item)
                if time.monotonic() >= next_flush:
                    break
            if time.monotonic() >= next_flush:
                self._guarded(self._flush_all)
                next_flush = time.monotonic() + self.flush_seconds
            if self._events:
                self._wake.set()

    def _guarded(self, step: Callable[..., None], *arguments: Event) -> None:
        """Call a step and keep its first error, which the run's next call raises; whole blocks on disk stay for recovery."""
        if self._error is not None:
            return
        try:
            step(*arguments)
        except Exception as error:
            self._error = error
            self._release_all()

    def _write(self, event: Event) -> None:
        raise NotImplementedError

    def _flush_all(self) -> None:
        raise NotImplementedError

    def _complete_all(self) -> None:
        raise NotImplementedError

    def _release_all(self) -> None:
        raise NotImplementedError


class FileSink(QueuedSink):
    """Writes events below `raw`, one file a topic and process, each block flushed within a second, results fsynced.

    Args:
        raw: the folder of raw files; made when missing. What dead writers left there is recovered first.
        roll_bytes: a file is completed and a new one begun when it is larger.
        roll_seconds: the same, by age in seconds.

    Raises:
        StorageError: the folder cannot be written.
    """

    def __init__(self, raw: Path, *, roll_bytes: int = ROLL_BYTES, roll_seconds: float = ROLL_SECONDS) -> None:
        self.raw = raw
        self.completed: list[Path] = []
        self._roll_bytes, self._roll_seconds = roll_bytes, roll_seconds
        self._files: dict[str, tuple[ContainerFile, float]] = {}
        try:
            raw.mkdir(parents=True, exist_ok=True)
            probe = raw / f".probe-{os.getpid()}-{threading.get_ident()}"
            probe.touch()
            probe.unlink()
            self.recovery = recover(raw)
        except OSError as error:
            raise StorageError(f"data directory {raw} cannot be written: {error.strerror}") from None
        super().__init__(raw)

    def _write(self, event: Event) -> None:
        stream = event.stream
        file, opened = self._files.get(stream, (None, 0.0))
        if file is not None and (file.size > self._roll_bytes or time.monotonic() - opened > self._roll_seconds):
            self._complete(stream)
            file = None
        if file is None:
            file = ContainerFile(self.raw, current(stream))
            self._files[stream] = (file, time.monotonic())
        file.write(to_record(event))
        if event.ends_run:
            self._flush_all()
            file.flush(sync=True)

    def _flush_all(self) -> None:
        for file, _ in self._files.values():
            file.flush()

    def _complete(self, stream: str) -> None:
        file, _ = self._files.pop(stream)
        if (path := file.complete()) is not None:
            self.completed.append(path)

    def _complete_all(self) -> None:
        # Results last: a process that lists the folder meanwhile finds no result whose other records are still hidden.
        for stream in sorted(self._files, key=lambda name: name == Result.stream):
            self._complete(stream)

    def _release_all(self) -> None:
        for file, _ in self._files.values():
            with contextlib.suppress(OSError):
                file.release()
        self._files.clear()
