"""A build that dies between any two of its commits is finished, or run again, by the next."""

from datetime import timedelta
from pathlib import Path

import pytest
import raw_events
from built_tables import everything, ledger, tags, two_runs
from dying import die_at
from raw_events import Run, write_runs

from spark_jobs import maintenance, warehouse
from spark_jobs.arrow import batch
from spark_jobs.tables import LEDGER

NOW = raw_events.BEGIN + timedelta(hours=1)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    write_runs(tmp_path, two_runs())
    return tmp_path


@pytest.mark.parametrize(
    "kills",
    [
        # the first and the last append, the ledger's commit, the first, a middle and the last tag
        pytest.param((1, 8, 9, 10, 15, 19), id="one of each kind"),
        pytest.param(tuple(range(1, 20)), id="all", marks=pytest.mark.broad),
    ],
)
def test_killed_between_any_two_commits_the_next_build_ends_whole(data_dir: Path, kills: tuple[int, ...]) -> None:
    """Each round adds a run, dies some commits later than the round before, and builds again."""
    commits: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warehouse, "on_commit", commits.append)
        batch.build(data_dir, now=NOW)
    assert [c.split()[0] for c in commits] == ["create"] * 10 + ["append"] * 9 + ["tag"] * 10
    assert (commits[18], commits[-1]) == (f"append {LEDGER}", f"tag {LEDGER}")
    runs = two_runs()
    for number, after in enumerate(kills, start=1):
        runs.append(Run(10 + after, molecule=10 + after))
        write_runs(data_dir, runs[-1:], number=number)
        die_at(after, "spark_jobs.warehouse.on_commit", batch.build, data_dir, now=NOW)
        report = batch.build(data_dir, now=NOW)
        told = f"killed after {commits[9 + after]}"
        held = everything(data_dir)
        assert held["vqe_iterations"] == [e for r in runs for e in r.iteration_events()], told
        counts = {name: len(rows) for name, rows in held.items()}
        assert counts["vqe_results"] == counts["molecules"] == len(runs), told
        assert counts["hamiltonians"] == 5 * len(runs), told
        assert counts["timing_metrics"] == 6 * len(runs), told
        assert len(ledger(data_dir)) == 5 * (number + 1), told
        tagged = tags(data_dir)
        assert len({tuple(t) for t in tagged.values()}) == 1, told
        assert len(tagged[LEDGER]) == number + 1, told
        assert (report.batch_id is None) == (after >= 9), told  # once ledgered, a batch is not run again
        assert len(report.repaired) == (19 - after if after >= 9 else 0), told
    assert maintenance.verify(data_dir, now=NOW) == []


@pytest.mark.parametrize("after", [1, 5, 10])
def test_killed_while_tables_are_made_the_next_build_makes_the_rest(data_dir: Path, after: int) -> None:
    die_at(after, "spark_jobs.warehouse.on_commit", batch.build, data_dir, now=NOW)
    assert batch.build(data_dir, now=NOW).loaded == 5
    assert maintenance.verify(data_dir, now=NOW) == []
