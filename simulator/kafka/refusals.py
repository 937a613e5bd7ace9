"""What an error of the producer means for the event that it is about: try again, wait, or set aside."""

from enum import Enum
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from confluent_kafka import KafkaError


class Verdict(Enum):
    """What is to be done after an error."""

    WAIT = "wait"
    """The service is away or busy: the same is sent again later."""
    PRODUCER = "producer"
    """The producer cannot go on: a new one sends the same again."""
    RECORD = "record"
    """The broker will never take this record; where several were sent together, one of them."""
    DOUBTFUL = "doubtful"
    """The broker gave an answer that may pass: it counts as final once it has been given for some seconds."""
    TOPIC = "topic"
    """The broker accepts nothing for this topic: final once it has said so for some seconds."""


def verdict(error: "KafkaError") -> Verdict:
    """What an error means.

    librdkafka tries again by itself what the protocol calls retriable, so an error that is reported and not in the list of
    things to wait for would otherwise be met again for ever.
    """
    waiting, record, topic, producer = _codes()
    code = error.code()
    if error.fatal() or code in producer:
        return Verdict.PRODUCER
    if code in waiting:
        return Verdict.WAIT
    if code in record:
        return Verdict.RECORD
    if code in topic:
        return Verdict.TOPIC
    # -1 is the broker's "unexpected error"; lower codes are librdkafka's own and say nothing about the record.
    return Verdict.DOUBTFUL if code >= -1 else Verdict.WAIT


@cache
def _codes() -> tuple[frozenset[int], frozenset[int], frozenset[int], frozenset[int]]:
    from confluent_kafka import KafkaError as E

    waiting = frozenset({
        E._MSG_TIMED_OUT, E._TIMED_OUT, E._TRANSPORT, E._ALL_BROKERS_DOWN, E._AUTHENTICATION, E._SSL, E._PURGE_QUEUE,
        E._PURGE_INFLIGHT, E._UNKNOWN_TOPIC, E._UNKNOWN_PARTITION, E.UNKNOWN_TOPIC_OR_PART, E.LEADER_NOT_AVAILABLE,
        E.NOT_LEADER_FOR_PARTITION, E.REQUEST_TIMED_OUT, E.BROKER_NOT_AVAILABLE, E.REPLICA_NOT_AVAILABLE,
        E.NETWORK_EXCEPTION, E.NOT_ENOUGH_REPLICAS, E.NOT_ENOUGH_REPLICAS_AFTER_APPEND, E.KAFKA_STORAGE_ERROR,
        E.CLUSTER_AUTHORIZATION_FAILED, E.SASL_AUTHENTICATION_FAILED, E.COORDINATOR_LOAD_IN_PROGRESS,
        E.COORDINATOR_NOT_AVAILABLE, E.NOT_COORDINATOR, E.NOT_CONTROLLER, E.THROTTLING_QUOTA_EXCEEDED,
        E.FENCED_LEADER_EPOCH, E.UNKNOWN_LEADER_EPOCH, E.ELIGIBLE_LEADERS_NOT_AVAILABLE, E.INVALID_REPLICATION_FACTOR,
    })  # fmt: skip
    record = frozenset({
        E.MSG_SIZE_TOO_LARGE, E.INVALID_MSG_SIZE, E.RECORD_LIST_TOO_LARGE, E.INVALID_RECORD, E.INVALID_TIMESTAMP,
        E.POLICY_VIOLATION, E.UNSUPPORTED_FOR_MESSAGE_FORMAT, E.INVALID_MSG, E._INVALID_ARG,
    })  # fmt: skip
    topic = frozenset({E.TOPIC_AUTHORIZATION_FAILED, E.TOPIC_EXCEPTION})
    producer = frozenset({
        E._FATAL, E._FENCED, E.OUT_OF_ORDER_SEQUENCE_NUMBER, E.UNKNOWN_PRODUCER_ID, E.INVALID_PRODUCER_EPOCH,
        E.PRODUCER_FENCED, E.DUPLICATE_SEQUENCE_NUMBER, E.INVALID_PRODUCER_ID_MAPPING,
    })  # fmt: skip
    return waiting, record, topic, producer
