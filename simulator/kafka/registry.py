"""Schemas in the registry: registered under FULL_TRANSITIVE by whoever owns them, only looked up by producers."""

import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from simulator.events import schemas
from simulator.kafka.clients import ServiceError, make_registry, registry_away
from simulator.settings import Settings

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import SchemaRegistryClient

COMPATIBILITY = "FULL_TRANSITIVE"
_MAGIC = 0
UNKNOWN_CODES = (40401, 40402, 40403)
"""The registry's codes of a subject, version or schema that it does not have."""


@dataclass(frozen=True)
class Registered:
    """A schema's place in the registry."""

    subject: str
    version: str
    schema_id: int
    new: bool


def subject_of(topic: str) -> str:
    """TopicNameStrategy."""
    return f"{topic}-value"


def frame(schema_id: int) -> bytes:
    """The five bytes before each value: magic 0 and the schema's id (Confluent wire format)."""
    return struct.pack(">bI", _MAGIC, schema_id)


def schema_id_of(value: bytes) -> int:
    """The schema's id in a framed value.

    Raises:
        ValueError: the value is not framed.
    """
    if len(value) < 5 or value[0] != _MAGIC:
        raise ValueError("not in the registry's wire format")
    schema_id: int = struct.unpack_from(">I", value, 1)[0]
    return schema_id


def register_all(settings: Settings) -> list[Registered]:
    """Register every released schema, oldest first, each subject FULL_TRANSITIVE; idempotent.

    Raises:
        ServiceError: the registry is away, refuses, or finds a schema incompatible.
    """
    with make_registry(settings) as client:
        return _register_all(settings, client)


def _register_all(settings: Settings, client: "SchemaRegistryClient") -> list[Registered]:
    from confluent_kafka.schema_registry import Schema

    done = []
    for topic, versions in schemas.released().items():
        subject = subject_of(topic)
        for schema in versions:
            text = json.dumps(schema)
            known = _asked(settings, lambda s=subject, t=text: _lookup(client, s, t))
            if known is None:
                known = _asked(
                    settings,
                    lambda s=subject, t=text: client.register_schema(s, Schema(t, "AVRO")),
                    f"{topic} {schema['version']}",
                )
                done.append(Registered(subject, schema["version"], known, True))
            else:
                done.append(Registered(subject, schema["version"], known, False))
        _asked(settings, lambda s=subject: client.set_compatibility(s, COMPATIBILITY))
    return done


def _lookup(client: "SchemaRegistryClient", subject: str, text: str) -> int | None:
    from confluent_kafka.schema_registry import Schema
    from confluent_kafka.schema_registry.error import SchemaRegistryError

    try:
        found = client.lookup_schema(subject, Schema(text, "AVRO"))
    except SchemaRegistryError as error:
        if error.http_status_code == 404 and error.error_code in UNKNOWN_CODES:
            return None
        raise  # another 404 is not from a registry: the address is wrong, or a proxy stands before a registry that is away
    return found.schema_id


def lookup_id(settings: Settings, topic: str, schema_json: str) -> int | None:
    """The id of a schema under a topic's subject; None where nobody registered it.

    Raises:
        Exception: whatever the registry's client raises when the registry is away or refuses.
    """
    with make_registry(settings) as client:
        return _lookup(client, subject_of(topic), schema_json)


def _asked(settings: Settings, ask, what: str = ""):  # type: ignore[no-untyped-def]
    from confluent_kafka.schema_registry.error import SchemaRegistryError

    try:
        return ask()
    except SchemaRegistryError as error:
        if error.http_status_code == 409:
            raise ServiceError(
                f"schema {what} is not compatible with what is registered: {error.error_message}"
            ) from None
        raise ServiceError(
            f"registry {settings.registry_url} refuses ({error.http_status_code}): {error.error_message}"
        ) from None
    except Exception as error:
        raise registry_away(settings, error) from None
