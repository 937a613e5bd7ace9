"""Writes a golden Avro file for each schema version that has none; those that exist are never rewritten.

python tests/golden/make.py
"""

import json
import random
from pathlib import Path
from typing import Any

import fastavro
from fastavro.utils import generate_many

from simulator.events import schemas

HERE = Path(__file__).parent


def main() -> None:
    random.seed(20261121)
    for topic, versions in schemas.released().items():
        for schema in versions:
            path = HERE / f"{topic}@{schema['version']}.avro"
            if path.exists():
                continue
            records = list(generate_many(fastavro.parse_schema(schema), 3))
            with open(path, "wb") as file:
                fastavro.writer(file, schema, records, codec="null")
            with open(path, "rb") as file:
                read = [_plain(record) for record in fastavro.reader(file)]
            path.with_suffix(".json").write_text(json.dumps(read, indent=1) + "\n")
            print(path.name)


def _plain(value: Any) -> Any:
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()
