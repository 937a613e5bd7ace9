"""A batch: the raw objects that the ledger does not hold, into the tables, once.

The protocol is the same on every engine. What an engine does of it, reading objects and writing rows, is its `Stager`:
`arrow/stager.py` on one machine, `spark/stager.py` on a cluster.

Order of commits: the data tables and quality_issues, the ledger, then the batch's tag on each table, that of the
ledger last: it publishes the batch. A batch that dies anywhere is finished (tags) or run again (rows that are
there already are dropped by key) by the next.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import pyarrow as pa
import structlog
import uuid_utils

import simulator
from simulator.log import get_logger
from spark_jobs import filters, quality
from spark_jobs import tables as declared
from spark_jobs.ledger import Ledger
from spark_jobs.location import Location
from spark_jobs.lock import WAIT_SECONDS, lock_of
from spark_jobs.quality import Issue
from spark_jobs.raw import RawObject, RawStore, store_of
from spark_jobs.rows import arrow_schema, without_known
from spark_jobs.tables import ISSUES, LEDGER, TABLES, Table
from spark_jobs.warehouse import TAG_PREFIX, Warehouse


@dataclass(frozen=True)
class BatchReport:
    """What a build did."""

    batch_id: str | None  # None: no object was new and no issue was found
    rows: dict[str, int] = field(default_factory=dict)  # rows added, by table
    loaded: int = 0  # objects
    rejected: tuple[tuple[str, str], ...] = ()  # (path, reason)
    records: int = 0
    duplicates: int = 0  # rows whose key was there already
    issues: int = 0  # new rows of quality_issues
    repaired: tuple[str, ...] = ()  # tables that got the tag that an earlier batch had died without
    seconds: float = 0.0

    @property
    def tag(self) -> str | None:
        return None if self.batch_id is None else TAG_PREFIX + self.batch_id


@dataclass(frozen=True)
class ReadObject:
    """A raw object that a stager has read, and what the ledger tells of it."""

    raw: RawObject
    etag: str  # of the content that was read
    size_bytes: int
    problem: str | None = None  # why none of its rows are taken; None: they are
    records: int | None = None
    first_event_at: datetime | None = None
    last_event_at: datetime | None = None
    run_ids: list[str] | None = None  # sorted; None where its records are of no run


@dataclass(frozen=True)
class Staged:
    """What a stager found in a batch's objects, and wrote of them without committing it."""

    objects: Sequence[ReadObject] = ()  # every object that it was given, in that order
    rows: dict[str, int] = field(default_factory=dict)  # new rows, by table
    duplicates: int = 0  # rows whose key was there already
    issues: Sequence[Issue] = ()  # keys that came again with other values


class Stager(Protocol):
    """An engine's part of one batch. It works under the warehouse's lock."""

    def stage(self, objects: Sequence[RawObject]) -> Staged:
        """Reads raw objects, makes rows of their events as the tables declare them, drops the rows whose key is there
        already, writes the others where no reader sees them, and audits what it wrote.

        Raises:
            quality.AuditFailed: a fact of the batch is wrong.
            StorageError: an object cannot be read, or the rows cannot be written.
        """

    def append(self, table: Table) -> None:
        """Commits a table's staged rows, if it has any."""

    def discard(self) -> None:
        """Deletes what was staged and is not committed, after the batch has failed."""


StagerFactory = Callable[[Warehouse, RawStore, str], Stager]
"""Gives the stager of one batch, by the open warehouse, the store of the raw objects and the batch's id."""


def run_batch(
    data_dir: str | Path,
    make_stager: StagerFactory,
    *,
    store: RawStore | None = None,
    tables: Sequence[Table] = TABLES,
    now: datetime | None = None,
    wait_seconds: float = WAIT_SECONDS,
    reconcile: bool = False,
) -> BatchReport:
    """Brings the tables up to date with the raw objects.

    Args:
        data_dir: folder with `raw/` and `warehouse/`.
        make_stager: gives the engine's part of the batch.
        store: where raw objects lie; by default `raw/` of the data dir.
        tables: the declarations, the ledger and quality_issues among them.
        now: the time of the batch, UTC; by default the present.
        wait_seconds: how long to wait for another writer.
        reconcile: compare every raw object's content with the ledger, not names alone: an object that was missed or
            replaced adds the keys that are missing, and one that was rejected is tried again. Reads all of raw/ where
            listing does not tell etags (local).

    Raises:
        StorageError: the warehouse cannot be written, or another writer holds it too long.
        quality.AuditFailed: a fact of the batch is wrong; nothing was committed.
    """
    started = time.perf_counter()
    location = Location.of(data_dir)
    store = store or store_of(location.data_dir, tables)
    with lock_of(location, wait_seconds) as lock, Warehouse(location, tables, lock) as warehouse:
        warehouse.prepare()
        ledger = Ledger(warehouse)
        repaired = tuple(warehouse.repair(ledger.newest_batch))
        objects = ledger.changed(store) if reconcile else ledger.unknown(store)
        batch = _Batch(warehouse, ledger, new_batch_id(warehouse), now or datetime.now(UTC))
        if not objects and not batch.finds_issues():
            batch.note_checked()
            return BatchReport(None, repaired=repaired, seconds=time.perf_counter() - started)
        stager = make_stager(warehouse, store, batch.batch_id)
        with structlog.contextvars.bound_contextvars(batch_id=batch.batch_id):
            log = get_logger()
            log.info("batch begins", objects=len(objects))
            try:
                staged = stager.stage(objects) if objects else Staged()
                report = batch.commit(stager, staged, len(objects), repaired, started)
            except BaseException as error:
                log.info("batch failed: nothing is published", reason=f"{type(error).__name__}: {error}")
                stager.discard()
                raise
            log.info(
                "batch published",
                rows=sum(report.rows.values()),
                rejected=len(report.rejected),
                seconds=round(report.seconds, 1),
            )
            return report


def new_batch_id(warehouse: Warehouse) -> str:
    """An id above those of all batches that are known, so that ids sort as batches do.

    It is a UUIDv7 of the present; where the clock has stepped back, one a millisecond above the highest. No order is
    taken from ids: they only look right to who sorts them.
    """
    known = [tag.removeprefix(TAG_PREFIX) for tag in warehouse.published()]
    highest = max(filter(None, (*known, warehouse.newest_batch())), default="")
    fresh = str(uuid_utils.uuid7())
    if fresh > highest:
        return fresh
    millis = (UUID(highest).int >> 80) + 1
    return str(UUID(int=(millis << 80) | (UUID(fresh).int & ((1 << 80) - 1))))


class _Batch:
    """What a batch does whatever the engine: its ledger entries, issues and tags."""

    def __init__(self, warehouse: Warehouse, ledger: Ledger, batch_id: str, now: datetime) -> None:
        self.warehouse = warehouse
        self.ledger = ledger
        self.batch_id = batch_id
        self.now = now
        self.due = quality.due(warehouse, now)

    # --- promises ---

    def finds_issues(self) -> bool:
        """Whether what is due has an issue that no reader sees yet."""
        found = {issue.issue_id for issue in quality.late(self.warehouse, self.due)}
        if not found:
            return False
        table = declared.by_name(ISSUES.name, self.warehouse.tables)
        tag = next(reversed(self.warehouse.published()), None)
        shown = self.warehouse.scan(table, table.key, tag=tag)[table.key[0]].to_pylist() if tag else ()
        return not found <= set(shown)

    def note_checked(self) -> None:
        """Remembers what has been checked, where no batch comes of it."""
        if self.due.up_to is not None:
            table = declared.by_name(LEDGER, self.warehouse.tables)
            self.warehouse.set_properties(table, {quality.CHECKED: self.due.up_to})

    # --- commits ---

    def commit(
        self, stager: Stager, staged: Staged, n_listed: int, repaired: tuple[str, ...], started: float
    ) -> BatchReport:
        """Appends what was staged, then issues and ledger, then tags every table.

        Args:
            n_listed: how many objects the batch was to read.
            repaired: tables that an earlier batch had left without its tag, for the report.
            started: when the batch began, by `time.perf_counter`.
        """
        rejected = tuple((o.raw.path, o.problem) for o in staged.objects if o.problem is not None)
        quality.audit_objects(n_listed, len(staged.objects) - len(rejected), len(rejected))
        warehouse = self.warehouse
        for table in warehouse.data_tables:
            stager.append(table)
        n_issues = self._append_issues(staged.issues)
        self._append_ledger(staged.objects)
        tag = TAG_PREFIX + self.batch_id
        for table in warehouse.tables:  # the ledger is last
            warehouse.tag(table, tag)
        own_rows = {ISSUES.name: n_issues, LEDGER: len(staged.objects)}
        return BatchReport(
            batch_id=self.batch_id,
            rows={t.name: own_rows.get(t.name, staged.rows.get(t.name, 0)) for t in warehouse.tables},
            loaded=len(staged.objects) - len(rejected),
            rejected=rejected,
            records=sum(o.records or 0 for o in staged.objects if o.problem is None),
            duplicates=staged.duplicates,
            issues=n_issues,
            repaired=repaired,
            seconds=time.perf_counter() - started,
        )

    def _append_issues(self, of_batch: Sequence[Issue]) -> int:
        """Issues of this batch, and of what became late since the batch before it. Returns how many are new."""
        table = declared.by_name(ISSUES.name, self.warehouse.tables)
        issues = [*of_batch, *quality.late(self.warehouse, self.due)]
        if not issues:
            return 0
        rows = quality.issue_rows(issues, self.batch_id, self.now)
        rows, _ = without_known(rows, self.warehouse.scan(table, table.key), table.key)
        if rows.num_rows:
            self.warehouse.append(table, self.warehouse.write(table, rows), batch_id=self.batch_id)
        return int(rows.num_rows)

    def _append_ledger(self, objects: Sequence[ReadObject]) -> None:
        table = declared.by_name(LEDGER, self.warehouse.tables)
        if self.due.up_to is not None:
            self.warehouse.set_with_next_commit(table, {quality.CHECKED: self.due.up_to})
        if not objects:  # a batch of issues: its own snapshot of the ledger gives it its place in the order
            self.warehouse.append(table, (), batch_id=self.batch_id)
            return
        entries = [self._entry(found) for found in objects]
        retried = [e["source_path"] for e in entries if self.ledger.has_rejected(e["source_path"], e["etag"])]
        rows = pa.Table.from_pylist(entries, schema=arrow_schema(table))
        self.warehouse.set_with_next_commit(table, self.ledger.note_of(entries, retried))
        if retried:
            outdated = filters.both(filters.among("source_path", retried), filters.equal("status", "rejected"))
            self.warehouse.replace_rows(table, rows, outdated, self.batch_id)
            return
        self.warehouse.append_and_merge(table, self.warehouse.write(table, rows), self.batch_id)

    def _entry(self, found: ReadObject) -> dict[str, Any]:
        """An object's row of the ledger."""
        entry: dict[str, Any] = {
            "source_path": found.raw.path,
            "etag": found.raw.etag or found.etag,
            "batch_id": self.batch_id,
            "topic": found.raw.topic,
            "raw_partition": found.raw.partition,
            "size_bytes": found.size_bytes,
            "code_version": simulator.__version__,
            "processed_at": self.now,
        }
        if found.problem is not None:
            return entry | {"status": "rejected", "error": found.problem}
        return entry | {
            "status": "loaded",
            "records": found.records,
            "first_event_at": found.first_event_at,
            "last_event_at": found.last_event_at,
            "run_ids": found.run_ids,
        }
