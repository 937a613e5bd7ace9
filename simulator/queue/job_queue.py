"""The work queue: jobs are submitted, claimed under a lease, and end; whoever lost its lease can write no more.

Every claim of a job has a higher token than the one before, and each write of a worker is for its token only, so that a
worker that slept past its lease finds out at its next word (M. Kleppmann, How to do distributed locking, 2016).
"""

import json
import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, literal, select, text, update

from simulator.errors import InputError
from simulator.events.records import new_id
from simulator.queue import claiming, migrate, selecting, submitting, workers
from simulator.queue.database import Database
from simulator.queue.records import (
    Cancelled,
    Checkpoint,
    Claim,
    Job,
    JobFilter,
    LeaseLost,
    NewJob,
    QueueAway,
    State,
    Submitted,
    WorkerRow,
    packed,
)
from simulator.queue.tables import checkpoints, jobs, now, seconds_from_now
from simulator.settings import Settings

LEASE_SECONDS = 30.0


class JobQueue:
    """The queue of a platform or of a data dir, for every thread of a process; made by `open`.

    Every method raises `QueueAway` where the database does not answer. What it has answered is kept; a method that
    raised may be called again.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._unanswered: dict[str, list[str]] = {}  # of a worker, claims that may have been committed unseen
        self._lock = threading.Lock()

    @classmethod
    def open(cls, settings: Settings, *, migrate: bool = False, retry_seconds: float | None = None) -> "JobQueue":
        """The queue where the settings say: `queue_uri`, else `queue.db` in the data dir, which is made.

        Args:
            settings: the process'.
            migrate: make the tables in Postgres, or bring them to this version.
            retry_seconds: how long each call tries again while the database is away; by default five seconds.

        Raises:
            InputError: the URI cannot be right.
            QueueAway: the database does not answer, or lacks the tables.
        """
        database = Database(settings, retry_seconds=retry_seconds)
        try:
            _ensure(database, migrate=migrate)
        except BaseException:
            database.close()
            raise
        return cls(database)

    @property
    def where(self) -> str:
        """The database, without its password."""
        return self._database.where

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    def __enter__(self) -> "JobQueue":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- who asks for jobs

    def submit(self, new: Iterable[NewJob]) -> Submitted:
        """Put jobs into the queue, all or none.

        A job whose specification waits or runs is known, as is one whose specification is completed unless it is forced.
        An idempotency key that was used before gives the job of then.

        Raises:
            InputError: an idempotency key was used before for another job.
        """
        wanted = submitting.requests(list(new))
        while True:
            try:
                ids, n_new = self._database.write(lambda c, _: submitting.submit(c, wanted), durable=True)
            except submitting.KeyTaken:
                continue
            return Submitted(ids, n_new, len(ids) - n_new)

    def job(self, job_id: str) -> Job:
        """A job with its checkpoint.

        Raises:
            InputError: there is none of this id.
        """
        found = self._database.read(lambda c: selecting.one(c, job_id))
        if found is None:
            raise InputError(f"no job {job_id} in {self.where}")
        return found

    def jobs(
        self, *, states: Sequence[State] | None = None, sweep_id: str | None = None, owner: str | None = None,
        kind: str | None = None, name: str | None = None, since: datetime | None = None, limit: int | None = None,
        after: str | None = None,
    ) -> list[Job]:  # fmt: skip
        """Jobs that meet every condition given, the newest first, without the parameters of their checkpoints.

        Args:
            since: submitted at or after this time.
            limit: at most so many.
            after: those behind this job id in the order, for the next page.

        Raises:
            InputError: a state or the job `after` does not exist.
        """
        wanted = JobFilter(None if states is None else tuple(states), sweep_id, owner, kind, name, since)
        return self._database.read(lambda c: selecting.listed(c, wanted, limit, after))

    def states(self, job_ids: Iterable[str]) -> dict[str, State]:
        """The states of these jobs, in one look; ids of no job are left out."""
        wanted = list(job_ids)
        return self._database.read(lambda c: selecting.states(c, wanted))

    def latest(self, kind: str, spec_ids: Iterable[str]) -> dict[str, tuple[State, str | None]]:
        """State and error of the newest job of each specification; those that nobody asked for are left out."""
        wanted = list(spec_ids)
        return self._database.read(lambda c: selecting.latest(c, kind, wanted))

    def adopt(self, job_ids: Iterable[str], sweep_id: str) -> None:
        """Let jobs that wait, whoever asked for them, belong to a sweep: it needs what another was to run."""
        wanted = list(job_ids)
        self._database.write(lambda c, _: selecting.adopt(c, wanted, sweep_id))

    def find(self, shortened: Sequence[str]) -> list[str]:
        """The ids of which these are the beginning or the end.

        Raises:
            InputError: one is that of no job, or of several.
        """
        return self._database.read(lambda c: selecting.of_abbreviations(c, shortened))

    def cancel(self, chosen: Iterable[str] | JobFilter) -> Cancelled:
        """Cancel jobs that wait and ask the workers of those that run to stop; others stay as they are."""
        return self._database.write(lambda c, _: selecting.cancel(c, self._condition(c, chosen)), durable=True)

    def retry(self, chosen: Iterable[str] | JobFilter) -> int:
        """Let jobs wait again that failed, were cancelled or are dead, with all attempts before them; returns how many.

        Their checkpoints are kept. One stays as it is whose specification another job has taken up.
        """
        return self._database.write(lambda c, _: selecting.retry(c, self._condition(c, chosen)), durable=True)

    def counts(self) -> dict[tuple[str, str, str], int]:
        """Jobs by (state, device, kind)."""
        return self._database.read(selecting.counts)

    def oldest_waiting(self) -> dict[str, float]:
        """Seconds that the job has waited which waits longest, by device."""
        waits = select(jobs.c.device, func.min(jobs.c.waiting_since), now()).where(jobs.c.state == text("'waiting'"))
        rows = self._database.read(lambda c: c.execute(waits.group_by(jobs.c.device)).all())
        return {device: max(0.0, (current - oldest).total_seconds()) for device, oldest, current in rows}

    def expired_leases(self) -> dict[str, int]:
        """Running jobs whose lease has ended and that no claim has put back yet, by device."""
        return self._database.read(selecting.expired_leases)

    def recently_ended(self, seconds: float) -> dict[State, int]:
        """Jobs that failed, were cancelled or died in the last so many seconds, by state.

        Those completed are left out: they are most, and no index has them by time.
        """
        return self._database.read(lambda c: selecting.recently_ended(c, seconds))

    def completed_specs(self, kind: str, spec_ids: Iterable[str] | None = None) -> set[str]:
        """Specifications of a kind that are completed, of these or of all."""
        wanted = None if spec_ids is None else list(spec_ids)
        return self._database.read(lambda c: selecting.completed_specs(c, kind, wanted))

    @staticmethod
    def _condition(connection: Connection, chosen: Iterable[str] | JobFilter) -> Any:
        if isinstance(chosen, JobFilter):
            return selecting.matching(chosen)
        return selecting.among(connection, [chosen] if isinstance(chosen, str) else list(chosen))

    # --- who runs them

    def claim(
        self, worker: str, devices: Sequence[str] = ("cpu",), *, lease_seconds: float = LEASE_SECONDS,
        kinds: Sequence[str] | None = None, sweep_id: str | None = None,
    ) -> Claim | None:  # fmt: skip
        """The next job for a worker, or None; first, jobs whose lease has ended wait again.

        Of the jobs of these devices: the highest priority, then the owner with the fewest running on them, then the oldest.

        Args:
            worker: who asks, by a name of its own.
            devices: that it has.
            lease_seconds: how long the job is its unless it renews.
            kinds: that it can run; None: all.
            sweep_id: take jobs of this sweep only.
        """
        with self._lock:
            unanswered = self._unanswered.pop(worker, [])
            earlier = bool(unanswered)
            claim_id = unanswered.pop() if unanswered else new_id()
            if unanswered:
                self._unanswered[worker] = unanswered

        def take(connection: Connection, again: bool) -> Claim | None:
            row = None
            if again or earlier:
                row = claiming.found_again(connection, worker, claim_id, lease_seconds)
            if row is None:
                row = claiming.claim(connection, worker, devices, lease_seconds, claim_id, kinds, sweep_id)
            if row is None:
                return None
            # a first claim finds no checkpoint, which is most claims
            saved = selecting.checkpoint_row(connection, row.job_id) if row.token > 1 else None
            assert row.lease_until is not None
            return Claim(selecting.job_of(row, saved), worker, row.token, row.lease_until)

        try:
            return self._database.write(take, in_steps=True)
        except QueueAway:
            with self._lock:
                self._unanswered.setdefault(worker, []).append(claim_id)
            raise

    def renew(self, claim: Claim, lease_seconds: float = LEASE_SECONDS) -> bool:
        """Keep a job for so many seconds from now; False when it was asked to stop.

        Raises:
            LeaseLost: it is this claim's no longer.
        """
        renewal = _held(claim).values(lease_until=seconds_from_now(literal(lease_seconds)))
        rows = self._database.write(
            lambda c, _: c.execute(renewal.returning(jobs.c.cancel_requested)).scalars().all(), in_steps=True
        )
        if not rows:
            raise self._lost(claim)
        return not rows[0]

    def cancel_requested(self, claim: Claim) -> bool:
        """Whether the job is to stop; a look that writes nothing, for times between renewals.

        Raises:
            LeaseLost: it is this claim's no longer.
        """
        held = select(jobs.c.cancel_requested).where(
            jobs.c.job_id == claim.job.job_id, jobs.c.token == claim.token, jobs.c.state == text("'running'")
        )
        row = self._database.read(lambda c: c.execute(held).first())
        if row is None:
            raise self._lost(claim)
        return bool(row[0])

    def save_checkpoint(self, claim: Claim, checkpoint: Checkpoint) -> None:
        """Keep where the run stands, in place of what was kept before.

        Raises:
            LeaseLost: the job is this claim's no longer.
            InputError: the checkpoint is too large, or no JSON.
        """
        values = {
            "iteration": checkpoint.iteration, "energy": checkpoint.energy, "run_id": checkpoint.run_id,
            "packed": packed(checkpoint), "saved_at": now(),
        }  # fmt: skip
        held = select(jobs.c.job_id).where(
            jobs.c.job_id == claim.job.job_id, jobs.c.token == claim.token, jobs.c.state == text("'running'")
        )

        def save(connection: Connection, _again: bool) -> bool:
            if connection.execute(held.with_for_update()).first() is None:
                return False
            here = checkpoints.c.job_id == claim.job.job_id
            if not connection.execute(update(checkpoints).where(here).values(**values)).rowcount:
                connection.execute(checkpoints.insert().values(job_id=claim.job.job_id, **values))
            return True

        if not self._database.write(save):
            raise self._lost(claim)

    def complete(self, claim: Claim, *, run_id: str | None, summary: dict[str, Any] | None) -> None:
        """The job is done and its result is kept; its checkpoint is dropped.

        Raises:
            LeaseLost: it is this claim's no longer.
        """

        def drop(connection: Connection) -> None:
            connection.execute(checkpoints.delete().where(checkpoints.c.job_id == claim.job.job_id))

        self._end(claim, "completed", run_id, summary, None, drop)

    def fail(
        self, claim: Claim, error: str, *, run_id: str | None = None, summary: dict[str, Any] | None = None
    ) -> None:
        """The run failed for a reason of its own, which would be there again.

        Raises:
            LeaseLost: the job is this claim's no longer.
        """
        self._end(claim, "failed", run_id, summary, error)

    def cancelled(self, claim: Claim, *, run_id: str | None = None, summary: dict[str, Any] | None = None) -> None:
        """The run was stopped because somebody asked for it.

        Raises:
            LeaseLost: the job is this claim's no longer.
        """
        self._end(claim, "cancelled", run_id, summary, None)

    def give_back(self, claim: Claim, reason: str, *, counts: bool = False) -> None:
        """Let the job wait again at once; one that was to be cancelled is cancelled.

        Args:
            reason: why, for whoever looks at the job.
            counts: the attempt counts, as when the run's process died; the last of `MAX_ATTEMPTS` makes the job dead.

        Raises:
            LeaseLost: it is this claim's no longer.
        """
        values = claiming.after_loss(literal(reason))
        if not counts:
            values |= claiming.not_counted(literal(reason))
        self._write_held(claim, values, ("waiting", "dead", "cancelled"))

    def _end(
        self, claim: Claim, state: State, run_id: str | None, summary: dict[str, Any] | None, error: str | None,
        then: Callable[[Connection], None] = lambda _: None,
    ) -> None:  # fmt: skip
        values = {
            "state": state, "run_id": run_id, "summary": None if summary is None else json.dumps(summary), "error": error,
            "finished_at": now(), "lease_until": None, "cancel_requested": False,
        }  # fmt: skip
        self._write_held(claim, values, (state,), then)

    def _write_held(
        self, claim: Claim, values: dict[str, Any], ends: tuple[State, ...],
        then: Callable[[Connection], None] = lambda _: None,
    ) -> None:  # fmt: skip
        """Let a claim be over. One that is so already by the same claim is a word said twice, after its answer was lost."""
        row = select(jobs.c.token, jobs.c.state).where(jobs.c.job_id == claim.job.job_id)

        def write(connection: Connection, _again: bool) -> bool:
            if connection.execute(_held(claim).values(**values)).rowcount:
                then(connection)
                return True
            found = connection.execute(row).first()
            return found is not None and found.token == claim.token and found.state in ends

        if not self._database.write(write, durable=True):
            raise self._lost(claim)

    def _lost(self, claim: Claim) -> LeaseLost:
        return LeaseLost(
            f"job {claim.job.job_id} is no longer held by {claim.worker} (claim {claim.token}): its lease or the job has ended"
        )

    # --- who is there to run them

    def beat(
        self, worker: str, *, host: str, pid: int, devices: Sequence[str], problem: str | None = None,
        job_id: str | None = None,
    ) -> None:  # fmt: skip
        """Say that a worker lives.

        Args:
            problem: why it takes no jobs, in one line; None when it does.
            job_id: the job that it runs.
        """
        self._database.write(lambda c, _: workers.beat(c, worker, host, pid, devices, problem, job_id))

    def leave(self, worker: str) -> None:
        """Say that a worker has ended."""
        self._database.write(lambda c, _: workers.leave(c, worker))

    def workers(self, *, within_seconds: float | None = None) -> list[WorkerRow]:
        """Workers that have not left, or those that showed a sign of life lately."""
        found = self._database.read(workers.listed)
        return [w for w in found if within_seconds is None or w.silent_seconds <= within_seconds]


_ensure = migrate.ensure  # `open` has an argument of the module's name


def _held(claim: Claim) -> Any:
    """An update of the claim's job if it is still this claim's."""
    return update(jobs).where(
        jobs.c.job_id == claim.job.job_id, jobs.c.token == claim.token, jobs.c.state == text("'running'")
    )
