"""Where the queue is, what opening it loads and makes, and what is said where it cannot be opened."""

import sqlite3
import subprocess
import sys

import pytest
import sqlalchemy
from pydantic import SecretStr
from queue_promises import Place, job

from simulator.errors import InputError
from simulator.queue import QueueAway, migrate
from simulator.settings import load_settings

SECRET = "canary-5b1f"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VQE_QUEUE_URI", raising=False)


def loaded(script: str) -> set[str]:
    """Top-level modules that a new process has loaded after the script."""
    done = subprocess.run(
        [sys.executable, "-c", f"{script}\nimport sys; print(*{{m.partition('.')[0] for m in sys.modules}})"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(done.stdout.split())


def test_a_data_dir_has_its_queue_in_a_file_that_opening_makes(tmp_path):
    with Place(tmp_path / "new" / "data").open() as queue:
        queue.submit([job(1)])
    assert (tmp_path / "new" / "data" / "queue.db").exists()
    with Place(tmp_path / "new" / "data").open() as queue:
        assert len(queue.jobs()) == 1


def test_a_file_with_writers_is_read_meanwhile(tmp_path):
    with Place(tmp_path).open() as queue:
        queue.submit([job(1)])
        writer = sqlite3.connect(tmp_path / "queue.db", isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        assert len(queue.jobs()) == 1
        writer.close()


def test_importing_the_packages_does_not_load_sqlalchemy():
    assert "sqlalchemy" not in loaded(
        "import simulator, simulator.queue\nfrom simulator.queue import NewJob, LeaseLost"
    )


def test_opening_a_file_does_not_load_alembic_new_or_old(tmp_path):
    script = "from simulator.queue import JobQueue\nfrom simulator.settings import load_settings\nJobQueue.open(load_settings())"
    assert "alembic" not in loaded(script)
    assert "alembic" not in loaded(script)


def test_a_new_file_has_the_tables_that_migrations_make(tmp_path):
    with Place(tmp_path).open():
        pass
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/migrated.db")
    with engine.begin() as connection:
        migrate._migrate(connection)
    engine.dispose()
    assert made(tmp_path / "queue.db") == made(tmp_path / "migrated.db")


def made(path):
    """What a SQLite file was told to make, white space aside, and the version that it says."""
    connection = sqlite3.connect(path)
    statements = {
        (kind, name): " ".join((sql or "").split())
        for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_master")
    }
    version = connection.execute(f"SELECT version_num FROM {migrate.VERSION_TABLE}").fetchall()
    connection.close()
    return statements, version


def test_a_file_that_holds_another_programs_tables_is_migrated(tmp_path):
    connection = sqlite3.connect(tmp_path / "queue.db")
    connection.execute("CREATE TABLE theirs (a INTEGER)")
    connection.close()
    with Place(tmp_path).open() as queue:
        assert queue.submit([job(1)]).n_new == 1


def test_the_uri_may_come_from_a_file(tmp_path, monkeypatch):
    (tmp_path / "uri").write_text(f"sqlite:///{tmp_path}/elsewhere.db\n")
    monkeypatch.setenv("VQE_QUEUE_URI_FILE", str(tmp_path / "uri"))
    with Place(tmp_path / "data").open() as queue:
        assert queue.where == f"{tmp_path}/elsewhere.db"
    assert not (tmp_path / "data").exists()


def test_home_stands_for_itself_in_a_uri(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with Place(tmp_path / "data", "sqlite:///~/q.db").open() as queue:
        assert queue.where == f"{tmp_path}/q.db"


@pytest.mark.parametrize(
    ("uri", "error", "says"),
    [
        (f"mysql://vqe:{SECRET}@host/db", InputError, "use sqlite"),
        (f"nonsense {SECRET}", InputError, "VQE_QUEUE_URI"),
        (f"postgresql+nothing://vqe:{SECRET}@host/db", InputError, "VQE_QUEUE_URI"),
        (f"postgresql+psycopg2://vqe:{SECRET}@127.0.0.1:1/db", QueueAway, "does not answer"),
        ("sqlite://", InputError, "no queue"),
        ("sqlite:////proc/nowhere/q.db", QueueAway, "/proc/nowhere"),
    ],
)
def test_what_cannot_be_opened_is_one_line_without_the_password(tmp_path, uri, error, says):
    settings = load_settings(data_dir=tmp_path, queue_uri=SecretStr(uri))
    assert SECRET not in repr(settings)
    with pytest.raises(error, match=says) as caught:
        Place(tmp_path, uri).open(retry_seconds=0.1)
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_one_line(tmp_path):
    (tmp_path / "queue.db").write_text("no database at all, but more than a page of it " * 200)
    with pytest.raises(QueueAway, match=r"queue\.db is damaged: file is not a database"):
        Place(tmp_path).open()


def test_a_file_that_is_locked_for_long_is_one_line(tmp_path, monkeypatch):
    import sqlite3

    from simulator.queue import database

    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    with Place(tmp_path).open(retry_seconds=0.1) as queue:
        writer = sqlite3.connect(tmp_path / "queue.db", isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(QueueAway, match="database is locked"):
            queue.submit([job(1)])
        writer.close()
        assert queue.submit([job(1)]).n_new == 1
