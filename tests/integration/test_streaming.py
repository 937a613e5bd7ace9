"""Events through the real broker and registry: nothing lost, nothing doubled, no run stopped or slowed."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.services.probes import eventually
from tests.services.secure_proxy import SecureProxy

from .conftest import service_environment
from .platform import Platform, json_lines, spool_files

pytest_plugins = ["tests.services.fixtures"]
LONG = ("n2", "--optimizer", "cobyla", "--max-iterations", "3000", "--tolerance", "1e-9")
"""A run of half a minute: long enough to be disturbed. It ends without having converged, so with exit code 1."""
ENDLESS = ("n2", "--optimizer", "nelder-mead", "--max-iterations", "10000000", "--tolerance", "1e-15")
"""A run that ends when a test ends it, however fast the machine is."""
SCHEMA_FILES = list((Path(__file__).parents[2] / "schemas").glob("*.avsc"))
"""Every version of every event's schema that was ever released."""


def test_every_event_of_a_run_reaches_its_topic_and_the_spool_is_empty(platform):
    done = platform.vqe("run", "h2", "lih", "--sink", "kafka", "--json")
    printed = {r["run_id"]: r for r in json_lines(done.stdout)}
    results = platform.check_promises()
    assert results.keys() == printed.keys()
    assert all(results[i]["energy"] == printed[i]["energy"] for i in printed)
    assert spool_files(platform.data_dir) == []
    keys = {message.key() for _, message in platform.messages("vqe_iteration_v")}
    assert keys == {run_id.encode() for run_id in printed}, "key = run_id keeps a run's order"


def test_topics_and_schemas_are_set_up_again_without_change(platform):
    assert platform.vqe("topics").stdout.count("present") == 6
    assert platform.vqe("schemas", "register").stdout.count("present") == len(SCHEMA_FILES)


def test_the_registry_refuses_what_no_earlier_reader_could_read(platform):
    import copy

    from confluent_kafka.schema_registry import Schema
    from confluent_kafka.schema_registry.error import SchemaRegistryError

    from simulator.events import schemas
    from simulator.kafka.clients import make_registry

    broken = copy.deepcopy(schemas.newest("vqe_iteration_v1"))
    broken["fields"].append({"name": "new", "type": "long"})
    with make_registry(platform.settings()) as client:
        with pytest.raises(SchemaRegistryError) as caught:
            client.register_schema("vqe_iteration_v1-value", Schema(json.dumps(broken), "AVRO"))
        assert caught.value.http_status_code == 409
        assert client.get_compatibility("vqe_iteration_v1-value") == "FULL_TRANSITIVE"


def test_a_schema_nobody_registered_is_spooled_not_registered_by_the_producer(platform, stack):
    from simulator.kafka.clients import make_registry

    with make_registry(platform.settings()) as client:
        client.delete_subject("vqe_result_v1-value")
        done = platform.vqe("run", "h2", "--sink", "kafka", VQE_DELIVERY_SECONDS="2")
        assert "does not know the schema of vqe_result_v1" in done.stderr
        assert "vqe_result_v1-value" not in client.get_subjects()
    assert platform.records("vqe_result_v") == []
    platform.vqe("schemas", "register")
    platform.vqe("replay")
    assert len(platform.check_promises()) == 1


def test_a_schema_that_stays_unknown_holds_up_no_other_topic(platform):
    from simulator.kafka.clients import make_registry

    with make_registry(platform.settings()) as client:
        client.delete_subject("vqe_run_v1-value")
        done = platform.vqe("run", "h2", "--sink", "kafka", VQE_DELIVERY_SECONDS="30")
    assert done.stderr.count("does not know the schema of vqe_run_v1") == 1
    assert len(platform.records("vqe_result_v")) == 1
    assert platform.records("vqe_run_v") == []
    platform.vqe("schemas", "register")
    assert "1 set aside" in platform.vqe("replay").stdout
    platform.vqe("replay", "--rejected")
    assert len(platform.check_promises()) == 1
    assert spool_files(platform.data_dir) == []


@pytest.mark.parametrize("how", ["scram", "plain", "mtls"])
def test_events_flow_over_tls_with_every_way_to_sign_in(platform, stack, how):
    secured = Platform(service_environment(stack, how), platform.data_dir)
    secured.vqe("topics")
    secured.vqe("run", "h2", "--sink", "kafka")
    assert len(platform.check_promises()) == 1


@pytest.mark.parametrize("how", ["wrong password", "stranger", "unknown authority"])
def test_who_is_refused_is_told_and_loses_nothing(platform, stack, how):
    environment = service_environment(stack, "mtls" if how == "stranger" else "scram")
    if how == "wrong password":
        environment["VQE_KAFKA_PASSWORD"] = "canary-9f31"
    elif how == "stranger":
        environment["VQE_KAFKA_SSL_CERTIFICATE"] = str(stack.security.stranger_cert)
        environment["VQE_KAFKA_SSL_KEY"] = str(stack.security.stranger_key)
    else:
        environment["VQE_KAFKA_SSL_CA"] = str(stack.security.stranger_cert)
    refused = Platform(environment, platform.data_dir)
    done = refused.vqe("run", "h2", "--sink", "kafka", VQE_DELIVERY_SECONDS="6")
    assert "does not take events" in done.stderr
    assert "canary" not in done.stderr + done.stdout
    assert spool_files(platform.data_dir)
    platform.vqe("replay")
    assert len(platform.check_promises()) == 1


def test_a_registry_over_https_with_a_password(platform, stack):
    with SecureProxy(platform.environment["VQE_REGISTRY_URL"], stack.security) as proxy:
        secure = {
            "VQE_REGISTRY_URL": proxy.url,
            "VQE_REGISTRY_CA": str(stack.security.ca),
            "VQE_REGISTRY_USERNAME": stack.security.user,
            "VQE_REGISTRY_PASSWORD_FILE": str(stack.security.folder / "password"),
        }
        assert platform.vqe("schemas", "register", **secure).stdout.count("present") == len(SCHEMA_FILES)
        platform.vqe("run", "h2", "--sink", "kafka", **secure)
        assert len(platform.check_promises()) == 1
        assert proxy.passed > 0
        assert proxy.refused == 0
        wrong = {"VQE_REGISTRY_PASSWORD_FILE": "", "VQE_REGISTRY_PASSWORD": "canary-9f31"}
        stranger = {"VQE_REGISTRY_CA": str(stack.security.stranger_cert)}
        for change, says in ((wrong, "refuses (401)"), (stranger, "certificate verify failed")):
            done = platform.vqe("schemas", "register", check=1, **secure | change)
            assert len(done.stderr.strip().splitlines()) == 1, done.stderr
            assert says in done.stderr
            assert "canary" not in done.stderr + done.stdout
        assert proxy.refused > 0


@pytest.mark.parametrize("service", ["kafka", "registry"])
def test_a_service_that_is_away_neither_stops_nor_slows_a_run_and_the_user_hears_of_it_once(platform, stack, service):
    stack.kill(service)
    try:
        began = time.monotonic()
        done = platform.vqe("run", "h2", "lih", "beh2", "--sink", "kafka", "--json", VQE_DELIVERY_SECONDS="20")
        assert len(json_lines(done.stdout)) == 3
        assert done.stderr.count("does not take events") == 1
        assert done.stderr.count("vqe replay delivers them") == 1
        assert time.monotonic() - began < 60
        assert spool_files(platform.data_dir)
    finally:
        stack.start(service)
    replayed = platform.vqe("replay")
    assert "0 bytes left" in replayed.stdout
    assert len(platform.check_promises()) == 3
    assert spool_files(platform.data_dir) == []


def test_a_broker_killed_in_mid_run_gets_everything_when_it_is_back(platform, stack):
    with platform.started("run", *LONG, "--sink", "kafka", "--json") as process:
        eventually(lambda: platform.records("vqe_iteration_v"), 120, "first iterations in the topic")
        stack.kill("kafka")
        time.sleep(3)
        stack.start("kafka")
        out, err = process.communicate(timeout=240)
    assert process.returncode in (0, 1), err
    (run,) = json_lines(out)
    assert run["status"] == "completed"
    platform.vqe("replay", check=None)
    assert len(platform.check_promises()) == 1
    assert spool_files(platform.data_dir) == []


def test_a_producer_killed_in_mid_run_loses_at_most_its_last_second(platform):
    with platform.started("run", *ENDLESS, "--sink", "kafka") as process:
        eventually(lambda: len(platform.records("vqe_iteration_v")) > 3, 120, "iterations in the topic")
        process.send_signal(signal.SIGKILL)
        process.wait()
    platform.vqe("replay")
    assert spool_files(platform.data_dir) == []
    iterations = sorted(r["iteration"] for r in platform.records("vqe_iteration_v"))
    assert iterations == list(range(len(iterations))), "no gap, and nothing twice"
    assert len(platform.records("vqe_run_v")) == 1
    assert platform.records("vqe_result_v") == []
    platform.vqe("run", "h2", "--sink", "kafka")
    assert len(platform.check_promises()) == 1


def test_the_next_run_delivers_what_an_earlier_one_could_not(platform, stack):
    stack.kill("kafka")
    try:
        platform.vqe("run", "h2", "--sink", "kafka", VQE_DELIVERY_SECONDS="1")
    finally:
        stack.start("kafka")
    platform.vqe("run", "heh+", "--sink", "kafka")
    eventually(lambda: len(platform.check_promises()) == 2, 30)


def test_a_replay_leaves_the_file_of_a_living_writer_alone(platform, stack):
    stack.kill("kafka")
    try:
        with platform.started("run", *ENDLESS, "--sink", "kafka") as process:
            eventually(lambda: spool_files(platform.data_dir), 60)
            stack.start("kafka")
            done = platform.vqe("replay", "--seconds", "3", check=None)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=120)
        assert process.returncode == 130
        assert "delivered" in done.stdout
    finally:
        stack.start("kafka")
    platform.vqe("replay", check=None)
    results = platform.check_promises()
    assert [r["status"] for r in results.values()] == ["interrupted"]
    iterations = [r["iteration"] for r in platform.records("vqe_iteration_v")]
    assert len(iterations) == len(set(iterations))


def spooled(platform):
    """The settings of a spool with 500 iterations of a run that Kafka was away for."""
    from simulator.events.records import Iteration, new_id, now_micros
    from simulator.kafka.sink import KafkaSink

    settings = platform.settings(kafka_bootstrap_servers="127.0.0.1:9", delivery_seconds=0.1)
    sink = KafkaSink(settings)
    run_id = new_id()
    for i in range(500):
        sink.emit(Iteration(run_id, now_micros(), i, -1.0, None, None, None, i, 0, 0.1, [0.1] * 4))
    sink.close()
    return settings


def test_replaying_the_same_spool_again_adds_no_key(platform, tmp_path):
    import shutil

    settings = spooled(platform)
    shutil.copytree(settings.spool_dir, tmp_path / "again")
    platform.vqe("replay")
    shutil.copytree(tmp_path / "again", settings.spool_dir, dirs_exist_ok=True)
    platform.vqe("replay")
    found = [r["iteration"] for r in platform.records("vqe_iteration_v")]
    assert sorted(set(found)) == list(range(500))


def test_damage_inside_a_spool_file_costs_one_record_and_the_file_is_kept(platform):
    from simulator.kafka.spool import SpoolReader

    settings = spooled(platform)
    (path,) = settings.spool_dir.glob("vqe_iteration_v1/*.avro")
    reader = SpoolReader(path)
    end = list(reader.records())[99].end
    reader.close()
    content = bytearray(path.read_bytes())
    content[end : end + 2] = b"\xff\xff"
    path.write_bytes(content)
    done = platform.vqe("replay", check=1)
    assert "is damaged" in done.stderr
    assert sorted(r["iteration"] for r in platform.records("vqe_iteration_v")) == [*range(100), *range(101, 500)]
    assert [p.read_bytes() for p in (settings.spool_dir / "rejected").iterdir()] == [bytes(content)]


def test_a_full_spool_fails_the_run_in_one_clear_line(platform, stack):
    stack.kill("kafka")
    try:
        done = platform.vqe(
            "run", *LONG, "--sink", "kafka", check=1, VQE_SPOOL_MAX_BYTES="1000000", VQE_DELIVERY_SECONDS="1"
        )
    finally:
        stack.start("kafka")
    assert "the spool is full" in done.stderr
    assert "VQE_SPOOL_MAX_BYTES" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_record_too_large_for_kafka_is_kept_and_the_rest_goes_on(platform, capsys):
    from simulator.events.records import Iteration, new_id, now_micros
    from simulator.kafka.sink import KafkaSink

    sink = KafkaSink(platform.settings())
    run_id = new_id()
    for i, size in enumerate((4, 1_300_000, 4)):
        sink.emit(Iteration(run_id, now_micros(), i, -1.0, None, None, None, i, 0, 0.1, [0.1] * size))
    assert sink.deliver(30)
    sink.close()
    assert sorted(r["iteration"] for r in platform.records("vqe_iteration_v")) == [0, 2]
    assert sink.delivery.rejected == 1
    assert "it is kept in" in capsys.readouterr().err
    (kept,) = (platform.data_dir / "spool" / "rejected").glob("*.bin")
    assert kept.stat().st_size > 10_000_000


def rejected_events(platform) -> list[dict]:
    """What is told of the events that are set aside."""
    folder = platform.data_dir / "spool" / "rejected"
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def test_a_topic_that_takes_only_small_records_refuses_only_the_large_ones_and_they_are_offered_again(platform):
    """Records that the broker refuses in one batch are told apart: each of them alone would fit, but for two."""
    from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

    from simulator.events.records import Iteration, new_id, now_micros
    from simulator.kafka.clients import make_admin
    from simulator.kafka.sink import KafkaSink

    admin = make_admin(platform.settings())

    def limit(size: int) -> None:
        entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
        topic = ConfigResource(ResourceType.TOPIC, "vqe_iteration_v1", incremental_configs=[entry])
        for future in admin.incremental_alter_configs([topic]).values():
            future.result(timeout=30)

    limit(20_000)
    sink, run_id = KafkaSink(platform.settings()), new_id()
    for i in range(200):
        numbers = [random.random() for _ in range(5_000 if i in (50, 51) else 100)]
        sink.emit(Iteration(run_id, now_micros(), i, -1.0, None, None, None, i, 0, 0.1, numbers))
    assert sink.deliver(30)
    sink.close()
    small = [i for i in range(200) if i not in (50, 51)]
    assert sorted({r["iteration"] for r in platform.records("vqe_iteration_v")}) == small
    assert sink.delivery.rejected == 2
    assert [(told["records"], told["keys"]) for told in rejected_events(platform)] == [(2, [run_id])]
    limit(1_000_000)
    assert "2 events delivered, 0 bytes left" in platform.vqe("replay", "--rejected").stdout
    assert sorted({r["iteration"] for r in platform.records("vqe_iteration_v")}) == list(range(200))


def test_a_user_without_the_right_to_one_topic_delivers_the_others(platform, stack):
    from confluent_kafka.admin import (
        AclBinding,
        AclOperation,
        AclPermissionType,
        ResourcePatternType,
        ResourceType,
    )

    from simulator.kafka.clients import make_admin

    admin = make_admin(platform.settings())
    denied = AclBinding(
        ResourceType.TOPIC, "vqe_iteration_v1", ResourcePatternType.LITERAL, f"User:{stack.security.user}", "*",
        AclOperation.WRITE, AclPermissionType.DENY,
    )  # fmt: skip
    for future in admin.create_acls([denied]).values():
        future.result(timeout=30)
    secured = Platform(service_environment(stack, "scram"), platform.data_dir)
    try:
        done = secured.vqe("run", "h2", "--sink", "kafka", VQE_DELIVERY_SECONDS="30")
        assert done.stderr.count("a record of vqe_iteration_v1 is refused for good") == 1
        assert "Traceback" not in done.stderr
        assert len(platform.records("vqe_result_v")) == 1
        assert platform.records("vqe_iteration_v") == []
        assert spool_files(platform.data_dir) == []
        assert {told["topic"] for told in rejected_events(platform)} == {"vqe_iteration_v1"}
    finally:
        for future in admin.delete_acls([_filter(denied)]).values():
            future.result(timeout=30)
    secured.vqe("replay", "--rejected")
    assert len(platform.check_promises()) == 1


def _filter(acl):
    from confluent_kafka.admin import AclBindingFilter

    return AclBindingFilter(
        acl.restype, acl.name, acl.resource_pattern_type, acl.principal, acl.host, acl.operation, acl.permission_type
    )


def test_watch_shows_a_run_as_a_second_group_beside_the_sink(platform):
    platform.vqe("run", "h2", "--sink", "kafka", "--json")
    shown = platform.vqe("watch", "--sink", "kafka", "--exit-when-done").stdout
    assert "completed" in shown
    assert "-1.13730604" in shown
    local = platform.data_dir / "local"
    platform.vqe("run", "h2", "--data-dir", str(local))
    assert "-1.13730604" in platform.vqe("watch", "h2", "--data-dir", str(local), "--exit-when-done").stdout


def test_clock_skew_of_a_day_loses_nothing(platform):
    """Only order within files and topics counts, never the clock."""
    from simulator.events import records as events
    from simulator.kafka.sink import KafkaSink

    day = 86_400_000_000
    sink = KafkaSink(platform.settings())
    for i, skew in enumerate((0, -day, day)):
        sink.emit(
            events.Iteration(f"skewed-{i}", events.now_micros() + skew, 0, -1.0, None, None, None, 0, 0, 0.0, None)
        )
    assert sink.deliver(30)
    sink.close()
    assert len(platform.records("vqe_iteration_v")) == 3
    assert os.listdir(platform.data_dir / "spool" / "vqe_iteration_v1") == []


def test_a_full_spool_disk_fails_the_run_in_one_line_and_what_was_spooled_is_delivered(platform, stack, tmp_path):
    """The spool on a file system of half a megabyte, Kafka away; mounting needs root."""
    import subprocess

    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=500k", "tmpfs", str(small)], check=True)
    try:
        stack.kill("kafka")
        try:
            done = platform.vqe(
                "run", *LONG, "--sink", "kafka", check=1, VQE_DATA_DIR=str(small), VQE_DELIVERY_SECONDS="0.1"
            )
        finally:
            stack.start("kafka")
        assert "No space left on device" in done.stderr
        assert "Traceback" not in done.stderr
        platform.vqe("replay", VQE_DATA_DIR=str(small))
        iterations = sorted(r["iteration"] for r in platform.records("vqe_iteration_v"))
        assert len(iterations) > 100
        assert iterations == list(range(len(iterations)))
    finally:
        subprocess.run(["umount", str(small)], check=True)
