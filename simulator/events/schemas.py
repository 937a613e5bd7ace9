"""The event schemas in `schemas/*.avsc`, the single source of event fields.

A file is `<record>_v<major>.<minor>.avsc` and says its own version. The topic's name is the record's name + `_v` + major.
"""

import json
import re
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

Schema = dict[str, Any]

STREAMS = ("vqe_run", "vqe_iteration", "vqe_hamiltonian", "vqe_system_metrics", "vqe_result")
"""Streams of events, all of which are sunk to storage."""
SUNK_TOPICS = re.compile(rf"({'|'.join(STREAMS)})_v[0-9]+")
"""What every reader of events takes, whatever the major version."""

_FILE = re.compile(r"(?P<name>[a-z_]+)_v(?P<major>[0-9]+)\.(?P<minor>[0-9]+)\.avsc")


def topic_of(schema: Schema) -> str:
    """The Kafka topic of a schema: record name + `_v` + major version, e.g. `vqe_run_v1`."""
    return f"{schema['name']}_v{schema['version'].split('.')[0]}"


def stream_of(topic: str) -> str:
    """The stream of a topic: `vqe_run` of `vqe_run_v2`."""
    return topic.rsplit("_v", 1)[0]


def major_of(topic: str) -> int:
    """The major version of a topic: 2 of `vqe_run_v2`."""
    return int(topic.rsplit("_v", 1)[1])


_registered: list[Schema] = []


def register(schema: Schema) -> None:
    """Add a schema to the released ones of this process, for a kind of task that is not shipped with it."""
    _registered.append(schema)
    released.cache_clear()


@cache
def released() -> dict[str, list[Schema]]:
    """Every schema of every topic, oldest minor version first.

    Raises:
        ValueError: a file's name and the version it states differ.
    """
    found: dict[str, list[tuple[int, Schema]]] = {}
    for schema in _registered:
        found.setdefault(topic_of(schema), []).append((int(schema["version"].split(".")[1]), schema))
    for entry in _folder().iterdir():
        if (match := _FILE.fullmatch(entry.name)) is None:
            continue
        schema = json.loads(entry.read_text(encoding="utf-8"))
        stated = f"{schema['name']}_v{schema['version']}.avsc"
        if stated != entry.name:
            raise ValueError(f"schema file {entry.name} says that it is {stated}")
        found.setdefault(topic_of(schema), []).append((int(match["minor"]), schema))
    return {topic: [s for _, s in sorted(pairs, key=lambda p: p[0])] for topic, pairs in sorted(found.items())}


def newest(topic: str) -> Schema:
    """The newest schema of a topic: what its producer writes and its readers read with.

    Raises:
        KeyError: no schema of that topic is known.
    """
    return released()[topic][-1]


def current(stream: str) -> Schema:
    """The schema that this release writes for a stream, e.g. `vqe_run`: the highest major and minor version."""
    majors = [topic for topic in released() if re.fullmatch(rf"{stream}_v[0-9]+", topic)]
    if not majors:
        raise KeyError(f"no schema of stream {stream}")
    return newest(max(majors, key=major_of))


def _folder() -> Traversable:
    """`schemas/` as the wheel carries it, else the checkout's."""
    packaged = files("simulator") / "_schemas"
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[2] / "schemas"
