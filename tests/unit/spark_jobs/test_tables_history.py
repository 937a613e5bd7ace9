"""A batch costs the same after a million objects as after ten: it does not read the ledger to find what is new."""

import fcntl
import random
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import boto3
import pytest
from moto import mock_aws
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionField, PartitionSpec
from pyiceberg.transforms import DayTransform
from raw_events import BEGIN, Run, run_id, write_runs

from spark_jobs import ledger, maintenance
from spark_jobs import tables as declared
from spark_jobs import warehouse as warehouse_module
from spark_jobs.arrow import batch
from spark_jobs.arrow.stager import ArrowStager
from spark_jobs.location import Location
from spark_jobs.lock import lock_of
from spark_jobs.raw import LocalStore, Names, RawStore, S3Store
from spark_jobs.tables import LEDGER, TABLES, by_name
from spark_jobs.warehouse import Warehouse

FEW = tuple(t for t in TABLES if t.name in ("vqe_results", "quality_issues", LEDGER))


@pytest.fixture
def ledger_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Columns of the ledger that were scanned, a name a scan."""
    scanned: list[str] = []
    scan = Warehouse._scan

    def noted(self: Warehouse, table, columns, *arguments):
        if table.name == LEDGER and "source_path" in columns:
            scanned.append(",".join(columns))
        return scan(self, table, columns, *arguments)

    monkeypatch.setattr(Warehouse, "_scan", noted)
    return scanned


@pytest.fixture(params=["folder", "S3"])
def deliver(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch) -> Iterator[Callable[[int], RawStore]]:
    """Brings a run's objects to a store, and gives the store."""
    if request.param == "folder":

        def deliver(number: int) -> RawStore:
            write_runs(tmp_path, [Run(number)], number=number)
            return LocalStore(tmp_path)

        yield deliver
        return
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="bucket")
        there: set[str] = set()

        def put(number: int) -> RawStore:
            staging = tmp_path / "staging"
            write_runs(staging, [Run(number)], number=number)
            for path in staging.rglob("*.avro"):
                name = path.relative_to(staging).as_posix()
                if name not in there:
                    client.put_object(Bucket="bucket", Key=name, Body=path.read_bytes())
                    there.add(name)
            return S3Store("bucket", client)

        yield put


def objects_of(data_dir: Path) -> list[Path]:
    return sorted((data_dir / "raw").rglob("*.avro"))


def count(data_dir: Path) -> int:
    """Runs that the tables hold."""
    with Warehouse.read(data_dir, FEW) as warehouse:
        return warehouse.scan(by_name("vqe_results"), ("run_id",)).num_rows


def test_a_batch_finds_what_is_new_without_the_ledgers_rows(
    deliver: Callable[[int], RawStore], tmp_path: Path, ledger_reads: list[str]
) -> None:
    for number in range(3):
        store = deliver(number)
        assert batch.build(tmp_path, store=store).rows["vqe_results"] == 1
    assert batch.build(tmp_path, store=store).batch_id is None
    assert ledger_reads == ["source_path,etag"]  # of the empty ledger
    assert count(tmp_path) == 3


def test_a_listing_of_s3_begins_behind_the_last_ledgered_name(tmp_path: Path) -> None:
    asked: list[dict[tuple[str, str], str]] = []

    class Bucket(S3Store):
        """Answers from a folder."""

        def __init__(self) -> None:
            self.read = LocalStore(tmp_path).read  # type: ignore[method-assign]

        def objects(self, after=None):
            asked.append(dict(after or {}))
            return (o for o in LocalStore(tmp_path).objects() if o.path > asked[-1].get((o.topic, o.partition), ""))

    written = write_runs(tmp_path, [Run(0)], number=3)
    for _ in range(2):
        batch.build(tmp_path, store=Bucket())
    assert asked[0] == {}
    assert sorted(asked[1].values()) == sorted(p.relative_to(tmp_path).as_posix() for p in written)


def test_a_name_before_known_ones_is_found_in_a_folder(tmp_path: Path, ledger_reads: list[str]) -> None:
    """A clock that stepped back, or a process that was stopped between a name's choice and the renaming."""
    write_runs(tmp_path, [Run(0)], number=5)
    batch.build(tmp_path)
    for path in write_runs(tmp_path, [Run(1)], number=6):
        topic = path.parent.parent.name
        path.rename(path.with_name(f"{topic}+local+{run_id(0, BEGIN - timedelta(days=3000))}.avro"))
    batch.build(tmp_path)
    assert count(tmp_path) == 2
    ledger_reads.clear()
    write_runs(tmp_path, [Run(2)], number=7)
    batch.build(tmp_path)
    assert (count(tmp_path), ledger_reads) == (3, [])


def test_objects_that_were_moved_away_are_read_up_once(tmp_path: Path, ledger_reads: list[str]) -> None:
    for number in range(3):
        write_runs(tmp_path, [Run(number)], number=number)
        batch.build(tmp_path)
    ledger_reads.clear()
    gone = next(p for p in objects_of(tmp_path) if "vqe_result" in p.name)
    gone.unlink()
    for number, reads in ((3, 1), (4, 0)):
        write_runs(tmp_path, [Run(number)], number=number)
        assert batch.build(tmp_path).rows["vqe_results"] == 1
        assert len(ledger_reads) == reads
        ledger_reads.clear()
    assert count(tmp_path) == 5


@pytest.mark.parametrize("note", ["{}", '{"rows": 1, "names": []}'])
def test_a_note_that_is_not_of_the_ledgers_rows_is_made_anew(
    tmp_path: Path, note: str, ledger_reads: list[str]
) -> None:
    """An older release, which knows no note, has written to the ledger."""
    write_runs(tmp_path, [Run(0)])
    batch.build(tmp_path)
    location = Location.of(tmp_path)
    with lock_of(location) as lock, Warehouse(location, lock=lock) as warehouse:
        warehouse.set_properties(by_name(LEDGER), {ledger.NAMES: note})
    ledger_reads.clear()
    write_runs(tmp_path, [Run(1)], number=1)
    assert batch.build(tmp_path).rows["vqe_results"] == 1
    assert ledger_reads == ["source_path,etag"]
    assert batch.build(tmp_path).batch_id is None
    assert ledger_reads == ["source_path,etag"]


def test_the_note_stays_true_through_rejections_reconciling_and_maintenance(
    tmp_path: Path, ledger_reads: list[str]
) -> None:
    write_runs(tmp_path, [Run(0)])
    damaged = next(p for p in objects_of(tmp_path) if "vqe_result" in p.name)
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-7])
    assert len(batch.build(tmp_path).rejected) == 1
    damaged.write_bytes(whole)
    assert batch.reconcile(tmp_path).rows["vqe_results"] == 1
    maintenance.maintain(tmp_path)
    ledger_reads.clear()
    write_runs(tmp_path, [Run(1)], number=1)
    assert batch.build(tmp_path).rows["vqe_results"] == 1
    assert batch.build(tmp_path).batch_id is None
    assert ledger_reads == []


def test_verify_and_reconcile_compare_every_object(tmp_path: Path, monkeypatch) -> None:
    """An object that came to S3 before the last known name, where no batch looks."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="bucket")
        store = S3Store("bucket", client)
        staging = tmp_path / "staging"
        for number in range(2):
            write_runs(staging, [Run(number)], number=number)
        found = [p.relative_to(staging).as_posix() for p in objects_of(staging)]
        early = next(path for path in found if "vqe_result" in path)
        for path in found:
            if path != early:
                client.put_object(Bucket="bucket", Key=path, Body=(staging / path).read_bytes())
        batch.build(tmp_path, store=store)
        client.put_object(Bucket="bucket", Key=early, Body=(staging / early).read_bytes())
        assert batch.build(tmp_path, store=store).batch_id is None
        issues = maintenance.verify(tmp_path, store=store)
        assert [i.row_key for i in issues if i.check_name == "object_not_in_ledger"] == [{"source_path": early}]
        assert batch.reconcile(tmp_path, store=store).rows["vqe_results"] == 1


# --- days and months ------------------------------------------------------------------------------------------------


def data_files(data_dir: Path, table: str) -> list[tuple[str, str]]:
    """Partition folder and name of each data file of the newest batch."""
    with Warehouse.read(data_dir, FEW) as warehouse:
        tasks = warehouse.load(by_name(table)).scan().plan_files()
        return sorted(tuple(task.file.file_path.rsplit("/", 2)[-2:]) for task in tasks)


def build_days(data_dir: Path, days: range, monkeypatch: pytest.MonkeyPatch, before_merge: int) -> None:
    monkeypatch.setattr(warehouse_module, "SMALL_FILES_BEFORE_MERGE", before_merge)
    for day in days:
        write_runs(data_dir, [Run(day, at=BEGIN + timedelta(days=day))], number=day, streams=("vqe_result",))
        batch.build(data_dir, tables=FEW)


def test_files_grow_with_months_and_not_with_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch every week of four months: files of a month are merged as it goes, its last ones when it is over."""
    build_days(tmp_path, range(0, 100, 7), monkeypatch, before_merge=4)
    months = [folder for folder, _ in data_files(tmp_path, "vqe_results")]
    assert months[0] == "recorded_at_month=2026-01"
    assert len(set(months)) == 4
    assert len([m for m in months if m != "recorded_at_month=2026-04"]) == 3  # one for each month that is over
    assert count(tmp_path) == 15


def test_a_table_by_day_of_an_earlier_release_is_partitioned_by_month_from_the_next_batch_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are merged bit by bit, months first that are over; a tag keeps its rows."""
    by_month = declared.iceberg_partition
    monkeypatch.setattr(declared, "iceberg_partition", by_day)
    build_days(tmp_path, range(6), monkeypatch, before_merge=100)
    assert {folder for folder, _ in data_files(tmp_path, "vqe_results")} == {
        f"recorded_at_day=2026-01-{10 + day}" for day in range(6)
    }
    monkeypatch.setattr(declared, "iceberg_partition", by_month)
    build_days(tmp_path, range(30, 32), monkeypatch, before_merge=100)
    folders = [folder for folder, _ in data_files(tmp_path, "vqe_results")]
    assert folders == ["recorded_at_month=2026-01", *["recorded_at_month=2026-02"] * 2]
    assert count(tmp_path) == 8
    with Warehouse.read(tmp_path, FEW) as warehouse:
        tags = warehouse.published()
        for rows, tag in enumerate(tags, start=1):
            assert warehouse.scan(by_name("vqe_results"), ("run_id",), tag=tag).num_rows == rows
    assert maintenance.maintain(tmp_path, tables=FEW).merged_files["vqe_results"] == 2


def by_day(table) -> PartitionSpec:
    if table.partition is None:
        return UNPARTITIONED_PARTITION_SPEC
    source_id = declared.iceberg_schema(table).find_field(table.partition).field_id
    return PartitionSpec(PartitionField(source_id, 1000, DayTransform(), f"{table.partition}_day"))


# --- maintenance beside runs ----------------------------------------------------------------------------------------


def test_a_run_that_waits_comes_between_two_steps_of_maintenance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "STEP_SECONDS", 0.0)
    build_days(tmp_path, range(0, 93, 31), monkeypatch, before_merge=100)
    for day in range(1, 93, 31):  # a second file in each of three months, written as no batch would leave them
        write_runs(tmp_path, [Run(day, at=BEGIN + timedelta(days=day))], number=day, streams=("vqe_result",))
    monkeypatch.setattr(ArrowStager, "_choose_table_to_merge", lambda self: None)
    batch.build(tmp_path, tables=FEW)
    write_runs(tmp_path, [Run(99, at=BEGIN + timedelta(days=99))], number=99, streams=("vqe_result",))

    commits: list[str] = []
    run = threading.Thread(target=lambda: batch.build(tmp_path, tables=FEW))

    def note(what: str) -> None:
        commits.append(("run" if threading.current_thread() is run else "maintenance") + ": " + what)
        if run.ident is None:
            run.start()
            while not waits_for_its_turn(tmp_path):
                time.sleep(0.01)

    monkeypatch.setattr(warehouse_module, "on_commit", note)
    done = maintenance.maintain(tmp_path, tables=FEW)
    run.join()
    assert done.merged_files["vqe_results"] >= 6
    steps = [what for what in commits if what == "maintenance: append vqe_results"]
    assert len(steps) >= 3
    first_step = ["maintenance: append vqe_results", "maintenance: tag vqe_results"]
    assert commits[:2] == first_step
    assert commits[2].startswith("run: ")
    assert [c for c in commits[2:] if c.startswith("run: ")] == commits[2 : commits.index(f"run: tag {LEDGER}") + 1]
    assert count(tmp_path) == 7


def waits_for_its_turn(data_dir: Path) -> bool:
    with (data_dir / "warehouse" / ".lock.next").open("a") as turn:
        try:
            fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_checksums_of_names_add_up_in_any_order_and_tell_any_two_sets_apart() -> None:
    drawn = random.Random(3)
    paths = [f"raw/t/partition=local/t+local+{drawn.getrandbits(128):032x}.avro" for _ in range(1000)]
    paths += ["raw/t/partition=local/ünïcode.avro", "raw/t/partition=local/short.avro"]
    shuffled = drawn.sample(paths, len(paths))
    whole = Names.of(paths)
    assert Names.of(shuffled) == whole == Names.of(shuffled[:300]) + Names.of(shuffled[300:])
    assert Names() + whole == whole + Names() == whole
    other = [*paths]
    other[5] = other[5].replace(".avro", "")[:-1] + ("0" if other[5][-6] != "0" else "1") + ".avro"
    assert (Names.of(other).count, Names.of(other).checksum == whole.checksum) == (1002, False)
    seen = {Names.of(paths[:n]).checksum for n in range(300)}
    assert len(seen) == 300
