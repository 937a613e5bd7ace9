"""Workers in the queue's database: who is there, on which device, and what keeps it from working."""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, literal, select, update

from simulator.queue.records import WorkerRow
from simulator.queue.tables import now, seconds_from_now, workers

_FORGOTTEN_SECONDS = 7 * 86400.0
"""A worker that was killed leaves its row; after a week nobody asks for it."""


def beat(
    connection: Connection, worker: str, host: str, pid: int, devices: Sequence[str], problem: str | None,
    job_id: str | None,
) -> None:  # fmt: skip
    """Write a worker's sign of life; the first one also removes the rows of those that are long gone."""
    values: dict[str, Any] = {
        "host": host, "pid": pid, "devices": json.dumps(list(devices)), "last_seen": now(), "problem": problem,
        "job_id": job_id,
    }  # fmt: skip
    if not connection.execute(update(workers).where(workers.c.worker == worker).values(**values)).rowcount:
        connection.execute(workers.delete().where(workers.c.last_seen < seconds_from_now(literal(-_FORGOTTEN_SECONDS))))
        connection.execute(workers.insert().values(worker=worker, since=now(), **values))


def leave(connection: Connection, worker: str) -> None:
    """Remove a worker's row."""
    connection.execute(workers.delete().where(workers.c.worker == worker))


def listed(connection: Connection) -> list[WorkerRow]:
    """Every worker, by name."""
    rows = connection.execute(select(workers, now().label("current")).order_by(workers.c.worker))
    return [
        WorkerRow(
            row.worker, row.host, row.pid, tuple(json.loads(row.devices)), row.since, row.last_seen,
            max(0.0, (row.current - row.last_seen).total_seconds()), row.problem, row.job_id,
        )
        for row in rows
    ]  # fmt: skip
