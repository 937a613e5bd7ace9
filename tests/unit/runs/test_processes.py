"""Child processes: one that dies is replaced, none outlives its parent, and a stop reaches them all."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from simulator.chemistry.molecules import load_molecule
from simulator.errors import VqeError
from simulator.runs.child import Child, ChildJob
from simulator.settings import Settings
from simulator.vqe.spec import make_spec

VQE = [sys.executable, "-m", "simulator.cli.main"]
LONG = """
name: long
molecules: [h2o, n2]
settings: {optimizer: cobyla, max_iterations: 1000000, tolerance: 1e-9}
"""
H2 = ChildJob(make_spec(load_molecule("h2")).canonical_json(), "h2", None)


def eventually(done, seconds=120.0):
    end = time.monotonic() + seconds
    while not (found := done()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)
    return found


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
def sweep(tmp_path):
    """Starts `vqe sweep` of two long runs in two children, and gives it and them once both iterate."""
    (tmp_path / "long.yaml").write_text(LONG)
    started: list[subprocess.Popen] = []
    known: list[psutil.Process] = []

    def iterating(data: str) -> bool:
        parts = tmp_path.glob(f"{data}/raw/vqe_iteration_v1/partition=local/.*.part")
        return sum(p.stat().st_size > 9_000 for p in parts) == 2

    def start(data: str) -> tuple[subprocess.Popen, list[psutil.Process]]:
        parent = subprocess.Popen(
            [*VQE, "sweep", "long.yaml", "--workers", "2", "--data-dir", data, "--json"],
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(parent)
        eventually(lambda: parent.poll() is not None or iterating(data))
        children = psutil.Process(parent.pid).children(recursive=True)
        known.extend(children)
        return parent, children

    yield start
    for process in [*started, *known]:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    for process in started:
        process.communicate()


def gone(processes) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


def test_no_child_outlives_a_parent_that_was_killed_and_a_stop_reaches_every_child(sweep, tmp_path):
    parent, children = sweep("killed")
    assert len(children) >= 2
    parent.kill()
    parent.wait()
    eventually(lambda: gone(children), 10)
    assert not list(tmp_path.glob("killed/raw/vqe_result_v1/*/*"))

    parent, children = sweep("stopped")
    parent.send_signal(signal.SIGTERM)
    out, err = parent.communicate(timeout=120)
    assert parent.returncode == 130, err
    eventually(lambda: gone(children), 10)  # multiprocessing's resource tracker ends a moment after its parent
    runs = [json.loads(line) for line in out.splitlines()]
    assert [r["status"] for r in runs] == ["interrupted", "interrupted"]
    assert "Traceback" not in err
    asked = [
        *VQE,
        "sql",
        "select count(*) n, min(status) s from vqe_results",
        "--format",
        "json",
        "--data-dir",
        "stopped",
    ]
    told = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(told.stdout) == [{"n": 2, "s": "interrupted"}]


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.broad)])
def test_a_stop_before_the_first_run_of_a_sweep_leaves_no_child(tmp_path, number):
    (tmp_path / "long.yaml").write_text(LONG)
    parent = subprocess.Popen(
        [*VQE, "sweep", "long.yaml", "--workers", "2", "--data-dir", "data"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    me = psutil.Process(parent.pid)
    eventually(lambda: parent.poll() is not None or me.children())
    children = me.children(recursive=True)
    parent.send_signal(number)
    _, err = parent.communicate(timeout=120)
    assert parent.returncode == 130, err
    eventually(lambda: gone(children), 10)  # multiprocessing's resource tracker ends a moment after its parent
    assert "Traceback" not in err
