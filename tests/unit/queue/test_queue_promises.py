"""The queue's promises on SQLite; tests/integration/test_queue.py holds them on Postgres."""

import pytest
from queue_promises import *  # noqa: F403
from queue_promises import Place


@pytest.fixture
def place(tmp_path, monkeypatch) -> Place:
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path / "data")
