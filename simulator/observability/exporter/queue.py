"""The work queue: jobs by state, how long they wait, who is there to run them, and what went wrong lately."""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from simulator.observability.exporter.runs import RECENT_SECONDS
from simulator.queue import STATES, JobQueue, WorkerRow
from simulator.settings import Settings

if TYPE_CHECKING:
    from prometheus_client import Metric

    from simulator.queue.records import State

DEVICES = ("cpu", "gpu")
SEEN_SECONDS = 60.0
"""Silence after which a worker counts as gone; it shows a sign of life every five seconds."""
RETRY_SECONDS = 1.0
"""Long enough for a connection that the server has closed meanwhile; a server that is away is asked again at the next look."""


class QueueSource:
    """Looks at the queue's database. It reads only: a Postgres queue without its tables is away until they are made.

    Args:
        settings: where the queue is, and when jobs wait too long.
    """

    name = "queue"

    def __init__(self, settings: Settings) -> None:
        self.interval = settings.exporter_interval
        self._settings = settings
        self._queue: JobQueue | None = None
        self._jobs: dict[tuple[str, str, str], int] = {}  # by state, device and kind
        self._waits: dict[str, float] = {}  # seconds, by device
        self._expired: dict[str, int] = {}  # by device
        self._recent: dict[State, int] = {}  # by state
        self._workers: list[WorkerRow] = []

    @staticmethod
    def there(settings: Settings) -> bool:
        """Whether a queue is given, or lies in the data directory.

        Raises:
            InputError: its URI cannot be right.
            QueueAway: the folder of its file cannot be made.
        """
        if settings.queue_uri is None:
            return (settings.data_dir / "queue.db").is_file()
        from simulator.queue.database import Database

        Database(settings).close()
        return True

    def look(self) -> None:
        """Ask the database."""
        if self._queue is None:
            self._queue = JobQueue.open(self._settings, retry_seconds=RETRY_SECONDS)
        queue = self._queue
        self._jobs, self._waits, self._expired = queue.counts(), queue.oldest_waiting(), queue.expired_leases()
        self._recent = queue.recently_ended(RECENT_SECONDS)
        self._workers = queue.workers(within_seconds=SEEN_SECONDS)

    def families(self, up: bool) -> "Iterator[Metric]":
        """What the last look found; nothing while the queue is away, for old numbers would be alerts about nothing."""
        from prometheus_client.core import GaugeMetricFamily

        yield GaugeMetricFamily(
            "vqe_queue_late_after_seconds", "Seconds that a job may wait for a worker (VQE_JOBS_LATE_SECONDS).",
            self._settings.jobs_late_seconds,
        )  # fmt: skip
        if not up:
            return
        jobs = GaugeMetricFamily("vqe_queue_jobs", "Jobs in the queue.", labels=("state", "device", "kind"))
        absent = {(state, device, "vqe"): 0 for state in STATES for device in DEVICES}
        for key, count in (absent | self._jobs).items():
            jobs.add_metric(key, count)
        yield jobs
        well = Counter(d for worker in self._workers if worker.problem is None for d in worker.devices)
        for name, doc, found in (
            ("oldest_waiting_seconds", "Seconds for which the job waits that waits longest; 0: none.", self._waits),
            ("expired_leases", "Running jobs whose worker is gone and that no other has taken up.", self._expired),
            ("workers", "Workers that take jobs and showed a sign of life in the last minute.", well),
        ):
            by_device = GaugeMetricFamily(f"vqe_queue_{name}", doc, labels=("device",))
            for device, value in (dict.fromkeys(DEVICES, 0.0) | found).items():
                by_device.add_metric((device,), value)
            yield by_device
        yield GaugeMetricFamily(
            "vqe_queue_workers_with_problem", "Workers that take no jobs because something is wrong.",
            sum(worker.problem is not None for worker in self._workers),
        )  # fmt: skip
        recent = GaugeMetricFamily(
            "vqe_queue_recent_jobs", "Jobs that failed, were cancelled or given up in the last 15 minutes.",
            labels=("state",),
        )  # fmt: skip
        for state, count in self._recent.items():
            recent.add_metric((state,), count)
        yield recent

    def close(self) -> None:
        """Close the connection."""
        if self._queue is not None:
            self._queue.close()
