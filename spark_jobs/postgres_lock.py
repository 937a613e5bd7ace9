"""The warehouse lock of a catalog in Postgres: a session's advisory lock, so that a dead writer holds nothing.

The connection must be the session's own: through a pooler in transaction mode, the lock would belong to a server connection that others share.
The server notices within a minute that a writer's machine is gone (TCP keepalive), and gives the lock to the next.
"""

import hashlib
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy
from sqlalchemy import text

from simulator.errors import StorageError
from spark_jobs.faults import CONNECT_SECONDS, catalog_fault

KEY = int.from_bytes(hashlib.sha256(b"vqe warehouse").digest()[:8], "big", signed=True)
"""Advisory locks are numbers, one set a database; the catalog's database is the warehouse's own."""

TURN_KEY = int.from_bytes(hashlib.sha256(b"vqe warehouse turn").digest()[:8], "big", signed=True)
"""The turn, which a process takes first and holds while it waits: see `lock`."""

_POLL_SECONDS = 0.2
_KEEPALIVE = "-c tcp_keepalives_idle=20 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"


class PostgresLock:
    """An advisory lock, which is lost with the connection that took it."""

    def __init__(self, connection: sqlalchemy.Connection) -> None:
        self._connection = connection

    def check(self) -> None:
        """Asks the server through the connection that holds the lock.

        Raises:
            StorageError: the connection is gone, and the lock with it.
        """
        try:
            self._connection.execute(text("SELECT 1"))
        except sqlalchemy.exc.DBAPIError as e:
            raise StorageError("the warehouse lock was lost with its connection: the batch stops here") from e


@contextmanager
def postgres_lock(catalog_uri: str, wait_seconds: float) -> Iterator[PostgresLock]:
    """Holds the lock; waits for whoever holds it.

    Raises:
        StorageError: Postgres does not answer, or the lock is still held after `wait_seconds`; names the holder.
    """
    name = f"vqe {socket.gethostname()} {os.getpid()}"[:63]
    try:
        engine = sqlalchemy.create_engine(
            catalog_uri,
            isolation_level="AUTOCOMMIT",
            poolclass=sqlalchemy.pool.NullPool,
            connect_args={
                "application_name": name,
                "options": _KEEPALIVE,
                "connect_timeout": CONNECT_SECONDS,
                "keepalives_idle": 20,
            },
        )
        connection = engine.connect()
    except (sqlalchemy.exc.SQLAlchemyError, ModuleNotFoundError) as e:
        raise catalog_fault(e, catalog_uri) from e
    with connection:
        deadline = time.monotonic() + wait_seconds
        for key in (TURN_KEY, KEY):
            while not connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": key}).scalar():
                if time.monotonic() > deadline:
                    raise StorageError(
                        f"the warehouse is in use by {_holder(connection)}; gave up after {wait_seconds:g} s"
                    )
                time.sleep(_POLL_SECONDS)
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": TURN_KEY})
        yield PostgresLock(connection)


def _holder(connection: Any) -> str:
    found = connection.execute(
        text(
            "SELECT a.application_name, a.client_addr, a.backend_start FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
            "WHERE l.locktype = 'advisory' AND l.granted AND l.classid::bigint = :high AND l.objid::bigint = :low "
            "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        ),
        {"high": (KEY >> 32) & 0xFFFFFFFF, "low": KEY & 0xFFFFFFFF},
    ).first()
    if found is None:
        return "another process"
    name, address, since = found
    return f"{name or 'a session'} ({address or 'local'}) since {since:%Y-%m-%d %H:%M:%S}"
