"""What building the tables costs: one batch, ten growing batches, 400 small ones, and 20 million parameter values.

    python benchmarks/build_tables.py [throughput] [growth] [small] [soak]

Each part runs in a process of its own, so that its peak memory is its own. Raw files are made before the clock runs.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "unit")]

RUNS, ITERATIONS, PARAMETERS = 100, 500, 40
VALUES = RUNS * ITERATIONS * PARAMETERS
RUNS_AN_OBJECT = 10


def throughput() -> dict[str, Any]:
    """100 runs x 500 iterations x 40 parameters in one batch."""
    from spark_jobs.arrow import batch

    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder)
        write_batch(data_dir, 0)
        report = batch.build(data_dir)
        assert report.rows["vqe_iterations"] == RUNS * ITERATIONS, report
        return {
            "seconds": round(report.seconds, 2),
            "parameter values/s": round(VALUES / report.seconds),
            "records/s": round(report.records / report.seconds),
            "CPU seconds": round(time.process_time(), 2),
        }


def growth() -> dict[str, Any]:
    """Ten such batches: the tenth against the second (target: at most 1.3)."""
    from spark_jobs.arrow import batch

    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder)
        seconds = []
        for number in range(10):
            write_batch(data_dir, number)
            seconds.append(batch.build(data_dir).seconds)
        return {"batches": [round(s, 2) for s in seconds], "tenth / second": round(seconds[9] / seconds[1], 2)}


def small(builds: int = 400) -> dict[str, Any]:
    """400 builds of a run each: the 400th against the tenth (target: at most 4)."""
    import raw_events

    from spark_jobs.arrow import batch

    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder)
        seconds: list[float] = []
        cpu: list[float] = []
        for number in range(builds):
            run = raw_events.Run(number, iterations=20, molecule=number % 13)
            raw_events.write_runs(data_dir, [run], number=number)
            before = time.process_time()
            seconds.append(batch.build(data_dir).seconds)
            cpu.append(time.process_time() - before)
        size = sum(f.stat().st_size for f in (data_dir / "warehouse").rglob("*") if f.is_file())
        files = sum(1 for f in (data_dir / "warehouse").rglob("*") if f.is_file())
        return {
            "tenth": round(seconds[9], 3),
            "median of 5 to 15": round(statistics.median(seconds[4:15]), 3),
            "last": round(seconds[-1], 3),
            "median of the last 11": round(statistics.median(seconds[-11:]), 3),
            "last / tenth": round(seconds[-1] / seconds[9], 2),
            "ratio of medians": round(statistics.median(seconds[-11:]) / statistics.median(seconds[4:15]), 2),
            "ratio of medians, CPU": round(statistics.median(cpu[-11:]) / statistics.median(cpu[4:15]), 2),
            "median CPU seconds": f"{statistics.median(cpu[4:15]):.3f} to {statistics.median(cpu[-11:]):.3f}",
            "slowest of the last 50": round(max(seconds[-50:]), 3),
            "warehouse MB": round(size / 1e6, 1),
            "warehouse files": files,
        }


def soak() -> dict[str, Any]:
    """1,000 runs, 20 million parameter values, in one batch (target: at most 3 GiB)."""
    from spark_jobs.arrow import batch

    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder)
        for number in range(10):
            make = f"import build_tables as b; from pathlib import Path; b.write_batch(Path({folder!r}), {number})"
            subprocess.run([sys.executable, "-c", make], cwd=Path(__file__).parent, check=True)
        report = batch.build(data_dir)
        assert report.rows["vqe_iterations"] == 10 * RUNS * ITERATIONS, report
        return {"seconds": round(report.seconds, 1), "parameter values/s": round(10 * VALUES / report.seconds)}


PARTS = {"throughput": throughput, "growth": growth, "small": small, "soak": soak}


def write_batch(data_dir: Path, number: int) -> None:
    """Raw objects of 100 runs, ten runs an object."""
    import raw_events

    for part in range(RUNS // RUNS_AN_OBJECT):
        first = number * RUNS + part * RUNS_AN_OBJECT
        runs = [
            raw_events.Run(
                first + i, iterations=ITERATIONS, n_parameters=PARAMETERS, samples=5, molecule=part, n_terms=600
            )
            for i in range(RUNS_AN_OBJECT)
        ]
        raw_events.write_runs(data_dir, runs, number=number * 1000 + part)


def main() -> None:
    names = sys.argv[1:] or list(PARTS)
    if names[0] == "--in-process":
        figures = PARTS[names[1]]()
        figures["peak MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(json.dumps(figures))
        return
    for name in names:
        done = subprocess.run(
            [sys.executable, __file__, "--in-process", name], check=True, stdout=subprocess.PIPE, text=True
        )
        print(f"{name}: {PARTS[name].__doc__}")
        for what, figure in json.loads(done.stdout).items():
            print(f"  {what:<24} {figure}")


if __name__ == "__main__":
    main()
