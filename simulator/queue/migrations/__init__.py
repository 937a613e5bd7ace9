"""The migrations of the queue's tables, which Alembic runs; shipped with the package."""
