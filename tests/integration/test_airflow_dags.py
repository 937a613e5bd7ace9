"""The DAGs in a real Airflow: they import, have the structure that is promised, and run to success and to failure."""

import http.server
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest
from raw_events import Run, container, object_path, write_runs

from simulator.events import schemas
from spark_jobs.query import query
from tests.services.airflow import Airflow, calls, dags_of
from tests.services.lake import Lake, Mailbox, Place
from tests.services.probes import eventually

from .platform import Platform

pytest_plugins = ["tests.services.lake_fixtures"]
pytestmark = pytest.mark.timeout(900)
DAG = "quantum_processing_dag"
SWEEP_DAG = "vqe_batch_generation_dag"
VQE = str(Path(sys.executable).with_name("vqe"))


@pytest.fixture(scope="module")
def lake_of_dags(lake: Lake) -> Place:
    """The warehouse of the Airflow below."""
    return lake.place("airflow")


@pytest.fixture(scope="module")
def mailbox() -> Iterator[Mailbox]:
    mailbox = Mailbox()
    yield mailbox
    mailbox.stop()


@pytest.fixture(scope="module")
def kafka(lake: Lake) -> Iterator[dict[str, str]]:
    """A broker and a registry; the environment in which `vqe` finds them."""
    lake.artifacts.fetch(("airflow",))
    lake.stack.fetch("kafka", "registry")
    try:
        lake.stack.start("kafka", "registry")
        yield {
            "VQE_KAFKA_BOOTSTRAP_SERVERS": lake.stack.bootstrap,
            "VQE_REGISTRY_URL": lake.stack.registry_url,
            "VQE_QUEUE_URI": lake.postgres.create("queue"),
        }
    finally:
        lake.stack.stop("registry", "kafka")


@pytest.fixture(scope="module")
def airflow(lake: Lake, lake_of_dags: Place, mailbox: Mailbox, kafka: dict[str, str]) -> Iterator[Airflow]:
    """Airflow with the DAGs, on a warehouse and a broker that are new."""
    # A sensor that is scheduled again before the scheduler has heard of the end of its last poke counts as killed, and is
    # tried again (Airflow's scheduler_job_runner.py, "finished with state"): two seconds were too few on a busy machine.
    quick = {"VQE_RETRIES": "2", "VQE_RETRY_SECONDS": "2", "VQE_POKE_SECONDS": "6"}
    airflow = Airflow(lake, lake_of_dags, mailbox, VQE_COMMAND=VQE, **quick, **kafka)
    try:
        yield airflow.start()
    finally:
        airflow.stop()


@pytest.fixture
def place(lake_of_dags: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The warehouse, which this process finds in its environment."""
    for name, value in lake_of_dags.environment.items():
        monkeypatch.setenv(name, value)
    return lake_of_dags


def test_every_dag_imports_and_has_its_structure(lake: Lake) -> None:
    found = dags_of(lake)
    assert found["errors"] == {}
    dags = found["dags"]
    after = {name: {t: task["after"] for t, task in dag["tasks"].items()} for name, dag in dags.items()}
    assert after == {
        "quantum_processing_dag": {"check_connector": [], "ingest": ["check_connector"], "audit": ["ingest"]},
        "vqe_batch_generation_dag": {"submit": [], "wait_for_results": ["submit"]},
        "table_maintenance_dag": {"reconcile": [], "maintain": ["reconcile"], "audit": ["maintain"]},
    }
    for dag in dags.values():
        assert (dag["max_active_runs"], dag["catchup"], dag["mails"]) == (1, False, [1, 1])
        assert all(task["retries"] == 4 and task["backoff"] for task in dag["tasks"].values())
    assert dags["quantum_processing_dag"]["schedule"] == "@daily"
    daily = dags["quantum_processing_dag"]["tasks"]
    assert [daily[t]["application"] for t in ("ingest", "audit")] == ["ingest.py", "quality.py"]
    assert "--since" in daily["ingest"]["arguments"]
    weekly = dags["table_maintenance_dag"]["tasks"]
    assert weekly["reconcile"]["arguments"] == "['--reconcile']"
    assert weekly["maintain"]["application"] == "maintenance.py"


@contextmanager
def connect(**statuses: dict) -> Iterator[str]:
    """Kafka Connect's REST address with these connectors."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = {f"/connectors/{name}/status": status for name, status in statuses.items()}.get(self.path)
            self.send_response(404 if found is None else 200)
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_tasks_in_python_tell_what_is_wrong(lake: Lake, tmp_path: Path) -> None:
    def status(connector: str, *tasks: str) -> dict:
        return {"connector": {"state": connector}, "tasks": [{"state": task} for task in tasks]}

    def vqe(name: str, text: str, code: int = 0) -> str:
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\necho '{text}'\necho \"$VQE_SINK $*: told\" >&2\nexit {code}\n")
        program.chmod(0o755)
        return str(program)

    def check(connector: str, url: str) -> dict:
        environment = {"VQE_CONNECT_URL": url, "VQE_CONNECTOR": connector}
        return {"dag": DAG, "task": "check_connector", "arguments": {}, "environment": environment}

    def sweep(task: str, command: str, path: str = "/h2.yaml") -> dict:
        arguments = {"params": {"sweep": path}}
        return {"dag": SWEEP_DAG, "task": task, "arguments": arguments, "environment": {"VQE_COMMAND": command}}

    with connect(
        well=status("RUNNING", "RUNNING", "RUNNING"),
        ill=status("RUNNING", "RUNNING", "FAILED"),
        paused=status("PAUSED", "PAUSED"),
        idle=status("RUNNING"),
    ) as url:
        well, ill, paused, idle, gone, none = calls(
            lake, [check(name, url) for name in ("well", "ill", "paused", "idle", "gone")] + [check("well", "")]
        )
    assert well == {"answer": "connector well: 2 tasks run"}
    assert ill == {"error": "RuntimeError: connector ill: RUNNING, RUNNING, FAILED"}
    assert paused == {"error": "RuntimeError: connector paused: PAUSED, PAUSED"}
    assert idle == {"error": "RuntimeError: connector idle: RUNNING"}  # runs, but nothing of it does
    assert "HTTPError: HTTP Error 404" in gone["error"]
    assert none == {"answer": "no Kafka here: nothing to check"}

    def plan(to_run: int, *errors: str) -> str:
        return json.dumps({"sweep_id": "h2", "to_run": to_run, "errors": errors})

    sent, unnamed, failed, waits, done, dead, silent = calls(
        lake,
        [
            sweep("submit", vqe("sends", "8 jobs in the queue")),
            sweep("submit", vqe("sends", "8 jobs in the queue"), path=""),
            sweep("submit", vqe("fails", "", code=2)),
            sweep("wait_for_results", vqe("waits", plan(5))),
            sweep("wait_for_results", vqe("done", plan(0))),
            sweep("wait_for_results", vqe("dead", plan(5, "started 3 times without a result"))),
            sweep("wait_for_results", vqe("silent", "")),
        ],
    )
    assert sent == {"answer": "8 jobs in the queue"}
    assert "name the sweep" in unnamed["error"]
    assert failed == {
        "error": "RuntimeError: vqe sweep /h2.yaml --submit: exit 2: kafka sweep /h2.yaml --submit: told\n"
    }
    assert (waits, done) == ({"answer": False}, {"answer": True})
    assert dead == {"error": "AirflowFailException: sweep h2: started 3 times without a result (see vqe jobs list)"}
    assert "JSONDecodeError" in silent["error"]


def test_a_sweep_is_sent_waited_for_and_resumed(airflow: Airflow, kafka: dict[str, str], tmp_path: Path) -> None:
    platform = Platform({**kafka, "VQE_SINK": "kafka"}, tmp_path / "worker")
    platform.vqe("jobs", "migrate")
    platform.vqe("topics")
    platform.vqe("schemas", "register")
    experiment = tmp_path / "experiment.yaml"
    experiment.write_text("name: nightly\nmolecules: [h2]\nseeds: 2\n")
    airflow.unpause(SWEEP_DAG)
    run = airflow.trigger(SWEEP_DAG, sweep=str(experiment))

    def state(of: str) -> str | None:
        return (airflow.tries(SWEEP_DAG, run).get(of) or [{"state": None}])[-1]["state"]

    eventually(lambda: state("wait_for_results") == "up_for_reschedule", 120, "waiting for results")
    assert state("submit") == "success"
    assert platform.records("vqe_result_v") == []
    assert "1 jobs done" in platform.vqe("worker", "--max-jobs", "1").stdout
    assert airflow.runs(SWEEP_DAG) == [run]
    assert "1 jobs done" in platform.vqe("worker", "--max-jobs", "1").stdout
    assert airflow.wait(SWEEP_DAG, run) == "success", airflow.logs()
    # asked for again: there is nothing to do and nothing to wait for
    assert airflow.wait(SWEEP_DAG, airflow.trigger(SWEEP_DAG, sweep=str(experiment))) == "success", airflow.logs()
    assert "0 jobs done" in platform.vqe("worker", "--idle-exit", "0").stdout
    assert [r["status"] for r in platform.records("vqe_result_v")] == ["completed"] * 2
    # a run that cannot be: the first one decides, without the DAG's retries and without waiting for the others
    experiment.write_text("name: bad\nmolecules: [h2]\nmatrix: {basis: [no-such-basis, 6-31g]}\n")
    run = airflow.trigger(SWEEP_DAG, sweep=str(experiment))
    assert "0 jobs done, 1 failed" in platform.vqe("worker", "--max-jobs", "1", "--idle-exit", "120").stdout
    assert airflow.wait(SWEEP_DAG, run) == "failed", airflow.logs()
    tries = airflow.tries(SWEEP_DAG, run)["wait_for_results"]
    assert [t["state"] for t in tries] == ["failed"], f"{tries}\n{airflow.logs()}"


def test_the_daily_dag_succeeds_fails_on_a_broken_batch_with_retries_and_a_mail_and_succeeds_when_mended(
    airflow: Airflow,
    place: Place,
    mailbox: Mailbox,
    tmp_path: Path,
) -> None:
    write_runs(tmp_path, [Run(1)], 0)
    place.put_folder(tmp_path)
    airflow.unpause(DAG)
    (run,) = eventually(lambda: airflow.runs(DAG), 60, "the day's run")  # and none of earlier days: no catch-up
    assert airflow.wait(DAG, run) == "success", airflow.logs()
    assert query(".", "select count(*) n from vqe_iterations").rows.to_pylist() == [{"n": 3}]
    eventually(lambda: any("quantum_processing_dag succeeded" in m for m in mailbox.mails), 30, "a mail of success")

    path = object_path("vqe_iteration_v1", 5)
    schema = schemas.current("vqe_iteration")
    broken = [e | {"energy": float("inf")} for e in Run(2).iteration_events()]
    place.put(path, container(broken, schema))
    run = airflow.trigger(DAG)
    assert airflow.wait(DAG, run) == "failed"
    tries = airflow.tries(DAG, run)
    assert [t["state"] for t in tries["ingest"]][-1] == "failed"
    assert len(tries["ingest"]) == 3  # the first and two more
    starts = [datetime.fromisoformat(t["start_date"]) for t in tries["ingest"]]
    ends = [datetime.fromisoformat(t["end_date"]) for t in tries["ingest"]]
    waits = [(b - a).total_seconds() for a, b in zip(ends, starts[1:], strict=False)]
    assert waits[0] >= 1
    assert waits[1] > 2  # the delay doubles
    eventually(lambda: any("quantum_processing_dag failed" in m for m in mailbox.mails), 30, "a mail of failure")
    assert query(".", "select count(*) n from vqe_iterations").rows.to_pylist() == [{"n": 3}]

    place.put(path, container(Run(2).iteration_events(), schema))
    run = airflow.trigger(DAG)
    assert airflow.wait(DAG, run) == "success", airflow.logs()
    assert query(".", "select count(*) n from vqe_iterations").rows.to_pylist() == [{"n": 6}]
