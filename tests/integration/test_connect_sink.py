"""What the S3 sink stores, against the real Kafka, registry, Connect and MinIO: the producer's bytes, each offset once."""

from __future__ import annotations

import io
import json
import random
import struct
import time
import urllib.request
import uuid

import fastavro
import pytest
from confluent_kafka import Consumer, Producer, TopicCollection
from confluent_kafka.admin import AdminClient, NewTopic

from tests.services.probes import BUCKET, eventually, setup_connector

pytest_plugins = ["tests.services.fixtures"]

DLQ = "vqe_dlq_connect"
# Text as no printer would make it, with everything that a converter is known to change or drop.
SCHEMA = """{ "type": "record",
  "name": "Iteration",   "namespace": "vqe.test",
  "doc": "One optimizer step.", "x-owner": {"team": "chemistry"},
  "fields": [
    {"name": "run_id", "type": {"type": "string", "logicalType": "uuid"}, "doc": "UUIDv7"},
    {"name": "recorded_at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    {"name": "status", "type": {"type": "enum", "name": "Status", "symbols": ["RUNNING", "DONE"], "default": "RUNNING"}},
    {"name": "iteration", "type": "int", "x-unit": "1"},
    {"name": "energy", "type": "double", "doc": "hartree"},
    {"name": "gradient", "type": ["null", {"type": "array", "items": "double"}], "default": null}
  ]
}"""
PARSED = fastavro.parse_schema(json.loads(SCHEMA))


def event(i: int, run_id: str | None = None, size: int = 8) -> dict:
    return {
        "run_id": run_id or str(uuid.uuid4()),
        "recorded_at": 1_763_700_000_000_000 + i,
        "status": "RUNNING",
        "iteration": i,
        "energy": -1.1 - i * 1e-6,
        "gradient": [i / 7] * size if i % 3 else None,
    }


def encode(record: dict, schema_id: int, schema=PARSED) -> bytes:
    out = io.BytesIO()
    out.write(struct.pack(">bI", 0, schema_id))
    fastavro.schemaless_writer(out, schema, record)
    return out.getvalue()


def register(stack, topic: str, text: str = SCHEMA) -> int:
    request = urllib.request.Request(
        f"{stack.registry_url}/subjects/{topic}-value/versions",
        data=json.dumps({"schema": text}).encode(),
        headers={"Content-Type": "application/vnd.schemaregistry.v1+json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)["id"]


class Topic:
    """A topic of this test's own, its prefix in the bucket, and a producer."""

    def __init__(self, stack, version: int, partitions: int = 1, family: str = "iteration"):
        self.stack = stack
        self.name = f"vqe_{family}_v{version}"
        self.partitions = partitions
        self.create()
        self.schema_id = register(stack, self.name)
        self.producer = Producer({"bootstrap.servers": stack.bootstrap, "enable.idempotence": True, "linger.ms": 5})

    def create(self):
        admin = AdminClient({"bootstrap.servers": self.stack.bootstrap})
        admin.create_topics([NewTopic(self.name, self.partitions, 1)])[self.name].result(30)
        eventually(lambda: self.name in admin.list_topics(timeout=5).topics, 20)

    def delete(self):
        admin = AdminClient({"bootstrap.servers": self.stack.bootstrap})
        admin.delete_topics([self.name])[self.name].result(30)
        eventually(lambda: self.name not in admin.list_topics(timeout=5).topics, 20)

    def send(self, *values: bytes | None, key: str = "k"):
        for i, value in enumerate(values):
            self.producer.produce(self.name, key=f"{key}{i}", value=value)
            self.producer.poll(0)
        assert self.producer.flush(60) == 0

    def send_events(self, numbers, size: int = 8):
        self.send(*(encode(event(i, size=size), self.schema_id) for i in numbers))


_versions = iter(range(random.randrange(1000, 9000) * 100, 10**9))


@pytest.fixture
def topic(stack):
    return Topic(stack, next(_versions))


@pytest.fixture
def prefix():
    return f"raw-{uuid.uuid4().hex[:12]}/"


def settings(topic: Topic | str, prefix: str, **more: str) -> dict[str, str]:
    name = topic if isinstance(topic, str) else topic.name
    chosen = {"topics.regex": name, "s3.prefix": prefix, "flush.ms": "1000"}
    chosen |= {
        "consumer.override.metadata.max.age.ms": "2000",
        "retry.backoff.ms": "300",
        "retry.backoff.max.ms": "1000",
    }
    return chosen | more


def objects(stack, prefix: str) -> dict[str, bytes]:
    s3 = stack.s3()
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    names = [item["Key"] for page in pages for item in page.get("Contents", [])]
    return {name: s3.get_object(Bucket=BUCKET, Key=name)["Body"].read() for name in names}


def stored(stack, prefix: str) -> list[dict]:
    return [record for body in objects(stack, prefix).values() for record in fastavro.reader(io.BytesIO(body))]


def iterations(stack, prefix: str) -> list[int]:
    return sorted(record["iteration"] for record in stored(stack, prefix))


def assert_chain(stack, prefix: str) -> None:
    """Objects of a partition meet without overlap, and say the truth of themselves."""
    s3 = stack.s3()
    ends: dict[str, int] = {}
    for name in sorted(objects(stack, prefix)):
        folder, _, file = name.rpartition("/")
        metadata = s3.head_object(Bucket=BUCKET, Key=name)["Metadata"]
        first = int(file.rpartition("+")[2].removesuffix(".avro"))
        assert first == ends.get(folder, -1) + 1, f"{name}: the one before ends at {ends.get(folder)}"
        assert first <= int(metadata["first-offset"]) <= int(metadata["end-offset"])
        ends[folder] = int(metadata["end-offset"])


def dead_letters(stack, topic: str, count: int, seconds: float = 60) -> list:
    consumer = Consumer(
        {"bootstrap.servers": stack.bootstrap, "group.id": f"dlq-{uuid.uuid4()}", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([DLQ])
    found, end = [], time.monotonic() + seconds
    try:
        while len(found) < count and time.monotonic() < end:
            message = consumer.poll(0.5)
            if message is None or message.error():
                continue
            headers = {key: (value or b"").decode() for key, value in message.headers() or []}
            if headers.get("__connect.errors.topic") == topic:
                found.append((message, headers))
    finally:
        consumer.close()
    return found


def test_container_has_the_producers_schema_text_and_bytes(stack, connector, topic, prefix):
    connector("as-is", settings(topic, prefix))
    events = [event(i) for i in range(100)]
    payloads = [encode(e, topic.schema_id) for e in events]
    topic.send(*payloads)
    eventually(lambda: len(stored(stack, prefix)) == 100, 30)

    for name, body in objects(stack, prefix).items():
        assert name.startswith(f"{prefix}{topic.name}/partition=0/{topic.name}+0+")
        reader = fastavro.reader(io.BytesIO(body))
        assert reader.metadata["avro.schema"] == SCHEMA, "not byte for byte what was registered"
    got = sorted(stored(stack, prefix), key=lambda r: r["iteration"])
    assert [encode(r, topic.schema_id) for r in got] == payloads

    first = sorted(objects(stack, prefix))[0]
    assert first.endswith(f"{topic.name}+0+{0:019d}.avro")
    metadata = stack.s3().head_object(Bucket=BUCKET, Key=first)["Metadata"]
    assert set(metadata) == {"first-offset", "end-offset", "records", "schema-id", "topic-id"}
    assert int(metadata["schema-id"]) == topic.schema_id


@pytest.mark.parametrize("codec", ["null", "zstandard"])
def test_other_codecs_are_read_back(stack, connector, topic, prefix, codec):
    connector(f"codec-{codec}", settings(topic, prefix, **{"avro.codec": codec}))
    topic.send_events(range(50))
    body = eventually(lambda: next(iter(objects(stack, prefix).values()), None), 30)
    if codec == "null":
        eventually(lambda: iterations(stack, prefix) == list(range(50)), 10)
    else:  # fastavro needs a further package to unpack it
        assert b"zstandard" in body[:3000]
        assert b"\x28\xb5\x2f\xfd" in body


def test_an_object_appears_within_the_flush_interval_and_five_seconds(stack, connector, topic, prefix):
    connector("by-time", settings(topic, prefix, **{"flush.ms": "3000"}))
    topic.send_events(range(3))  # and nothing after them that would set the sink going
    began = time.monotonic()
    eventually(lambda: iterations(stack, prefix) == [0, 1, 2], 8, "three records stored")
    print(f"stored after {time.monotonic() - began:.1f} s, flush interval 3 s")


def test_count_and_size_close_an_object(stack, connector, topic, prefix):
    topic.send_events(range(100))
    connector("by-count", settings(topic, prefix, **{"flush.records": "40", "flush.ms": "2000"}))
    eventually(lambda: len(stored(stack, prefix)) == 100, 30)
    s3 = stack.s3()
    counts = [int(s3.head_object(Bucket=BUCKET, Key=n)["Metadata"]["records"]) for n in sorted(objects(stack, prefix))]
    assert counts == [40, 40, 20]

    small = prefix.replace("raw-", "raw-small-")
    connector("by-size", settings(topic, small, **{"flush.bytes": "1000", "flush.ms": "2000"}))
    eventually(lambda: len(stored(stack, small)) == 100, 30)
    assert len(objects(stack, small)) >= 8
    assert_chain(stack, small)


def test_a_new_version_of_a_topic_is_found_while_the_connector_runs(stack, connector, prefix):
    version = next(_versions)
    first = Topic(stack, version)
    connector("versions", settings(f"vqe_(run|iteration)_v({version}|{version}1)", prefix))
    first.send_events(range(5))
    eventually(lambda: len(stored(stack, prefix)) == 5, 30)
    second = Topic(stack, int(f"{version}1"))
    second.send_events(range(7))
    first.send_events(range(5, 6))
    eventually(lambda: len(stored(stack, prefix)) == 13, 40)
    assert len(iterations(stack, f"{prefix}{second.name}/")) == 7


@pytest.mark.parametrize("victim", ["connect", "minio", "registry"])
def test_each_offset_is_stored_once_though_a_service_is_killed(stack, connector, prefix, victim):
    topic = Topic(stack, next(_versions), partitions=2)
    # Small objects, so that the kill falls between and into many writes.
    connector(f"kill-{victim}", settings(topic, prefix, **{"flush.records": "150", "flush.ms": "500"}))
    sent = 0
    for round_ in range(12):
        topic.send_events(range(sent, sent + 500))
        sent += 500
        if round_ == 4:
            stack.kill(victim)
        if round_ == 5 and victim == "registry":
            with pytest.raises(OSError, match="refused"):
                register(stack, topic.name)
        if round_ == 8:
            stack.start(victim)
        time.sleep(0.4)
    if victim == "registry":  # an id that the sink has not seen while the registry was away
        other = json.dumps(json.loads(SCHEMA) | {"doc": "another id"})
        topic.schema_id = register(stack, topic.name, other)
    topic.send_events(range(sent, sent + 100))
    sent += 100
    eventually(lambda: len(stored(stack, prefix)) >= sent, 90, f"{sent} records", pause=1)
    assert iterations(stack, prefix) == list(range(sent))
    assert_chain(stack, prefix)


def test_a_killed_worker_reads_the_open_object_again(stack, connector, topic, prefix):
    connector("open", settings(topic, prefix, **{"flush.ms": "6000"}))
    topic.send_events(range(20))
    time.sleep(3)  # taken, not stored
    assert not objects(stack, prefix)
    stack.kill("connect")
    stack.start("connect")
    topic.send_events(range(20, 30))
    eventually(lambda: iterations(stack, prefix) == list(range(30)), 60)
    assert_chain(stack, prefix)


def test_unreadable_records_are_dead_letters_and_the_rest_is_stored(stack, connector, topic, prefix):
    good = [encode(event(i), topic.schema_id) for i in range(10)]
    unknown = struct.pack(">bI", 0, 987_654_321) + good[0][5:]
    bad = [b"not avro at all", unknown, good[1][:-3], good[2] + b"\0", b"", None]
    sent = [value for pair in zip(good, bad, strict=False) for value in pair] + good[len(bad) :]
    topic.send(*sent)
    connector("letters", settings(topic, prefix, **{"registry.unknown.schema.ms": "2000"}))
    eventually(lambda: iterations(stack, prefix) == list(range(10)), 60)
    letters = dead_letters(stack, topic.name, len(bad))
    assert [message.value() for message, _ in letters] == bad
    reasons = [headers["__connect.errors.exception.message"] for _, headers in letters]
    for reason, words in zip(
        reasons,
        ["not framed", "no schema 987654321", "ends within", "1 bytes are left over", "not framed", "no value"],
        strict=True,
    ):
        assert words in reason
    assert [int(headers["__connect.errors.offset"]) for _, headers in letters] == [1, 3, 5, 7, 9, 11]
    assert_chain(stack, prefix)


def test_a_ten_megabyte_record_does_not_stop_the_stream(stack, connector, prefix):
    name = f"vqe_iteration_v{next(_versions)}"
    admin = AdminClient({"bootstrap.servers": stack.bootstrap})
    admin.create_topics([NewTopic(name, 1, 1, config={"max.message.bytes": "20000000"})])[name].result(30)
    schema_id = register(stack, name)
    producer = Producer({"bootstrap.servers": stack.bootstrap, "message.max.bytes": 20_000_000})
    for i, size in enumerate([3, 1_300_000, 3]):
        producer.produce(name, encode(event(3 * i + 1, size=size), schema_id))
    assert producer.flush(60) == 0
    connector("large", settings(name, prefix))
    eventually(lambda: iterations(stack, prefix) == [1, 4, 7], 60)


def test_without_a_dead_letter_queue_an_unreadable_record_fails_the_task(stack, connector, topic, prefix):
    topic.send(b"rubbish")
    connector(
        "strict",
        settings(topic, prefix, **{"errors.tolerance": "none", "errors.deadletterqueue.topic.name": ""}),
        wait=False,
    )
    reasons = failure(stack, "strict")
    assert "unreadable record" in reasons
    assert "errors.deadletterqueue.topic.name" in reasons


def failure(stack, name: str, seconds: float = 60) -> str:
    return eventually(
        lambda: (lambda s, r: s == "FAILED" and " ".join(r))(*setup_connector.state(stack.connect_url, name)), seconds
    )


def topic_id(stack, topic: str) -> str:
    admin = AdminClient({"bootstrap.servers": stack.bootstrap})
    # librdkafka prints the id in base64's usual letters, Kafka in those for URLs.
    return str(admin.describe_topics(TopicCollection([topic]))[topic].result(20).topic_id).translate(
        str.maketrans("+/", "-_")
    )


def test_a_topic_created_anew_fails_the_task_and_names_both_ids(stack, connector, topic, prefix):
    connector("anew", settings(topic, prefix))
    topic.send_events(range(20))
    eventually(lambda: len(stored(stack, prefix)) == 20, 30)
    former = topic_id(stack, topic.name)
    before = objects(stack, prefix)
    topic.delete()
    topic.create()
    topic.send_events(range(100, 130))
    reasons = failure(stack, "anew", 90)
    for words in (
        f"topic {topic.name} was created anew",
        former,
        topic_id(stack, topic.name),
        "reset the connector's offsets",
    ):
        assert words in reasons
    assert objects(stack, prefix) == before

    # Nor does a restart get past it: the objects carry the id.
    setup_connector.call(stack.connect_url, "POST", "/connectors/anew/restart?includeTasks=true")
    time.sleep(3)
    assert "created anew" in failure(stack, "anew")
    assert objects(stack, prefix) == before

    # What the message tells the operator to do.
    base = "/connectors/anew"
    setup_connector.call(stack.connect_url, "PUT", f"{base}/stop")
    s3 = stack.s3()
    for name in before:
        s3.copy_object(Bucket=BUCKET, Key=f"former/{former}/{name}", CopySource={"Bucket": BUCKET, "Key": name})
        s3.delete_object(Bucket=BUCKET, Key=name)
    eventually(lambda: "reset" in str(setup_connector.call(stack.connect_url, "DELETE", f"{base}/offsets")), 30)
    setup_connector.call(stack.connect_url, "PUT", f"{base}/resume")
    eventually(lambda: iterations(stack, prefix) == list(range(100, 130)), 60)


def test_a_partition_whose_objects_were_moved_away_goes_on_behind_them(stack, connector, topic, prefix):
    """All of them, and the connector is created anew: neither a listing nor an offset tells what was stored."""
    connector("moved", settings(topic, prefix))
    topic.send_events(range(20))
    eventually(lambda: len(stored(stack, prefix)) == 20, 30)
    before = objects(stack, prefix)
    setup_connector.call(stack.connect_url, "PUT", "/connectors/moved/stop")
    s3 = stack.s3()
    for name in before:
        s3.copy_object(Bucket=BUCKET, Key=f"cheaper/{name}", CopySource={"Bucket": BUCKET, "Key": name})
        s3.delete_object(Bucket=BUCKET, Key=name)
    eventually(
        lambda: "reset" in str(setup_connector.call(stack.connect_url, "DELETE", "/connectors/moved/offsets")), 30
    )
    topic.send_events(range(20, 30))
    setup_connector.call(stack.connect_url, "PUT", "/connectors/moved/resume")
    eventually(lambda: iterations(stack, prefix) == list(range(20, 30)), 60)
    assert not set(objects(stack, prefix)) & set(before), "a name that the ledger holds is given again"


def test_a_wrong_key_or_bucket_or_registry_fails_the_task_in_clear_words(stack, connector, topic, prefix):
    topic.send_events(range(3))
    cases = {
        "wrong-secret": ({"s3.secret.key": "wrong"}, "s3.secret.key"),
        "wrong-key": ({"s3.access.key": "nobody"}, "s3.access.key"),
        "no-bucket": ({"s3.bucket": "no-such-bucket"}, "s3.bucket"),
        "wrong-registry-path": ({"registry.url": stack.registry_url + "/elsewhere"}, "registry.url"),
    }
    for name, (wrong, word) in cases.items():
        connector(name, settings(topic, prefix, **wrong), wait=False)
        reasons = failure(stack, name)
        print(name, reasons)
        assert word in reasons
        assert stack.s3_secret_key not in reasons
    assert not objects(stack, prefix)
    assert stack.s3_secret_key not in stack.log("connect")


def test_settings_that_would_lose_records_are_refused(stack, topic, prefix):
    config = json.loads((setup_connector.DEFAULT_CONFIG).read_text()) | settings(topic, prefix)
    for wrong, word in (
        ({"errors.deadletterqueue.topic.name": ""}, "errors.deadletterqueue.topic.name"),
        ({"value.converter": "org.apache.kafka.connect.json.JsonConverter"}, "ByteArrayConverter"),
        ({"avro.codec": "brotli"}, "avro.codec"),
        ({"s3.prefix": "/raw"}, "s3.prefix"),
    ):
        with pytest.raises(setup_connector.ConfigRefused, match=word):
            setup_connector.setup(stack.connect_url, "refused", config | wrong, timeout=30)


def metrics(stack) -> dict[str, float]:
    with urllib.request.urlopen(stack.connect_metrics_url, timeout=10) as response:
        lines = response.read().decode().splitlines()
    return {
        line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if line and not line.startswith("#")
    }


def test_metrics_count_what_is_stored_and_show_an_outage(stack, connector, topic, prefix):
    connector("counted", settings(topic, prefix, **{"tasks.max": "1"}))
    topic.send_events(range(30))
    topic.send(b"rubbish")

    def total(name: str) -> float:
        found = [v for k, v in metrics(stack).items() if k.startswith(name + "{") and 'connector="counted"' in k]
        assert found, f"no metric {name}"
        return sum(found)

    eventually(lambda: total("vqe_connect_sink_records_total") == 30, 30)
    assert total("vqe_connect_sink_objects_total") >= 1
    assert total("vqe_connect_sink_bytes_total") > 500
    assert total("vqe_connect_sink_dlq_records_total") == 1
    assert total("vqe_connect_task_running") == 1
    assert abs(max(
        v for k, v in metrics(stack).items() if k.startswith("vqe_connect_sink_last_success_timestamp_seconds{") and '"counted"' in k
    ) - time.time()) < 60  # fmt: skip

    logged = len(stack.log("connect"))
    stack.kill("minio")
    topic.send_events(range(30, 40))
    try:
        eventually(lambda: total("vqe_connect_sink_in_outage") == 1, 60)
        eventually(lambda: total("vqe_connect_sink_retries_total") >= 2, 60)
        assert total("vqe_connect_sink_records_buffered") == 10
        assert setup_connector.state(stack.connect_url, "counted")[0] == "RUNNING"
    finally:
        stack.start("minio")
    eventually(lambda: total("vqe_connect_sink_in_outage") == 0, 60)
    assert iterations(stack, prefix) == list(range(40))
    log = stack.log("connect")[logged:]
    assert log.count("WARN Outages: object storage is away") == 1, "an outage is logged once, not with each try"
    assert log.count("WARN Outages: object storage answers again") == 1
