"""Batches are in the order of their commits, whatever a clock says, and readers see a batch whole or not at all."""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
import raw_events
import uuid_utils
from dying import killed_when
from raw_events import Run, write_runs

from spark_jobs import maintenance, warehouse
from spark_jobs.arrow import batch
from spark_jobs.batch import BatchReport, new_batch_id
from spark_jobs.lock import lock_of
from spark_jobs.query import query
from spark_jobs.spark.maintenance import outdated_tags
from spark_jobs.tables import LEDGER, TABLES, by_name
from spark_jobs.warehouse import TAG_PREFIX, Warehouse, tags_of

NOW = raw_events.BEGIN + timedelta(hours=1)
SHOWN = ("molecules", "vqe_results", "vqe_iterations", "timing_metrics", LEDGER)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets this process's clock so many days off."""
    days_off = 0.0
    real, uuid7 = time.time, uuid_utils.uuid7

    def step(days: float) -> None:
        nonlocal days_off
        days_off = days

    def now() -> float:
        return real() + days_off * 86_400

    def new_id() -> UUID:
        return UUID(int=(int(now() * 1e3) << 80) | (uuid7().int & ((1 << 80) - 1)))

    monkeypatch.setattr(time, "time", now)
    monkeypatch.setattr(uuid_utils, "uuid7", new_id)
    return step


def add(data_dir: Path, number: int) -> BatchReport:
    write_runs(data_dir, [Run(number, molecule=number)], number=number)
    return batch.build(data_dir, now=NOW)


def seen(data_dir: Path, as_of: str | None = None) -> dict[str, int]:
    """Rows that readers find."""
    counts = ", ".join(f"(select count(*) from {name}) as {name}" for name in SHOWN)
    return query(data_dir, f"select {counts}", as_of=as_of).rows.to_pylist()[0]


def test_batches_are_in_the_order_of_their_commits_whatever_the_clock_says(
    tmp_path: Path, clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warehouse, "MAX_TAGS", 4)
    ids: list[str] = []
    for number, days in enumerate((0.0, 3.0, -2.0, 0.0, 400.0, -1.0)):
        clock(days)
        report = add(tmp_path, number)
        assert report.batch_id is not None
        ids.append(report.batch_id)
        found = query(tmp_path, "select count(*) as n from vqe_results")
        assert (found.rows.to_pylist(), found.as_of) == ([{"n": number + 1}], report.tag)
        figures, shown = maintenance.summaries(tmp_path)
        assert shown == [TAG_PREFIX + i for i in ids[-4:]]
        assert next(t.rows for t in figures if t.name == "vqe_results") == number + 1
    assert ids == sorted(ids), "ids sort as batches do"
    assert all(UUID(i).version == 7 for i in ids)
    assert not any(i.check_name.endswith("_tag") for i in maintenance.verify(tmp_path, now=NOW))
    with Warehouse.read(tmp_path) as found_tables:
        for table in TABLES:
            metadata = found_tables.load(table).metadata
            for log in (metadata.snapshot_log, metadata.metadata_log):
                times = [entry.timestamp_ms for entry in log]
                assert times == sorted(times), f"{table.name}: Spark does not open it"
                assert times[-1] <= metadata.last_updated_ms, table.name


def test_a_batch_mends_times_that_lie_ahead(tmp_path: Path, clock: Callable[[float], None]) -> None:
    clock(2.0)
    add(tmp_path, 0)
    clock(0.0)
    present = time.time() * 1e3
    location = warehouse.Location.of(tmp_path)
    with lock_of(location) as lock, warehouse.Warehouse(location, lock=lock) as opened:
        opened.prepare()
        for table in TABLES:
            metadata = opened.load(table).metadata
            assert max(e.timestamp_ms for e in metadata.snapshot_log) <= present + 60_000, table.name
            assert metadata.last_updated_ms <= present + 60_000, table.name
        before = [opened.load(t).metadata_location for t in TABLES]
        opened.prepare()
        assert [opened.load(t).metadata_location for t in TABLES] == before, "there is nothing left to mend"


def test_a_history_whose_ids_are_out_of_order_is_read_by_its_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"0{n}a2185f-361f-7000-8000-000000000000" for n in (3, 1, 2)]
    for number, batch_id in enumerate(ids):
        monkeypatch.setattr("spark_jobs.batch.new_batch_id", lambda _, batch_id=batch_id: batch_id)
        add(tmp_path, number)
        assert seen(tmp_path)["vqe_results"] == number + 1
    monkeypatch.undo()
    maintenance.maintain(tmp_path)
    with Warehouse.read(tmp_path) as found:
        assert found.published() == [TAG_PREFIX + i for i in ids]
        assert found.newest_batch() == ids[-1]
        assert new_batch_id(found) > max(ids)


@pytest.mark.parametrize(
    "dies_at",
    [
        "append vqe_iterations",
        *(pytest.param(at, marks=pytest.mark.broad) for at in ("append molecules", "append system_metrics")),
    ],
)
def test_maintenance_after_a_batch_that_died_shows_none_of_its_rows(tmp_path: Path, dies_at: str) -> None:
    for number in (0, 1):
        tag = add(tmp_path, number).tag
    whole = seen(tmp_path)

    with killed_when(dies_at, warehouse, "on_commit"):
        add(tmp_path, 2)
    assert seen(tmp_path) == seen(tmp_path, tag) == whole
    with Warehouse.read(tmp_path) as found:
        torn = [t for t in TABLES if not found.is_as_tagged(t, str(tag))]
        assert torn, "the batch left rows"
    for _ in range(2):
        maintenance.maintain(tmp_path, orphan_age=timedelta(0))
        assert seen(tmp_path) == seen(tmp_path, tag) == whole
        figures, _ = maintenance.summaries(tmp_path)
        assert {t.name: t.rows for t in figures if t.name in SHOWN} == whole
        assert {i.check_name for i in maintenance.verify(tmp_path, now=NOW)} <= {"object_not_in_ledger"}
    batch.build(tmp_path, now=NOW)
    assert seen(tmp_path, tag) == whole
    assert seen(tmp_path)["vqe_results"] == seen(tmp_path)["molecules"] == 3
    assert maintenance.verify(tmp_path, now=NOW) == []
    maintenance.maintain(tmp_path)
    with Warehouse.read(tmp_path) as found:  # what the torn state kept apart is merged now
        files = list(found.load(by_name("vqe_results")).scan().plan_files())
        assert len(files) == 1
        assert found.is_as_tagged(by_name("vqe_results"), found.published()[-1])


def test_a_first_batch_that_died_shows_no_row(tmp_path: Path) -> None:
    with killed_when("append vqe_results", warehouse, "on_commit"):
        add(tmp_path, 0)
    assert set(seen(tmp_path).values()) == {0}
    maintenance.maintain(tmp_path)
    assert set(seen(tmp_path).values()) == {0}
    batch.build(tmp_path, now=NOW)
    assert seen(tmp_path)["vqe_results"] == 1


class Published:
    """Batches that were published so many days ago, oldest first."""

    def __init__(self, *days_ago: float) -> None:
        now = datetime.now(UTC)
        self.times = {f"{TAG_PREFIX}{i}": now - timedelta(days=d) for i, d in enumerate(days_ago)}

    def published_at(self) -> dict[str, datetime]:
        return self.times


@pytest.mark.parametrize(
    ("days_ago", "dropped"),
    [
        ((40, 35, 20, 1, 0), 2),
        ((40, 35), 0),  # no batch since: what is there is kept
        ((20, 400, 10, 0), 0),  # the second was made while the clock was a year behind
        ((40, -300, 35, 1, 0), 3),  # the second while it was a year ahead
        ((20, 10, 1, -300), 0),  # the newest while it was a year ahead
        ((420, 410, 401, 400), 0),  # maintenance runs while it is a year ahead
        ((-300, -310, -320), 0),  # or a year behind
    ],
)
def test_tags_grow_old_by_the_newest_batch_and_not_by_a_clock_that_jumps(
    days_ago: tuple[float, ...], dropped: int
) -> None:
    found: object = Published(*days_ago)
    tags = outdated_tags(found, timedelta(days=30))  # type: ignore[arg-type]
    assert tags == [f"{TAG_PREFIX}{i}" for i in range(dropped)]


def test_tags_of_a_table_are_dropped_in_the_ledgers_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that brings a table no row tags the snapshot of the batch before."""
    monkeypatch.setattr(warehouse, "MAX_TAGS", 2)
    ids = [f"0{n}a2185f-361f-7000-8000-000000000000" for n in (3, 2, 1)]
    for number, batch_id in enumerate(ids):
        monkeypatch.setattr("spark_jobs.batch.new_batch_id", lambda _, batch_id=batch_id: batch_id)
        write_runs(tmp_path, [Run(number)], number=number, streams=("vqe_iteration",))
        batch.build(tmp_path, now=NOW)
    with Warehouse.read(tmp_path) as found:
        for table in TABLES:
            assert set(tags_of(found.load(table))) == {TAG_PREFIX + i for i in ids[1:]}, table.name


def test_what_a_clock_that_ran_ahead_has_kept_goes_with_the_rest(
    tmp_path: Path, clock: Callable[[float], None]
) -> None:
    """A snapshot kept for readers, and a file of no snapshot, of a day that is yet to come."""
    for number in (0, 1):
        add(tmp_path, number)
    clock(400.0)
    maintenance.maintain(tmp_path)
    left = tmp_path / "warehouse/vqe/molecules/data/left-behind.parquet"
    left.write_bytes(b"of a batch that died")
    os.utime(left, (time.time(), time.time()))
    table = by_name("molecules")

    def kept() -> list[str]:
        with Warehouse.read(tmp_path) as found:
            return found.keeps_for_readers(table)

    (far,) = kept()
    clock(0.0)
    assert maintenance.maintain(tmp_path).orphan_files == 0
    (near,) = kept()
    assert near.split("_")[3] == far.split("_")[3], "its readers have their time"
    assert float(near.split("_")[2]) == pytest.approx(time.time() + 3600, abs=600)
    assert abs(left.stat().st_mtime - time.time()) < 600
    clock(0.1)
    assert maintenance.maintain(tmp_path).orphan_files >= 1
    assert kept() == []
    assert not left.exists()
    assert seen(tmp_path)["vqe_results"] == 2
