"""Following topics: a record is left behind once it was decoded, or once nobody will ever decode it, and not before."""

import contextlib
import io
import json
import threading
import time

import confluent_kafka
import fastavro
import pytest
from exposition import samples
from kafka_mock import Broker, Registry, gathered
from samples import a_result, an_iteration

from simulator.chemistry.molecules import load_molecule
from simulator.events import schemas
from simulator.events.records import Event, Run, now_micros, to_record
from simulator.kafka import follower
from simulator.kafka.clients import ServiceError
from simulator.kafka.follower import Follower
from simulator.kafka.registry import frame
from simulator.live import watch
from simulator.observability.exporter.runs import RunBook
from simulator.observability.exporter.topics import TopicSource
from simulator.settings import Settings
from simulator.vqe.records import molecule_record, spec_record
from simulator.vqe.spec import make_spec

RESULTS = "vqe_result_v1"
TOPICS = ("vqe_run_v1", RESULTS, "vqe_iteration_v1", "vqe_system_metrics_v1")


def a_run(run_id: str) -> Run:
    spec = make_spec(load_molecule("h2"))
    return Run(
        run_id, now_micros(), spec.spec_id, spec.molecule_id, spec.problem_id, None, 1, "h2",
        molecule_record(spec.molecule), spec_record(spec), spec.canonical_json(), "host", 1, {},
    )  # fmt: skip


class Topics:
    """The services, and events put on the topics without a spool between."""

    def __init__(self) -> None:
        self.broker, self.registry = Broker(), Registry()
        for topic in TOPICS:
            self.broker.topic(topic)
        self.producer = confluent_kafka.Producer(
            {"bootstrap.servers": self.broker.address, "log_level": 0, "linger.ms": 0}
        )

    def put(self, *events: Event | bytes, topic: str = RESULTS) -> None:
        for event in events:
            if isinstance(event, bytes):
                self.producer.produce(topic, event)
                continue
            schema = schemas.current(event.stream)
            buffer = io.BytesIO()
            buffer.write(frame(self.registry.id_of(json.dumps(schema))))
            fastavro.schemaless_writer(buffer, schema, to_record(event))
            self.producer.produce(schemas.topic_of(schema), buffer.getvalue())
        self.producer.flush(10)

    def close(self) -> None:
        self.registry.close()
        del self.producer
        self.broker.close()


@pytest.fixture
def topics():
    found = Topics()
    yield found
    found.close()


@pytest.fixture
def settings(topics, tmp_path):
    return Settings(
        data_dir=tmp_path, sink="kafka", kafka_bootstrap_servers=topics.broker.address, registry_url=topics.registry.url,
        _env_file=None,
    )  # fmt: skip


class Results:
    """Follows results and keeps the ids of their runs."""

    def __init__(self, settings: Settings) -> None:
        self.runs: set[str] = set()
        self.follower = Follower(
            settings, "results", ("vqe_result",), lambda _s, record, _at: self.runs.add(record["run_id"])
        )

    def catch_up(self) -> set[str]:
        self.follower.catch_up()
        return self.runs

    def close(self) -> None:
        self.follower.close()


def test_a_registry_that_is_away_for_one_look_costs_no_record(topics, settings):
    reader = Results(settings)
    topics.put(*(a_result(run_id=f"r{i}") for i in range(3)))
    topics.registry.status = 503
    for _ in range(2):
        with pytest.raises(ServiceError, match="does not tell schema"):
            reader.catch_up()
    topics.registry.status = 200
    assert reader.catch_up() == {"r0", "r1", "r2"}
    reader.close()


def test_a_registry_that_is_away_for_one_look_costs_the_exporter_no_record(topics, settings):
    source = TopicSource(settings, RunBook(lost_after=600), threading.Lock())
    topics.put(a_run("r0"), a_result(run_id="r0"))
    topics.registry.status = 503
    with pytest.raises(ServiceError):
        source.look()
    assert list(source.families(False)) == []
    topics.registry.status = 200
    topics.put(b"\0\0\0\0\1damaged")
    source.look()
    found = samples(source.families(True))
    assert found["vqe_runs_total", "H2", "completed"] == 1
    assert found["vqe_runs_started_total", "H2"] == 1
    assert found["vqe_unreadable_records_total", RESULTS] == 1
    source.close()


def test_a_registry_that_is_away_meanwhile_costs_a_watcher_no_record_and_does_not_end_it(topics, settings, capsys):
    source = watch.TopicSource(settings, 0)
    topics.put(a_run("r0"))
    assert [r["run_id"] for _, r in events_of(source, 1)] == ["r0"]
    all_begun(source)
    topics.registry.status = 503
    taken: list = []
    topics.put(a_result(run_id="r0"), a_result(run_id="r1"))
    asked = topics.registry.asked
    gathered(lambda: taken.extend(source.read()), lambda: topics.registry.asked > asked)
    assert taken == []
    topics.registry.status = 200
    assert [r["run_id"] for _, r in events_of(source, 2)] == ["r0", "r1"]
    assert capsys.readouterr().err.count("waiting") == 1
    source.close()


def all_begun(source: watch.TopicSource) -> None:
    """Wait until every stream is followed. (The mock broker finds no record by its time: it begins where a topic ends.)"""
    gathered(lambda: list(source.read()), lambda: source._begun == len(watch.STREAMS))
    assert source._begun == len(watch.STREAMS)


def events_of(source: watch.TopicSource, count: int, stream: str = "") -> list:
    """Events of a source, as soon as there are so many of the stream."""
    found: list = []
    gathered(
        lambda: found.extend(record for record in source.read() if not stream or record[0] == stream),
        lambda: len(found) >= count,
    )
    return found


def test_a_watcher_of_a_busy_platform_comes_to_the_iterations(topics, settings):
    source = watch.TopicSource(settings, 0)
    stop = threading.Event()

    def be_busy() -> None:
        while not stop.wait(0.005):
            topics.put(a_run("other"))

    busy = threading.Thread(target=be_busy)
    busy.start()
    try:
        all_begun(source)
        topics.put(an_iteration(7))
        assert [r["iteration"] for _, r in events_of(source, 1, "vqe_iteration")] == [7]
    finally:
        stop.set()
        busy.join()
        source.close()


def test_a_watcher_finds_a_topic_that_is_made_later(topics, settings, monkeypatch):
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.3)
    source = watch.TopicSource(settings, 3600)
    all_begun(source)
    topics.broker.topic("vqe_run_v2")
    gathered(lambda: list(source.read()), lambda: ("vqe_run_v2", 0) in source._follower.positions)
    assert ("vqe_run_v2", 0) in source._follower.positions
    source.close()


def test_ended_runs_of_others_do_not_keep_a_watcher_of_one_run_waiting():
    watched = watch.Watch(("mine",))
    assert watched.take([("vqe_result", to_record(a_result(run_id="mine")))]) == 1
    assert watched.take([("vqe_result", to_record(a_result(run_id="other")))] * 5) == 0


def test_a_schema_that_the_registry_lost_is_left_behind_and_counted_after_a_while(topics, settings, monkeypatch):
    monkeypatch.setattr(follower, "UNKNOWN_SECONDS", 0.3)
    taken: list = []
    found = Follower(settings, "t", ("vqe_result", "vqe_run"), lambda stream, record, at: taken.append((stream, at)))
    topics.put(*(a_result() for _ in range(3)), a_run("r"))
    topics.registry.forgotten.add(1)
    threading.Timer(0.1, topics.registry.forgotten.clear).start()
    found.catch_up()
    assert len(taken) == 4, "an answer of the moment"
    assert all(abs(at - time.time()) < 60 for _, at in taken)
    again = Follower(settings, "t", ("vqe_result", "vqe_run"), lambda stream, *_: taken.append(stream))
    topics.registry.forgotten.add(1)
    taken.clear()
    asked = topics.registry.asked
    again.catch_up()
    assert taken == ["vqe_run"]
    assert again.unreadable == {RESULTS: 3}
    assert topics.registry.asked - asked < 10
    found.close()
    again.close()


def test_what_was_left_behind_is_read_once_the_registry_knows_its_schema(topics, settings, monkeypatch):
    """As a registry on a busy machine, which reads its own store for longer than anybody is patient."""
    monkeypatch.setattr(follower, "UNKNOWN_SECONDS", 0.1)
    monkeypatch.setattr(follower, "ASK_AGAIN_SECONDS", 0.0)
    taken: list = []

    def take(stream: str, record: dict, _at: float) -> None:
        taken.append((stream, record["run_id"]))

    found = Follower(settings, "t", ("vqe_result", "vqe_run"), take)
    topics.put(a_run("r0"))
    late = topics.registry.id_of(json.dumps(schemas.current("vqe_result")))
    topics.registry.forgotten.add(late)
    found.catch_up()
    topics.put(a_result(run_id="r0"), b"\0\0\0\0\1damaged", a_result(run_id="r1"), a_run("r1"))
    found.catch_up()
    assert sorted(taken) == [("vqe_run", "r0"), ("vqe_run", "r1")]
    assert found.unreadable == {RESULTS: 3}
    topics.registry.forgotten.clear()
    topics.put(a_run("r2"), a_result(run_id="r2"))
    found.catch_up()
    assert sorted(taken) == [(stream, f"r{i}") for stream in ("vqe_result", "vqe_run") for i in range(3)]
    assert found.unreadable == {RESULTS: 3}, "what is damaged is not counted again"
    topics.put(a_result(run_id="r3"))
    found.catch_up()
    assert sorted(taken)[3] == ("vqe_result", "r3")
    assert len(taken) == 7
    found.close()


def test_a_second_schema_that_comes_late_does_not_have_the_first_read_twice(topics, settings, monkeypatch):
    monkeypatch.setattr(follower, "UNKNOWN_SECONDS", 0.0)
    monkeypatch.setattr(follower, "ASK_AGAIN_SECONDS", 0.0)
    taken: list = []
    found = Follower(settings, "t", ("vqe_result",), lambda _stream, record, _at: taken.append(record["run_id"]))
    texts = [json.dumps(schemas.current("vqe_result") | {"doc": doc}) for doc in "ab"]
    ids = [topics.registry.id_of(text) for text in texts]
    body = io.BytesIO()
    for run in range(6):
        fastavro.schemaless_writer(body, schemas.current("vqe_result"), to_record(a_result(run_id=f"r{run}")))
        topics.put(frame(ids[run % 2]) + body.getvalue())
        body.seek(0)
        body.truncate()
    topics.registry.id_of("{}")  # it has some schema
    topics.registry.forgotten |= set(ids)
    found.catch_up()
    assert taken == []
    topics.registry.forgotten.discard(ids[0])
    monkeypatch.setattr(follower, "AT_ONCE", 3)
    found.look_around()
    gathered(lambda: found.read(0.1), lambda: len(taken) == 2)  # r0 and r2: in the midst of what is read again
    topics.registry.forgotten.clear()
    found.catch_up()
    assert sorted(taken) == [f"r{run}" for run in range(6)]
    found.close()


def test_a_registry_without_any_schema_is_starting(topics, settings, monkeypatch):
    monkeypatch.setattr(follower, "UNKNOWN_SECONDS", 0.0)
    reader = Results(settings)
    topics.put(a_result(run_id="r0"))
    topics.registry.forgotten |= topics.registry._texts.keys()
    with pytest.raises(ServiceError, match="no schema at all"):
        reader.catch_up()
    topics.registry.forgotten.clear()
    assert reader.catch_up() == {"r0"}
    reader.close()


def test_what_retention_deleted_before_it_was_read_is_not_waited_for(topics, settings, monkeypatch):
    taken: list = []
    found = Follower(settings, "t", ("vqe_result",), lambda _stream, record, _at: taken.append(record["run_id"]))
    topics.put(a_result(run_id="r0"))
    found.catch_up()

    def later(_admin, partitions, **_):
        """As after five records came and went: the topic begins and ends behind what was read."""
        return dict.fromkeys(partitions, 6)

    monkeypatch.setattr(follower, "offsets", later)
    monkeypatch.setattr(follower, "SILENCE_SECONDS", 1.0)
    found.catch_up()
    assert taken == ["r0"]
    found.close()


def test_a_broker_that_is_away_is_told_and_the_next_look_goes_on(topics, settings, monkeypatch):
    reader = Results(settings)
    topics.put(a_result(run_id="r0"))
    reader.catch_up()
    monkeypatch.setattr(follower, "ADMIN_SECONDS", 0.5)
    monkeypatch.setattr(follower, "SILENCE_SECONDS", 0.5)
    topics.broker.down()
    with pytest.raises(ServiceError, match="Kafka at"):
        reader.catch_up()
    topics.broker.up()
    topics.put(a_result(run_id="r1"))
    monkeypatch.undo()

    def look() -> None:
        with contextlib.suppress(ServiceError):
            reader.catch_up()

    gathered(look, lambda: reader.runs == {"r0", "r1"})
    assert reader.runs == {"r0", "r1"}
    reader.close()
