"""Fixtures with MinIO, Postgres and Spark. A test file takes them by ``pytest_plugins`` or by import."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from .lake import Driver, Lake, LakeArtifacts, Place


@pytest.fixture(scope="session")
def lake(request) -> Iterator[Lake]:
    """MinIO and Postgres, once for a session. Data and logs stay if a test failed."""
    lake = Lake(LakeArtifacts().root / "stacks" / f"lake-{os.getpid()}").fetch()
    try:
        yield lake.start()
    finally:
        lake.stop()
        if request.session.testsfailed:
            print(f"\nlake's data and logs: {lake.directory}")
        else:
            lake.wipe()


@pytest.fixture(scope="session")
def driver(lake: Lake) -> Driver:
    """A Spark driver that stays for the session."""
    return lake.driver()


@pytest.fixture
def place(lake: Lake, request, monkeypatch) -> Place:
    """A new warehouse on S3 and Postgres, which this process finds in its environment."""
    found = lake.place(f"t{abs(hash(request.node.nodeid)) % 10**9}")
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    return found


PlaceOf = Callable[[], Place]
