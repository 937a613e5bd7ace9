"""Fixtures with the real services. A test file takes them by ``pytest_plugins = ["tests.services.fixtures"]``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator

import pytest

from .artifacts import CHECKOUT, Artifacts
from .probes import BUCKET, eventually, setup_connector
from .stack import Stack


@pytest.fixture(scope="session")
def stack(request) -> Iterator[Stack]:
    """All services, once for a session, with the bucket. Data and logs stay if a test failed."""
    directory = Artifacts().root / "stacks" / f"pytest-{os.getpid()}"
    stack = Stack(directory, security=True).fetch()
    try:
        stack.start()
        stack.s3().create_bucket(Bucket=BUCKET)
        yield stack
    finally:
        stack.stop()
        if request.session.testsfailed:
            print(f"\nservices' data and logs: {directory}")
        else:
            stack.wipe()


@pytest.fixture
def connector(stack) -> Iterator[Callable[..., str]]:
    """``connector(name, **settings)`` sets up the product's connector, with changes, and deletes it after the test.

    Settings are written with underscores doubled for dots: ``flush__ms="1000"``; or in a dict, ``settings={"flush.ms": "1000"}``.
    ``wait=False`` does not wait for RUNNING.
    """
    names: list[str] = []

    def put(name: str, settings: dict[str, str] | None = None, wait: bool = True, **more: str) -> str:
        config = json.loads((CHECKOUT / "connect" / "connector.json").read_text())
        config |= settings or {}
        config |= {key.replace("__", "."): value for key, value in more.items()}
        names.append(name)
        if wait:
            setup_connector.setup(stack.connect_url, name, config)
        else:
            setup_connector.call(stack.connect_url, "PUT", f"/connectors/{name}/config", config)
        return name

    yield put
    for name in dict.fromkeys(names):
        eventually(
            lambda name=name: setup_connector.call(stack.connect_url, "DELETE", f"/connectors/{name}") is None,
            60,
            f"delete of connector {name}",
        )
