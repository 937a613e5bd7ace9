"""Jobs on Kafka: sent by `vqe submit`, taken by `vqe worker`, set aside with the reason when they cannot be run."""

import io
import json
from typing import TYPE_CHECKING, Any

from simulator.events import schemas
from simulator.events.records import Job, message_key, now_micros, to_record
from simulator.kafka.clients import ServiceError, make_producer, registry_away
from simulator.kafka.registry import frame, lookup_id
from simulator.kafka.topics import JOB_DLQ_TOPIC, JOB_TOPIC
from simulator.settings import Settings

if TYPE_CHECKING:
    from confluent_kafka import Message, Producer

    from simulator.runs.sweep import Sweep

_SECONDS = 30.0


def submit_jobs(sweep: "Sweep", settings: Settings, *, force: bool = False) -> int:
    """Put every run of a sweep on the job topic; returns how many Kafka has.

    Raises:
        ServiceError: Kafka or the registry is away, or the schema is not registered.
    """
    now = now_micros()
    jobs = [
        Job(
            spec_id=run.spec.spec_id,
            recorded_at=now,
            requested_at=now,
            sweep_id=sweep.sweep_id,
            molecule_name=run.name,
            spec_json=run.spec.canonical_json(),
            force=force,
        )
        for run in sweep.runs
    ]
    encode = job_encoder(settings)
    producer, failures = make_producer(settings, **{"message.timeout.ms": int(_SECONDS * 1000)}), list[str]()
    for job in jobs:
        send(producer, JOB_TOPIC, message_key(job).encode(), encode(job), failures)
    left = producer.flush(_SECONDS)
    if left or failures:
        reason = failures[0] if failures else "no answer"
        raise ServiceError(
            f"Kafka at {settings.kafka_bootstrap_servers} took {len(jobs) - left - len(failures)} of {len(jobs)} jobs ({reason}); "
            f"sending them again is safe"
        )
    return len(jobs)


def job_encoder(settings: Settings):  # type: ignore[no-untyped-def]
    """A function from a Job to its framed bytes.

    Raises:
        ServiceError: the registry is away or does not know the schema.
    """
    from fastavro import parse_schema, schemaless_writer

    schema = schemas.current(Job.stream)
    try:
        schema_id = lookup_id(settings, JOB_TOPIC, json.dumps(schema))
    except Exception as error:
        raise registry_away(settings, error) from None
    if schema_id is None:
        raise ServiceError(f"the registry does not know the schema of {JOB_TOPIC} (vqe schemas register)")
    header, parsed = frame(schema_id), parse_schema(schema)

    def encode(job: Job) -> bytes:
        buffer = io.BytesIO(header)
        buffer.seek(len(header))
        schemaless_writer(buffer, parsed, to_record(job))
        return buffer.getvalue()

    return encode


def set_aside(producer: "Producer", message: "Message", reason: str, attempts: int) -> None:
    """Put a job that cannot be run on the dead letter topic, with the reason in its headers; waits until Kafka has it.

    Raises:
        ServiceError: Kafka did not take it; the job is not lost, as its offset is not committed.
    """
    failures: list[str] = []
    headers = {
        "reason": reason, "attempts": str(attempts), "topic": message.topic() or "",
        "partition": str(message.partition()), "offset": str(message.offset()),
    }  # fmt: skip
    send(
        producer, JOB_DLQ_TOPIC, message.key(), message.value(), failures, [(k, v.encode()) for k, v in headers.items()]
    )
    if producer.flush(_SECONDS) or failures:
        raise ServiceError(
            f"dead letter topic {JOB_DLQ_TOPIC} did not take a job: {failures[0] if failures else 'no answer'}"
        )


def send(
    producer: "Producer",
    topic: str,
    key: Any,
    value: Any,
    failures: list[str],
    headers: list[tuple[str, bytes]] | None = None,
) -> None:
    """Queue one message; what Kafka refuses is added to `failures` when the producer is polled."""

    def delivered(error: Any, _message: Any) -> None:
        if error is not None:
            failures.append(error.str())

    while True:
        try:
            producer.produce(topic, value, key, on_delivery=delivered, headers=list(headers or []))
            producer.poll(0)
            return
        except BufferError:
            producer.poll(0.1)
