"""Daily: check that the connector runs, load new events into the tables in one batch, audit what is published, send a mail.

A backfill is a run with `{"reconcile": true, "since": "2026-01-01", "until": "2026-02-01"}`: objects stored in these days
are compared with the ledger, and what was missed or replaced is loaded. Running a past day again is never needed.
"""

import json
import os
import urllib.request

from airflow.sdk import Asset, Param, dag, task
from vqe_settings import connect_login, dag_arguments, spark_job

TABLES = Asset(name="vqe_tables", uri=f"{os.environ.get('VQE_WAREHOUSE', 's3://local-vqe-results/warehouse')}/vqe")

ARGUMENTS = (
    "{{ ['--reconcile'] + (['--since', params.since] if params.since else [])"
    " + (['--until', params.until] if params.until else []) if params.reconcile else [] }}"
)


@dag(
    dag_id="quantum_processing_dag",
    schedule="@daily",
    doc_md=__doc__,
    render_template_as_native_obj=True,
    params={
        "reconcile": Param(False, type="boolean", description="Compare all objects with the ledger"),
        "since": Param(None, type=["null", "string"], format="date", description="Objects stored from this day on"),
        "until": Param(None, type=["null", "string"], format="date", description="Objects stored before this day"),
    },
    **dag_arguments(),
)
def quantum_processing() -> None:
    @task
    def check_connector() -> str:
        """Fails where the sink or a task of it does not run: then a batch would be silently short."""
        url = os.environ.get("VQE_CONNECT_URL")
        if not url:
            return "no Kafka here: nothing to check"
        name = os.environ.get("VQE_CONNECTOR", "vqe-s3-sink")
        request = urllib.request.Request(f"{url}/connectors/{name}/status", headers=connect_login())
        with urllib.request.urlopen(request, timeout=30) as answer:
            status = json.load(answer)
        states = [status["connector"]["state"], *(t["state"] for t in status["tasks"])]
        if not status["tasks"] or set(states) != {"RUNNING"}:
            raise RuntimeError(f"connector {name}: {', '.join(states)}")
        return f"connector {name}: {len(status['tasks'])} tasks run"

    # stages the batch, audits what was staged, publishes it: all in one job, under the warehouse lock
    ingest = spark_job("ingest", task_id="ingest")
    ingest.application_args = ARGUMENTS
    # what is published, held against the facts of all batches
    audit = spark_job("quality", task_id="audit", outlets=[TABLES])
    check_connector() >> ingest >> audit


quantum_processing()
