"""Metrics of runs: what is pushed, that a run is never delayed by it, and what workers show of their spool."""

import contextlib
import os
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from samples import a_result, a_run, a_sample, an_iteration
from waiting import eventually

from simulator.kafka.spool import SpoolWriter, undelivered
from simulator.observability import metrics
from simulator.observability.metrics import HostWideNumber, LastSeen, PushingSink, exposed, run_families
from simulator.settings import Settings


def values(text: bytes | str) -> dict[str, float]:
    """Values by metric name; labels of runs must be the same in all."""
    text = text if isinstance(text, str) else text.decode()
    return {s.name: s.value for family in text_string_to_metric_families(text) for s in family.samples}


class Gateway:
    """A PushGateway that keeps what it is told, or hangs."""

    def __init__(self, *, hang: bool = False) -> None:
        self.requests: list[tuple[str, str, bytes]] = []
        gateway = self
        self.release = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def _take(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                gateway.requests.append((self.command, self.path, body))
                if hang:  # answers without end, so that no request of it ever times out
                    with contextlib.suppress(OSError):
                        while not gateway.release.wait(0.2):
                            self.wfile.write(b"x")
                    return
                self.send_response(202)
                self.end_headers()

            do_PUT = do_DELETE = _take

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self.release.set()
        self.server.shutdown()
        self.server.server_close()


class Kept:
    """A sink that keeps events."""

    def __init__(self) -> None:
        self.events = []
        self.recovery = "of the file sink"

    def emit(self, event) -> None:
        self.events.append(event)

    def flush(self) -> None: ...
    def close(self) -> None: ...


@pytest.fixture
def gateway():
    made = Gateway()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "*")


def pushing(url: str, sink=None) -> PushingSink:
    settings = Settings(pushgateway_url=url, _env_file=None).model_copy(update={"push_interval": 0.1})
    return PushingSink(sink or Kept(), settings)


def test_gauges_are_in_base_units_and_carry_no_run_id():
    seen = LastSeen()
    assert list(run_families(seen)) == []
    for event in (a_run("0190c0de-0000"), an_iteration(3, "0190c0de-0000"), a_sample(
        gpu_names=["A100", "A100"], gpu_utilization_percent=[25.0, 50.0], gpu_memory_used_bytes=[1, 2],
        gpu_power_watts=[70.0, 80.0], gpu_temperature_celsius=[40.0, 41.0])):  # fmt: skip
        seen.take(event)
    text = exposed(run_families(seen)).decode()
    found = values(text)
    assert found["vqe_run_energy_hartree"] == -4.0
    assert found["vqe_run_cpu_ratio"] == 1.5
    assert found["vqe_run_gpu_utilization_ratio"] == 0.5
    assert found["vqe_run_gpus"] == 2
    assert found["vqe_run_ended_timestamp_seconds"] == 0
    assert "vqe_run_error_hartree" not in found  # no reference
    assert "vqe_run_disk_written_bytes" not in found  # not known
    assert "0190c0de" not in text
    assert 'molecule="H2"' in text


def test_a_new_run_begins_without_the_last_ones_values():
    seen = LastSeen()
    for event in (a_run("a"), an_iteration(3, "a"), a_result(run_id="a"), a_run("b")):
        seen.take(event)
    found = values(exposed(run_families(seen)))
    assert "vqe_run_energy_hartree" not in found
    assert found["vqe_run_ended_timestamp_seconds"] == 0
    assert found["vqe_run_events"] == 4


def test_a_run_is_pushed_and_its_end_when_the_sink_closes(gateway):
    sink = pushing(gateway.url)
    sink.emit(a_run())
    sink.emit(an_iteration(1))
    eventually(lambda: gateway.requests)
    sink.emit(a_result(run_id="r"))
    sink.close()
    methods = {(method, path) for method, path, _ in gateway.requests}
    assert methods == {("PUT", sink.pusher.url.removeprefix(gateway.url))}
    assert sink.pusher.url.startswith(f"{gateway.url}/metrics/job/vqe_run/instance/{socket.gethostname()}-")
    assert values(gateway.requests[0][2])["vqe_run_ended_timestamp_seconds"] == 0
    assert values(gateway.requests[-1][2])["vqe_run_ended_timestamp_seconds"] > 1e9


def test_a_process_that_lives_on_removes_its_group_ten_minutes_after_its_last_push(gateway, monkeypatch):
    monkeypatch.setattr(metrics, "REMOVE_SECONDS", 0.2)
    sink = pushing(gateway.url)
    for event in (a_run(), a_result(run_id="r")):
        sink.emit(event)
    eventually(lambda: "DELETE" in {m for m, _, _ in gateway.requests})
    time.sleep(0.6)  # several rounds
    assert [m for m, _, _ in gateway.requests] == ["PUT", "DELETE"]
    sink.emit(a_run("next"))
    sink.close()
    assert gateway.requests[-1][0] == "PUT"


def test_a_gateway_that_hangs_delays_neither_events_nor_the_end(monkeypatch, capsys):
    monkeypatch.setattr(metrics, "REQUEST_SECONDS", 0.5)
    gateway = Gateway(hang=True)
    kept = Kept()
    sink = pushing(gateway.url, kept)
    sink.emit(a_run())
    eventually(lambda: gateway.requests)
    longest = 0.0
    for i in range(2_000):
        began = time.perf_counter()
        sink.emit(an_iteration(i))
        longest = max(longest, time.perf_counter() - began)
    began = time.monotonic()
    sink.close()
    assert time.monotonic() - began < 5, "the gateway answers without end"
    assert len(kept.events) == 2_001
    assert longest < 1
    gateway.close()


def test_a_gateway_that_is_away_is_one_line(capsys):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    sink = pushing(url)
    sink.emit(a_run())
    time.sleep(0.6)  # several rounds
    began = time.monotonic()
    sink.close()
    assert time.monotonic() - began < 0.5
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(lines) == 1, lines
    assert "PushGateway does not answer" in lines[0]


def test_a_process_takes_the_lowest_free_slot(tmp_path):
    first, second = HostWideNumber(tmp_path / "slots"), HostWideNumber(tmp_path / "slots")
    assert (first.name, second.name) == (f"{socket.gethostname()}-0", f"{socket.gethostname()}-1")
    first.release()
    third = HostWideNumber(tmp_path / "slots")
    assert third.name == first.name
    second.release()
    third.release()
    (tmp_path / "file").write_text("")
    assert HostWideNumber(tmp_path / "file" / "slots").name.startswith(f"{socket.gethostname()}-p")


def test_the_sink_underneath_shows_through(gateway):
    sink = pushing(gateway.url)
    assert sink.recovery == "of the file sink"
    sink.close()


@pytest.mark.parametrize("url", ["ftp://x", "http://user:canary-1@gateway:9091", "gateway:9091"])
def test_an_address_that_is_none_or_holds_a_password_is_refused(monkeypatch, tmp_path, url):
    from simulator.errors import InputError
    from simulator.settings import load_settings

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VQE_PUSHGATEWAY_URL", url)
    with pytest.raises(InputError, match="VQE_PUSHGATEWAY_URL") as caught:
        load_settings()
    assert "canary" not in str(caught.value)


def test_an_empty_address_is_none(monkeypatch, tmp_path):
    from simulator.settings import load_settings

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VQE_PUSHGATEWAY_URL", "")
    assert load_settings().pushgateway_url is None


def test_what_waits_since_a_time_that_is_yet_to_come_waits_from_now_on(tmp_path):
    """The clock ran ahead when Kafka last took something."""
    from simulator.events.records import to_record
    from simulator.events.schemas import current
    from simulator.kafka.spool import SpoolReader

    writer = SpoolWriter(tmp_path, current("vqe_iteration"))
    reader = SpoolReader(writer.path)
    for i in range(2):
        writer.write(to_record(an_iteration(i)))
        writer.flush()
    reader.acknowledge(next(iter(reader.records())).end)
    (ack,) = (p for p in tmp_path.glob("vqe_*/*") if p.suffix != ".avro")
    ahead = time.time() + 400 * 86_400
    os.utime(ack, (ahead, ahead))
    assert undelivered(tmp_path).seconds < 60
    time.sleep(0.2)
    assert 0.1 < undelivered(tmp_path).seconds < 60
    reader.close()
    writer.release()


def test_what_waits_in_a_spool_is_known_without_a_lock(tmp_path):
    from simulator.events.records import to_record
    from simulator.events.schemas import current
    from simulator.kafka.spool import SpoolReader

    assert undelivered(tmp_path).size == 0
    writer = SpoolWriter(tmp_path, current("vqe_iteration"))
    empty = undelivered(tmp_path)
    assert (empty.size, empty.seconds) == (0, 0.0)
    reader = SpoolReader(writer.path)
    for i in range(10):
        writer.write(to_record(an_iteration(i)))
    writer.flush()
    time.sleep(0.2)
    waiting = undelivered(tmp_path)
    assert waiting.size == reader.pending_bytes > 1_000
    assert 0.1 < waiting.seconds < 60
    reader.acknowledge(list(reader.records())[-1].end)
    assert undelivered(tmp_path) == type(waiting)(0, 0.0)
    reader.close()
    writer.release()


def test_neither_the_package_nor_its_help_loads_the_client():
    import subprocess
    import sys

    code = (
        "import sys, simulator\n"
        "from simulator.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert 'prometheus_client' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=Path(__file__).parents[1])
