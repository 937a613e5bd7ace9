"""A worker's /metrics: jobs, delivery, spool and disk. Sizes in bytes, times in seconds."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.events.schemas import released
from simulator.kafka.rejected import set_aside
from simulator.kafka.spool import undelivered
from simulator.runs.child import DELIVERY
from simulator.runs.pool import Pool

if TYPE_CHECKING:
    from prometheus_client import Metric

OUTCOMES = ("done", "failed", "skipped", "cancelled", "returned", "lost", "leases_lost")


class PoolMetrics:
    """Serves a worker's metrics until it is closed.

    Args:
        pool: whose counts are read when they are asked for.
        replayed: events delivered, failed and rejected before the pool began.

    Raises:
        InputError: the port cannot be had.
    """

    def __init__(self, pool: Pool, replayed: dict[str, int]) -> None:
        from simulator.observability.metrics import serve

        self._pool, self._replayed, self._settings = pool, replayed, pool.settings
        self._server = serve(self._settings.metrics_port, self._settings.metrics_address, self.collect)

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()

    def collect(self) -> "Iterator[Metric]":
        """The metrics as they are now."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        pool = self._pool
        jobs = CounterMetricFamily("vqe_worker_jobs", "Jobs by what became of them.", labels=("outcome",))
        for outcome in OUTCOMES:
            jobs.add_metric((outcome,), getattr(pool.counts, outcome))
        yield jobs
        running = pool.running
        yield GaugeMetricFamily("vqe_worker_jobs_running", "Jobs that the worker runs.", len(running))
        seconds = max((time.monotonic() - began for began in running), default=0.0)
        yield GaugeMetricFamily(
            "vqe_worker_job_running_seconds", "Seconds since the job that runs longest was taken.", seconds
        )
        yield GaugeMetricFamily(
            "vqe_worker_has_problem",
            "1 while the worker takes no jobs because something is wrong.",
            float(pool.problem is not None),
        )
        if self._settings.sink == "kafka":
            yield from self._delivery_families()
        yield from disk_families("worker", self._settings.data_dir)

    def _delivery_families(self) -> "Iterator[Metric]":
        from prometheus_client.core import CounterMetricFamily

        now = self._pool.delivery
        delivery = {name: now.get(name, 0) + self._replayed.get(name, 0) for name in DELIVERY}
        for name, doc in (
            ("delivered", "Events that Kafka has acknowledged."),
            ("failed", "Deliveries that failed and were tried again."),
            ("rejected", "Events that Kafka refused for good; kept in the spool's folder `rejected`."),
        ):
            yield CounterMetricFamily(f"vqe_events_{name}", doc, delivery[name])
        yield CounterMetricFamily(
            "vqe_events_delivered_bytes", "Bytes of events that Kafka has acknowledged.", delivery["delivered_bytes"]
        )
        yield from spool_families(self._settings.spool_dir, self._settings.spool_max_bytes)


def spool_families(spool: Path, limit: int) -> "Iterator[Metric]":
    """What waits in the spool, for how long, and what was refused for good."""
    from prometheus_client.core import GaugeMetricFamily

    waiting = undelivered(spool)
    yield GaugeMetricFamily("vqe_spool_bytes", "Bytes of events on disk that Kafka has not acknowledged.", waiting.size)
    yield GaugeMetricFamily(
        "vqe_spool_waiting_seconds", "Seconds since Kafka last took an event of a file that waits; 0 where none does.",
        waiting.seconds,
    )  # fmt: skip
    aside = GaugeMetricFamily(
        "vqe_rejected_events",
        "Events refused for good that lie in the spool's folder `rejected` now.",
        labels=("topic",),
    )
    for topic, count in {**dict.fromkeys(released(), 0), **set_aside(spool)}.items():
        aside.add_metric((topic,), count)
    yield aside
    yield GaugeMetricFamily("vqe_spool_limit_bytes", "Bytes at which the spool is full and runs fail.", limit)


def disk_families(path_name: str, folder: Path) -> "Iterator[Metric]":
    """Free and total bytes of the disk that a folder lies on; nothing where the folder is not there."""
    from prometheus_client.core import GaugeMetricFamily

    values: Any = None
    for place in (folder, *folder.absolute().parents):
        try:
            values = os.statvfs(place)
            break
        except OSError:
            continue
    if values is None:
        return
    free = GaugeMetricFamily("vqe_disk_free_bytes", "Bytes free on the disk of the data directory.", labels=("disk",))
    free.add_metric((path_name,), values.f_bavail * values.f_frsize)
    size = GaugeMetricFamily("vqe_disk_size_bytes", "Size of the disk of the data directory.", labels=("disk",))
    size.add_metric((path_name,), values.f_blocks * values.f_frsize)
    yield free
    yield size
