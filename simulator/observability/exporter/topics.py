"""The topics: runs from vqe_run and vqe_result, signs of life from vqe_system_metrics. No group: offsets are in memory."""

import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from simulator.events.schemas import released
from simulator.kafka.follower import Follower
from simulator.kafka.spool import first_string
from simulator.observability.exporter.runs import RunBook
from simulator.settings import Settings

if TYPE_CHECKING:
    from prometheus_client import Metric

WHOLE = ("vqe_run", "vqe_result")
SIGNS = "vqe_system_metrics"


def _run_of(sign: bytes) -> str:
    """The run that gave a sign of life; the rest is not decoded, as there is one a second and run."""
    return first_string(sign[5:]).decode()


class TopicSource:
    """Follows the topics of every major version.

    Args:
        settings: where Kafka and the registry are.
        book: takes what is read. Guarded by `lock`.
    """

    name = "topics"

    def __init__(self, settings: Settings, book: RunBook, lock: threading.Lock) -> None:
        self.interval = settings.exporter_interval
        self._settings, self._book, self._lock = settings, book, lock
        self._follower = Follower(
            settings, "vqe-exporter", (*WHOLE, SIGNS), self._take, decode={SIGNS: _run_of}, begin=self._begin
        )
        self._read_all = False

    def look(self) -> None:
        """Read to the present end of the topics."""
        self._follower.catch_up()
        self._read_all = True

    def families(self, up: bool) -> "Iterator[Metric]":
        """The runs, once everything was read: counters that still grow from 0 would look like new runs."""
        if not self._read_all:
            return
        with self._lock:
            found = list(self._book.families())
        yield from found
        from prometheus_client.core import CounterMetricFamily

        unreadable = CounterMetricFamily(
            "vqe_unreadable_records", "Records that the exporter could not decode and left out.", labels=("topic",)
        )
        for topic, count in {**dict.fromkeys(released(), 0), **self._follower.unreadable}.items():
            unreadable.add_metric((topic,), count)
        yield unreadable

    def close(self) -> None:
        self._follower.close()

    def _begin(self, stream: str) -> float | None:
        """Runs are read from the beginning, signs of life where they still matter: older ones would tell that a run is lost,
        as silence does."""
        return time.time() - 2 * self._settings.lost_after_seconds if stream == SIGNS else None

    def _take(self, stream: str, found: Any, at: float) -> None:
        if self._read_all:  # as it comes: the producer's clock, whose time Kafka tells, may be days off
            at = time.time()
        with self._lock:
            if stream == SIGNS:
                self._book.alive(found, at)
            elif stream == "vqe_run":
                self._book.began(found, at)
            else:
                self._book.ended(found, at)
