"""What history costs: a batch behind a million raw objects, batches day after day, and a query of a large table in S3.

    python benchmarks/history.py [objects] [days] [query]

Told are CPU seconds of the process (a machine that is busy with other work changes them little) and, for a query, bytes.
Each size has a process of its own.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "unit")]

SIZES = (1_000, 150_000, 1_000_000)
TOPICS = ("vqe_run_v1", "vqe_iteration_v1", "vqe_hamiltonian_v1", "vqe_system_metrics_v1", "vqe_result_v1")
DAYS, BATCHES_A_DAY = 120, 6


def objects(size: int) -> dict[str, Any]:
    """Batches of one run behind so many raw objects in the ledger: in a folder, and in a store that lists as S3 does."""
    import raw_events

    from spark_jobs.arrow import batch
    from spark_jobs.raw import LocalStore, S3Store

    class Bucket(S3Store):
        """Answers from a folder what S3 would: objects from a name on."""

        def __init__(self, folder: Path) -> None:
            self.new: list[Any] = []
            self.read = LocalStore(folder).read  # type: ignore[method-assign]

        def objects(self, after: Any = None) -> Any:
            return iter(self.new)

    told: dict[str, Any] = {"objects": size}
    for kind in ("folder", "S3"):
        with tempfile.TemporaryDirectory() as root:
            data_dir = Path(root)
            write_ledger(data_dir, size, files=kind == "folder")
            store = LocalStore(data_dir) if kind == "folder" else Bucket(data_dir)
            seconds = []
            for number in range(6):
                run = raw_events.Run(10_000_000 + number)
                paths = raw_events.write_runs(data_dir, [run], number=10_000_000 + number)
                if isinstance(store, Bucket):
                    names = {p.relative_to(data_dir).as_posix() for p in paths}
                    store.new = [found for path in sorted(names) if (found := raw_object(path)) is not None]
                seconds.append(cpu(partial(batch.build, data_dir, store=store)))
            told[kind] = {
                "first, which notes the names": round(seconds[0], 2),
                "median of the next five": round(statistics.median(seconds[1:]), 2),
            }
    told["peak MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return told


def raw_object(path: str) -> Any:
    from spark_jobs.raw import parse

    return parse(path, 1)


def write_ledger(data_dir: Path, size: int, files: bool) -> None:
    """A ledger of so many loaded objects in five topics; with empty files of their names, where these are listed."""
    import pyarrow as pa

    from spark_jobs.lock import lock_of
    from spark_jobs.rows import arrow_schema
    from spark_jobs.tables import LEDGER, by_name
    from spark_jobs.warehouse import Location, Warehouse

    table, at = by_name(LEDGER), datetime(2026, 1, 1, tzinfo=UTC)
    location = Location.of(data_dir)
    batch_id = "019b76da-a800-7000-8000-000000000000"
    for topic in TOPICS:
        (data_dir / "raw" / topic / "partition=local").mkdir(parents=True)
    with lock_of(location) as lock, Warehouse(location, lock=lock) as warehouse:
        warehouse.prepare()
        for first in range(0, size, 100_000):
            names = [
                f"raw/{topic}/partition=local/{topic}+local+{number:08x}-0000-7000-8000-{number:012x}.avro"
                for number in range(first, min(first + 100_000, size))
                for topic in (TOPICS[number % 5],)
            ]
            if files:
                for name in names:
                    os.close(os.open(data_dir / name, os.O_CREAT | os.O_WRONLY))
            n = len(names)
            values = {
                "source_path": names, "etag": [f"{i:032x}" for i in range(n)], "batch_id": [batch_id] * n,
                "status": ["loaded"] * n, "topic": [name.split("/")[1] for name in names], "raw_partition": ["local"] * n,
                "size_bytes": [1000] * n, "records": [1] * n, "first_event_at": [at] * n, "last_event_at": [at] * n,
                "code_version": ["0.1.0"] * n, "processed_at": [at] * n,
            }  # fmt: skip
            schema = arrow_schema(table)
            rows = pa.table({f.name: pa.array(values.get(f.name, [None] * n), f.type) for f in schema}, schema=schema)
            warehouse.append(table, warehouse.write(table, rows), batch_id=batch_id)
        for each in warehouse.tables:
            warehouse.tag(each, f"batch_{batch_id}")


def days() -> dict[str, Any]:
    """Six batches a day, each of one run: CPU seconds of a batch, files, and what maintenance does in the end."""
    import raw_events

    from spark_jobs import maintenance
    from spark_jobs.arrow import batch

    with tempfile.TemporaryDirectory() as root:
        data_dir = Path(root)
        told: dict[str, Any] = {}
        for day in range(DAYS + 1):
            seconds = []
            for k in range(BATCHES_A_DAY):
                number = day * BATCHES_A_DAY + k
                at = raw_events.BEGIN + timedelta(days=day, minutes=k)
                raw_events.write_runs(data_dir, [raw_events.Run(number, at=at, molecule=k)], number=number)
                seconds.append(cpu(lambda: batch.build(data_dir)))
            if day % 30 == 0:
                files = sum(1 for _ in (data_dir / "warehouse").rglob("*.parquet"))
                told[f"day {day}"] = {"CPU seconds a batch": round(statistics.median(seconds), 2), "data files": files}
                print(told[f"day {day}"], file=sys.stderr, flush=True)
        told["maintenance, CPU seconds"] = round(cpu(lambda: maintenance.maintain(data_dir)), 1)
        return told


def query() -> dict[str, Any]:
    """A table of 1.6 million iterations of 40 parameters (about 0.5 GB) as it lies in S3: bytes and files that queries read."""
    import pytest
    from counting_files import count_reads
    from raw_events import Run, random_iterations

    import spark_jobs.query as queries
    from spark_jobs.lock import lock_of
    from spark_jobs.tables import by_name
    from spark_jobs.warehouse import Location, Warehouse

    with tempfile.TemporaryDirectory() as root, pytest.MonkeyPatch.context() as patch:
        data_dir, table = Path(root), by_name("vqe_iterations")
        location = Location.of(data_dir)
        with lock_of(location) as lock, Warehouse(location, lock=lock) as warehouse:
            warehouse.prepare()
            for number in range(16):
                rows = random_iterations(number, runs=100, of_each=1000, n_parameters=40)
                warehouse.append(table, warehouse.write(table, rows))
            for each in warehouse.tables:
                warehouse.tag(each, "batch_1")
        counted = count_reads(patch)
        patch.setattr(queries, "local_path", lambda location: None)
        whole = sum(p.stat().st_size for p in data_dir.rglob("*.parquet"))
        told: dict[str, Any] = {"MB in all": round(whole / 1e6, 1)}
        for text in (
            "SELECT COUNT(*), MIN(energy) FROM vqe_iterations",
            f"SELECT iteration, energy FROM vqe_iterations WHERE run_id = '{Run(5050).run_id}'",
            f"SELECT * FROM vqe_iterations WHERE run_id = '{Run(5050).run_id}'",
            "SELECT MAX(size(parameters)) FROM vqe_iterations",
        ):
            counted.bytes_read.clear()
            seconds = cpu(lambda text=text: queries.query(data_dir, text))
            told[text] = {
                "MB": round(counted.total / 1e6, 2),
                "files": counted.files,
                "CPU seconds": round(seconds, 2),
                "peak MB so far": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            }
        return told


def cpu(work: Callable[[], Any]) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before


def main() -> None:
    parts = sys.argv[1:] or ["objects", "days", "query"]
    for part in parts:
        if part == "objects":
            for size in SIZES:
                subprocess.run([sys.executable, __file__, f"objects:{size}"], check=True)
        elif part.startswith("objects:"):
            print(json.dumps(objects(int(part.removeprefix("objects:")))), flush=True)
        else:
            print(json.dumps({part: {"days": days, "query": query}[part]()}, indent=1), flush=True)


if __name__ == "__main__":
    main()
