"""Bring the queue's tables to this version's. Alembic is loaded only where there are tables to migrate: it takes 0.2 s."""

import hashlib
from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, PrimaryKeyConstraint, String, Table, inspect, text

from simulator.queue.database import Database
from simulator.queue.records import QueueAway
from simulator.queue.tables import metadata

HEAD = "0001"
"""The newest migration; a test holds it against the scripts."""

VERSION_TABLE = "vqe_queue_version"
"""Alembic's own name for it could be another program's in the same database."""

_LOCK = int.from_bytes(hashlib.sha256(b"vqe queue migration").digest()[:8], "big", signed=True)


def ensure(database: Database, *, migrate: bool) -> None:
    """Make sure that the tables are this version's.

    Args:
        database: the queue's.
        migrate: make or change tables that are not. A SQLite file always is migrated: it has no other users.

    Raises:
        QueueAway: tables are missing or old and must not be migrated here, or are of a newer version.
    """
    found = database.read(revision)
    if found == HEAD:
        return
    if found is not None and found > HEAD:
        raise QueueAway(
            f"queue {database.where} was made by a newer version (its tables are at {found}, this version knows {HEAD})"
        )
    if database.is_sqlite:
        database.outside("PRAGMA journal_mode = WAL")  # stays so in the file
    elif not migrate:
        told = "has no tables yet" if found is None else f"has tables of an older version, {found}"
        raise QueueAway(f"the queue's database {database.where} {told}: run `vqe jobs migrate` once")
    database.write(lambda connection, _again: _upgrade(connection), durable=True)


def revision(connection: Connection) -> str | None:
    """The migration that the tables are at; None where there are none."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()


def _upgrade(connection: Connection) -> None:
    """Run what is missing in this transaction. Another process that wants the same waits, and then finds it done."""
    if connection.dialect.name == "postgresql":  # SQLite's BEGIN IMMEDIATE is such a lock
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    if revision(connection) == HEAD:
        return
    if connection.dialect.name == "sqlite" and not inspect(connection).get_table_names():
        _make(connection)
    else:
        _migrate(connection)


def _make(connection: Connection) -> None:
    """The tables in a new SQLite file, as all migrations together make them; a test holds one against the other."""
    metadata.create_all(connection)
    version = Table(VERSION_TABLE, MetaData(), Column("version_num", String(32), nullable=False))
    version.append_constraint(PrimaryKeyConstraint("version_num", name=f"{VERSION_TABLE}_pkc"))  # as Alembic makes it
    version.create(connection)
    connection.execute(version.insert().values(version_num=HEAD))


def _migrate(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    folder = str(Path(__file__).parent / "migrations")
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
