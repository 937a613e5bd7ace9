"""Quality: audits that block a batch, and checks whose findings are rows of `quality_issues`.

An audit is a fact of the batch: every listed object was read or rejected, values are finite, keys are unique. A check
is a promise that can be late: records that `vqe_result` promised, a result of a run that began.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.expressions import BooleanExpression

from simulator.errors import StorageError
from simulator.events import schemas
from spark_jobs import filters
from spark_jobs import tables as declared
from spark_jobs.rows import arrow_schema, differing
from spark_jobs.tables import Table
from spark_jobs.warehouse import Warehouse

LATE = timedelta(hours=24)
"""How long after the batch that read the run's other records a record may arrive, before its absence is an issue."""

CHECKED = "vqe.checked-batch"
"""Property of the ledger: the last batch whose runs have been checked for missing records and results."""


class AuditFailed(StorageError):
    """The batch is not published, because an audit found an error in it."""


@dataclass(frozen=True)
class Issue:
    """A promise that does not hold."""

    check_name: str
    table_name: str
    row_key: Mapping[str, Any]
    detail: str
    source_path: str | None = None

    @property
    def key_json(self) -> str:
        return json.dumps(dict(self.row_key), sort_keys=True, default=str)

    @property
    def issue_id(self) -> str:
        text = "\n".join((self.check_name, self.table_name, self.key_json))
        return hashlib.sha256(text.encode()).hexdigest()


def issue_rows(issues: Iterable[Issue], batch_id: str, found_at: datetime) -> pa.Table:
    """Rows of `quality_issues`, one an issue."""
    rows = {
        i.issue_id: {
            "issue_id": i.issue_id,
            "found_at": found_at,
            "batch_id": batch_id,
            "check_name": i.check_name,
            "table_name": i.table_name,
            "row_key": i.key_json,
            "detail": i.detail,
            "source_path": i.source_path,
        }
        for i in issues
    }
    return pa.Table.from_pylist(list(rows.values()), schema=arrow_schema(declared.ISSUES))


# --- audits --------------------------------------------------------------------------------------------------------


def audit_finite(table: Table, rows: pa.Table, source_path: str) -> None:
    """Every number is finite: an event holds null where there is none.

    Raises:
        AuditFailed: names the object, the column and the row.
    """
    for column in table.columns:
        if "double" not in column.type:
            continue
        values = rows[column.name].combine_chunks()
        row = None
        while pa.types.is_list(values.type):
            parents = pc.list_parent_indices(values)
            row = parents if row is None else row.take(parents)
            values = pc.list_flatten(values)
        finite = pc.fill_null(pc.is_finite(values), True)
        if pc.all(finite).as_py() is False:
            index = pc.index(finite, False).as_py()
            at = index if row is None else row[index].as_py()
            key = ", ".join(f"{k} {rows[k][at].as_py()}" for k in table.key)
            raise AuditFailed(
                f"batch not published: {source_path}: {column.name} of {table.name} ({key}) is {values[index]}; "
                "move the object out of raw/ or mend it, then build again"
            )


def audit_unique(table: Table, keys: pa.Table) -> None:
    """No key stands twice in what a batch adds.

    Raises:
        AuditFailed: one does.
    """
    distinct = keys.group_by(list(table.key), use_threads=False).aggregate([]).num_rows
    if distinct != keys.num_rows:
        raise AuditFailed(f"batch not published: {keys.num_rows - distinct} keys of {table.name} stand twice in it")


def audit_objects(listed: int, loaded: int, rejected: int) -> None:
    """Every listed object was read or rejected.

    Raises:
        AuditFailed: some were neither.
    """
    if listed != loaded + rejected:
        raise AuditFailed(f"batch not published: {listed} objects listed, {loaded} loaded, {rejected} rejected")


# --- checks --------------------------------------------------------------------------------------------------------


def other_values(table: Table, again: pa.Table, first: pa.Table, limit: int = 1000) -> list[Issue]:
    """Rows whose key came again with other values; the first row stays."""
    issues = []
    for i, columns in differing(again, first, table.comparable())[:limit]:
        key = {k: again[k][i].as_py() for k in table.key}
        told = "; ".join(
            f"{c}: kept {_short(first[c][i].as_py())}, came {_short(again[c][i].as_py())}" for c in columns[:5]
        )
        issues.append(Issue("key_with_other_values", table.name, key, told))
    return issues


@dataclass(frozen=True)
class Due:
    """Runs whose promises are due: their objects reached the ledger a day ago, and no batch has checked them."""

    ended: frozenset[str] = frozenset()  # their results are among these objects
    seen: Mapping[str, datetime] = field(
        default_factory=dict
    )  # run_id -> a time by which an event of the run had been recorded
    spans: tuple[tuple[datetime, datetime], ...] = ()
    """Spans of event times of objects whose ledger rows name no runs: an earlier release wrote these rows."""
    up_to: str | None = None  # the last batch of these objects; None: nothing is due


def due(warehouse: Warehouse, now: datetime) -> Due:
    """What is to be checked now: the objects of whole batches, in their order, from the last one that was checked on.

    A run's events may be days old when they arrive, so the day that missing ones have begins with the batch that
    read the object. Only these batches' part of the ledger is read.
    """
    checked = warehouse.load(_ledger(warehouse)).properties.get(CHECKED)
    since = filters.EVERYTHING if checked is None else filters.at_least("batch_id", checked)
    times = warehouse.scan(_ledger(warehouse), ("batch_id", "processed_at", "last_event_at"), since)
    ready = []
    for batch_id, at in _arrivals(times, now).items():
        if at > now - LATE:
            break
        if checked is None or batch_id > checked:
            ready.append(batch_id)
    if not ready:
        return Due()
    of_ready = filters.between("batch_id", ready[0], ready[-1])
    return replace(_promises(_ledger_rows(warehouse, of_ready)), up_to=ready[-1])


def everything_due(warehouse: Warehouse, now: datetime) -> Due:
    """What `verify` checks, whether or not batches checked it before: results of any age, and runs that the ledger has known for a day."""
    rows = _ledger_rows(warehouse, filters.EVERYTHING)
    for_a_day = _promises(row for row in rows if row["processed_at"] <= now - LATE)
    return replace(_promises(rows), seen=for_a_day.seen)


def _ledger(warehouse: Warehouse) -> Table:
    return declared.by_name(declared.LEDGER, warehouse.tables)


def _ledger_rows(warehouse: Warehouse, where: BooleanExpression) -> list[dict[str, Any]]:
    columns = ("topic", "status", "first_event_at", "last_event_at", "processed_at", "run_ids")
    there = (
        warehouse.load(_ledger(warehouse)).schema().column_names
    )  # a reader of a new release may come before its first batch has added columns
    return warehouse.scan(_ledger(warehouse), [c for c in columns if c in there], where).to_pylist()


def _arrivals(ledger: pa.Table, now: datetime) -> dict[str, datetime]:
    """When each batch read its objects, in the order of their ids.

    A clock that was wrong is held against what else is known: no batch read an event before it was recorded, none came
    before the batch before it, and a time that is yet to come is taken for that of the next batch.
    """
    by_batch = ledger.group_by("batch_id").aggregate([("processed_at", "max"), ("last_event_at", "max")])
    batches = sorted(by_batch.to_pylist(), key=lambda row: str(row["batch_id"]))
    times: dict[str, datetime] = {}
    earliest = None
    for row in batches:
        told = [at for at in (row["processed_at_max"], row["last_event_at_max"], earliest) if at is not None]
        if row["processed_at_max"] <= now:
            earliest = times[row["batch_id"]] = max(at for at in told if at <= now)
    later = now
    for row in reversed(batches):
        later = times.setdefault(row["batch_id"], later)
    return {row["batch_id"]: times[row["batch_id"]] for row in batches}


def _promises(rows: Iterable[Mapping[str, Any]]) -> Due:
    ended: set[str] = set()
    seen: dict[str, datetime] = {}
    spans = []
    for row in rows:
        if row["status"] != "loaded" or row["last_event_at"] is None:
            continue
        run_ids = row.get("run_ids")
        if run_ids is None:
            if schemas.stream_of(row["topic"]) in ("vqe_result", "vqe_iteration"):
                spans.append((row["first_event_at"], row["last_event_at"]))
            continue
        if schemas.stream_of(row["topic"]) == "vqe_result":
            ended.update(run_ids)
        for run_id in run_ids:
            seen[run_id] = min(seen.get(run_id, row["last_event_at"]), row["last_event_at"])
    return Due(frozenset(ended), seen, tuple(_merged(spans)))


def _merged(spans: Iterable[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    """The same times, with spans that lie close together joined."""
    merged: list[tuple[datetime, datetime]] = []
    for first, last in sorted(spans):
        if merged and first - merged[-1][1] <= LATE:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


def late(warehouse: Warehouse, found: Due) -> list[Issue]:
    """Issues of the runs that are due: missing records, and missing results."""
    issues = late_records(warehouse, found.ended)
    issues += runs_without_result(warehouse, found.seen)
    for first, last in found.spans:
        time = filters.between("recorded_at", first, last)
        ended = warehouse.scan(declared.VQE_RESULTS, ("run_id",), time)["run_id"].to_pylist()
        issues += late_records(warehouse, set(ended))
        began = warehouse.scan(
            declared.VQE_ITERATIONS, ("run_id", "recorded_at"), filters.both(filters.equal("iteration", 0), time)
        )
        issues += runs_without_result(warehouse, {row["run_id"]: row["recorded_at"] for row in began.to_pylist()})
    return issues


def late_records(warehouse: Warehouse, run_ids: Collection[str]) -> list[Issue]:
    """An issue for each of these runs and tables where the number of rows is not what the run's result promised."""
    if not run_ids:
        return []
    columns = ("run_id", "hamiltonian_id", "promised_iterations", "promised_system_metrics",
               "promised_hamiltonian_terms")  # fmt: skip
    of_runs = filters.ids("run_id", run_ids)
    results = [r for r in warehouse.scan(declared.VQE_RESULTS, columns, of_runs).to_pylist() if r["run_id"] in run_ids]
    iterations = _count_by(warehouse, declared.VQE_ITERATIONS, "run_id", of_runs)
    samples = _count_by(warehouse, declared.SYSTEM_METRICS, "run_id", of_runs)
    hamiltonian_ids = sorted({r["hamiltonian_id"] for r in results if r["hamiltonian_id"] is not None})
    of_operators = filters.among("hamiltonian_id", hamiltonian_ids)
    terms = _count_by(warehouse, declared.HAMILTONIANS, "hamiltonian_id", of_operators) if hamiltonian_ids else {}
    issues = []
    for row in sorted(results, key=lambda r: str(r["run_id"])):
        found = {
            "vqe_iterations": (iterations.get(row["run_id"], 0), row["promised_iterations"]),
            "system_metrics": (samples.get(row["run_id"], 0), row["promised_system_metrics"]),
            "hamiltonians": (terms.get(row["hamiltonian_id"], 0), row["promised_hamiltonian_terms"]),
        }
        for table, (there, promised) in found.items():
            if (
                promised is not None
                and there != promised
                and not (table == "hamiltonians" and row["hamiltonian_id"] is None)
            ):
                detail = f"the result promised {promised} rows, {table} has {there}"
                issues.append(Issue("missing_records", table, {"run_id": row["run_id"]}, detail))
    return issues


def runs_without_result(warehouse: Warehouse, began: Mapping[str, datetime]) -> list[Issue]:
    """An issue for each of these runs that has no row in any table of results.

    Args:
        began: run_id -> a time by which the run had begun.
    """
    if not began:
        return []
    ended: set[str] = set()
    for table in declared.result_tables(warehouse.tables):
        ended.update(warehouse.scan(table, ("run_id",), filters.ids("run_id", began))["run_id"].to_pylist())
    return [
        Issue(
            "run_without_result",
            "vqe_results",
            {"run_id": run_id},
            f"the run began by {began[run_id]:%Y-%m-%d %H:%M:%S} UTC and has no result",
        )
        for run_id in sorted(set(began) - ended)
    ]


def _count_by(warehouse: Warehouse, table: Table, column: str, where: BooleanExpression) -> dict[str, int]:
    counts: dict[str, int] = {}
    for batch in warehouse.scan_batches(table, (column,), where):
        for entry in pc.value_counts(batch.column(0)).to_pylist():
            counts[entry["values"]] = counts.get(entry["values"], 0) + entry["counts"]
    return counts


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
