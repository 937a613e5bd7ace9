"""Weekly: everything raw compared with the ledger, then compaction, manifests, snapshot expiry and orphan files.

Both take the warehouse lock, so that a batch under way ends first and the next one waits.
"""

import os

from airflow.sdk import dag
from vqe_settings import dag_arguments, spark_job


@dag(
    dag_id="table_maintenance_dag",
    schedule="0 3 * * 0",
    doc_md=__doc__,
    # None is Airflow's own setting. A new installation runs last Sunday's maintenance at once: three Spark jobs beside its first batch.
    is_paused_upon_creation=True if os.environ.get("VQE_MAINTENANCE_PAUSED") == "true" else None,
    **dag_arguments(),
)
def table_maintenance() -> None:
    reconcile = spark_job("ingest", task_id="reconcile", arguments=["--reconcile"])
    keep = ["--keep-days", os.environ.get("VQE_KEEP_DAYS", "30")]
    maintain = spark_job("maintenance", task_id="maintain", arguments=keep)
    audit = spark_job("quality", task_id="audit")
    reconcile >> maintain >> audit


table_maintenance()
