"""Spark ingest on this machine: seconds a batch that are fixed, parameter values a second, and batches on a growing history.

    python -m tests.services.lake fetch
    python benchmarks/spark_ingest.py [--iterations 100000] [--history 10000] [--batches 50]

Fixed: `spark-submit` of a batch of one short run, from the start of the process to its end. Values a second: a batch of one run's
iterations of 40 parameters, the fixed seconds taken off. History: that many raw objects in the ledger, then batches of five
objects in one driver; told are time, CPU time, objects listed and GET requests of batch 2 and of the last.
"""

import argparse
import os
import re
import resource
import shutil
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "unit")]

from raw_events import BEGIN, Run, write_runs  # noqa: E402

from tests.services.lake import Driver, Lake, LakeArtifacts, Place  # noqa: E402

PARAMETERS = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=100_000, help="of the large batch")
    parser.add_argument("--history", type=int, default=10_000, help="raw objects in the ledger before the batches")
    parser.add_argument("--batches", type=int, default=50)
    options = parser.parse_args()
    os.environ["MINIO_PROMETHEUS_AUTH_TYPE"] = "public"
    lake = Lake(LakeArtifacts().root / "stacks" / f"benchmark-{os.getpid()}").fetch().start()
    try:
        print(f"load average: {os.getloadavg()[0]:.1f}", flush=True)
        if options.iterations:
            large_batch(lake, options.iterations)
        if options.batches:
            growing_history(lake, options.history, options.batches)
    finally:
        lake.stop()
        lake.wipe()


def large_batch(lake: Lake, iterations: int) -> None:
    place = lake.place("large")
    deliver(place, [Run(1)], 0)
    place.submit("ingest")  # creates the tables
    deliver(place, [Run(2)], 1)
    fixed, fixed_cpu = timed(lambda: place.submit("ingest"))
    print(f"fixed: {fixed:.1f} s a batch, spark-submit to end; {fixed_cpu:.1f} s of CPU", flush=True)
    runs = [Run(10 + i, iterations=iterations // 20, n_parameters=PARAMETERS) for i in range(20)]
    deliver(place, runs, 2)
    whole, cpu = timed(lambda: place.submit("ingest"))
    values = iterations * PARAMETERS
    rate, cpu_rate = values / max(whole - fixed, 0.1), values / max(cpu - fixed_cpu, 0.1)
    print(f"{values:,} values: {whole:.1f} s, {rate:,.0f} values/s after the fixed seconds", flush=True)
    print(f"    {cpu:.1f} s of CPU, {cpu_rate:,.0f} values a CPU second after the fixed ones", flush=True)


def growing_history(lake: Lake, history: int, batches: int) -> None:
    place, driver = lake.place("history"), lake.driver("4g")
    number = 0
    while number * 5 < history:
        deliver(place, [Run(number, iterations=2)], number)
        number += 1
    seconds, cpu = timed(lambda: driver.run(place, "build", timeout=3000), driver)
    print(f"history: {number * 5:,} objects in one batch, {seconds:.0f} s, {cpu:.0f} s of CPU", flush=True)
    told = []
    for i in range(1, batches + 1):
        number += 1
        deliver(place, [Run(number, iterations=20, at=BEGIN + timedelta(days=i // 10))], number)
        before = requests(lake)
        report: dict = {}
        _, cpu = timed(lambda report=report: report.update(driver.run(place, "build", timeout=900)), driver)
        told.append((report["seconds"], cpu, report["listed"], requests(lake) - before))
        print(
            f"batch {i}: {told[-1][0]:.1f} s, {cpu:.1f} s of CPU, {told[-1][2]} objects listed, "
            f"{told[-1][3]:.0f} GET requests",
            flush=True,
        )
    second, last = told[1], told[-1]
    print(f"load average: {os.getloadavg()[0]:.1f}")
    ratios = ", ".join(f"{b / a:.2f}" for a, b in zip(second, last, strict=True))
    print(f"batch {batches} to batch 2, in time, CPU, objects listed, GET requests: {ratios}")
    early, late = ([statistics.median(t[k] for t in part) for k in (0, 1)] for part in (told[1:6], told[-5:]))
    print(f"medians of five, last to first: {late[0] / early[0]:.2f} in time, {late[1] / early[1]:.2f} in CPU")


def deliver(place: Place, runs: list[Run], number: int) -> None:
    folder = Path(tempfile.mkdtemp())
    write_runs(folder, runs, number)
    place.put_folder(folder)
    shutil.rmtree(folder)


def requests(lake: Lake) -> float:
    """GET requests that the object store has answered."""
    url = f"{lake.stack.s3_endpoint}/minio/v2/metrics/node"
    text = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10).read().decode()
    found = re.findall(r'^minio_s3_requests_total\{[^}]*api="getobject"[^}]*\} (\S+)', text, re.MULTILINE)
    return sum(map(float, found))


def timed(work: Callable[[], Any], driver: Driver | None = None) -> tuple[float, float]:
    """Seconds, and CPU seconds of the processes that were started for it and of the driver: other work on the machine
    changes the former much more."""
    started, cpu = time.perf_counter(), cpu_seconds(driver)
    work()
    return time.perf_counter() - started, cpu_seconds(driver) - cpu


def cpu_seconds(driver: Driver | None) -> float:
    of_children = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = of_children.ru_utime + of_children.ru_stime
    if driver is not None:
        first = psutil.Process(driver.pid)
        for process in (first, *first.children(recursive=True)):
            times = process.cpu_times()
            found += times.user + times.system
    return found


if __name__ == "__main__":
    main()
