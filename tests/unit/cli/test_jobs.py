"""`vqe jobs` lists, shows, cancels and retries what the queue holds."""

import json

import pytest

from simulator.cli.main import _run
from simulator.queue import Checkpoint, JobQueue, NewJob
from simulator.settings import load_settings


@pytest.fixture
def ids(tmp_path, monkeypatch) -> list[str]:
    """A completed, a failed, a running and two waiting jobs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VQE_QUEUE_URI", raising=False)
    with JobQueue.open(load_settings()) as queue:
        new = [
            NewJob("vqe", f"s{i}", '{"basis": "sto-3g"}', f"h{i}", owner="ann", sweep_id="s" if i > 2 else None)
            for i in range(5)
        ]
        found = queue.submit(new).job_ids
        for i in range(3):
            claim = queue.claim("w", lease_seconds=3600)
            assert claim is not None
            if i == 0:
                queue.complete(claim, run_id="run-0", summary={"energy": -1.137306})
            elif i == 1:
                queue.fail(claim, "SCF [/b] does not converge")
            else:
                queue.save_checkpoint(claim, Checkpoint("run-2", 7, -1.05, (0.1, 0.2)))
        return found


def states(ids: list[str]) -> list[str]:
    with JobQueue.open(load_settings()) as queue:
        return [queue.job(i).state for i in ids]


def test_list_shows_jobs_with_their_energies_and_counts(ids, capsys):
    assert _run(["jobs", "list"]) == 0
    out = capsys.readouterr().out
    assert "-1.13730600" in out
    assert "-1.05000000" in out
    assert "SCF [/b] does not converge" in out
    assert "2 waiting, 1 running, 1 completed, 1 failed" in out
    assert all(i[-12:] in out for i in ids)


def test_list_prints_one_object_a_line_of_the_jobs_that_are_meant(ids, capsys):
    for arguments, wanted in (
        (["--state", "waiting"], ids[:2:-1]), (["--sweep", "s", "--limit", "1"], ids[4:]), (["--name", "h1"], ids[1:2]),
        (["--owner", "bob"], []), (["--kind", "vqe", "--state", "failed", "--state", "completed"], ids[1::-1]),
        (["--since", "1h"], ids[::-1]), (["--since", "2999-01-01"], []),
    ):  # fmt: skip
        assert _run(["jobs", "list", "--json", *arguments]) == 0
        assert [json.loads(line)["job_id"] for line in capsys.readouterr().out.splitlines()] == wanted


def test_show_tells_all_of_a_job_by_the_end_of_its_id(ids, capsys):
    assert _run(["jobs", "show", ids[2][-9:]]) == 0
    out = capsys.readouterr().out
    assert ids[2] in out
    assert "sto-3g" in out
    assert "iteration 7, -1.0500000000 Ha, 2 parameters" in out
    assert _run(["jobs", "show", ids[0], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["spec"], found["summary"]) == ({"basis": "sto-3g"}, {"energy": -1.137306})


def test_cancel_and_retry_tell_what_they_did(ids, capsys):
    assert _run(["jobs", "cancel", *ids]) == 0
    assert capsys.readouterr().out == "2 waiting jobs cancelled, 1 running ones asked to stop.\n"
    assert states(ids) == ["completed", "failed", "running", "cancelled", "cancelled"]
    assert _run(["jobs", "retry", "--sweep", "s"]) == 0
    assert _run(["jobs", "retry", ids[1]]) == 0
    assert capsys.readouterr().out == "2 jobs wait again.\n1 jobs wait again.\n"
    assert states(ids) == ["completed", "waiting", "running", "waiting", "waiting"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["show", "ffff"], "no job ffff"), (["cancel"], "which jobs"), (["retry"], "which jobs"),
     (["cancel", "ffff", "--sweep", "s"], "either"), (["list", "--state", "lost"], "'lost' is not one of"),
     (["list", "--since", "soon"], "--since 'soon'"), (["list", "--data-dir", "elsewhere"], "no work queue"),
     (["show", "0"], "several jobs")],
)  # fmt: skip
def test_what_cannot_be_meant_is_one_line_and_changes_nothing(ids, capsys, arguments, says):
    before = states(ids)
    assert _run(["jobs", *arguments]) == 2
    found = capsys.readouterr()
    assert says in found.err
    assert (found.err.count("\n"), found.out) == (1, "")
    assert states(ids) == before


def test_watch_shows_what_runs(ids):
    from simulator.cli.console import PlainConsole
    from simulator.cli.jobs import _picture
    from simulator.queue import JobFilter

    console = PlainConsole(width=160)
    with JobQueue.open(load_settings()) as queue, console.capture() as captured:
        console.print(_picture(queue, JobFilter(), 50))
    shown = captured.get()
    assert "2 waiting, 1 running" in shown
    assert "longest wait" in shown
    assert "-1.05000000" in shown
    assert ids[2][-12:] in shown
    assert ids[3][-12:] not in shown


def test_migrate_makes_the_tables(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VQE_QUEUE_URI", raising=False)
    assert _run(["jobs", "migrate"]) == 0
    assert _run(["jobs", "list"]) == 0
    assert "No jobs." in capsys.readouterr().out
