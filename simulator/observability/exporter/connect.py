"""Kafka Connect's REST interface: the state of connectors and tasks, and whether it answers at all."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from simulator.observability.metrics import request_directly
from simulator.settings import Settings

if TYPE_CHECKING:
    from prometheus_client import Metric

STATES = ("RUNNING", "FAILED", "PAUSED", "STOPPED", "UNASSIGNED", "RESTARTING")
MAX_CONNECTORS = 20
_SECONDS = 5.0


class ConnectSource:
    """Looks at every connector; the platform's is shown even when Connect does not know it or does not answer."""

    name = "connect"

    def __init__(self, settings: Settings) -> None:
        assert settings.connect_url is not None
        self.interval = settings.exporter_interval
        self._url, self._ours = settings.connect_url, settings.connector
        self._login: tuple[str, str] | None = None
        if settings.connect_password is not None:
            self._login = (settings.connect_username, settings.connect_password.get_secret_value())
        self._status: dict[str, Any] = {}

    def look(self) -> None:
        """Ask for the status of all connectors."""
        url = f"{self._url}/connectors?expand=status"
        answer = json.loads(request_directly(url, "GET", seconds=_SECONDS, login=self._login))
        self._status = {name: answer[name]["status"] for name in sorted(answer)[:MAX_CONNECTORS]}

    def families(self, up: bool) -> "Iterator[Metric]":
        """1 for a connector that runs with all its tasks; tasks by state."""
        from prometheus_client.core import GaugeMetricFamily

        running = GaugeMetricFamily(
            "vqe_connector_running", "Whether the connector and every task of it is RUNNING.", labels=("connector",)
        )
        tasks = GaugeMetricFamily("vqe_connector_tasks", "Tasks by state.", labels=("connector", "state"))
        status = self._status if up else {}
        for name in sorted({self._ours, *status}):
            known = status.get(name, {"connector": {"state": "UNASSIGNED"}, "tasks": []})
            states = Counter(task["state"] for task in known["tasks"])
            well = known["connector"]["state"] == "RUNNING" and set(states) == {"RUNNING"}
            running.add_metric((name,), float(well))
            for state in STATES:
                tasks.add_metric((name, state), states[state])
        yield from (running, tasks)

    def close(self) -> None:
        """Nothing is held open."""
