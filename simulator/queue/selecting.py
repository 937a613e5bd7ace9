"""Jobs that are asked for by what they are: lists, counts, cancelling and retrying them."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Text,
    and_,
    case,
    column,
    exists,
    false,
    func,
    literal,
    or_,
    select,
    text,
    true,
    update,
)

from simulator.errors import InputError
from simulator.queue.claiming import each
from simulator.queue.records import RETRYABLE, Cancelled, Job, JobFilter, State, unpacked
from simulator.queue.tables import checkpoints, jobs, now, seconds_from_now

_SUMMARY_COLUMNS = (checkpoints.c.iteration, checkpoints.c.energy, checkpoints.c.saved_at)


def job_of(row: Any, checkpoint: Any | None = None) -> Job:
    """A row of the table as a Job, with its checkpoint's row where there is one."""
    values = {name: value for name, value in row._mapping.items() if name in Job.__dataclass_fields__}
    values["tags"] = tuple(json.loads(row.tags))
    values["summary"] = None if row.summary is None else json.loads(row.summary)
    if checkpoint is not None:
        values |= {
            "checkpoint_iteration": checkpoint.iteration, "checkpoint_energy": checkpoint.energy,
            "checkpoint_at": checkpoint.saved_at,
        }  # fmt: skip
        if "packed" in checkpoint._fields:
            values["checkpoint"] = unpacked(checkpoint.packed)
    return Job(**values)


def one(connection: Connection, job_id: str) -> Job | None:
    """A job with its checkpoint."""
    row = connection.execute(select(jobs).where(jobs.c.job_id == job_id)).first()
    return None if row is None else job_of(row, checkpoint_row(connection, job_id))


def checkpoint_row(connection: Connection, job_id: str) -> Any | None:
    return connection.execute(select(checkpoints).where(checkpoints.c.job_id == job_id)).first()


def listed(connection: Connection, wanted: JobFilter, limit: int | None, after: str | None) -> list[Job]:
    """Jobs, the newest first; those behind the job `after` in this order."""
    rows: Select[Any] = (
        select(jobs, *_SUMMARY_COLUMNS)
        .select_from(jobs.outerjoin(checkpoints, checkpoints.c.job_id == jobs.c.job_id))
        .where(matching(wanted))
        .order_by(jobs.c.position.desc())
    )
    if after is not None:
        position = connection.execute(select(jobs.c.position).where(jobs.c.job_id == after)).scalar()
        if position is None:
            raise InputError(f"no job {after}")
        rows = rows.where(jobs.c.position < position)
    if limit is not None:
        rows = rows.limit(limit)
    return [job_of(row, row if row.iteration is not None else None) for row in connection.execute(rows)]


def matching(wanted: JobFilter) -> ColumnElement[bool]:
    """The condition of a filter."""
    conditions = [
        jobs.c[name] == getattr(wanted, name)
        for name in ("sweep_id", "owner", "kind", "name")
        if getattr(wanted, name) is not None
    ]
    if wanted.states is not None:
        # literals, for with parameters the database could not use the indexes of one state
        conditions.append(or_(false(), *(jobs.c.state == text(f"'{state}'") for state in wanted.states)))
    if wanted.since is not None:
        conditions.append(jobs.c.created_at >= wanted.since)
    return and_(true(), *conditions)


def among(connection: Connection, ids: Sequence[str]) -> ColumnElement[bool]:
    """The condition of being one of these jobs, however many they are."""
    return jobs.c.job_id.in_(texts(connection, ids))


def texts(connection: Connection, values: Iterable[str]) -> Any:
    """A subquery of these texts, which are one parameter."""
    source = text(f"SELECT value FROM {each('given', connection.dialect.name)}")
    return select(source.bindparams(given=json.dumps(list(values))).columns(column("value", Text)).subquery().c.value)


def cancel(connection: Connection, chosen: ColumnElement[bool]) -> Cancelled:
    """Cancel what waits, ask the workers of what runs to stop."""
    waits = jobs.c.state == text("'waiting'")
    found = connection.execute(
        update(jobs)
        .where(or_(waits, jobs.c.state == text("'running'")), chosen)
        .values(
            state=case((waits, "cancelled"), else_=jobs.c.state),
            cancel_requested=~waits,
            finished_at=case((waits, now()), else_=None),
        )
        .returning(jobs.c.state)
    ).scalars()
    states = list(found)
    return Cancelled(states.count("cancelled"), states.count("running"))


def retry(connection: Connection, chosen: ColumnElement[bool]) -> int:
    """Let jobs wait again that failed, were cancelled or are dead; of several for one specification the newest.

    One whose specification waits, runs or is completed by another job stays as it is, but for a forced one where it is
    completed.
    """
    ended = or_(false(), *(jobs.c.state == text(f"'{state}'") for state in RETRYABLE))
    other = jobs.alias("other")
    same = and_(other.c.kind == jobs.c.kind, other.c.spec_id == jobs.c.spec_id)
    active = exists().where(same, text("other.state IN ('waiting', 'running')"))
    completed = exists().where(same, text("other.state = 'completed'"))
    newest = (
        select(func.max(jobs.c.position))
        .where(ended, chosen, ~active, or_(jobs.c.force, ~completed))
        .group_by(jobs.c.kind, jobs.c.spec_id)
    )
    positions = [row[0] for row in connection.execute(newest)]
    for start in range(0, len(positions), 10_000):
        connection.execute(
            update(jobs)
            .where(jobs.c.position.in_(positions[start : start + 10_000]), ended)
            .values(
                state="waiting", attempt=0, cancel_requested=False, error=None, run_id=None, summary=None,
                waiting_since=now(), started_at=None, finished_at=None,
            )
        )  # fmt: skip
    return len(positions)


def counts(connection: Connection) -> dict[tuple[str, str, str], int]:
    """Jobs by state, device and kind, each part from the index that holds its rows and nothing else."""
    found: dict[tuple[str, str, str], int] = {}
    for part in ("state = 'waiting'", "state = 'running'", "state NOT IN ('waiting', 'running')"):
        rows = connection.execute(
            select(jobs.c.state, jobs.c.device, jobs.c.kind, func.count())
            .where(text(part))
            .group_by(jobs.c.state, jobs.c.device, jobs.c.kind)
        )
        found |= {(state, device, kind): n for state, device, kind, n in rows}
    return found


def expired_leases(connection: Connection) -> dict[str, int]:
    """Running jobs whose lease has ended, by device."""
    ended = and_(jobs.c.state == text("'running'"), jobs.c.lease_until < now())
    rows = connection.execute(select(jobs.c.device, func.count()).where(ended).group_by(jobs.c.device))
    return {row.device: row[1] for row in rows}


def recently_ended(connection: Connection, seconds: float) -> dict[State, int]:
    """Jobs in the states from which one comes back, those that ended within so many seconds."""
    found: dict[State, int] = dict.fromkeys(RETRYABLE, 0)
    rows = connection.execute(
        select(jobs.c.state, func.count())
        .where(
            text("state NOT IN ('waiting', 'running')"),  # SQLite uses the index only where its condition stands
            matching(JobFilter(states=RETRYABLE)),
            jobs.c.finished_at >= seconds_from_now(literal(-seconds)),
        )
        .group_by(jobs.c.state)
    )
    return found | {row.state: row[1] for row in rows}


def states(connection: Connection, ids: Sequence[str]) -> dict[str, State]:
    """The states of jobs by their ids."""
    rows = connection.execute(select(jobs.c.job_id, jobs.c.state).where(among(connection, ids)))
    return {row.job_id: row.state for row in rows}


def latest(connection: Connection, kind: str, spec_ids: Sequence[str]) -> dict[str, tuple[State, str | None]]:
    """State and error of the newest job of each specification."""
    wanted = and_(jobs.c.kind == kind, jobs.c.spec_id.in_(texts(connection, spec_ids)))
    newest = select(func.max(jobs.c.position)).where(wanted).group_by(jobs.c.spec_id)
    rows = connection.execute(select(jobs.c.spec_id, jobs.c.state, jobs.c.error).where(jobs.c.position.in_(newest)))
    return {row.spec_id: (row.state, row.error) for row in rows}


def adopt(connection: Connection, ids: Sequence[str], sweep_id: str) -> None:
    """Let waiting jobs belong to a sweep."""
    waits = jobs.c.state == text("'waiting'")
    connection.execute(
        update(jobs)
        .where(waits, among(connection, ids), jobs.c.sweep_id.is_distinct_from(sweep_id))
        .values(sweep_id=sweep_id)
    )


def completed_specs(connection: Connection, kind: str, spec_ids: Iterable[str] | None) -> set[str]:
    done = select(jobs.c.spec_id).where(jobs.c.state == text("'completed'"), jobs.c.kind == kind)
    if spec_ids is not None:
        done = done.where(jobs.c.spec_id.in_(texts(connection, spec_ids)))
    return set(connection.execute(done).scalars())


def of_abbreviations(connection: Connection, shortened: Sequence[str]) -> list[str]:
    """The job of each text, which is the beginning or the end of one job's id, or all of it."""
    found: dict[str, list[str]] = defaultdict(list)
    for given in shortened:
        if not given or set(given.lower()) - set("0123456789abcdef-"):
            raise InputError(f"{given!r} is no job id, nor the beginning or end of one")
        lower = given.lower()
        starts = and_(jobs.c.job_id >= lower, jobs.c.job_id < lower + "~")
        for condition in (starts, jobs.c.job_id.endswith(lower)):
            if not found[given]:
                found[given] = list(connection.execute(select(jobs.c.job_id).where(condition).limit(2)).scalars())
        if not found[given]:
            raise InputError(f"no job {given}")
        if len(found[given]) > 1:
            raise InputError(f"several jobs begin or end with {given}, e.g. {' and '.join(sorted(found[given]))}")
    return [found[given][0] for given in shortened]
