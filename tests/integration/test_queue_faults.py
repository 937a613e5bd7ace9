"""A sweep over three workers while workers, their runs and the database are killed: every specification is completed once.

`make soak` kills each 20 times during 200 runs (VQE_ALL_KILLS=1); the check kills each a few times during fewer.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from raw_events import results

from simulator.queue import JobFilter, JobQueue, QueueAway
from simulator.settings import Settings
from tests.services.lake import Postgres
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(3600)
RUNS, KILLS, AWAY_SECONDS = (200, 20, 120) if os.environ.get("VQE_ALL_KILLS") == "1" else (45, 3, 8)
WORKERS = 3
VQE = [sys.executable, "-m", "simulator.cli.main"]
LONG = "{optimizer: nelder-mead, tolerance: 1.0e-15, max_iterations: 12000}"
"""Settings of a run on BeH2 that takes eight seconds on a fast machine, and most of a minute on a busy one."""


def environment_of(data_dir: Path, queue_uri: str) -> dict[str, str]:
    """Of a worker or another command, with short leases and many checkpoints."""
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith("VQE_")}, "VQE_DATA_DIR": str(data_dir),
        "VQE_QUEUE_URI": queue_uri, "VQE_WORKER_LEASE_SECONDS": "3", "VQE_CHECKPOINT_SECONDS": "0.1",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip


@contextlib.contextmanager
def worker(environment: dict[str, str], **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process, stopped at the end."""
    process = subprocess.Popen([*VQE, "worker"], env={**environment, **more})
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(60)
        finally:
            process.kill()


def submit(environment: dict[str, str], experiment: Path, text: str) -> None:
    experiment.write_text(text)
    subprocess.run([*VQE, "submit", str(experiment)], env=environment, check=True)


class Fleet:
    """Three workers on one data dir and one queue; one that is dead is started again."""

    def __init__(self, data_dir: Path, queue_uri: str) -> None:
        self.environment = environment_of(data_dir, queue_uri)
        self.log = (data_dir.parent / "workers.log").open("ab")
        self.processes: list[subprocess.Popen[bytes]] = []
        self.fill()

    def fill(self) -> None:
        self.processes = [p for p in self.processes if p.poll() is None]
        while len(self.processes) < WORKERS:
            self.processes.append(
                subprocess.Popen([*VQE, "worker"], env=self.environment, stdout=self.log, stderr=self.log)
            )

    def kill_worker(self) -> None:
        random.choice(self.processes).kill()

    def kill_child(self) -> None:
        worker = random.choice(self.processes)
        with contextlib.suppress(OSError, IndexError):
            children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
            runs = [int(c) for c in children if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]
            os.kill(random.choice(runs), signal.SIGKILL)

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
            process.kill()
        self.log.close()


def completed_runs(data_dir: Path) -> Counter[str]:
    """Completed runs by specification."""
    return Counter(record["spec_id"] for record in results(data_dir) if record["status"] == "completed")


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_every_specification_is_completed_once_whoever_is_killed(tmp_path, database, request):
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    server: Postgres | None = request.getfixturevalue("postgres") if database == "postgres" else None
    uri = server.create(f"faults{os.getpid()}") if server else f"sqlite:///{tmp_path / 'queue.db'}"
    scales = ", ".join(f"{0.8 + 0.01 * i:.2f}" for i in range(RUNS))
    text = f"name: faults\nmolecules: [{{molecule: h2, scale: [{scales}]}}]\nsettings: {{optimizer: cobyla}}\n"
    fleet = Fleet(data_dir, uri)
    settings = Settings(data_dir=data_dir, queue_uri=uri, _env_file=None)
    try:
        with JobQueue.open(settings, migrate=True) as queue:
            submit(fleet.environment, tmp_path / "faults.yaml", text)
            kills = [fleet.kill_worker, fleet.kill_child] * KILLS
            if server is not None:
                kills += [lambda: (server.kill(), time.sleep(2), server.start_again())] * KILLS
            random.shuffle(kills)
            dead: list[str] = []
            end = time.monotonic() + 1800
            next_kill = time.monotonic() + 5
            while True:
                fleet.fill()
                states = Counter({s: n for (s, _, _), n in eventually(queue.counts, not_yet=QueueAway).items()})
                if states == {"completed": RUNS} and not kills:
                    break
                if states[
                    "dead"
                ]:  # killed in each of its three attempts: told with the reason, and brought back by hand
                    for job in eventually(lambda: queue.jobs(states=["dead"]), not_yet=QueueAway):
                        assert "started 3 times without a result" in job.error
                        dead.append(job.spec_id)
                    eventually(lambda: queue.retry(JobFilter(states=("dead",))), not_yet=QueueAway)
                assert time.monotonic() < end, f"{states}; {(tmp_path / 'workers.log').read_text()[-3000:]}"
                if kills and time.monotonic() > next_kill:
                    kills.pop()()
                    next_kill = time.monotonic() + random.uniform(0.5, 3)
                if states == {"completed": RUNS}:
                    kills.clear()  # there is nothing left to disturb
                time.sleep(0.2)
    finally:
        fleet.stop()
    assert len(dead) <= KILLS, "jobs died that nobody killed"
    found = completed_runs(data_dir)
    assert len(found) == RUNS
    assert set(found.values()) == {1}, "a specification was run to its end twice"


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system that has room for a worker and little more; mounting needs root."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=70m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_worker_whose_disk_is_full_leaves_its_job_to_another(tmp_path, postgres, small_disk):
    uri = postgres.create(f"disk{os.getpid()}")
    first, second = environment_of(small_disk / "data", uri), environment_of(tmp_path / "data", uri)
    with JobQueue.open(Settings(data_dir=tmp_path, queue_uri=uri, _env_file=None), migrate=True) as queue:
        submit(first, tmp_path / "long.yaml", f"name: long\nmolecules: [beh2]\nsettings: {LONG}\n")
        (job,) = queue.jobs()
        with worker(first):
            eventually(lambda: queue.job(job.job_id).checkpoint, 60, "a checkpoint")
            with contextlib.suppress(OSError), (small_disk / "ballast").open("wb", buffering=0) as ballast:
                while True:
                    ballast.write(b"x" * 4096)
            eventually(lambda: queue.job(job.job_id).state == "waiting", 60, "the job given back")
            left = queue.job(job.job_id)
            assert (left.attempt, left.checkpoint is not None) == (0, True), "a full disk is no fault of the job's"
            assert "No space left on device" in left.error
            (told,) = eventually(lambda: [w.problem for w in queue.workers() if w.problem], 30, "the problem told")
            assert "space" in told or "full" in told
            with worker(second):
                eventually(lambda: queue.job(job.job_id).state == "completed", 400, "another worker's result")
                (result,) = results(tmp_path / "data")
                assert (result["status"], result["resumed_from"]) == ("completed", left.checkpoint.run_id)
            # there is room again: it works on
            (small_disk / "ballast").unlink()
            submit(first, tmp_path / "short.yaml", "name: short\nmolecules: [h2]\n")
            eventually(lambda: {j.state for j in queue.jobs()} == {"completed"}, 120, "the next job")
        assert completed_runs(small_disk / "data").total() == 1


def test_runs_go_on_while_the_database_is_away_and_nothing_is_lost(tmp_path, postgres):
    data_dir, uri = tmp_path / "data", postgres.create(f"away{os.getpid()}")
    environment = environment_of(data_dir, uri)
    settings = Settings(data_dir=tmp_path, queue_uri=uri, _env_file=None)
    with JobQueue.open(settings, migrate=True, retry_seconds=60) as queue:
        submit(environment, tmp_path / "long.yaml", f"name: long\nmolecules: [beh2]\nsettings: {LONG}\n")
        submit(environment, tmp_path / "short.yaml", "name: short\nmolecules: [h2]\n")
        written = lambda: sum(p.stat().st_size for p in data_dir.glob("raw/vqe_iteration_v1/*/.*.part"))  # noqa: E731
        with worker(environment):
            eventually(written, 60, "iterations")
            postgres.kill()
            try:
                before, end = written(), time.monotonic() + AWAY_SECONDS
                eventually(lambda: written() > before, 30, "iterations without a database")
                time.sleep(max(0.0, end - time.monotonic()))
            finally:
                postgres.start_again()
            eventually(lambda: {j.state for j in queue.jobs()} == {"completed"}, 400, "all jobs")
        assert [j.attempt for j in queue.jobs()] == [1, 1]
    assert set(completed_runs(data_dir).values()) == {1}
    assert len(results(data_dir)) == 2


WRONG_CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long offset(void) { const char *s = getenv("CLOCK_OFFSET"); return s ? atol(s) : 0; }
int clock_gettime(clockid_t id, struct timespec *t) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int done = real(id, t);
    if (!done && id == CLOCK_REALTIME) t->tv_sec += offset();
    return done;
}
time_t time(time_t *t) { struct timespec s; clock_gettime(CLOCK_REALTIME, &s); if (t) *t = s.tv_sec; return s.tv_sec; }
int gettimeofday(struct timeval *t, void *z) {
    struct timespec s; clock_gettime(CLOCK_REALTIME, &s); t->tv_sec = s.tv_sec; t->tv_usec = s.tv_nsec / 1000; return 0;
}
"""
"""A library that is loaded before the C library and shifts what a process holds for the present."""


def test_workers_whose_clocks_are_an_hour_wrong_share_a_sweep(tmp_path, postgres):
    source, library = tmp_path / "clock.c", tmp_path / "clock.so"
    source.write_text(WRONG_CLOCK)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    data_dir, uri = tmp_path / "data", postgres.create(f"clock{os.getpid()}")
    environment = environment_of(data_dir, uri)
    shifted = lambda seconds: {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(seconds)}  # noqa: E731
    asked = subprocess.run(
        [sys.executable, "-c", "import time; print(time.time())"],
        env=environment | shifted(3600),
        capture_output=True,
        check=True,
    )
    assert float(asked.stdout) - time.time() == pytest.approx(3600, abs=60)
    with JobQueue.open(Settings(data_dir=tmp_path, queue_uri=uri, _env_file=None), migrate=True) as queue:
        submit(
            environment,
            tmp_path / "long.yaml",
            f"name: long\nmolecules: [beh2]\nseeds: 2\nsettings: {LONG}\n",
        )
        with worker(environment, **shifted(3600)), worker(environment, **shifted(-3600)), worker(environment):
            eventually(lambda: {j.state for j in queue.jobs()} == {"completed"}, 400, "all jobs")
        # both were held for longer than a lease, and nobody took them for lost
        assert [j.attempt for j in queue.jobs()] == [1, 1]
        assert all((j.finished_at - j.started_at).total_seconds() > 3 for j in queue.jobs())
    assert sorted(completed_runs(data_dir).values()) == [1, 1]
