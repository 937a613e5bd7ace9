"""A run that was stopped or killed goes on from its checkpoint, by the command line as by a child process."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from samples import ListSink
from waiting import eventually

from simulator.checkpoint import Checkpoint
from simulator.chemistry.molecules import load_molecule
from simulator.errors import InputError
from simulator.events.records import Iteration, Result, Run
from simulator.runs.checkpoints import CheckpointFiles, Keeper, SavedRun
from simulator.runs.session import Session
from simulator.settings import Settings
from simulator.tasks.vqe.task import VqeTask
from simulator.vqe.spec import make_spec


def session(tmp_path) -> Session:
    return Session(ListSink(), Settings(data_dir=tmp_path))


def stopped_at(session: Session, iteration: int):
    """An observer that asks for a stop at an iteration."""

    class Stop:
        def stage(self, name: str) -> None: ...

        def iteration(self, event: Iteration) -> None:
            session.stop_requested = event.iteration == iteration

    return Stop()


def run_in_two_parts(tmp_path, at: int, **given) -> tuple[Result, Checkpoint, Result, ListSink]:
    task = VqeTask(make_spec(load_molecule("lih"), **given))
    first = session(tmp_path)
    kept: list[Checkpoint] = []
    stopped = first.execute(task, "lih", observer=stopped_at(first, at), keep=kept.append)
    second = session(tmp_path)
    return stopped, kept[-1], second.execute(task, "lih", attempt=2, resumed=kept[-1]), second.sink


@pytest.mark.parametrize("optimizer", ["l-bfgs-b", "slsqp", "cobyla", "nelder-mead", "powell"])
def test_a_resumed_run_begins_at_the_best_point_and_says_where_it_came_from(tmp_path, optimizer):
    stopped, checkpoint, result, sink = run_in_two_parts(tmp_path, 1, optimizer=optimizer, max_iterations=60)
    energies = [e.energy for e in sink.of(Iteration)]
    assert stopped.status == "interrupted"
    assert energies[0] == pytest.approx(stopped.energy, abs=1e-12)
    assert result.energy <= stopped.energy + 1e-12
    assert (result.resumed_from, sink.of(Run)[0].resumed_from) == (stopped.run_id, stopped.run_id)
    assert checkpoint.run_id == stopped.run_id
    assert f"resumed from run {stopped.run_id} at its iteration {checkpoint.iteration}" in result.notes
    assert sink.of(Run)[0].attempt == 2


def test_spsa_goes_on_as_if_it_had_never_stopped(tmp_path):
    given = {"optimizer": "spsa", "max_iterations": 30, "tolerance": 1e-12}
    whole = session(tmp_path)
    whole.execute(VqeTask(make_spec(load_molecule("lih"), **given)), "lih")
    _, checkpoint, _, second = run_in_two_parts(tmp_path, 11, **given)
    assert checkpoint.iteration == 11
    at_once = [e.energy for e in whole.sink.of(Iteration)]
    resumed = [e.energy for e in second.of(Iteration)]
    assert np.allclose(resumed, at_once[11:], rtol=0, atol=1e-12)
    assert len(resumed) == len(at_once) - 11


def test_iterations_of_all_attempts_count_towards_the_limit(tmp_path):
    _, checkpoint, result, _ = run_in_two_parts(tmp_path, 3, max_iterations=5, tolerance=1e-12)
    assert checkpoint.iteration == 3
    assert result.iterations == 2
    assert result.convergence_reason == "max_iterations"


def test_a_limit_that_was_reached_before_leaves_nothing_to_do(tmp_path):
    task = VqeTask(make_spec(load_molecule("h2"), max_iterations=1))
    point = Checkpoint("an-earlier-run", 1, -1.1, (-0.1,))
    result = session(tmp_path).execute(task, "h2", resumed=point)
    assert (result.status, result.iterations, result.convergence_reason) == ("completed", 0, "max_iterations")


def test_a_checkpoint_of_another_ansatz_is_refused(tmp_path):
    task = VqeTask(make_spec(load_molecule("h2")))
    result = session(tmp_path).execute(task, "h2", resumed=Checkpoint("an-earlier-run", 1, -1.1, (0.1, 0.2)))
    assert result.status == "failed"
    assert result.error == (
        "the checkpoint of run an-earlier-run has 2 parameters and the ansatz has 1: it cannot be resumed"
    )


def test_a_keeper_stores_seldom_and_the_last_on_demand(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    stored: list[int] = []
    keeper = Keeper(lambda c: stored.append(c.iteration), 10.0)
    for i in range(25):
        now[0] = float(i)
        keeper(Checkpoint("run", i, 0.0, ()))
    assert stored == [10, 20]
    keeper.flush()
    keeper.flush()
    assert stored == [10, 20, 24]


def a_saved_run(run_id: str) -> SavedRun:
    return SavedRun(VqeTask(make_spec(load_molecule("h2"))), "h2", Checkpoint(run_id, 3, -1.1, (0.1,), {"k": 2**100}))


def test_files_give_back_what_they_were_given(tmp_path):
    files = CheckpointFiles(Settings(data_dir=tmp_path))
    saved = a_saved_run("0190-aa")
    files.save(saved)
    assert files.load("0190-aa") == files.load("aa") == files.load("last") == saved
    files.remove("0190-aa")
    assert not files.has("0190-aa")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("xyz", "run xyz: no checkpoint of it in"),
        ("", "run : no checkpoint of it in"),
        ("0190", "run 0190: several checkpoints of it in"),
        ("../secret", "run ../secret: no checkpoint of it in"),
    ],
)
def test_a_run_without_one_checkpoint_is_one_line(tmp_path, asked, says):
    files = CheckpointFiles(Settings(data_dir=tmp_path))
    (tmp_path / "secret.json").write_text("{}")
    for run_id in ("0190-aa", "0190-bb"):
        files.save(a_saved_run(run_id))
    with pytest.raises(InputError, match=says):
        files.load(asked)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"kind": "vqe"}', '{"kind": "vqe", "spec": {}, "name": "x", "checkpoint": 3}']
)
def test_a_damaged_checkpoint_is_one_line(tmp_path, text):
    files = CheckpointFiles(Settings(data_dir=tmp_path))
    files.folder.mkdir()
    (files.folder / "0190.json").write_text(text)
    with pytest.raises(InputError, match=r"checkpoint .*0190\.json: not a checkpoint that vqe run wrote"):
        files.load("0190")


def vqe(tmp_path, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "simulator.cli.main", *arguments], cwd=tmp_path, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env={**os.environ, **environment},
    )  # fmt: skip


# A search that never ends by itself: of 30 parameters, by the simplex, to a spread that rounding does not allow.
ENDLESS = ("run", "beh2", "--optimizer", "nelder-mead", "--tolerance", "1e-15", "--max-iterations", "10000000")


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_the_command_resumes_what_was_stopped_or_killed(tmp_path, end):
    process = vqe(tmp_path, *ENDLESS, "--json", VQE_CHECKPOINT_SECONDS="0.2")
    folder = tmp_path / "vqe-data" / "checkpoints"
    eventually(lambda: list(folder.glob("*.json")) or process.poll() is not None, what="a checkpoint")
    assert process.poll() is None, process.communicate()
    process.send_signal(end)
    _, err = process.communicate()
    (left,) = [path.stem for path in folder.glob("*.json")]
    saved = CheckpointFiles(Settings(data_dir=tmp_path / "vqe-data")).load("last")
    if end == signal.SIGINT:
        assert process.returncode == 130
        assert f"vqe: go on with it by vqe run --resume {left}" in err
    written = lambda: set((tmp_path / "vqe-data" / "raw").glob("vqe_iteration_v1/*/.*.part"))  # noqa: E731
    of_the_killed = written()
    again = vqe(tmp_path, "run", "--resume", left, "--json", VQE_CHECKPOINT_SECONDS="3600")
    eventually(lambda: written() - of_the_killed or again.poll() is not None, what="iterations")
    assert again.poll() is None, again.communicate()
    time.sleep(0.5)
    again.send_signal(signal.SIGINT)
    out, err = again.communicate()
    result = json.loads(out)
    assert again.returncode == 130, err
    assert result["energy"] <= saved.checkpoint.energy + 1e-9
    assert any(note.startswith(f"resumed from run {left}") for note in result["notes"])
    assert [path.stem for path in folder.glob("*.json")] == [result["run_id"]]  # the newer takes the older's place


def test_a_run_that_came_to_its_end_leaves_no_checkpoint(tmp_path):
    process = vqe(tmp_path, "run", "h2", "--no-tables", VQE_CHECKPOINT_SECONDS="0.000001")
    process.communicate()
    assert process.returncode == 0
    assert list((tmp_path / "vqe-data" / "checkpoints").glob("*")) == []


@pytest.mark.parametrize(
    ("beside", "what"), [(("h2",), "a molecule"), (("--basis", "6-31g"), "--basis"), (("--repeat", "2"), "--repeat")]
)
def test_an_option_that_resuming_would_leave_unused_is_refused(tmp_path, beside, what):
    process = vqe(tmp_path, "run", "--resume", "last", *beside)
    _, err = process.communicate()
    assert (process.returncode, err) == (
        2, f"vqe: --resume goes on with the run's own specification and takes no {what}\n",
    )  # fmt: skip
