"""The topics: names from the schemas, partitions and retention from the settings. They are created explicitly, never by the broker."""

from dataclasses import dataclass

from simulator.events import schemas
from simulator.kafka.clients import ServiceError, make_admin
from simulator.settings import Settings

CONNECT_DLQ_TOPIC = "vqe_dlq_connect"
MAX_MESSAGE_BYTES = 1_000_000
_DEAD_LETTER_HOURS = 30 * 24
_ADMIN_SECONDS = 15.0


@dataclass(frozen=True)
class TopicPlan:
    """A topic as it is to be."""

    name: str
    partitions: int
    replication: int
    retention_ms: int


def plan(settings: Settings) -> list[TopicPlan]:
    """Every topic of this release. Dead letters are kept for 30 days, events as the settings say."""
    hour = 3_600_000
    names = dict.fromkeys(schemas.released(), settings.kafka_retention_hours)
    names |= {CONNECT_DLQ_TOPIC: _DEAD_LETTER_HOURS}
    return [
        TopicPlan(
            name,
            1 if name.startswith("vqe_dlq") else settings.kafka_partitions,
            settings.kafka_replication,
            hours * hour,
        )
        for name, hours in sorted(names.items())
    ]


def create_topics(settings: Settings) -> dict[str, str]:
    """Create the topics that are missing; existing ones stay as they are. Returns `created` or `present` by topic.

    Raises:
        ServiceError: Kafka is away or refuses.
    """
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import NewTopic

    wanted = [
        NewTopic(
            topic.name,
            topic.partitions,
            topic.replication,
            config={
                "retention.ms": str(topic.retention_ms),
                "compression.type": "producer",
                "cleanup.policy": "delete",
                "max.message.bytes": str(MAX_MESSAGE_BYTES),
            },
        )
        for topic in plan(settings)
    ]
    done: dict[str, str] = {}
    admin = make_admin(settings)  # kept: its futures fail when it is collected
    futures = admin.create_topics(wanted, request_timeout=_ADMIN_SECONDS, operation_timeout=_ADMIN_SECONDS)
    for name, future in futures.items():
        try:
            future.result(timeout=2 * _ADMIN_SECONDS)
            done[name] = "created"
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise ServiceError(
                    f"topic {name} cannot be made at {settings.kafka_bootstrap_servers}: {error.args[0].str()}"
                ) from None
            done[name] = "present"
        except TimeoutError:
            raise ServiceError(f"Kafka at {settings.kafka_bootstrap_servers} does not answer") from None
    return done
