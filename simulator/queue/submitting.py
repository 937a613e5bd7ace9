"""Jobs into the queue: what is known already is not put there a second time.

Rows travel as one JSON text a statement, of which the database makes a table: no database's limit on parameters is met. Many
jobs at once go to Postgres by COPY, which spares it parsing a hundred megabytes of JSON.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from simulator.errors import InputError
from simulator.events.records import new_id
from simulator.queue.records import NewJob

_ROWS = 2_000
"""Jobs a statement: a few MB of JSON."""
_ANALYZE_FROM = 5_000
"""Jobs at once from which Postgres counts the table anew: it would plan with the numbers of the empty one."""

_COPY_FROM = 500
"""Jobs a statement from which COPY is quicker than JSON."""

_FIELDS = {
    "n": "integer", "job_id": "text", "kind": "text", "spec_id": "text", "name": "text", "sweep_id": "text",
    "owner": "text", "priority": "integer", "device": "text", "project": "text", "tags": "text", "force": "boolean",
    "spec_json": "text", "idempotency_key": "text", "body": "text",
}  # fmt: skip
_COLUMNS = "job_id, kind, spec_id, name, sweep_id, owner, priority, device, project, tags, force, spec_json"  # as NewJob gives them


class KeyTaken(Exception):
    """Another request with the same idempotency key was committed at the same moment: look again."""


@dataclass(frozen=True)
class Request:
    """A job that is asked for, with the id that it gets if it is new; the id is the client's, so that asking again adds nothing."""

    n: int
    job_id: str
    job: NewJob

    @property
    def spec(self) -> tuple[str, str]:
        return self.job.kind, self.job.spec_id

    @property
    def key(self) -> tuple[str, str] | None:
        return None if self.job.idempotency_key is None else (self.job.owner, self.job.idempotency_key)

    @property
    def body(self) -> str:
        """SHA-256 of what is asked for."""
        return hashlib.sha256(json.dumps(asdict(self.job), sort_keys=True).encode()).hexdigest()

    def row(self) -> dict[str, Any]:
        job = self.job
        return {
            "n": self.n, "job_id": self.job_id, "kind": job.kind, "spec_id": job.spec_id, "name": job.name,
            "sweep_id": job.sweep_id, "owner": job.owner, "priority": job.priority, "device": job.device,
            "project": job.project, "tags": json.dumps(job.tags), "force": job.force, "spec_json": job.spec_json,
        }  # fmt: skip


def requests(jobs: Sequence[NewJob]) -> list[Request]:
    """Jobs with their ids."""
    return [Request(n, new_id(), job) for n, job in enumerate(jobs)]


def submit(connection: Connection, wanted: Sequence[Request]) -> tuple[list[str], int]:
    """The job of each request, and how many are new.

    Raises:
        InputError: an idempotency key was used before for something else.
        KeyTaken: begin again.
    """
    ids: dict[int, str] = _of_keys(connection, wanted)
    n_new = 0
    # Of several requests for one specification the first is put into the queue and the others are that job.
    first: dict[tuple[Any, ...], Request] = {}
    for request in wanted:
        if request.n not in ids:
            first.setdefault((request.spec, request.job.force), request)
    asked = list(first.values())
    for chunk in _chunks(asked):
        known = _known(connection, chunk)
        fresh = [r for r in chunk if r.n not in known]
        inserted = _insert(connection, fresh)
        # What was not inserted came meanwhile by another client, or by this one before its connection was lost.
        late = [r for r in fresh if r.job_id not in inserted]
        known |= _known(connection, late) | _same_id(connection, late)
        # A specification whose job was completed between the look and the insertion has been inserted a second time.
        doubled = _completed_meanwhile(connection, [r for r in fresh if r.job_id in inserted and not r.job.force])
        known |= doubled
        for request in chunk:
            ids[request.n] = known.get(request.n, request.job_id)
            n_new += ids[request.n] == request.job_id
    for request in wanted:
        if request.n not in ids:
            ids[request.n] = ids[first[request.spec, request.job.force].n]
    _keep_keys(connection, wanted, ids)
    if len(asked) >= _ANALYZE_FROM and connection.dialect.name == "postgresql":
        connection.execute(text("ANALYZE vqe_jobs"))
    return [ids[request.n] for request in wanted], n_new


def _known(connection: Connection, wanted: Sequence[Request]) -> dict[int, str]:
    """Requests whose specification waits, runs or, unless they are forced, is completed, and the job's id."""
    found = _with_rows(
        connection,
        "SELECT r.n, (SELECT j.job_id FROM vqe_jobs j WHERE j.kind = r.kind AND j.spec_id = r.spec_id"
        " AND j.state IN ('waiting', 'running')) FROM {rows}",
        [{"n": r.n, "kind": r.job.kind, "spec_id": r.job.spec_id} for r in wanted],
    )
    found += _with_rows(
        connection,
        "SELECT r.n, (SELECT j.job_id FROM vqe_jobs j WHERE j.kind = r.kind AND j.spec_id = r.spec_id"
        " AND j.state = 'completed' ORDER BY j.position DESC LIMIT 1) FROM {rows}",
        [{"n": r.n, "kind": r.job.kind, "spec_id": r.job.spec_id} for r in wanted if not r.job.force],
    )
    known: dict[int, str] = {}
    for n, job_id in found:
        if job_id is not None:
            known.setdefault(n, job_id)
    return known


def _insert(connection: Connection, wanted: Sequence[Request]) -> set[str]:
    """Ids of the jobs that were inserted. The index of active specifications lets no second one in."""
    now = "statement_timestamp()" if connection.dialect.name == "postgresql" else _SQLITE_NOW
    insert = (
        f"INSERT INTO vqe_jobs ({_COLUMNS}, state, attempt, token, cancel_requested, created_at, waiting_since)"
        f" SELECT {_COLUMNS}, 'waiting', 0, 0, false, {now}, {now} FROM {{rows}} WHERE true ORDER BY r.n"
        " ON CONFLICT DO NOTHING RETURNING job_id"
    )
    if len(wanted) >= _COPY_FROM and connection.dialect.driver == "psycopg2" and _copy(connection, wanted):
        return {r.job_id for r in wanted}
    return {row[0] for row in _with_rows(connection, insert, [r.row() for r in wanted])}


def _copy(connection: Connection, wanted: Sequence[Request]) -> bool:
    """Whether COPY took all jobs. It takes none where another client has just submitted one of them: it knows no ON CONFLICT."""
    at = connection.scalar(text("SELECT statement_timestamp()"))
    same = {
        "state": "waiting",
        "attempt": 0,
        "token": 0,
        "cancel_requested": False,
        "created_at": at,
        "waiting_since": at,
    }
    end = "".join(f"\t{_copied(value)}" for value in same.values()) + "\n"
    columns = _COLUMNS.split(", ")
    rows = "".join("\t".join([_copied(row[name]) for name in columns]) + end for row in (r.row() for r in wanted))
    driver: Any = connection.dialect.loaded_dbapi
    try:
        with connection.begin_nested(), closing(connection.connection.cursor()) as cursor:
            copy = f"COPY vqe_jobs ({', '.join([*columns, *same])}) FROM STDIN"
            cursor.copy_expert(copy, io.BytesIO(rows.encode()), size=1 << 20)
    except driver.IntegrityError:
        return False
    except driver.Error as error:  # SQLAlchemy sees no error of a cursor that is not its own
        raise DBAPIError.instance("COPY vqe_jobs", None, error, driver.Error, dialect=connection.dialect) from error
    return True


def _copied(value: Any) -> str:
    """A value in COPY's text format (PostgreSQL's manual, COPY, File Formats)."""
    if value is None:
        return r"\N"
    return str(value).replace("\\", r"\\").replace("\t", r"\t").replace("\n", r"\n").replace("\r", r"\r")


_SQLITE_NOW = r"strftime('%Y-%m-%d %H\:%M\:%f000', 'now')"


def _same_id(connection: Connection, wanted: Sequence[Request]) -> dict[int, str]:
    """Requests whose own job is there, whatever its state."""
    found = _with_rows(
        connection,
        "SELECT r.n, (SELECT j.job_id FROM vqe_jobs j WHERE j.job_id = r.job_id) FROM {rows}",
        [{"n": r.n, "job_id": r.job_id} for r in wanted],
    )
    return {n: job_id for n, job_id in found if job_id is not None}


def _completed_meanwhile(connection: Connection, inserted: Sequence[Request]) -> dict[int, str]:
    """Take back what was inserted although its specification is completed by now; only Postgres' transactions overlap."""
    if connection.dialect.name != "postgresql":
        return {}
    gone = _with_rows(
        connection,
        "DELETE FROM vqe_jobs USING {rows} WHERE vqe_jobs.job_id = r.job_id AND EXISTS (SELECT 1 FROM vqe_jobs d"
        " WHERE d.kind = r.kind AND d.spec_id = r.spec_id AND d.state = 'completed') RETURNING r.n",
        [{"n": r.n, "job_id": r.job_id, "kind": r.job.kind, "spec_id": r.job.spec_id} for r in inserted],
    )
    numbers = {row[0] for row in gone}
    return _known(connection, [r for r in inserted if r.n in numbers])


def _of_keys(connection: Connection, wanted: Sequence[Request]) -> dict[int, str]:
    """Requests that were made before with the same idempotency key, and their jobs."""
    with_key = [r for r in wanted if r.key is not None]
    bodies: dict[tuple[str, str], str] = {}
    for request in with_key:
        assert request.key is not None
        if bodies.setdefault(request.key, request.body) != request.body:
            raise _other_body(request)
    ids: dict[int, str] = {}
    by_n = {r.n: r for r in with_key}
    for chunk in _chunks(with_key):
        for n, body, job_id in _stored_keys(connection, chunk):
            if body != by_n[n].body:
                raise _other_body(by_n[n])
            ids[n] = job_id
    return ids


def _keep_keys(connection: Connection, wanted: Sequence[Request], ids: dict[int, str]) -> None:
    now = "statement_timestamp()" if connection.dialect.name == "postgresql" else _SQLITE_NOW
    for chunk in _chunks([r for r in wanted if r.key is not None]):
        rows = [
            {
                "n": r.n, "owner": r.job.owner, "idempotency_key": r.job.idempotency_key, "body": r.body,
                "job_id": ids[r.n],
            }
            for r in chunk
        ]  # fmt: skip
        _with_rows(
            connection,
            "INSERT INTO vqe_job_keys (owner, idempotency_key, body, job_id, created_at)"
            f" SELECT owner, idempotency_key, body, job_id, {now} FROM {{rows}} WHERE true"
            " ON CONFLICT DO NOTHING RETURNING job_id",
            rows,
        )
        if any(ids[n] != job_id for n, _, job_id in _stored_keys(connection, chunk)):
            raise KeyTaken


def _stored_keys(connection: Connection, wanted: Sequence[Request]) -> list[Any]:
    return _with_rows(
        connection,
        "SELECT r.n, k.body, k.job_id FROM {rows} {join} vqe_job_keys k"
        " ON k.owner = r.owner AND k.idempotency_key = r.idempotency_key",
        [{"n": r.n, "owner": r.job.owner, "idempotency_key": r.job.idempotency_key} for r in wanted],
    )


def _other_body(request: Request) -> InputError:
    return InputError(
        f"idempotency key {request.job.idempotency_key!r} was used before for another job than {request.job.name!r}"
    )


def _with_rows(connection: Connection, statement: str, rows: Sequence[dict[str, Any]]) -> list[Any]:
    """What a statement answers in which `{rows}` is a table `r` of these rows.

    SQLite would look at each of these rows for each job where it chooses the order of a join: a subquery or a `{join}` tells it.
    """
    if not rows:
        return []
    fields = {name: _FIELDS[name] for name in rows[0]}
    if connection.dialect.name == "postgresql":
        columns = ", ".join(f"{name} {kind}" for name, kind in fields.items())
        join, table = "JOIN", f"json_to_recordset(CAST(:rows AS json)) AS r({columns})"
    else:
        columns = ", ".join(f"json_extract(value, '$.{name}') AS {name}" for name in fields)
        join, table = "CROSS JOIN", f"(SELECT {columns} FROM json_each(:rows)) AS r"
    return list(connection.execute(text(statement.format(rows=table, join=join)), {"rows": json.dumps(rows)}).all())


def _chunks(wanted: Sequence[Request]) -> Iterator[Sequence[Request]]:
    for start in range(0, len(wanted), _ROWS):
        yield wanted[start : start + _ROWS]
