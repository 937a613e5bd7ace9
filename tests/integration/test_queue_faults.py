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
from pathlib import Path

import pytest

from simulator.events import avro
from simulator.queue import JobFilter, JobQueue, QueueAway
from simulator.settings import Settings
from tests.services.lake import Postgres
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(3600)
RUNS, KILLS = (200, 20) if os.environ.get("VQE_ALL_KILLS") == "1" else (45, 3)
WORKERS = 3


class Fleet:
    """Three workers on one data dir and one queue; one that is dead is started again."""

    def __init__(self, data_dir: Path, queue_uri: str) -> None:
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("VQE_")}, "VQE_DATA_DIR": str(data_dir),
            "VQE_QUEUE_URI": queue_uri, "VQE_WORKER_LEASE_SECONDS": "3", "VQE_CHECKPOINT_SECONDS": "0.1",
            "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        self.log = (data_dir.parent / "workers.log").open("ab")
        self.processes: list[subprocess.Popen[bytes]] = []
        self.fill()

    def fill(self) -> None:
        self.processes = [p for p in self.processes if p.poll() is None]
        while len(self.processes) < WORKERS:
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "simulator.cli.main", "worker"], env=self.environment, stdout=self.log,
                    stderr=self.log,
                )
            )  # fmt: skip

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
    """Completed runs by specification, of the raw files and of those that are being written."""
    found: dict[str, str] = {}
    for path in data_dir.glob("raw/vqe_result_v1/*/*"):
        with contextlib.suppress(avro.DamagedContainer, OSError):
            for record in avro.records(path.read_bytes()):
                if record["status"] == "completed":
                    found[record["run_id"]] = record["spec_id"]
    return Counter(found.values())


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_every_specification_is_completed_once_whoever_is_killed(tmp_path, database, request):
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    server: Postgres | None = request.getfixturevalue("postgres") if database == "postgres" else None
    uri = server.create(f"faults{os.getpid()}") if server else f"sqlite:///{tmp_path / 'queue.db'}"
    experiment = tmp_path / "faults.yaml"
    scales = ", ".join(f"{0.8 + 0.01 * i:.2f}" for i in range(RUNS))
    experiment.write_text(
        f"name: faults\nmolecules: [{{molecule: h2, scale: [{scales}]}}]\nsettings: {{optimizer: cobyla}}\n"
    )
    fleet = Fleet(data_dir, uri)
    settings = Settings(data_dir=data_dir, queue_uri=uri, _env_file=None)
    try:
        with JobQueue.open(settings, migrate=True) as queue:
            subprocess.run(
                [sys.executable, "-m", "simulator.cli.main", "submit", str(experiment)],
                env=fleet.environment,
                check=True,
            )
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
