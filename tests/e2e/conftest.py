"""One stack for all tests; `VQE_E2E_KEEP=FILE` leaves it running afterwards, and the next call goes on with it."""

import http.server
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from .stack import ROOT, Stack


class Receiver:
    """A webhook receiver on the containers' gateway: what Alertmanager tells somebody."""

    def __init__(self) -> None:
        self.alerts: list[dict] = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.alerts += json.loads(body)["alerts"]
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        gateway = subprocess.run(
            ["docker", "network", "inspect", "bridge", "-f", "{{(index .IPAM.Config 0).Gateway}}"],
            capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        self._server = http.server.ThreadingHTTPServer((gateway, 0), Handler)
        self.url = f"http://host.docker.internal:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def fired(self) -> set[str]:
        """Names of the alerts that arrived."""
        return {a["labels"]["alertname"] for a in self.alerts if a["status"] == "firing"}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(scope="session")
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def impatient_prometheus(folder: Path) -> Path:
    """The product's configuration and rules, three times as fast: scrapes each 5 seconds, and alerts that need 20 seconds for a minute."""
    shutil.copytree(ROOT / "monitoring" / "prometheus", folder, dirs_exist_ok=True)
    config = folder / "prometheus.yml"
    told = config.read_text().replace("15s", "5s").replace("scrape_timeout: 10s", "scrape_timeout: 5s")
    config.write_text(told)
    for file in (folder / "rules").glob("*.yml"):
        file.write_text(
            re.sub(r"for: (\d+)m$", lambda m: f"for: {int(m[1]) * 20}s", file.read_text(), flags=re.MULTILINE)
        )
    for path in (folder, *folder.rglob("*")):  # Prometheus is no user of this host
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


@pytest.fixture(scope="session")
def stack(receiver: Receiver) -> Iterator[Stack]:
    keep = os.environ.get("VQE_E2E_KEEP")
    made = Stack(
        *(["docker-compose.logs.yml"] if "LOKI_IMAGE" in os.environ else []),
        keep=Path(keep) if keep else None,
        grafana="GRAFANA_IMAGE" in os.environ,
        VQE_ALERT_WEBHOOK_URL=receiver.url,
        VQE_ALERT_GROUP_WAIT="1s",
        VQE_ALERT_GROUP_INTERVAL="5s",
        VQE_BATCH_LATE_SECONDS="20",
        VQE_RETRIES="1",
        VQE_RETRY_SECONDS="5",
        VQE_MAINTENANCE_PAUSED="true",  # its Spark jobs would take the cluster from the first batch
        PROMETHEUS_CONFIG=str(impatient_prometheus(ROOT / "build" / "prometheus-e2e")),
        # these JVMs live for minutes: what the optimizing compiler costs it would not earn
        VQE_JAVA_OPTIONS="-XX:TieredStopAtLevel=1",
    )
    try:
        made.up()
        yield made
    finally:
        if not keep:
            made.down(data=True)
