"""Which job a worker takes next, and jobs whose worker was lost.

A waiting job stands in a lane: device, kind, priority, owner. The choice looks at the head of each lane, never at the
jobs behind it: an index whose columns are those of the lane, in this order, gives the next lane in one step (a loose index
scan, which neither database does by itself, hence the recursive queries). So a claim costs the same with a hundred
waiting jobs and with a hundred thousand; it grows with the number of owners that wait at the highest priority.

Two claims at the same moment see the same shares, and may both serve the owner with the fewest running.
"""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, Connection, TextClause, and_, case, literal, or_, select, text, update

from simulator.queue.records import MAX_ATTEMPTS
from simulator.queue.tables import jobs, now, seconds_from_now

_LANES = """
WITH RECURSIVE
wanted(device) AS (SELECT value FROM {devices}),
kinds(device, kind) AS (
  SELECT w.device, (SELECT j.kind FROM vqe_jobs j WHERE j.state = 'waiting' AND j.device = w.device ORDER BY j.kind LIMIT 1)
  FROM wanted w
  UNION ALL
  SELECT k.device, (SELECT j.kind FROM vqe_jobs j WHERE j.state = 'waiting' AND j.device = k.device AND j.kind > k.kind
                    ORDER BY j.kind LIMIT 1)
  FROM kinds k WHERE k.kind IS NOT NULL
),
ranks(device, kind, priority) AS (
  SELECT k.device, k.kind, (SELECT j.priority FROM vqe_jobs j WHERE j.state = 'waiting' AND j.device = k.device
                            AND j.kind = k.kind ORDER BY j.priority DESC LIMIT 1)
  FROM kinds k WHERE k.kind IS NOT NULL {of_kinds}
  {lower_ranks}
),
lanes(device, kind, priority, owner) AS (
  SELECT r.device, r.kind, r.priority, (SELECT j.owner FROM vqe_jobs j WHERE j.state = 'waiting' AND j.device = r.device
                                        AND j.kind = r.kind AND j.priority = r.priority ORDER BY j.owner LIMIT 1)
  FROM ranks r WHERE {ranks}
  UNION ALL
  SELECT l.device, l.kind, l.priority, (SELECT j.owner FROM vqe_jobs j WHERE j.state = 'waiting' AND j.device = l.device
                                        AND j.kind = l.kind AND j.priority = l.priority AND j.owner > l.owner
                                        ORDER BY j.owner LIMIT 1)
  FROM lanes l WHERE l.owner IS NOT NULL
),
shares(owner, n) AS (
  SELECT j.owner, count(*) FROM vqe_jobs j WHERE j.state = 'running' AND j.device IN (SELECT device FROM wanted)
  GROUP BY j.owner
),
heads(device, kind, priority, owner, n, position) AS (
  SELECT l.device, l.kind, l.priority, l.owner, coalesce(s.n, 0),
         (SELECT j.position FROM vqe_jobs j WHERE j.state = 'waiting' AND j.device = l.device AND j.kind = l.kind
          AND j.priority = l.priority AND j.owner = l.owner ORDER BY j.position LIMIT 1)
  FROM lanes l LEFT JOIN shares s ON s.owner = l.owner WHERE l.owner IS NOT NULL
)
"""
_TOP_RANK = "r.priority = (SELECT max(priority) FROM ranks)"
_LOWER_RANKS = """UNION ALL
  SELECT r.device, r.kind, (SELECT j.priority FROM vqe_jobs j WHERE j.state = 'waiting' AND j.device = r.device
                            AND j.kind = r.kind AND j.priority < r.priority ORDER BY j.priority DESC LIMIT 1)
  FROM ranks r WHERE r.priority IS NOT NULL"""

_PICK_SQLITE = "SELECT position FROM heads ORDER BY priority DESC, n, position LIMIT 1"

# The heads in their order; of each lane the first job that no other claim has just locked; the limit ends it at the first found.
_PICK_POSTGRES = """
SELECT picked.position FROM (SELECT * FROM heads ORDER BY priority DESC, n, position) h
CROSS JOIN LATERAL (
  SELECT j.position FROM vqe_jobs j WHERE j.state = 'waiting' AND j.device = h.device AND j.kind = h.kind
  AND j.priority = h.priority AND j.owner = h.owner ORDER BY j.position LIMIT 1 FOR UPDATE SKIP LOCKED
) picked LIMIT 1
"""

# A sweep has one owner, so that there is nothing to share within it.
_PICK_OF_SWEEP = """
SELECT j.position FROM vqe_jobs j WHERE j.state = 'waiting' AND j.sweep_id = :sweep_id
AND j.device IN (SELECT value FROM {devices}) {of_kinds}
ORDER BY j.priority DESC, j.position LIMIT 1 {lock}
"""


def each(parameter: str, dialect: str) -> str:
    """SQL of a table with the column `value`: the texts of a parameter that is a JSON list."""
    if dialect == "sqlite":
        return f"(SELECT value FROM json_each(:{parameter}))"
    return f"(SELECT value FROM json_array_elements_text(CAST(:{parameter} AS json))) AS t_{parameter}"


def claim(
    connection: Connection, worker: str, devices: Sequence[str], lease_seconds: float, claim_id: str,
    kinds: Sequence[str] | None, sweep_id: str | None,
) -> Any | None:  # fmt: skip
    """The row of the job that is this worker's from now on; None when there is none for it."""
    dialect = connection.dialect.name
    given: dict[str, Any] = {"devices": json.dumps(list(devices))}
    if kinds is not None:
        given["kinds"] = json.dumps(list(kinds))
    if sweep_id is not None:
        given["sweep_id"] = sweep_id
        return _take(connection, _sweep_statement(dialect, kinds is not None), given, worker, lease_seconds, claim_id)
    taken = _take(connection, _statement(dialect, kinds is not None), given, worker, lease_seconds, claim_id)
    if taken is None and dialect == "postgresql":
        # Other claims hold every job of the highest priority in this moment, or there is none at all.
        statement = _statement(dialect, kinds is not None, all_ranks=True)
        taken = _take(connection, statement, given, worker, lease_seconds, claim_id)
    return taken


def _take(
    connection: Connection, pick: TextClause, given: dict[str, Any], worker: str, lease_seconds: float, claim_id: str
) -> Any | None:
    picked = pick.bindparams(**given).columns(position=BigInteger)
    return connection.execute(
        update(jobs)
        .where(jobs.c.position == picked.scalar_subquery())
        .values(
            state="running", attempt=jobs.c.attempt + 1, token=jobs.c.token + 1, worker=worker, claim_id=claim_id,
            lease_until=seconds_from_now(literal(lease_seconds)), started_at=now(), finished_at=None,
        )
        .returning(*jobs.c)
    ).first()  # fmt: skip


def found_again(connection: Connection, worker: str, claim_id: str, lease_seconds: float) -> Any | None:
    """The job of a claim that was committed although its answer was lost with the connection."""
    return connection.execute(
        update(jobs)
        .where(jobs.c.state == text("'running'"), jobs.c.worker == worker, jobs.c.claim_id == claim_id)
        .values(lease_until=seconds_from_now(literal(lease_seconds)))
        .returning(*jobs.c)
    ).first()


def put_back_lost(connection: Connection) -> int:
    """Let jobs wait again whose lease has ended; returns how many there were.

    A job that took its worker with it in each of its attempts is dead; one that was to be cancelled is cancelled.
    """
    ended = select(jobs.c.position).where(jobs.c.state == text("'running'"), jobs.c.lease_until < now())
    if connection.dialect.name == "postgresql":
        ended = ended.with_for_update(skip_locked=True)
    lost = "its worker was lost in attempt " + jobs.c.attempt.cast(jobs.c.name.type) + ": " + jobs.c.worker
    return connection.execute(update(jobs).where(jobs.c.position.in_(ended)).values(**after_loss(lost))).rowcount


def after_loss(reason: Any) -> dict[str, Any]:
    """Values of a job whose attempt ended without a result and counts."""
    is_dead = jobs.c.attempt >= MAX_ATTEMPTS
    ends = or_(jobs.c.cancel_requested, is_dead)
    dead = "started " + jobs.c.attempt.cast(jobs.c.name.type) + " times without a result; the last: " + reason
    return {
        "state": case((jobs.c.cancel_requested, "cancelled"), (is_dead, "dead"), else_="waiting"),
        "error": case((and_(is_dead, ~jobs.c.cancel_requested), dead), else_=reason),
        "finished_at": case((ends, now()), else_=None),
        "waiting_since": case((ends, jobs.c.waiting_since), else_=now()),
        "cancel_requested": False,
        "lease_until": None,
        "worker": None,
    }


def not_counted(reason: Any) -> dict[str, Any]:
    """Of those values the ones that differ where the attempt does not count."""
    return {
        "attempt": jobs.c.attempt - 1,
        "state": case((jobs.c.cancel_requested, "cancelled"), else_="waiting"),
        "error": reason,
        "finished_at": case((jobs.c.cancel_requested, now()), else_=None),
        "waiting_since": case((jobs.c.cancel_requested, jobs.c.waiting_since), else_=now()),
    }


def _statement(dialect: str, of_kinds: bool, all_ranks: bool = False) -> TextClause:
    lanes = _LANES.format(
        devices=each("devices", dialect),
        of_kinds=f"AND k.kind IN (SELECT value FROM {each('kinds', dialect)})" if of_kinds else "",
        lower_ranks=_LOWER_RANKS if all_ranks else "",
        ranks="r.priority IS NOT NULL" if all_ranks else _TOP_RANK,
    )
    return text(lanes + (_PICK_SQLITE if dialect == "sqlite" else _PICK_POSTGRES))


def _sweep_statement(dialect: str, of_kinds: bool) -> TextClause:
    return text(
        _PICK_OF_SWEEP.format(
            devices=each("devices", dialect),
            of_kinds=f"AND j.kind IN (SELECT value FROM {each('kinds', dialect)})" if of_kinds else "",
            lock="FOR UPDATE SKIP LOCKED" if dialect == "postgresql" else "",
        )
    )
