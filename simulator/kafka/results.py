"""What the topics say about specifications: which are completed, which were started."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from simulator.kafka.follower import Follower
from simulator.settings import Settings


@dataclass
class Outcomes:
    """What became of specifications so far. A specification may have several runs."""

    completed: set[str] = field(default_factory=set)
    ended_runs: dict[str, str] = field(default_factory=dict)  # run_id -> spec_id
    started_runs: dict[str, str] = field(default_factory=dict)  # run_id -> spec_id

    def add(self, stream: str, record: dict[str, Any]) -> None:
        """Take a record of vqe_run or vqe_result."""
        run_id, spec_id = str(record["run_id"]), str(record["spec_id"])
        if stream == "vqe_run":
            self.started_runs[run_id] = spec_id
            return
        self.ended_runs[run_id] = spec_id
        if record["status"] == "completed":
            self.completed.add(spec_id)

    def lost(self) -> Counter[str]:
        """By spec_id, how many runs began and never ended."""
        return Counter(spec for run, spec in self.started_runs.items() if run not in self.ended_runs)


class OutcomeReader:
    """Follows vqe_run and vqe_result of every major version from their beginning."""

    def __init__(self, settings: Settings) -> None:
        self.outcomes = Outcomes()
        self._follower = Follower(settings, "vqe-outcomes", ("vqe_run", "vqe_result"), self._add)

    def catch_up(self) -> Outcomes:
        """Read to the present end of the topics.

        Raises:
            ServiceError: Kafka or the registry does not answer; nothing is left out when it does again.
        """
        self._follower.catch_up()
        return self.outcomes

    def close(self) -> None:
        """Leave."""
        self._follower.close()

    def _add(self, stream: str, record: dict[str, Any], _at: float) -> None:
        self.outcomes.add(stream, record)


def read_outcomes(settings: Settings) -> Outcomes:
    """What the topics say now.

    Raises:
        ServiceError: Kafka or the registry does not answer.
    """
    reader = OutcomeReader(settings)
    try:
        return reader.catch_up()
    finally:
        reader.close()
