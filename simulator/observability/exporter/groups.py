"""Topics' sizes and consumer groups' lags, through the admin client: also when nobody consumes."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from simulator.events.schemas import SUNK_TOPICS
from simulator.kafka.clients import AdminLender
from simulator.kafka.lag import ADMIN_SECONDS, GroupProgress, Partition, committed, groups, offsets, progress
from simulator.settings import Settings

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient
    from prometheus_client import Metric

MAX_GROUPS = 50
PASSING = ("vqe-watch-", "vqe-finished", "vqe-exporter", "apicurio-")
"""Groups that commit nothing, or have a new name at every start."""


class GroupSource:
    """Looks at every topic of the platform and every consumer group."""

    name = "groups"

    def __init__(self, settings: Settings) -> None:
        self.interval = settings.exporter_interval
        self._admin = AdminLender(settings)
        self._sink = f"connect-{settings.connector}"
        self._records: dict[str, tuple[int, int]] = {}  # topic -> ever written, kept
        self._progress: list[GroupProgress] = []
        self._members: dict[str, int] = {}

    def look(self) -> None:
        """Look at offsets and groups."""
        with self._admin.lend() as admin:
            self._look(admin)

    def _look(self, admin: "AdminClient") -> None:
        metadata = admin.list_topics(timeout=ADMIN_SECONDS)
        partitions: list[Partition] = [
            (name, partition)
            for name, topic in metadata.topics.items()
            if name.startswith("vqe_") and not name.startswith("vqe_connect_")
            for partition in topic.partitions
        ]
        ends, firsts = offsets(admin, partitions), offsets(admin, partitions, earliest=True)
        names = {name for name, _ in partitions}
        records = {
            name: (
                sum(end for key, end in ends.items() if key[0] == name),
                sum(end - firsts[key] for key, end in ends.items() if key[0] == name),
            )
            for name in names
        }
        found = [g for g in groups(admin) if not g.startswith(PASSING)][:MAX_GROUPS]
        lags: list[GroupProgress] = []
        for group in found:
            known = committed(admin, group)
            if group == self._sink:  # a topic that it has not begun counts, too
                known = dict.fromkeys((key for key in partitions if SUNK_TOPICS.fullmatch(key[0])), 0) | known
            lags += progress(group, {key: o for key, o in known.items() if key in ends}, firsts, ends)
        self._records, self._progress, self._members = records, lags, _describe(admin, found)

    def families(self, up: bool) -> "Iterator[Metric]":
        """Offsets and lags of the last look; none while Kafka is away."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        if not up:
            return
        written = CounterMetricFamily("vqe_topic_records", "Records ever written to a topic.", labels=("topic",))
        kept = GaugeMetricFamily("vqe_topic_kept_records", "Records that the topic still holds.", labels=("topic",))
        for topic, (ever, now) in self._records.items():
            written.add_metric((topic,), ever)
            kept.add_metric((topic,), now)
        yield from (written, kept)
        labels = ("group", "topic")
        lag = GaugeMetricFamily(
            "vqe_consumer_group_lag_records", "Records behind the end that the group has not committed.", labels=labels
        )
        done = CounterMetricFamily(
            "vqe_consumer_group_committed_records", "Sum of the group's committed offsets.", labels=labels
        )
        for row in self._progress:
            lag.add_metric((row.group, row.topic), row.lag)
            done.add_metric((row.group, row.topic), row.committed)
        members = GaugeMetricFamily("vqe_consumer_group_members", "Consumers in the group.", labels=("group",))
        for group, count in self._members.items():
            members.add_metric((group,), count)
        yield from (lag, done, members)

    def close(self) -> None:
        """The admin client goes with the process."""


def _describe(admin: "AdminClient", found: list[str]) -> dict[str, int]:
    """Members by group."""
    if not found:
        return {}
    futures = admin.describe_consumer_groups(found, request_timeout=ADMIN_SECONDS)
    return {group: len(future.result(timeout=ADMIN_SECONDS).members) for group, future in futures.items()}
