"""The forwarder: delivers spooled events to Kafka in order, and removes what is acknowledged.

It reads what is on disk, never the optimizer's memory, so that a live run, `vqe replay` and a restarting worker go the
same way. A chunk of a file is sent, all of it acknowledged, and only then noted; a crash in between sends the chunk
again, and the tables drop what they have by key.
"""

import contextlib
import json
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.errors import one_line
from simulator.log import get_logger
from simulator.settings import Settings
from simulator.sinks.spool import SpooledRecord, SpoolReader, orphans
from simulator.streaming.clients import make_producer
from simulator.streaming.registry import frame, lookup_id

if TYPE_CHECKING:
    from confluent_kafka import Producer

POLL_SECONDS = 0.1
ORPHAN_SECONDS = 30.0
RETRY_SECONDS = 2.0
SUSPECT_SECONDS = 5.0
"""A chunk unacknowledged for longer counts as an outage, whatever the client says."""


@dataclass
class Delivery:
    """What the forwarder has done so far."""

    delivered: int = 0
    delivered_bytes: int = 0
    failed: int = 0
    rejected: int = 0
    away_since: float | None = None  # monotonic seconds; None: Kafka takes events


class Forwarder:
    """Delivers the files it is given and those that dead processes left, until it is closed.

    Args:
        spool: the spool's folder.
        settings: connection settings.
    """

    def __init__(self, spool: Path, settings: Settings) -> None:
        self.spool, self.delivery = spool, Delivery()
        self._settings = settings
        self._readers: list[SpoolReader] = []
        self._new: list[SpoolReader] = []
        self._lock = threading.Lock()
        self._closing, self._told, self._idle = threading.Event(), False, threading.Event()
        self._wake = threading.Event()
        self._ids: dict[tuple[str, str], bytes] = {}
        self._outstanding = 0
        self._failures: list[Any] = []
        self._next_orphans = 0.0
        self._producer: Producer | None = None
        self._thread = threading.Thread(target=self._work, name="forwarder", daemon=True)
        self._thread.start()

    def follow(self, reader: SpoolReader) -> None:
        """Deliver a file of this process, also while it grows."""
        with self._lock:
            self._new.append(reader)
        self._wake.set()

    def drain(self, seconds: float) -> bool:
        """Wait until everything that was flushed is acknowledged; False when it is not, or Kafka is away."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._idle.clear()
            self._wake.set()
            if self._idle.wait(min(0.2, max(0.0, deadline - time.monotonic()))) and not self.pending_bytes:
                return True
            if not self._thread.is_alive():
                break
        return not self.pending_bytes

    @property
    def pending_bytes(self) -> int:
        """Bytes on disk that Kafka has not acknowledged, of the files in hand."""
        with self._lock:
            readers = [*self._readers, *self._new]
        total = 0
        for reader in readers:
            with contextlib.suppress(OSError):
                total += reader.pending_bytes
        return total

    def close(self) -> None:
        """Stop; what is not delivered stays in the spool, and the next process finds it."""
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout=10)
        for reader in [*self._readers, *self._new]:
            reader.close()
        self._readers, self._new = [], []

    def _work(self) -> None:
        while not self._closing.is_set():
            try:
                busy = self._round()
            except Exception as error:  # delivery must outlive whatever the network does; the spool keeps the events
                get_logger().debug("delivery round failed", exc_info=True)
                self._away(f"{type(error).__name__}: {error}")
                busy = False
            if not busy:
                self._idle.set()
                waited = RETRY_SECONDS if self.delivery.away_since is not None else POLL_SECONDS
                self._wake.wait(waited)
                self._wake.clear()
        if self._producer is not None:
            with contextlib.suppress(Exception):
                self._producer.purge()
                self._producer.flush(0.2)

    def _round(self) -> bool:
        """Send a chunk of each file; whether anything was sent."""
        if time.monotonic() >= self._next_orphans:
            self._next_orphans = time.monotonic() + ORPHAN_SECONDS
            found = list(orphans(self.spool))
            with self._lock:  # before what is new: in order
                self._readers[:0] = found
        with self._lock:
            self._readers += self._new
            self._new = []
            readers = list(self._readers)
        sent = False
        for reader in readers:
            complete = reader.complete
            if reader.pending_bytes:
                advanced = self._send_chunk(reader)
                sent = sent or advanced
                if self._closing.is_set() or self.delivery.away_since is not None:
                    return False
                if advanced:
                    continue
            if complete:  # nothing whole is left in a file that nobody writes
                left = reader.pending_bytes
                if left and reader.skip_damage():
                    sent = True
                    continue
                if left:  # its writer died in the middle of a record
                    get_logger().warning(
                        "spool file ended in the middle of a record", file=str(reader.path), bytes=left
                    )
                with self._lock:
                    self._readers.remove(reader)
                if reader.damaged:
                    self.delivery.rejected += 1
                    _tell(
                        f"{reader.path} is damaged: its whole records are delivered, the file is kept in {self.spool / 'rejected'}"
                    )
                reader.remove(self.spool / "rejected")
        return sent

    def _send_chunk(self, reader: SpoolReader) -> bool:
        """Send the next records of a file and wait until Kafka has them; whether there were any."""
        records = list(reader.records())
        if not records:
            return False
        header = self._frame(reader)
        if header is None:
            return False
        producer = self._producer = self._producer or make_producer(self._settings, error_cb=self._on_error)
        self._failures = []
        topic, sent = reader.topic, self._on_delivery
        for record in records:
            while True:
                try:
                    producer.produce(topic, header + record.payload, record.key, on_delivery=sent)
                    self._outstanding += 1
                    break
                except BufferError:
                    producer.poll(0.05)
                    if self._closing.is_set():
                        return False
                except Exception as error:
                    if not _too_large(error):
                        raise
                    self._reject(reader, record, str(error))
                    break
        began = time.monotonic()
        while self._outstanding:
            producer.poll(0.05)
            if self._closing.is_set():
                return False
            if self._outstanding and time.monotonic() - began > SUSPECT_SECONDS:
                self._away("no acknowledgement")
        if self._failures:
            self.delivery.failed += len(self._failures)
            first = self._failures[0]
            if first.fatal():  # an idempotent producer that lost its sequence: a new one sends the chunk again
                self._producer = None
            self._away(first.str())
            return False
        self._back()
        reader.acknowledge(records[-1].end)
        self.delivery.delivered += len(records)
        self.delivery.delivered_bytes += sum(len(r.payload) for r in records)
        return True

    def _frame(self, reader: SpoolReader) -> bytes | None:
        """The wire-format header of the file's schema; None while the registry cannot tell."""
        key = (reader.topic, reader.schema_json)
        if key not in self._ids:
            try:
                found = lookup_id(self._settings, *key)
            except Exception as error:
                self._away(f"registry {self._settings.registry_url}: {one_line(error)}")
                return None
            if found is None:
                self._away(f"the registry does not know the schema of {reader.topic} (vqe schemas register)")
                return None
            self._ids[key] = frame(found)
        return self._ids[key]

    def _reject(self, reader: SpoolReader, record: SpooledRecord, reason: str) -> None:
        """Keep a record that Kafka will never take where an operator finds it."""
        folder = self.spool / "rejected"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{reader.topic}+{reader.path.stem}+{record.end}"
        (folder / f"{name}.bin").write_bytes(record.payload)
        (folder / f"{name}.json").write_text(
            json.dumps({"topic": reader.topic, "reason": reason, "schema": reader.schema_json})
        )
        self.delivery.rejected += 1
        _tell(f"Kafka refuses a record of {reader.topic} for good ({reason}); it is kept in {folder}")

    def _on_delivery(self, error: Any, _message: Any) -> None:
        self._outstanding -= 1
        if error is not None:
            self._failures.append(error)

    def _on_error(self, error: Any) -> None:
        from confluent_kafka import KafkaError

        if error.code() in (KafkaError._ALL_BROKERS_DOWN, KafkaError._AUTHENTICATION, KafkaError._SSL):
            self._away(error.str())

    def _away(self, reason: str) -> None:
        delivery = self.delivery
        if delivery.away_since is None:
            delivery.away_since = time.monotonic()
        if not self._told:
            self._told = True
            _tell(
                f"Kafka at {self._settings.kafka_bootstrap_servers} does not take events ({reason}): "
                f"they are kept in {self.spool} and delivered later"
            )

    def _back(self) -> None:
        delivery = self.delivery
        if delivery.away_since is not None:
            get_logger().info("delivery goes on", seconds_away=round(time.monotonic() - delivery.away_since, 1))
            delivery.away_since = None


def _tell(line: str) -> None:
    """The one line that a user reads, whatever the log level."""
    print(f"vqe: {line}", file=sys.stderr)


def _too_large(error: Exception) -> bool:
    from confluent_kafka import KafkaError, KafkaException

    return isinstance(error, KafkaException) and error.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE
