"""Events that Kafka or the registry refuses for good: set aside below the spool, and offered again on request.

A file is `<spool>/rejected/<topic>+<uuid7>.bin`, an Avro container like a spool file (one record a block), of records of
one topic and schema that were refused for one reason; topic, reason and time stand in its header, too. Beside it, `.json`
tells a reader what it holds. Offering them again is a rename into the spool.
"""

import contextlib
import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from simulator.events import avro
from simulator.events.records import new_id
from simulator.kafka.spool import ONE_RECORD, SpooledRecord, zigzag

FOLDER = "rejected"
ROLL_BYTES = 16 * 2**20
MAX_KEYS = 100
"""How many keys of a file's records its `.json` lists."""


class RejectedEvents:
    """Sets records aside for one process. No file stays open.

    Args:
        spool: the spool's folder.
    """

    def __init__(self, spool: Path) -> None:
        self.folder = spool / FOLDER
        self._paths: dict[tuple[str, str, str], Path] = {}

    def keep(self, topic: str, schema_json: str, records: Sequence[SpooledRecord], reason: str) -> None:
        """Append records to the file of their topic, schema and reason; on the disk when this returns.

        Raises:
            OSError: the folder cannot be written; nothing may be acknowledged then.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        kind = (topic, schema_json, reason)
        path = self._paths.get(kind)
        if path is None or not self._append(path, records):
            path = self._paths[kind] = self.folder / f"{topic}+{new_id()}.bin"
            header = avro.make_header(
                schema_json, os.urandom(avro.SYNC_BYTES),
                {"vqe.topic": topic, "vqe.reason": reason, "vqe.rejected_at": _now()},
            )  # fmt: skip
            part = path.with_suffix(".part")
            part.write_bytes(header)
            part.rename(path)
            self._append(path, records)
        _describe(path, topic, schema_json, reason, records)

    def _append(self, path: Path, records: Sequence[SpooledRecord]) -> bool:
        """Returns whether they went into the file. They did not where the file was offered to Kafka again meanwhile, or is full."""
        try:
            file = open(path, "r+b")  # noqa: SIM115 (closed below)
        except FileNotFoundError:
            return False
        with file:
            fcntl.flock(
                file, fcntl.LOCK_EX
            )  # a process that offers it to Kafka again holds this lock while it moves the file
            try:
                if os.fstat(file.fileno()).st_ino != path.stat().st_ino:
                    return False
            except FileNotFoundError:
                return False
            try:
                header = avro.read_header(file.read(avro.MAX_HEADER_BYTES))
            except avro.DamagedContainer:
                return False
            size = file.seek(0, os.SEEK_END)
            if size > ROLL_BYTES:
                return False
            try:
                for record in records:
                    file.write(b"".join((ONE_RECORD, zigzag(len(record.payload)), record.payload, header.sync)))
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):  # a full disk: no half record stays between whole ones
                    os.ftruncate(file.fileno(), size)
                raise
        return True


def offer_again(spool: Path) -> int:
    """Move everything that was set aside back into the spool; returns how many records.

    Raises:
        OSError: a file cannot be moved.
    """
    offered = 0
    for path in _files(spool):
        with contextlib.suppress(FileNotFoundError), open(path, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            folder = spool / path.name.split("+", 1)[0]
            folder.mkdir(parents=True, exist_ok=True)
            offered += _records_of(path)
            path.rename(folder / f"{new_id()}.avro")
            path.with_suffix(".json").unlink(missing_ok=True)
    return offered


def set_aside(spool: Path) -> Counter[str]:
    """By topic, how many records are set aside now; damaged files that are kept count as one each."""
    found: Counter[str] = Counter()
    for path in _files(spool):
        with contextlib.suppress(OSError):
            found[path.name.split("+", 1)[0]] += _records_of(path)
    for path in (spool / FOLDER).glob("*.avro"):
        found[path.name.split("+", 1)[0]] += 1
    return found


def rejected_bytes(spool: Path) -> int:
    """Bytes of what is set aside."""
    total = 0
    for path in (spool / FOLDER).glob("*+*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def _files(spool: Path) -> Iterator[Path]:
    yield from sorted((spool / FOLDER).glob("*+*.bin"))


def _records_of(path: Path) -> int:
    told = _described(path).get("records")
    if isinstance(told, int):
        return told
    content = path.read_bytes()
    try:
        header = avro.read_header(content)
    except avro.DamagedContainer:
        return 1
    return sum(1 for _ in avro.whole_blocks(content, header.sync, header.end))


def _described(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.with_suffix(".json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _describe(path: Path, topic: str, schema_json: str, reason: str, records: Sequence[SpooledRecord]) -> None:
    """Describe the file in a `.json` beside it. Where that cannot be written the records are kept all the same."""
    before = _described(path)
    keys = dict.fromkeys([*before.get("keys", []), *(record.key.decode(errors="replace") for record in records)])
    described = {
        "topic": topic,
        "reason": reason,
        "schema": _name_of(schema_json),
        "records": before.get("records", 0) + len(records),
        "bytes": before.get("bytes", 0) + sum(len(record.payload) for record in records),
        "first": before.get("first", _now()),
        "last": _now(),
        "keys": list(keys)[:MAX_KEYS],
    }
    part = path.with_suffix(".json.part")
    with contextlib.suppress(OSError):
        part.write_text(json.dumps(described, indent=2) + "\n")
        part.replace(path.with_suffix(".json"))


def _name_of(schema_json: str) -> dict[str, Any] | None:
    """Name and version of a schema; its text stands in the container's header."""
    try:
        schema = json.loads(schema_json)
        return {"name": schema["name"], "version": schema["version"]}
    except (ValueError, KeyError, TypeError):
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
