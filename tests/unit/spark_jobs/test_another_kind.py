"""A table of another kind of task is a declaration and a schema: a batch knows no stream by its name."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import raw_events
from built_tables import ledger, rows_of, two_runs
from raw_events import BEGIN, Run, container, object_path, put, write_runs

from simulator.events import schemas
from spark_jobs import maintenance
from spark_jobs.arrow import batch
from spark_jobs.tables import DATA_TABLES, ISSUES, Table, result_tables, streams_of
from tests.services import evolved

NOW = raw_events.BEGIN + timedelta(hours=1)


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Table, ...]]:
    """The declarations with those of another kind's tables."""
    known = evolved.released("toys")
    with monkeypatch.context() as patch:
        patch.setattr(schemas, "released", lambda: known)
        yield evolved.tables("toys")


def write_toys(data_dir: Path, number: int) -> None:
    """A run of another kind with its result and system metrics, and a task that is no run."""
    run = Run(100 + number)
    write_runs(data_dir, [run], number, streams=("vqe_system_metrics",))
    result = {"run_id": run.run_id, "energy": -1.0, "recorded_at": BEGIN}
    put(data_dir, object_path("toy_result_v1", number), container([result], evolved.TOY_RESULT))
    circuit = {"task_id": f"task-{number}", "shots": 100, "recorded_at": BEGIN}
    put(data_dir, object_path("toy_circuit_v1", number), container([circuit], evolved.TOY_CIRCUIT))


def test_a_declared_stream_is_listed_loaded_and_deduplicated_as_the_others_are(
    tmp_path: Path, tables: tuple[Table, ...]
) -> None:
    write_runs(tmp_path, two_runs())
    write_toys(tmp_path, 1)
    report = batch.build(tmp_path, tables=tables, now=NOW)
    assert (report.loaded, report.rejected) == (8, ())
    write_toys(tmp_path, 2)
    put(tmp_path, object_path("toy_circuit_v1", 9), (tmp_path / object_path("toy_circuit_v1", 1)).read_bytes())
    again = batch.build(tmp_path, tables=tables, now=NOW)
    assert (again.loaded, again.duplicates, again.issues) == (4, 1, 0)
    assert [row["task_id"] for row in rows_of(tmp_path, "toy_circuits", tables)] == ["task-1", "task-2"]
    assert len(rows_of(tmp_path, "toy_results", tables)) == 2
    assert batch.build(tmp_path, tables=tables, now=NOW).batch_id is None


def test_a_run_of_another_kind_has_its_result_in_a_table_of_its_own(tmp_path: Path, tables: tuple[Table, ...]) -> None:
    write_runs(tmp_path, two_runs())
    write_toys(tmp_path, 1)
    write_runs(tmp_path, [Run(7)], 7, streams=("vqe_iteration",))
    batch.build(tmp_path, tables=tables, now=NOW)
    batch.build(tmp_path, tables=tables, now=NOW + timedelta(days=2))
    found = [(row["check_name"], row["row_key"]) for row in rows_of(tmp_path, ISSUES.name, tables)]
    assert found == [("run_without_result", f'{{"run_id": "{Run(7).run_id}"}}')]
    assert [i.check_name for i in maintenance.verify(tmp_path, tables=tables)] == ["run_without_result"]


def test_objects_of_a_stream_that_no_table_reads_are_left_where_they_are(tmp_path: Path) -> None:
    write_runs(tmp_path, two_runs())
    put(tmp_path, object_path("toy_circuit_v1", 1), container([], evolved.TOY_CIRCUIT))
    assert batch.build(tmp_path, now=NOW).loaded == 5
    assert not any("toy" in path for path in ledger(tmp_path))


def test_streams_and_tables_of_results_follow_from_the_declarations() -> None:
    assert streams_of((*DATA_TABLES, *evolved.TOYS)) == {*schemas.STREAMS, "toy_result", "toy_circuit"}
    assert [t.name for t in result_tables((*DATA_TABLES, *evolved.TOYS))] == ["vqe_results", "toy_results"]
