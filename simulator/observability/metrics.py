"""What a run shows while it goes on: gauges that a thread pushes to the PushGateway and that never delay the run.

The run's own thread only leaves its last events here; the pushing thread reads them every `push_interval` seconds. A
process has one group at the gateway, `job="vqe_run"` and `instance="<host>-<slot>"`, a slot being the lowest number that
no other process of the host holds: groups are as many as runs go on at once. A group is removed ten minutes after its
last push: by its process when it lives so long, else by `vqe exporter`.
"""

import base64
import fcntl
import itertools
import os
import socket
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote

from simulator.errors import one_line
from simulator.events.records import Event, SystemMetrics
from simulator.log import get_logger
from simulator.settings import Settings
from simulator.sinks import Sink

if TYPE_CHECKING:
    from prometheus_client import Metric

JOB = "vqe_run"
REMOVE_SECONDS = 600.0
"""Age of its last push at which a group is removed."""
REQUEST_SECONDS = 2.0
"""Patience with the gateway: of a request, and of a process that ends."""


class LastSeen:
    """The last events of the run that a process works on. Taking one is an assignment; any thread may read."""

    def __init__(self) -> None:
        self.run: Event | None = None
        self.progress: dict[str, Event] = {}  # the last event of each stream that shows how the run goes on
        self.sample: SystemMetrics | None = None
        self.result: Event | None = None
        self.events = 0
        self._count = itertools.count(1)

    def take(self, event: Event) -> None:
        """Keep an event; never waits."""
        self.events = next(self._count)
        if isinstance(event, SystemMetrics):
            self.sample = event
        elif event.ends_run:
            self.result = event
        elif event.begins_run:
            self.run, self.progress, self.sample, self.result = event, {}, None, None
        else:
            self.progress[event.stream] = event


class PushingSink:
    """A sink whose events are also shown at the PushGateway.

    Args:
        sink: takes the events.
        settings: `pushgateway_url` must be set.
    """

    def __init__(self, sink: Sink, settings: Settings) -> None:
        self._sink = sink
        self._seen = LastSeen()
        self.pusher = Pusher(settings, lambda: run_families(self._seen, sink), lambda: self._ended())

    def emit(self, event: Event) -> None:
        """Hand an event on; never waits."""
        self._sink.emit(event)
        self._seen.take(event)

    def flush(self) -> None:
        """Wait until all that was emitted is on disk."""
        self._sink.flush()

    def deliver(self, seconds: float) -> bool:
        """Wait until all that was emitted is where it is to go."""
        return self._sink.deliver(seconds)

    def close(self) -> None:
        """Close the sink, then push once more, for at most two seconds."""
        try:
            self._sink.close()
        finally:
            self.pusher.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sink, name)

    def _ended(self) -> bool | None:
        """Whether the run has ended; None before the first."""
        return None if self._seen.run is None else self._seen.result is not None


class Pusher:
    """The thread that pushes.

    Args:
        settings: where the gateway is and how often to push.
        families: the metrics as they are now.
        ended: whether the run has ended; None while there is none.
    """

    def __init__(
        self, settings: Settings, families: "Callable[[], Iterator[Metric]]", ended: Callable[[], bool | None]
    ) -> None:
        import prometheus_client.exposition  # noqa: F401 (before the run's loop, not in it)

        assert settings.pushgateway_url is not None
        self._number = HostWideNumber()
        self._gateway, self._interval = settings.pushgateway_url, settings.push_interval
        self.url = group_url(settings.pushgateway_url, self._number.name)
        self._families, self._ended = families, ended
        self._away, self._pushed_end, self._last_push = False, False, 0.0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="push", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Push the end, unless the gateway is known to be away; waits two seconds at most."""
        self._closing.set()
        self._thread.join(0.0 if self._away else REQUEST_SECONDS)
        self._number.release()

    def _work(self) -> None:
        while not self._closing.wait(self._interval):
            self._round()
        if not self._away:
            self._round()

    def _round(self) -> None:
        ended = self._ended()
        if ended is None:
            return
        if not ended:
            self._pushed_end = False
        elif self._pushed_end:
            if (
                self._last_push
                and time.monotonic() - self._last_push > REMOVE_SECONDS
                and self._request("DELETE", None)
            ):
                self._last_push = 0.0
            return
        if self._request("PUT", exposed(self._families())):
            self._last_push, self._pushed_end = time.monotonic(), ended

    def _request(self, method: str, body: bytes | None) -> bool:
        try:
            request_directly(self.url, method, body)
        except Exception as error:  # whatever the network does: a run does not depend on being watched
            if not self._away:
                self._away = True
                get_logger().warning(
                    "PushGateway does not answer", url=self._gateway, reason=one_line(getattr(error, "reason", error))
                )
            return False
        self._away = False
        return True


def run_families(seen: LastSeen, sink: Any = None) -> "Iterator[Metric]":
    """The gauges of the run that was last seen. Energies in hartree, sizes in bytes, times in seconds.

    Args:
        seen: its last events.
        sink: a Kafka sink tells its delivery, too.
    """
    from prometheus_client.core import GaugeMetricFamily

    run, sample, result = seen.run, seen.sample, seen.result
    if run is None:
        return
    labels = run.metric_labels()

    def gauge(name: str, doc: str, value: float | None) -> "Iterator[Metric]":
        if value is not None:
            family = GaugeMetricFamily(f"vqe_run_{name}", doc, labels=tuple(labels))
            family.add_metric(tuple(labels.values()), value)
            yield family

    yield from gauge("started_timestamp_seconds", "Unix time at which the run began.", _seconds(run))
    yield from gauge(
        "ended_timestamp_seconds",
        "Unix time at which the run ended; 0 while it goes on.",
        _seconds(result) if result else 0.0,
    )
    for event in tuple(seen.progress.values()):
        for name, doc, value in event.gauges():
            yield from gauge(name, doc, value)
    if sample is not None:
        yield from gauge("cpu_ratio", "CPU of the process; 1 is one core.", sample.process_cpu_percent / 100)
        yield from gauge("system_cpu_ratio", "CPU of the machine, 0 to 1.", sample.system_cpu_percent / 100)
        yield from gauge("memory_bytes", "Resident memory of the process.", sample.memory_rss_bytes)
        yield from gauge("memory_available_bytes", "Memory that the machine has left.", sample.memory_available_bytes)
        yield from gauge("threads", "Threads of the process.", sample.threads)
        yield from gauge("disk_read_bytes", "Read from disk by the process so far.", sample.disk_read_bytes)
        yield from gauge("disk_written_bytes", "Written to disk by the process so far.", sample.disk_write_bytes)
        yield from gauge("gpus", "NVIDIA GPUs that the run's machine has.", len(sample.gpu_names))
        yield from _gpu_families(sample, labels)
    yield from gauge("events", "Events of the process so far.", seen.events)
    delivery = getattr(sink, "delivery", None)
    if delivery is not None:
        yield from gauge("events_delivered", "Events that Kafka has acknowledged to the process.", delivery.delivered)
        yield from gauge("events_failed", "Deliveries that failed and were tried again.", delivery.failed)
        yield from gauge("events_rejected", "Events that Kafka refused for good.", delivery.rejected)
        yield from gauge("events_pending_bytes", "Bytes that wait for Kafka.", sink.forwarder.pending_bytes)


def _seconds(event: Event) -> float:
    """Unix time at which an event was recorded, in seconds."""
    micros: int = event.recorded_at  # type: ignore[attr-defined]
    return micros / 1e6


def _gpu_families(sample: SystemMetrics, labels: dict[str, str]) -> "Iterator[Metric]":
    from prometheus_client.core import GaugeMetricFamily

    columns = (
        ("utilization_ratio", "GPU's load, 0 to 1.", [u / 100 for u in sample.gpu_utilization_percent]),
        ("memory_used_bytes", "Memory in use on the GPU.", sample.gpu_memory_used_bytes),
        ("power_watts", "Power that the GPU draws.", sample.gpu_power_watts),
        ("temperature_celsius", "Temperature of the GPU.", sample.gpu_temperature_celsius),
    )
    for name, doc, values in columns:
        if values:
            family = GaugeMetricFamily(f"vqe_run_gpu_{name}", doc, labels=(*labels, "gpu", "gpu_name"))
            for index, (gpu, value) in enumerate(zip(sample.gpu_names, values, strict=True)):
                family.add_metric((*labels.values(), str(index), gpu), value)
            yield family


class HostWideNumber:
    """The lowest number that no other process of this host holds, held until it is released or the process ends."""

    def __init__(self, folder: Path | None = None) -> None:
        self._lock: IO[bytes] | None = None
        host = socket.gethostname()
        try:
            folder = folder or Path(tempfile.gettempdir()) / f"vqe-slots-{os.getuid()}"
            folder.mkdir(mode=0o700, exist_ok=True)
            self.name = f"{host}-{self._take(folder)}"
        except OSError:
            self.name = f"{host}-p{os.getpid()}"  # nowhere to lock: still a name of its own

    def _take(self, folder: Path) -> int:
        for number in itertools.count():
            lock = open(folder / str(number), "ab")  # noqa: SIM115 (held until release)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                continue
            self._lock = lock
            return number
        raise AssertionError

    def release(self) -> None:
        """Let another process have the number."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def group_url(gateway: str, instance: str) -> str:
    """Address of a process's group at the PushGateway."""
    return f"{gateway}/metrics/job/{JOB}/instance/{quote(instance, safe='')}"


def request_directly(
    url: str,
    method: str,
    body: bytes | None = None,
    seconds: float = REQUEST_SECONDS,
    login: tuple[str, str] | None = None,
) -> bytes:
    """One request to a service nearby: never through a proxy; `login` is user and password for basic authentication.

    Raises:
        OSError: it does not answer, or refuses.
    """
    # Connect refuses a request that names the type of a body which it has not
    headers = {} if body is None else {"Content-Type": "text/plain"}
    if login is not None:
        headers["Authorization"] = f"Basic {base64.b64encode(':'.join(login).encode()).decode()}"
    request = urllib.request.Request(url, data=body, method=method, headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=seconds) as response:
            answer: bytes = response.read()
    except urllib.error.HTTPError as error:
        error.close()  # a refusal holds its connection until somebody reads it
        raise
    return answer


def serve(port: int, address: str, collect: "Callable[[], Iterator[Metric]]") -> Any:
    """Serve /metrics in a thread; returns the server.

    Raises:
        InputError: the port cannot be had.
    """
    from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server

    from simulator.errors import InputError

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Collector(collect))
    try:
        server, _ = start_http_server(port, address, registry)
    except OSError as error:
        raise InputError(f"metrics cannot be served at {address}:{port}: {error.strerror}") from None
    return server


class _Collector:
    def __init__(self, collect: "Callable[[], Iterator[Metric]]") -> None:
        self._collect = collect

    def describe(self) -> "list[Metric]":
        """Nothing: the registry would collect once to know the names."""
        return []

    def collect(self) -> "Iterator[Metric]":
        return self._collect()


def exposed(families: "Iterator[Metric]") -> bytes:
    """Metrics in Prometheus' text format."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(_Collector(lambda: families))
    return generate_latest(registry)
