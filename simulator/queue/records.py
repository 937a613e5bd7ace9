"""What the work queue takes and gives: jobs, claims, checkpoints, workers, and the errors of whoever holds a job."""

import json
import re
import zlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from simulator.checkpoint import Checkpoint as Checkpoint
from simulator.errors import InputError, VqeError

State = Literal["waiting", "running", "completed", "failed", "cancelled", "dead"]
STATES: tuple[State, ...] = ("waiting", "running", "completed", "failed", "cancelled", "dead")
RETRYABLE: tuple[State, ...] = ("failed", "cancelled", "dead")
"""States from which `retry` brings a job back."""

MAX_ATTEMPTS = 3
"""Starts that may be lost with their worker; then a job is dead, for it is probably what kills the worker."""

CHECKPOINT_BYTES = 1 << 20
"""Most bytes that a checkpoint takes in the database, packed."""

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_LONGEST = 255


class LeaseLost(VqeError):
    """The job is no longer this claim's: its lease ended and it was put back, or another worker has it. Exit code 1."""


class QueueAway(VqeError):
    """The queue's database does not answer or cannot be used. Exit code 1."""


@dataclass(frozen=True)
class NewJob:
    """A job as it is asked for.

    Args:
        kind: kind of the task, e.g. `vqe`.
        spec_id: the specification's identity.
        spec_json: its canonical JSON.
        name: what people call it, e.g. the molecule's name.
        sweep_id: the sweep that it belongs to.
        owner: who asked; owners share the workers evenly.
        priority: 0 to 9; 9 is taken first.
        device: `cpu` or `gpu`: only workers of this device take it.
        project: whom it is for, e.g. in bills.
        tags: words by which it is found again.
        idempotency_key: a word of the client's for this request; asking again with it gives the same job.
        force: run it although its specification is completed.

    Raises:
        InputError: a value is not allowed.
    """

    kind: str
    spec_id: str
    spec_json: str
    name: str
    sweep_id: str | None = None
    owner: str = ""
    priority: int = 5
    device: str = "cpu"
    project: str = ""
    tags: tuple[str, ...] = ()
    idempotency_key: str | None = None
    force: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.priority, bool) or not isinstance(self.priority, int) or not 0 <= self.priority <= 9:
            raise InputError(f"job {self.name!r}: priority {self.priority!r} is not one of 0 to 9")
        for field in ("kind", "device"):
            if _NAME.fullmatch(getattr(self, field)) is None:
                raise InputError(f"job {self.name!r}: {field} {getattr(self, field)!r} is not a word in lower case")
        object.__setattr__(self, "tags", tuple(self.tags))
        texts = {
            "spec_id": self.spec_id, "name": self.name, "sweep_id": self.sweep_id, "owner": self.owner,
            "project": self.project, "idempotency_key": self.idempotency_key, **{f"tag {t!r}": t for t in self.tags},
        }  # fmt: skip
        for field, text in texts.items():
            if text is not None and (len(text) > _LONGEST or "\0" in text):
                raise InputError(
                    f"job: {field} has {len(text)} characters, at most {_LONGEST} are allowed and none NUL"
                )
        for field in ("spec_id", "spec_json"):
            if not getattr(self, field):
                raise InputError(f"job {self.name!r}: {field} is empty")


@dataclass(frozen=True)
class Job:
    """A job as the database has it; times are the database's, in UTC.

    `attempt` counts the starts since it was submitted or retried, the one that runs included; those that were given
    back do not count. `token` grows with each claim. `waiting_since` is when it last began to wait. `checkpoint` is
    filled by `JobQueue.job` and `JobQueue.claim`; lists have its iteration, energy and time only.
    """

    job_id: str
    kind: str
    spec_id: str
    name: str
    sweep_id: str | None
    owner: str
    priority: int
    device: str
    project: str
    tags: tuple[str, ...]
    force: bool
    state: State
    attempt: int
    token: int
    worker: str | None
    lease_until: datetime | None
    cancel_requested: bool
    run_id: str | None
    error: str | None
    summary: dict[str, Any] | None
    created_at: datetime
    waiting_since: datetime
    started_at: datetime | None
    finished_at: datetime | None
    spec_json: str
    checkpoint_iteration: int | None = None
    checkpoint_energy: float | None = None
    checkpoint_at: datetime | None = None
    checkpoint: Checkpoint | None = None


@dataclass(frozen=True)
class Claim:
    """A worker's hold on a job.

    Args:
        job: as it was claimed.
        worker: who holds it.
        token: this claim's number among those of the job (fencing): writes with an older one fail.
        until: when the lease ends unless it is renewed, by the database's clock.
    """

    job: Job
    worker: str
    token: int
    until: datetime


@dataclass(frozen=True)
class Submitted:
    """What became of jobs that were submitted: `job_ids` in the order of the jobs; of a known one, the id of the job that was there."""

    job_ids: list[str]
    n_new: int
    n_known: int


@dataclass(frozen=True)
class Cancelled:
    """Jobs that were waiting and are cancelled, and running ones whose workers are asked to stop."""

    n_cancelled: int
    n_requested: int


@dataclass(frozen=True)
class JobFilter:
    """Which jobs are meant: those that meet every condition that is given."""

    states: tuple[State, ...] | None = None
    sweep_id: str | None = None
    owner: str | None = None
    kind: str | None = None
    name: str | None = None
    since: datetime | None = None

    def __post_init__(self) -> None:
        if self.states is not None:
            object.__setattr__(self, "states", tuple(self.states))
            for state in self.states:
                if state not in STATES:
                    raise InputError(f"state {state!r} is not one of {', '.join(STATES)}")
        if self.since is not None and self.since.tzinfo is None:
            raise InputError(f"since {self.since}: a time without its zone")


@dataclass(frozen=True)
class WorkerRow:
    """A worker as the queue knows it; `silent_seconds` since its last sign of life, by the database's clock."""

    worker: str
    host: str
    pid: int
    devices: tuple[str, ...]
    since: datetime
    last_seen: datetime
    silent_seconds: float
    problem: str | None
    job_id: str | None


def packed(checkpoint: Checkpoint) -> bytes:
    """A checkpoint as it is kept: zlib of JSON.

    Raises:
        InputError: it is larger than a checkpoint may be, or no JSON.
    """
    try:
        text = json.dumps(checkpoint.to_dict(), allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise InputError(f"checkpoint of run {checkpoint.run_id}: not JSON: {error}") from None
    found = zlib.compress(text.encode(), 1)
    if len(found) > CHECKPOINT_BYTES:
        raise InputError(
            f"checkpoint of run {checkpoint.run_id}: {len(found)} bytes packed, at most {CHECKPOINT_BYTES} are kept"
        )
    return found


def unpacked(kept: bytes) -> Checkpoint:
    """The checkpoint that was kept."""
    return Checkpoint.from_dict(json.loads(zlib.decompress(kept)))
