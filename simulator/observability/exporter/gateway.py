"""The PushGateway's groups: those of runs that have not been pushed for ten minutes are removed."""

import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from simulator.observability.metrics import JOB, REMOVE_SECONDS, group_url, request_directly
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
        self._pushes: dict[
            str, tuple[float, float]
        ] = {}  # instance -> time of its last push, and when we first saw that

    def look(self) -> None:
        """List the groups and remove the old ones."""
        groups = json.loads(request_directly(f"{self._gateway}/api/v1/metrics", "GET"))["data"]
        kept = 0
        pushes, self._pushes = self._pushes, {}
        for group in groups:
            labels = group["labels"]
            if labels.get("job") != JOB or set(labels) != {"job", "instance"}:
                continue
            pushed = float(group["push_time_seconds"]["metrics"][0]["value"])
            if self._is_old(labels["instance"], pushed, pushes):
                request_directly(group_url(self._gateway, labels["instance"]), "DELETE")
                self._removed += 1
            else:
                kept += 1
        self._groups = kept

    def _is_old(self, instance: str, pushed: float, before: dict[str, tuple[float, float]]) -> bool:
        """Whether a group was not pushed for ten minutes. One that was pushed between two looks is not, whatever the
        clocks say; one that was not, while we looked for ten minutes, is."""
        last, seen = before.get(instance, (pushed, time.monotonic()))
        if last != pushed:
            self._pushes[instance] = pushed, time.monotonic()
            return False
        self._pushes[instance] = pushed, seen
        return time.time() - pushed > REMOVE_SECONDS or time.monotonic() - seen > REMOVE_SECONDS

    def families(self, up: bool) -> "Iterator[Metric]":
        """How many groups there are."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        if up:
            yield GaugeMetricFamily("vqe_pushgateway_groups", "Groups of runs at the PushGateway.", self._groups)
        yield CounterMetricFamily("vqe_pushgateway_groups_removed", "Groups of runs removed by age.", self._removed)

    def close(self) -> None:
        """Nothing is held open."""
