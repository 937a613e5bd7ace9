"""The exporter: what the topics, Connect, the PushGateway, Airflow and the tables say, each source by itself."""

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import study
from exposition import samples
from samples import a_result, a_run
from waiting import eventually

from simulator.events.records import new_id, to_record
from simulator.kafka.lag import progress
from simulator.observability.exporter import airflow, gateway, runs
from simulator.observability.exporter.airflow import AirflowSource
from simulator.observability.exporter.catalog import CatalogSource
from simulator.observability.exporter.connect import ConnectSource
from simulator.observability.exporter.gateway import GatewaySource
from simulator.observability.exporter.runs import RunBook
from simulator.observability.exporter.sources import Exporter
from simulator.observability.metrics import exposed
from simulator.settings import Settings

NOW = 1_800_000_000.0


def settings(**given) -> Settings:
    return Settings(**given, _env_file=None)


def decoded(event, **changed) -> dict:
    """An event as a consumer decodes it."""
    times = {k: datetime.fromtimestamp(v / 1e6, UTC) for k, v in to_record(event).items() if k.endswith("_at")}
    return {**to_record(event), **times, **changed}


def a_record(run_id: str | None = None, **changed) -> dict:
    fields = {"run_id": run_id or new_id(), "converged": True, "physical": True, "energy": -1.1, "reference_energy": -1.1001,
              "reference_name": "FCI", "error_mha": 0.1, "chemical_accuracy": True, "iterations": 7, "evaluations": 20,
              "timings": [{"stage": "scf", "seconds": 0.5, "calls": 1}], "references": [{"name": "FCI", "correlation_share": 0.99}]}  # fmt: skip
    return decoded(a_result(**{**fields, **changed}))


@pytest.fixture
def clock():
    class Clock:
        time = NOW

        def __call__(self) -> float:
            return self.time

    return Clock()


@pytest.fixture
def book(clock):
    return RunBook(lost_after=600, now=clock)


def test_a_run_counts_once_however_often_and_in_whatever_order_its_events_come(book):
    began, ended = decoded(a_run("a")), a_record("a")
    for _ in range(2):
        book.ended(ended, NOW)
        book.began(began, NOW)
    found = samples(book.families())
    assert found["vqe_runs_started_total", "H2"] == 1
    assert found["vqe_runs_total", "H2", "completed"] == 1
    assert found["vqe_runs_total", "H2", "failed"] == 0  # there from the start, so that its rate is
    assert found["vqe_runs_running", "H2"] == 0
    assert found["vqe_iterations_total", "H2"] == 7
    assert found["vqe_stage_seconds_total", "H2", "scf"] == 0.5


def test_what_went_wrong_lately_is_counted_by_the_time_at_which_kafka_got_it(book, clock):
    book.ended(
        a_record(status="failed", converged=None, physical=None, energy=None, error_mha=None, chemical_accuracy=None),
        NOW,
    )
    book.ended(a_record(physical=False), NOW)
    book.ended(a_record(converged=False), NOW - 10_000)  # long ago: the exporter was started anew
    found = samples(book.families())
    assert found["vqe_recent_runs", "H2", "failed"] == 1
    assert found["vqe_recent_unphysical_runs", "H2"] == 1
    assert found["vqe_recent_not_converged_runs", "H2"] == 0
    assert found["vqe_runs_not_converged_total", "H2"] == 1
    clock.time = NOW + runs.RECENT_SECONDS + 1
    assert samples(book.families())["vqe_recent_runs", "H2", "failed"] == 0


def test_a_silent_run_is_lost_until_its_specification_is_run_again(book, clock):
    began = decoded(a_run("a"), recorded_at=datetime.fromtimestamp(NOW, UTC))
    book.began(began, NOW)
    clock.time = NOW + 500
    book.alive("a", clock.time)
    clock.time = NOW + 1_000
    found = samples(book.families())
    assert (found["vqe_runs_running", "H2"], found["vqe_runs_lost", "H2"]) == (1, 0)
    clock.time = NOW + 1_200
    found = samples(book.families())
    assert (found["vqe_runs_running", "H2"], found["vqe_runs_lost", "H2"]) == (0, 1)
    book.ended({**a_record("b"), "spec_id": began["spec_id"]}, clock.time)
    assert samples(book.families())["vqe_runs_lost", "H2"] == 0


@pytest.mark.parametrize("days", [-400, 400])
def test_a_run_on_a_machine_whose_clock_is_days_off_runs_is_lost_and_is_forgotten_like_any_other(book, clock, days):
    off = NOW + days * 86_400
    book.began(decoded(a_run("a"), recorded_at=datetime.fromtimestamp(off, UTC)), NOW if days < 0 else off)
    book.alive("a", NOW if days < 0 else off)
    assert samples(book.families())["vqe_runs_running", "H2"] == 1
    clock.time = NOW + 1_000
    assert samples(book.families())["vqe_runs_lost", "H2"] == 1
    book.ended(a_record("b", status="failed", converged=None, physical=None, energy=None, error_mha=None,
                        chemical_accuracy=None), clock.time + max(0, days) * 86_400)  # fmt: skip
    assert samples(book.families())["vqe_recent_runs", "H2", "failed"] == 1
    clock.time += runs.RECENT_SECONDS + 1
    assert samples(book.families())["vqe_recent_runs", "H2", "failed"] == 0
    clock.time = NOW + runs.FORGET_SECONDS + 1
    assert samples(book.families())["vqe_runs_lost", "H2"] == 0


def test_a_lost_run_is_shown_for_a_day(book, clock):
    book.began(decoded(a_run("a"), recorded_at=datetime.fromtimestamp(NOW, UTC)), NOW)
    clock.time = NOW + runs.FORGET_SECONDS + 1
    assert samples(book.families())["vqe_runs_lost", "H2"] == 0


def test_the_usual_error_is_the_median_of_like_runs_before(book):
    for error in (0.1, 0.2, 0.3, 0.2, 0.1):
        book.ended(a_record(error_mha=-error), NOW)
    assert ("vqe_accuracy_usual_error_hartree", "H2") not in samples(book.families())  # four are too few
    book.ended(a_record(error_mha=9.0), NOW)
    book.ended(a_record(error_mha=50.0, converged=False), NOW)
    shots = a_record(error_mha=70.0)
    book.ended({**shots, "spec": {**shots["spec"], "shots": 100}}, NOW)
    found = samples(book.families())
    assert found["vqe_accuracy_usual_error_hartree", "H2"] == pytest.approx(0.2e-3)
    assert found["vqe_accuracy_error_hartree", "H2"] == pytest.approx(9e-3)


def test_labels_are_bounded_and_never_a_run(book, monkeypatch):
    monkeypatch.setattr(runs, "MAX_LABEL_SETS", 3)
    for i in range(10):
        book.ended(a_record(f"run-{i}", formula=f"H{i}"), NOW)
    text = exposed(book.families()).decode()
    assert "run-" not in text
    found = samples(book.families())
    assert {key[1] for key in found if key[0] == "vqe_runs_total"} == {"H0", "H1", "H2", "other"}
    assert found["vqe_runs_total", "other", "completed"] == 7


def test_results_wait_from_the_oldest_that_the_tables_lack(book, clock):
    for age in (300, 200, 100):
        book.ended(a_record(str(age)), NOW - age)
    assert book.pending_seconds() == 0, "nobody has looked for them yet"
    book.looked_for(book.waiting(all_=False), ["100"])
    assert book.waiting(all_=False) == []
    assert book.pending_seconds() == pytest.approx(300)
    book.looked_for(book.waiting(all_=True), ["300"])
    assert book.pending_seconds() == pytest.approx(200)
    book.looked_for(book.waiting(all_=True), ["200"])
    assert book.pending_seconds() == 0


@pytest.mark.parametrize("days", [-400, 400])
def test_a_result_waits_though_the_clock_of_its_machine_or_of_the_one_before_is_days_off(book, clock, days):
    wrong = datetime.fromtimestamp(NOW + days * 86_400, UTC)
    book.ended({**a_record("first"), "recorded_at": wrong}, NOW + days * 86_400 if days > 0 else NOW)
    book.ended(a_record("second"), NOW - 50)
    book.looked_for(book.waiting(all_=True), ["first"])
    assert book.pending_seconds() == pytest.approx(50)
    book.ended({**a_record("third"), "recorded_at": wrong}, NOW - 70)
    book.looked_for(book.waiting(all_=True), ["second"])
    assert book.pending_seconds() == pytest.approx(70)


def test_lag_counts_partitions_that_were_never_committed_and_not_what_retention_deleted():
    ends = {("t", 0): 100, ("t", 1): 50, ("u", 0): 10}
    firsts = {("t", 0): 40, ("t", 1): 10, ("u", 0): 0}
    (row,) = progress("g", {("t", 0): 20}, firsts, ends)
    assert (row.topic, row.lag, row.committed) == ("t", 60 + 40, 20)


def test_many_open_runs_do_not_make_results_slow(book):
    began, ended = decoded(a_run("a")), a_record()
    for i in range(30_000):
        book.began({**began, "run_id": f"r{i}", "spec_id": f"s{i}"}, NOW)
    results = [{**ended, "run_id": f"r{i}", "spec_id": f"s{i}"} for i in range(2_000)]
    start = time.process_time()
    for result in results:
        book.ended(result, NOW)
    assert time.process_time() - start < 2
    assert samples(book.families())["vqe_runs_running", "H2"] == 28_000


class Failing:
    name = "failing"
    interval = 0.01
    calls = 0

    def look(self) -> None:
        self.calls += 1
        if self.calls < 4:
            raise OSError("gone\nfor now")

    def families(self, up):
        return iter(())

    def close(self) -> None: ...


class Hanging(Failing):
    name = "hanging"

    def look(self) -> None:
        time.sleep(60)


def test_a_source_that_is_away_is_one_line_and_leaves_the_others_alone(capsys):
    from simulator import log

    log.configure("info", "json")
    failing = Failing()
    exporter = Exporter([failing, Hanging()])
    exporter.start()
    eventually(lambda: failing.calls >= 6)
    assert samples(exporter.collect())["vqe_exporter_source_up", "failing"] == 1
    assert samples(exporter.collect())["vqe_exporter_source_up", "hanging"] == 0
    began = time.monotonic()
    exporter.close()
    assert time.monotonic() - began < 3
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["event"], line.get("reason")) for line in lines] == [
        ("source is away", "gone for now"),
        ("source is back", None),
    ]


def serve(answers: dict[str, object]):
    """An HTTP server with JSON answers by path, and the requests that it got."""
    got: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            got.append((self.command, self.path))
            body = json.dumps(answers.get(self.path)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_DELETE = _answer

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}", got


def stop(server) -> None:
    server.shutdown()
    server.server_close()


def test_a_connector_is_down_when_a_task_failed_when_it_is_missing_and_when_connect_is_away():
    running = {"connector": {"state": "RUNNING"}, "tasks": [{"state": "RUNNING"}, {"state": "RUNNING"}]}
    status = {"vqe-s3-sink": {"status": running}}
    server, url, _ = serve({"/connectors?expand=status": status})
    source = ConnectSource(settings(connect_url=url))
    source.look()
    found = samples(source.families(True))
    assert found["vqe_connector_running", "vqe-s3-sink"] == 1
    assert found["vqe_connector_tasks", "vqe-s3-sink", "RUNNING"] == 2
    running["tasks"][1]["state"] = "FAILED"
    source.look()
    assert samples(source.families(True))["vqe_connector_running", "vqe-s3-sink"] == 0
    status.clear()
    source.look()
    assert samples(source.families(True))["vqe_connector_running", "vqe-s3-sink"] == 0
    running["tasks"][1]["state"] = "RUNNING"
    status["vqe-s3-sink"] = {"status": running}
    source.look()
    stop(server)
    with pytest.raises(OSError, match="refused"):
        source.look()
    found = samples(source.families(False))
    assert found["vqe_connector_running", "vqe-s3-sink"] == 0
    assert found["vqe_connector_tasks", "vqe-s3-sink", "RUNNING"] == 0


def test_groups_of_runs_that_were_not_pushed_for_ten_minutes_are_removed():
    def group(job: str, instance: str, age: float) -> dict:
        pushed = {"metrics": [{"value": f"{time.time() - age:.9e}"}]}
        return {"labels": {"job": job, "instance": instance}, "push_time_seconds": pushed}

    data = [group("vqe_run", "a/0", 700), group("vqe_run", "b-0", 30), group("others", "c", 9_000)]
    server, url, got = serve({"/api/v1/metrics": {"data": data}})
    source = GatewaySource(settings(pushgateway_url=url))
    source.look()
    stop(server)
    assert [path for method, path in got if method == "DELETE"] == ["/metrics/job/vqe_run/instance/a%2F0"]
    found = samples(source.families(True))
    assert found["vqe_pushgateway_groups",] == 1
    assert found["vqe_pushgateway_groups_removed_total",] == 1
    assert gateway.REMOVE_SECONDS == 600


def test_a_clock_that_jumps_removes_no_group_that_is_pushed_and_keeps_none_that_is_not(monkeypatch):
    value = {"dead": 0.0, "alive": 0.0}

    def group(instance: str) -> dict:
        pushed = {"metrics": [{"value": f"{value[instance]:.9e}"}]}
        return {"labels": {"job": "vqe_run", "instance": instance}, "push_time_seconds": pushed}

    removed: list[str] = []

    def call(url: str, method: str) -> str:
        if method == "DELETE":
            removed.append(url.rsplit("/", 1)[1])
        return json.dumps({"data": [group(name) for name in value]})

    monkeypatch.setattr(gateway, "request_directly", call)
    elapsed, now = 0.0, time.time()
    monkeypatch.setattr(time, "monotonic", lambda: elapsed)
    source = GatewaySource(settings(pushgateway_url="http://gateway:9091"))
    value["dead"] = value["alive"] = now + 400 * 86_400  # the gateway's clock, or ours, is a year off
    source.look()
    elapsed = 601.0
    value["alive"] = now - 400 * 86_400
    source.look()
    assert removed == ["dead"]


@pytest.fixture
def statsd():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    source = AirflowSource(settings(statsd_port=port))
    yield source
    source.close()


def test_airflows_packets_become_metrics_in_seconds_by_dag(statsd):
    lines = [b"airflow.dagrun.duration.failed,dag_id=q,run_type=manual:1500|ms", b"airflow.dagrun.duration.failed,dag_id=q:500.0|ms",
             b"airflow.scheduler_heartbeat:1|c\nairflow.scheduler_heartbeat:2|c", b"airflow.dag_processing.import_errors:3|g",
             b"airflow.ti_failures,dag_id=q,task_id=t:1|c", b"airflow.unknown:1|c", b"nonsense", b"airflow.ti_failures:x|c", b"\xff:1|c"]  # fmt: skip
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for line in lines:
            sender.sendto(line, ("127.0.0.1", statsd.port))
    eventually(lambda: ("airflow_ti_failures_total", "q") in samples(statsd.families(True)))
    found = samples(statsd.families(True))
    assert found["airflow_dagrun_duration_failed_seconds_sum", "q"] == 2.0
    assert found["airflow_dagrun_duration_failed_seconds_count", "q"] == 2
    assert found["airflow_recent_failed_dagruns", "q"] == 2
    assert found["airflow_scheduler_heartbeat_total",] == 3
    assert found["airflow_dag_processing_import_errors",] == 3
    assert not any("unknown" in key[0] for key in found)


def test_airflow_is_away_after_two_minutes_of_silence_and_its_series_are_bounded(statsd, monkeypatch):
    statsd.look()
    for i in range(2_000):
        statsd.take(b"airflow.ti_failures,dag_id=d%d:1|c" % i)
    assert sum(key[0] == "airflow_ti_failures_total" for key in samples(statsd.families(True))) == airflow.MAX_SERIES
    monkeypatch.setattr(airflow, "HEARD_SECONDS", -1.0)
    with pytest.raises(TimeoutError):
        statsd.look()


def test_the_tables_tell_their_rows_the_last_batch_and_what_is_pending(tmp_path, monkeypatch):
    from spark_jobs.arrow.batch import build
    from spark_jobs.tables import VQE_RESULTS
    from spark_jobs.warehouse import Warehouse

    monkeypatch.delenv("VQE_CATALOG_URI", raising=False)
    monkeypatch.delenv("VQE_WAREHOUSE", raising=False)
    assert not CatalogSource.there(tmp_path)
    study.write(tmp_path)
    report = build(tmp_path)
    assert CatalogSource.there(tmp_path)
    book, lock = RunBook(lost_after=600), threading.Lock()
    source = CatalogSource(settings(data_dir=tmp_path), book, lock)
    source.look()
    found = samples(source.families(True))
    assert found["vqe_table_rows", "vqe_results"] == report.rows["vqe_results"] > 0
    assert found["vqe_table_bytes", "vqe_results"] > 0
    assert found["vqe_batch_last_loaded_objects",] == report.loaded
    assert found["vqe_batch_last_records",] == report.records
    assert 0 <= found["vqe_batch_last_seconds",] < report.seconds + 1
    assert found["vqe_quality_issues", "missing_records"] == 0
    assert found["vqe_batch_pending_seconds",] == 0
    with Warehouse.read(tmp_path) as warehouse:
        loaded = warehouse.scan(VQE_RESULTS, ("run_id",))["run_id"].to_pylist()
    book.ended(a_record(), time.time() - 50)
    book.ended(
        {**a_record(loaded[0]), "recorded_at": datetime.fromtimestamp(time.time() + 86_400, UTC)}, time.time() - 90
    )
    source.look()
    assert samples(source.families(False))["vqe_batch_pending_seconds",] == pytest.approx(50, abs=10)


def test_a_look_while_a_batch_is_published_shows_the_batch_before_and_then_the_batch(tmp_path, monkeypatch):
    from spark_jobs import warehouse
    from spark_jobs.arrow import batch

    monkeypatch.delenv("VQE_CATALOG_URI", raising=False)
    monkeypatch.delenv("VQE_WAREHOUSE", raising=False)
    study.write(tmp_path)
    before = batch.build(tmp_path)
    source = CatalogSource(settings(data_dir=tmp_path), None, threading.Lock())
    damaged = tmp_path / "raw/vqe_result_v1/partition=9/vqe_result_v1+9+0000000000000000000.avro"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"no Avro")
    seen = []

    def look(what: str) -> None:
        if what in ("append processing_metadata", "tag molecules"):
            source.look()
            found = samples(source.families(True))
            seen.append(
                (found["vqe_batch_last_loaded_objects",], found["vqe_table_rows", "processing_metadata"],
                 found["vqe_batch_objects_total", "rejected"])
            )  # fmt: skip

    monkeypatch.setattr(warehouse, "on_commit", look)
    batch.build(tmp_path)
    assert seen == [(before.loaded, before.loaded, 0)] * 2
    source.look()
    found = samples(source.families(True))
    assert found["vqe_batch_last_rejected_objects",] == found["vqe_batch_objects_total", "rejected"] == 1


@pytest.mark.parametrize("days", [-400, 400])
def test_an_issue_is_recent_for_a_day_though_the_clock_of_its_batch_was_off(tmp_path, monkeypatch, days):
    from spark_jobs.arrow import batch
    from spark_jobs.quality import LATE

    monkeypatch.delenv("VQE_CATALOG_URI", raising=False)
    monkeypatch.delenv("VQE_WAREHOUSE", raising=False)
    study.write(tmp_path)
    shutil.rmtree(tmp_path / "raw/vqe_iteration_v1")
    off = datetime.now(UTC) + timedelta(days=days)
    batch.build(tmp_path, now=off - LATE)
    source = CatalogSource(settings(data_dir=tmp_path), None, threading.Lock())
    source.look()
    recent = ("vqe_quality_issues_recent", "missing_records")
    assert samples(source.families(True))[recent] == 0
    found = batch.build(tmp_path, now=off).issues
    source.look()
    assert samples(source.families(True))[recent] == found > 0
    elapsed = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: elapsed() + 86_401)
    source.look()
    assert samples(source.families(True))[recent] == 0
    assert samples(source.families(True))["vqe_quality_issues", "missing_records"] == found


def test_a_platform_without_tables_yet_is_no_failure(tmp_path, monkeypatch):
    monkeypatch.setenv("VQE_CATALOG_URI", f"sqlite:///{tmp_path}/c.db")
    source = CatalogSource(settings(data_dir=tmp_path), RunBook(lost_after=600), threading.Lock())
    source.look()
    assert samples(source.families(True))["vqe_batch_objects_total", "loaded"] == 0


def test_the_command_serves_without_kafka_and_ends_at_sigterm(tmp_path, monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        "VQE_EXPORTER_PORT": str(port),
        "VQE_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "VQE_CONNECT_URL": "http://127.0.0.1:1",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    process = subprocess.Popen(
        [sys.executable, "-m", "simulator.cli.main", "exporter", "--data-dir", str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
    )
    import urllib.request

    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:

        def asked() -> str:
            with contextlib.suppress(OSError), opener.open(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                text: str = answer.read().decode()
                return text if "vqe_connector_running" in text else ""
            return ""

        text = eventually(asked, pause=0.1)
        assert 'vqe_exporter_source_up{source="topics"} 0.0' in text
        assert 'vqe_connector_running{connector="vqe-s3-sink"} 0.0' in text
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        _, errors = process.communicate(timeout=20)
        assert time.monotonic() - began < 15
        assert process.returncode == 0, errors
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
