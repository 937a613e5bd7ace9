"""Alembic runs this for each migration. The caller (`simulator.queue.migrate`) gives the connection, whose transaction holds the lock."""

from alembic import context

from simulator.queue.migrate import VERSION_TABLE
from simulator.queue.tables import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, version_table=VERSION_TABLE
)
context.run_migrations()
