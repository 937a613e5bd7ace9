"""Sources: each looks at one service by itself, in a thread of its own, and a failure of one does not touch the others."""

import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from simulator.log import get_logger

if TYPE_CHECKING:
    from prometheus_client import Metric


class Source(Protocol):
    """Something that the exporter looks at."""

    name: str
    interval: float  # seconds

    def look(self) -> None:
        """Look once.

        Raises:
            Exception: the service does not answer.
        """

    def families(self, up: bool) -> "Iterator[Metric]":
        """What was last seen; `up` tells whether the last look succeeded."""

    def close(self) -> None:
        """Let go of connections; no look is under way."""


class Watcher:
    """Looks at a source again and again; one log line when it goes away and one when it is back."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.up, self.seconds, self.last_success, self._told = False, 0.0, 0.0, False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name=source.name, daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def look(self) -> None:
        """Look once; never raises."""
        began = time.monotonic()
        try:
            self.source.look()
        except Exception as error:
            self.up = False
            if not self._told and not self._closing.is_set():
                self._told = True
                reason = " ".join(str(error).split())
                get_logger().warning("source is away", source=self.source.name, reason=reason or type(error).__name__)
        else:
            if self._told:
                get_logger().info("source is back", source=self.source.name)
            self.up, self._told, self.last_success = True, False, time.time()
        self.seconds = time.monotonic() - began

    def close(self) -> None:
        """Stop looking, waiting two seconds at most for a look that is under way."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join(2.0)
        if not self._thread.is_alive():
            self.source.close()

    def _work(self) -> None:
        while not self._closing.is_set():
            self.look()
            self._closing.wait(self.source.interval)


class Exporter:
    """All sources, and what they show."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.watchers = [Watcher(source) for source in sources]

    def start(self) -> None:
        """Begin to look at every source."""
        for watcher in self.watchers:
            watcher.start()

    def look_once(self) -> bool:
        """Look at each source once; whether all are up."""
        for watcher in self.watchers:
            watcher.look()
        return all(watcher.up for watcher in self.watchers)

    def close(self) -> None:
        """Stop."""
        for watcher in self.watchers:
            watcher.close()

    def collect(self) -> "Iterator[Metric]":
        """Every source's metrics, and how the sources are."""
        from prometheus_client.core import GaugeMetricFamily

        up = GaugeMetricFamily("vqe_exporter_source_up", "Whether the last look succeeded.", labels=("source",))
        seconds = GaugeMetricFamily("vqe_exporter_source_seconds", "Seconds of the last look.", labels=("source",))
        success = GaugeMetricFamily(
            "vqe_exporter_source_success_timestamp_seconds", "Unix time of the last look that succeeded; 0: none.",
            labels=("source",),
        )  # fmt: skip
        for watcher in self.watchers:
            name = (watcher.source.name,)
            up.add_metric(name, float(watcher.up))
            seconds.add_metric(name, watcher.seconds)
            success.add_metric(name, watcher.last_success)
        yield from (up, seconds, success)
        for watcher in self.watchers:
            yield from watcher.source.families(watcher.up)
