"""Building the tables: every record once, whatever arrives twice, late, damaged or in two schema versions."""

import copy
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import raw_events
from built_tables import Restored, everything, ledger, rows_of, tags, two_runs
from raw_events import Run, container, object_path, put, write_runs

from simulator.errors import InputError, StorageError
from simulator.events import schemas
from spark_jobs import maintenance, quality, warehouse
from spark_jobs.arrow import batch, stager
from spark_jobs.batch import BatchReport
from spark_jobs.ledger import Ledger
from spark_jobs.lock import warehouse_lock
from spark_jobs.raw import Names, S3Store
from spark_jobs.tables import (
    DATA_TABLES,
    LEDGER,
    TABLES,
    VQE_RESULTS,
    Column,
    Constant,
    Source,
    Table,
    by_name,
    with_source,
)
from spark_jobs.tables import (
    Path as EventPath,
)
from spark_jobs.warehouse import MAX_TAGS, Warehouse

NOW = raw_events.BEGIN + timedelta(hours=1)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    write_runs(tmp_path, two_runs())
    return tmp_path


@pytest.fixture(scope="module")
def restored(tmp_path_factory: pytest.TempPathFactory) -> Restored:
    data_dir = tmp_path_factory.mktemp("restored") / "data"
    write_runs(data_dir, two_runs())
    batch.build(data_dir, now=NOW)
    return Restored(data_dir)


@pytest.fixture
def built(restored: Restored) -> Path:
    """A data dir whose first batch is built."""
    return restored.again()


def test_rows_are_those_of_the_events(data_dir: Path) -> None:
    report = batch.build(data_dir, now=NOW)
    assert (report.loaded, report.rejected, report.issues) == (5, (), 0)
    runs = two_runs()
    events = [r.events() for r in runs]
    iterations = rows_of(data_dir, "vqe_iterations")
    assert iterations == [e for of_run in events for e in of_run["vqe_iteration"]]
    assert rows_of(data_dir, "system_metrics") == [e for of_run in events for e in of_run["vqe_system_metrics"]]
    results = {r["run_id"]: r for r in rows_of(data_dir, "vqe_results")}
    for of_run in events:
        event = of_run["vqe_result"][0]
        row = results[event["run_id"]]
        for name in ("energy", "status", "error", "notes", "recorded_at", "spec_json", "evaluations", "n_terms"):
            assert row[name] == event[name], name
        assert dict(row["versions"]) == event["versions"]
        assert row["basis"] == event["spec"]["basis"]
        assert row["noise_two_qubit"] == (event["spec"]["noise"] or {}).get("two_qubit")
        assert row["promised_iterations"] == event["counts"]["iterations"]
    timings = rows_of(data_dir, "timing_metrics")
    assert (len(timings), timings[0]["stage"], timings[0]["stage_index"]) == (12, "integrals", 1)
    assert [r["label"] for r in rows_of(data_dir, "vqe_parameters")] == ["a0->v0", "a1->v1"] * 2
    assert len(rows_of(data_dir, "hamiltonians")) == 10
    molecules = {r["molecule_id"]: r for r in rows_of(data_dir, "molecules")}
    assert molecules[runs[1].molecule_id]["geometry"] == runs[1].spec["geometry"]


def test_building_twice_changes_nothing(built: Path) -> None:
    before, tagged = everything(built), tags(built)
    again = batch.build(built, now=NOW)
    assert again.batch_id is None
    assert everything(built) == before
    assert tags(built) == tagged


def test_the_ledger_tells_what_was_read(data_dir: Path) -> None:
    report = batch.build(data_dir, now=NOW)
    entries = rows_of(data_dir, LEDGER)
    assert {e["topic"] for e in entries} == {f"{s}_v1" for s in schemas.STREAMS}
    for entry in entries:
        content = (data_dir / entry["source_path"]).read_bytes()
        assert entry["etag"] == raw_events.hashlib.md5(content).hexdigest()
        assert (entry["size_bytes"], entry["batch_id"], entry["status"]) == (len(content), report.batch_id, "loaded")
    iteration = next(e for e in entries if e["topic"] == "vqe_iteration_v1")
    assert iteration["records"] == 7
    assert iteration["first_event_at"] == raw_events.BEGIN + timedelta(milliseconds=1)


def test_a_record_that_comes_again_stays_one_row(built: Path) -> None:
    before = everything(built)
    write_runs(built, two_runs(), number=1)  # delivered again, in other objects
    report = batch.build(built, now=NOW)
    assert report.duplicates == sum(len(rows) for rows in before.values())
    assert everything(built) == before


def test_a_run_whose_records_straddle_batches_is_whole(tmp_path: Path) -> None:
    run = Run(0, iterations=6)
    schema = schemas.current("vqe_iteration")
    events = run.iteration_events()
    put(tmp_path, object_path("vqe_iteration_v1", 0), container(events[3:], schema))  # late ones first
    batch.build(tmp_path, now=NOW)
    write_runs(tmp_path, [Run(0, iterations=6)], number=1, streams=["vqe_result", "vqe_run"])
    batch.build(tmp_path, now=NOW)
    put(tmp_path, object_path("vqe_iteration_v1", 2), container(events[:4], schema))  # overlaps by one
    batch.build(tmp_path, now=NOW)
    assert rows_of(tmp_path, "vqe_iterations") == events


def test_a_key_with_other_values_is_an_issue_and_the_first_row_stays(built: Path) -> None:
    before = everything(built)
    event = Run(0).iteration_events()[1] | {"energy": -2.0}
    path = object_path("vqe_iteration_v1", 5)
    put(built, path, container([event], schemas.current("vqe_iteration")))
    assert batch.build(built, now=NOW).issues == 1
    put(built, object_path("vqe_iteration_v1", 6), container([event], schemas.current("vqe_iteration")))
    assert batch.build(built, now=NOW).issues == 0  # the same finding is one row
    (issue,) = rows_of(built, "quality_issues")
    assert (issue["check_name"], issue["table_name"]) == ("key_with_other_values", "vqe_iterations")
    assert json.loads(issue["row_key"]) == {"run_id": event["run_id"], "iteration": 1}
    assert issue["detail"] == "energy: kept -1.0799999999999998, came -2.0"
    assert everything(built) | {"quality_issues": []} == before


def test_within_a_batch_the_earliest_of_a_key_is_taken(tmp_path: Path) -> None:
    schema = schemas.current("vqe_run")
    early, late = Run(0).run_event(), Run(9).run_event()  # one molecule
    late["molecule_name"] = "named later"
    put(tmp_path, object_path("vqe_run_v1", 0), container([late], schema))
    put(tmp_path, object_path("vqe_run_v1", 1), container([early], schema))
    batch.build(tmp_path, now=NOW)
    assert [m["name"] for m in rows_of(tmp_path, "molecules")] == ["h2_0"]


def test_a_damaged_file_is_named_and_the_rest_is_loaded(data_dir: Path) -> None:
    good = container(Run(7).iteration_events(), schemas.current("vqe_iteration"), codec="null")
    bad = {
        "cut": good[:-30],
        "empty": b"",
        "no avro": b"<html>",
        "flipped": good[:-16] + bytes(16),
        "of another topic": container(Run(7).system_events(), schemas.current("vqe_system_metrics")),
    }
    paths = {}
    for number, (what, content) in enumerate(bad.items(), start=20):
        paths[what] = object_path("vqe_iteration_v1", number)
        put(data_dir, paths[what], content)
    report = batch.build(data_dir, now=NOW)
    reasons = dict(report.rejected)
    assert {what: reasons[path] for what, path in paths.items()} == {
        "cut": "the file is cut: Expected 306 bytes, read 292",
        "empty": "the file is empty",
        "no avro": "not an Avro container",
        "flipped": "the file is damaged: expected sync marker not found",
        "of another topic": "the schema it was written with cannot be read as vqe_iteration 1.0",
    }
    assert report.loaded == 5
    assert len(rows_of(data_dir, "vqe_iterations")) == 7
    statuses = ledger(data_dir)
    assert all(statuses[p] == "rejected" for p in paths.values())
    assert batch.build(data_dir, now=NOW).batch_id is None  # named once, not at each build


def test_hidden_unfinished_and_foreign_files_are_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "raw" / "vqe_run_v1" / "partition=local"
    folder.mkdir(parents=True)
    for name in (".vqe_run_v1+local+a.avro", "vqe_run_v1+local+a.avro.tmp", "notes.txt", "other+local+a.avro"):
        (folder / name).write_bytes(b"x")
    put(tmp_path, "raw/vqe_other_v1/partition=0/vqe_other_v1+0+0000000000000000000.avro", b"x")
    put(tmp_path, "raw/vqe_run_v1/.vqe_run_v1+local+a.avro", b"x")
    assert batch.build(tmp_path).batch_id is None


def test_a_version_without_paths_is_rejected_with_the_reason(data_dir: Path) -> None:
    put(data_dir, object_path("vqe_result_v9", 0), container([], schemas.current("vqe_result")))
    ((_, reason),) = batch.build(data_dir, now=NOW).rejected
    assert "vqe_result_v9" in reason
    assert "vqe_result_v1" in reason


# --- schema versions ---


@contextmanager
def released(monkeypatch: pytest.MonkeyPatch, *more: dict[str, Any]) -> Iterator[None]:
    """More schema versions beside those that are released."""
    known = {topic: list(versions) for topic, versions in schemas.released().items()}
    for schema in more:
        known.setdefault(schemas.topic_of(schema), []).append(schema)
    with monkeypatch.context() as patch:
        patch.setattr(schemas, "released", lambda: known)
        yield


def test_a_field_that_v1_1_adds_arrives_in_old_tables_and_old_rows_have_null(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch.build(data_dir, now=NOW)
    v1_1 = copy.deepcopy(schemas.newest("vqe_iteration_v1"))
    v1_1["version"] = "1.1"
    v1_1["fields"].append({"name": "trust_radius", "type": ["null", "double"], "default": None, "doc": "Radius."})
    iterations = by_name("vqe_iterations")
    evolved = replace(iterations, columns=(*iterations.columns, Column("trust_radius", "double")))
    tables = tuple(evolved if t.name == evolved.name else t for t in TABLES)
    old_schema = schemas.newest("vqe_iteration_v1")
    with released(monkeypatch, v1_1):
        new = [e | {"trust_radius": 0.5} for e in Run(5).iteration_events()]
        put(data_dir, object_path("vqe_iteration_v1", 5), container(new, v1_1))
        put(data_dir, object_path("vqe_iteration_v1", 6), container(Run(6).iteration_events(), old_schema))
        report = batch.build(data_dir, tables=tables, now=NOW)
        assert report.rejected == ()
        rows = rows_of(data_dir, "vqe_iterations", tables)
    assert [r["trust_radius"] for r in rows] == [None] * 7 + [0.5] * 3 + [None] * 3
    with Warehouse.read(data_dir, tables) as found:
        field = found.load(evolved).schema().find_field("trust_radius")
    assert (field.doc, field.required) == ("Radius.", False)
    assert field.field_id > len(iterations.columns)

    from spark_jobs.query import query

    for sql, expected in (("count(trust_radius)", 3), ("count(*)", 13)):
        assert list(query(data_dir, f"select {sql} c from vqe_iterations", tables=tables).rows["c"].to_pylist()) == [
            expected
        ]
    first = sorted(tags(data_dir)["vqe_iterations"])[0]
    as_of = query(data_dir, "select * from vqe_iterations", tables=tables, as_of=first).rows
    assert as_of.num_rows == 7
    assert "trust_radius" not in as_of.column_names


def test_two_major_versions_flow_side_by_side_and_the_higher_wins(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """v2 moves the energies into a record, drops Aer's reason and counts parameters from another field."""
    v2 = copy.deepcopy(schemas.newest("vqe_result_v1"))
    v2["version"] = "2.0"
    v2["fields"] = [f for f in v2["fields"] if f["name"] not in ("energy", "hf_energy", "aer_reason")]
    energies = {
        "type": "record",
        "name": "Energies",
        "fields": [{"name": n, "type": ["null", "double"], "default": None} for n in ("final", "hartree_fock")],
    }
    v2["fields"].append({"name": "energies", "type": energies, "doc": "Energies."})
    paths = {
        "energy": EventPath("energies.final"),
        "hf_energy": EventPath("energies.hartree_fock"),
        "aer_reason": Constant(None),
    }
    tables = tuple(
        with_source(t, replace(s, major=2, paths=paths)) if (s := _result_source(t)) is not None else t for t in TABLES
    )
    with released(monkeypatch, v2):

        def as_v2(run: Run, final: float) -> dict[str, Any]:
            event = run.result_event()
            event["energies"] = {"final": final, "hartree_fock": event.pop("hf_energy")}
            return event

        put(data_dir, object_path("vqe_result_v2", 0), container([as_v2(Run(0), -9.0), as_v2(Run(8), -8.0)], v2))
        report = batch.build(data_dir, tables=tables, now=NOW)
        assert report.rejected == ()
        rows = {r["run_id"]: r for r in rows_of(data_dir, "vqe_results", tables)}
    assert {r["energy"] for r in rows.values()} == {-9.0, -8.0, None}
    assert rows[Run(0).run_id]["energy"] == -9.0  # both versions came: the higher is kept
    assert rows[Run(8).run_id]["hf_energy"] == -1.117
    assert report.issues == 3  # vqe_results, and the energy beside two references


def _result_source(table: Table) -> Source | None:
    return next((s for s in table.sources if s.stream == "vqe_result"), None)


# --- batches, tags, crashes ---


def test_every_batch_has_one_tag_on_every_table(data_dir: Path) -> None:
    first = batch.build(data_dir, now=NOW)
    write_runs(data_dir, [Run(3)], number=1, streams=["vqe_iteration"])  # most tables have nothing new
    second = batch.build(data_dir, now=NOW)
    assert tags(data_dir) == {t.name: [first.tag, second.tag] for t in TABLES}


@pytest.mark.parametrize("small_files", [4, 1000], ids=["files merged", "only manifests merged"])
def test_the_oldest_tags_go_and_what_only_they_held_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_files: int
) -> None:
    monkeypatch.setattr(warehouse, "MAX_TAGS", 3)
    monkeypatch.setattr(warehouse, "SMALL_FILES_BEFORE_MERGE", small_files)
    reports = []
    for number in range(10):
        write_runs(tmp_path, [Run(number)], number=number, streams=["vqe_iteration"])
        reports.append(batch.build(tmp_path, now=NOW))
    assert tags(tmp_path) == {t.name: [r.tag for r in reports[-3:]] for t in TABLES}
    with Warehouse.read(tmp_path) as found:
        iterations = found.load(by_name("vqe_iterations"))
        assert len(iterations.metadata.snapshots) == 3
        snapshot = iterations.current_snapshot()
        assert snapshot is not None
        assert len(snapshot.manifests(iterations.io)) <= 8
        n_files = len(list(iterations.scan().plan_files()))
        assert n_files < 8 if small_files == 4 else n_files == 10
        used = set()
        for table in TABLES:
            used |= maintenance.files_in_use(found.load(table))
    on_disk = {f"file://{p}" for p in (tmp_path / "warehouse").rglob("*") if p.suffix in (".parquet", ".avro")}
    assert {u for u in used if u.endswith((".parquet", ".avro"))} - on_disk == set()
    # a manifest that is merged in the commit that made it is left by pyiceberg; `maintain` finds it
    assert {u for u in on_disk - used if not u.endswith("-m0.avro")} == set()
    assert len(rows_of(tmp_path, "vqe_iterations")) == 10 * 3
    assert maintenance.verify(tmp_path, now=NOW) == []


def test_no_more_than_thirty_tags_are_kept() -> None:
    assert MAX_TAGS == 30


def test_a_table_as_of_a_batch_is_what_it_was(data_dir: Path) -> None:
    from spark_jobs.query import query

    first = batch.build(data_dir, now=NOW)
    write_runs(data_dir, [Run(3)], number=1)
    batch.build(data_dir, now=NOW)
    assert first.batch_id is not None
    for as_of, runs in ((None, 3), (first.tag, 2), (first.batch_id, 2), (first.batch_id[:-4], 2)):
        answer = query(data_dir, "select count(*) as n from vqe_results", as_of=as_of)
        assert answer.rows["n"].to_pylist() == [runs]


def test_a_second_build_waits_and_adds_no_row_twice(data_dir: Path) -> None:
    reports: list[BatchReport] = []

    def work() -> None:
        reports.append(batch.build(data_dir, now=NOW))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(r.batch_id is None for r in reports) == [False, True]
    assert maintenance.verify(data_dir, now=NOW) == []


def test_who_waits_too_long_is_told_who_holds_the_warehouse(data_dir: Path) -> None:
    import os

    began = time.monotonic()
    with (
        warehouse_lock(data_dir / "warehouse"),
        pytest.raises(StorageError, match=rf"in use by process {os.getpid()} on .* since 20.*gave up after 0.2 s"),
    ):
        batch.build(data_dir, wait_seconds=0.2)
    assert time.monotonic() - began < 5


def test_an_audit_that_fails_publishes_nothing_and_leaves_no_file(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch.build(data_dir, now=NOW)
    monkeypatch.setattr(stager, "FLUSH_BYTES", 1)  # files are written before the bad object is read
    before, tagged = everything(data_dir), tags(data_dir)
    files = sorted((data_dir / "warehouse").rglob("*.parquet"))
    event = Run(5).iteration_events()[0] | {"parameters": [0.1, float("nan")]}
    bad = put(data_dir, object_path("vqe_iteration_v1", 9), container([event], schemas.current("vqe_iteration")))
    write_runs(data_dir, [Run(5, molecule=7)], number=3)
    with pytest.raises(quality.AuditFailed, match=r"iteration_v1\+local.*parameters of vqe_iterations .*is nan"):
        batch.build(data_dir, now=NOW)
    assert everything(data_dir) == before
    assert tags(data_dir) == tagged
    assert sorted((data_dir / "warehouse").rglob("*.parquet")) == files
    bad.unlink()
    assert batch.build(data_dir, now=NOW).loaded == 5


def test_memory_is_bounded_by_writing_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a batch know each other's keys, and give one batch."""
    monkeypatch.setattr(stager, "FLUSH_BYTES", 1)
    for number in range(3):
        write_runs(tmp_path, two_runs(), number=number)
    report = batch.build(tmp_path, now=NOW)
    assert report.loaded == 15
    assert report.rows["vqe_iterations"] == 7
    assert len(tags(tmp_path)[LEDGER]) == 1
    assert maintenance.verify(tmp_path, now=NOW) == []


# --- reconcile, verify, maintain ---


def test_reconcile_adds_what_a_replaced_object_adds_and_doubles_nothing(built: Path) -> None:
    schema = schemas.current("vqe_iteration")
    path = next(p for p in ledger(built) if "vqe_iteration" in p)
    events = [e for run in (*two_runs(), Run(3)) for e in run.iteration_events()]
    put(built, path, container(events, schema))
    assert batch.build(built, now=NOW).batch_id is None  # a build goes by names
    report = batch.reconcile(built, now=NOW)
    assert (report.loaded, report.rows["vqe_iterations"]) == (1, 3)
    assert [e["source_path"] for e in rows_of(built, LEDGER)].count(path) == 2
    assert batch.reconcile(built, now=NOW).batch_id is None


def test_reconcile_loads_a_rejected_object_once_it_can_be_read(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = object_path("vqe_iteration_v1", 9)
    v1_1 = copy.deepcopy(schemas.newest("vqe_iteration_v1"))
    del v1_1["fields"][3]  # energy: not compatible with the release
    put(data_dir, path, container(Run(4).iteration_events(), v1_1))
    assert [p for p, _ in batch.build(data_dir, now=NOW).rejected] == [path]
    with released(monkeypatch, v1_1 | {"version": "1.1"}), monkeypatch.context() as patch:
        iterations = by_name("vqe_iterations")
        without = replace(iterations, sources=(Source("vqe_iteration", paths={"energy": Constant(0.0)}),))
        tables = tuple(without if t.name == without.name else t for t in TABLES)
        patch.setattr(batch, "TABLES", tables)
        report = batch.reconcile(data_dir, tables=tables, now=NOW)
    assert (report.loaded, report.rows["vqe_iterations"]) == (1, 3)
    entries = [e for e in rows_of(data_dir, LEDGER) if e["source_path"] == path]
    assert [e["status"] for e in entries] == ["loaded"]


def test_records_that_are_late_a_day_are_issues_and_verify_tells_at_once(tmp_path: Path) -> None:
    write_runs(tmp_path, [Run(0)], streams=["vqe_run", "vqe_result", "vqe_hamiltonian", "vqe_iteration"])
    write_runs(tmp_path, [Run(1)], number=1, streams=["vqe_run", "vqe_iteration"])  # no result
    assert batch.build(tmp_path, now=NOW).issues == 0
    missing = maintenance.verify(tmp_path, now=NOW)
    assert [(i.check_name, i.table_name) for i in missing] == [("missing_records", "system_metrics")]
    assert missing[0].detail == "the result promised 2 rows, system_metrics has 0"
    write_runs(tmp_path, [Run(50, at=NOW + timedelta(hours=30))], number=2)
    assert batch.build(tmp_path, now=NOW + timedelta(hours=31)).issues == 2
    found = {(i["check_name"], i["table_name"]) for i in rows_of(tmp_path, "quality_issues")}
    assert found == {("missing_records", "system_metrics"), ("run_without_result", "vqe_results")}
    write_runs(tmp_path, [Run(51, at=NOW + timedelta(hours=30))], number=3)
    assert batch.build(tmp_path, now=NOW + timedelta(hours=32)).issues == 0  # told once


def test_verify_names_a_missing_tag_a_new_object_and_a_broken_file(data_dir: Path) -> None:
    report = batch.build(data_dir, now=NOW)
    assert report.tag is not None
    with Warehouse.read(data_dir) as found:
        found.load(VQE_RESULTS).manage_snapshots().remove_tag(report.tag).commit()
    write_runs(data_dir, [Run(3)], number=1, streams=["vqe_run"])
    issues = {(i.check_name, i.table_name) for i in maintenance.verify(data_dir, now=NOW)}
    assert issues == {("missing_tag", "vqe_results"), ("object_not_in_ledger", LEDGER)}
    next((data_dir / "warehouse").rglob("vqe_iterations/**/*.parquet")).unlink()
    issues = {(i.check_name, i.table_name) for i in maintenance.verify(data_dir, now=NOW)}
    assert ("unreadable_file", "vqe_iterations") in issues


def test_maintenance_changes_files_and_no_row(tmp_path: Path) -> None:
    for number in range(3):  # the fourth would merge manifests
        write_runs(tmp_path, [Run(number, molecule=number)], number=number)
        batch.build(tmp_path, now=NOW)
    before, tagged = everything(tmp_path), tags(tmp_path)
    stray = tmp_path / "warehouse" / "vqe" / "vqe_results" / "data" / "stray.parquet"
    stray.write_bytes(b"left by a crash")
    done = maintenance.maintain(tmp_path, orphan_age=timedelta(seconds=-5))
    assert not stray.exists()
    assert done.orphan_files == 1
    assert done.merged_files["vqe_iterations"] == 3
    assert everything(tmp_path) == before
    assert tags(tmp_path) == tagged
    with Warehouse.read(tmp_path) as found:
        for table in DATA_TABLES:
            loaded = found.load(table)
            assert len(list(loaded.scan().plan_files())) == 1
            assert {s.snapshot_id for s in loaded.metadata.snapshots} == {
                r.snapshot_id for r in loaded.metadata.refs.values()
            }
    assert maintenance.verify(tmp_path, now=NOW) == []
    from spark_jobs.query import query

    for tag in tagged[LEDGER]:  # every batch that is kept can still be asked for
        query(tmp_path, "select count(*) from vqe_iterations", as_of=tag)


def test_who_reads_while_maintenance_merges_reads_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        write_runs(tmp_path, [Run(number)], number=number)
        batch.build(tmp_path, now=NOW)
    iterations = by_name("vqe_iterations")
    with Warehouse.read(tmp_path) as found:
        opened = found.load(iterations).scan()
        assert maintenance.maintain(tmp_path).merged_files["vqe_iterations"] == 3
        assert len(opened.to_arrow()) == 9
    write_runs(tmp_path, [Run(3)], number=3)
    batch.build(tmp_path, now=NOW)
    with Warehouse.read(tmp_path) as found:
        assert len(found.keeps_for_readers(iterations)) == 1, "a batch took it from its readers"
    assert maintenance.verify(tmp_path, now=NOW) == []
    later = time.time() + maintenance.ORPHAN_AGE.total_seconds() + 1
    monkeypatch.setattr(warehouse, "time", SimpleNamespace(time=lambda: later))
    maintenance.maintain(tmp_path, orphan_age=timedelta(0))
    with Warehouse.read(tmp_path) as found:
        used = {file for table in TABLES for file in maintenance.files_in_use(found.load(table))}
        assert not any(found.keeps_for_readers(table) for table in TABLES)
    on_disk = {f"file://{p}" for p in (tmp_path / "warehouse").rglob("*.parquet")}
    assert on_disk == {file for file in used if file.endswith(".parquet")}


def test_a_data_dir_may_have_spaces(tmp_path: Path) -> None:
    from spark_jobs.query import query

    spaced = tmp_path / "my data = größer"
    write_runs(spaced, two_runs())
    batch.build(spaced, now=NOW)
    assert query(spaced, "select count(*) as n from vqe_iterations").rows["n"].to_pylist() == [7]
    assert sorted(p.name for p in tmp_path.iterdir()) == [spaced.name]
    assert maintenance.maintain(spaced, orphan_age=timedelta(seconds=-5)).orphan_files == 0
    assert maintenance.verify(spaced, now=NOW) == []


def test_a_data_dir_that_iceberg_cannot_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="reads # in a path as parts of a URL"):
        batch.build(tmp_path / "run#1")


def test_a_moved_data_dir_is_told_what_to_do(built: Path, tmp_path_factory: Any) -> None:
    moved = tmp_path_factory.mktemp("moved") / "there"
    built.rename(moved)
    with pytest.raises(InputError, match=r"was copied or moved: .*`vqe tables relocate --data-dir "):
        batch.build(moved, now=NOW)


# --- other readers ---


def test_plain_pyiceberg_duckdb_and_polars_read_the_tables(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLARS_ICEBERG_PLANNER", "pyiceberg")  # else polars warns that a plugin would be faster
    import duckdb
    import polars as pl
    from pyiceberg.catalog.sql import SqlCatalog

    catalog = SqlCatalog("vqe", uri=f"sqlite:///{built}/warehouse/catalog.db", warehouse=f"file://{built}/warehouse")
    try:
        table = catalog.load_table("vqe.vqe_iterations")
        arrow = table.scan().to_arrow()
        assert arrow.num_rows == 7
        assert pl.scan_iceberg(table).select(pl.len()).collect().item() == 7
        with duckdb.connect() as connection:
            found = connection.execute("select max(iteration), avg(len(parameters)) from arrow").fetchall()
        assert found == [(3, 2.0)]
        assert table.schema().find_field("energy").doc == "Total energy in hartree."
        assert [f.field_id for f in table.schema().fields] == list(range(1, len(table.schema().fields) + 1))
        assert [f.name for f in table.spec().fields] == ["recorded_at_month"]
        assert table.schema().find_field("run_id").required
    finally:
        catalog.close()


def test_arrow_types_survive_the_round_trip(built: Path) -> None:
    (row, *_) = rows_of(built, "vqe_results")
    assert row["started_at"] == datetime(2026, 1, 10, 12, 0, tzinfo=UTC)
    assert isinstance(row["evaluations"], int)
    with Warehouse.read(built) as found:
        parameters = found.scan(by_name("vqe_iterations"), ["parameters"]).schema.field("parameters").type
    assert parameters.value_type == pa.float64()


def test_a_batch_s_log_lines_carry_its_id(tmp_path, capsys):
    from simulator import log

    write_runs(tmp_path, [Run(0)])
    log.configure("info", "json")
    try:
        report = batch.build(tmp_path, now=NOW)
    finally:
        log.configure()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == ["batch begins", "batch published"]
    assert {line["batch_id"] for line in lines} == {report.batch_id}


def test_a_name_that_is_given_again_is_loaded_and_not_skipped(tmp_path: Path) -> None:
    """Old raw objects were moved away, and a sink began its names anew."""
    path = object_path("vqe_result_v1", 0, partition="0")
    schema = schemas.current("vqe_result")
    stored = put(tmp_path, path, container([Run(0).result_event()], schema, "null"))
    batch.build(tmp_path, now=NOW)
    size = stored.stat().st_size
    for count, number in enumerate((2, 4), start=2):
        stored.unlink()  # moved to cheaper storage
        content = container([Run(number).result_event()], schema, "null")
        put(tmp_path, path, content)
        assert len(content) == size, "not even its size tells"
        assert any(i.check_name == "object_not_in_ledger" for i in maintenance.verify(tmp_path, now=NOW))
        assert batch.build(tmp_path, now=datetime.now(UTC)).loaded == 1
        assert len(rows_of(tmp_path, "vqe_results")) == count
        assert batch.build(tmp_path, now=datetime.now(UTC)).batch_id is None


class _Bucket:
    """A client of S3 that lists names and etags as a bucket does."""

    def __init__(self, etags: dict[str, str]) -> None:
        self.etags = etags
        self.listed = 0

    def get_paginator(self, _: str) -> "_Bucket":
        return self

    def paginate(self, Prefix: str, StartAfter: str = "", Delimiter: str = "", **_: str) -> list[dict[str, Any]]:
        names = [n for n in sorted(self.etags) if n.startswith(Prefix) and n > StartAfter]
        if Delimiter:
            folders = sorted({Prefix + n.removeprefix(Prefix).split("/")[0] + "/" for n in names})
            return [{"CommonPrefixes": [{"Prefix": f} for f in folders]}]
        self.listed += len(names)
        return [{"Contents": [{"Key": n, "Size": 1, "ETag": self.etags[n], "LastModified": NOW} for n in names]}]


def test_the_last_known_object_of_a_partition_is_listed_and_no_other_that_is_known() -> None:
    names = [object_path("vqe_result_v1", n, partition="0") for n in range(5)]
    bucket = _Bucket({n: f"etag{i}" for i, n in enumerate(names)})
    noted = replace(Names.of(names[:4]), last_etags=frozenset({"etag3"}))

    class Noted(Ledger):
        def __init__(self) -> None:
            self._names = {("vqe_result_v1", "0"): noted}

    ledger_ = Noted()
    assert [o.path for o in ledger_.unknown(S3Store("b", bucket))] == names[4:]
    assert bucket.listed == 2
    bucket.etags[names[3]] = "another"
    assert [o.path for o in ledger_.unknown(S3Store("b", bucket))] == names[3:]
