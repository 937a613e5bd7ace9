"""Who asks Kafka Connect logs in: the exporter and the connector's set-up, by a password from the environment or a file, never shown."""

import base64
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from simulator.observability.exporter.connect import ConnectSource
from simulator.settings import load_settings

ROOT = Path(__file__).parents[3]
PASSWORD = "canary-77bd"
RUNNING = {"connector": {"state": "RUNNING"}, "tasks": [{"state": "RUNNING"}]}


@pytest.fixture
def connect():
    """The address of a Connect that takes the user vqe with PASSWORD and no one else."""
    wanted = f"Basic {base64.b64encode(f'vqe:{PASSWORD}'.encode()).decode()}"

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            known = self.headers.get("Authorization") == wanted
            self.send_response(200 if known else 401)
            self.end_headers()
            status = {"vqe-s3-sink": {"status": RUNNING}} if "expand" in self.path else RUNNING
            self.wfile.write(json.dumps(status if known else {"message": "User cannot access the resource."}).encode())

        do_GET = do_PUT = answer

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def running(connect: str, **given: str) -> float:
    source = ConnectSource(load_settings(connect_url=connect, **given))
    source.look()
    (family, _) = source.families(True)
    return family.samples[0].value


def test_the_exporter_logs_in_and_is_refused_without_a_password(connect, tmp_path):
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    assert running(connect, connect_password=PASSWORD) == 1
    assert running(connect, connect_password_file=str(tmp_path / "password")) == 1
    for given in ({}, {"connect_password": "wrong"}):
        with pytest.raises(OSError, match="401") as caught:
            running(connect, **given)
        assert PASSWORD not in str(caught.value)


def setup(connect: str, **environment: str) -> subprocess.CompletedProcess[str]:
    base = {k: v for k, v in os.environ.items() if not k.startswith("VQE_")}
    command = [
        sys.executable,
        str(ROOT / "connect" / "setup_connector.py"),
        "--connect-url",
        connect,
        "--timeout",
        "20",
    ]
    return subprocess.run(command, env=base | environment, capture_output=True, text=True, timeout=60)


def test_the_connectors_setup_logs_in(connect, tmp_path):
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    done = setup(connect, VQE_CONNECT_PASSWORD_FILE=str(tmp_path / "password"))
    assert done.returncode == 0, done.stderr
    assert PASSWORD not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("environment", "says"),
    [({}, "(401)"), ({"VQE_CONNECT_PASSWORD": "canary-wrong"}, "VQE_CONNECT_PASSWORD"),
     ({"VQE_CONNECT_PASSWORD_FILE": "/nowhere/password"}, "/nowhere/password: No such file")],
)  # fmt: skip
def test_a_refused_login_is_one_line_of_the_users(connect, environment, says):
    done = setup(connect, **environment)
    assert done.returncode == 2
    line = done.stderr.strip().splitlines()[-1]
    assert says in line
    assert "Traceback" not in done.stderr
    assert "canary" not in done.stderr
