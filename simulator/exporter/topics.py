"""The topics: runs from vqe_run and vqe_result, signs of life from vqe_system_metrics. No group: offsets are in memory."""

import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from simulator.exporter.runs import RunBook
from simulator.log import get_logger
from simulator.schemas import stream_of
from simulator.settings import Settings
from simulator.sinks.spool import first_string
from simulator.streaming.clients import AdminLender, ServiceError, make_consumer
from simulator.streaming.lag import ADMIN_SECONDS, Partition, offsets
from simulator.streaming.results import Decoder

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient
    from prometheus_client import Metric

WHOLE = ("vqe_run", "vqe_result")
SIGNS = "vqe_system_metrics"
SILENCE_SECONDS = 15.0


class TopicSource:
    """Follows the topics of every major version.

    Args:
        settings: where Kafka and the registry are.
        book: takes what is read. Guarded by `lock`.
    """

    name = "topics"

    def __init__(self, settings: Settings, book: RunBook, lock: threading.Lock) -> None:
        self.interval = settings.exporter_interval
        self._settings, self._book, self._lock = settings, book, lock
        self._decode = Decoder(settings)
        self._admin = AdminLender(settings)
        self._consumer = make_consumer(settings, "vqe-exporter", **{"fetch.wait.max.ms": 100})
        self._positions: dict[Partition, int] = {}
        self._pending: deque[Any] = deque()
        self._read_all = False

    def look(self) -> None:
        """Read to the present end of the topics."""
        from confluent_kafka import KafkaException

        try:
            with self._admin.lend() as admin:
                self._assign_new(admin)
                ends = offsets(admin, sorted(self._positions))
            heard = time.monotonic()
            self._take_pending()
            while any(self._positions[key] < end for key, end in ends.items()):
                messages = self._consumer.consume(1_000, timeout=0.2)
                if messages:
                    heard = time.monotonic()
                elif time.monotonic() - heard > SILENCE_SECONDS:
                    raise ServiceError(f"Kafka at {self._settings.kafka_bootstrap_servers} stopped answering")
                self._pending.extend(messages)
                self._take_pending()
        except KafkaException as error:
            raise ServiceError(f"Kafka at {self._settings.kafka_bootstrap_servers}: {error.args[0].str()}") from None
        self._read_all = True

    def families(self, up: bool) -> "Iterator[Metric]":
        """The runs, once everything was read: counters that still grow from 0 would look like new runs."""
        if not self._read_all:
            return
        with self._lock:
            found = list(self._book.families())
        yield from found

    def close(self) -> None:
        self._consumer.close()

    def _assign_new(self, admin: "AdminClient") -> None:
        from confluent_kafka import TopicPartition

        metadata = admin.list_topics(timeout=ADMIN_SECONDS)
        found = {
            (name, partition)
            for name, topic in metadata.topics.items()
            if stream_of(name) in (*WHOLE, SIGNS)
            for partition in topic.partitions
        }
        gone = set(self._positions) - found
        if gone:
            self._consumer.incremental_unassign([TopicPartition(*key) for key in gone])
            for key in gone:
                del self._positions[key]
        new = sorted(found - set(self._positions))
        begin = offsets(admin, [key for key in new if not key[0].startswith(SIGNS)], earliest=True)
        begin |= self._signs_begin(admin, [key for key in new if key[0].startswith(SIGNS)])
        if begin:
            self._consumer.incremental_assign([TopicPartition(*key, offset) for key, offset in begin.items()])
            self._positions |= begin

    def _signs_begin(self, admin: "AdminClient", partitions: list[Partition]) -> dict[Partition, int]:
        """Where signs of life that still matter begin: older ones would tell that a run is lost, as silence does."""
        from confluent_kafka import TopicPartition
        from confluent_kafka.admin import OffsetSpec

        if not partitions:
            return {}
        since = OffsetSpec.for_timestamp(int(1e3 * (time.time() - 2 * self._settings.lost_after_seconds)))
        futures = admin.list_offsets({TopicPartition(*key): since for key in partitions}, request_timeout=ADMIN_SECONDS)
        found = {(tp.topic, tp.partition): f.result(timeout=ADMIN_SECONDS).offset for tp, f in futures.items()}
        ends = offsets(admin, [key for key, offset in found.items() if offset < 0])  # none is so new
        return found | ends

    def _take_pending(self) -> None:
        """Take what was read; a record stays while the registry cannot tell its schema."""
        while self._pending:
            message = self._pending[0]
            if message.error() is None:
                self._take(message)
            self._pending.popleft()

    def _take(self, message: Any) -> None:
        topic, value, at = message.topic(), message.value() or b"", message.timestamp()[1] / 1e3
        key = (topic, message.partition())
        stream = stream_of(topic)
        try:
            if stream == SIGNS:
                run_id = first_string(value[5:]).decode()
                with self._lock:
                    self._book.alive(run_id, at)
            else:
                record = self._decode(value)
                with self._lock:
                    (self._book.began if stream == "vqe_run" else self._book.ended)(record, at)
        except (ValueError, KeyError, IndexError, AttributeError) as error:  # the sink puts it on its dead letter topic
            get_logger().warning("unreadable record", topic=topic, offset=message.offset(), error=str(error))
        if key in self._positions:
            self._positions[key] = message.offset() + 1
