"""Whether a job that was begun before has been completed: its worker may have died between the result and saying so."""

import contextlib
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from simulator.queue import Job
from simulator.settings import Settings
from simulator.tasks.registry import task_class

CLOCKS_DIFFER = timedelta(days=1)
"""Clocks of the database, of Kafka and of workers may be wrong by this much; results are looked for from so much earlier on."""


@dataclass(frozen=True)
class FinishedRun:
    """A completed run of a job's specification."""

    run_id: str
    summary: dict[str, Any]


def finished_run(settings: Settings, job: Job) -> FinishedRun | None:
    """A completed run of the job's specification among the events since the job was asked for; None where there is none.

    A forced job is to run again although there are older results: only what was recorded after it was asked for counts.

    Raises:
        VqeError: the place where events go cannot be read.
    """
    stream = task_class(job.kind).result_stream
    since = job.created_at - (timedelta(0) if job.force else CLOCKS_DIFFER)
    found = _from_kafka if settings.sink == "kafka" else _from_files
    records = found(settings, stream, since.timestamp(), job.spec_id)
    micros = since.timestamp() * 1e6
    for record in records:
        if record["status"] == "completed" and _micros(record["recorded_at"]) >= micros:
            return FinishedRun(str(record["run_id"]), {"run_id": str(record["run_id"]), "status": "completed"})
    return None


def _micros(value: Any) -> float:
    return value.timestamp() * 1e6 if hasattr(value, "timestamp") else float(value)


def _from_files(settings: Settings, stream: str, since: float, spec_id: str) -> list[dict[str, Any]]:
    """Results of the data dir's raw files, those that are being written included, up to their last whole block."""
    from simulator.events import avro

    found: list[dict[str, Any]] = []
    for path in sorted(settings.raw_dir.glob(f"{stream}_v*/partition=*/*.avro*")):
        if _modified(path) < since:
            continue
        with contextlib.suppress(OSError, avro.DamagedContainer):  # a file that is being written ends in half a block
            for record in avro.records(path.read_bytes()):
                if record.get("spec_id") == spec_id:
                    found.append(record)
    return found


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # it was renamed meanwhile, and is listed under its final name by the next who looks
        return 0.0


def _from_kafka(settings: Settings, stream: str, since: float, spec_id: str) -> list[dict[str, Any]]:
    from simulator.kafka.follower import Follower

    found: list[dict[str, Any]] = []

    def take(_stream: str, record: dict[str, Any], _at: float) -> None:
        if record.get("spec_id") == spec_id:
            found.append(record)

    follower = Follower(settings, "vqe-finished", (stream,), take, begin=lambda _: since)
    try:
        follower.catch_up()
    finally:
        follower.close()
    return found
