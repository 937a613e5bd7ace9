"""The worker: takes jobs from Kafka one by one and runs each in a child process while it goes on polling.

At least once: a job's offset is committed after Kafka has its result. Whoever takes a job first reads `vqe_result` to
its end and skips a specification that is completed, so that a redelivered job is not run again; a stalled worker and its
successor may still both finish, and both runs are kept.
"""

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.errors import InputError
from simulator.kafka.clients import ServiceError, make_consumer, make_producer
from simulator.kafka.follower import Decoder
from simulator.kafka.replay import replay
from simulator.kafka.results import OutcomeReader
from simulator.kafka.topics import JOB_TOPIC
from simulator.log import get_logger
from simulator.runs.child import Child, ChildAnswer, ChildJob
from simulator.runs.jobs import set_aside
from simulator.settings import Settings
from simulator.signals import on_stop
from simulator.vqe.spec import RunSpec

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Message, TopicPartition

    from simulator.runs.worker_metrics import WorkerMetrics

GROUP = "vqe-workers"
MAX_STARTS = 3
POLL_SECONDS = 0.5


@dataclass
class WorkerCounts:
    """What a worker has done since it began."""

    done: int = 0
    failed: int = 0
    skipped: int = 0
    set_aside: int = 0
    returned: int = 0
    lost: int = 0  # children that died in a run


class Worker:
    """Runs jobs until it is stopped.

    Args:
        settings: the Kafka sink's settings; events go through this machine's spool.
        group: consumer group that shares the jobs.
        session_seconds: seconds of silence after which Kafka gives this worker's jobs to another.
        threads: threads of the numerical libraries in a run.
        heartbeat: file that is touched while the worker is well, for health checks.
        device: `cpu` or `gpu` takes the jobs of that device only and leaves the others to the other's group, which reads
            the same topic: `group` for CPUs, `group`-gpu for GPUs. None takes all.

    Raises:
        ServiceError: Kafka or the registry does not answer.
    """

    def __init__(
        self, settings: Settings, *, group: str = GROUP, session_seconds: float = 45.0, threads: int = 1,
        heartbeat: Path | None = None, device: str | None = None,
    ) -> None:  # fmt: skip
        if device == "gpu":
            group = f"{group}-gpu"
        self._device = device
        self.counts = WorkerCounts()
        self.settings = settings
        self.job_began: float | None = None  # monotonic seconds
        self._group, self._heartbeat, self._stopping = group, heartbeat, False
        self._starts: Counter[str] = Counter()
        self._decode = Decoder(settings)
        self._replayed = replay(settings, seconds=settings.delivery_seconds).delivery
        self._outcomes = OutcomeReader(settings)
        self._outcomes.catch_up()
        self._producer = make_producer(settings)
        self._child = Child(settings, threads=threads)
        self._consumer: Consumer = make_consumer(
            settings, group,
            **{"session.timeout.ms": int(session_seconds * 1000), "heartbeat.interval.ms": max(300, int(session_seconds * 100)),
               "partition.assignment.strategy": "cooperative-sticky", "fetch.max.bytes": 1 << 20},
        )  # fmt: skip
        self._consumer.subscribe([JOB_TOPIC])

    def stop(self) -> None:
        """Take no more jobs; the one that runs is interrupted and goes back to the group."""
        self._stopping = True
        self._child.interrupt()

    def run(self, *, max_jobs: int | None = None, idle_seconds: float | None = None) -> WorkerCounts:
        """Take jobs until stopped, `max_jobs` were taken, or none came for `idle_seconds`."""
        with on_stop(self.stop):
            return self._run(max_jobs, idle_seconds)

    def _run(self, max_jobs: int | None, idle_seconds: float | None) -> WorkerCounts:
        last, taken = time.monotonic(), 0
        metrics = None
        try:
            metrics = self._serve_metrics()
            while not self._stopping and (max_jobs is None or taken < max_jobs):
                message = self._poll(POLL_SECONDS)
                if message is None:
                    if idle_seconds is not None and time.monotonic() - last > idle_seconds:
                        break
                    continue
                taken += 1
                self._take(message)
                last = time.monotonic()
        finally:
            if metrics is not None:
                metrics.close()
            self._child.close(self.settings.delivery_seconds + 30)
            self._outcomes.close()
            self._consumer.close()
        return self.counts

    @property
    def delivery(self) -> dict[str, int]:
        """Events delivered, failed and rejected since the worker began, those of its start's replay too."""
        return {name: getattr(self._replayed, name) + count for name, count in self._child.delivery.items()}

    def assignment(self) -> "list[TopicPartition]":
        """Partitions of the job topic that are this worker's now."""
        return self._consumer.assignment()

    def _serve_metrics(self) -> "WorkerMetrics | None":
        if not self.settings.metrics_port:
            return None
        from simulator.runs.worker_metrics import WorkerMetrics

        return WorkerMetrics(self, self._group)

    def _poll(self, seconds: float) -> "Message | None":
        if self._heartbeat is not None:
            self._heartbeat.touch()
        message = self._consumer.poll(seconds)
        if message is None:
            return None
        if (error := message.error()) is not None:
            get_logger().warning("job topic", error=error.str())
            return None
        return message

    def _take(self, message: "Message") -> None:
        try:
            record = self._decode(message.value() or b"")
            spec = RunSpec.from_json(record["spec_json"])
            if spec.spec_id != record["spec_id"]:
                raise InputError(f"spec_id {record['spec_id']} is not the specification's, {spec.spec_id}")
        except (ValueError, KeyError, InputError) as error:
            self._set_aside(message, f"not a job: {error}", 0)
            return
        log = get_logger().bind(spec_id=spec.spec_id, molecule=record["molecule_name"], sweep_id=record["sweep_id"])
        if self._device not in (None, spec.device):
            log.debug("job left to the workers of its device", device=spec.device)
            self._commit(message)
            return
        while True:
            outcomes = self._caught_up()
            if outcomes is None:
                return
            if spec.spec_id in outcomes.completed and not record["force"]:
                log.info("job skipped", reason="completed")
                self.counts.skipped += 1
                self._commit(message)
                return
            starts = max(self._starts[spec.spec_id], outcomes.lost()[spec.spec_id])
            if starts >= MAX_STARTS:
                self._set_aside(message, f"started {starts} times without a result", starts)
                return
            self._starts[spec.spec_id] += 1
            log.info("job begins", attempt=starts + 1)
            answer = self._work(
                ChildJob("vqe", record["spec_json"], record["molecule_name"], record["sweep_id"], starts + 1)
            )
            if answer.summary is None and answer.exit_code != 2 and not self._stopping:
                log.warning("run lost", reason=answer.error)
                self.counts.lost += 1
                continue  # the child died: again, until it has started three times
            break
        if answer.exit_code == 130 or not answer.delivered:
            self.counts.returned += 1
            log.info("job returned")
            return
        del self._starts[spec.spec_id]
        self.counts.done += answer.completed
        self.counts.failed += not answer.completed
        log.info("job done", exit_code=answer.exit_code, error=answer.error)
        self._commit(message)

    def _work(self, job: ChildJob) -> ChildAnswer:
        """Run a job in the child; the group sees this worker polling all the while."""
        paused = self._consumer.assignment()
        if paused:
            self._consumer.pause(paused)
        self._child.submit(job)
        self.job_began = time.monotonic()
        if self._stopping:
            self._child.interrupt()
        try:
            while True:
                answer = self._child.answer()
                if answer is not None:
                    return answer
                self._keep_in_group()
        finally:
            self.job_began = None
            current = self._consumer.assignment()
            if current:
                self._consumer.resume(current)

    def _keep_in_group(self) -> None:
        """Poll without taking a job: partitions that a rebalance adds meanwhile are paused and put back."""
        message = self._poll(POLL_SECONDS)
        if message is not None:
            from confluent_kafka import TopicPartition

            here = TopicPartition(message.topic() or JOB_TOPIC, message.partition() or 0, message.offset() or 0)
            self._consumer.pause([here])
            self._consumer.seek(here)

    def _caught_up(self) -> Any:
        """What became of specifications, waiting while Kafka is away; None when the worker is to stop."""
        told = False
        while not self._stopping:
            try:
                return self._outcomes.catch_up()
            except ServiceError as error:
                if not told:
                    get_logger().warning("waiting for Kafka", error=str(error))
                    told = True
                self._keep_in_group()
        return None

    def _set_aside(self, message: "Message", reason: str, attempts: int) -> None:
        get_logger().warning("job set aside", reason=reason, offset=message.offset(), partition=message.partition())
        set_aside(self._producer, message, reason, attempts)
        self.counts.set_aside += 1
        self._commit(message)

    def _commit(self, message: "Message") -> None:
        from confluent_kafka import KafkaException

        try:
            self._consumer.commit(message=message, asynchronous=False)
        except KafkaException as error:
            # The partition has gone to another worker; it will see the result and skip the job.
            get_logger().info("offset not committed", reason=error.args[0].str())
