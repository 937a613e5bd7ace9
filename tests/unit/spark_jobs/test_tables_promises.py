"""What events promise is checked once it is due: whatever comes late, in whatever order, and by whatever clock."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
import raw_events
from dying import killed_when
from raw_events import Run, write_runs

from spark_jobs import filters, maintenance, quality, warehouse
from spark_jobs.arrow import batch
from spark_jobs.query import query
from spark_jobs.tables import LEDGER, TABLES, by_name
from spark_jobs.warehouse import Warehouse

NOW = raw_events.BEGIN + timedelta(hours=1)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ALL_BUT_ITERATIONS = ("vqe_run", "vqe_result", "vqe_hamiltonian", "vqe_system_metrics")


def issues(data_dir: Path) -> list[tuple[str, str, str]]:
    """Issues that readers see."""
    answer = query(data_dir, "select check_name, table_name, row_key from quality_issues order by row_key, check_name")
    return [(row["check_name"], row["table_name"], row["row_key"]) for row in answer.rows.to_pylist()]


def of_run(run: Run, check: str = "missing_records", table: str = "vqe_iterations") -> tuple[str, str, str]:
    return check, table, f'{{"run_id": "{run.run_id}"}}'


def build(data_dir: Path, now: datetime) -> int:
    return batch.build(data_dir, now=now).issues


def test_a_result_that_comes_days_late_is_held_to_its_promise_a_day_later(tmp_path: Path) -> None:
    write_runs(tmp_path, [Run(0)])
    assert build(tmp_path, NOW) == 0
    late = Run(1, at=raw_events.BEGIN - 3 * DAY)
    write_runs(tmp_path, [late], number=1, streams=ALL_BUT_ITERATIONS)
    assert build(tmp_path, NOW + DAY) == 0, "its iterations may be in the next batch"
    write_runs(tmp_path, [Run(2, at=raw_events.BEGIN + DAY)], number=2)
    assert build(tmp_path, NOW + 2 * DAY) == 1
    assert issues(tmp_path) == [of_run(late)]
    write_runs(tmp_path, [Run(3, at=raw_events.BEGIN + 2 * DAY)], number=3)
    assert build(tmp_path, NOW + 3 * DAY) == 0, "found once"
    write_runs(tmp_path, [late], number=4, streams=("vqe_iteration",))
    assert build(tmp_path, NOW + 4 * DAY) == 0
    assert issues(tmp_path) == [of_run(late)], "an issue stays as a row"
    assert maintenance.verify(tmp_path, now=NOW + 4 * DAY) == []


def test_iterations_that_come_within_a_day_of_their_late_result_are_no_issue(tmp_path: Path) -> None:
    late = Run(1, at=raw_events.BEGIN - 3 * DAY)
    write_runs(tmp_path, [late], streams=ALL_BUT_ITERATIONS)
    assert build(tmp_path, NOW) == 0
    write_runs(tmp_path, [late], number=1, streams=("vqe_iteration",))
    assert build(tmp_path, NOW + 2 * HOUR) == 0
    assert build(tmp_path, NOW + 3 * DAY) == 0
    assert issues(tmp_path) == []


def test_promises_are_checked_where_nothing_new_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was killed before its first iteration, and a platform that has been quiet since."""
    killed, broken = Run(0), Run(1)
    write_runs(tmp_path, [killed], streams=("vqe_run",))
    write_runs(tmp_path, [broken], number=1, streams=ALL_BUT_ITERATIONS)
    build(tmp_path, NOW)
    assert batch.build(tmp_path, now=NOW + DAY - HOUR).batch_id is None
    report = batch.build(tmp_path, now=NOW + DAY)
    assert (report.issues, report.loaded) == (2, 0)
    assert report.batch_id is not None
    found = [of_run(killed, "run_without_result", "vqe_results"), of_run(broken)]
    assert issues(tmp_path) == found
    with Warehouse.read(tmp_path) as opened:
        assert opened.published()[-1] == report.tag
        assert opened.newest_batch() == report.batch_id
    assert batch.build(tmp_path, now=NOW + 2 * DAY).batch_id is None, "found once"
    scans = []
    with monkeypatch.context() as patch:
        scan = Warehouse.scan
        patch.setattr(
            Warehouse,
            "scan",
            lambda self, table, *more, **named: (scans.append(table.name), scan(self, table, *more, **named))[1],
        )
        assert batch.build(tmp_path, now=NOW + 3 * DAY).batch_id is None
    assert set(scans) == {LEDGER}, "what was checked is not read again"
    told = maintenance.verify(tmp_path, now=NOW + 9 * DAY)
    assert [(i.check_name, i.table_name, i.key_json) for i in told] == found[::-1]


def test_issues_of_a_batch_that_died_are_published_by_the_next(tmp_path: Path) -> None:
    write_runs(tmp_path, [Run(0)], streams=("vqe_run",))
    build(tmp_path, NOW)

    with killed_when("append quality_issues", warehouse, "on_commit"):
        build(tmp_path, NOW + DAY)
    assert issues(tmp_path) == []
    assert batch.build(tmp_path, now=NOW + DAY).batch_id is not None
    assert issues(tmp_path) == [of_run(Run(0), "run_without_result", "vqe_results")]


@pytest.mark.parametrize(
    "clock",
    [
        (0, 400 * 24, 3, 40, 80),  # the second batch is made while the clock is a year ahead
        (0, -400 * 24, 3, 40, 80),  # while it is a year behind
        pytest.param((0, 72, -72, 1, 30, 60), marks=pytest.mark.broad),
    ],
)
def test_no_promise_is_skipped_by_a_clock_that_jumps(tmp_path: Path, clock: tuple[int, ...]) -> None:
    """Each batch brings a run whose iterations never come."""
    runs = [Run(i, at=raw_events.BEGIN + i * HOUR) for i in range(len(clock))]
    found = 0
    for number, (run, hours) in enumerate(zip(runs, clock, strict=True)):
        write_runs(tmp_path, [run], number=number, streams=ALL_BUT_ITERATIONS)
        found += build(tmp_path, NOW + hours * HOUR)
    found += build(tmp_path, NOW + 10 * DAY)
    assert issues(tmp_path) == sorted((of_run(run) for run in runs), key=lambda i: i[2])
    assert found == len(runs), "each is found once"


def test_a_ledger_of_a_release_that_told_no_runs_is_checked_by_its_events_times(tmp_path: Path) -> None:
    ledger = by_name(LEDGER)
    earlier = replace(ledger, columns=tuple(c for c in ledger.columns if c.name != "run_ids"))
    tables = (*TABLES[:-1], earlier)
    write_runs(tmp_path, [Run(0)], streams=ALL_BUT_ITERATIONS)
    write_runs(tmp_path, [Run(1)], number=1, streams=("vqe_run", "vqe_iteration"))
    assert batch.build(tmp_path, now=NOW, tables=tables).issues == 0
    assert len(maintenance.verify(tmp_path, now=NOW + 2 * DAY)) == 2  # before the first batch of this release
    assert build(tmp_path, NOW + 2 * DAY) == 2
    assert issues(tmp_path) == [of_run(Run(0)), of_run(Run(1), "run_without_result", "vqe_results")]
    assert build(tmp_path, NOW + 3 * DAY) == 0


def test_arrival_is_told_by_what_cannot_be_later(tmp_path: Path) -> None:
    """A batch whose clock was behind read no event before it was recorded: the run has its day."""
    running = Run(0)
    write_runs(tmp_path, [running], streams=("vqe_run",))
    build(tmp_path, NOW - 5 * DAY)
    assert build(tmp_path, raw_events.BEGIN + HOUR) == 0
    assert build(tmp_path, raw_events.BEGIN + DAY + HOUR) == 1


def test_an_old_run_among_many_new_ones_does_not_ask_for_all_between() -> None:
    def id_(day: int, n: int) -> str:
        return str(UUID(int=((1_700_000_000_000 + day * 86_400_000 + n) << 80) | 7 << 76))

    ids = [id_(0, 0), *(id_(500, n) for n in range(300))]
    told = str(filters.ids("run_id", ids))
    assert told.count("GreaterThanOrEqual") == 16
    assert str(filters.between("run_id", ids[0], ids[0])) in told, "it has a range of its own"
    assert str(filters.ids("run_id", ids[:200])).startswith("In(")
    assert quality.Due().up_to is None
