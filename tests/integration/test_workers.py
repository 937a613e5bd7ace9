"""Sweeps and workers whose events go to the real broker: every specification has a completed result, and none is run for nothing."""

import json
import signal
import time
from collections import Counter
from contextlib import ExitStack

import pytest

from tests.services.probes import eventually

from .platform import json_lines

pytest_plugins = ["tests.services.fixtures"]

SMALL = """
name: small
molecules: [h2, heh+, {molecule: h2, scale: [0.9, 1.1]}]
seeds: 2
"""
SLOW = """
name: slow
molecules: [{molecule: h2o, scale: [0.98, 1.0, 1.02]}]
settings: {optimizer: cobyla, max_iterations: 2000, tolerance: 1e-9}
seeds: 2
"""


@pytest.fixture
def platform(platform):
    """Every command of these tests sends its events to the broker."""
    platform.environment["VQE_SINK"] = "kafka"
    return platform


@pytest.fixture
def experiment(tmp_path):
    def write(text):
        path = tmp_path / "experiment.yaml"
        path.write_text(text)
        return str(path)

    return write


def completed(platform) -> Counter:
    """Completed results by spec_id, each run counted once."""
    runs = {str(r["run_id"]): r["spec_id"] for r in platform.records("vqe_result_v") if r["status"] == "completed"}
    return Counter(runs.values())


def test_a_sweep_runs_locally_skips_what_is_completed_and_resumes(platform, experiment):
    path = experiment(SMALL)
    plan = platform.vqe("sweep", path, "--dry-run").stdout
    assert "8 runs, 0 completed, 8 to run" in plan
    done = platform.vqe("sweep", path, "--workers", "2", "--json")
    assert len(json_lines(done.stdout)) == 8
    again = platform.vqe("sweep", path, "--json")
    assert json_lines(again.stdout) == []
    assert "all 8 runs are completed" in again.stderr
    forced = platform.vqe("sweep", path, "--force", "--json")
    assert len(json_lines(forced.stdout)) == 8


def test_two_workers_share_a_sweep(platform, experiment):
    assert "8 jobs in the queue" in platform.vqe("sweep", experiment(SMALL), "--submit").stdout
    with ExitStack() as workers:
        processes = [
            workers.enter_context(
                platform.started("worker", "--idle-exit", "15", VQE_DATA_DIR=f"{platform.data_dir}-{i}")
            )
            for i in range(2)
        ]
        outs = [process.communicate(timeout=240) for process in processes]
    assert Counter(completed(platform).values()) == {1: 8}
    assert len(platform.check_promises()) == 8
    done = [int(out.split(" jobs done")[0].split()[-1]) for out, _ in outs]
    assert sum(done) == 8
    assert all(r["sweep_id"] == "small" for r in platform.records("vqe_result_v"))


def test_a_job_submitted_again_is_known_unless_forced(platform, experiment):
    path = experiment("name: one\nmolecules: [h2]\n")
    platform.vqe("submit", path)
    assert "1 jobs done" in platform.vqe("worker", "--max-jobs", "1").stdout
    assert "0 jobs in the queue, 1 known before" in platform.vqe("submit", path).stdout
    assert "0 jobs done" in platform.vqe("worker", "--idle-exit", "0").stdout
    platform.vqe("submit", path, "--force")
    assert "1 jobs done" in platform.vqe("worker", "--max-jobs", "1").stdout
    assert list(completed(platform).values()) == [2]


def test_a_worker_without_a_gpu_leaves_the_jobs_for_gpus_to_others(platform, experiment):
    path = experiment("name: two\nmolecules: [h2]\nsettings: {engine: aer}\nmatrix: {device: [cpu, gpu]}\n")
    assert "2 jobs in the queue" in platform.vqe("submit", path).stdout
    on_gpu = platform.vqe("worker", "--device", "gpu", "--idle-exit", "0", check=2)
    assert "a worker for GPUs cannot run here" in on_gpu.stderr
    assert "1 jobs done" in platform.vqe("worker", "--idle-exit", "0").stdout
    plan = json.loads(platform.vqe("sweep", path, "--dry-run", "--json").stdout)
    assert (plan["completed"], plan["jobs"]) == (1, {"waiting": 1})
    wrong = platform.vqe("worker", "--device", "tpu", check=2)
    assert "use cpu, gpu or all" in wrong.stderr


def test_a_worker_killed_in_the_middle_of_a_sweep_costs_no_result_and_doubles_none(platform, experiment):
    platform.vqe("submit", experiment(SLOW))
    first = ("worker", "--lease-seconds", "6")
    with platform.started(*first, VQE_DATA_DIR=f"{platform.data_dir}-a") as victim:
        eventually(lambda: sum(completed(platform).values()) >= 1, 120, "a first result")
        eventually(
            lambda: len(platform.records("vqe_run_v")) > len(platform.records("vqe_result_v")), 60, "a run under way"
        )
        victim.send_signal(signal.SIGKILL)
        victim.wait()
    done = platform.vqe("worker", "--lease-seconds", "6", "--idle-exit", "20", VQE_DATA_DIR=f"{platform.data_dir}-b")
    assert "returned" in done.stdout, done.stderr
    platform.vqe("replay", VQE_DATA_DIR=f"{platform.data_dir}-a", check=None)
    assert len(completed(platform)) == 6
    assert set(completed(platform).values()) == {1}, "the child of the killed worker ended with it"
    platform.check_promises()


def test_a_stalled_worker_and_its_successor_keep_every_run(platform, experiment):
    platform.vqe("submit", experiment(SLOW))
    with platform.started(
        "worker", "--lease-seconds", "6", "--max-jobs", "6", VQE_DATA_DIR=f"{platform.data_dir}-a"
    ) as stalled:
        eventually(lambda: platform.records("vqe_run_v"), 120, "a run under way")
        stalled.send_signal(signal.SIGSTOP)
        try:
            platform.vqe("worker", "--lease-seconds", "6", "--idle-exit", "20", VQE_DATA_DIR=f"{platform.data_dir}-b")
        finally:
            stalled.send_signal(signal.SIGCONT)
        eventually(lambda: len(completed(platform)) == 6, 60, "all results")
        time.sleep(10)
        stalled.send_signal(signal.SIGTERM)
        stalled.communicate(timeout=90)
    assert len(completed(platform)) == 6, "each specification at least once"
    assert sum(completed(platform).values()) <= 8, "and only what was under way twice"
    platform.check_promises()


def test_sigterm_gives_the_job_back(platform, experiment):
    platform.vqe(
        "submit",
        experiment(
            "name: back\nmolecules: [n2]\nsettings: {optimizer: cobyla, max_iterations: 20000, tolerance: 1e-9}\n"
        ),
    )
    with platform.started("worker", VQE_DATA_DIR=f"{platform.data_dir}-a") as worker:
        eventually(lambda: len(platform.records("vqe_iteration_v")) > 2, 120, "iterations")
        worker.send_signal(signal.SIGTERM)
        out, err = worker.communicate(timeout=90)
    assert worker.returncode == 0, err
    assert "1 returned" in out
    assert [r["status"] for r in platform.records("vqe_result_v")] == ["interrupted"]
    with platform.started("worker", "--max-jobs", "1") as worker:
        eventually(lambda: len(platform.records("vqe_run_v")) == 2, 120, "the job taken again")
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=90)


def test_a_result_that_kafka_does_not_take_keeps_its_job_until_it_does(platform, experiment, stack):
    platform.vqe("submit", experiment("name: away\nmolecules: [h2]\n"))
    stack.kill("kafka")
    try:
        with platform.started("worker", "--max-jobs", "1", "--lease-seconds", "4", VQE_DELIVERY_SECONDS="1") as worker:
            time.sleep(8)  # two leases
            plan = json.loads(platform.vqe("jobs", "list", "--json").stdout)
            assert (plan["state"], plan["attempt"]) == ("running", 1), "its lease was renewed all the while"
            assert worker.poll() is None
            stack.start("kafka")
            out, err = worker.communicate(timeout=120)
    finally:
        stack.start("kafka")
    assert "1 jobs done" in out, err
    assert list(completed(platform).values()) == [1]


def test_a_run_that_fails_is_a_result_not_a_poison_job(platform, experiment):
    platform.vqe("submit", experiment("name: bad\nmolecules: [h2]\nsettings: {basis: no-such-basis}\n"))
    assert "1 failed" in platform.vqe("worker", "--max-jobs", "1").stdout
    (result,) = platform.records("vqe_result_v")
    assert result["status"] == "failed"
    assert "no-such-basis" in result["error"]


def test_a_run_that_does_not_converge_is_completed(platform, experiment):
    path = experiment("name: short\nmolecules: [lih]\nsettings: {optimizer: cobyla, max_iterations: 5}\n")
    platform.vqe("submit", path)
    assert "1 jobs done, 0 failed" in platform.vqe("worker", "--max-jobs", "1").stdout
    done = platform.vqe("sweep", path, "--force", check=1)
    assert "1 runs completed (1 of them not converged or not physical), 0 not" in done.stdout
    assert "max_iterations" in done.stderr


def test_a_sweep_collects_its_failures(platform, experiment):
    path = experiment("name: mixed\nmolecules: [h2]\nmatrix: {basis: [sto-3g, no-such-basis]}\n")
    done = platform.vqe("sweep", path, "--json", check=1)
    assert "1 runs completed, 1 not" in done.stderr
    assert "no-such-basis" in done.stderr
    assert [json.loads(line)["status"] for line in done.stdout.splitlines()] == ["completed"]
