"""The batch protocol is one for every engine: what a stager is asked for, in which order, and what a batch makes of it."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
import raw_events
from built_tables import everything, ledger, rows_of, two_runs
from raw_events import write_runs

from spark_jobs import warehouse as commits
from spark_jobs.arrow.stager import ArrowStager
from spark_jobs.batch import ReadObject, Staged, run_batch
from spark_jobs.raw import RawObject, RawStore
from spark_jobs.tables import DATA_TABLES, LEDGER, TABLES, Table
from spark_jobs.warehouse import Warehouse

NOW = raw_events.BEGIN + timedelta(hours=1)


class Told:
    """A stager that writes down what it is asked for, and rejects every object."""

    def __init__(self, warehouse: Warehouse, store: RawStore, batch_id: str) -> None:
        self.asked: list[str] = []

    def stage(self, objects: Sequence[RawObject]) -> Staged:
        self.asked.append(f"stage {len(objects)}")
        return Staged([ReadObject(raw, "0" * 32, raw.size, problem="not wanted") for raw in objects])

    def append(self, table: Table) -> None:
        self.asked.append(f"append {table.name}")

    def discard(self) -> None:
        self.asked.append("discard")


class Forgetful(Told):
    """A stager that loses an object."""

    def stage(self, objects: Sequence[RawObject]) -> Staged:
        super().stage(objects)
        return Staged([ReadObject(raw, "0" * 32, raw.size, records=1) for raw in objects[1:]])


class Broken(Told):
    """A stager whose engine fails."""

    def stage(self, objects: Sequence[RawObject]) -> Staged:
        super().stage(objects)
        raise RuntimeError("the engine is away")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    write_runs(tmp_path, two_runs())
    return tmp_path


def made(kind: type[Told], kept: list[Told]):
    def make(warehouse: Warehouse, store: RawStore, batch_id: str) -> Told:
        kept.append(kind(warehouse, store, batch_id))
        return kept[-1]

    return make


def test_a_stager_stages_once_and_appends_each_data_table_in_the_declared_order(data_dir: Path) -> None:
    stagers: list[Told] = []
    report = run_batch(data_dir, made(Told, stagers), now=NOW)
    assert stagers[0].asked == ["stage 5", *(f"append {table.name}" for table in DATA_TABLES)]
    assert len(report.rejected) == 5
    assert {reason for _, reason in report.rejected} == {"not wanted"}
    assert set(ledger(data_dir).values()) == {"rejected"}


def test_issues_ledger_and_tags_are_committed_after_the_stagers_tables(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(commits, "on_commit", seen.append)
    run_batch(data_dir, ArrowStager, now=NOW)
    made_tables = [f"create {table.name}" for table in TABLES]
    appended = [f"append {table.name}" for table in DATA_TABLES]
    assert seen == [*made_tables, *appended, f"append {LEDGER}", *(f"tag {table.name}" for table in TABLES)]


@pytest.mark.parametrize(
    ("kind", "error"),
    [(Broken, "the engine is away"), (Forgetful, "5 objects listed, 4 loaded, 0 rejected")],
)
def test_a_stager_that_fails_or_loses_an_object_publishes_nothing_and_is_asked_to_discard(
    data_dir: Path, kind: type[Told], error: str
) -> None:
    stagers: list[Told] = []
    with pytest.raises(Exception, match=error):
        run_batch(data_dir, made(kind, stagers), now=NOW)
    assert stagers[0].asked == ["stage 5", "discard"]
    assert rows_of(data_dir, LEDGER) == []
    assert not any(everything(data_dir).values())
    assert run_batch(data_dir, ArrowStager, now=NOW).loaded == 5
