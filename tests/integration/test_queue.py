"""The queue's promises on a real Postgres, and what happens when it is killed."""

import os
from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("queue_promises")

from queue_promises import *  # noqa: E402, F403
from queue_promises import Place  # noqa: E402

from tests.services.lake import LakeArtifacts, Postgres  # noqa: E402

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    artifacts = LakeArtifacts()
    artifacts.fetch(("postgres",))
    server = Postgres(artifacts.root / "stacks" / f"queue-{os.getpid()}", artifacts)
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture
def place(postgres, request, tmp_path, monkeypatch) -> Place:
    """A database that is new."""
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path / "data", postgres.create(f"t{abs(hash(request.node.nodeid)) % 10**9}"))
