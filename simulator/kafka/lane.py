"""A topic's spool files on their way to Kafka: oldest first, one at a time, whatever happens to other topics."""

import contextlib
import errno
import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from simulator.events.avro import DamagedContainer
from simulator.kafka.spool import CHUNK_BYTES, Held, SpooledRecord, SpoolReader, take
from simulator.log import get_logger

MAX_RECORDS = 100_000
OPEN_FILES = 2
"""How many of this process's own files of a topic stay open. Further ones are closed, and whichever process finds them first
delivers them: an outage of hours leaves hundreds, each of which would hold three descriptors."""
PATIENCE_SECONDS = 5.0
"""Seconds for which the registry must not know a schema, or the broker must refuse a topic, before events are set aside. A
service that is starting or being set up gives the same answers for a moment."""
_FIRST_DELAY, _LAST_DELAY = 0.25, 2.0
_SMALL_CHUNK_BYTES = 1 << 16
_PENDING: Any = object()


class Sent(NamedTuple):
    """A record as it goes to Kafka, and the file that it is of."""

    reader: SpoolReader
    record: SpooledRecord
    header: bytes  # of the registry's wire format


class Run(NamedTuple):
    """Consecutive records of one file that met the same outcome in an attempt."""

    reader: SpoolReader
    error: Any  # a KafkaError; None: Kafka has them
    alone: bool  # whether the error was of this record and no other
    records: list[SpooledRecord]


@dataclass
class Attempt:
    """Records that were handed to the producer together, in order, and what became of each."""

    records: list[Sent]
    began: float = field(default_factory=time.monotonic)
    outcomes: list[Any] = field(default_factory=list)  # a KafkaError; None: Kafka has it
    refused_here: set[int] = field(default_factory=set)  # by the producer itself, so of this record and no other
    left: int = 0

    def add(self) -> Any:
        """Count one more record as sent; returns the producer's callback for it."""
        index = len(self.outcomes)
        self.outcomes.append(_PENDING)
        self.left += 1

        def told(error: Any, _message: Any) -> None:
            if self.outcomes[index] is _PENDING:
                self.outcomes[index] = error
                self.left -= 1

        return told

    def take_back(self) -> None:
        """The record that was added last was not sent."""
        self.outcomes.pop()
        self.left -= 1

    def refuse(self, error: Any) -> None:
        """The producer did not take the next record."""
        self.refused_here.add(len(self.outcomes))
        self.outcomes.append(error)

    def give_up(self, error: Any) -> None:
        """Take no further outcomes: callbacks that come later are ignored."""
        self.outcomes = [error if outcome is _PENDING else outcome for outcome in self.outcomes]
        self.left = 0

    def runs(self) -> Iterator[Run]:
        """What was sent, grouped into consecutive records of one file with the same outcome."""
        told = zip(self.records, self.outcomes, strict=False)  # records beyond the last outcome were not sent
        rows = [(sent.reader, error, self._alone(index), sent.record) for index, (sent, error) in enumerate(told)]
        for _, group in itertools.groupby(rows, key=lambda row: (row[0], row[1] and row[1].code(), row[2])):
            same = list(group)
            yield Run(*same[0][:3], [row[3] for row in same])

    def _alone(self, index: int) -> bool:
        return index in self.refused_here or len(self.outcomes) == 1


class BrokenFile(Exception):
    """A spool file with a damaged header."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason


class Lane:
    """The files of one topic, and the attempt that is under way.

    Files that dead processes left come before this process's own. A bounded number of either is open.
    """

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.attempt: Attempt | None = None
        self.limit = MAX_RECORDS  # records in the next attempt
        self.retry_at = 0.0  # monotonic seconds
        self.reason: str | None = None  # why it waits
        self.refused_since: float | None = None
        self._delay = _FIRST_DELAY
        self._found: list[SpoolReader] = []
        self._backlog: deque[tuple[Path, int]] = deque()  # path, bytes
        self._own: deque[SpoolReader | Path] = deque()

    # --- its files -------------------------------------------------------------------------------------------------

    def add_own(self, reader: SpoolReader) -> None:
        """A file of this process, the newest."""
        self._own.append(reader)

    def add_found(self, paths: Iterable[Path]) -> None:
        """What the spool's folder holds of this topic, oldest first; what is known already is left out."""
        known = {path for path, _ in self._backlog} | {_path_of(entry) for entry in [*self._own, *self._found]}
        for path in paths:
            if path not in known:
                with contextlib.suppress(OSError):
                    self._backlog.append((path, path.stat().st_size))

    def park(self) -> None:
        """Close this process's files that are complete and not the next to be delivered."""
        complete = [i for i, entry in enumerate(self._own) if not isinstance(entry, Path) and entry.complete]
        for i in complete[OPEN_FILES:]:
            entry = self._own[i]
            assert not isinstance(entry, Path)
            self._own[i] = entry.path
            entry.close()

    def readers(self, room: int) -> list[SpoolReader]:
        """The files to deliver now, in order; none where there is none, or where another process has the next one.

        Args:
            room: so many files that dead processes left may be open.

        Raises:
            BrokenFile: the next file's header is damaged; the one behind it is next now.
            OSError: too many files are open in this process or machine.
        """
        while self._backlog and len(self._found) < room:
            try:
                reader = self._next_found()
            except OSError:
                if not self._found:
                    raise
                self._make_room()
                break
            if reader is not None:
                self._found.append(reader)
        if self._found:
            return list(self._found)
        own = self._next_own()
        return [] if own is None else [own]

    def _next_found(self) -> SpoolReader | None:
        path, _ = self._backlog[0]
        try:
            reader = _taken(path)
        except Held:
            reader = None
        except BrokenFile:
            self._backlog.popleft()
            raise
        self._backlog.popleft()
        return reader

    def _next_own(self) -> SpoolReader | None:
        while self._own:
            first = self._own[0]
            if isinstance(first, SpoolReader):
                return first
            try:
                reader = _taken(first)
            except Held:  # another process found it meanwhile and delivers it; newer files must wait for that
                self.wait(None)
                return None
            except BrokenFile:
                self._own.popleft()
                raise
            if reader is None:
                self._own.popleft()
            else:
                self._own[0] = reader
        return None

    def _make_room(self) -> None:
        """Close half of the files that were found: descriptors are needed for connections, too."""
        for reader in reversed(self._found[(len(self._found) + 1) // 2 :]):
            self._backlog.appendleft((reader.path, reader.pending_bytes))
            reader.close()
            self._found.remove(reader)

    def put_off(self, reader: SpoolReader, reason: str) -> None:
        """Step over a file that cannot be read now. One that a dead process left is looked at again later; the files after it go on."""
        get_logger().warning("spool file cannot be read", file=str(reader.path), reason=reason)
        if reader in self._found:
            self._found.remove(reader)
            reader.close()
        else:
            self.wait(reason)

    def finished(self, reader: SpoolReader) -> None:
        """A file is delivered to its end."""
        if reader in self._found:
            self._found.remove(reader)
        else:
            self._own.remove(reader)

    @property
    def pending_bytes(self) -> int:
        """Bytes that Kafka has not acknowledged."""
        total = sum(size for _, size in list(self._backlog))
        for entry in [*self._found, *self._own]:
            with contextlib.suppress(OSError, ValueError):  # closed or delivered meanwhile
                if isinstance(entry, Path):
                    total += entry.stat().st_size
                else:
                    total += entry.pending_bytes
        return total

    def close(self) -> None:
        """Close every file and give up its lock."""
        for entry in [*self._found, *self._own]:
            if isinstance(entry, SpoolReader):
                entry.close()
        self._found.clear()
        self._own.clear()
        self._backlog.clear()

    # --- its attempts ----------------------------------------------------------------------------------------------

    def next_records(self, reader: SpoolReader, already: int = 0) -> list[SpooledRecord]:
        """The next records of a file that Kafka does not have, in order; the attempt holds `already` records."""
        return list(itertools.islice(self._unsent(reader), max(0, self.limit - already)))

    def _unsent(self, reader: SpoolReader) -> Iterator[SpooledRecord]:
        first = True
        for record in reader.records(CHUNK_BYTES if self.limit > 64 else _SMALL_CHUNK_BYTES):
            if record.end in reader.ahead:
                if first:
                    reader.ahead.discard(record.end)
                    reader.acknowledge(record.end)
                continue
            first = False
            yield record

    def wait(self, reason: str | None) -> None:
        """Try again later, each time a little later."""
        self.reason = reason
        self.retry_at = time.monotonic() + self._delay
        self._delay = min(2 * self._delay, _LAST_DELAY)

    def go_on(self) -> None:
        """Forget earlier failures, because Kafka has accepted something."""
        self.reason, self.refused_since, self.retry_at, self._delay = None, None, 0.0, _FIRST_DELAY

    def patient(self) -> bool:
        """Whether a refusal is too recent to be final; time counts from the first refusal."""
        if self.refused_since is None:
            self.refused_since = time.monotonic()
        return time.monotonic() - self.refused_since < PATIENCE_SECONDS


def _taken(path: Path) -> SpoolReader | None:
    """A file's reader; None where it is gone or cannot be read, which is logged and does not stop other files."""
    try:
        return take(path)
    except DamagedContainer as error:
        raise BrokenFile(path, str(error)) from None
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):  # says nothing about this file
            raise
        get_logger().warning("spool file cannot be read", file=str(path), reason=error.strerror)
        return None


def _path_of(entry: SpoolReader | Path) -> Path:
    return entry if isinstance(entry, Path) else entry.path
