"""Fixtures: for the streaming tests the services with topics and schemas, and clean topics for each; a Postgres for the queue's."""

import contextlib
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from .platform import Platform

if TYPE_CHECKING:
    from tests.services.lake import Postgres


def service_environment(stack, how: str = "plaintext") -> dict[str, str]:
    """The `VQE_` variables for a way to talk to the broker: plaintext, scram, plain or mtls."""
    settings = stack.client_settings(how)
    names = {
        "bootstrap.servers": "KAFKA_BOOTSTRAP_SERVERS", "security.protocol": "KAFKA_SECURITY_PROTOCOL",
        "sasl.mechanism": "KAFKA_SASL_MECHANISM", "sasl.username": "KAFKA_USERNAME", "sasl.password": "KAFKA_PASSWORD",
        "ssl.ca.location": "KAFKA_SSL_CA", "ssl.certificate.location": "KAFKA_SSL_CERTIFICATE",
        "ssl.key.location": "KAFKA_SSL_KEY",
    }  # fmt: skip
    return {f"VQE_{names[k]}": v for k, v in settings.items()} | {"VQE_REGISTRY_URL": stack.registry_url}


@pytest.fixture
def platform(stack, tmp_path) -> Platform:
    """The product's environment, with every topic made anew and the schemas registered."""
    found = Platform(service_environment(stack), tmp_path / "data")
    _drop_topics(found)
    found.vqe("topics")
    found.vqe("schemas", "register")
    return found


def _drop_topics(platform: Platform) -> None:
    from simulator.kafka.clients import make_admin

    admin = make_admin(platform.settings())
    # Connect's own topics stay: without them its worker asks for them in a tight loop
    ours = lambda t: t.startswith("vqe_") and not t.startswith("vqe_connect_")  # noqa: E731
    wanted = lambda: [t for t in admin.list_topics(timeout=30).topics if ours(t)]  # noqa: E731
    names = wanted()
    if names:
        for future in admin.delete_topics(names).values():
            with contextlib.suppress(Exception):
                future.result(timeout=30)
    end = time.monotonic() + 30
    while wanted() and time.monotonic() < end:
        time.sleep(0.2)


@pytest.fixture(scope="session")
def postgres() -> "Iterator[Postgres]":
    """A Postgres of the queue's tests, which they may kill; each makes a database of its own in it."""
    from tests.services.lake import LakeArtifacts, Postgres

    artifacts = LakeArtifacts()
    artifacts.fetch(("postgres",))
    server = Postgres(artifacts.root / "stacks" / f"queue-{os.getpid()}", artifacts)
    try:
        yield server.start()
    finally:
        server.stop()
