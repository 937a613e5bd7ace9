#!/usr/bin/env python3
"""Puts a connector's configuration to Kafka Connect and waits until it runs. May be run any number of times.

    python connect/setup_connector.py --connect-url http://127.0.0.1:8083 [--name NAME] [--config FILE] [--set KEY=VALUE]...

Where Connect asks for a login: VQE_CONNECT_USERNAME (vqe) and VQE_CONNECT_PASSWORD, or VQE_CONNECT_PASSWORD_FILE.
Connect keeps a configuration that it has; tasks that had failed are started again. Exit codes: 0 the connector and all
its tasks run; 1 it failed, or did not run in time (the reason is printed); 2 the configuration is refused.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import pathlib
import sys
import time
import urllib.error
import urllib.request

DEFAULT_NAME = "vqe-s3-sink"
DEFAULT_CONFIG = pathlib.Path(__file__).with_name("connector.json")
# Answers of a worker that starts or rebalances: it will give another one soon.
PASSING = {404, 409, 500, 503}


class ConnectorError(Exception):
    """The connector does not run."""


class ConfigRefused(ConnectorError):
    """Connect does not take the configuration."""


def call(connect_url: str, method: str, path: str, body: object = None, timeout: float = 30):
    """One call of Connect's REST interface; returns the parsed answer."""
    request = urllib.request.Request(
        connect_url.rstrip("/") + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json", **login()},
    )
    # Straight to the worker: it is a neighbour, not behind a proxy.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=timeout) as response:
        text = response.read()
    return json.loads(text) if text else None


def login() -> dict[str, str]:
    """The header of basic authentication, from the environment; empty without a password there."""
    password = os.environ.get("VQE_CONNECT_PASSWORD", "")
    if not password and (file := os.environ.get("VQE_CONNECT_PASSWORD_FILE")):
        password = pathlib.Path(file).read_text(encoding="utf-8").strip()
    if not password:
        return {}
    user = os.environ.get("VQE_CONNECT_USERNAME") or "vqe"
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}


def reason(trace: str) -> str:
    """The line of a task's stack trace that says why: the innermost cause of Connect's own wrapper."""
    lines = [line for line in trace.splitlines() if line and not line.startswith(("\t", " "))]
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    return causes[0] if causes and "unrecoverable exception" in lines[0] else lines[0] if lines else "no reason given"


def state(connect_url: str, name: str) -> tuple[str, list[str]]:
    """Connector's state (RUNNING, FAILED, ..., or STARTING while there is none) and the reasons of what failed."""
    try:
        status = call(connect_url, "GET", f"/connectors/{name}/status")
    except urllib.error.HTTPError as error:
        if error.code in PASSING:
            return "STARTING", []
        raise
    parts = [status["connector"], *status["tasks"]]
    failed = [reason(part.get("trace", "")) for part in parts if part["state"] == "FAILED"]
    if failed:
        return "FAILED", failed
    if status["tasks"] and all(part["state"] == "RUNNING" for part in parts):
        return "RUNNING", []
    return status["connector"]["state"] if status["connector"]["state"] != "RUNNING" else "STARTING", []


def setup(connect_url: str, name: str, config: dict[str, str], timeout: float = 120) -> None:
    """Puts the configuration and waits, at most ``timeout`` seconds, until the connector and every task run."""
    deadline = time.monotonic() + timeout
    last: object = "no answer"
    while True:
        try:
            call(connect_url, "PUT", f"/connectors/{name}/config", config)
            break
        except urllib.error.HTTPError as error:
            detail = error.read().decode(errors="replace")
            if error.code == 401:
                hint = "VQE_CONNECT_USERNAME, VQE_CONNECT_PASSWORD or VQE_CONNECT_PASSWORD_FILE"
                raise ConfigRefused(f"Kafka Connect at {connect_url} refuses the login (401): set {hint}") from None
            if error.code == 400 or error.code not in PASSING:
                raise ConfigRefused(f"Connect refuses connector {name}: {_message(detail)}") from None
            last = f"HTTP {error.code}: {_message(detail)}"
        except OSError as error:
            last = error
        if time.monotonic() > deadline:
            raise ConnectorError(f"Kafka Connect at {connect_url} does not answer: {last}")
        time.sleep(0.5)

    restarted = False
    good = 0  # a state that holds twice: the first may be of the tasks before this configuration
    seen, reasons = "STARTING", []
    while time.monotonic() < deadline:
        try:
            seen, reasons = state(connect_url, name)
            good = good + 1 if seen == "RUNNING" else 0
            if good == 3:
                return
            if seen == "FAILED" and not restarted:
                restarted = True
                call(connect_url, "POST", f"/connectors/{name}/restart?includeTasks=true&onlyFailed=true")
                time.sleep(3)
            elif seen == "FAILED":
                raise ConnectorError(f"connector {name} failed: {'; '.join(sorted(set(reasons)))}")
        except OSError as error:
            seen = f"unknown ({error})"
        time.sleep(0.7)
    raise ConnectorError(f"connector {name} does not run after {timeout:.0f} s; state: {seen} {'; '.join(reasons)}")


def _message(detail: str) -> str:
    try:
        return json.loads(detail)["message"]
    except (ValueError, KeyError, TypeError):
        return detail


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connect-url", default=os.environ.get("VQE_CONNECT_URL", "http://127.0.0.1:8083"))
    parser.add_argument("--name", default=DEFAULT_NAME)
    parser.add_argument("--config", type=pathlib.Path, default=DEFAULT_CONFIG)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="overrides one setting")
    parser.add_argument("--timeout", type=float, default=120, help="seconds")
    options = parser.parse_args()
    try:
        login()
    except OSError as error:
        parser.error(f"VQE_CONNECT_PASSWORD_FILE: {error.filename}: {error.strerror}")
    config = json.loads(options.config.read_text())
    for setting in options.set:
        key, equals, value = setting.partition("=")
        if not equals:
            parser.error(f"--set {setting}: want KEY=VALUE")
        config[key] = value
    try:
        setup(options.connect_url, options.name, config, options.timeout)
    except ConfigRefused as error:
        print(error, file=sys.stderr)
        return 2
    except ConnectorError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"connector {options.name} runs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
