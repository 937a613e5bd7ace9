"""What the work queue costs: submitting, claiming beside many workers and many waiting jobs, and a job's whole life.

    python -m tests.services.lake fetch postgres
    python benchmarks/work_queue.py [sqlite|postgres|URI]...

Prints a Markdown table. Postgres, unless its URI is given, is started here and waits for the disk at each commit; server and
workers share the machine. (A file `queue.py` in this folder would be what Python's libraries find as `queue`.)
"""

import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import sqlalchemy

from simulator.queue import JobQueue, NewJob
from simulator.settings import load_settings

WAITING = 100_000
WORKERS = 50
PROCESSES = 10
RATE = 500  # claims a second, all workers together
SECONDS = 10.0
LIVES = 500
OWNERS = 20

Place = tuple[str, str | None]


def main() -> None:
    print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    print("| database | what | value |\n| --- | --- | --- |")
    for name in sys.argv[1:] or ["sqlite", "postgres"]:
        with opened(name) as place:
            for what, value in measured(place):
                print(f"| {name.partition(':')[0]} | {what} | {value} |", flush=True)
    print(f"\nload after: {os.getloadavg()[0]:.1f}")


def measured(place: Place) -> Iterator[tuple[str, str]]:
    """Each figure as soon as it is there."""
    is_sqlite = place[1] is None
    with open_queue(place) as queue:
        empty = lives(queue, 0)
        yield f"a job's life, empty queue ({LIVES} jobs: submit, claim, renew, complete)", of(empty)
        jobs = [new(i, owner=f"owner-{i % OWNERS}", priority=5) for i in range(WAITING)]
        began = time.perf_counter()
        queue.submit(jobs)
        seconds = time.perf_counter() - began
        yield f"submit {WAITING:,} jobs at once", f"{seconds:.1f} s, {WAITING / seconds:,.0f} jobs/s"
        began = time.perf_counter()
        queue.submit(jobs)
        yield f"submit the same {WAITING:,} again", f"{time.perf_counter() - began:.1f} s"
        yield f"a job's life, {WAITING:,} waiting", of(lives(queue, 1))
        yield "counts", of(timed(queue.counts, 5))
        yield "oldest_waiting", of(timed(queue.oldest_waiting, 5))
        yield "the newest 50 jobs", of(timed(lambda: queue.jobs(limit=50), 5))
        one = timed(lambda: queue.claim("alone", lease_seconds=3600), 200)
        yield f"claim, one worker, {WAITING:,} waiting, {OWNERS} owners", of(one)
        queue.close()
        workers = 4 if is_sqlite else WORKERS
        rate = 100 if is_sqlite else RATE
        found = beside(place, workers, rate)
        yield f"claim, {workers} workers, {rate} claims/s asked ({len(found[0]) / found[1]:,.0f}/s done)", of(found[0])
        found = beside(place, workers, None)
        yield f"claims/s, {workers} workers as fast as they can", f"{len(found[0]) / found[1]:,.0f}/s, {of(found[0])}"
        found = beside(place, workers, None, whole=True)
        yield f"claim, renew and complete, {workers} workers", f"{len(found[0]) / found[1]:,.0f} jobs/s"
        queue.submit([new(i + 2 * WAITING, owner=f"many-{i}", priority=6) for i in range(1000)])
        yield "claim, one worker, 1,000 owners wait", of(timed(lambda: queue.claim("alone", lease_seconds=3600), 100))


def lives(queue: JobQueue, round_: int) -> list[float]:
    """Seconds of each job from its submission to its end, without any work."""
    found = []
    for i in range(LIVES):
        one = new(10 * WAITING * (round_ + 1) + i, owner="alone", priority=9)
        began = time.perf_counter()
        queue.submit([one])
        claim = queue.claim("alone")
        assert claim is not None
        queue.renew(claim)
        queue.complete(claim, run_id="r", summary={"energy": -1.137306})
        found.append(time.perf_counter() - began)
    return found


def beside(place: Place, workers: int, rate: float | None, *, whole: bool = False) -> tuple[list[float], float]:
    """Latencies of the claims of many workers in several processes, and the seconds that they took together."""
    n = min(PROCESSES, workers)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["simulator.queue.job_queue", "alembic.command"])
    answers, barrier = context.SimpleQueue(), context.Barrier(n)
    processes = [
        context.Process(
            target=_workers, args=(answers, barrier, place, i, workers // n, rate and workers / rate, whole)
        )
        for i in range(n)
    ]
    for process in processes:
        process.start()
    done = threading.Event()
    ending = threading.Thread(target=end_running, args=(place, workers, done))
    if not whole:
        ending.start()
    found = [answers.get() for _ in processes]
    done.set()
    for process in processes:
        process.join()
    if not whole:
        ending.join()
    return [latency for latencies, _ in found for latency in latencies], statistics.median(s for _, s in found)


def end_running(place: Place, at_most: int, done: threading.Event) -> None:
    """Ends what runs beside the claims that are measured: fifty workers never hold thousands of jobs."""
    engine = sqlalchemy.create_engine(place[1] or f"sqlite:///{place[0]}/queue.db", isolation_level="AUTOCOMMIT")
    ends = sqlalchemy.text(
        "UPDATE vqe_jobs SET state = 'completed' WHERE position IN"
        " (SELECT position FROM vqe_jobs WHERE state = 'running' ORDER BY started_at DESC LIMIT 1000 OFFSET :at_most)"
    )
    with engine.connect() as connection:
        while not done.wait(0.2):
            connection.execute(ends, {"at_most": at_most})
    engine.dispose()


def _workers(
    answers: Any, barrier: Any, place: Place, number: int, threads: int, every: float | None, whole: bool
) -> None:
    latencies: list[float] = []
    with open_queue(place) as queue:
        # each worker has claimed before, as one that has run for a while: its connection is open and its statement planned
        with ThreadPoolExecutor(threads) as warm:
            together = threading.Barrier(threads)
            for i in range(threads):
                warm.submit(lambda i=i: (together.wait(), queue.claim(f"w{number}-{i}", lease_seconds=3600)))
        barrier.wait()
        began = time.monotonic()

        def work(name: str) -> None:
            due = began + random.random() * (every or 0.0)
            while time.monotonic() < began + SECONDS:
                if every is not None:
                    time.sleep(max(0.0, due - time.monotonic()))
                    due += every
                started = time.perf_counter()
                claim = queue.claim(name, lease_seconds=3600)
                if claim is None:
                    return
                latencies.append(time.perf_counter() - started)
                if whole:
                    queue.renew(claim, 3600)
                    queue.complete(claim, run_id="r", summary={"energy": -1.137306})

        all_threads = [threading.Thread(target=work, args=(f"w{number}-{i}",)) for i in range(threads)]
        for thread in all_threads:
            thread.start()
        for thread in all_threads:
            thread.join()
        answers.put((latencies, time.monotonic() - began))


def new(number: int, **fields: Any) -> NewJob:
    """A job with a specification of the usual size, 1.2 kB."""
    return NewJob("vqe", f"{number:064x}", '{"geometry": "' + f"{number:08d}" * 150 + '"}', "h2o", **fields)


def timed(work: Callable[[], Any], times: int) -> list[float]:
    found = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return found


def of(seconds: list[float]) -> str:
    ordered = sorted(s * 1000 for s in seconds)
    at = lambda q: ordered[min(len(ordered) - 1, int(q * len(ordered)))]  # noqa: E731
    return f"p50 {at(0.5):.2f} ms, p99 {at(0.99):.2f} ms"


def open_queue(place: Place) -> JobQueue:
    return JobQueue.open(load_settings(data_dir=Path(place[0]), queue_uri=place[1]), migrate=True)


@contextmanager
def opened(name: str) -> Iterator[Place]:
    """A queue's database that is new."""
    with tempfile.TemporaryDirectory() as folder:
        if name != "postgres":
            yield folder, None if name == "sqlite" else name
            return
        from tests.services.lake import LakeArtifacts, Postgres

        artifacts = LakeArtifacts()
        server = Postgres(artifacts.root / "stacks" / f"benchmark-{os.getpid()}", artifacts, durable=True)
        try:
            server.start()
            yield folder, server.create("queue")
        finally:
            server.stop()


if __name__ == "__main__":
    main()
