"""The tables built by Spark on S3 and Postgres: the same rows as the embedded build, once each, whatever dies when."""

import json
import os
import threading
import time
from collections.abc import Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from raw_events import BEGIN, Run, container, object_path, put, write_runs

from simulator.events import schemas
from spark_jobs import maintenance
from spark_jobs.arrow import batch
from spark_jobs.lock import lock_of
from spark_jobs.query import query
from spark_jobs.raw import store_of
from spark_jobs.tables import DATA_TABLES, ISSUES, LEDGER, TABLES, Table, by_name
from spark_jobs.warehouse import Location, Warehouse
from tests.services import evolved
from tests.services.lake import Driver, JobFailed, Lake, Place

pytest_plugins = ["tests.services.lake_fixtures"]
pytestmark = pytest.mark.timeout(600)
NOW = datetime(2026, 1, 10, 13, 0, tzinfo=UTC)
LATER = NOW + timedelta(days=2)
STREAMS = tuple(schemas.STREAMS)
EVENTS_BEFORE_RESULT = tuple(s for s in STREAMS if s != "vqe_result")


def first_delivery(data_dir: Path) -> None:
    """Several molecules, failed and interrupted runs, two major versions of a topic, damaged objects."""
    runs = [Run(i, molecule=i % 3) for i in range(4)]
    runs += [Run(4, status="failed", molecule=1, iterations=1), Run(5, status="interrupted", molecule=2)]
    write_runs(data_dir, runs, 0)
    write_runs(data_dir, [Run(6, molecule=3, iterations=5)], 1, streams=EVENTS_BEFORE_RESULT)
    v2 = evolved.result_v2()
    events = [evolved.as_v2(Run(0).result_event(), -9.0), evolved.as_v2(Run(8).result_event(), None)]
    put(data_dir, object_path("vqe_result_v2", 0), container(events, v2))
    whole = container(Run(9, iterations=4000).iteration_events(), schemas.current("vqe_iteration"))
    put(data_dir, object_path("vqe_iteration_v1", 20), whole[: len(whole) * 2 // 3])
    put(data_dir, object_path("vqe_iteration_v1", 21), whole[:-7])
    put(data_dir, object_path("vqe_iteration_v1", 22), b"not Avro at all")
    put(data_dir, object_path("vqe_run_v9", 0), whole)


def second_delivery(data_dir: Path) -> None:
    """The first again under other names, some of it with other values, and what was late."""
    write_runs(data_dir, [Run(i, molecule=i % 3) for i in range(3)], 30)
    write_runs(data_dir, [Run(1, molecule=1, overrides={"energy": -1.0})], 31, streams=("vqe_result",))
    write_runs(data_dir, [Run(6, molecule=3, iterations=7)], 32)
    write_runs(data_dir, [Run(7, molecule=4, at=BEGIN + timedelta(days=1))], 33)


@contextmanager
def release(monkeypatch: pytest.MonkeyPatch, version: str):
    known = evolved.released(version)
    with monkeypatch.context() as patch:
        patch.setattr(schemas, "released", lambda: known)
        yield evolved.tables(version)


@contextmanager
def embedded(monkeypatch: pytest.MonkeyPatch):
    """Without the environment that names the warehouse on S3: the data dir's own."""
    with monkeypatch.context() as patch:
        for name in ("VQE_CATALOG_URI", "VQE_WAREHOUSE", "AWS_ENDPOINT_URL"):
            patch.delenv(name)
        yield


def rows(table: Table, tables: Sequence[Table], data_dir: Path = Path("."), tag: str | None = None) -> pa.Table:
    """All rows by key, of the warehouse that the environment names."""
    with Warehouse(Location.of(data_dir), tables) as warehouse:
        found = warehouse.scan(table, [c.name for c in table.columns], tag=tag)
    return found.sort_by([(k, "ascending") for k in table.key]).combine_chunks()


def hold_equal(monkeypatch: pytest.MonkeyPatch, data_dir: Path, tables: Sequence[Table]) -> None:
    """Tables on S3 against the data dir's."""
    for table in tables:
        mine = rows(table, tables)
        with embedded(monkeypatch):
            theirs = rows(table, tables, data_dir)
        drop = {LEDGER: ["batch_id", "error"], ISSUES.name: ["batch_id"]}.get(table.name, [])
        mine, theirs = mine.drop_columns(drop), theirs.drop_columns(drop)
        assert mine.schema.types == theirs.schema.types, table.name
        assert mine.schema.names == theirs.schema.names
        assert mine.num_rows == theirs.num_rows, table.name
        for name in mine.column_names:
            assert values(mine, name) == values(theirs, name), f"{table.name}.{name}"


def values(found: pa.Table, name: str) -> list[Any]:
    """A column's values; maps without their order."""
    plain = found[name].to_pylist()
    return [None if v is None else dict(v) for v in plain] if pa.types.is_map(found[name].type) else plain


def test_spark_and_the_embedded_build_give_equal_rows(
    driver: Driver, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for deliver, now in ((first_delivery, NOW), (second_delivery, LATER)):
        deliver(tmp_path)
        place.put_folder(tmp_path)
        with release(monkeypatch, "v2") as tables:
            report = driver.run(place, "build", now=now.isoformat(), release="v2")
            with embedded(monkeypatch):
                theirs = batch.build(tmp_path, now=now, tables=tables)
            assert report["rows"] == theirs.rows
            assert report["records"] == theirs.records
            assert report["duplicates"] == theirs.duplicates
            assert sorted(path for path, _ in report["rejected"]) == sorted(path for path, _ in theirs.rejected)
            assert len(theirs.rejected) == (4 if now == NOW else 0)
            hold_equal(monkeypatch, tmp_path, tables)
    assert set(rows(ISSUES, TABLES)["check_name"].to_pylist()) >= {"key_with_other_values", "missing_records"}
    assert len(rows(by_name("vqe_results"), TABLES)) == 9


def test_tables_of_another_kind_of_task_are_built_as_they_are_declared(
    driver: Driver, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_runs(tmp_path, [Run(1)], 0)
    with release(monkeypatch, "toys") as tables:
        for number in (1, 2):  # the second time, the first task again
            circuits = [{"task_id": f"task-{n}", "shots": n, "recorded_at": BEGIN} for n in range(1, number + 1)]
            put(tmp_path, object_path("toy_circuit_v1", number), container(circuits, evolved.TOY_CIRCUIT))
            result = {"run_id": Run(20 + number).run_id, "energy": -1.0, "recorded_at": BEGIN}
            put(tmp_path, object_path("toy_result_v1", number), container([result], evolved.TOY_RESULT))
            place.put_folder(tmp_path)
            report = driver.run(place, "build", now=NOW.isoformat(), release="toys")
            with embedded(monkeypatch):
                theirs = batch.build(tmp_path, now=NOW, tables=tables)
            assert (report["rows"], report["duplicates"]) == (theirs.rows, theirs.duplicates)
            assert report["rows"]["toy_circuits"] == report["rows"]["toy_results"] == 1
        hold_equal(monkeypatch, tmp_path, tables)


def test_an_object_that_only_decoding_finds_damaged_is_rejected_and_the_rest_loaded(
    driver: Driver, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_runs(tmp_path, [Run(1)], 0)
    good = container(Run(2).iteration_events(), schemas.current("vqe_iteration"), codec="null")
    at = good.index(Run(2).run_id.encode()) - 1  # the length before the first run_id
    put(tmp_path, object_path("vqe_iteration_v1", 9), good[:at] + b"\xff" + good[at + 1 :])
    place.put_folder(tmp_path)
    report = driver.run(place, "build", now=NOW.isoformat())
    with embedded(monkeypatch):
        theirs = batch.build(tmp_path, now=NOW)
    assert [tuple(r) for r in report["rejected"]] == list(theirs.rejected)
    assert len(report["rejected"]) == 1
    hold_equal(monkeypatch, tmp_path, TABLES)


def test_two_batches_at_once_one_waits_and_no_row_is_there_twice(
    driver: Driver, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_runs(tmp_path, [Run(1)], 0)
    place.put_folder(tmp_path)
    first = driver.start(place, "build", now=NOW.isoformat(), pause_after=["stage vqe_iterations", 4])
    for line in first.stdout:
        if line.startswith("paused"):
            break
    write_runs(tmp_path, [Run(1), Run(2)], 1)  # the first batch has listed already
    place.put_folder(tmp_path)
    second = driver.start(place, "build", now=NOW.isoformat())
    with pytest.raises(Exception, match=r"in use by vqe .* since") as held, Warehouse(Location.of(".")):
        batch.build(".", store=store_of(f"s3://{place.bucket}"), wait_seconds=0.2)
    assert "gave up after 0.2 s" in str(held.value)
    answers = [json.loads(p.communicate(timeout=300)[0].splitlines()[-1])["answer"] for p in (first, second)]
    assert [a["loaded"] for a in answers] == [5, 5]
    assert answers[1]["began"] < answers[0]["ended"] < answers[1]["ended"]
    with embedded(monkeypatch):
        batch.build(tmp_path, now=NOW)
    hold_equal(monkeypatch, tmp_path, TABLES)


COMMITS = [
    *(f"stage {t.name}" for t in DATA_TABLES),
    *(f"append {t.name}" for t in DATA_TABLES),
    f"append {LEDGER}",
    *(f"tag {t.name}" for t in TABLES),
]
"""A batch's commits, in order."""

TELLING = [
    "stage system_metrics",  # all is staged, nothing is published
    "append molecules",  # one table has rows that the ledger does not know, the others have none
    f"append {LEDGER}",  # ledgered, no tag
    "tag quality_issues",  # only the ledger's tag is missing
]
ROUNDS = 7
"""Kills that one Spark driver's memory bears: what a killed process held in it is never given back."""

KILLS = COMMITS[:-1] if os.environ.get("VQE_ALL_KILLS") == "1" else TELLING


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kills", [KILLS[i : i + ROUNDS] for i in range(0, len(KILLS), ROUNDS)], ids=lambda k: k[0])
def test_a_driver_killed_between_any_two_commits_costs_no_row_and_no_tag(
    kills: list[str], lake: Lake, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each round adds a run, dies after a commit (`make soak`: after each one), and builds again."""
    driver = lake.driver()

    def deliver(*numbers: int) -> None:
        runs = [Run(n, molecule=n) for n in numbers]
        write_runs(tmp_path, runs, numbers[-1])
        place.put_folder(tmp_path)
        with embedded(monkeypatch):
            batch.build(tmp_path, now=NOW)

    deliver(0)
    made = driver.run(place, "build", now=NOW.isoformat())["commits"]
    assert made == [*(f"create {t.name}" for t in TABLES), *COMMITS]
    for n, kill in enumerate(kills, start=1):
        deliver(n - 1, n)  # the one before comes again
        out, err = driver.start(place, "build", now=NOW.isoformat(), die_after=kill).communicate(timeout=300)
        assert f"died after {kill}" in out, f"{kill}\n{out}\n{err[-3000:]}"
        with Warehouse.read(".") as warehouse:
            assert len(warehouse.published()) == n, f"{kill}: its tag on the ledger publishes a batch"
        again = driver.run(place, "build", now=NOW.isoformat())
        ledgered = COMMITS.index(kill) >= COMMITS.index(f"append {LEDGER}")
        assert (again["batch_id"] is None) == ledgered, kill
        tags = COMMITS[COMMITS.index(f"append {LEDGER}") + 1 :]
        lacking = [t.removeprefix("tag ") for t in tags if COMMITS.index(t) > COMMITS.index(kill)] if ledgered else []
        assert again["repaired"] == lacking, kill
        with Warehouse.read(".") as warehouse:
            assert maintenance.tag_issues(warehouse) == [], kill
            assert len(warehouse.published()) == n + 1, kill
            for table in warehouse.tables:  # what was staged in vain is gone
                metadata = warehouse.load(table).metadata
                assert {s.snapshot_id for s in metadata.snapshots} == {r.snapshot_id for r in metadata.refs.values()}
        hold_equal(monkeypatch, tmp_path, TABLES)
    assert maintenance.verify(".", store=store_of(f"s3://{place.bucket}"), now=NOW) == []
    driver.stop()


def test_a_batch_that_fails_its_audit_is_not_published_and_the_mended_one_is(
    driver: Driver, place: Place, tmp_path: Path
) -> None:
    write_runs(tmp_path, [Run(1)], 0)
    place.put_folder(tmp_path)
    driver.run(place, "build", now=NOW.isoformat())
    before = {t.name: rows(t, TABLES) for t in TABLES}
    events = Run(2).iteration_events()
    path = object_path("vqe_iteration_v1", 7)
    write_runs(tmp_path, [Run(2)], 6, streams=EVENTS_BEFORE_RESULT)
    place.put_folder(tmp_path)
    broken = [e | {"parameters": [float("nan"), 0.0]} for e in events]
    place.put(path, container(broken, schemas.current("vqe_iteration")))
    with pytest.raises(JobFailed, match=f"batch not published: {path.replace('+', '.')}.*parameters of vqe_iterations"):
        driver.run(place, "build", now=NOW.isoformat())
    for table in TABLES:
        assert rows(table, TABLES).equals(before[table.name]), table.name
    place.put(path, container(events, schemas.current("vqe_iteration")))
    report = driver.run(place, "build", now=NOW.isoformat())
    assert report["rows"]["vqe_iterations"] == 3
    with Warehouse.read(".") as warehouse:  # what was staged in vain is gone
        for table in warehouse.tables:
            metadata = warehouse.load(table).metadata
            assert {s.snapshot_id for s in metadata.snapshots} == {r.snapshot_id for r in metadata.refs.values()}


def test_a_column_that_v1_1_adds_arrives_and_old_rows_and_batches_are_as_they_were(
    driver: Driver, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_runs(tmp_path, [Run(1)], 0)
    place.put_folder(tmp_path)
    first = driver.run(place, "build", now=NOW.isoformat())
    with release(monkeypatch, "v1.1") as tables:
        v1_0 = schemas.released()["vqe_iteration_v1"][0]  # a producer that is not updated yet, in the same batch
        place.put(object_path("vqe_iteration_v1", 4), container(Run(4).iteration_events(), v1_0))
        new = [e | {"trust_radius": 0.5} for e in Run(5).iteration_events()]
        place.put(object_path("vqe_iteration_v1", 5), container(new, evolved.iteration_v1_1()))
        driver.run(place, "build", now=NOW.isoformat(), release="v1.1")
        found = rows(by_name("vqe_iterations", tables), tables)
    assert found["trust_radius"].to_pylist() == [None] * 6 + [0.5] * 3
    sql = "select count(*) n, count(trust_radius) new from vqe_iterations"
    assert driver.run(place, "sql", sql=sql)["rows"] == [{"n": 9, "new": 3}]
    assert query(".", sql, tables=tables).rows.to_pylist() == [{"n": 9, "new": 3}]
    # time travel by tag, on the host and in Spark
    old = query(".", "select * from vqe_iterations", tables=tables, as_of=first["batch_id"]).rows
    assert (old.num_rows, "trust_radius" in old.column_names) == (3, False)
    tag = f"batch_{first['batch_id']}"
    as_of = driver.run(place, "sql", sql=f"select count(*) n from vqe_iterations version as of '{tag}'")
    assert as_of["rows"] == [{"n": 3}]


def test_a_batch_lists_what_is_new_and_reconcile_finds_what_was_replaced(
    driver: Driver, place: Place, tmp_path: Path
) -> None:
    for i in range(5):
        write_runs(tmp_path, [Run(i)], i)
    place.put_folder(tmp_path)
    assert driver.run(place, "build", now=NOW.isoformat())["listed"] == 25
    write_runs(tmp_path, [Run(9)], 9)
    place.put_folder(tmp_path)
    assert driver.run(place, "build", now=NOW.isoformat())["listed"] == 5
    assert driver.run(place, "build", now=NOW.isoformat())["batch_id"] is None
    replaced = [*Run(2).iteration_events(), *Run(8).iteration_events()]
    place.put(object_path("vqe_iteration_v1", 2), container(replaced, schemas.current("vqe_iteration")))
    missed = object_path("vqe_iteration_v1", 3).replace("vqe_iteration_v1+local+", "vqe_iteration_v1+local+0")
    place.put(missed, container(Run(7).iteration_events(), schemas.current("vqe_iteration")))
    assert driver.run(place, "build", now=NOW.isoformat())["batch_id"] is None  # both lie behind the last name
    report = driver.run(place, "reconcile", now=NOW.isoformat())
    assert (report["loaded"], report["rows"]["vqe_iterations"], report["duplicates"]) == (2, 6, 3)
    assert driver.run(place, "reconcile", now=NOW.isoformat())["batch_id"] is None
    assert maintenance.verify(".", store=store_of(f"s3://{place.bucket}"), now=BEGIN) == []


def test_maintenance_beside_ingest_loses_no_row_and_keeps_tags(
    driver: Driver, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags = []
    for i in range(3):
        write_runs(tmp_path, [Run(i)], i)
        place.put_folder(tmp_path)
        tags.append("batch_" + driver.run(place, "build", now=NOW.isoformat())["batch_id"])
    place.put("warehouse/vqe/molecules/data/left-behind.parquet", b"of a batch that died")
    # a batch that is under way when maintenance begins: maintenance waits for it, and the next batch for maintenance
    write_runs(tmp_path, [Run(3)], 3)
    place.put_folder(tmp_path)
    ingest = driver.start(place, "build", now=NOW.isoformat(), pause_after=["stage system_metrics", 3])
    for line in ingest.stdout:
        if line.startswith("paused"):
            break
    answers: list[Any] = []
    upkeep = threading.Thread(
        target=lambda: answers.append(driver.run(place, "maintain", min_files=2, step_bytes=1, orphan_seconds=0))
    )
    upkeep.start()
    tags.append("batch_" + json.loads(ingest.communicate(timeout=300)[0].splitlines()[-1])["answer"]["batch_id"])
    write_runs(tmp_path, [Run(4)], 4)
    place.put_folder(tmp_path)
    tags.append("batch_" + driver.run(place, "build", now=NOW.isoformat())["batch_id"])
    upkeep.join()
    (done,) = answers
    assert done["compacted_files"]["vqe_iterations"] >= 4
    assert done["commits"].count("compact vqe_iterations") >= 3  # in steps of two files, the lock given back between
    assert done["orphan_files"] >= 1
    with embedded(monkeypatch):
        batch.build(tmp_path, now=NOW)
    hold_equal(monkeypatch, tmp_path, TABLES)
    for n, tag in enumerate(tags, start=1):
        assert query(".", "select count(*) n from vqe_iterations", as_of=tag).rows.to_pylist() == [{"n": 3 * n}]
    assert maintenance.verify(".", store=store_of(f"s3://{place.bucket}")) == []
    # who has opened the newest batch before its files are merged reads on
    iterations = by_name("vqe_iterations")
    write_runs(tmp_path, [Run(5)], 5)  # the last batch may have come between two steps: its file is merged then
    place.put_folder(tmp_path)
    driver.run(place, "build", now=NOW.isoformat())
    with Warehouse.read(".") as found:
        assert len(found.load(iterations).scan().to_arrow()) == 18
        opened = found.load(iterations).scan()
        assert driver.run(place, "maintain", min_files=2)["compacted_files"]
        assert len(opened.to_arrow()) == 18
    with Warehouse.read(".") as found:
        assert found.keeps_for_readers(iterations)


def test_a_clock_that_ran_ahead_stops_no_spark_batch_and_maintenance_publishes_no_dead_batch(
    lake: Lake, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = lake.driver()

    def deliver(number: int) -> None:
        write_runs(tmp_path, [Run(number, molecule=number)], number)
        place.put_folder(tmp_path)

    deliver(0)
    tag = "batch_" + driver.run(place, "build", now=NOW.isoformat())["batch_id"]
    whole = {t.name: rows(t, TABLES, tag=tag) for t in TABLES}
    location = Location.of(".")
    with monkeypatch.context() as patch, lock_of(location) as lock, Warehouse(location, TABLES, lock) as ahead:
        present = time.time()
        patch.setattr(time, "time", lambda: present + 2 * 86_400)
        for table in TABLES:
            ahead.append(table, ())
    deliver(1)
    out, err = driver.start(place, "build", now=NOW.isoformat(), die_after="append vqe_results").communicate(
        timeout=300
    )
    assert "died after append vqe_results" in out, out + err[-3000:]
    assert driver.run(place, "maintain", min_files=2, orphan_seconds=0)["compacted_files"]["vqe_results"] == 2
    for table in TABLES:
        assert rows(table, TABLES, tag=tag).equals(whole[table.name]), (
            f"{table.name}: a dead batch's rows are published"
        )
    assert query(".", "select count(*) n from vqe_results").rows.to_pylist() == [{"n": 1}]
    again = driver.run(place, "build", now=NOW.isoformat())
    assert again["rows"]["vqe_iterations"] == 3
    assert query(".", "select count(*) n from vqe_results").rows.to_pylist() == [{"n": 2}]
    with embedded(monkeypatch):
        batch.build(tmp_path, now=NOW)
    hold_equal(monkeypatch, tmp_path, TABLES)
    driver.stop()
