"""The one loop that works off the queue: `vqe sweep`, `vqe worker` and the service are this pool with other settings.

A pool claims jobs, gives each to a child process, and renews their leases from here, whatever the runs do. A job is completed after
its result is acknowledged by the sink, never before. What is no fault of a job (a disk that is full, Kafka or the queue's database
away, no GPU) never counts against it: the job goes back, and the pool says what is wrong and takes none until that is over.
"""

import contextlib
import os
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from simulator.errors import VqeError, one_line
from simulator.log import get_logger
from simulator.memory import available_bytes, readable
from simulator.queue import Claim, Job, JobQueue, LeaseLost, QueueAway
from simulator.runs.child import Child, ChildAnswer, ChildJob
from simulator.runs.finished import finished_run
from simulator.settings import Settings

LEASE_SECONDS = 30.0
LOOK_SECONDS = 0.25
"""Longest wait for a child's answer before leases and requests to cancel are looked at: a run is to stop within a second."""
IDLE_SECONDS = 0.5
"""Pause between two claims of a pool that has nothing to do."""
BEAT_SECONDS = 5.0
MAX_PAUSE_SECONDS = 60.0
MIN_FREE_BYTES = 64 << 20
"""A disk with less room takes no run's events: no job is claimed for it."""
MEMORY_PER_RUN = int(1.5 * 2**30)
"""Resident memory of a run on up to 16 qubits, with room; a second run is begun only where this much is available."""


@dataclass
class PoolCounts:
    """What a pool has done since it began."""

    done: int = 0
    failed: int = 0
    skipped: int = 0  # found completed when they were claimed
    cancelled: int = 0
    returned: int = 0  # given back to the queue
    lost: int = 0  # processes that died in a run
    leases_lost: int = 0  # jobs that another worker had meanwhile


@dataclass
class _Slot:
    """A child process and the job that it has."""

    child: Child
    claim: Claim | None = None
    began: float = 0.0  # monotonic seconds
    renew_at: float = 0.0
    stopping: bool = False  # it was asked to end its run
    cancel: bool = False  # because somebody cancelled the job
    lost: bool = False  # the job is another worker's: what comes of the run is told to nobody
    told_undelivered: bool = False
    told: Callable[[], None] | None = None  # how the job ended, which the queue is still to be told

    def free(self) -> None:
        self.claim, self.told = None, None
        self.stopping = self.cancel = self.lost = self.told_undelivered = False


@dataclass(frozen=True)
class PoolLimits:
    """When a pool ends by itself.

    Args:
        max_jobs: after so many jobs; None: as many as come.
        idle_seconds: when there was no job for so long; None: never.
        drained: asked when there is nothing to do: True ends the pool.
    """

    max_jobs: int | None = None
    idle_seconds: float | None = None
    drained: Callable[[], bool] = field(default=lambda: False)


class Pool:
    """Works off jobs of the queue in child processes until it is stopped or has reached its limits.

    Args:
        settings: of the runs; events go where they say.
        queue: whose jobs.
        workers: runs at a time.
        threads: threads of the numerical libraries in a run.
        devices: `cpu`, `gpu`: jobs of these are taken.
        sweep_id: take jobs of this sweep only.
        lease_seconds: silence after which the queue gives this pool's jobs to others.
        heartbeat: file that is touched while the pool is well, for health checks.
        patient: wait while the machine or a service is at fault; else the fault is raised.
        ended: is told each job that came to an end here, with what became of it.
        idle: is called when there is nothing to do, after jobs were done.
    """

    def __init__(
        self, settings: Settings, queue: JobQueue, *, workers: int = 1, threads: int = 1, devices: Sequence[str] = ("cpu",),
        sweep_id: str | None = None, lease_seconds: float = LEASE_SECONDS, heartbeat: Path | None = None, patient: bool = True,
        ended: Callable[[Job, ChildAnswer], None] = lambda _job, _answer: None, idle: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self.settings, self.queue, self.counts = settings, queue, PoolCounts()
        self.name = f"{socket.gethostname()}-{os.getpid()}-{time.monotonic_ns() % 1_000_000:06d}"
        self.problem: str | None = None
        """Why no jobs are taken; None while they are."""
        self.devices, self._sweep_id, self._lease = tuple(devices), sweep_id, lease_seconds
        self._heartbeat, self._patient, self._ended, self._idle = heartbeat, patient, ended, idle
        self._workers, self._threads = workers, threads
        self._slots: list[_Slot] = []
        self._stopping = False
        self._taken, self._unbuilt = 0, False
        self._queue_is_away = False
        self._pause_until, self._pause = 0.0, 1.0
        self._beat_at = 0.0
        self._renew_alone_at = 0.0
        self._alone: Claim | None = None  # a job that did not fit beside others, and gets the machine for itself

    def stop(self) -> None:
        """Take no more jobs; those that run are interrupted and go back with their checkpoints."""
        self._stopping = True
        for slot in self._slots:
            if slot.claim is not None:
                slot.stopping = True
                slot.child.interrupt()

    @property
    def running(self) -> list[float]:
        """Monotonic seconds at which each running job was taken."""
        return [slot.began for slot in self._slots if slot.claim is not None]

    @property
    def delivery(self) -> dict[str, int]:
        """Events delivered, failed and rejected by the children since the pool began."""
        found: dict[str, int] = {}
        for slot in self._slots:
            for name, count in slot.child.delivery.items():
                found[name] = found.get(name, 0) + count
        return found

    def run(self, limits: PoolLimits | None = None) -> PoolCounts:
        """Work until stopped or at a limit.

        Raises:
            VqeError: of a pool that is not patient, what keeps it from working.
        """
        limits = limits or PoolLimits()
        last_job = time.monotonic()
        try:
            while True:
                try:
                    self._sign_of_life()
                    self._fill(limits)
                    busy = [slot for slot in self._slots if slot.claim is not None]
                    for slot in self._wait(busy):
                        self._tend(slot)
                except QueueAway as error:
                    if not self._patient:
                        raise
                    self._set_problem(error)
                    busy = [slot for slot in self._slots if slot.claim is not None]
                if busy:
                    last_job = time.monotonic()
                elif self._ends(limits, time.monotonic() - last_job):
                    return self.counts
                else:
                    time.sleep(IDLE_SECONDS)
        finally:
            self._close()

    def _ends(self, limits: PoolLimits, idle: float) -> bool:
        if self._stopping or (limits.max_jobs is not None and self._taken >= limits.max_jobs):
            return True
        if self._unbuilt:
            self._unbuilt = False
            self._idle()
        if self.problem is not None and self._patient:
            return False
        return limits.drained() or (limits.idle_seconds is not None and idle >= limits.idle_seconds)

    # --- taking jobs

    def _fill(self, limits: PoolLimits) -> None:
        """Give each free child a job, as far as there are jobs and room."""
        if self._alone is not None:
            self._wait_to_be_alone(self._alone)
            return
        while not self._stopping and (limits.max_jobs is None or self._taken < limits.max_jobs):
            running = len(self.running)
            if running >= self._workers or time.monotonic() < self._pause_until:
                return
            if (unfit := self._unfit(running)) is not None:
                if unfit:
                    self._set_problem(VqeError(unfit))
                return
            claim = self.queue.claim(self.name, self.devices, lease_seconds=self._lease, sweep_id=self._sweep_id)
            if claim is None:
                self._clear_problem()
                return
            self._taken += 1
            self._take(claim)

    def _wait_to_be_alone(self, claim: Claim) -> None:
        """Begin the job that did not fit beside others once they have ended; until then it is kept."""
        if not self.running:
            self._alone = None
            self._begin(self._free_slot(), claim)
            return
        if time.monotonic() < self._renew_alone_at:
            return
        self._renew_alone_at = time.monotonic() + self._lease / 3
        try:
            if self.queue.renew(claim, self._lease):
                return
            self.queue.cancelled(claim)
            self.counts.cancelled += 1
        except LeaseLost:
            self.counts.leases_lost += 1
        self._alone = None

    def _unfit(self, running: int) -> str | None:
        """Why no job is taken now: a fault in words, or nothing to tell where only memory is short; None where all is well."""
        folder = next(
            (f for f in (self.settings.data_dir, *self.settings.data_dir.absolute().parents) if f.is_dir()), None
        )
        if folder is not None and (free := shutil.disk_usage(folder).free) < MIN_FREE_BYTES:
            return f"the disk of {folder} is full: {readable(free)} are free, {readable(MIN_FREE_BYTES)} are needed"
        if running and available_bytes() < MEMORY_PER_RUN:
            return ""
        return None

    def _take(self, claim: Claim) -> None:
        job = claim.job
        log = get_logger().bind(job_id=job.job_id, spec_id=job.spec_id, name=job.name, sweep_id=job.sweep_id)
        if claim.token > 1:
            try:
                found = finished_run(self.settings, job)
            except VqeError as error:
                self._give_back_now(claim, error)
                return
            if found is not None:
                log.info("job skipped", reason="its result is there already", run_id=found.run_id)
                self.counts.skipped += 1
                slot = self._free_slot()
                slot.claim, slot.began, slot.renew_at = claim, time.monotonic(), time.monotonic() + self._lease / 3
                self._say(slot, lambda: self.queue.complete(claim, run_id=found.run_id, summary=found.summary))
                return
        log.info("job begins", attempt=job.attempt)
        self._begin(self._free_slot(), claim)

    def _free_slot(self) -> _Slot:
        for slot in self._slots:
            if slot.claim is None:
                return slot
        slot = _Slot(Child(self.settings, threads=self._threads))
        self._slots.append(slot)
        return slot

    def _begin(self, slot: _Slot, claim: Claim) -> None:
        job = claim.job
        try:
            slot.child.submit(
                ChildJob(job.kind, job.spec_json, job.name, job.sweep_id, max(job.attempt, 1), job.checkpoint)
            )
        except VqeError as error:
            self._give_back_now(claim, error)
            return
        now = time.monotonic()
        slot.claim, slot.began, slot.renew_at = claim, now, now + self._lease / 3
        self._clear_problem()
        if self._stopping:
            slot.stopping = True
            slot.child.interrupt()

    # --- while they run

    def _wait(self, busy: list[_Slot]) -> list[_Slot]:
        """Wait until a child may have something to say, or it is time to look at leases; returns who is to be tended."""
        if any(slot.told is not None for slot in busy):  # the queue is away, and nothing of a child's is waited for
            time.sleep(LOOK_SECONDS)
        elif busy:
            wait(
                [item for slot in busy for item in (slot.child.pipe, slot.child.process.sentinel)], timeout=LOOK_SECONDS
            )
        return busy

    def _tend(self, slot: _Slot) -> None:
        claim = slot.claim
        assert claim is not None
        if slot.told is not None:
            self._say(slot, slot.told)
            return
        try:
            answer = slot.child.answer()
        except VqeError as error:  # the process cannot work, for a reason that is not the job's
            slot.free()
            self._give_back_now(claim, error)
            return
        self._keep_checkpoint(slot, claim)
        if answer is not None:
            self._take_answer(slot, claim, answer)
        elif not slot.lost:
            self._renew(slot, claim)

    def _keep_checkpoint(self, slot: _Slot, claim: Claim) -> None:
        checkpoint = slot.child.checkpoint
        if checkpoint is None or slot.lost:
            return
        try:
            self.queue.save_checkpoint(claim, checkpoint)
        except LeaseLost:
            self._lose(slot)
        except QueueAway:
            return  # it is offered again, or a newer one
        except VqeError as error:
            get_logger().warning("checkpoint not kept", job_id=claim.job.job_id, reason=one_line(error))
        slot.child.checkpoint = None

    def _renew(self, slot: _Slot, claim: Claim) -> None:
        """Keep the lease, and see whether the job was cancelled; the queue being away ends neither run nor lease."""
        try:
            if time.monotonic() >= slot.renew_at:
                slot.renew_at = time.monotonic() + self._lease / 3
                goes_on = self.queue.renew(claim, self._lease)
            else:
                goes_on = slot.cancel or not self.queue.cancel_requested(claim)
        except LeaseLost:
            self._lose(slot)
            return
        except QueueAway as error:
            self._set_problem(error)
            return
        if self._queue_is_away:
            self._clear_problem()
        if not goes_on and not slot.cancel:
            slot.cancel = slot.stopping = True
            slot.child.interrupt()

    def _lose(self, slot: _Slot) -> None:
        assert slot.claim is not None
        get_logger().warning("lease lost: another worker has the job", job_id=slot.claim.job.job_id)
        self.counts.leases_lost += 1
        slot.lost = True
        slot.child.interrupt()

    def _take_answer(self, slot: _Slot, claim: Claim, answer: ChildAnswer) -> None:
        job, queue, run_id = claim.job, self.queue, slot.child.run_id
        summary = answer.summary
        log = get_logger().bind(job_id=job.job_id, spec_id=job.spec_id, name=job.name, run_id=run_id)
        interrupted = answer.exit_code == 130
        if slot.lost:
            slot.free()
            return
        if summary is not None and not answer.delivered and not interrupted and not slot.stopping:
            if not slot.told_undelivered:
                log.warning("waiting for Kafka to take the result")
                slot.told_undelivered = True
            slot.child.deliver()
            self._renew(slot, claim)
            return
        if answer.died:
            self.counts.lost += 1
            log.warning("run lost", reason=answer.error)
            self._say(slot, lambda: queue.give_back(claim, answer.error or "its process died", counts=True))
        elif answer.does_not_fit and len(self.running) > 1:
            log.info("job waits for the machine to be free", reason=answer.error)
            self._alone = claim
            slot.free()
        elif slot.cancel and interrupted:
            self.counts.cancelled += 1
            log.info("job cancelled")
            self._finish(slot, lambda: queue.cancelled(claim, run_id=run_id, summary=summary), answer)
        elif interrupted or (summary is not None and not answer.delivered):
            self.counts.returned += 1
            log.info("job returned")
            reason = (
                "its worker was stopped" if interrupted else "its worker was stopped before its result was delivered"
            )
            self._finish(slot, lambda: queue.give_back(claim, reason), answer)
        elif answer.completed:
            self.counts.done += 1
            log.info("job done", exit_code=answer.exit_code)
            self._finish(slot, lambda: queue.complete(claim, run_id=run_id, summary=summary), answer)
        else:
            self.counts.failed += 1
            log.info("job failed", error=answer.error)
            error = answer.error or "the run failed"
            self._finish(slot, lambda: queue.fail(claim, error, run_id=run_id, summary=summary), answer)

    def _finish(self, slot: _Slot, end: Callable[[], None], answer: ChildAnswer) -> None:
        """Tell the queue how a job ended, and whoever asked to be told of it."""
        claim = slot.claim
        assert claim is not None

        def told() -> None:
            end()
            self._ended(claim.job, answer)

        self._say(slot, told)

    def _say(self, slot: _Slot, told: Callable[[], None]) -> None:
        """Tell the queue; while it is away, the job is kept and this is said again."""
        assert slot.claim is not None
        slot.told = told
        try:
            told()
        except LeaseLost:
            self.counts.leases_lost += 1
            get_logger().warning("another worker has had the job meanwhile", job_id=slot.claim.job.job_id)
        except QueueAway as error:
            if not self._patient:
                raise
            self._set_problem(error)
            return
        self._unbuilt = True
        slot.free()

    # --- what is wrong

    def _give_back_now(self, claim: Claim, fault: VqeError) -> None:
        """The machine, not the job, is at fault: the job goes back and nothing is taken for a while."""
        self.counts.returned += 1
        with contextlib.suppress(LeaseLost, QueueAway):  # then it goes back by itself when its lease ends
            self.queue.give_back(claim, f"worker {self.name}: {one_line(fault)}")
        self._set_problem(fault)
        if not self._patient:
            raise fault

    def _set_problem(self, fault: VqeError) -> None:
        line = one_line(fault)
        if line != self.problem:
            get_logger().warning("no jobs are taken", reason=line)
        self.problem, self._queue_is_away = line, isinstance(fault, QueueAway)
        self._pause_until = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, MAX_PAUSE_SECONDS)
        self._beat_at = 0.0

    def _clear_problem(self) -> None:
        if self.problem is not None:
            get_logger().info("jobs are taken again")
            self._beat_at = 0.0
        self.problem, self._queue_is_away, self._pause = None, False, 1.0

    def _sign_of_life(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.touch()
        if time.monotonic() < self._beat_at:
            return
        self._beat_at = time.monotonic() + BEAT_SECONDS
        running = [slot.claim.job.job_id for slot in self._slots if slot.claim is not None]
        try:
            self.queue.beat(
                self.name, host=socket.gethostname(), pid=os.getpid(), devices=self.devices, problem=self.problem,
                job_id=running[0] if running else None,
            )  # fmt: skip
        except QueueAway:
            self._beat_at = time.monotonic() + BEAT_SECONDS
            raise

    def _close(self) -> None:
        """End the children; jobs that still run because of an error are given back."""
        for slot in self._slots:
            if slot.claim is not None:
                slot.child.interrupt()
        end = time.monotonic() + self.settings.delivery_seconds + 30
        for slot in self._slots:
            slot.child.close(max(1.0, end - time.monotonic()))
        claims: list[Any] = [slot.claim for slot in self._slots if slot.claim is not None and not slot.lost]
        if self._alone is not None:
            claims.append(self._alone)
        for claim in claims:
            with contextlib.suppress(VqeError):  # then it goes back by itself when its lease ends
                self.queue.give_back(claim, f"worker {self.name} ended")
        with contextlib.suppress(VqeError):
            self.queue.leave(self.name)
