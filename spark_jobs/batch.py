"""A batch: the raw objects that the ledger does not hold, into the tables, once.

Order of commits: the eight data tables and quality_issues, the ledger, then the batch's tag on each table, that of
the ledger last: it publishes the batch. A batch that dies anywhere is finished (tags) or run again (rows that are
there already are dropped by key) by the next.

Memory: objects are read one at a time, and a table's rows are written to files once they are `FLUSH_BYTES` in Arrow;
so a batch of any size takes a few times that, and the largest object.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc
import structlog
import uuid_utils
from pyiceberg.expressions import BooleanExpression
from pyiceberg.manifest import DataFile

import simulator
from simulator.errors import StorageError
from simulator.log import get_logger
from spark_jobs import filters, quality
from spark_jobs import tables as declared
from spark_jobs.arrow import builder as builder
from spark_jobs.ledger import Ledger
from spark_jobs.lock import WAIT_SECONDS, lock_of
from spark_jobs.quality import Issue
from spark_jobs.raw import RawObject, RawStore, content_etag, store_of
from spark_jobs.tables import ISSUES, LEDGER, TABLES, Table
from spark_jobs.warehouse import TAG_PREFIX, Location, Warehouse, month_of

FLUSH_BYTES = 128 << 20
"""Arrow bytes of a table's rows that wait in memory. 160,000 iterations of 40 parameters are 64 MiB."""

_MAX_IN = 200
"""pyiceberg prunes files by an In of up to 200 values."""


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


def build(
    data_dir: str | Path,
    *,
    store: RawStore | None = None,
    tables: Sequence[Table] = TABLES,
    now: datetime | None = None,
    wait_seconds: float = WAIT_SECONDS,
) -> BatchReport:
    """Brings the tables up to date with raw/.

    Args:
        data_dir: folder with `raw/` and `warehouse/`.
        store: where raw objects lie; by default `raw/` of the data dir.
        tables: the declarations, the ledger and quality_issues among them.
        now: the time of the batch, UTC; by default the present.
        wait_seconds: how long to wait for another writer.

    Raises:
        StorageError: the warehouse cannot be written, or another writer holds it too long.
        quality.AuditFailed: a fact of the batch is wrong; nothing was committed.
    """
    return _run(data_dir, store, tables, now, wait_seconds, whole=False)


def reconcile(
    data_dir: str | Path,
    *,
    store: RawStore | None = None,
    tables: Sequence[Table] = TABLES,
    now: datetime | None = None,
    wait_seconds: float = WAIT_SECONDS,
) -> BatchReport:
    """Compares every raw object's content with the ledger: one that was missed or replaced adds the keys that are
    missing, and one that was rejected is tried again. Reads all of raw/ where listing does not tell etags (local)."""
    return _run(data_dir, store, tables, now, wait_seconds, whole=True)


def _run(
    data_dir: str | Path,
    store: RawStore | None,
    tables: Sequence[Table],
    now: datetime | None,
    wait_seconds: float,
    whole: bool,
    make: Callable[..., "_Batch"] | None = None,
) -> BatchReport:
    """A batch; `make` gives another way to read and stage its objects (Spark's), with the same protocol."""
    started = time.perf_counter()
    location = Location.of(data_dir)
    store = store or store_of(location.data_dir)
    with lock_of(location, wait_seconds), Warehouse(location, tables) as warehouse:
        warehouse.prepare()
        ledger = Ledger(warehouse)
        repaired = tuple(warehouse.repair(ledger.newest_batch))
        objects = ledger.changed(store) if whole else ledger.unknown(store)
        batch = (make or _Batch)(warehouse, store, ledger, now or datetime.now(UTC))
        if not objects and not batch.finds_issues():
            batch.note_checked()
            return BatchReport(None, repaired=repaired, seconds=time.perf_counter() - started)
        with structlog.contextvars.bound_contextvars(batch_id=batch.batch_id):
            log = get_logger()
            log.info("batch begins", objects=len(objects))
            try:
                if objects:
                    batch.read(objects)
                report = batch.commit(repaired, started)
            except BaseException as error:
                log.info("batch failed: nothing is published", reason=f"{type(error).__name__}: {error}")
                batch.discard()
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
    def __init__(self, warehouse: Warehouse, store: RawStore, ledger: Ledger, now: datetime) -> None:
        self.warehouse = warehouse
        self.store = store
        self.ledger = ledger
        self.now = now
        self.batch_id = new_batch_id(warehouse)
        self.data_tables = tuple(t for t in warehouse.tables if t.sources)
        self.pending = {t.name: builder.Pending(t) for t in self.data_tables}
        self.files: dict[str, list[DataFile]] = {t.name: [] for t in warehouse.tables}
        self.written_keys: dict[str, list[pa.Table]] = {t.name: [] for t in self.data_tables}
        self.days: dict[str, tuple[datetime, datetime]] = {}
        self.rows: dict[str, int] = {t.name: 0 for t in warehouse.tables}
        self.entries: list[dict[str, Any]] = []
        self.retried: list[str] = []
        self.issues: list[Issue] = []
        self.due = quality.due(warehouse, now)
        self.duplicates = 0

    # --- reading and writing files; nothing is committed ---

    def read(self, objects: Sequence[RawObject]) -> None:
        for index, raw in enumerate(objects):
            self._read_one(raw, index)
            for table in self.data_tables:
                if self.pending[table.name].nbytes >= FLUSH_BYTES:
                    self._flush(table)
        for table in self.data_tables:
            if self.pending[table.name].parts:
                self._flush(table)
        loaded = sum(e["status"] == "loaded" for e in self.entries)
        quality.audit_objects(len(objects), loaded, len(self.entries) - loaded)

    def _read_one(self, raw: RawObject, index: int) -> None:
        try:
            content = self.store.read(raw.path)
        except OSError as e:
            raise StorageError(f"cannot read {raw.path}: {e.strerror or e}") from e
        etag = content_etag(content)
        entry: dict[str, Any] = {
            "source_path": raw.path,
            "etag": raw.etag or etag,
            "batch_id": self.batch_id,
            "topic": raw.topic,
            "raw_partition": raw.partition,
            "size_bytes": len(content),
            "code_version": simulator.__version__,
            "processed_at": self.now,
        }
        if self.ledger.has_rejected(raw.path, entry["etag"]):
            self.retried.append(raw.path)
        try:
            events = builder.decode(content, raw.topic)
            rows = builder.project(raw, events, self.data_tables)
        except builder.CorruptObject as e:
            self.entries.append(entry | {"status": "rejected", "error": str(e)})
            return
        for name, (source, of_table) in rows.items():
            quality.audit_finite(self.pending[name].table, of_table, raw.path)
            self.pending[name].add(of_table, source, index)
        found = builder.facts(events)
        self.entries.append(
            entry
            | {
                "status": "loaded",
                "records": found.records,
                "first_event_at": found.first_event_at,
                "last_event_at": found.last_event_at,
                "run_ids": found.run_ids,
            }
        )

    def _flush(self, table: Table) -> None:
        """Writes a table's pending rows to files: those whose key is new."""
        unique = builder.first_of_each_key(self.pending[table.name].take(), table)
        self.issues += quality.other_values(table, unique.again, unique.first)
        where = _where_keys(table, unique.new)
        key = list(table.key)
        known = self.warehouse.scan(table, key, where)
        new, again = builder.without_known(unique.new, known, key)
        for keys in self.written_keys[table.name]:
            new, earlier = builder.without_known(new, keys, key)
            self.duplicates += earlier.num_rows
        self.duplicates += unique.again.num_rows + again.num_rows
        if again.num_rows:
            self._compare(table, again, where)
        if new.num_rows == 0:
            return
        keys = new.select(key).combine_chunks()
        quality.audit_unique(table, keys)
        self.written_keys[table.name].append(keys)
        span = pc.min_max(new["recorded_at"]).as_py()
        first, last = self.days.get(table.name, (span["min"], span["max"]))
        self.days[table.name] = (min(first, span["min"]), max(last, span["max"]))
        self.rows[table.name] += new.num_rows
        self.files[table.name] += self.warehouse.write(table, new)

    def _compare(self, table: Table, again: pa.Table, where: BooleanExpression) -> None:
        """Holds rows whose key the table has against the table's rows."""
        key = list(table.key)
        wanted = again.select(key)
        stored = []
        columns = [*key, *table.comparable()]
        for part in self.warehouse.scan_batches(table, columns, where):
            rows = pa.Table.from_batches([part])
            _, matching = builder.without_known(_as_declared(rows, table, columns), wanted, key)
            if matching.num_rows:
                stored.append(matching)
        first = pa.concat_tables(stored)
        order = [(name, "ascending") for name in key]
        self.issues += quality.other_values(table, again.sort_by(order), first.sort_by(order))

    def discard(self) -> None:
        """Deletes the files of a batch that failed before its commits. Those of a commit that was made are not known
        here any more: `commit` takes them out of `files` first."""
        for table in self.warehouse.tables:
            self.warehouse.discard(table, self.files[table.name])

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

    def commit(self, repaired: tuple[str, ...], started: float) -> BatchReport:
        warehouse = self.warehouse
        merge_in = self._table_to_merge()
        for table in self.data_tables:
            self._append(table, merge=table is merge_in)
        self._append_issues()
        self._append_ledger()
        tag = TAG_PREFIX + self.batch_id
        for table in warehouse.tables:  # the ledger is last
            warehouse.tag(table, tag)
        rejected = tuple((e["source_path"], e["error"]) for e in self.entries if e["status"] == "rejected")
        return BatchReport(
            batch_id=self.batch_id,
            rows=self.rows,
            loaded=len(self.entries) - len(rejected),
            rejected=rejected,
            records=sum(e.get("records", 0) for e in self.entries),
            duplicates=self.duplicates,
            issues=self.rows[ISSUES.name],
            repaired=repaired,
            seconds=time.perf_counter() - started,
        )

    def _append(self, table: Table, merge: bool = False) -> None:
        files = self.files[table.name]
        if not files:
            return
        merged = self.warehouse.small_files(table, self._months_of(table)) if merge else []
        rewritten = self.warehouse.write(table, self.warehouse.rows_in(table, merged)) if merged else []
        self.files[table.name] = []  # from here on they may be committed: nobody deletes them
        self.warehouse.append(table, [*files, *rewritten], [t.file for t in merged], self.batch_id)

    def _table_to_merge(self) -> Table | None:
        """The table whose small files this batch merges: one a batch, so that no single batch pays for all."""
        candidates = [t for t in self.data_tables if self.files[t.name]]
        counts = {t.name: len(self.warehouse.small_files(t, self._months_of(t))) for t in candidates}
        most = max(candidates, key=lambda t: counts[t.name], default=None)
        return most if most is not None and counts[most.name] else None

    def _months_of(self, table: Table) -> Collection[int]:
        """Months, counted from January 1970, from the first to the last one that this batch adds to."""
        if table.partition is None or table.name not in self.days:
            return ()
        first, last = map(month_of, self.days[table.name])
        return range(first, last + 1)

    def _append_issues(self) -> None:
        """Issues of this batch, and of what became late since the batch before it."""
        table = declared.by_name(ISSUES.name, self.warehouse.tables)
        issues = [*self.issues, *quality.late(self.warehouse, self.due)]
        if not issues:
            return
        rows = quality.issue_rows(issues, self.batch_id, self.now)
        rows, _ = builder.without_known(rows, self.warehouse.scan(table, table.key), table.key)
        if rows.num_rows:
            self.rows[table.name] = rows.num_rows
            self.warehouse.append(table, self.warehouse.write(table, rows), batch_id=self.batch_id)

    def _append_ledger(self) -> None:
        table = declared.by_name(LEDGER, self.warehouse.tables)
        if self.due.up_to is not None:
            self.warehouse.set_with_next_commit(table, {quality.CHECKED: self.due.up_to})
        rows = pa.Table.from_pylist(self.entries, schema=builder.arrow_schema(table))
        self.rows[table.name] = rows.num_rows
        if not self.entries:  # a batch of issues: its own snapshot of the ledger gives it its place in the order
            self.warehouse.append(table, (), batch_id=self.batch_id)
            return
        self.warehouse.set_with_next_commit(table, self.ledger.note_of(self.entries, self.retried))
        if self.retried:
            retried = filters.both(filters.among("source_path", self.retried), filters.equal("status", "rejected"))
            self.warehouse.replace_rows(table, rows, retried, self.batch_id)
            return
        self.files[table.name] = self.warehouse.write(table, rows)
        self._append(table, merge=True)


def _where_keys(table: Table, rows: pa.Table) -> BooleanExpression:
    """What bounds a look-up of these rows' keys: ids, or ranges of run ids, which files' statistics prune."""
    first = table.key[0]
    if table.by_run:
        return filters.ids(first, pc.unique(rows[first]).to_pylist())
    ids = pc.unique(rows[first]).to_pylist()
    return filters.among(first, ids) if len(ids) <= _MAX_IN else filters.EVERYTHING


def _as_declared(rows: pa.Table, table: Table, columns: Sequence[str]) -> pa.Table:
    """Scanned columns with the declared types: a scan gives large strings and lists."""
    wanted = builder.arrow_schema(table)
    arrays = [rows[name].cast(wanted.field(name).type) for name in columns]
    return pa.Table.from_arrays(arrays, schema=pa.schema([wanted.field(name) for name in columns]))
