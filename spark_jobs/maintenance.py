"""Upkeep of the tables, and the checks of all of them at once."""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.table import Table as IcebergTable

from simulator.errors import StorageError
from spark_jobs import quality
from spark_jobs import tables as declared
from spark_jobs.ledger import Ledger
from spark_jobs.location import local_path
from spark_jobs.lock import WAIT_SECONDS, lock_of
from spark_jobs.quality import Issue
from spark_jobs.raw import RawStore, store_of
from spark_jobs.tables import LEDGER, TABLES, Table
from spark_jobs.warehouse import MAX_TAGS, SKEW_MS, TAG_PREFIX, Location, Warehouse, delete_quietly, tags_of

ORPHAN_AGE = timedelta(hours=1)
"""The age from which a file of no snapshot is deleted. Until then a reader may still read it, or a batch may yet commit it."""

STEP_SECONDS = 2.0
"""After holding the lock for so many seconds, maintenance begins no further merge (each is of 64 MiB at most)."""


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

    The lock is given back after each step of a few seconds, and a run that waits for it comes first.

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
    for name in [t.name for t in tables]:
        while True:
            with lock_of(location, wait_seconds) as lock, Warehouse(location, tables, lock) as warehouse:
                table = declared.by_name(name, warehouse.tables)
                warehouse.prepare()
                count = _merge(warehouse, table, orphan_age)
            if not count:
                break
            merged[name] = merged.get(name, 0) + count
        deleted, size = _delete_orphans(location, tables, name, orphan_age, wait_seconds)
        orphans, orphan_bytes = orphans + deleted, orphan_bytes + size
    return Upkeep(merged, orphans, orphan_bytes, time.perf_counter() - started)


def _merge(warehouse: Warehouse, table: Table, orphan_age: timedelta) -> int:
    """A step: merges small files of a table for `STEP_SECONDS`, and moves the newest tag.

    Returns:
        How many files were merged; 0 where there was nothing to do.
    """
    newest = warehouse.newest_batch()
    warehouse.repair(newest)
    tag = None if newest is None else TAG_PREFIX + newest
    if tag is not None and not warehouse.is_as_tagged(table, tag):
        tag = None  # a batch that died left rows here, which only the next batch publishes
    count = 0
    until = time.monotonic() + STEP_SECONDS
    while tasks := warehouse.small_files(table, at_least=2):
        files = warehouse.write(table, warehouse.rows_in(table, tasks))
        warehouse.append(table, files, [t.file for t in tasks])
        count += len(tasks)
        if time.monotonic() >= until:
            break
    if newest is not None and (count or warehouse.keeps_for_readers(table)):
        warehouse.retag(table, tag, (), orphan_age)
    return count


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


def _delete_orphans(
    location: Location, tables: Sequence[Table], name: str, age: timedelta, wait_seconds: float
) -> tuple[int, int]:
    """Deletes a table's files that no snapshot has. They are looked for without the lock, and only if there are any,
    looked at again and deleted with it."""
    with Warehouse(location, tables) as warehouse:
        table = declared.by_name(name, warehouse.tables)
        try:
            suspects = _orphans(warehouse.load(table), age)
        except FileNotFoundError:  # a batch has expired a snapshot meanwhile
            suspects = None
    if suspects == set():
        return 0, 0
    with lock_of(location, wait_seconds) as lock, Warehouse(location, tables, lock) as warehouse:
        found = warehouse.load(table)
        orphans = _orphans(found, age)
        if suspects is not None:
            orphans &= suspects
        size = sum(p.stat().st_size for p in orphans)
        return delete_quietly(found.io, (f"file://{p}" for p in orphans)), size


def _orphans(found: IcebergTable, age: timedelta) -> set[Path]:
    """Files of an age that are under a table's folder and in none of its snapshots; none where it is not a folder."""
    root = local_path(found.location())
    if root is None or not root.is_dir():
        return set()
    now = time.time()
    written = {p: _written_at(p) for p in root.rglob("*") if p.is_file()}
    used = {local_path(location) for location in files_in_use(found)}
    for path in [p for p, at in written.items() if at > now + SKEW_MS / 1e3 and p not in used]:
        with suppress(FileNotFoundError):
            os.utime(path)  # written by a clock that ran ahead: its age counts from now on
    return {p for p, at in written.items() if at <= now - age.total_seconds()} - used


def _written_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # a batch deleted it meanwhile
        return time.time()


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
        issues = tag_issues(warehouse)
        for table in warehouse.tables:
            issues += _rows(warehouse, table)
        if any(i.check_name == "unreadable_file" for i in issues):
            return issues
        ledger = Ledger(warehouse)
        issues += [
            Issue("object_not_in_ledger", LEDGER, {"source_path": raw.path}, "not loaded yet: run `vqe tables build`")
            for raw in ledger.missing(store or store_of(location.data_dir, tables))
        ]
        rejected = warehouse.scan(warehouse.tables[-1], ("source_path", "status", "error"))
        issues += [
            Issue("object_rejected", LEDGER, {"source_path": row["source_path"]}, str(row["error"]), row["source_path"])
            for row in rejected.to_pylist()
            if row["status"] == "rejected"
        ]
        issues += quality.late(warehouse, quality.everything_due(warehouse, now))
    return issues


def tag_issues(warehouse: Warehouse) -> list[Issue]:
    """Issues about tags: those that some tables have and others lack, and too many of them."""
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
