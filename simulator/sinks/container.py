"""Avro container files that survive a crash: written under a hidden name, complete under their final one.

A file being written is `.<topic>+local+<uuid>.avro.part`, locked by its writer. When complete it is renamed to
`<topic>+local+<uuid7>.avro`, the UUIDv7 taken at that moment, so that names sort by completion. What a dead writer
left is cut behind its last whole block and renamed likewise.
"""

import contextlib
import fcntl
import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from simulator.events import avro
from simulator.events.records import new_id
from simulator.events.schemas import Schema, topic_of

PARTITION = "local"
PART_SUFFIX = ".part"
_COMPRESSED = {"vqe_run", "vqe_result", "vqe_hamiltonian"}
"""Text shrinks well; iterations and samples are doubles, where deflate costs a third of the writing speed for 8 %."""


class ContainerFile:
    """One Avro container file of one schema, being written by this process.

    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(self, raw: Path, schema: Schema) -> None:
        from fastavro.write import Writer

        self.topic = topic_of(schema)
        self.folder = raw / self.topic / f"partition={PARTITION}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.records = 0
        self._pending = 0
        self._file = self._open_locked()
        codec = "deflate" if schema["name"] in _COMPRESSED else "null"
        self._writer = Writer(self._file, schema, codec=codec, sync_interval=1 << 20)

    def _open_locked(self) -> IO[bytes]:
        while True:
            self.part = self.folder / f".{self.topic}+{PARTITION}+{new_id()}.avro{PART_SUFFIX}"
            file = open(self.part, "xb")  # noqa: SIM115 (closed by close or by the process's end, with its lock)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                # Before it was locked, a recovery may have taken the new, empty file for one of a dead writer.
                if self.part.exists() and os.fstat(file.fileno()).st_ino == self.part.stat().st_ino:
                    return file
            except FileNotFoundError:
                pass
            file.close()

    @property
    def size(self) -> int:
        """Bytes on disk so far."""
        return self._file.tell()

    def write(self, record: dict[str, Any]) -> None:
        """Add a record to the block being filled.

        Raises:
            ValueError, TypeError: the record does not fit the schema; the file is as before.
        """
        self._writer.write(record)
        self.records += 1
        self._pending += 1

    def flush(self, *, sync: bool = False) -> None:
        """Write the block being filled; with `sync` through to the disk."""
        if self._pending:
            self._writer.flush()
            self._pending = 0
        self._file.flush()
        if sync:
            os.fsync(self._file.fileno())

    def complete(self) -> Path | None:
        """Finish the file and give it its final name; None where it held nothing."""
        if not self.records:
            self.abandon()
            return None
        self.flush(sync=True)
        final = self.part.with_name(_final_name(self.topic))
        os.rename(self.part, final)
        _sync_folder(self.folder)
        self._file.close()
        return final

    def abandon(self) -> None:
        """Remove the file."""
        self.part.unlink(missing_ok=True)
        self._file.close()

    def release(self) -> None:
        """Give up a file that can no longer be written; a later recovery keeps its whole blocks."""
        with contextlib.suppress(OSError):  # what is buffered does not fit on the disk; the file is closed all the same
            self._file.close()


@dataclass(frozen=True)
class Recovery:
    """What became of files that dead writers left."""

    recovered: list[Path]
    dropped_bytes: int


def recover(raw: Path) -> Recovery:
    """Complete every half-written file below `raw` whose writer is dead; a file whose writer lives is left alone."""
    recovered: list[Path] = []
    dropped = 0
    for part in sorted(raw.glob(f"*/partition={PARTITION}/.*{PART_SUFFIX}")):
        try:
            file = open(part, "r+b")  # noqa: SIM115 (the lock is to be held until the file has its name)
        except FileNotFoundError:
            continue
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if not part.exists():  # its writer completed it, or another recovery did
                continue
            size = os.fstat(file.fileno()).st_size
            end, records = last_whole_block(file)
            dropped += size - end
            if not records:
                part.unlink()
                continue
            file.truncate(end)
            os.fsync(file.fileno())
            final = part.with_name(_final_name(part.parent.parent.name))
            os.rename(part, final)
            _sync_folder(part.parent)
            recovered.append(final)
    return Recovery(recovered, dropped)


def last_whole_block(file: IO[bytes]) -> tuple[int, int]:
    """Offset behind the last whole block of an Avro container file, and the records up to there; (0, 0) without one."""
    if os.fstat(file.fileno()).st_size < len(avro.MAGIC):
        return 0, 0
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        try:
            header = avro.read_header(view)
        except avro.DamagedContainer:
            return 0, 0
        position, records = header.end, 0
        for block in avro.whole_blocks(view, header.sync, position):
            position, records = block.end, records + block.records
        return position, records


def _final_name(topic: str) -> str:
    return f"{topic}+{PARTITION}+{new_id()}.avro"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
