"""Quality: audits that block a batch, and checks whose findings are rows of `quality_issues`.

An audit is a fact of the batch: every listed object was read or rejected, values are finite, keys are unique. A check
is a promise that can be late: records that `vqe_result` promised, a result of a run that began.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.expressions import BooleanExpression

from simulator.errors import StorageError
from spark_jobs import arrow_builder as builder
from spark_jobs import filters
from spark_jobs import tables as declared
from spark_jobs.tables import Table
from spark_jobs.warehouse import Warehouse

LATE = timedelta(hours=24)
"""How long records may take to arrive before their absence is an issue."""


class AuditFailed(StorageError):
    """A batch that is not published: a fact of it is wrong."""


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
    return pa.Table.from_pylist(list(rows.values()), schema=builder.arrow_schema(declared.ISSUES))


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
    for i, columns in builder.differing(again, first, table.comparable())[:limit]:
        key = {k: again[k][i].as_py() for k in table.key}
        told = "; ".join(
            f"{c}: kept {_short(first[c][i].as_py())}, came {_short(again[c][i].as_py())}" for c in columns[:5]
        )
        issues.append(Issue("key_with_other_values", table.name, key, told))
    return issues


def late_records(warehouse: Warehouse, since: datetime | None, until: datetime) -> list[Issue]:
    """Runs whose streams hold other numbers of records than their result promised.

    Args:
        since, until: runs whose result was recorded after `since` and up to `until`.
    """
    results = warehouse.scan(
        declared.VQE_RESULTS,
        ("run_id", "hamiltonian_id", "promised_iterations", "promised_system_metrics", "promised_hamiltonian_terms"),
        filters.after("recorded_at", since, until),
    )
    if results.num_rows == 0:
        return []
    run_ids = results["run_id"].combine_chunks()
    iterations = _count_by(warehouse, declared.VQE_ITERATIONS, "run_id", _range(run_ids))
    samples = _count_by(warehouse, declared.SYSTEM_METRICS, "run_id", _range(run_ids))
    hamiltonian_ids = pc.unique(results["hamiltonian_id"].drop_null())
    terms = _count_by(
        warehouse, declared.HAMILTONIANS, "hamiltonian_id", filters.among("hamiltonian_id", hamiltonian_ids.to_pylist())
    )
    issues = []
    for row in results.to_pylist():
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


def runs_without_result(warehouse: Warehouse, since: datetime | None, until: datetime) -> list[Issue]:
    """Runs whose first iteration was recorded in that time and that have no result."""
    began = warehouse.scan(
        declared.VQE_ITERATIONS,
        ("run_id", "recorded_at"),
        filters.both(filters.equal("iteration", 0), filters.after("recorded_at", since, until)),
    )
    if began.num_rows == 0:
        return []
    ended = set(
        warehouse.scan(declared.VQE_RESULTS, ("run_id",), _range(began["run_id"].combine_chunks()))[
            "run_id"
        ].to_pylist()
    )
    return [
        Issue(
            "run_without_result",
            "vqe_results",
            {"run_id": row["run_id"]},
            f"the run began by {row['recorded_at']:%Y-%m-%d %H:%M:%S} UTC and has no result",
        )
        for row in began.to_pylist()
        if row["run_id"] not in ended
    ]


def _count_by(warehouse: Warehouse, table: Table, column: str, where: BooleanExpression) -> dict[str, int]:
    counts: dict[str, int] = {}
    for batch in warehouse.scan_batches(table, (column,), where):
        for entry in pc.value_counts(batch.column(0)).to_pylist():
            counts[entry["values"]] = counts.get(entry["values"], 0) + entry["counts"]
    return counts


def _range(run_ids: pa.Array) -> BooleanExpression:
    span = pc.min_max(run_ids).as_py()
    return filters.between("run_id", span["min"], span["max"])


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
