"""Batches on one machine: what `vqe run`, `vqe sweep` and `vqe tables` build the tables with."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from spark_jobs.arrow.stager import ArrowStager
from spark_jobs.batch import BatchReport, run_batch
from spark_jobs.lock import WAIT_SECONDS
from spark_jobs.raw import RawStore
from spark_jobs.tables import TABLES, Table


def build(
    data_dir: str | Path,
    *,
    store: RawStore | None = None,
    tables: Sequence[Table] = TABLES,
    now: datetime | None = None,
    wait_seconds: float = WAIT_SECONDS,
) -> BatchReport:
    """Brings the tables up to date with raw/. Arguments and errors are those of `run_batch`."""
    return run_batch(data_dir, ArrowStager, store=store, tables=tables, now=now, wait_seconds=wait_seconds)


def reconcile(
    data_dir: str | Path,
    *,
    store: RawStore | None = None,
    tables: Sequence[Table] = TABLES,
    now: datetime | None = None,
    wait_seconds: float = WAIT_SECONDS,
) -> BatchReport:
    """Compares every raw object's content with the ledger: one that was missed or replaced adds the keys that are
    missing, and one that was rejected is tried again. Arguments and errors are those of `run_batch`."""
    return run_batch(
        data_dir, ArrowStager, store=store, tables=tables, now=now, wait_seconds=wait_seconds, reconcile=True
    )
