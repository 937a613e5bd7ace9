"""Which job a worker takes next, and jobs whose worker was lost.

A waiting job stands in a lane: device, kind, priority, owner. The choice looks at the head of each lane, never at the
jobs behind it: an index whose columns are those of the lane, in this order, gives the next lane in one step (a loose index
scan, which neither database does by itself, hence the recursive queries). So a claim costs the same with a hundred
waiting jobs and with a hundred thousand; it grows with the number of owners that wait at the highest priority.

For Postgres, BETWEEN asks for one device as = would, but leaves no index to choose but that of the lanes: with = it takes the
one of active jobs for the order of kinds, and reads every job that runs before it finds one that waits. SQLite, the other way
round, comes to the next kind in one step only with =.

Two claims at the same moment see the same shares, and may both serve the owner with the fewest running.
"""

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, and_, case, literal, or_, select, text, update

from simulator.queue.records import MAX_ATTEMPTS
from simulator.queue.tables import jobs, now, seconds_from_now

_LANES = """
WITH RECURSIVE
wanted(device) AS (SELECT value FROM {devices}),
kinds(device, kind) AS (
  SELECT w.device, (SELECT j.kind FROM vqe_jobs j WHERE j.state = 'waiting' AND j.device {is_wanted}
                    ORDER BY j.device, j.kind LIMIT 1)
  FROM wanted w
  UNION ALL
  SELECT k.device, (SELECT j.kind FROM vqe_jobs j WHERE j.state = 'waiting' AND j.device {is_kinds}
                    AND j.kind > k.kind ORDER BY j.device, j.kind LIMIT 1)
  FROM kinds k WHERE k.kind IS NOT NULL
),
ranks(device, kind, priority) AS (
  SELECT k.device, k.kind, (SELECT j.priority FROM vqe_jobs j WHERE j.state = 'waiting' AND j.device = k.device
                            AND j.kind = k.kind ORDER BY j.priority DESC LIMIT 1)
  FROM kinds k WHERE k.kind IS NOT NULL AND {of_kinds}
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
running(owner, n) AS (
  SELECT j.owner, count(*) FROM vqe_jobs j WHERE j.state = 'running' AND j.device IN (SELECT device FROM wanted)
  GROUP BY j.owner
),
shares(device, kind, priority, owner, n) AS (
  SELECT l.device, l.kind, l.priority, l.owner, coalesce(r.n, 0)
  FROM lanes l LEFT JOIN running r ON r.owner = l.owner WHERE l.owner IS NOT NULL
),
heads(device, kind, priority, owner, n, position) AS (
  SELECT s.device, s.kind, s.priority, s.owner, s.n,
         (SELECT j.position FROM vqe_jobs j WHERE j.state = 'waiting' AND j.device = s.device AND j.kind = s.kind
          AND j.priority = s.priority AND j.owner = s.owner ORDER BY j.position LIMIT 1)
  FROM shares s WHERE {shares}
)
"""
_FIRST = {
    "lower_ranks": "",
    "ranks": "r.priority = (SELECT max(priority) FROM ranks)",
    "shares": "s.n = (SELECT min(n) FROM shares)",
}
"""The lanes of the highest priority whose owners have the fewest running."""

_ALL = {
    "lower_ranks": """UNION ALL
  SELECT r.device, r.kind, (SELECT j.priority FROM vqe_jobs j WHERE j.state = 'waiting' AND j.device = r.device
                            AND j.kind = r.kind AND j.priority < r.priority ORDER BY j.priority DESC LIMIT 1)
  FROM ranks r WHERE r.priority IS NOT NULL""",
    "ranks": "r.priority IS NOT NULL",
    "shares": "true",
}
"""Every lane: other claims may hold all jobs of the first ones in this moment."""

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
SELECT k.position FROM vqe_jobs k WHERE k.state = 'waiting' AND k.sweep_id = :sweep_id
AND k.device IN (SELECT value FROM {devices}) AND {of_kinds}
ORDER BY k.priority DESC, k.position LIMIT 1 {lock}
"""

# No job is taken as long as there are some to be put back first, unless another claim is just doing that.
_TAKE = """
UPDATE vqe_jobs SET state = 'running', attempt = attempt + 1, token = token + 1, worker = :worker, claim_id = :claim_id,
  lease_until = {later}, started_at = {now}, finished_at = NULL
WHERE position = CASE WHEN :look AND EXISTS (
  SELECT 1 FROM vqe_jobs e WHERE e.state = 'running' AND e.lease_until < {now}
) THEN NULL ELSE ({pick}) END
RETURNING {columns}
"""
_TYPES = {
    "worker": "text", "claim_id": "text", "lease_seconds": "double precision", "look": "boolean", "devices": "text",
    "kinds": "text", "sweep_id": "text",
}  # fmt: skip


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
    given = {
        "worker": worker, "claim_id": claim_id, "lease_seconds": lease_seconds, "look": True,
        "devices": json.dumps(list(devices)), "kinds": None if kinds is None else json.dumps(list(kinds)),
        "sweep_id": sweep_id,
    }  # fmt: skip
    which = "first" if sweep_id is None else "sweep"
    taken = _take(connection, which, given)
    if taken is None:
        put_back_lost(connection)
        taken = _take(connection, which, given | {"look": False})
    if taken is None and which == "first" and connection.dialect.name == "postgresql":
        taken = _take(connection, "all", given | {"look": False})
    return taken


def _take(connection: Connection, which: str, given: dict[str, Any]) -> Any | None:
    if connection.dialect.name == "sqlite":
        return connection.execute(_statement("sqlite", which), given).first()
    # To plan this statement takes Postgres as long as to execute it: each connection has it planned once.
    name = f"vqe_claim_{which}"
    if name not in connection.info:
        body = _sql("postgresql", which)
        for number, parameter in enumerate(_TYPES, start=1):
            body = re.sub(rf"(?<!:):{parameter}\b", f"${number}", body)
        connection.exec_driver_sql(f"PREPARE {name} ({', '.join(_TYPES.values())}) AS {body}")
        connection.info[name] = True
    return connection.execute(_statement("postgresql", which), given).first()


@lru_cache
def _statement(dialect: str, which: str) -> Any:
    if dialect == "sqlite":
        return text(_sql(dialect, which).replace("%H:%M:", r"%H\:%M\:")).columns(*jobs.c)
    return text(f"EXECUTE vqe_claim_{which} ({', '.join(f':{name}' for name in _TYPES)})").columns(*jobs.c)


def _sql(dialect: str, which: str) -> str:
    """The claim's statement; `which` lanes it looks at: `first`, `all` or those of one `sweep`."""
    is_sqlite = dialect == "sqlite"
    given = "k.kind IN (SELECT value FROM {})"
    words = {
        "devices": each("devices", dialect),
        "of_kinds": f"(:kinds IS NULL OR {given.format(each('kinds', dialect))})",
        "lock": "" if is_sqlite else "FOR UPDATE SKIP LOCKED",
    }
    if which == "sweep":
        pick = _PICK_OF_SWEEP.format(**words)
    else:
        for name, device in (("is_wanted", "w.device"), ("is_kinds", "k.device")):
            words[name] = f"= {device}" if is_sqlite else f"BETWEEN {device} AND {device}"
        pick = _LANES.format(**words, **(_FIRST if which == "first" else _ALL))
        pick += _PICK_SQLITE if is_sqlite else _PICK_POSTGRES
    clock = "strftime('%Y-%m-%d %H:%M:%f000', 'now'"
    return _TAKE.format(
        pick=pick,
        now=f"{clock})" if is_sqlite else "statement_timestamp()",
        later=f"{clock}, CAST(:lease_seconds AS TEXT) || ' seconds')"
        if is_sqlite
        else "statement_timestamp() + make_interval(secs => :lease_seconds)",
        columns=", ".join(f"vqe_jobs.{c.name}" for c in jobs.c),
    )


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
