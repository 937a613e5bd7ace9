"""The one way to follow topics from a position on: read, decode, hand over, and only then move on.

A record that cannot be decoded because the registry is away stays the next one, however often that happens; one that is
damaged is counted, logged and skipped. So is one whose schema the registry does not know, but not for good: a registry that reads
its own store when it starts gives the same answer until it has come to that schema, and on a busy machine nobody can say how long
that takes. Such records are read again once the registry knows their schema. No offset is committed: positions are in memory.
"""

import io
import json
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from simulator.errors import one_line
from simulator.events.schemas import stream_of
from simulator.kafka.clients import AdminLender, ServiceError, make_consumer, make_registry
from simulator.kafka.lag import ADMIN_SECONDS, Partition, offsets
from simulator.kafka.registry import UNKNOWN_CODES, schema_id_of
from simulator.log import get_logger
from simulator.settings import Settings

if TYPE_CHECKING:
    from confluent_kafka import Consumer
    from confluent_kafka.admin import AdminClient

SILENCE_SECONDS = 15.0
AT_ONCE = 1_000
UNKNOWN_SECONDS = 5.0
"""Seconds for which the registry must not know an id before its records are left behind, to be read again when it does."""
ASK_AGAIN_SECONDS = 60.0
MAX_LEFT = 100
"""Unknown ids that are asked for again; garbage can carry ever new ones."""

Take = Callable[[str, Any, float], None]
"""Takes a record: its stream, what `decode` made of it, the Unix time at which Kafka got it. Raises ValueError, KeyError,
IndexError, TypeError or AttributeError for a record that nobody can use."""
_UNUSABLE = (ValueError, KeyError, IndexError, TypeError, AttributeError)


class UnknownSchema(ValueError):
    """The registry does not know a record's schema, or does not know it yet."""

    def __init__(self, schema_id: int) -> None:
        super().__init__(f"the registry does not know schema {schema_id}")
        self.schema_id = schema_id


class Decoder:
    """Decodes framed values with their writer's schema, looked up once an id."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._schemas: dict[int, Any] = {}
        self._unknown: dict[int, float] = {}  # when to ask again, monotonic seconds

    def __call__(self, value: bytes) -> dict[str, Any]:
        """The record in a framed value.

        Raises:
            UnknownSchema: the registry does not know its schema.
            ValueError: the value is not framed, or not of its schema.
            ServiceError: the registry does not answer, or has no schema at all.
        """
        from fastavro import schemaless_reader

        schema_id = schema_id_of(value)
        if schema_id not in self._schemas:
            self._schemas[schema_id] = self._schema(schema_id)
        try:
            record = schemaless_reader(io.BytesIO(value[5:]), self._schemas[schema_id], None)
        except Exception as error:  # what a damaged record makes fastavro raise is not bounded
            raise ValueError(f"not of schema {schema_id}: {one_line(error)}") from None
        if not isinstance(record, dict):
            raise ValueError(f"schema {schema_id} is no record")
        return record

    def knows(self, schema_id: int) -> bool:
        """Whether a schema that was unknown is known by now; the registry is asked once in `ASK_AGAIN_SECONDS`.

        Raises:
            ServiceError: the registry does not answer, or has no schema at all.
        """
        try:
            self._schemas[schema_id] = self._schemas.get(schema_id) or self._schema(schema_id)
        except UnknownSchema:
            return False
        except ValueError:  # known, and none of Avro's: reading its records tells that
            pass
        return True

    def _schema(self, schema_id: int) -> Any:
        from fastavro import parse_schema

        if time.monotonic() < self._unknown.get(schema_id, 0.0):
            raise UnknownSchema(schema_id)
        patience = time.monotonic() + UNKNOWN_SECONDS
        while (text := self._asked(schema_id)) is None:
            if schema_id in self._unknown or time.monotonic() > patience:
                self._unknown[schema_id] = time.monotonic() + ASK_AGAIN_SECONDS
                raise UnknownSchema(schema_id)
            time.sleep(min(0.5, UNKNOWN_SECONDS))
        self._unknown.pop(schema_id, None)
        try:
            return parse_schema(json.loads(text))
        except Exception as error:  # a library's parser of schemas raises nearly anything
            raise ValueError(f"schema {schema_id} is none of Avro's: {one_line(error)}") from None

    def _asked(self, schema_id: int) -> str | None:
        """A schema's text; None where the registry says that there is none, and has others."""
        from confluent_kafka.schema_registry.error import SchemaRegistryError

        told = f"registry {self._settings.registry_url} does not tell schema {schema_id}"
        try:
            with make_registry(self._settings) as registry:  # once a schema: no connection is kept
                try:
                    return registry.get_schema(schema_id).schema_str or "null"
                except SchemaRegistryError as error:
                    if error.http_status_code != 404 or error.error_code not in UNKNOWN_CODES:
                        raise
                if registry.get_subjects():
                    return None
        except Exception as error:
            raise ServiceError(f"{told}: {one_line(error)}") from None
        raise ServiceError(f"{told}: it has no schema at all, so it is starting or has lost its store")


def from_the_beginning(_stream: str) -> None:
    """A start position: the oldest record that Kafka has."""


class Follower:
    """Follows the topics of some streams, of every major version and with the partitions and topics that come later.

    Args:
        settings: where Kafka and the registry are.
        group: the name that Kafka shows for the consumer; nothing is committed.
        streams: the streams, e.g. `vqe_run`.
        take: gets each record once, in the order of its partition but for those whose schema the registry came to know later.
        decode: by stream, what makes of a value what `take` gets; other streams' values are decoded with their writer's schema.
        begin: the Unix time from which on a stream is read; None: from its beginning.
    """

    def __init__(
        self,
        settings: Settings,
        group: str,
        streams: Sequence[str],
        take: Take,
        *,
        decode: Mapping[str, Callable[[bytes], Any]] | None = None,
        begin: Callable[[str], float | None] = from_the_beginning,
    ) -> None:
        self.positions: dict[Partition, int] = {}
        """The next offset of each partition."""
        self.unreadable: Counter[str] = Counter()  # by topic
        self._settings, self._streams, self._take, self._begin = settings, tuple(streams), take, begin
        self._record = Decoder(settings)
        self._decode = dict(decode or {})
        self._left: dict[int, dict[Partition, int]] = {}  # by unknown schema, the first record of it in each partition
        self._again: dict[
            Partition, tuple[int, dict[int, int]]
        ] = {}  # up to an offset, from where on which schemas are new
        self._pending: deque[Any] = deque()
        self._admin = AdminLender(settings)
        self._consumer: Consumer = make_consumer(settings, group, **{"fetch.wait.max.ms": 100})

    def look_around(self, streams: Sequence[str] | None = None) -> dict[Partition, int]:
        """Find topics and partitions that are new, leave those that are gone; returns where each ends now.

        Args:
            streams: look for these only.

        Raises:
            ServiceError: Kafka does not answer.
        """
        from confluent_kafka import KafkaException, TopicPartition

        wanted = self._streams if streams is None else tuple(streams)
        try:
            with self._admin.lend() as admin:  # the consumer's own connection is busy with a waiting fetch
                self._assign(admin, wanted)
                ends = offsets(admin, sorted(self.positions))
                first = offsets(admin, sorted(self.positions), earliest=True)
        except (KafkaException, TimeoutError) as error:
            raise self._away(error) from None
        for key, offset in first.items():
            if self.positions[key] > ends[key]:  # a topic that was deleted and made anew
                self._consumer.incremental_unassign([TopicPartition(*key)])
                self._consumer.incremental_assign([TopicPartition(*key, offset)])
                self.positions[key] = offset
                self._forget(key)
            self.positions[key] = max(self.positions[key], offset)  # retention has deleted what was before
        self._return_to_left(first)
        return ends

    def read(self, seconds: float) -> int:
        """Take what is there, waiting so long where nothing is; returns how many records were read.

        Raises:
            ServiceError: Kafka or the registry does not answer; what the registry is asked for stays the next record.
        """
        from confluent_kafka import KafkaException

        if not self._pending:
            try:
                self._pending.extend(self._consumer.consume(AT_ONCE, timeout=seconds))
            except KafkaException as error:
                raise self._away(error) from None
        read = 0
        while self._pending:
            message = self._pending[0]
            if message.error() is None:
                self._take_one(message)
                read += 1
            self._pending.popleft()
        return read

    def read_to(self, ends: dict[Partition, int]) -> None:
        """Take everything before these offsets.

        Raises:
            ServiceError: Kafka or the registry does not answer.
        """
        heard = time.monotonic()
        while not self.has_reached(ends):
            if self.read(0.2):
                heard = time.monotonic()
            elif time.monotonic() - heard > SILENCE_SECONDS:
                raise ServiceError(f"Kafka at {self._settings.kafka_bootstrap_servers} stopped answering")

    def has_reached(self, ends: dict[Partition, int]) -> bool:
        """Whether everything before these offsets was taken; a partition that is gone counts as read."""
        return all(self.positions.get(key, end) >= end for key, end in ends.items())

    def catch_up(self) -> None:
        """Take everything up to the present end of the topics.

        Raises:
            ServiceError: Kafka or the registry does not answer.
        """
        self.read_to(self.look_around())

    def close(self) -> None:
        """Close the consumer and the admin client."""
        self._consumer.close()

    def _take_one(self, message: Any) -> None:
        topic, value = message.topic(), message.value() or b""
        key, offset = (topic, message.partition()), message.offset()
        if self._is_new(key, offset, value):
            stream = stream_of(topic)
            try:
                found = self._decode.get(stream, self._record)(value)
                self._take(stream, found, message.timestamp()[1] / 1e3)
            except _UNUSABLE as error:  # the sink puts such a record on its dead letter topic
                self.unreadable[topic] += 1
                get_logger().warning("unreadable record", topic=topic, offset=offset, error=one_line(error))
                if isinstance(error, UnknownSchema) and (error.schema_id in self._left or len(self._left) < MAX_LEFT):
                    self._left.setdefault(error.schema_id, {}).setdefault(key, offset)
        if key in self.positions:
            self.positions[key] = offset + 1

    def _is_new(self, key: Partition, offset: int, value: bytes) -> bool:
        """Whether a record has to be taken: all but those that are read a second time for the sake of others."""
        if key not in self._again:
            return True
        until, since = self._again[key]
        if offset >= until:
            del self._again[key]
            return True
        try:
            return offset >= since.get(schema_id_of(value), until)
        except ValueError:
            return False

    def _return_to_left(self, first: dict[Partition, int]) -> None:
        """Go back to records that were left behind and whose schema the registry knows by now.

        Args:
            first: the oldest record of each partition.
        """
        from confluent_kafka import TopicPartition

        back: dict[Partition, dict[int, int]] = {}
        for schema_id in [schema_id for schema_id in self._left if self._record.knows(schema_id)]:
            get_logger().info("the registry knows a schema by now", schema_id=schema_id)
            for key, offset in self._left.pop(schema_id).items():
                back.setdefault(key, {})[schema_id] = max(offset, first.get(key, 0))
        for key, since in back.items():
            here = self.positions[key]
            until, before = self._again.get(key, (here, {}))
            self._again[key] = (until, {schema: max(offset, here) for schema, offset in before.items()} | since)
            self.positions[key] = min(here, *since.values())
            self._consumer.incremental_unassign([TopicPartition(*key)])
            self._consumer.incremental_assign([TopicPartition(*key, self.positions[key])])
        if back:
            self._pending = deque(m for m in self._pending if (m.topic(), m.partition()) not in back)

    def _forget(self, key: Partition) -> None:
        """Leave what a partition had that is gone."""
        self._again.pop(key, None)
        for left in self._left.values():
            left.pop(key, None)

    def _assign(self, admin: "AdminClient", streams: Sequence[str]) -> None:
        from confluent_kafka import TopicPartition

        metadata = admin.list_topics(timeout=ADMIN_SECONDS)
        there = {
            (name, partition)
            for name, topic in metadata.topics.items()
            if stream_of(name) in self._streams
            for partition in topic.partitions
        }
        gone = set(self.positions) - there
        if gone:
            self._consumer.incremental_unassign([TopicPartition(*key) for key in gone])
            for key in gone:
                del self.positions[key]
                self._forget(key)
        new = sorted(key for key in there - set(self.positions) if stream_of(key[0]) in streams)
        begin: dict[Partition, int] = {}
        for stream in streams:
            begin |= self._first(admin, [key for key in new if stream_of(key[0]) == stream], self._begin(stream))
        if begin:
            self._consumer.incremental_assign([TopicPartition(*key, offset) for key, offset in begin.items()])
            self.positions |= begin

    def _first(self, admin: "AdminClient", partitions: list[Partition], since: float | None) -> dict[Partition, int]:
        """Where partitions begin, or where their records of a Unix time and later do."""
        from confluent_kafka import TopicPartition
        from confluent_kafka.admin import OffsetSpec

        if since is None or not partitions:
            return offsets(admin, partitions, earliest=True)
        spec = OffsetSpec.for_timestamp(int(1e3 * since))
        futures = admin.list_offsets({TopicPartition(*key): spec for key in partitions}, request_timeout=ADMIN_SECONDS)
        found = {(tp.topic, tp.partition): f.result(timeout=ADMIN_SECONDS).offset for tp, f in futures.items()}
        return found | offsets(
            admin, [key for key, offset in found.items() if offset < 0]
        )  # where no record is so new, the end

    def _away(self, error: Exception) -> ServiceError:
        from confluent_kafka import KafkaException

        told = error.args[0].str() if isinstance(error, KafkaException) else "no answer"
        return ServiceError(f"Kafka at {self._settings.kafka_bootstrap_servers}: {told}")
