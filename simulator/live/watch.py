"""Following runs live: what they have reached, from the topics or from the local files."""

import math
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from simulator.events import avro
from simulator.events.records import new_id
from simulator.settings import Settings

STREAMS = ("vqe_run", "vqe_result", "vqe_iteration")
"""In the order in which a source reads what is already there: a run's name first, its numbers last."""
LOOK_SECONDS = 10.0
_KEPT_POINTS = 400
_BARS = "▁▂▃▄▅▆▇█"

Record = tuple[str, dict[str, Any]]  # stream, record


@dataclass
class WatchedRun:
    """A run as far as it is known."""

    run_id: str
    molecule: str = ""
    ansatz: str = ""
    optimizer: str = ""
    engine: str = ""
    iteration: int | None = None
    energy: float | None = None  # total, hartree
    error_mha: float | None = None
    gradient_norm: float | None = None  # hartree per radian
    seconds: float = 0.0
    status: str = "running"
    physical: bool | None = None
    points: list[float] = field(default_factory=list)  # |error| in mHa where there is a reference, else the energy

    def take(self, stream: str, record: dict[str, Any]) -> None:
        """Update the run by one of its events, which may come twice or late."""
        if stream == "vqe_iteration":
            if self.iteration is not None and record["iteration"] <= self.iteration:
                return
            error = record.get("error_mha")
            self.iteration, self.energy, self.error_mha = record["iteration"], record["energy"], error
            self.gradient_norm, self.seconds = record.get("gradient_norm"), record["elapsed_seconds"]
            self.points.append(abs(error) if error is not None else record["energy"])
            del self.points[:-_KEPT_POINTS]
            return
        self.molecule = record["molecule_name"] or self.molecule
        spec = record["spec"]
        self.ansatz, self.optimizer, self.engine = spec["ansatz"], spec["optimizer"], spec["engine"]
        if stream == "vqe_result":
            self.status, self.physical = record["status"], record.get("physical")
            self.energy = self.energy if record.get("energy") is None else record["energy"]
            self.error_mha = self.error_mha if record.get("error_mha") is None else record["error_mha"]
            self.seconds = record["total_seconds"]


@dataclass
class Watch:
    """Runs by id, in the order in which they were first met; with `wanted`, only those."""

    wanted: tuple[str, ...] = ()
    runs: dict[str, WatchedRun] = field(default_factory=dict)

    def take(self, records: Iterable[Record]) -> int:
        """Update the runs by events; returns how many of them were of runs that are shown."""
        taken = 0
        for stream, record in records:
            run_id = str(record["run_id"])
            run = self.runs.setdefault(run_id, WatchedRun(run_id))
            run.take(stream, record)
            taken += self._is_shown(run)
        return taken

    def shown(self) -> list[WatchedRun]:
        """The runs asked for, by the beginning or end of their id or by the molecule's name."""
        return [run for run in self.runs.values() if self._is_shown(run)]

    def _is_shown(self, run: WatchedRun) -> bool:
        matches = (run.run_id.startswith(w) or run.run_id.endswith(w) or run.molecule == w for w in self.wanted)
        return not self.wanted or any(matches)


def sparkline(points: list[float], width: int = 24) -> str:
    """Points as a row of bars, on a logarithmic scale where all are positive; the last point rightmost."""
    if not points:
        return ""
    step = max(1, math.ceil(len(points) / width))
    kept = points[::-1][::step][::-1]
    values = [math.log10(max(p, 1e-9)) for p in kept] if all(p >= 0 for p in kept) else kept
    low, high = min(values), max(values)
    if high - low < 1e-12:
        return _BARS[0] * len(values)
    return "".join(_BARS[min(7, int(8 * (v - low) / (high - low)))] for v in values)


class Source(Protocol):
    """Gives events as they come."""

    def read(self) -> Iterator[Record]:
        """What is new since the last call; waits a moment where nothing is."""

    def close(self) -> None: ...


def make_source(settings: Settings, *, since_seconds: float) -> Source:
    """The topics with the kafka sink, else the local raw files."""
    return (
        TopicSource(settings, since_seconds)
        if settings.sink == "kafka"
        else FileSource(settings.raw_dir, since_seconds)
    )


class FileSource:
    """Raw files, those being written too, up to their last whole block."""

    def __init__(self, raw: Path, since_seconds: float) -> None:
        self._raw, self._oldest = raw, time.time() - since_seconds
        self._read: dict[tuple[int, int], int] = {}  # (device, inode) -> offset: a file keeps both when it is renamed
        self._old: dict[tuple[int, int], int] | None = None  # those that were too old at the first look -> their size

    def read(self) -> Iterator[Record]:
        first = self._old is None
        self._old = {} if self._old is None else self._old
        for stream in STREAMS:
            for path in sorted(self._raw.glob(f"{stream}_v*/partition=*/*.avro*")):
                try:
                    yield from ((stream, record) for record in self._new_records(path, first))
                except (OSError, ValueError):
                    continue  # gone, renamed or damaged meanwhile
        time.sleep(0.2)

    def close(self) -> None:
        """Nothing is held open."""

    def _new_records(self, path: Path, first: bool) -> list[dict[str, Any]]:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            key = (status.st_dev, status.st_ino)
            done = self._read.get(key, 0)
            if status.st_size <= done:
                return []
            # Only the first look asks how old a file is: what is written later is new, though the clock may step back.
            assert self._old is not None
            if first and status.st_mtime < self._oldest:
                self._old[key] = status.st_size
            if self._old.get(key) == status.st_size:
                return []
            header = avro.read_header(file.read(avro.MAX_HEADER_BYTES))
            start = max(done, header.end)
            file.seek(0)
            head = file.read(header.end)
            file.seek(start)
            blocks = file.read()
        whole = max((block.end for block in avro.whole_blocks(blocks, header.sync)), default=0)
        self._read[key] = start + whole  # what is damaged is not tried again: `vqe tables build` names it
        return list(avro.records(head + blocks[:whole]))


class TopicSource:
    """Kafka topics, by a consumer group of its own: several consumers read the same events.

    Streams are begun one after the other, each once the one before was read to the end that it had then, so that iterations
    have names. What comes in meanwhile is no reason to wait: on a busy platform something always does.
    """

    def __init__(self, settings: Settings, since_seconds: float) -> None:
        from simulator.kafka.follower import Follower

        oldest = time.time() - since_seconds
        self._found: list[Record] = []
        self._follower = Follower(
            settings, f"vqe-watch-{new_id()}", STREAMS, lambda stream, record, _at: self._found.append((stream, record)),
            begin=lambda _stream: oldest,
        )  # fmt: skip
        self._begun = 1
        self._ends = self._look(1)
        self._waits = self._read_any = False

    def read(self) -> Iterator[Record]:
        """What is new; while a registry or broker is away this waits, and logs it once."""
        from simulator.kafka.clients import ServiceError
        from simulator.log import get_logger

        try:
            if self._begun < len(STREAMS) and self._follower.has_reached(self._ends):
                self._ends = self._look(self._begun + 1)
                self._begun += 1
            elif time.monotonic() >= self._next_look:  # for topics and partitions that were made meanwhile
                self._look(self._begun)
            self._follower.read(0.2)
            self._waits = False
        except ServiceError as error:
            if not self._read_any and not self._found:
                raise
            if not self._waits:
                get_logger().warning("waiting", reason=str(error))
            self._waits = True
            time.sleep(0.5)
        found, self._found[:] = list(self._found), []
        self._read_any = self._read_any or bool(found)
        yield from found

    def close(self) -> None:
        """Close the follower."""
        self._follower.close()

    def _look(self, streams: int) -> dict[tuple[str, int], int]:
        self._next_look = time.monotonic() + LOOK_SECONDS
        return self._follower.look_around(STREAMS[:streams])
