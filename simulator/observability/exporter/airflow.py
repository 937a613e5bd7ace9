"""Airflow's StatsD packets (UDP, names with tags as InfluxDB writes them), for the few that are shown.

Airflow sends `airflow.dagrun.duration.failed,dag_id=d,run_type=manual:1234|ms`. Times come in milliseconds and are shown in
seconds. Only what is listed here is kept, by dag, task or pool, so that labels stay bounded.
"""

import contextlib
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from simulator.errors import InputError
from simulator.observability.exporter.runs import RECENT_SECONDS
from simulator.settings import Settings

if TYPE_CHECKING:
    from prometheus_client import Metric

HEARD_SECONDS = 120.0
MAX_SERIES = 500
_PREFIX = "airflow."
_LINE = re.compile(
    r"(?P<name>[^,:|]+)(?P<tags>(?:,[^,=]+=[^,:|]*)*):(?P<value>[-+0-9.eE]+)\|(?P<kind>c|g|ms)(?:\|@[0-9.]+)?"
)


@dataclass(frozen=True)
class _Kept:
    """A metric that is shown."""

    kind: str  # c, g or ms, as StatsD has them
    doc: str
    label: str | None = None


KEPT = {
    "scheduler_heartbeat": _Kept("c", "Heartbeats of the scheduler."),
    "dag_processor_heartbeat": _Kept("c", "Heartbeats of the DAG processor."),
    "dag_processing.import_errors": _Kept("g", "DAG files that cannot be read."),
    "scheduler.tasks.executable": _Kept("g", "Tasks that are ready to run."),
    "scheduler.tasks.starving": _Kept("g", "Tasks that no pool has a slot for."),
    "ti_failures": _Kept("c", "Task instances that failed.", "dag_id"),
    "ti_successes": _Kept("c", "Task instances that succeeded.", "dag_id"),
    "dagrun.duration.success": _Kept("ms", "Seconds of DAG runs that succeeded.", "dag_id"),
    "dagrun.duration.failed": _Kept("ms", "Seconds of DAG runs that failed.", "dag_id"),
}
_FAILED = "dagrun.duration.failed"


class AirflowSource:
    """Listens for packets.

    Args:
        settings: `statsd_port` must be set.

    Raises:
        InputError: the port cannot be had.
    """

    name = "airflow"

    def __init__(self, settings: Settings) -> None:
        self.interval = settings.exporter_interval
        self._values: dict[tuple[str, str], tuple[float, int]] = {}  # (name, label) -> value or sum, count
        self._failed: deque[tuple[float, str]] = deque(maxlen=1_000)
        self._heard = time.monotonic()
        self._lock = threading.Lock()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.bind((settings.metrics_address, settings.statsd_port))
        except OSError as error:
            self._socket.close()
            where = f"{settings.metrics_address}:{settings.statsd_port}"
            raise InputError(f"StatsD packets cannot be taken at {where}: {error.strerror}") from None
        self.port: int = self._socket.getsockname()[1]
        self._socket.settimeout(1.0)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="statsd", daemon=True)
        self._thread.start()

    def look(self) -> None:
        """Whether Airflow was heard of in the last two minutes.

        Raises:
            TimeoutError: it was not.
        """
        if time.monotonic() - self._heard > HEARD_SECONDS:
            raise TimeoutError("no packet from Airflow in two minutes")

    def take(self, packet: bytes) -> None:
        """Take a packet, of one line or several."""
        for line in packet.decode("utf-8", "replace").splitlines():
            match = _LINE.fullmatch(line.strip())
            if match is None or not match["name"].startswith(_PREFIX):
                continue
            name = match["name"].removeprefix(_PREFIX)
            kept = KEPT.get(name)
            self._heard = time.monotonic()
            if kept is None or kept.kind != match["kind"]:
                continue
            tags = dict(tag.split("=", 1) for tag in match["tags"].split(",")[1:])
            with contextlib.suppress(ValueError), self._lock:
                self._add(name, kept, tags.get(kept.label or "", ""), float(match["value"]), match["value"])

    def families(self, up: bool) -> "Iterator[Metric]":
        """What was heard so far."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily

        with self._lock:
            values, failed = dict(self._values), list(self._failed)
        for name, kept in KEPT.items():
            labels = (kept.label,) if kept.label else ()
            shown = "airflow_" + name.replace(".", "_")
            rows = [(label, value) for (of, label), value in values.items() if of == name]
            family: CounterMetricFamily | GaugeMetricFamily | SummaryMetricFamily
            if kept.kind == "ms":
                summary = SummaryMetricFamily(f"{shown}_seconds", kept.doc, labels=labels)
                for label, (total, count) in rows:
                    summary.add_metric((label,), count_value=count, sum_value=total)
                yield summary
                continue
            make = CounterMetricFamily if kept.kind == "c" else GaugeMetricFamily
            family = make(shown, kept.doc, labels=labels)
            for label, (total, _) in rows:
                family.add_metric((label,) if kept.label else (), total)
            yield family
        recent = GaugeMetricFamily(
            "airflow_recent_failed_dagruns", "DAG runs that failed in the last 15 minutes.", labels=("dag_id",)
        )
        since = time.monotonic() - RECENT_SECONDS
        for dag in sorted({label for of, label in values if of.startswith("dagrun.duration")}):
            recent.add_metric((dag,), sum(at >= since and of == dag for at, of in failed))
        yield recent

    def close(self) -> None:
        self._closing.set()
        self._thread.join(3.0)
        self._socket.close()

    def _add(self, name: str, kept: _Kept, label: str, value: float, text: str) -> None:
        key = (name, label)
        if key not in self._values and len(self._values) >= MAX_SERIES:
            return
        total, count = self._values.get(key, (0.0, 0))
        if kept.kind == "c":
            self._values[key] = (total + value, 0)
        elif kept.kind == "g":
            self._values[key] = ((total if text[0] in "+-" else 0.0) + value, 0)
        else:
            self._values[key] = (total + value / 1e3, count + 1)
            if name == _FAILED:
                self._failed.append((time.monotonic(), label))

    def _listen(self) -> None:
        while not self._closing.is_set():
            try:
                packet = self._socket.recv(65_535)
            except TimeoutError:
                continue
            except OSError:
                return
            self.take(packet)
