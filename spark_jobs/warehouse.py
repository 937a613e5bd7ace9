"""The Iceberg warehouse: its catalog, tables, commits, tags and their upkeep, through pyiceberg.

A commit takes time in proportion to the table's metadata. What keeps the 400th commit as cheap as the tenth: at most 30 tags, snapshots
that no tag needs are expired with the tag's commit, manifests are merged from 4 on, old metadata files are deleted,
and small files are merged where a batch adds to them.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.expressions import BooleanExpression
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import ArrowScan, _dataframe_to_data_files
from pyiceberg.manifest import DataFile
from pyiceberg.table import CreateTableTransaction, FileScanTask, StagedTable, Transaction
from pyiceberg.table import Table as IcebergTable
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import SnapshotRef, SnapshotRefType
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update.snapshot import ExpireSnapshots, ManageSnapshots
from pyiceberg.transforms import MonthTransform

from simulator.errors import InputError, NoTables, StorageError
from simulator.settings import load_object_store_settings
from spark_jobs import tables as declared
from spark_jobs.faults import CONNECT_SECONDS, warehouse_faults, with_timeout
from spark_jobs.filters import EVERYTHING
from spark_jobs.location import Location, check_table
from spark_jobs.lock import Lock
from spark_jobs.rows import arrow_schema, sorted_rows, with_declared_types
from spark_jobs.tables import LEDGER, NAMESPACE, TABLES, Table

CATALOG_NAME = "vqe"
"""The catalog's name, which is part of the key of its rows: a client that uses another name sees an empty catalog."""

MAX_TAGS = 30
TAG_PREFIX = "batch_"
BATCH_ID = "vqe.batch-id"
"""Property of a snapshot: the batch that committed it."""
KEPT_PREFIX = "kept_until_"
"""Tags `kept_until_<Unix seconds>_<snapshot id>` keep a snapshot that maintenance has replaced until that time, for the
readers that have opened it."""
SKEW_MS = 30_000
"""Milliseconds by which two machines' clocks may differ: Iceberg allows a minute."""
KEPT_AT_MOST = timedelta(days=30)
"""The longest time for which maintenance keeps a replaced snapshot for its readers."""
EPOCH = date(1970, 1, 1)
SMALL_FILE_BYTES = 8 << 20
SMALL_FILES_BEFORE_MERGE = 24
MERGE_AT_MOST_BYTES = 64 << 20

PROPERTIES = {
    "format-version": "2",
    "write.parquet.compression-codec": "zstd",
    "commit.manifest-merge.enabled": "true",
    "commit.manifest.min-count-to-merge": "4",
    "write.metadata.previous-versions-max": "5",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.wap.enabled": "true",  # a Spark batch is staged and audited before it is published; others see no difference
    "commit.retry.num-retries": "10",  # three writers on Postgres lost one commit in 45 with the default four
}


def _nothing(what: str) -> None:
    pass


on_commit: Callable[[str], None] = _nothing
"""Called after each commit with what was committed. A test's place to kill the process between any two."""


def quiet_pyiceberg() -> None:
    """pyiceberg logs a warning for what is expected here, e.g. a file that was deleted before."""
    logging.getLogger("pyiceberg").setLevel(logging.ERROR)


class Warehouse:
    """The tables of a warehouse.

    Args:
        location: where the warehouse and its catalog are.
        tables: their declarations.
        lock: the warehouse's lock, which this process holds; None: the tables are only read.
    """

    def __init__(self, location: Location, tables: Sequence[Table] = TABLES, lock: Lock | None = None) -> None:
        quiet_pyiceberg()
        location.check()
        self.location = location
        self.tables = tuple(tables)
        self.lock = lock
        # sqlite3 warns of a connection that is collected unclosed: close() does it
        with warehouse_faults(location):
            self.catalog = _Catalog(
                CATALOG_NAME,
                uri=with_timeout(location.catalog_uri),
                warehouse=location.warehouse,
                schema_version="v1",
                pool_pre_ping="true",
                **_s3_properties(),
            )
        self.catalog.location = location
        self._loaded: dict[str, IcebergTable] = {}
        self._properties: dict[str, dict[str, str]] = {}  # table -> what its next append sets
        self.as_of: str | None = None
        """The tag that `scan` reads where it is given none; None: what is current, published or not."""

    def __enter__(self) -> "Warehouse":
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _where: object) -> None:
        self.catalog.close()
        if isinstance(error, Exception):
            with warehouse_faults(self.location):
                raise error

    @classmethod
    def read(cls, data_dir: str | Path, tables: Sequence[Table] = TABLES) -> "Warehouse":
        """The warehouse of a data dir, to read.

        Raises:
            NoTables: there are none.
        """
        location = Location.of(data_dir)
        if not location.exists:
            raise NoTables(
                f"{location.data_dir} has no tables: make a run in it, or build them with `vqe tables build`"
            )
        warehouse = cls(location, tables)
        try:
            with warehouse_faults(location):
                for table in warehouse.tables:
                    warehouse.load(table)
        except NoSuchTableError as e:
            warehouse.catalog.close()
            raise NoTables(f"{location.data_dir} has no tables yet: build them with `vqe tables build`") from e
        except Exception:
            warehouse.catalog.close()
            raise
        return warehouse

    @property
    def data_tables(self) -> tuple[Table, ...]:
        """The tables that events give rows, in the order in which a batch commits them."""
        return tuple(table for table in self.tables if table.sources)

    # --- tables ---

    def load(self, table: Table) -> IcebergTable:
        """A table, as of its last commit that this process knows."""
        if table.name not in self._loaded:
            try:
                self._loaded[table.name] = self.catalog.load_table(table.identifier)
            except FileNotFoundError as e:
                raise StorageError(
                    f"table {table.name}: its files are not where the catalog says ({e.filename or e}): restore them, or "
                    f"move {self.location.local} away and run `vqe tables build`, which builds the tables anew from raw/"
                ) from e
        return self._loaded[table.name]

    def prepare(self) -> None:
        """Creates tables that are missing, each with an empty snapshot (one without cannot be tagged), and adds
        columns that were declared since."""
        self.catalog.create_namespace_if_not_exists(NAMESPACE)
        for table in self.tables:
            try:
                found = self.load(table)
            except NoSuchTableError:
                self._create(table)
            else:
                self._evolve(table, found)
                self._partition_anew(table, found)
                self._put_times_in_order(table, found)

    def _create(self, table: Table) -> None:
        transaction = self.catalog.create_table_transaction(
            table.identifier,
            declared.iceberg_schema(table),
            partition_spec=declared.iceberg_partition(table),
            sort_order=declared.iceberg_sort(table),
            properties={
                **PROPERTIES,
                "comment": table.doc,
                "vqe.key": ",".join(table.key),
                "vqe.partition-reason": table.partition_reason,
                **_metrics(table),
            },
        )
        transaction.append(arrow_schema(table).empty_table())
        self.check_lock()
        transaction.commit_transaction()  # returns a staged table, which cannot be scanned: load() reads it anew
        on_commit(f"create {table.name}")

    def _evolve(self, table: Table, found: IcebergTable) -> None:
        """Adds columns that were declared after the table was made; rows that are there have null."""
        from itertools import count

        there = set(found.schema().column_names)
        missing = [c for c in table.columns if c.name not in there]
        if not missing:
            return
        self.check_lock()
        with found.update_schema() as update:
            for column in missing:
                if column.required:
                    raise InputError(
                        f"table {table.name}: {column.name} was added later and cannot be required: old rows have none"
                    )
                update.add_column(column.name, declared.iceberg_type(column.type, count(1)), doc=table.doc_of(column))
        on_commit(f"evolve {table.name}")

    def _partition_anew(self, table: Table, found: IcebergTable) -> None:
        """Has new files partitioned as declared, in a table that an earlier release made by day. Files that are there
        stay as they are, until they are merged with others of their month."""
        declared_fields = declared.iceberg_partition(table).fields
        if [f.name for f in found.spec().fields] == [f.name for f in declared_fields]:
            return
        self.check_lock()
        with found.update_spec() as update:
            for field in found.spec().fields:
                update.remove_field(field.name)
            for field in declared_fields:
                assert table.partition is not None
                update.add_field(table.partition, field.transform, field.name)
        with _Transaction(found) as transaction:
            transaction.set_properties({"vqe.partition-reason": table.partition_reason})
        on_commit(f"partition {table.name}")

    def _put_times_in_order(self, table: Table, found: IcebergTable) -> None:
        """After the clock has stepped back: Spark refuses a table whose commits are not in the order of their times,
        and a commit before the last one's time. The commit that is made here has `_Catalog` lower those times."""
        now = int(time.time() * 1e3)
        if times_in_order(found.metadata, now + SKEW_MS) is not found.metadata:
            self.set_properties(table, {"vqe.key": ",".join(table.key)})

    # --- reading ---

    def scan(
        self, table: Table, columns: Sequence[str], where: BooleanExpression = EVERYTHING, tag: str | None = None
    ) -> pa.Table:
        """Rows of a table, in memory."""
        return self._scan(table, columns, where, tag).to_arrow()

    def scan_batches(
        self, table: Table, columns: Sequence[str], where: BooleanExpression = EVERYTHING
    ) -> pa.RecordBatchReader:
        """Rows of a table, batch by batch."""
        return self._scan(table, columns, where, None).to_arrow_batch_reader()

    def _scan(self, table: Table, columns: Sequence[str], where: BooleanExpression, tag: str | None) -> Any:
        found = self.load(table)
        if tag is None and self.as_of in found.metadata.refs:
            tag = self.as_of
        return found.scan(row_filter=where, selected_fields=tuple(columns), snapshot_id=self.snapshot_of(found, tag))

    def snapshot_of(self, found: IcebergTable, tag: str | None) -> int | None:
        """The snapshot of a tag; None where it is the current one, which is read with the current schema.

        Raises:
            InputError: the table has no such tag.
        """
        if tag is None:
            return None
        if tag not in found.metadata.refs:
            found.refresh()  # loaded before the ledger, which told the tag: the ledger is tagged last
        ref = found.metadata.refs.get(tag)
        if ref is None:
            raise InputError(f"no tag {tag} (known: {', '.join(tags_of(found)[-5:]) or 'none'})")
        current = found.metadata.current_snapshot_id
        return None if ref.snapshot_id == current else ref.snapshot_id

    def published(self) -> list[str]:
        """Tags of published batches, oldest first: those of the ledger, which is tagged last."""
        return tags_of(self.load(declared.by_name(LEDGER, self.tables)))

    def published_snapshot(self, table: Table) -> Snapshot | None:
        """The snapshot that the newest published batch has of a table; the current one where there is none."""
        found = self.load(table)
        tag = next(reversed(self.published()), None)
        if tag is not None and tag not in found.metadata.refs:
            found.refresh()  # loaded before the ledger
        ref = found.metadata.refs.get(tag or "")
        return found.current_snapshot() if ref is None else found.snapshot_by_id(ref.snapshot_id)

    def published_at(self) -> dict[str, datetime]:
        """Tags of published batches, oldest first, with what the clock said at the commits that they point to."""
        found = self.load(declared.by_name(LEDGER, self.tables))
        millis = {s.snapshot_id: s.timestamp_ms for s in found.metadata.snapshots}
        refs = found.metadata.refs
        return {tag: datetime.fromtimestamp(millis[refs[tag].snapshot_id] / 1e3, UTC) for tag in self.published()}

    def newest_batch(self) -> str | None:
        """Id of the batch whose ledger was committed last, published or not; None before the first.

        Iceberg's sequence numbers tell, for a batch id and a commit's time come from a clock that can step back.
        """
        found = self.load(declared.by_name(LEDGER, self.tables))
        batches = {ref.snapshot_id: name.removeprefix(TAG_PREFIX) for name, ref in _batch_refs(found).items()}
        for snapshot in found.metadata.snapshots:
            if (batch_id := summary_of(snapshot).get(BATCH_ID)) is not None:
                batches.setdefault(snapshot.snapshot_id, batch_id)
        numbers = _sequence_numbers(found)
        return batches[max(batches, key=lambda s: numbers[s])] if batches else None

    def is_as_tagged(self, table: Table, tag: str) -> bool:
        """Whether the table's current snapshot is the one that this tag points to.

        It is not while a batch that died has left rows in the table, which no reader may see before the next batch
        publishes them.
        """
        metadata = self.load(table).metadata
        ref = metadata.refs.get(tag)
        return ref is not None and ref.snapshot_id == metadata.current_snapshot_id

    # --- writing ---

    def check_lock(self) -> None:
        """Makes sure, before a commit, that nobody else can commit meanwhile.

        Raises:
            StorageError: the lock was lost.
            RuntimeError: the warehouse was opened without the lock, to be read.
        """
        if self.lock is None:
            raise RuntimeError("a warehouse that was opened without its lock is only read: nothing can be committed")
        self.lock.check()

    def write(self, table: Table, rows: pa.Table) -> list[DataFile]:
        """Data files with these rows, sorted, which no snapshot has yet."""
        found = self.load(table)
        rows = sorted_rows(rows, table)
        return list(_dataframe_to_data_files(found.metadata, rows, found.io))

    def discard(self, table: Table, files: Iterable[DataFile]) -> None:
        """Deletes data files that were written for a batch that is not committed."""
        delete_quietly(self.load(table).io, (f.file_path for f in files))

    def append(
        self, table: Table, files: Sequence[DataFile], merged: Sequence[DataFile] = (), batch_id: str | None = None
    ) -> None:
        """Commits data files; those in `merged` leave, their rows stand in `files`."""
        properties = {} if batch_id is None else {BATCH_ID: batch_id}
        transaction = self._begin(table)
        update = transaction.update_snapshot(snapshot_properties=properties)
        with update.overwrite() if merged else update.merge_append() as snapshot:
            for file in merged:
                snapshot.delete_data_file(file)
            for file in files:
                snapshot.append_data_file(file)
        self.check_lock()
        transaction.commit_transaction()
        on_commit(f"append {table.name}")

    def append_and_merge(
        self, table: Table, files: Sequence[DataFile], batch_id: str, growing: Collection[int] = ()
    ) -> None:
        """Commits data files, and in the same commit merges the table's small files, as `small_files` chooses them."""
        try:
            merged = self.small_files(table, growing)
            rewritten = self.write(table, self.rows_in(table, merged)) if merged else []
        except BaseException:
            self.discard(table, files)  # nothing is committed yet
            raise
        self.append(table, [*files, *rewritten], [task.file for task in merged], batch_id)

    def replace_rows(self, table: Table, rows: pa.Table, where: BooleanExpression, batch_id: str) -> None:
        """Commits rows in place of those that `where` names. For the ledger only: a rejected object that now loads."""
        transaction = self._begin(table)
        transaction.overwrite(rows, overwrite_filter=where, snapshot_properties={BATCH_ID: batch_id})
        self.check_lock()
        transaction.commit_transaction()
        on_commit(f"append {table.name}")

    def set_properties(self, table: Table, properties: Mapping[str, str]) -> None:
        """Commits properties of a table: no row and no snapshot changes."""
        self.check_lock()
        with _Transaction(self.load(table)) as transaction:
            transaction.set_properties(dict(properties))
        on_commit(f"properties {table.name}")

    def set_with_next_commit(self, table: Table, properties: Mapping[str, str]) -> None:
        """Has the next append to a table set properties in the same commit."""
        self._properties.setdefault(table.name, {}).update(properties)

    def _begin(self, table: Table) -> "_Transaction":
        transaction = _Transaction(self.load(table))
        if (properties := self._properties.pop(table.name, None)) is not None:
            transaction.set_properties(properties)
        return transaction

    # --- small files ---

    def small_files(
        self, table: Table, growing: Collection[int] = (), at_least: int | None = None
    ) -> list[FileScanTask]:
        """Small files of the month that has most of them, smallest first, no more than a merge takes.

        Args:
            growing: months that a batch adds to, counted from January 1970. There, and where a table has no months, a
                merge waits for so many files that each row is rewritten seldom; a past month's few are merged at once.
            at_least: how many files a month must have instead.
        """
        found = self.load(table)
        snapshot = found.current_snapshot()
        if snapshot is None or int(summary_of(snapshot).get("total-data-files", "0")) < 2:
            return []
        months: dict[int | None, list[FileScanTask]] = {}
        for task in found.scan().plan_files():
            if task.file.file_size_in_bytes < SMALL_FILE_BYTES:
                months.setdefault(_month_of_file(found, task.file), []).append(task)
        for month in list(months):
            waits = month is None or month in growing
            if len(months[month]) < (at_least or (SMALL_FILES_BEFORE_MERGE if waits else 2)):
                del months[month]
        most = max(months.values(), key=len, default=[])
        taken: list[FileScanTask] = []
        budget = MERGE_AT_MOST_BYTES
        for task in sorted(most, key=lambda t: t.file.file_size_in_bytes):
            budget -= task.file.file_size_in_bytes
            if budget < 0:
                break
            taken.append(task)
        return taken if len(taken) > 1 else []

    def rows_in(self, table: Table, tasks: Sequence[FileScanTask]) -> pa.Table:
        """All rows of some data files, in the table's current schema."""
        found = self.load(table)
        # no residual filter may drop rows, because these files leave the table
        whole = [FileScanTask(t.file, residual=EVERYTHING) for t in tasks]
        rows = ArrowScan(found.metadata, found.io, found.schema(), EVERYTHING).to_table(whole)
        return with_declared_types(rows, table, arrow_schema(table).names)

    # --- tags and snapshots ---

    def tag(self, table: Table, tag: str, readers: timedelta = timedelta(0)) -> None:
        """Tags the current snapshot; drops the oldest of more than 30 tags and snapshots that nothing needs then.

        Args:
            readers: as `retag` has it.
        """
        age = {name: i for i, name in enumerate(self.published())}
        tags = [name for name in tags_of(self.load(table)) if name != tag]
        # The order is the ledger's: a table that got no row in a batch has the same snapshot, and so the same sequence number,
        # under two tags. Tags that the ledger has dropped are the oldest.
        tags.sort(key=lambda name: age.get(name, -1))
        self.retag(table, tag, tags[: max(0, len(tags) + 1 - MAX_TAGS)], readers)

    def retag(self, table: Table, tag: str | None, dropped: Sequence[str], readers: timedelta) -> int:
        """Tags the current snapshot and drops tags, in one commit that expires snapshots which nothing needs then.

        Args:
            readers: how long a snapshot that loses its tag is kept for its readers, under a `kept_until_` tag. A batch needs
                none: the snapshots that it leaves untagged were never published.

        Returns:
            How many snapshots were expired.
        """
        found = self.load(table)
        refs, current = found.metadata.refs, found.metadata.current_snapshot_id
        assert current is not None, f"table {table.name} has no snapshot"
        now = time.time()
        until_of = {name: int(name.split("_")[2]) for name in self.keeps_for_readers(table)}
        due = [name for name, until in until_of.items() if until <= now]
        # tags made by a clock that ran ahead: these snapshots are kept from now on as long as any other
        ahead = [name for name, until in until_of.items() if readers and until > now + KEPT_AT_MOST.total_seconds()]
        transaction = _Transaction(found)
        manage = ManageSnapshots(transaction)
        if tag is not None and (tag not in refs or refs[tag].snapshot_id != current):
            manage = manage.create_tag(current, tag)
        for name in (*dropped, *due, *ahead):
            manage = manage.remove_tag(name)
        manage.commit()
        loose = unneeded(transaction.table_metadata.snapshots, transaction.table_metadata.refs)
        kept = loose - {refs[name].snapshot_id for name in due} if readers > timedelta(0) else set()
        if kept:
            manage, until = ManageSnapshots(transaction), int(now + readers.total_seconds())
            for snapshot in sorted(kept):
                manage = manage.create_tag(snapshot, f"{KEPT_PREFIX}{until}_{snapshot}")
            manage.commit()
        expired, garbage = loose - kept, set[str]()
        if expired:
            garbage = files_of_expired(found.io, found.metadata.snapshots, expired)
            ExpireSnapshots(transaction).by_ids(sorted(expired)).commit()
        self.check_lock()
        transaction.commit_transaction()
        on_commit(f"tag {table.name}")
        # after a crash before this line, `maintain` finds and deletes these files
        delete_quietly(found.io, garbage)
        return len(expired)

    def keeps_for_readers(self, table: Table) -> list[str]:
        """Names of the tags of snapshots that only their readers need."""
        return [name for name in self.load(table).metadata.refs if name.startswith(KEPT_PREFIX)]

    def repair(self, newest_batch: str | None) -> list[str]:
        """Adds the tags that the newest batch in the ledger lacks, because it died between the ledger's commit and its last tag.

        Nobody can have committed since: every writer calls this first.
        """
        if newest_batch is None:
            return []
        tag = TAG_PREFIX + newest_batch
        lacking = [t for t in self.tables if tag not in self.load(t).metadata.refs]
        for table in lacking:
            self.tag(table, tag)
        return [t.name for t in lacking]


class _Catalog(SqlCatalog):
    """The catalog. Its commits leave the times of a table's history in order, and it opens no table whose files are
    elsewhere than in the warehouse: those are another one's, of which this is a copy."""

    location: Location

    def _convert_orm_to_iceberg(self, orm_table: Any) -> IcebergTable:
        """Every load of a table, those before a commit included, comes through here."""
        name = (orm_table.table_namespace, orm_table.table_name)
        check_table(self.location, *name, [orm_table.metadata_location or ""])  # before anything there is read
        found = super()._convert_orm_to_iceberg(orm_table)
        check_table(self.location, *name, _locations(found.metadata))
        return found

    def create_table_transaction(self, *args: Any, **kwargs: Any) -> CreateTableTransaction:
        return _Creation(self._create_staged_table(*args, **kwargs))

    def _update_and_stage_table(self, *args: Any, **kwargs: Any) -> StagedTable:
        staged = super()._update_and_stage_table(*args, **kwargs)
        staged.metadata = times_in_order(staged.metadata, staged.metadata.last_updated_ms)
        return staged


def _locations(metadata: TableMetadata) -> list[str]:
    """Where a table's metadata says that its files are. Old metadata files are among them: a commit deletes the oldest."""
    kept = ("write.data.path", "write.metadata.path", "write.object-storage.path", "write.folder-storage.path")
    return [
        f"{metadata.location}/",
        *(snapshot.manifest_list for snapshot in metadata.snapshots),
        *(entry.metadata_file for entry in metadata.metadata_log),
        *(statistics.statistics_path for statistics in metadata.statistics),
        *(f"{metadata.properties[name]}/" for name in kept if name in metadata.properties),
    ]


def times_in_order(metadata: TableMetadata, latest_ms: int) -> TableMetadata:
    """The metadata with no time in its logs after `latest_ms` or after that of a later entry; the same object where
    that is so already.

    Iceberg's Java library does not open a table where an entry is more than a minute before the one that it follows.
    The order of entries and their snapshots stay as they are.
    """
    changed: dict[str, Any] = {}
    for name in ("snapshot_log", "metadata_log"):
        entries, bound, lowered = [], latest_ms, False
        for entry in reversed(getattr(metadata, name)):
            if entry.timestamp_ms > bound:
                entry, lowered = entry.model_copy(update={"timestamp_ms": bound}), True
            bound = entry.timestamp_ms
            entries.append(entry)
        if lowered:
            changed[name] = entries[::-1]
    if metadata.last_updated_ms > latest_ms:
        changed["last_updated_ms"] = latest_ms
    return metadata.model_copy(update=changed) if changed else metadata


class _Transaction(Transaction):
    """A transaction that works out its metadata once a change.

    pyiceberg makes a deep copy of all metadata at every look at it, 15 looks a commit: at 30 tags that was two thirds
    of a commit's time.
    """

    _seen: tuple[object, object, TableMetadata] | None = None

    @property
    def table_metadata(self) -> TableMetadata:
        base, updates = self._table.metadata, self._updates
        if self._seen is None or self._seen[0] is not base or self._seen[1] is not updates:
            self._seen = (base, updates, super().table_metadata)
        return self._seen[2]


class _Creation(_Transaction, CreateTableTransaction):
    """The making of a table."""


def tags_of(found: IcebergTable) -> list[str]:
    """Names of a table's batch tags, oldest first: in the order of the commits that they point to."""
    refs, numbers = _batch_refs(found), _sequence_numbers(found)
    return sorted(refs, key=lambda name: (numbers[refs[name].snapshot_id], name))


def _batch_refs(found: IcebergTable) -> dict[str, SnapshotRef]:
    return {
        name: ref
        for name, ref in found.metadata.refs.items()
        if ref.snapshot_ref_type == SnapshotRefType.TAG and name.startswith(TAG_PREFIX)
    }


def _sequence_numbers(found: IcebergTable) -> dict[int, int]:
    """Of each snapshot: Iceberg counts a table's commits."""
    return {s.snapshot_id: s.sequence_number or 0 for s in found.metadata.snapshots}


def unneeded(snapshots: Iterable[Snapshot], refs: dict[str, Any]) -> set[int]:
    """Ids of snapshots that no tag or branch points to."""
    needed = {ref.snapshot_id for ref in refs.values()}
    return {s.snapshot_id for s in snapshots} - needed


def files_of_expired(io: FileIO, snapshots: Sequence[Snapshot], expired: set[int]) -> set[str]:
    """Files that only expired snapshots hold: manifest lists, manifests and data files.

    History is one line: a file that is in a snapshot and not in the next survivor is in no later one, and one that
    is not in the survivor before is in no earlier one. So two survivors tell, however many there are.
    """
    line = sorted(snapshots, key=lambda s: s.sequence_number or 0)
    garbage: set[str] = set()
    for i, snapshot in enumerate(line):
        if snapshot.snapshot_id not in expired:
            continue
        before = next((s for s in reversed(line[:i]) if s.snapshot_id not in expired), None)
        after = next((s for s in line[i + 1 :] if s.snapshot_id not in expired), None)
        neighbours = [s for s in (before, after) if s is not None]
        if not neighbours:
            continue
        garbage.add(snapshot.manifest_list)
        kept = {m.manifest_path: m for s in neighbours for m in s.manifests(io)}
        mine = {m.manifest_path: m for m in snapshot.manifests(io)}
        dropped = [m for path, m in mine.items() if path not in kept]
        if not dropped:
            continue
        garbage |= {m.manifest_path for m in dropped}
        files = {e.data_file.file_path for m in dropped for e in m.fetch_manifest_entry(io)}
        for path, manifest in kept.items():
            if path not in mine:
                files -= {e.data_file.file_path for e in manifest.fetch_manifest_entry(io)}
        garbage |= files
    return garbage


def month_of(day: date) -> int:
    """The month of a date or time, UTC, counted from January 1970, as Iceberg partitions by it."""
    return (day.year - EPOCH.year) * 12 + day.month - 1


def _month_of_file(found: IcebergTable, file: DataFile) -> int | None:
    """The month of a data file's partition; None where it is of none. Files of an earlier release are of a day."""
    fields = found.specs()[file.spec_id].fields
    if not fields or (value := file.partition[0]) is None:
        return None
    if isinstance(fields[0].transform, MonthTransform):
        return int(value)
    return month_of(EPOCH + timedelta(days=int(value)))


def delete_quietly(io: FileIO, paths: Iterable[str]) -> int:
    """Deletes files; one that is gone is no error."""
    deleted = 0
    for path in paths:
        with suppress(OSError):
            io.delete(path)
            deleted += 1
    return deleted


def summary_of(snapshot: Snapshot) -> dict[str, str]:
    """What a commit noted of its snapshot: totals, and properties such as the batch's id."""
    return {} if snapshot.summary is None else dict(snapshot.summary.additional_properties)


def _metrics(table: Table) -> dict[str, str]:
    """Statistics for what is filtered by; lists have none worth their bytes. 16 characters hold a UUIDv7's time."""
    lists = [c.name for c in table.columns if c.type.startswith(("list", "map"))]
    return {f"write.metadata.metrics.column.{name}": "none" for name in lists}


def _s3_properties() -> dict[str, str]:
    """The object store of an S3 warehouse, in pyiceberg's words."""
    names = {
        "endpoint_url": "s3.endpoint",
        "region": "s3.region",
        "access_key_id": "s3.access-key-id",
        "secret_access_key": "s3.secret-access-key",
    }
    return {"s3.connect-timeout": str(CONNECT_SECONDS), **load_object_store_settings().named(names)}


def data_files(found: IcebergTable, where: BooleanExpression = EVERYTHING) -> Iterator[FileScanTask]:
    """Data files of the current snapshot."""
    yield from found.scan(row_filter=where).plan_files()
