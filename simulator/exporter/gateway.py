"""The PushGateway's groups: those of runs that have not been pushed for ten minutes are removed."""

import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from simulator.metrics import JOB, REMOVE_SECONDS, call_neighbour, group_url
from simulator.settings import Settings

if TYPE_CHECKING:
    from prometheus_client import Metric


class GatewaySource:
    """Removes what processes left behind that ended less than ten minutes after their last run, or were killed."""

    name = "pushgateway"

    def __init__(self, settings: Settings) -> None:
        assert settings.pushgateway_url is not None
        self.interval = settings.exporter_interval
        self._gateway = settings.pushgateway_url
        self._groups = self._removed = 0

    def look(self) -> None:
        """List the groups and remove the old ones."""
        groups = json.loads(call_neighbour(f"{self._gateway}/api/v1/metrics", "GET"))["data"]
        kept = 0
        for group in groups:
            labels = group["labels"]
            if labels.get("job") != JOB or set(labels) != {"job", "instance"}:
                continue
            pushed = float(group["push_time_seconds"]["metrics"][0]["value"])
            if time.time() - pushed > REMOVE_SECONDS:
                call_neighbour(group_url(self._gateway, labels["instance"]), "DELETE")
                self._removed += 1
            else:
                kept += 1
        self._groups = kept

    def families(self, up: bool) -> "Iterator[Metric]":
        """How many groups there are."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        if up:
            yield GaugeMetricFamily("vqe_pushgateway_groups", "Groups of runs at the PushGateway.", self._groups)
        yield CounterMetricFamily("vqe_pushgateway_groups_removed", "Groups of runs removed by age.", self._removed)

    def close(self) -> None:
        """Nothing is held open."""
