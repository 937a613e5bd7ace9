"""Schema compatibility: every release against every earlier one, both directions; golden files of each still read."""

import copy
import json
from pathlib import Path

import fastavro
import pytest

from simulator.events import schemas
from simulator.kafka.compatibility import check_all, unreadable

GOLDEN = Path(__file__).parents[2] / "golden"


def test_every_schema_is_compatible_with_every_earlier_one_of_its_topic():
    assert check_all() == []


def changed(change) -> list[str]:
    """Problems of a changed vqe_iteration schema against the released one, both directions."""
    old = schemas.newest("vqe_iteration_v1")
    new = copy.deepcopy(old)
    change(new["fields"], {f["name"]: f for f in new["fields"]})
    return unreadable(old, new) + unreadable(new, old)


def test_a_field_with_a_default_may_come_and_go():
    extra = {"name": "step_norm", "type": ["null", "double"], "default": None}
    assert changed(lambda fields, by: fields.append(extra)) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda fields, by: fields.append({"name": "new", "type": "long"}), "no default"),
        (lambda fields, by: fields.remove(by["energy"]), "no default"),
        (lambda fields, by: by["energy"].update(name="total_energy"), "no default"),
        (lambda fields, by: by["energy"].update(type="string"), "cannot be read"),
        (lambda fields, by: by["iteration"].update(type="long"), "long cannot be read as int"),
        (lambda fields, by: by["energy"].update(type=["null", "double"]), "none of|cannot be read"),
        (
            lambda fields, by: by["recorded_at"].update(type={"type": "long", "logicalType": "timestamp-millis"}),
            "logical",
        ),
        (
            lambda fields, by: by["parameters"].update(type=["null", {"type": "array", "items": "string"}]),
            "parameters: array",
        ),
    ],
)
def test_an_incompatible_change_is_found(change, says):
    import re

    problems = changed(change)
    assert problems
    assert any(re.search(says, p) for p in problems), problems


def test_renamed_records_and_unknown_symbols_are_found():
    old = schemas.newest("vqe_result_v1")
    renamed = {**copy.deepcopy(old), "name": "vqe_outcome"}
    assert unreadable(old, renamed)
    fewer = copy.deepcopy(old)
    status = next(f for f in fewer["fields"] if f["name"] == "status")["type"]
    status["symbols"].remove("failed")
    assert unreadable(old, fewer) == [], "the enum has a default for what it does not know"
    del status["default"]
    assert unreadable(old, fewer)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.avro")), ids=lambda p: p.name)
def test_files_of_every_released_version_still_read(path):
    """Golden files are never rewritten: each was made by the release in its name."""
    topic = path.name.split("@")[0]
    expected = json.loads(path.with_suffix(".json").read_text())
    with open(path, "rb") as file:
        read = list(fastavro.reader(file, schemas.newest(topic)))
    assert len(read) == len(expected) > 0
    for record, was in zip(read, expected, strict=True):
        for name, value in was.items():
            assert _plain(record[name]) == value, name


def test_every_released_version_has_a_golden_file():
    have = {path.stem for path in GOLDEN.glob("*.avro")}
    want = {f"{topic}@{s['version']}" for topic, versions in schemas.released().items() for s in versions}
    assert want <= have, "make it with: python tests/golden/make.py (new versions only)"


def _plain(value):
    import datetime

    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list) else value
