"""Jobs of the queue are worked off whatever dies: with real processes, a real SQLite queue and real runs."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from raw_events import results
from waiting import eventually

from simulator.chemistry.molecules import load_molecule
from simulator.errors import StorageError
from simulator.queue import JobQueue, NewJob
from simulator.runs import pool as pool_module
from simulator.runs.pool import Pool, PoolLimits
from simulator.runs.session import Session
from simulator.settings import Settings
from simulator.sinks.file import FileSink
from simulator.tasks.vqe.task import VqeTask
from simulator.vqe.spec import RunSpec, make_spec

ENDLESS = {"optimizer": "nelder-mead", "tolerance": 1e-15, "max_iterations": 10_000_000}
"""A search that never ends by itself: to a spread of the simplex that rounding does not allow."""


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(data_dir=tmp_path / "vqe-data")


@pytest.fixture
def queue(settings):
    with JobQueue.open(settings) as opened:
        yield opened


def asked(spec: RunSpec, name: str = "h2", **given) -> NewJob:
    return NewJob("vqe", spec.spec_id, spec.canonical_json(), name, device=spec.device, **given)


def h2(**given) -> RunSpec:
    return make_spec(load_molecule("h2"), **given)


@contextlib.contextmanager
def worker(settings: Settings, *arguments: str, **environment: str):
    process = subprocess.Popen(
        [sys.executable, "-m", "simulator.cli.main", "worker", "--data-dir", str(settings.data_dir), *arguments],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        env={**os.environ, "VQE_CHECKPOINT_SECONDS": "0.2", **environment},
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def child_of(process: subprocess.Popen) -> int:
    """The process that runs VQE: the one of the worker's children that is not multiprocessing's resource tracker."""
    for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return int(pid)
    raise AssertionError("the worker has no child")


def test_a_killed_workers_job_goes_on_from_its_checkpoint(settings, queue):
    (job_id,) = queue.submit([asked(make_spec(load_molecule("beh2"), **ENDLESS), "beh2")]).job_ids
    with worker(settings, "--lease-seconds", "2") as first:
        saved = eventually(lambda: queue.job(job_id).checkpoint, what="a checkpoint")
        os.kill(first.pid, signal.SIGKILL)
    assert queue.job(job_id).state == "running"
    with worker(settings, "--lease-seconds", "30") as second:
        eventually(lambda: queue.job(job_id).attempt == 2, what="the job taken again")
        eventually(
            lambda: queue.job(job_id).checkpoint.run_id != saved.run_id, what="a checkpoint of the second attempt"
        )
        second.send_signal(signal.SIGTERM)
        out, err = second.communicate()
    assert second.returncode == 0, err
    assert "1 returned" in out
    (result,) = results(settings.data_dir)
    assert (result["resumed_from"], result["attempt"], result["status"]) == (saved.run_id, 2, "interrupted")
    assert result["energy"] <= saved.energy + 1e-9
    assert queue.job(job_id).state == "waiting"
    assert queue.job(job_id).attempt == 1, "the attempt that was given back does not count"


def test_a_process_that_dies_each_time_makes_its_job_dead_and_the_next_runs(settings, queue):
    poison, good = queue.submit(
        [asked(make_spec(load_molecule("beh2"), **ENDLESS), "beh2", priority=9), asked(h2())]
    ).job_ids
    with worker(settings) as process:
        before = None
        for attempt in (1, 2, 3):

            def begun(attempt=attempt, before=before) -> str | None:
                job = queue.job(poison)
                run_id = job.checkpoint.run_id if job.checkpoint else None
                return run_id if job.attempt == attempt and run_id != before else None

            before = eventually(begun, what=f"a checkpoint of attempt {attempt}")
            os.kill(child_of(process), signal.SIGKILL)
        eventually(lambda: queue.job(good).state == "completed", what="the job behind it")
    dead = queue.job(poison)
    assert dead.state == "dead"
    assert (
        dead.error == "started 3 times without a result; the last: the process that ran it was killed by signal SIGKILL"
    )


def test_a_result_that_its_worker_did_not_tell_of_is_recognised(settings, queue):
    spec = h2()
    (job_id,) = queue.submit([asked(spec)]).job_ids
    claim = queue.claim("a worker that dies", lease_seconds=0.01)
    sink = FileSink(settings.raw_dir)
    run = Session(sink, settings).execute(VqeTask(spec), "h2")
    sink.close()
    time.sleep(0.1)
    counts = Pool(settings, queue).run(PoolLimits(max_jobs=1))
    assert (counts.skipped, counts.done) == (1, 0)
    job = queue.job(job_id)
    assert (job.state, job.run_id, claim.token) == ("completed", run.run_id, 1)
    assert len(results(settings.data_dir)) == 1


def test_a_forced_job_does_not_take_an_older_result_for_its_own(settings, queue):
    spec = h2()
    sink = FileSink(settings.raw_dir)
    Session(sink, settings).execute(VqeTask(spec), "h2")
    sink.close()
    time.sleep(0.01)
    queue.submit([asked(spec, force=True)])
    queue.claim("a worker that dies", lease_seconds=0.01)
    time.sleep(0.1)
    counts = Pool(settings, queue).run(PoolLimits(max_jobs=1))
    assert (counts.skipped, counts.done) == (0, 1)
    assert len(results(settings.data_dir)) == 2


def test_a_cancelled_run_stops_within_a_second_and_keeps_what_ran(settings, queue):
    (job_id,) = queue.submit([asked(make_spec(load_molecule("beh2"), **ENDLESS), "beh2")]).job_ids
    with worker(settings):
        eventually(lambda: queue.job(job_id).checkpoint, what="iterations")
        began = time.monotonic()
        queue.cancel([job_id])
        eventually(lambda: queue.job(job_id).state == "cancelled", 20, "the end")
        seconds = time.monotonic() - began
    (result,) = results(settings.data_dir)
    job = queue.job(job_id)
    assert (result["status"], result["run_id"]) == ("interrupted", job.run_id)
    assert result["counts"]["iterations"] > 0
    assert job.summary["status"] == "interrupted"
    assert seconds < 10, "a second on a machine that is free; others use this one"


def test_a_worker_that_slept_past_its_lease_tells_the_queue_nothing(settings, queue):
    (job_id,) = queue.submit([asked(make_spec(load_molecule("beh2"), **ENDLESS), "beh2")]).job_ids
    with worker(settings, "--lease-seconds", "2") as sleeper:
        eventually(lambda: queue.job(job_id).checkpoint, what="a run under way")
        os.kill(sleeper.pid, signal.SIGSTOP)
        with worker(settings, "--lease-seconds", "60") as other:
            eventually(lambda: queue.job(job_id).attempt == 2, what="the job taken by another")
            token = queue.job(job_id).token
            os.kill(sleeper.pid, signal.SIGCONT)
            eventually(
                lambda: any(r["attempt"] == 1 for r in results(settings.data_dir)), what="the sleeper's run stopped"
            )
            assert (queue.job(job_id).state, queue.job(job_id).token) == ("running", token)
            other.send_signal(signal.SIGTERM)
            other.communicate()
        sleeper.send_signal(signal.SIGTERM)
        _, err = sleeper.communicate()
    assert "lease lost" in err


def test_jobs_that_are_wrong_fail_with_their_reason_and_the_worker_goes_on(settings, queue):
    spec = h2(active_electrons=2, active_orbitals=9)  # more orbitals than the basis has
    good = h2()
    bad_id, unknown_id, good_id = queue.submit(
        [asked(spec), NewJob("sorcery", "0" * 64, "{}", "x"), asked(good)]
    ).job_ids
    counts = Pool(settings, queue).run(PoolLimits(idle_seconds=0))
    assert (counts.failed, counts.done) == (2, 1)
    assert "H2 in sto-3g has 2 orbitals" in queue.job(bad_id).error
    assert queue.job(unknown_id).error == "there is no task of kind 'sorcery' (use one of vqe)"
    assert queue.job(good_id).summary["energy"] == pytest.approx(-1.1373060358)


def test_a_full_disk_is_the_workers_fault_and_no_jobs(settings, queue, monkeypatch):
    (job_id,) = queue.submit([asked(h2())]).job_ids
    real = shutil.disk_usage
    monkeypatch.setattr(pool_module.shutil, "disk_usage", lambda path: real(path)._replace(free=1))
    pool = Pool(settings, queue)
    monkeypatch.setattr(pool, "_ends", lambda *_: pool.problem is not None)
    pool.run()
    assert "is full: 1 bytes are free" in pool.problem
    assert (queue.job(job_id).state, queue.job(job_id).attempt) == ("waiting", 0)


def test_a_sink_that_cannot_write_gives_the_job_back_uncounted(settings, queue, monkeypatch):
    (job_id,) = queue.submit([asked(h2())]).job_ids
    settings.raw_dir.parent.mkdir(parents=True, exist_ok=True)
    settings.raw_dir.write_text("a file where the folder is to be")
    with pytest.raises(StorageError, match="cannot be written"):
        Pool(settings, queue, patient=False).run()
    job = queue.job(job_id)
    assert (job.state, job.attempt) == ("waiting", 0)
    assert "cannot be written" in job.error


def test_what_does_not_fit_beside_others_gets_the_machine_for_itself(settings, queue, monkeypatch):
    """The kernel of the choice; that a run which does not fit says so is held where memory is checked."""
    queue.submit([asked(h2(seed=i)) for i in range(2)])
    pool = Pool(settings, queue, workers=2)
    seen: list[int] = []
    begin = pool._begin

    def counted(slot, claim):
        seen.append(len(pool.running))
        begin(slot, claim)

    monkeypatch.setattr(pool, "_begin", counted)
    take = pool._take_answer
    refused: list[str] = []

    def does_not_fit_once(slot, claim, answer):
        if not refused and len(pool.running) > 1:
            refused.append(claim.job.job_id)
            answer = type(answer)(
                **{**vars(answer), "does_not_fit": True, "exit_code": 2, "summary": None, "delivered": True}
            )
        take(slot, claim, answer)

    monkeypatch.setattr(pool, "_take_answer", does_not_fit_once)
    counts = pool.run(PoolLimits(idle_seconds=0))
    assert (counts.done, counts.failed, len(refused)) == (2, 0, 1)
    assert seen == [0, 1, 0], "the third begin is the refused one's, with nothing beside it"


def vqe(tmp_path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "simulator.cli.main", *arguments], cwd=tmp_path, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip


def test_an_interrupted_sweep_goes_on_where_it_stopped(tmp_path, settings):
    (tmp_path / "long.yaml").write_text(
        "name: long\nmolecules: [lih, beh2]\nsettings: {optimizer: nelder-mead, tolerance: 1e-15, max_iterations: 10000000}\n"
    )
    first = vqe(tmp_path, "sweep", "long.yaml", "--workers", "2", "--json")
    eventually(lambda: len(list(settings.raw_dir.glob("vqe_iteration_v1/*/.*.part"))) == 2, what="both run")
    time.sleep(1)
    first.send_signal(signal.SIGINT)
    _, err = first.communicate()
    assert first.returncode == 130, err
    with JobQueue.open(settings) as queue:
        assert Counter(job.state for job in queue.jobs()) == {"waiting": 2}
        assert all(job.checkpoint_iteration is not None for job in queue.jobs())
    second = vqe(tmp_path, "sweep", "long.yaml", "--workers", "2", "--json")
    eventually(lambda: len(list(settings.raw_dir.glob("vqe_iteration_v1/*/.*.part"))) == 2, what="both run again")
    time.sleep(1)
    second.send_signal(signal.SIGINT)
    out, err = second.communicate()
    found = [json.loads(line) for line in out.splitlines()]
    assert len(found) == 2, err
    assert all(any(note.startswith("resumed from run") for note in run["notes"]) for run in found)


def test_a_sweep_takes_what_another_left_waiting(tmp_path, settings, queue):
    spec = h2()
    (job_id,) = queue.submit([asked(spec, sweep_id="another")]).job_ids
    (tmp_path / "mine.yaml").write_text("name: mine\nmolecules: [h2]\n")
    mine = vqe(tmp_path, "sweep", "mine.yaml")
    out, err = mine.communicate()
    assert mine.returncode == 0, err
    assert "mine: 1 runs completed" in out
    assert (queue.job(job_id).state, queue.job(job_id).sweep_id) == ("completed", "mine")


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        ("name: good\nmolecules: [h2]\n", 0, "good: all 1 jobs completed"),
        ("name: bad\nmolecules: [h2]\nsettings: {active_space: '2e,9o'}\n", 1, "bad: h2 failed: "),
    ],
)
def test_waiting_for_jobs_ends_at_the_outcome_that_decides(tmp_path, settings, content, code, says):
    (tmp_path / "asked.yaml").write_text(content)
    waiting = vqe(tmp_path, "submit", "asked.yaml", "--wait")
    with JobQueue.open(settings) as queue:
        eventually(queue.counts, what="the job in the queue")
        Pool(settings, queue).run(PoolLimits(max_jobs=1))
    out, err = waiting.communicate()
    assert (waiting.returncode, says in out + err) == (code, True), out + err
