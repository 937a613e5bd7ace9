"""Upkeep of the tables, and the checks of all of them at once."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.table import Table as IcebergTable

from simulator.errors import StorageError
from spark_jobs import quality
from spark_jobs.ledger import Ledger
from spark_jobs.lock import WAIT_SECONDS, lock_of
from spark_jobs.quality import Issue
from spark_jobs.query import local_path
from spark_jobs.raw import RawStore, store_of
from spark_jobs.tables import LEDGER, TABLES, Table
from spark_jobs.warehouse import MAX_TAGS, SKEW_MS, TAG_PREFIX, Location, Warehouse, delete_quietly, tags_of

ORPHAN_AGE = timedelta(hours=1)
"""So long a reader may go on with what it opened, and a batch elsewhere with what it has not committed yet."""


@dataclass(frozen=True)
class Upkeep:
    """What maintenance did."""

    merged_files: dict[str, int] = field(default_factory=dict)  # small files that were merged, by table
    orphan_files: int = 0
    orphan_bytes: int = 0
    seconds: float = 0.0


def maintain(
    data_dir: str | Path,
    *,
    tables: Sequence[Table] = TABLES,
    orphan_age: timedelta = ORPHAN_AGE,
    wait_seconds: float = WAIT_SECONDS,
) -> Upkeep:
    """Merges small files, moves the newest tag to the merged ones, and deletes files that no snapshot has. No row of
    any tag changes: where a batch died and left rows in a table, that table's tags stay where they are.

    Args:
        orphan_age: age from which a file of no snapshot is deleted; so long, too, the snapshot stays that the newest tag
            left, for those who read it.

    Raises:
        StorageError: another writer holds the warehouse too long.
    """
    started = time.perf_counter()
    location = Location.of(data_dir)
    merged: dict[str, int] = {}
    orphans, orphan_bytes = 0, 0
    with lock_of(location, wait_seconds), Warehouse(location, tables) as warehouse:
        warehouse.prepare()
        newest = warehouse.newest_batch()
        warehouse.repair(newest)
        for table in warehouse.tables:
            tag = None if newest is None else TAG_PREFIX + newest
            if tag is not None and not warehouse.is_as_tagged(table, tag):
                tag = None  # a batch that died has rows here: its tag comes with the next batch
            count = 0
            while tasks := warehouse.small_files(table, at_least=2):
                files = warehouse.write(table, warehouse.rows_in(table, tasks))
                warehouse.append(table, files, [t.file for t in tasks])
                count += len(tasks)
            if count:
                merged[table.name] = count
            if newest is not None and (count or warehouse.keeps_for_readers(table)):
                warehouse.retag(table, tag, (), orphan_age)
            deleted, size = _delete_orphans(warehouse, warehouse.load(table), orphan_age)
            orphans, orphan_bytes = orphans + deleted, orphan_bytes + size
    return Upkeep(merged, orphans, orphan_bytes, time.perf_counter() - started)


def files_in_use(found: IcebergTable) -> set[str]:
    """Locations of all files that a table's metadata or any of its snapshots names."""
    used = {found.metadata_location, *(entry.metadata_file for entry in found.metadata.metadata_log)}
    manifests = {}
    for snapshot in found.metadata.snapshots:
        used.add(snapshot.manifest_list)
        manifests.update({m.manifest_path: m for m in snapshot.manifests(found.io)})
    used |= set(manifests)
    for manifest in manifests.values():
        used |= {entry.data_file.file_path for entry in manifest.fetch_manifest_entry(found.io, discard_deleted=True)}
    return used


def _delete_orphans(warehouse: Warehouse, found: IcebergTable, age: timedelta) -> tuple[int, int]:
    root = local_path(found.location())
    if root is None or not root.is_dir():
        return 0, 0
    used = {local_path(location) for location in files_in_use(found)}
    now = time.time()
    orphans = []
    for path in (p for p in root.rglob("*") if p.is_file() and p not in used):
        written = path.stat().st_mtime
        if written <= now - age.total_seconds():
            orphans.append(path)
        elif written > now + SKEW_MS / 1e3:
            os.utime(path)  # by a clock that ran ahead: it ages from now on
    size = sum(p.stat().st_size for p in orphans)
    return delete_quietly(found.io, (f"file://{p}" for p in orphans)), size


# --- verify --------------------------------------------------------------------------------------------------------


def verify(
    data_dir: str | Path,
    *,
    store: RawStore | None = None,
    tables: Sequence[Table] = TABLES,
    now: datetime | None = None,
) -> list[Issue]:
    """Holds the tables against what they promise: counts of `vqe_result`, a result of every run, tags on every table,
    keys unique, numbers finite, files readable, every raw object in the ledger. Reads all rows; changes nothing.

    Args:
        now: runs that ended up to then must be whole; by default the present: a run under way is no issue, for it
            has no result, and one without a result is an issue a day after it began.
    """
    now = now or datetime.now(UTC)
    location = Location.of(data_dir)
    with Warehouse.read(data_dir, tables) as warehouse:
        warehouse.as_of = next(reversed(warehouse.published()), None)
        issues = _tags(warehouse)
        for table in warehouse.tables:
            issues += _rows(warehouse, table)
        if any(i.check_name == "unreadable_file" for i in issues):
            return issues
        ledger = Ledger(warehouse)
        issues += [
            Issue("object_not_in_ledger", LEDGER, {"source_path": raw.path}, "not loaded yet: run `vqe tables build`")
            for raw in ledger.missing(store or store_of(location.data_dir))
        ]
        rejected = warehouse.scan(warehouse.tables[-1], ("source_path", "status", "error"))
        issues += [
            Issue("object_rejected", LEDGER, {"source_path": row["source_path"]}, str(row["error"]), row["source_path"])
            for row in rejected.to_pylist()
            if row["status"] == "rejected"
        ]
        issues += quality.late(warehouse, quality.everything_due(warehouse, now))
    return issues


def _tags(warehouse: Warehouse) -> list[Issue]:
    """Tags that some tables have and others lack, and more tags than are kept."""
    tags = {t.name: set(tags_of(warehouse.load(t))) for t in warehouse.tables}
    published = tags[LEDGER]
    issues = []
    for name, there in tags.items():
        issues += [Issue("missing_tag", name, {"tag": t}, f"{LEDGER} has it") for t in sorted(published - there)]
        issues += [Issue("orphan_tag", name, {"tag": t}, f"{LEDGER} lacks it") for t in sorted(there - published)]
        if len(there) > MAX_TAGS:
            issues.append(Issue("too_many_tags", name, {"tags": len(there)}, f"at most {MAX_TAGS} are kept"))
    return issues


def _rows(warehouse: Warehouse, table: Table) -> list[Issue]:
    """Files that cannot be read, keys that stand twice, numbers that are not finite."""
    issues: list[Issue] = []
    doubles = [c.name for c in table.columns if c.type == "double"]
    keys: list[pa.Table] = []
    not_finite = dict.fromkeys(doubles, 0)
    try:
        for batch in warehouse.scan_batches(table, [*table.key, *doubles]):
            rows = pa.Table.from_batches([batch])
            keys.append(rows.select(list(table.key)))
            for name in doubles:
                finite = pc.fill_null(pc.is_finite(rows[name]), True)
                not_finite[name] += rows.num_rows - (pc.sum(finite).as_py() or 0)
    except (OSError, pa.ArrowException, ValueError) as e:
        return [Issue("unreadable_file", table.name, {}, f"{type(e).__name__}: {e}".splitlines()[0])]
    issues += [
        Issue("not_finite", table.name, {"column": name}, f"{count} values are NaN or infinite")
        for name, count in not_finite.items()
        if count
    ]
    if keys:
        together = pa.concat_tables(keys)
        counted = together.group_by(list(table.key)).aggregate([([], "count_all")])
        twice = counted.filter(pc.greater(counted["count_all"], 1))
        issues += [
            Issue("key_twice", table.name, {k: row[k] for k in table.key}, f"{row['count_all']} rows")
            for row in twice.slice(0, 100).to_pylist()
        ]
    return issues


@dataclass(frozen=True)
class TableSummary:
    """A table in figures, as of the newest published batch."""

    name: str
    rows: int
    files: int
    bytes: int
    tags: int
    doc: str


def summaries(data_dir: str | Path, tables: Sequence[Table] = TABLES) -> tuple[list[TableSummary], list[str]]:
    """Every table in figures, and the tags of published batches, oldest first."""
    with Warehouse.read(data_dir, tables) as warehouse:
        found = []
        for table in warehouse.tables:
            loaded = warehouse.load(table)
            snapshot = warehouse.published_snapshot(table)
            if snapshot is None or snapshot.summary is None:
                raise StorageError(f"table {table.name} has no snapshot")
            total = snapshot.summary.additional_properties
            found.append(
                TableSummary(
                    table.name,
                    int(total.get("total-records", "0")),
                    int(total.get("total-data-files", "0")),
                    int(total.get("total-files-size", "0")),
                    len(tags_of(loaded)),
                    table.doc,
                )
            )
        return found, warehouse.published()
