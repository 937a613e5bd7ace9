"""What the topics say about specifications: which are completed, which were started."""

import io
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from simulator.schemas import stream_of
from simulator.settings import Settings
from simulator.streaming.clients import AdminLender, ServiceError, make_consumer, make_registry
from simulator.streaming.lag import offsets
from simulator.streaming.registry import schema_id_of

if TYPE_CHECKING:
    from confluent_kafka import Consumer
    from confluent_kafka.admin import AdminClient

_SECONDS = 15.0


class Decoder:
    """Decodes framed values with their writer's schema, looked up once an id."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._schemas: dict[int, Any] = {}

    def __call__(self, value: bytes) -> dict[str, Any]:
        """The record in a framed value.

        Raises:
            ValueError: the value is not framed, or not of its schema.
            ServiceError: the registry does not tell.
        """
        from fastavro import parse_schema, schemaless_reader

        schema_id = schema_id_of(value)
        if schema_id not in self._schemas:
            try:
                with make_registry(self._settings) as registry:  # once a schema: no connection is kept
                    text = registry.get_schema(schema_id).schema_str
            except Exception as error:
                raise ServiceError(
                    f"registry {self._settings.registry_url} does not tell schema {schema_id}: {error}"
                ) from None
            self._schemas[schema_id] = parse_schema(json.loads(text or "null"))
        try:
            record = schemaless_reader(io.BytesIO(value[5:]), self._schemas[schema_id], None)
        except (EOFError, IndexError, TypeError, KeyError, UnicodeDecodeError) as error:
            raise ValueError(f"not of schema {schema_id}: {error}") from None
        if not isinstance(record, dict):
            raise ValueError(f"schema {schema_id} is no record")
        return record


@dataclass
class Outcomes:
    """What became of specifications so far. A specification may have several runs."""

    completed: set[str] = field(default_factory=set)
    ended_runs: dict[str, str] = field(default_factory=dict)  # run_id -> spec_id
    started_runs: dict[str, str] = field(default_factory=dict)  # run_id -> spec_id

    def add(self, stream: str, record: dict[str, Any]) -> None:
        """Take a record of vqe_run or vqe_result."""
        run_id, spec_id = str(record["run_id"]), str(record["spec_id"])
        if stream == "vqe_run":
            self.started_runs[run_id] = spec_id
            return
        self.ended_runs[run_id] = spec_id
        if record["status"] == "completed":
            self.completed.add(spec_id)

    def lost(self) -> Counter[str]:
        """By spec_id, how many runs began and never ended."""
        return Counter(spec for run, spec in self.started_runs.items() if run not in self.ended_runs)


class OutcomeReader:
    """Follows vqe_run and vqe_result of every major version from their beginning."""

    def __init__(self, settings: Settings) -> None:
        self.outcomes = Outcomes()
        self._settings, self._decode = settings, Decoder(settings)
        self._consumer: Consumer = make_consumer(settings, "vqe-outcomes", **{"fetch.wait.max.ms": 100})
        self._admin = AdminLender(settings)
        self._assigned: set[tuple[str, int]] = set()
        self._positions: dict[tuple[str, int], int] = {}

    def catch_up(self) -> Outcomes:
        """Read to the present end of the topics.

        Raises:
            ServiceError: Kafka or the registry does not answer.
        """
        from confluent_kafka import KafkaException

        try:
            with self._admin.lend() as admin:  # the consumer's own connection is busy with a waiting fetch
                self._assign_new(admin)
                ends = offsets(admin, sorted(self._assigned), seconds=_SECONDS)
            heard = time.monotonic()
            while any(self._position(*key) < end for key, end in ends.items()):
                messages = self._consumer.consume(1_000, timeout=0.2)  # waits for a full thousand, so not for long
                if messages:
                    heard = time.monotonic()
                elif time.monotonic() - heard > _SECONDS:
                    raise ServiceError(f"Kafka at {self._settings.kafka_bootstrap_servers} stopped answering")
                for message in messages:
                    self._take(message)
        except KafkaException as error:
            raise ServiceError(f"Kafka at {self._settings.kafka_bootstrap_servers}: {error.args[0].str()}") from None
        return self.outcomes

    def close(self) -> None:
        """Leave."""
        self._consumer.close()

    def _position(self, topic: str, partition: int) -> int:
        return self._positions.get((topic, partition), 0)

    def _assign_new(self, admin: "AdminClient") -> None:
        from confluent_kafka import OFFSET_BEGINNING, TopicPartition

        metadata = admin.list_topics(timeout=_SECONDS)
        found = {
            (name, partition)
            for name, topic in metadata.topics.items()
            if stream_of(name) in ("vqe_run", "vqe_result")
            for partition in topic.partitions
        }
        new = sorted(found - self._assigned)
        if new:
            self._positions |= offsets(admin, new, earliest=True, seconds=_SECONDS)
            self._consumer.incremental_assign([TopicPartition(t, p, OFFSET_BEGINNING) for t, p in new])
            self._assigned |= set(new)

    def _take(self, message: Any) -> None:
        from simulator.log import get_logger

        if message.error() is not None:
            return
        topic = message.topic()
        self._positions[topic, message.partition()] = message.offset() + 1
        try:
            self.outcomes.add(stream_of(topic), self._decode(message.value() or b""))
        except (ValueError, KeyError) as error:  # not ours to mend: the sink puts it on its dead letter topic
            get_logger().warning("unreadable record", topic=topic, offset=message.offset(), error=str(error))


def read_outcomes(settings: Settings) -> Outcomes:
    """What the topics say now.

    Raises:
        ServiceError: Kafka or the registry does not answer.
    """
    reader = OutcomeReader(settings)
    try:
        return reader.catch_up()
    finally:
        reader.close()
