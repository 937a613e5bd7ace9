"""Following runs live: what they have reached, from the topics or from the local files."""

import math
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from simulator import avro
from simulator.events import new_id
from simulator.schemas import stream_of
from simulator.settings import Settings

STREAMS = ("vqe_run", "vqe_result", "vqe_iteration")
"""In the order in which a source reads what is already there: a run's name first, its numbers last."""
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
        """Take an event of the run; events may come twice or late."""
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
        """Take events; returns how many there were."""
        taken = 0
        for stream, record in records:
            run_id = str(record["run_id"])
            self.runs.setdefault(run_id, WatchedRun(run_id)).take(stream, record)
            taken += 1
        return taken

    def shown(self) -> list[WatchedRun]:
        """The runs asked for, by the beginning or end of their id or by the molecule's name."""
        if not self.wanted:
            return list(self.runs.values())
        matches = lambda run, w: run.run_id.startswith(w) or run.run_id.endswith(w) or run.molecule == w  # noqa: E731
        return [run for run in self.runs.values() if any(matches(run, w) for w in self.wanted)]


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

    def read(self) -> Iterator[Record]:
        for stream in STREAMS:
            for path in sorted(self._raw.glob(f"{stream}_v*/partition=*/*.avro*")):
                try:
                    yield from ((stream, record) for record in self._new_records(path))
                except (OSError, ValueError):
                    continue  # gone, renamed or damaged meanwhile
        time.sleep(0.2)

    def close(self) -> None:
        """Nothing is held open."""

    def _new_records(self, path: Path) -> list[dict[str, Any]]:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            key = (status.st_dev, status.st_ino)
            done = self._read.get(key, 0)
            if status.st_size <= done or status.st_mtime < self._oldest:
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
    """Kafka topics, by a consumer group of its own: several consumers read the same events."""

    def __init__(self, settings: Settings, since_seconds: float) -> None:
        from simulator.streaming.clients import make_consumer
        from simulator.streaming.results import Decoder

        self._decode = Decoder(settings)
        self._consumer = make_consumer(settings, f"vqe-watch-{new_id()}", **{"fetch.wait.max.ms": 100})
        self._since = since_seconds
        self._streams = list(STREAMS)
        self._behind: set[tuple[str, int]] = set()
        self._assign(self._streams.pop(0))

    def read(self) -> Iterator[Record]:
        from simulator.log import get_logger

        messages = self._consumer.consume(500, timeout=0.2)
        for message in messages:
            topic, value = message.topic() or "", message.value()
            if message.error() is not None or value is None:
                continue
            try:
                yield stream_of(topic), self._decode(value)
            except ValueError as error:
                get_logger().warning("unreadable record", topic=topic, offset=message.offset(), error=str(error))
        if not messages and self._streams:
            self._assign(self._streams.pop(0))

    def close(self) -> None:
        """Leave."""
        self._consumer.close()

    def _assign(self, stream: str) -> None:
        """Follow a stream's topics from `since` on; iterations come after runs and results, so that they have names."""
        from confluent_kafka import KafkaException, TopicPartition

        from simulator.streaming.clients import ServiceError

        try:
            topics = self._consumer.list_topics(timeout=15).topics
            from_ms = int((time.time() - self._since) * 1000)
            wanted = [
                TopicPartition(name, partition, from_ms)
                for name, topic in topics.items()
                if stream_of(name) == stream
                for partition in topic.partitions
            ]
            if wanted:
                self._consumer.incremental_assign(self._consumer.offsets_for_times(wanted, timeout=15))
        except KafkaException as error:
            raise ServiceError(f"Kafka does not answer: {error.args[0].str()}") from None
