"""Spool files: events on their way to Kafka, first on the local disk.

A spool file is an Avro container of one topic with one record a block and no compression, so that the forwarder sends
a record's bytes as they stand, without decoding. It is `<spool>/<topic>/<uuid7>.avro`, locked by the process that
writes or forwards it; beside it `.ack` holds the offset up to which Kafka has acknowledged every record.
"""

import contextlib
import fcntl
import io
import os
import struct
import sys
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from simulator.events import avro
from simulator.events.avro import zigzag
from simulator.events.records import new_id
from simulator.events.schemas import Schema, topic_of

ONE_RECORD = b"\x02"  # the zigzag form of a block count of 1
CHUNK_BYTES = 4 * 2**20


class SpoolWriter:
    """One spool file being written by this process; the lock is kept until it is delivered or released."""

    def __init__(self, spool: Path, schema: Schema) -> None:
        from fastavro import parse_schema
        from fastavro.write import Writer, schemaless_writer

        self.topic = topic_of(schema)
        self.path, self._file = _create_locked(spool / self.topic)
        self._sync: bytes = getattr(Writer(self._file, schema, codec="null"), "sync_marker")  # noqa: B009 (not in its stubs)
        doubles = _optional_doubles(schema)
        head = schema if doubles is None else {**schema, "fields": schema["fields"][:-1]}
        self._doubles, self._schema, self._encode = doubles, parse_schema(head), schemaless_writer
        self._buffer = io.BytesIO()
        self.records = 0
        self.size = self._file.tell()
        self._file.flush()

    def write(self, record: dict[str, Any]) -> None:
        """Add a record.

        Raises:
            ValueError, TypeError: the record does not fit the schema; the file is as before.
        """
        buffer = self._buffer
        buffer.seek(0)
        buffer.truncate()
        self._encode(buffer, self._schema, record)
        if self._doubles is not None:
            buffer.write(_encoded_doubles(record[self._doubles]))
        payload = buffer.getvalue()
        block = b"".join((ONE_RECORD, zigzag(len(payload)), payload, self._sync))
        self._file.write(block)
        self.size += len(block)
        self.records += 1

    def flush(self, *, sync: bool = False) -> None:
        """Let the forwarder see what was written; with `sync` through to the disk."""
        self._file.flush()
        if sync:
            os.fsync(self._file.fileno())

    def finish(self) -> IO[bytes]:
        """Flush and hand over the still locked file."""
        self.flush(sync=True)
        return self._file

    def release(self) -> None:
        """Give up a file that can no longer be written; the process that finds it delivers its whole records."""
        with contextlib.suppress(OSError):  # what is buffered does not fit on the disk; the file is closed all the same
            self._file.close()


@dataclass(frozen=True, slots=True)
class SpooledRecord:
    """A record as it stands in a spool file."""

    key: bytes
    payload: bytes
    end: int  # offset behind its block


class SpoolReader:
    """Reads a spool file after the last record that Kafka acknowledged, also while it is being written."""

    def __init__(self, path: Path, lock: IO[bytes] | None = None) -> None:
        """Opens the file, unless its lock is given, and the note of what Kafka has of it.

        Raises:
            OSError: the file is gone or cannot be opened.
            DamagedContainer: its header is not whole, or none.
        """
        self.path, self.topic = path, path.parent.name
        self._lock = lock
        self._file = lock or open(path, "rb")  # noqa: SIM115 (closed by close)
        try:
            header = avro.read_header(self._file.read(avro.MAX_HEADER_BYTES))
            self._acks = os.open(_ack_path(path), os.O_RDWR | os.O_CREAT, 0o600)
        except BaseException:
            self._file.close()
            raise
        self.schema_json, self._start, self._sync = header.schema_json, header.end, header.sync
        stored = os.pread(self._acks, 8, 0)
        self.acknowledged = max(self._start, struct.unpack("<q", stored)[0]) if len(stored) == 8 else self._start
        self.damaged = False
        self.ahead: set[int] = (
            set()
        )  # end offsets of records that Kafka has although an earlier one is not acknowledged

    def records(self, limit: int = CHUNK_BYTES) -> Iterator[SpooledRecord]:
        """Whole records behind the acknowledged offset, about `limit` bytes of them."""
        self._file.seek(self.acknowledged)
        chunk = self._file.read(limit)
        base, block = self.acknowledged, None
        for block in avro.whole_blocks(chunk, self._sync):
            payload = chunk[block.begin : block.end - avro.SYNC_BYTES]
            try:
                key = first_string(payload)
            except (IndexError, ValueError):
                return
            if block.records != 1:  # a spool file has one record a block: anything else is damage
                return
            yield SpooledRecord(key, payload, base + block.end)
        if block is None and len(chunk) == limit:  # one record larger than a chunk
            yield from self.records(4 * limit)

    def acknowledge(self, offset: int) -> None:
        """Note that Kafka has every record up to `offset`; survives kill -9."""
        self.acknowledged = offset
        with contextlib.suppress(
            OSError
        ):  # a full disk: this process still knows the offset, and only after a crash are the records sent again
            os.pwrite(self._acks, struct.pack("<q", offset), 0)

    def skip_damage(self) -> bool:
        """Go on behind the next sync marker where no whole record begins; False when there is none: the end was cut off."""
        self._file.seek(self.acknowledged)
        at = self._file.read().find(self._sync)
        if at < 0:
            return False
        self.damaged = True
        self.acknowledge(self.acknowledged + at + avro.SYNC_BYTES)
        return True

    @property
    def pending_bytes(self) -> int:
        """Bytes that are written and not acknowledged."""
        return max(0, os.fstat(self._file.fileno()).st_size - self.acknowledged)

    def take_lock(self, lock: IO[bytes]) -> None:
        """Take over the writer's lock: the file is complete."""
        self._lock = lock

    @property
    def complete(self) -> bool:
        """Whether nobody writes to it any more."""
        return self._lock is not None

    def remove(self, damaged_to: Path | None = None) -> None:
        """Delete the delivered file; one with damage inside is moved to the folder `damaged_to` instead."""
        if self.damaged and damaged_to is not None:
            damaged_to.mkdir(parents=True, exist_ok=True)
            self.path.rename(damaged_to / f"{self.topic}+{self.path.name}")
        self.path.unlink(missing_ok=True)
        _ack_path(self.path).unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Close the file, and give up its lock where it is held."""
        os.close(self._acks)
        self._file.close()
        if self._lock is not None:
            self._lock.close()


class Held(Exception):
    """A living process holds the file."""


def take(path: Path) -> SpoolReader | None:
    """A reader of a spool file, with its lock; None where the file is gone, or held nothing and was removed.

    Raises:
        Held: a living process writes or delivers it.
        DamagedContainer: its header is damaged.
        OSError: it cannot be opened.
    """
    try:
        lock = open(path, "r+b")  # noqa: SIM115 (the reader keeps the lock)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not path.exists():  # delivered between its opening and its lock
            raise FileNotFoundError
        return SpoolReader(path, lock)
    except FileNotFoundError:
        lock.close()
        return None
    except BlockingIOError:
        lock.close()
        raise Held(str(path)) from None
    except avro.CutContainer:  # its writer died before the header was whole: it holds nothing
        path.unlink(missing_ok=True)
        _ack_path(path).unlink(missing_ok=True)
        lock.close()
        return None
    except BaseException:
        lock.close()
        raise


def files(spool: Path) -> list[Path]:
    """The spool's files, oldest first."""
    return sorted(spool.glob("vqe_*/*.avro"), key=lambda p: p.name)


def orphans(spool: Path) -> Iterator[SpoolReader]:
    """Readers of the files that no living process holds, oldest first, each locked by this process."""
    for path in files(spool):
        with contextlib.suppress(Held):
            reader = take(path)
            if reader is not None:
                yield reader


def spool_bytes(spool: Path) -> int:
    """Bytes in the spool's files."""
    total = 0
    for path in spool.glob("vqe_*/*.avro"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


@dataclass(frozen=True)
class Undelivered:
    """What a spool holds that Kafka has not acknowledged, those of living processes too."""

    size: int = 0  # bytes
    seconds: float = 0.0  # since Kafka last took something of the file that has waited longest


def undelivered(spool: Path) -> Undelivered:
    """What waits in the spool, from the files alone: no lock is taken."""
    size, seconds = 0, 0.0
    for path in spool.glob("vqe_*/*.avro"):
        try:
            written = path.stat().st_size
            ack = _ack_path(path)
            stored, taken = ack.read_bytes()[:8], ack.stat().st_mtime
        except FileNotFoundError:  # delivered meanwhile, or nobody has begun to deliver it
            if not path.exists():
                continue
            stored, taken = b"", path.stat().st_ctime if path.exists() else time.time()
        acknowledged = struct.unpack("<q", stored)[0] if len(stored) == 8 else 0
        if acknowledged == 0:
            with contextlib.suppress(OSError, ValueError), open(path, "rb") as file:
                acknowledged = avro.read_header(file.read(avro.MAX_HEADER_BYTES)).end
        if written > acknowledged:
            size += written - acknowledged
            if taken > time.time() + 60:  # the time is from a clock that ran ahead: counted as waiting from now on
                with contextlib.suppress(OSError):
                    os.utime(ack if ack.exists() else path)
            seconds = max(seconds, time.time() - taken)
    return Undelivered(size, seconds)


def _optional_doubles(schema: Schema) -> str | None:
    """The last field's name where it is an optional array of doubles, as the parameters of an iteration are.

    Encoding it apart takes 1 instead of 15 microseconds for 40 parameters; tests hold the bytes equal to fastavro's.
    """
    last = schema["fields"][-1]
    return last["name"] if last["type"] == ["null", {"type": "array", "items": "double"}] else None


def _encoded_doubles(values: list[float] | None) -> bytes:
    """An optional array of doubles in Avro: union branch, one block with its count, end of the array."""
    if values is None:
        return b"\0"
    if not values:
        return b"\2\0"
    doubles = array("d", values)
    if sys.byteorder == "big":
        doubles.byteswap()
    return b"".join((b"\2", zigzag(len(doubles)), doubles.tobytes(), b"\0"))


def first_string(payload: bytes) -> bytes:
    """The first field of an event, the string that is its Kafka key.

    Raises:
        IndexError, ValueError: there is none.
    """
    length, at = avro.read_long(payload, 0)
    if not 0 <= length <= len(payload) - at:
        raise IndexError("the first string is longer than the record")
    return payload[at : at + length]


def _ack_path(path: Path) -> Path:
    return path.with_suffix(".ack")


def _create_locked(folder: Path) -> tuple[Path, IO[bytes]]:
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        path = folder / f"{new_id()}.avro"
        file = open(path, "xb")  # noqa: SIM115 (closed when delivered, or by the process's end, with its lock)
        fcntl.flock(file, fcntl.LOCK_EX)
        # Between its making and its lock another process may have taken the empty file for a dead writer's.
        try:
            if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                return path, file
        except FileNotFoundError:
            pass
        file.close()
