"""Delivery to Kafka: what is refused for good is set aside and the rest goes on, in order; what is only away is waited for."""

import io
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import fastavro
import pytest
from kafka_mock import Broker, Registry, gathered
from prometheus_client.parser import text_string_to_metric_families
from samples import a_result, an_iteration
from waiting import eventually

from simulator.cli.main import _run
from simulator.events import schemas
from simulator.events.records import to_record
from simulator.kafka import forwarder, lane, rejected
from simulator.kafka.replay import replay
from simulator.kafka.sink import KafkaSink
from simulator.kafka.spool import SpoolReader, SpoolWriter, files
from simulator.observability.metrics import exposed
from simulator.runs.pool_metrics import spool_families
from simulator.settings import Settings

TOPIC, RESULTS = "vqe_iteration_v1", "vqe_result_v1"
TOO_LARGE, NOT_ALLOWED, OUT_OF_ORDER, UNEXPECTED, INVALID = 10, 29, 45, -1, 87


@pytest.fixture
def broker():
    found = Broker()
    found.topic(TOPIC)
    found.topic(RESULTS)
    yield found
    found.close()


@pytest.fixture
def registry():
    found = Registry()
    yield found
    found.close()


@pytest.fixture
def settings(tmp_path, broker, registry, monkeypatch):
    monkeypatch.setattr(lane, "PATIENCE_SECONDS", 0.4)
    return Settings(
        data_dir=tmp_path, sink="kafka", kafka_bootstrap_servers=broker.address, registry_url=registry.url,
        delivery_seconds=1, _env_file=None,
    )  # fmt: skip


@pytest.fixture
def sink(settings):
    found = KafkaSink(settings)
    yield found
    found.close()


def iterations(broker, count: int) -> list[int]:
    """The iterations that the topic holds, in order."""
    schema = fastavro.parse_schema(schemas.current("vqe_iteration"))
    values = broker.values(TOPIC, count)
    return [fastavro.schemaless_reader(io.BytesIO(v[5:]), schema, None)["iteration"] for v in values]


def spool(settings, count: int, first: int = 0) -> None:
    """Files of one iteration each, left by processes that ended."""
    for i in range(first, first + count):
        writer = SpoolWriter(settings.spool_dir, schemas.current("vqe_iteration"))
        writer.write(to_record(an_iteration(i)))
        writer.finish().close()


def kept(settings) -> list[dict]:
    """What is told of what is set aside."""
    return [json.loads(p.read_text()) for p in sorted((settings.spool_dir / "rejected").glob("*.json"))]


def test_a_record_that_the_broker_refuses_is_set_aside_with_its_reason_and_what_is_behind_it_goes_on(
    sink, settings, broker, capsys
):
    broker.answer(TOO_LARGE)
    sink.emit(an_iteration(0, run_id="r0"))
    assert sink.deliver(10)
    for i in range(1, 6):
        sink.emit(an_iteration(i))
    assert sink.deliver(10)
    assert iterations(broker, 5) == [1, 2, 3, 4, 5]
    assert (sink.delivery.delivered, sink.delivery.rejected) == (5, 1)
    (told,) = kept(settings)
    assert (told["topic"], told["records"], told["keys"]) == (TOPIC, 1, ["r0"])
    assert told["schema"] == {"name": "vqe_iteration", "version": "1.0"}
    assert "too large" in told["reason"]
    assert told["first"] <= told["last"]
    (path,) = (settings.spool_dir / "rejected").glob("*.bin")
    with open(path, "rb") as file:  # anything that reads Avro reads it, the reason too
        reader = fastavro.reader(file)
        assert [r["iteration"] for r in reader] == [0]
        assert "too large" in reader.metadata["vqe.reason"]
    assert capsys.readouterr().err.count("refused for good") == 1


def test_one_that_was_refused_with_others_is_told_from_them_and_order_is_kept(sink, settings, broker):
    broker.answer(TOO_LARGE, TOO_LARGE)  # of all together, then of the first alone
    for i in range(20):
        sink.emit(an_iteration(i))
    assert sink.deliver(10)
    assert iterations(broker, 19) == list(range(1, 20))
    assert [told["records"] for told in kept(settings)] == [1]


def test_many_refusals_are_told_once_and_keep_no_core_busy(sink, settings, broker, capsys):
    sink.emit(an_iteration(0))
    assert sink.deliver(10)
    broker.answer(*[INVALID] * 1_000)
    for i in range(1, 40):
        sink.emit(an_iteration(i))
    began = time.process_time()
    assert sink.deliver(20)
    assert time.process_time() - began < 2
    assert sink.delivery.rejected == 39
    assert sum(told["records"] for told in kept(settings)) == 39
    assert len(kept(settings)) == 1, "one file, not one a record"
    assert capsys.readouterr().err.count("refused for good") == 1


def test_a_topic_without_right_stops_no_other_topic_and_its_events_are_offered_again(sink, settings, broker, capsys):
    broker.refuse(TOPIC, NOT_ALLOWED)
    for i in range(3):
        sink.emit(an_iteration(i))
    sink.emit(a_result())
    assert sink.deliver(20)
    assert (sink.delivery.delivered, sink.delivery.rejected) == (1, 3)
    assert len(broker.values(RESULTS, 1)) == 1
    sink.close()
    told = capsys.readouterr().err
    assert told.count("a record of vqe_iteration_v1 is refused for good") == 1
    assert "3 events were refused for good" in told
    broker.refuse(TOPIC, 0)
    done = replay(settings, seconds=10)
    assert (done.delivery.delivered, done.set_aside) == (0, 3), "what was set aside waits to be asked for"
    done = replay(settings, seconds=20, rejected=True)
    assert (done.delivery.delivered, done.left_bytes, done.set_aside) == (3, 0, 0)
    assert iterations(broker, 3) == [0, 1, 2]
    assert list((settings.spool_dir / "rejected").iterdir()) == []


def test_a_schema_that_nobody_registered_stops_no_other_topic(sink, settings, broker, registry):
    registry.unknown.add(f"{RESULTS}-value")
    sink.emit(a_result())
    for i in range(3):
        sink.emit(an_iteration(i))
    assert sink.deliver(10)
    assert (sink.delivery.delivered, sink.delivery.rejected) == (3, 1)
    assert "does not know the schema of vqe_result_v1" in kept(settings)[0]["reason"]
    asked = registry.asked
    sink.emit(a_result())
    assert sink.deliver(10)
    assert registry.asked == asked, "what the registry does not know is not asked for at each record"


def test_an_answer_of_the_moment_is_no_refusal_for_good(sink, settings, broker, registry, monkeypatch):
    monkeypatch.setattr(lane, "PATIENCE_SECONDS", 30.0)  # the client may need a second to ask the broker again
    registry.unknown.add(f"{TOPIC}-value")
    sink.emit(an_iteration(0))
    assert not sink.deliver(0.2)
    registry.unknown.clear()  # a registry that was reading its store
    assert sink.deliver(10)
    broker.answer(NOT_ALLOWED)
    sink.emit(an_iteration(1))
    assert sink.deliver(10)
    broker.answer(UNEXPECTED)
    sink.emit(an_iteration(2))
    assert sink.deliver(10)
    assert iterations(broker, 3) == [0, 1, 2]
    assert sink.delivery.rejected == 0


def test_an_answer_that_nobody_knows_is_for_good_once_it_stays(sink, broker):
    broker.answer(*[UNEXPECTED] * 500)
    sink.emit(an_iteration(0))
    assert sink.deliver(20)
    assert sink.delivery.rejected == 1


def test_a_registry_that_is_away_is_waited_for_and_not_asked_all_the_time(sink, broker, registry, monkeypatch):
    monkeypatch.setattr(forwarder, "RETRY_SECONDS", 0.3)
    registry.status = 503
    refused: list[bool] = []
    rounds, real = [], sink.forwarder._round
    monkeypatch.setattr(sink.forwarder, "_round", lambda: rounds.append(0) or real())
    sink.emit(an_iteration(0))
    sink.emit(a_result())
    gathered(lambda: refused.append(sink.deliver(0.2)), lambda: registry.asked > 0)
    assert not any(refused)
    rounds.clear()
    asked = registry.asked
    assert not sink.deliver(1.5)
    assert len(rounds) < 100, "who waits for the delivery does not keep the forwarder running"
    assert asked <= registry.asked <= asked + 12
    registry.status = 200
    assert sink.deliver(10)
    assert (sink.delivery.delivered, sink.delivery.rejected) == (2, 0)


def test_a_broker_that_is_away_is_waited_for_with_an_idle_processor(sink, broker):
    sink.emit(an_iteration(0))
    assert sink.deliver(10)
    broker.down()
    sink.emit(an_iteration(1))
    began = time.process_time()
    assert not sink.deliver(1.5)
    assert time.process_time() - began < 0.8
    broker.up()
    assert sink.deliver(20)
    assert iterations(broker, 2) == [0, 1]


@pytest.mark.parametrize("times", [1, 3])
def test_a_producer_after_a_fatal_error_is_replaced_and_nothing_is_lost_or_out_of_order(sink, broker, times):
    sink.emit(an_iteration(0))
    assert sink.deliver(10)
    first = sink.forwarder._producer
    broker.answer(*[OUT_OF_ORDER] * times)
    for i in range(1, 30):
        sink.emit(an_iteration(i))
    assert sink.deliver(20)
    assert sink.forwarder._producer is not first
    assert list(dict.fromkeys(iterations(broker, 30))) == list(range(30))
    assert sink.delivery.rejected == 0


def test_a_producer_that_fails_when_it_is_given_a_record_is_replaced(sink, broker, monkeypatch):
    from confluent_kafka import KafkaError, KafkaException

    class Broken:
        """A producer whose fatal error came between two chunks: produce() raises it."""

        def produce(self, *_: object, **__: object) -> None:
            raise KafkaException(KafkaError(KafkaError._FATAL, "fenced", True))

        def purge(self) -> None: ...

        def flush(self, _: float) -> None: ...

    sink.emit(an_iteration(0))
    assert sink.deliver(10)
    sink.forwarder._producer = Broken()
    sink.emit(an_iteration(1))
    assert sink.deliver(10)
    assert iterations(broker, 2) == [0, 1]


FEW_DESCRIPTORS = """
import os, resource, sys
from pathlib import Path
from simulator.observability.metrics import exposed
from simulator.settings import Settings
from simulator.kafka.replay import replay
from simulator.runs.pool_metrics import spool_families
resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))
settings = Settings(data_dir=Path(sys.argv[1]), sink="kafka", kafka_bootstrap_servers=sys.argv[2], registry_url=sys.argv[3])
done = replay(settings, seconds=60)
print(done.delivery.delivered, done.left_bytes, len(os.listdir("/proc/self/fd")) < 40)
"""


def test_any_number_of_files_is_delivered_in_order_with_few_descriptors(settings, broker):
    spool(settings, 150)
    done = subprocess.run(
        [sys.executable, "-c", FEW_DESCRIPTORS, str(settings.data_dir), broker.address, settings.registry_url],
        capture_output=True, text=True, timeout=90,
    )  # fmt: skip
    assert done.stdout.split() == ["150", "0", "True"], done.stderr
    assert iterations(broker, 150) == list(range(150))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_rounds_that_fail_leak_no_descriptor_and_delivery_goes_on_once_there_are_some(
    sink, settings, broker, monkeypatch
):
    spool(settings, 40)
    monkeypatch.setattr(forwarder, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(forwarder, "ORPHAN_SECONDS", 0.0)
    sink.forwarder._next_orphans = 0.0
    sink.emit(an_iteration(40))
    assert sink.deliver(10)
    before, limits = descriptors(), resource.getrlimit(resource.RLIMIT_NOFILE)
    spool(settings, 40, first=41)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before + 1, limits[1]))
    try:
        time.sleep(0.5)
        sink.forwarder.drain(0.3)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert sink.deliver(20)
    eventually(lambda: descriptors() <= before + 2, 30)  # files are open by right until the forwarder's next round
    assert sorted(set(iterations(broker, 81))) == list(range(81))


def test_an_outage_of_hours_takes_no_descriptor_a_file(sink, settings, broker, monkeypatch):
    from simulator.kafka import sink as kafka

    monkeypatch.setattr(kafka, "ROLL_SECONDS", -1.0)  # a file a record, as a minute is in the product
    sink.emit(an_iteration(0))
    assert sink.deliver(10)
    broker.down()
    before = descriptors()
    for i in range(1, 60):
        sink.emit(an_iteration(i))
        if i % 10 == 0:
            sink.flush()
            time.sleep(0.15)
    sink.flush()
    time.sleep(0.3)
    assert len(files(settings.spool_dir)) == 59
    assert descriptors() < before + 20
    broker.up()
    assert sink.deliver(20)
    assert iterations(broker, 60) == list(range(60))


def test_a_file_with_a_damaged_header_is_kept_and_stops_nothing(settings, broker, capsys):
    spool(settings, 2)
    path = files(settings.spool_dir)[0]
    content = path.read_bytes()
    path.write_bytes(content.replace(b"avro.schema", b"avro.schemx"))
    done = replay(settings, seconds=10)
    assert (done.delivery.delivered, done.delivery.rejected, done.left_bytes) == (1, 1, 0)
    assert done.set_aside == 1
    assert [p.stat().st_size for p in (settings.spool_dir / "rejected").iterdir()] == [len(content)]
    assert "cannot be read" in capsys.readouterr().err


def test_what_cannot_be_set_aside_is_not_acknowledged(sink, settings, broker, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rejected.RejectedEvents, "keep", full)
    broker.answer(INVALID)
    sink.emit(an_iteration(0))
    assert not sink.deliver(0.2)
    assert sink.delivery.rejected == 0
    assert sink.deliver(10)
    assert iterations(broker, 1) == [0]


def values(text: bytes, name: str) -> dict[str, float]:
    """A metric's values by topic."""
    found = text_string_to_metric_families(text.decode())
    return {s.labels["topic"]: s.value for family in found for s in family.samples if s.name == name}


def test_what_is_set_aside_counts_as_spool_and_is_told(settings, registry, capsys, monkeypatch):
    registry.unknown.add(f"{TOPIC}-value")
    spool(settings, 3)
    for name, value in settings.model_dump(include={"data_dir", "kafka_bootstrap_servers", "registry_url"}).items():
        monkeypatch.setenv(f"VQE_{name.upper()}", str(value))
    assert _run(("replay", "--seconds", "10")) == 1
    out = capsys.readouterr().out
    assert "0 bytes left" in out
    assert "3 set aside" in out
    assert "--rejected" in out
    assert rejected.set_aside(settings.spool_dir) == {TOPIC: 3}
    shown = values(exposed(spool_families(settings.spool_dir, 10**9)), "vqe_rejected_events")
    assert shown == {**dict.fromkeys(schemas.released(), 0), TOPIC: 3}
    assert rejected.rejected_bytes(settings.spool_dir) > 3 * 300
    registry.unknown.clear()
    assert _run(("replay",)) == 0
    assert "3 set aside" in capsys.readouterr().out
    assert _run(("replay", "--rejected")) == 0
    assert "set aside" not in capsys.readouterr().out


def test_half_a_record_of_a_full_disk_is_not_left_between_whole_ones(tmp_path, monkeypatch):
    writer = SpoolWriter(tmp_path / "spool", schemas.current("vqe_iteration"))
    for i in range(3):
        writer.write(to_record(an_iteration(i)))
    writer.flush()
    reader = SpoolReader(writer.path)
    records = list(reader.records())
    store = rejected.RejectedEvents(tmp_path)
    store.keep(TOPIC, reader.schema_json, records[:1], "why")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        store.keep(TOPIC, reader.schema_json, records[1:2], "why")
    monkeypatch.undo()
    store.keep(TOPIC, reader.schema_json, records[2:], "why")
    assert rejected.offer_again(tmp_path) == 2
    (path,) = files(tmp_path)
    again = SpoolReader(path)
    assert [r.payload for r in again.records()] == [records[0].payload, records[2].payload]
    for each in (reader, again):
        each.close()
    writer.release()


def test_a_replay_and_a_refusal_at_the_same_time_lose_nothing(tmp_path):
    writer = SpoolWriter(tmp_path / "spool", schemas.current("vqe_iteration"))
    writer.write(to_record(an_iteration(0)))
    writer.flush()
    reader = SpoolReader(writer.path)
    (record,) = reader.records()
    store = rejected.RejectedEvents(tmp_path)
    for _ in range(5):
        store.keep(TOPIC, reader.schema_json, [record], "why")
        assert rejected.offer_again(tmp_path) == 1
    assert len(files(tmp_path)) == 5
    reader.close()
    writer.release()
    assert Path(tmp_path / "rejected").is_dir()
