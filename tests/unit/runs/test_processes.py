"""Child processes: one that dies is replaced, none outlives its parent, and a stop reaches them all."""

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading

import psutil
import pytest
from waiting import eventually, signalled

from simulator.chemistry.molecules import load_molecule
from simulator.cli.main import _run
from simulator.errors import VqeError
from simulator.runs.child import Child, ChildJob
from simulator.settings import Settings
from simulator.vqe.spec import make_spec

VQE = [sys.executable, "-m", "simulator.cli.main"]
LONG = """
name: long
molecules: [h2, heh+]
settings: {optimizer: spsa, max_iterations: 1000000, optimizer_options: {window: 100000}}
"""
H2 = ChildJob("vqe", make_spec(load_molecule("h2")).canonical_json(), "h2", None)


@pytest.fixture
def child(tmp_path):
    child = Child(Settings(data_dir=tmp_path / "data"))
    yield child
    child.kill()


def test_an_idle_child_that_died_is_replaced_before_it_gets_a_job(child):
    first = child.process.pid
    os.kill(first, signal.SIGKILL)
    child.process.join()
    child.submit(H2)
    assert child.process.pid != first
    assert eventually(child.answer).completed


def test_a_child_does_not_load_its_parents_main_module(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\nprint('loaded')\n"
        "from simulator.runs.child import Child\nfrom simulator.settings import Settings\n"
        f"child = Child(Settings(data_dir=Path({str(tmp_path / 'data')!r})))\nchild.close()\n"
        "print(child.process.exitcode, Path(__file__).name)"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert done.stdout.split() == ["loaded", "0", "script.py"], done.stderr


def test_a_child_that_dies_as_it_gets_its_job_is_replaced_too(child, monkeypatch):
    """It may die between the look whether it is alive and the job that is sent."""
    os.kill(child.process.pid, signal.SIGKILL)
    child.process.join()
    alive, looks = child.process.is_alive, []

    def late(*_):
        looks.append(1)
        return len(looks) == 1 or alive()

    monkeypatch.setattr(child.process, "is_alive", late)
    child.submit(H2)
    assert child.job is not None
    assert child.process.is_alive()


def test_a_child_that_dies_in_a_run_costs_that_run_only(child):
    child.submit(H2)
    os.kill(child.process.pid, signal.SIGKILL)
    answer = eventually(child.answer)
    assert (answer.completed, answer.exit_code) == (False, 1)
    assert answer.error == "the process that ran it was killed by signal SIGKILL"
    child.submit(H2)
    assert eventually(child.answer).completed


def test_a_child_that_cannot_work_says_why_once_and_blames_no_job(tmp_path, capfd):
    (tmp_path / "file").write_text("")
    child = Child(Settings(data_dir=tmp_path / "file"))
    try:
        with pytest.raises(VqeError, match="cannot be written: Not a directory") as caught:  # noqa: PT012 (whichever tells first)
            for _ in range(2):
                child.submit(H2)
                eventually(child.answer)
        assert "\n" not in str(caught.value)
    finally:
        child.kill()
    assert capfd.readouterr().err == ""


def test_a_stop_that_comes_before_a_child_is_ready_is_kept_for_its_first_job(child):
    child.interrupt()  # it is still loading its modules: the signal would end it
    child.submit(H2)
    answer = eventually(child.answer)
    assert (answer.exit_code, answer.summary["status"]) == (130, "interrupted")


@pytest.mark.broad
def test_a_child_started_by_a_thread_outlives_that_thread(tmp_path):
    """Linux tells a child that its parent has died when the thread that started it has ended."""
    started = []

    def start() -> None:
        started.append(Child(Settings(data_dir=tmp_path)))
        started[0].submit(H2)
        eventually(started[0].answer)  # it has asked the kernel by now

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    (child,) = started
    try:
        first = child.process.pid
        child.submit(H2)
        assert eventually(child.answer).completed
        assert child.process.pid == first
    finally:
        child.kill()


@pytest.fixture
def iterating(tmp_path, monkeypatch):
    """Whether so many runs of the sweep in `long.yaml` iterate."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "long.yaml").write_text(LONG)

    def found(runs: int) -> bool:
        parts = tmp_path.glob("vqe-data/raw/vqe_iteration_v1/partition=local/.*.part")
        return sum(p.stat().st_size > 9_000 for p in parts) == runs

    return found


def sweep(capsys) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the sweep in `long.yaml`, two runs at a time."""
    capsys.readouterr()
    code = _run(["sweep", "long.yaml", "--workers", "2", "--json"])
    return code, *capsys.readouterr()


def gone(processes) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


def test_no_child_outlives_a_parent_that_was_killed(iterating, tmp_path):
    parent = subprocess.Popen(
        [*VQE, "sweep", "long.yaml", "--workers", "1", "--json"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    children = []
    try:
        eventually(lambda: parent.poll() is not None or iterating(1))
        children = psutil.Process(parent.pid).children(recursive=True)
        assert children
        parent.kill()
        parent.wait()
        eventually(lambda: gone(children), 30)
    finally:
        for process in [parent, *children]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        parent.wait()
    assert not list(tmp_path.glob("vqe-data/raw/vqe_result_v1/*/*"))


def test_a_stop_reaches_every_child_of_a_sweep_and_what_ran_is_in_the_tables(iterating, capsys):
    children = []

    def both_iterate() -> bool:
        if iterating(2):
            children[:] = started()
        return bool(children)

    with signalled(signal.SIGTERM, when=both_iterate):
        code, out, err = sweep(capsys)
    assert code == 130, err
    assert len(children) == 2
    eventually(lambda: gone(children), 30)
    runs = [json.loads(line) for line in out.splitlines()]
    assert [r["status"] for r in runs] == ["interrupted", "interrupted"]
    assert "Traceback" not in err
    assert _run(["sql", "select count(*) n, min(status) s from vqe_results", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"n": 2, "s": "interrupted"}]


def started() -> list[psutil.Process]:
    """This process's children that run specifications."""
    return [psutil.Process(child.pid) for child in multiprocessing.active_children()]


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.broad)])
def test_a_stop_before_the_first_run_of_a_sweep_leaves_no_child(iterating, capsys, number):
    children = []

    def begun() -> bool:
        children[:] = started()
        return bool(children)

    with signalled(number, when=begun):
        code, _, err = sweep(capsys)
    assert code == 130, err
    eventually(lambda: gone(children), 30)
    assert "Traceback" not in err
