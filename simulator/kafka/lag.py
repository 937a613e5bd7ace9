"""How far consumer groups are behind, through the admin client: works whether or not their consumers run."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

ADMIN_SECONDS = 10.0

Partition = tuple[str, int]


@dataclass(frozen=True)
class GroupProgress:
    """A consumer group's progress in one topic, over its partitions."""

    group: str
    topic: str
    lag: int  # records behind the end that nobody has committed
    committed: int  # sum of committed offsets


def offsets(
    admin: "AdminClient", partitions: list[Partition], *, earliest: bool = False, seconds: float = ADMIN_SECONDS
) -> dict[Partition, int]:
    """First or end offsets, waiting `seconds` at most.

    Raises:
        KafkaException, TimeoutError: Kafka does not answer.
    """
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import OffsetSpec

    if not partitions:
        return {}
    which = OffsetSpec.earliest() if earliest else OffsetSpec.latest()
    futures = admin.list_offsets({TopicPartition(t, p): which for t, p in partitions}, request_timeout=seconds)
    return {(tp.topic, tp.partition): future.result(timeout=seconds).offset for tp, future in futures.items()}


def groups(admin: "AdminClient") -> list[str]:
    """Consumer groups that Kafka knows.

    Raises:
        KafkaException, TimeoutError: Kafka does not answer.
    """
    listed = admin.list_consumer_groups(request_timeout=ADMIN_SECONDS).result(timeout=ADMIN_SECONDS)
    return sorted(group.group_id for group in listed.valid)


def committed(admin: "AdminClient", group: str) -> dict[Partition, int]:
    """Offsets that a group has committed.

    Raises:
        KafkaException, TimeoutError: Kafka does not answer.
    """
    from confluent_kafka import ConsumerGroupTopicPartitions

    request = [ConsumerGroupTopicPartitions(group)]
    (future,) = admin.list_consumer_group_offsets(request, request_timeout=ADMIN_SECONDS).values()
    found: Any = future.result(timeout=ADMIN_SECONDS)
    return {(tp.topic, tp.partition): tp.offset for tp in found.topic_partitions if tp.offset >= 0 and tp.error is None}


def progress(
    group: str, known: dict[Partition, int], first: dict[Partition, int], end: dict[Partition, int]
) -> list[GroupProgress]:
    """A group's lag in the topics that it has committed to. A partition without a commit is behind by all it holds.

    Args:
        group: the group's name.
        known: its committed offsets.
        first, end: the partitions' first and end offsets.
    """
    out = []
    for topic in sorted({t for t, _ in known}):
        partitions = [key for key in end if key[0] == topic]
        lag = sum(max(0, end[key] - max(known.get(key, 0), first.get(key, 0))) for key in partitions)
        out.append(GroupProgress(group, topic, lag, sum(known.get(key, 0) for key in partitions)))
    return out
