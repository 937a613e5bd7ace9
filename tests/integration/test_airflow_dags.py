"""The DAGs in a real Airflow: they import, have the structure that is promised, and run to success and to failure."""

from datetime import datetime
from pathlib import Path

import pytest
from raw_events import Run, container, object_path, write_runs

from simulator import schemas
from spark_jobs.query import query
from tests.services.airflow import Airflow, dags_of
from tests.services.lake import Lake, Mailbox, Place
from tests.services.probes import eventually

pytest_plugins = ["tests.services.lake_fixtures"]
pytestmark = pytest.mark.timeout(900)
DAG = "quantum_processing_dag"


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


def test_the_daily_dag_succeeds_fails_on_a_broken_batch_with_retries_and_a_mail_and_succeeds_when_mended(
    lake: Lake,
    place: Place,
    tmp_path: Path,
) -> None:
    write_runs(tmp_path, [Run(1)], 0)
    place.put_folder(tmp_path)
    mailbox = Mailbox()
    airflow = Airflow(lake, place, mailbox, VQE_RETRIES="2", VQE_RETRY_SECONDS="2")
    try:
        airflow.start()
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
    finally:
        airflow.stop()
        mailbox.stop()
