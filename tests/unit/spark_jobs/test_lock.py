"""Who commits holds the lock: a warehouse is given it, and asks it before each commit."""

from datetime import timedelta
from pathlib import Path

import pytest
import raw_events
from built_tables import tags, two_runs
from raw_events import write_runs

from simulator.errors import StorageError
from spark_jobs import batch as protocol
from spark_jobs import warehouse as commits
from spark_jobs.arrow import batch
from spark_jobs.location import Location
from spark_jobs.lock import lock_of
from spark_jobs.tables import LEDGER, by_name
from spark_jobs.warehouse import Warehouse

NOW = raw_events.BEGIN + timedelta(hours=1)


class LostAfter:
    """A lock that is lost after so many commits."""

    def __init__(self, left: int) -> None:
        self.left = left

    def check(self) -> None:
        if self.left == 0:
            raise StorageError("the lock was lost")
        self.left -= 1

    def __enter__(self) -> "LostAfter":
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def built(tmp_path: Path) -> Path:
    write_runs(tmp_path, two_runs())
    batch.build(tmp_path, now=NOW)
    return tmp_path


def test_a_warehouse_that_was_opened_without_its_lock_commits_nothing(built: Path) -> None:
    ledger = by_name(LEDGER)
    with Warehouse(Location.of(built)) as opened:
        before = opened.load(ledger).metadata_location
        for commit in (
            lambda: opened.append(ledger, ()),
            lambda: opened.set_properties(ledger, {"a": "b"}),
            lambda: opened.tag(ledger, "batch_x"),
        ):
            with pytest.raises(RuntimeError, match="opened without its lock"):
                commit()
    with Warehouse(Location.of(built)) as opened:
        assert opened.load(ledger).metadata_location == before


@pytest.mark.parametrize("left", [0, 3, 9, 18])  # of 19: nine tables are appended to, and ten are tagged
def test_a_batch_whose_lock_is_lost_makes_no_further_commit(
    built: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    write_runs(built, [raw_events.Run(7, molecule=2)], number=1)
    published = tags(built)[LEDGER]
    made: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(protocol, "lock_of", lambda *_: LostAfter(left))
        patch.setattr(commits, "on_commit", made.append)
        with pytest.raises(StorageError, match="the lock was lost"):
            batch.build(built, now=NOW)
    assert len(made) == left
    assert tags(built)[LEDGER] == published
    again = batch.build(built, now=NOW)
    assert again.repaired or again.loaded == 5


def test_a_lock_is_its_warehouses_own(built: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    write_runs(other, two_runs())
    batch.build(other, now=NOW)
    ledger = by_name(LEDGER)
    here, there = Location.of(built), Location.of(other)
    with lock_of(there) as lock, Warehouse(here, lock=LostAfter(0)) as lost, Warehouse(there, lock=lock) as held:
        with pytest.raises(StorageError, match="the lock was lost"):
            lost.set_properties(ledger, {"a": "b"})
        held.set_properties(ledger, {"a": "b"})
    with Warehouse.read(other) as opened:
        assert opened.load(ledger).properties["a"] == "b"
