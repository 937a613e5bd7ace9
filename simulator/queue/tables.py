"""The queue's tables and indexes, as the newest migration leaves them, and the database's clock in SQL."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator


class UtcTime(TypeDecorator[datetime]):
    """A time with its zone, UTC; SQLite keeps it as text, whose order is that of the times."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class now(FunctionElement[datetime]):
    """The database's time. Whose clock is wrong, a worker's or a client's, has no say in any lease."""

    type = UtcTime()
    inherit_cache = True
    name = "now"


class seconds_from_now(FunctionElement[datetime]):
    """The database's time and so many seconds."""

    type = UtcTime()
    inherit_cache = True
    name = "seconds_from_now"


# statement_timestamp(), for now() is when the transaction began: one that waited for a lock would give a shorter lease
@compiles(now, "postgresql")
def _now_postgres(element: Any, compiler: Any, **kw: Any) -> str:
    return "statement_timestamp()"


@compiles(seconds_from_now, "postgresql")
def _later_postgres(element: Any, compiler: Any, **kw: Any) -> str:
    seconds = compiler.process(element.clauses, **kw)
    return f"(statement_timestamp() + make_interval(secs => CAST({seconds} AS double precision)))"


# SQLite's clock has milliseconds; the three zeros make them the microseconds that SQLAlchemy reads and writes
@compiles(now, "sqlite")
def _now_sqlite(element: Any, compiler: Any, **kw: Any) -> str:
    return "strftime('%Y-%m-%d %H:%M:%f000', 'now')"


@compiles(seconds_from_now, "sqlite")
def _later_sqlite(element: Any, compiler: Any, **kw: Any) -> str:
    seconds = compiler.process(element.clauses, **kw)
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', CAST({seconds} AS TEXT) || ' seconds')"


metadata = MetaData()

Word = String(255).with_variant(String(255, collation="C"), "postgresql")
"""A text that is compared: the C collation compares bytes, as SQLite does, and faster than a language's order."""

Number = BigInteger().with_variant(Integer, "sqlite")
"""SQLite counts up a column of the type INTEGER only."""

jobs = Table(
    "vqe_jobs",
    metadata,
    Column("position", Number, primary_key=True),  # order of submission, which no clock decides
    Column("job_id", Word, nullable=False, unique=True),
    Column("kind", Word, nullable=False),
    Column("spec_id", Word, nullable=False),
    Column("name", String(255), nullable=False),
    Column("sweep_id", Word),
    Column("owner", Word, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("device", Word, nullable=False),
    Column("project", String(255), nullable=False),
    Column("tags", Text, nullable=False),  # a JSON list
    Column("force", Boolean, nullable=False),
    Column("state", Word, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("token", Integer, nullable=False),
    Column("worker", Word),
    Column("claim_id", Word),  # by which a claim whose answer was lost is found again
    Column("lease_until", UtcTime),
    Column("cancel_requested", Boolean, nullable=False),
    Column("run_id", Word),
    Column("error", Text),
    Column("summary", Text),  # JSON
    Column("created_at", UtcTime, nullable=False),
    Column("waiting_since", UtcTime, nullable=False),
    Column("started_at", UtcTime),
    Column("finished_at", UtcTime),
    Column("spec_json", Text, nullable=False),
)


def _partial(name: str, condition: str, *columns: str, unique: bool = False) -> Index:
    where = text(condition)
    return Index(name, *(jobs.c[c] for c in columns), unique=unique, postgresql_where=where, sqlite_where=where)


# Each index holds the rows of one question only: a job that is submitted enters few, and those of claims do not grow with what has ended.
_partial(
    "vqe_jobs_lanes", "state = 'waiting'", "device", "kind", "priority", "owner", "position", "waiting_since"
)  # a claim, waits, counts
_partial(
    "vqe_jobs_sweep", "state = 'waiting' AND sweep_id IS NOT NULL", "sweep_id", "priority", "position"
)  # a claim within one sweep
_partial("vqe_jobs_leases", "state = 'running'", "lease_until", "device", "owner")  # lost workers, shares
_partial("vqe_jobs_active", "state IN ('waiting', 'running')", "kind", "spec_id", unique=True)
_partial("vqe_jobs_completed", "state = 'completed'", "kind", "spec_id", "position")
_partial("vqe_jobs_of_sweep", "sweep_id IS NOT NULL", "sweep_id", "position")
_partial("vqe_jobs_ended", "state NOT IN ('waiting', 'running')", "state", "device", "kind")  # counts

checkpoints = Table(
    "vqe_job_checkpoints",
    metadata,
    Column("job_id", Word, ForeignKey("vqe_jobs.job_id"), primary_key=True),
    Column("iteration", Integer, nullable=False),
    Column("energy", Float(53), nullable=False),
    Column("run_id", Word, nullable=False),
    Column("saved_at", UtcTime, nullable=False),
    Column("packed", LargeBinary, nullable=False),
)

keys = Table(
    "vqe_job_keys",
    metadata,
    Column("owner", Word, primary_key=True),  # one client's key says nothing about another's
    Column("idempotency_key", Word, primary_key=True),
    Column("body", Word, nullable=False),  # SHA-256 of what was asked for
    Column("job_id", Word, nullable=False),
    Column("created_at", UtcTime, nullable=False),
)

workers = Table(
    "vqe_workers",
    metadata,
    Column("worker", Word, primary_key=True),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("devices", Text, nullable=False),  # a JSON list
    Column("since", UtcTime, nullable=False),
    Column("last_seen", UtcTime, nullable=False),
    Column("problem", Text),
    Column("job_id", Word),
)
