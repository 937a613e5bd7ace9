"""Jobs, their checkpoints and idempotency keys, and workers."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

# A migration says what it made when it was written, whatever `tables.py` says today.
WORD = sa.String(255).with_variant(sa.String(255, collation="C"), "postgresql")
NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
TIME = sa.DateTime(timezone=True)

# Rows change state several times within minutes: Postgres cleans and counts them long before its default, a tenth of the
# table. Half-full pages of the small tables let their updates stay on their page. A specification, which never changes, lies
# outside its row, so that a change of state does not write it again.
_JOBS_STORAGE = (
    "autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02, fillfactor = 80,"
    " toast_tuple_target = 256"
)


def upgrade() -> None:
    op.create_table(
        "vqe_jobs",
        sa.Column("position", NUMBER, primary_key=True),
        sa.Column("job_id", WORD, nullable=False, unique=True),
        sa.Column("kind", WORD, nullable=False),
        sa.Column("spec_id", WORD, nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("sweep_id", WORD),
        sa.Column("owner", WORD, nullable=False),
        sa.Column("priority", sa.SmallInteger, nullable=False),
        sa.Column("device", WORD, nullable=False),
        sa.Column("project", sa.String(255), nullable=False),
        sa.Column("tags", sa.Text, nullable=False),
        sa.Column("force", sa.Boolean, nullable=False),
        sa.Column("state", WORD, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("token", sa.Integer, nullable=False),
        sa.Column("worker", WORD),
        sa.Column("claim_id", WORD),
        sa.Column("lease_until", TIME),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("run_id", WORD),
        sa.Column("error", sa.Text),
        sa.Column("summary", sa.Text),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("waiting_since", TIME, nullable=False),
        sa.Column("started_at", TIME),
        sa.Column("finished_at", TIME),
        sa.Column("spec_json", sa.Text, nullable=False),
    )
    _partial("vqe_jobs_lanes", "state = 'waiting'", "device", "kind", "priority", "owner", "position", "waiting_since")
    _partial("vqe_jobs_sweep", "state = 'waiting' AND sweep_id IS NOT NULL", "sweep_id", "priority", "position")
    _partial("vqe_jobs_leases", "state = 'running'", "lease_until", "device", "owner")
    _partial("vqe_jobs_active", "state IN ('waiting', 'running')", "kind", "spec_id", unique=True)
    _partial("vqe_jobs_completed", "state = 'completed'", "kind", "spec_id", "position")
    _partial("vqe_jobs_of_sweep", "sweep_id IS NOT NULL", "sweep_id", "position")
    _partial("vqe_jobs_ended", "state NOT IN ('waiting', 'running')", "state", "device", "kind")
    op.create_table(
        "vqe_job_checkpoints",
        sa.Column("job_id", WORD, sa.ForeignKey("vqe_jobs.job_id"), primary_key=True),
        sa.Column("iteration", sa.Integer, nullable=False),
        sa.Column("energy", sa.Float(53), nullable=False),
        sa.Column("run_id", WORD, nullable=False),
        sa.Column("saved_at", TIME, nullable=False),
        sa.Column("packed", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "vqe_job_keys",
        sa.Column("owner", WORD, primary_key=True),
        sa.Column("idempotency_key", WORD, primary_key=True),
        sa.Column("body", WORD, nullable=False),
        sa.Column("job_id", WORD, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
    )
    op.create_table(
        "vqe_workers",
        sa.Column("worker", WORD, primary_key=True),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("devices", sa.Text, nullable=False),
        sa.Column("since", TIME, nullable=False),
        sa.Column("last_seen", TIME, nullable=False),
        sa.Column("problem", sa.Text),
        sa.Column("job_id", WORD),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"ALTER TABLE vqe_jobs SET ({_JOBS_STORAGE})")
        op.execute("ALTER TABLE vqe_workers SET (fillfactor = 50)")


def _partial(name: str, condition: str, *columns: str, unique: bool = False) -> None:
    where = sa.text(condition)
    op.create_index(name, "vqe_jobs", list(columns), unique=unique, postgresql_where=where, sqlite_where=where)
