"""The tables: how many rows, how new, how the last batch went, what the checks found. Read through the catalog."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.observability.exporter.runs import RunBook
from simulator.settings import Settings

if TYPE_CHECKING:
    from prometheus_client import Metric

CHECKS = ("missing_records", "run_without_result", "key_with_other_values")
RECENT = timedelta(hours=24)


class CatalogSource:
    """Looks at the newest published batch; reads the ledger and the issues only when they changed.

    Args:
        settings: the data directory; the catalog is where `VQE_CATALOG_URI` says, else in it.
        book: knows which results wait for the tables. Guarded by `lock`.
    """

    name = "catalog"

    def __init__(self, settings: Settings, book: RunBook | None, lock: threading.Lock) -> None:
        self.interval = settings.exporter_catalog_interval
        self._data_dir, self._late = settings.data_dir, settings.batch_late_seconds
        self._book, self._lock = book, lock
        self._sizes: dict[str, tuple[int, int, int]] = {}  # table -> rows, files, bytes
        self._ledger: dict[str, Any] = {}
        self._ledger_snapshot: int | None = None
        self._issues: dict[
            str, tuple[str, float]
        ] = {}  # issue_id -> its check, and when it was found on this process' clock
        self._issues_snapshot: int | None = None
        self._looked_in: str | None = None  # the batch in which results were looked for last
        self._seen = False

    @staticmethod
    def there(data_dir: Path) -> bool:
        """Whether a catalog is given, or lies in the data directory.

        Raises:
            InputError: its tables are another data directory's.
        """
        from spark_jobs.location import Location

        location = Location.of(data_dir)
        location.check()
        return location.exists

    def look(self) -> None:
        """Read what is new."""
        from simulator.errors import InputError
        from spark_jobs.location import MisplacedTables
        from spark_jobs.warehouse import Warehouse

        try:
            opened = Warehouse.read(self._data_dir)
        except MisplacedTables:
            raise
        except InputError:  # no batch has made the tables yet: nothing is in them
            if self._book is not None:
                with self._lock:
                    self._book.looked_for(self._book.waiting(all_=False), ())
            self._seen = True
            return
        with opened as warehouse:
            # What a batch has committed and not published yet is not looked at: neither shown, nor taken for seen.
            warehouse.as_of = next(reversed(warehouse.published()), None)
            sizes = {}
            for table in warehouse.tables:
                snapshot = warehouse.published_snapshot(table)
                summary = {} if snapshot is None or snapshot.summary is None else snapshot.summary.additional_properties
                sizes[table.name] = (
                    int(summary.get("total-records", 0)),
                    int(summary.get("total-data-files", 0)),
                    int(summary.get("total-files-size", 0)),
                )
            self._sizes = sizes
            self._read_ledger(warehouse)
            self._read_issues(warehouse)
            self._look_for_results(warehouse)
        self._seen = True

    def families(self, up: bool) -> "Iterator[Metric]":
        """What was last seen: ages go on growing while the catalog is away."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        yield GaugeMetricFamily(
            "vqe_batch_late_after_seconds", "Seconds that a result may wait for the tables (VQE_BATCH_LATE_SECONDS).",
            self._late,
        )  # fmt: skip
        if not self._seen:
            return
        for i, (name, doc) in enumerate(
            (("rows", "Rows of the table."), ("files", "Data files of the table."), ("bytes", "Bytes of its files."))
        ):
            family = GaugeMetricFamily(f"vqe_table_{name}", doc, labels=("table",))
            for table, size in self._sizes.items():
                family.add_metric((table,), size[i])
            yield family
        yield from self._issue_families()
        ledger = self._ledger
        objects = CounterMetricFamily("vqe_batch_objects", "Raw objects in the ledger by status.", labels=("status",))
        for status in ("loaded", "rejected"):
            objects.add_metric((status,), ledger.get(status, 0))
        yield objects
        if self._book is not None:
            with self._lock:
                pending = self._book.pending_seconds()
            yield GaugeMetricFamily(
                "vqe_batch_pending_seconds", "Seconds for which the oldest result not in the tables waits.", pending
            )
        for name, doc in (
            ("timestamp_seconds", "Unix time at which the last batch was published."),
            ("seconds", "Seconds from the last batch's begin to its ledger's commit."),
            ("records", "Records in the objects that the last batch loaded."),
            ("loaded_objects", "Objects that the last batch loaded."),
            ("rejected_objects", "Objects that the last batch rejected."),
            ("object_bytes", "Bytes of the objects of the last batch."),
        ):
            if (value := ledger.get(f"last_{name}")) is not None:
                yield GaugeMetricFamily(f"vqe_batch_last_{name}", doc, value)
        if "newest_event" in ledger:
            yield GaugeMetricFamily(
                "vqe_tables_newest_event_timestamp_seconds", "Unix time of the newest event in the tables.",
                ledger["newest_event"],
            )  # fmt: skip

    def close(self) -> None:
        """Nothing is held open."""

    def _read_ledger(self, warehouse: Any) -> None:
        import pyarrow.compute as pc

        from spark_jobs import tables as declared
        from spark_jobs.warehouse import TAG_PREFIX

        table = declared.by_name(declared.LEDGER, warehouse.tables)
        found = warehouse.load(table)
        snapshot = warehouse.published_snapshot(table)
        published = warehouse.published()
        if snapshot is None or not published or snapshot.snapshot_id == self._ledger_snapshot:
            return
        columns = ("batch_id", "status", "topic", "records", "size_bytes", "last_event_at", "processed_at")
        rows = warehouse.scan(table, columns)
        if not rows.num_rows:
            return
        ledger: dict[str, Any] = {
            status: pc.sum(pc.equal(rows["status"], status)).as_py() or 0 for status in ("loaded", "rejected")
        }
        newest = pc.max(rows["last_event_at"]).as_py()
        if newest is not None:
            ledger["newest_event"] = newest.timestamp()
        for tag in reversed(published):  # a batch that only found issues has no row
            last = rows.filter(pc.equal(rows["batch_id"], tag.removeprefix(TAG_PREFIX)))
            if last.num_rows:
                break
        if last.num_rows:
            committed = _commit_time(found, tag, snapshot)
            began = pc.min(last["processed_at"]).as_py().timestamp()
            loaded = pc.sum(pc.equal(last["status"], "loaded")).as_py() or 0
            ledger |= {
                "last_timestamp_seconds": committed, "last_seconds": max(0.0, committed - began),
                "last_records": pc.sum(last["records"]).as_py() or 0, "last_loaded_objects": loaded,
                "last_rejected_objects": last.num_rows - loaded, "last_object_bytes": pc.sum(last["size_bytes"]).as_py(),
            }  # fmt: skip
        self._ledger, self._ledger_snapshot = ledger, snapshot.snapshot_id

    def _look_for_results(self, warehouse: Any) -> None:
        """Which of the results that Kafka got are in the tables; those that were not there are asked for once a batch."""
        from spark_jobs import filters
        from spark_jobs import tables as declared

        if self._book is None:
            return
        with self._lock:
            run_ids = self._book.waiting(all_=warehouse.as_of != self._looked_in)
        stored: list[str] = []
        if run_ids and warehouse.as_of is not None:
            where = filters.ids("run_id", run_ids)
            stored = warehouse.scan(declared.VQE_RESULTS, ("run_id",), where)["run_id"].to_pylist()
        with self._lock:
            self._book.looked_for(run_ids, stored)
        self._looked_in = warehouse.as_of

    def _read_issues(self, warehouse: Any) -> None:
        from spark_jobs import tables as declared

        table = declared.by_name(declared.QUALITY_ISSUES, warehouse.tables)
        snapshot = warehouse.published_snapshot(table)
        if snapshot is None or snapshot.snapshot_id == self._issues_snapshot:
            return
        rows = warehouse.scan(table, ("issue_id", "check_name", "found_at"))
        began, present, heard = self._issues_snapshot is None, datetime.now(UTC), time.monotonic()
        issues = {}
        for row in rows.to_pylist():
            # What comes while we look is found now, whatever the clock of its batch said; what was there ages by that.
            age = max(0.0, (present - row["found_at"]).total_seconds()) if began else 0.0
            issues[row["issue_id"]] = self._issues.get(row["issue_id"], (row["check_name"], heard - age))
        self._issues = issues
        self._issues_snapshot = snapshot.snapshot_id

    def _issue_families(self) -> "Iterator[Metric]":
        from prometheus_client.core import GaugeMetricFamily

        everything = GaugeMetricFamily("vqe_quality_issues", "Rows of quality_issues by check.", labels=("check",))
        recent = GaugeMetricFamily("vqe_quality_issues_recent", "Those found in the last 24 hours.", labels=("check",))
        since = time.monotonic() - RECENT.total_seconds()
        names = sorted({*CHECKS, *(name for name, _ in self._issues.values())})
        for name in names:
            times = [at for check, at in self._issues.values() if check == name]
            everything.add_metric((name,), len(times))
            recent.add_metric((name,), sum(at >= since for at in times))
        yield from (everything, recent)


def _commit_time(found: Any, tag: str, current: Any) -> float:
    """Unix time of the commit that a tag points to."""
    ref = found.metadata.refs.get(tag)
    snapshot = found.metadata.snapshot_by_id(ref.snapshot_id) if ref is not None else current
    return float((snapshot or current).timestamp_ms) / 1e3
