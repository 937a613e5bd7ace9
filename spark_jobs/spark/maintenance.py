"""Upkeep of the tables by Spark: what is too large for one machine's memory, else as `maintenance` does it.

Compaction sorts by the table's sort order into files of a target size. The newest tag then moves to the compacted
snapshot, whose rows are the same; the one it left stays for its readers, older tags keep their files until their batch
is older than `keep`.
"""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from spark_jobs import warehouse as commits
from spark_jobs.lock import WAIT_SECONDS, lock_of
from spark_jobs.tables import TABLES, Table
from spark_jobs.warehouse import CATALOG_NAME, TAG_PREFIX, Location, Warehouse, tags_of

ORPHAN_AGE = timedelta(hours=72)
"""The age from which a file of no snapshot is deleted. Until then a reader may still read it, or a batch may yet commit it."""

STEP_BYTES = 256 << 20
"""How much is compacted before the lock is given back: some seconds on two cores."""


@dataclass
class Upkeep:
    """What maintenance did, by table."""

    compacted_files: dict[str, int] = field(default_factory=dict)
    rewritten_manifests: dict[str, int] = field(default_factory=dict)
    expired_snapshots: dict[str, int] = field(default_factory=dict)
    dropped_tags: int = 0
    orphan_files: int = 0
    seconds: float = 0.0


def maintain(
    spark: Any,
    data_dir: str | Path,
    *,
    tables: Sequence[Table] = TABLES,
    keep: timedelta = timedelta(days=30),
    orphan_age: timedelta = ORPHAN_AGE,
    target_bytes: int = 256 << 20,
    min_files: int = 5,
    step_bytes: int = STEP_BYTES,
    wait_seconds: float = WAIT_SECONDS,
) -> Upkeep:
    """Compacts, merges manifests, expires snapshots but those of tags younger than `keep`, deletes orphan files.

    The lock is given back after each step, of about `step_bytes`, and an ingest that waits for it comes first. Readers are not disturbed: what they may
    have open stays for `orphan_age`, and the first batch or maintenance after that deletes it.

    Raises:
        StorageError: another writer holds the warehouse too long.
    """
    started = time.perf_counter()
    location = Location.of(data_dir)
    done = Upkeep()
    for name in [t.name for t in tables]:
        more = True
        while more:
            with lock_of(location, wait_seconds) as lock, Warehouse(location, tables, lock) as warehouse:
                warehouse.prepare()
                newest = warehouse.newest_batch()
                warehouse.repair(newest)
                table = next(t for t in warehouse.tables if t.name == name)
                tag = None if newest is None else TAG_PREFIX + newest
                if tag is not None and not warehouse.is_as_tagged(table, tag):
                    tag = None  # a batch that died left rows here, which only the next batch publishes
                more = _compact(spark, warehouse, table, (target_bytes, min_files, step_bytes), done)
                if not more:
                    _rewrite_manifests(spark, table, done)
                warehouse.load(table).refresh()
                _expire(warehouse, table, tag, keep, orphan_age, done)
        # A file that is younger than a day may be one of a batch that has not committed yet.
        with lock_of(location, wait_seconds) if orphan_age < timedelta(days=1) else nullcontext():
            done.orphan_files += _delete_orphans(spark, table, orphan_age)
    done.seconds = time.perf_counter() - started
    return done


def _compact(spark: Any, warehouse: Warehouse, table: Table, limits: tuple[int, int, int], done: Upkeep) -> bool:
    """A step: compacts some files of a table.

    Args:
        limits: bytes of a compacted file, how many files are worth it, and bytes of a step.

    Returns:
        Whether there may be more to compact.
    """
    target_bytes, min_files, step_bytes = limits
    sizes = [task.file.file_size_in_bytes for task in warehouse.load(table).scan().plan_files()]
    small = [size for size in sizes if size < 0.75 * target_bytes]  # as Iceberg has it
    at_once = max(min_files, step_bytes * len(small) // sum(small)) if small else min_files
    warehouse.check_lock()
    options = (
        f"map('target-file-size-bytes', '{target_bytes}', 'min-input-files', '{min_files}', "
        f"'max-files-to-rewrite', '{at_once}')"
    )
    order = ", ".join(f"{name} ASC NULLS FIRST" for name in table.sort)
    row = spark.sql(
        f"CALL {CATALOG_NAME}.system.rewrite_data_files(table => '{CATALOG_NAME}.{table.identifier}', strategy => 'sort', "
        f"sort_order => '{order}', options => {options})"
    ).collect()[0]
    compacted, written = int(row["rewritten_data_files_count"]), int(row["added_data_files_count"])
    if compacted:
        done.compacted_files[table.name] = done.compacted_files.get(table.name, 0) + compacted
    commits.on_commit(f"compact {table.name}")
    return compacted >= at_once and written < compacted


def _rewrite_manifests(spark: Any, table: Table, done: Upkeep) -> None:
    row = spark.sql(
        f"CALL {CATALOG_NAME}.system.rewrite_manifests(table => '{CATALOG_NAME}.{table.identifier}')"
    ).collect()[0]
    if row["rewritten_manifests_count"]:
        done.rewritten_manifests[table.name] = row["rewritten_manifests_count"]
    commits.on_commit(f"manifests {table.name}")


def _expire(
    warehouse: Warehouse, table: Table, moved: str | None, keep: timedelta, readers: timedelta, done: Upkeep
) -> None:
    """Moves a tag to the current snapshot, drops tags that are too old and snapshots that nothing needs."""
    wanted = set(warehouse.published()) - set(outdated_tags(warehouse, keep))  # the ledger is the last to drop a tag
    dropped = [t for t in tags_of(warehouse.load(table)) if t not in wanted]
    done.dropped_tags = max(done.dropped_tags, len(dropped))
    if expired := warehouse.retag(table, moved, dropped, readers):
        done.expired_snapshots[table.name] = done.expired_snapshots.get(table.name, 0) + expired


def outdated_tags(warehouse: Warehouse, keep: timedelta) -> list[str]:
    """Tags of published batches that are older than the newest one by more than `keep`, oldest first.

    A clock told when each was published, and may have been wrong. So tags go from the oldest on and none before an
    older one, whatever times they have; a time that is yet to come counts as that of the next batch; and age is
    counted from the newest batch, so that a clock that runs ahead today makes nothing old.
    """
    times = warehouse.published_at()
    now = datetime.now(UTC)
    known = list(times.items())
    until = now
    for i in reversed(range(len(known))):
        tag, at = known[i]
        until = at if at <= now else until
        known[i] = (tag, until)
    outdated = []
    for tag, at in known[:-1]:
        if known[-1][1] - at <= keep:
            break
        outdated.append(tag)
    return outdated


def _delete_orphans(spark: Any, table: Table, age: timedelta) -> int:
    """Deletes files under the table's folder that no snapshot or metadata names. Iceberg's procedure refuses ages
    under a day; its action, which is called here, trusts the caller, who holds the lock then: nobody writes."""
    jvm = spark._jvm
    java_table = jvm.org.apache.iceberg.spark.Spark3Util.loadIcebergTable(
        spark._jsparkSession, f"{CATALOG_NAME}.{table.identifier}"
    )
    action = jvm.org.apache.iceberg.spark.actions.SparkActions.get(spark._jsparkSession).deleteOrphanFiles(java_table)
    before = int((time.time() - age.total_seconds()) * 1000)
    result = action.olderThan(before).usePrefixListing(True).execute()
    return sum(1 for _ in result.orphanFileLocations())
