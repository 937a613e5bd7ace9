"""Batches on Spark: what `spark_jobs/jobs/ingest.py` builds the tables with."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

from pyspark.sql import SparkSession

from spark_jobs.batch import BatchReport, run_batch
from spark_jobs.lock import WAIT_SECONDS
from spark_jobs.raw import RawStore
from spark_jobs.spark.stager import SparkStager
from spark_jobs.tables import TABLES, Table


def build(
    spark: SparkSession,
    data_dir: str | Path,
    *,
    store: RawStore,
    tables: Sequence[Table] = TABLES,
    now: datetime | None = None,
    wait_seconds: float = WAIT_SECONDS,
    reconcile: bool = False,
) -> BatchReport:
    """Brings the tables up to date with the raw objects. Arguments and errors are those of `run_batch`."""
    make_stager = partial(SparkStager, spark)
    return run_batch(
        data_dir, make_stager, store=store, tables=tables, now=now, wait_seconds=wait_seconds, reconcile=reconcile
    )
