"""The queue's database: how it is opened, how a transaction begins, what is tried again, and its faults as one line.

SQLite is in WAL mode: readers and the one writer do not wait for each other. Writers begin with BEGIN IMMEDIATE, so that
none finds out in its middle that another was first, and wait for their turn up to `BUSY_SECONDS`.
"""

import os
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy
import tenacity
from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError, SQLAlchemyError

from simulator.credentials import remember
from simulator.errors import InputError, VqeError, one_line
from simulator.queue.records import QueueAway
from simulator.settings import Settings, from_home

T = TypeVar("T")

BUSY_SECONDS = 30
CONNECT_SECONDS = 10
RETRY_SECONDS = 5.0
"""How long a database that is away is tried again before its user is told."""

_CONNECTIONS = 50
"""Connections at most beside the five that are kept: a thread of the gateway or of a worker needs one at a time."""

_DURABLE, _READS = "vqe_durable", "vqe_reads"
_ALLOWED = "sqlite:////FOLDER/queue.db or postgresql+psycopg2://USER:PASSWORD@HOST/DATABASE"


class Database:
    """Connections to the queue's database, for all threads of a process and its forks.

    Args:
        settings: `queue_uri`, else the file `queue.db` in `data_dir`, which is made.
        retry_seconds: how long what failed because the database was away is tried again; by default `RETRY_SECONDS`.

    Raises:
        InputError: the URI cannot be right, or its driver is not installed.
        QueueAway: the folder of the file cannot be made.
    """

    def __init__(self, settings: Settings, *, retry_seconds: float | None = None) -> None:
        uri = queue_uri(settings)
        remember(uri if "://" in uri else "")
        self._retry_seconds = RETRY_SECONDS if retry_seconds is None else retry_seconds
        try:
            url = sqlalchemy.make_url(uri)
            self.is_sqlite = url.get_backend_name() == "sqlite"
            if not self.is_sqlite and url.get_backend_name() != "postgresql":
                raise InputError(
                    f"VQE_QUEUE_URI {url.render_as_string()}: not a database of the queue (use {_ALLOWED})"
                )
            self.where = str(url.database) if self.is_sqlite else url.render_as_string(hide_password=True)
            if self.is_sqlite:
                self._make_folder(url.database)
                self._engine = sqlalchemy.create_engine(
                    url, hide_parameters=True, max_overflow=_CONNECTIONS, connect_args={"timeout": BUSY_SECONDS}
                )
                event.listen(self._engine, "connect", _on_sqlite_connect)
                event.listen(self._engine, "begin", _on_sqlite_begin)
                self._steps = self._engine
            else:
                self._engine, self._steps = (
                    sqlalchemy.create_engine(
                        url, hide_parameters=True, pool_use_lifo=True, max_overflow=_CONNECTIONS, isolation_level=level,
                        connect_args=_libpq_options(url),
                    )
                    for level in ("READ COMMITTED", "AUTOCOMMIT")
                )  # fmt: skip
        except (SQLAlchemyError, ModuleNotFoundError, ValueError) as error:
            raise fault(error, uri) from None
        self._pid = os.getpid()

    @staticmethod
    def _make_folder(path: str | None) -> None:
        if not path or path == ":memory:":
            raise InputError("VQE_QUEUE_URI: a database in memory is no queue, for no other process sees it")
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise QueueAway(f"queue {path}: {error.strerror}") from None

    def write(self, work: Callable[[Connection, bool], T], *, durable: bool = False, in_steps: bool = False) -> T:
        """What `work` answers in a transaction that is committed; begun anew where the database was away.

        Args:
            work: gets the connection, and whether an earlier try may have been committed although nobody said so.
            durable: the commit is on the disk before this returns. Postgres' always are.
            in_steps: each statement is whole by itself, and Postgres commits it at once: without BEGIN and COMMIT it is
                one round trip, not three. These have connections of their own: to switch one to and fro costs as much, and
                its driver's error, where the server is gone, is none that SQLAlchemy knows.

        SQLite with synchronous=NORMAL may lose the last commits in a power cut, never its consistency. What is lost so
        may be a claim, a renewal or a checkpoint: the cut ended the worker too, whose job would have been put back
        anyway, and no old holder lives who could use a token that is given a second time. A submission, an end and a
        cancellation have been told to somebody, so they are `durable`: they wait for the disk (synchronous=FULL).
        """
        engine = self._steps if in_steps else self._engine
        return self._attempts(lambda again: self._transaction(engine, work, again, {_DURABLE: durable}))

    def read(self, work: Callable[[Connection], T]) -> T:
        """What `work` answers in a transaction that only reads."""
        engine = self._engine
        return self._attempts(lambda _again: self._transaction(engine, lambda c, _: work(c), False, {_READS: True}))

    def outside(self, statement: str) -> None:
        """Execute a statement that bears no transaction around it, e.g. a pragma."""

        def execute(_again: bool) -> None:
            raw = self._engine.raw_connection()
            try:
                raw.cursor().execute(statement)
            finally:
                raw.close()

        self._attempts(execute)

    def close(self) -> None:
        """Close the connections."""
        for engine in (self._engine, self._steps):
            engine.dispose(close=os.getpid() == self._pid)

    def _transaction(
        self, engine: sqlalchemy.Engine, work: Callable[[Connection, bool], T], again: bool, options: dict[str, Any]
    ) -> T:
        if os.getpid() != self._pid:  # a fork: the parent's connections are not to be touched, nor closed
            for each in (self._engine, self._steps):
                each.dispose(close=False)
            self._pid = os.getpid()
        with engine.connect() as connection:
            connection.execution_options(**options)
            with connection.begin():
                return work(connection, again)

    def _attempts(self, work: Callable[[bool], T]) -> T:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_may_pass),
            stop=tenacity.stop_after_delay(self._retry_seconds),
            wait=tenacity.wait_exponential(multiplier=0.05, max=1.0) + tenacity.wait_random(0, 0.1),
            reraise=True,
        )
        try:
            for attempt in retrying:
                with attempt:
                    return work(attempt.retry_state.attempt_number > 1)
        except SQLAlchemyError as error:
            raise fault(error, self.where) from error
        except sqlite3.Error as error:  # of a raw connection
            raise QueueAway(f"queue {self.where}: {one_line(error)}") from error
        raise AssertionError("tenacity returns or raises")


def queue_uri(settings: Settings) -> str:
    """Where the queue is, as SQLAlchemy names it; with the password."""
    if settings.queue_uri is None:
        return sqlalchemy.URL.create("sqlite", database=str(settings.data_dir / "queue.db")).render_as_string()
    uri = settings.queue_uri.get_secret_value()
    scheme, slashes, path = uri.partition(":///")
    if not scheme.startswith("sqlite"):
        return uri
    try:
        return f"{scheme}{slashes}{from_home(path)}"
    except ValueError as error:
        raise InputError(f"VQE_QUEUE_URI: {error}") from None


def _libpq_options(url: sqlalchemy.URL) -> dict[str, Any]:
    """A limit on how long a server that is gone is waited for; libpq alone waits minutes, or for ever."""
    if url.get_driver_name() not in ("psycopg2", "psycopg"):
        return {}
    options: dict[str, Any] = {
        "connect_timeout": CONNECT_SECONDS, "keepalives_idle": 20, "keepalives_interval": 10, "keepalives_count": 3,
        "tcp_user_timeout": 30_000, "application_name": f"vqe {socket.gethostname()} {os.getpid()}"[:63],
    }  # fmt: skip
    return {name: value for name, value in options.items() if name not in url.query}


def _on_sqlite_connect(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # the driver begins no transaction of its own: `_on_sqlite_begin` does
    connection.execute("PRAGMA foreign_keys = ON")


def _on_sqlite_begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    if options.get(_READS):
        connection.exec_driver_sql("BEGIN")
        return
    connection.exec_driver_sql(f"PRAGMA synchronous = {'FULL' if options.get(_DURABLE) else 'NORMAL'}")
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _may_pass(error: BaseException) -> bool:
    """Whether the same may go well a moment later: the server restarts, a lock is held, two transactions were in each other's way."""
    if isinstance(error, sqlite3.OperationalError):
        return "locked" in str(error)
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated or isinstance(error, IntegrityError):
        return True
    if isinstance(error.orig, sqlite3.Error):
        return "locked" in str(error.orig)
    return isinstance(error, OperationalError)


def fault(error: Exception, where: str) -> VqeError:
    """What SQLAlchemy's error, or that of a driver that cannot be loaded, says about the queue, in one line."""
    if isinstance(error, VqeError):
        return error
    if isinstance(error, ModuleNotFoundError):
        return InputError(
            f"VQE_QUEUE_URI {where}: no module {error.name} (pip install 'vqe-pipeline[lake]' has Postgres')"
        )
    cause = getattr(error, "orig", None)
    if cause is None:
        if type(error).__name__ in ("ArgumentError", "NoSuchModuleError", "ValueError"):
            return InputError(f"VQE_QUEUE_URI {where}: {one_line(error)} (use {_ALLOWED})")
        return QueueAway(f"the queue's database {where}: {one_line(error)[:300]}")
    line = one_line(cause)[:300]
    if not isinstance(cause, sqlite3.Error):
        answers = "does not answer" if isinstance(error, OperationalError | InterfaceError) else "refuses"
        return QueueAway(f"the queue's database {where} {answers}: {line}")
    if type(cause) is sqlite3.DatabaseError:
        return QueueAway(f"queue {where} is damaged: {line}. Move it away: events and tables hold what has been run")
    return QueueAway(f"queue {where}: {line}")
