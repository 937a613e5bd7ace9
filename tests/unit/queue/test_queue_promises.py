"""The queue's promises on SQLite; tests/integration/test_queue.py holds them on Postgres."""

import pytest

pytest.register_assert_rewrite("queue_promises")

from queue_promises import *  # noqa: E402, F403
from queue_promises import Place  # noqa: E402


@pytest.fixture
def place(tmp_path, monkeypatch) -> Place:
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path / "data")
