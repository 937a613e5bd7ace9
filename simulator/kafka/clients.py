"""Kafka and registry clients, configured from the settings. Secrets are never logged."""

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from simulator.errors import InputError, VqeError, one_line
from simulator.settings import Settings

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Producer
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.schema_registry import SchemaRegistryClient


class ServiceError(VqeError):
    """Kafka or the registry is away or refuses. Exit code 1."""


def require_kafka() -> None:
    """Raise InputError unless the `kafka` extra is installed."""
    try:
        import confluent_kafka  # noqa: F401
    except ImportError:
        raise InputError("the kafka sink needs the extra: pip install 'vqe-pipeline[kafka]'") from None


def kafka_config(settings: Settings) -> dict[str, Any]:
    """librdkafka's connection settings.

    Raises:
        InputError: settings that cannot go together, e.g. SASL without a user.
    """
    protocol = settings.kafka_security_protocol
    config: dict[str, Any] = {
        "bootstrap.servers": settings.kafka_bootstrap_servers,
        "security.protocol": protocol,
        "client.id": "vqe",
        "reconnect.backoff.max.ms": 2_000,
        "socket.keepalive.enable": True,
        "log_level": 0,  # errors reach the error callback, which logs each once
    }
    if protocol.startswith("SASL"):
        if not settings.kafka_username or settings.kafka_password is None:
            raise InputError(f"{protocol} needs VQE_KAFKA_USERNAME and VQE_KAFKA_PASSWORD (or VQE_KAFKA_PASSWORD_FILE)")
        config |= {
            "sasl.mechanism": settings.kafka_sasl_mechanism,
            "sasl.username": settings.kafka_username,
            "sasl.password": settings.kafka_password.get_secret_value(),
        }
    elif settings.kafka_username:
        raise InputError(f"VQE_KAFKA_USERNAME goes with SASL_SSL or SASL_PLAINTEXT, not {protocol}")
    files = {
        "ssl.ca.location": settings.kafka_ssl_ca,
        "ssl.certificate.location": settings.kafka_ssl_certificate,
        "ssl.key.location": settings.kafka_ssl_key,
    }
    for name, path in files.items():
        if path is None:
            continue
        if not protocol.endswith("SSL"):
            raise InputError(f"certificates go with SSL or SASL_SSL, not {protocol}")
        if not path.is_file():
            raise InputError(f"{name}: no such file {path}")
        config[name] = str(path)
    if (settings.kafka_ssl_certificate is None) != (settings.kafka_ssl_key is None):
        raise InputError("mTLS needs both VQE_KAFKA_SSL_CERTIFICATE and VQE_KAFKA_SSL_KEY")
    if settings.kafka_ssl_key_password is not None:
        config["ssl.key.password"] = settings.kafka_ssl_key_password.get_secret_value()
    return config


def make_producer(settings: Settings, **more: Any) -> "Producer":
    """An idempotent producer: acks=all, zstd, no time limit of its own on a message."""
    from confluent_kafka import Producer

    return Producer(
        {
            **kafka_config(settings),
            "enable.idempotence": True,
            "acks": "all",
            "compression.type": "zstd",
            "compression.level": 1,  # parameters are doubles, which shrink to 0.92 at any level: the fastest one
            "linger.ms": 5,
            "batch.size": 1 << 20,
            "message.max.bytes": 1_000_000,
            "message.timeout.ms": 0,  # the spool keeps what is not acknowledged; an outage is no failure
            "queue.buffering.max.messages": 200_000,
            "queue.buffering.max.kbytes": 1 << 17,
            **more,
        },
        logger=_silent_logger(),
    )


def _silent_logger() -> logging.Logger:
    """A logger that drops everything: librdkafka writes a fatal error to stderr at any log level, and the forwarder logs it already."""
    logger = logging.getLogger("simulator.librdkafka")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logger


def make_consumer(settings: Settings, group: str, **more: Any) -> "Consumer":
    """A consumer that commits only what it is told to."""
    from confluent_kafka import Consumer

    return Consumer(
        {
            **kafka_config(settings),
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "topic.metadata.refresh.interval.ms": 5_000,
            **more,
        }
    )


def make_admin(settings: Settings) -> "AdminClient":
    """An admin client."""
    from confluent_kafka.admin import AdminClient

    return AdminClient(kafka_config(settings))


def registry_away(settings: Settings, error: Exception) -> VqeError:
    """The one-line error for a registry that gave no answer; an error about settings is returned as it is."""
    if isinstance(error, VqeError):
        return error
    return ServiceError(f"registry {settings.registry_url} does not answer: {one_line(error)}")


class AdminLender:
    """Lends one admin client again and again, and a new one after a use that raised.

    A client that knows a leader's epoch from before a restart of the broker asks in vain for minutes.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: AdminClient | None = None

    @contextlib.contextmanager
    def lend(self) -> "Iterator[AdminClient]":
        """The client, for one piece of work."""
        client, self._client = self._client or make_admin(self._settings), None
        yield client
        self._client = client


def make_registry(settings: Settings) -> "SchemaRegistryClient":
    """A registry client that does not retry by itself: its callers decide."""
    from confluent_kafka.schema_registry import SchemaRegistryClient

    config: dict[str, Any] = {"url": settings.registry_url, "timeout": 5, "max.retries": 0}
    if settings.registry_username:
        if settings.registry_password is None:
            raise InputError("VQE_REGISTRY_USERNAME needs VQE_REGISTRY_PASSWORD (or VQE_REGISTRY_PASSWORD_FILE)")
        config["basic.auth.user.info"] = f"{settings.registry_username}:{settings.registry_password.get_secret_value()}"
    if settings.registry_ca is not None:
        if not settings.registry_ca.is_file():
            raise InputError(f"VQE_REGISTRY_CA: no such file {settings.registry_ca}")
        config["ssl.ca.location"] = str(settings.registry_ca)
    try:
        return SchemaRegistryClient(config)
    except ValueError as error:
        raise InputError(f"VQE_REGISTRY_URL {settings.registry_url!r}: {error}") from None
