"""A worker's /metrics: jobs, delivery, spool and disk. Sizes in bytes, times in seconds."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from simulator.events.schemas import released
from simulator.kafka.clients import AdminLender
from simulator.kafka.lag import committed, offsets
from simulator.kafka.rejected import set_aside
from simulator.kafka.spool import undelivered
from simulator.log import get_logger

if TYPE_CHECKING:
    from prometheus_client import Metric

    from simulator.settings import Settings

SAMPLE_SECONDS = 10.0
OUTCOMES = ("done", "failed", "skipped", "set_aside", "returned", "lost")


class MeasuredWorker(Protocol):
    """What is read of a worker (`runs.worker.Worker`) when its metrics are asked for."""

    settings: "Settings"
    job_began: float | None  # monotonic seconds; None where no job runs

    @property
    def counts(self) -> Any:
        """A number for each of OUTCOMES."""

    @property
    def delivery(self) -> dict[str, int]:
        """Events delivered, failed and rejected."""

    def assignment(self) -> list[Any]:
        """Partitions of the job topic."""


class WorkerMetrics:
    """Serves a worker's metrics until it is closed.

    Args:
        worker: the worker, whose counts are read when they are asked for.
        group: its consumer group.

    Raises:
        InputError: the port cannot be had.
    """

    def __init__(self, worker: MeasuredWorker, group: str) -> None:
        from simulator.observability.metrics import serve

        self._worker, self._group, self._settings = worker, group, worker.settings
        self._waiting: int | None = None
        self._admin = AdminLender(self._settings)
        self._server = serve(self._settings.metrics_port, self._settings.metrics_address, self.collect)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def collect(self) -> "Iterator[Metric]":
        """The metrics as they are now."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        worker = self._worker
        jobs = CounterMetricFamily("vqe_worker_jobs", "Jobs by what became of them.", labels=("outcome",))
        for outcome in OUTCOMES:
            jobs.add_metric((outcome,), getattr(worker.counts, outcome))
        yield jobs
        began = worker.job_began
        yield GaugeMetricFamily(
            "vqe_worker_jobs_running", "Jobs that the worker runs: 0 or 1.", float(began is not None)
        )
        seconds = 0.0 if began is None else time.monotonic() - began
        yield GaugeMetricFamily("vqe_worker_job_running_seconds", "Seconds since the running job was taken.", seconds)
        if self._waiting is not None:
            yield GaugeMetricFamily(
                "vqe_worker_jobs_waiting", "Jobs in the worker's partitions that it has not begun.", self._waiting
            )
        delivery = worker.delivery
        for name, doc in (
            ("delivered", "Events that Kafka has acknowledged."),
            ("failed", "Deliveries that failed and were tried again."),
            ("rejected", "Events that Kafka refused for good; kept in the spool's folder `rejected`."),
        ):
            yield CounterMetricFamily(f"vqe_events_{name}", doc, delivery[name])
        yield CounterMetricFamily(
            "vqe_events_delivered_bytes", "Bytes of events that Kafka has acknowledged.", delivery["delivered_bytes"]
        )
        yield from _storage(self._settings.data_dir, self._settings.spool_dir, self._settings.spool_max_bytes)

    def _sample(self) -> None:
        told = False
        while True:
            try:
                self._waiting = self._jobs_waiting()
                told = False
            except Exception as error:  # Kafka away, or the consumer being closed: the other metrics go on
                self._waiting = None
                if not told and not self._closing.is_set():
                    get_logger().info("jobs waiting are not known", reason=f"{type(error).__name__}: {error}")
                    told = True
            if self._closing.wait(SAMPLE_SECONDS):
                return

    def _jobs_waiting(self) -> int:
        mine = [(tp.topic, tp.partition) for tp in self._worker.assignment()]
        with self._admin.lend() as admin:
            ends, firsts = offsets(admin, mine), offsets(admin, mine, earliest=True)
            known = committed(admin, self._group)
        behind = sum(max(0, ends[key] - max(known.get(key, 0), firsts[key])) for key in mine)
        return max(0, behind - (self._worker.job_began is not None))


def _storage(data_dir: Path, spool: Path, limit: int) -> "Iterator[Metric]":
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
    yield from disk_families("worker", data_dir)


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
