"""FULL_TRANSITIVE compatibility of Avro schemas, checked without a registry (Avro 1.12, schema resolution)."""

from typing import Any

from simulator.events import schemas

_PROMOTIONS = {
    "int": {"int", "long", "float", "double"},
    "long": {"long", "float", "double"},
    "float": {"float", "double"},
    "string": {"string", "bytes"},
    "bytes": {"bytes", "string"},
}
_PRIMITIVES = {"null", "boolean", "int", "long", "float", "double", "bytes", "string"}


def check_all() -> list[str]:
    """Each schema against every earlier one of its topic, read both ways; one line a problem."""
    problems = []
    for topic, versions in schemas.released().items():
        for i, newer in enumerate(versions):
            for older in versions[:i]:
                pair = f"{topic} {newer['version']} against {older['version']}"
                problems += [f"{pair}, new reads old: {p}" for p in unreadable(older, newer)]
                problems += [f"{pair}, old reads new: {p}" for p in unreadable(newer, older)]
    return problems


def unreadable(writer: Any, reader: Any, where: str = "") -> list[str]:
    """Why data of the writer's schema cannot be read with the reader's; empty when it can."""
    writer, reader = _unwrap(writer), _unwrap(reader)
    here = where or "record"
    if isinstance(writer, list):
        return [p for branch in writer for p in unreadable(branch, reader, where)]
    if isinstance(reader, list):
        tries = [unreadable(writer, branch, where) for branch in reader]
        return (
            [] if any(not t for t in tries) else [f"{here}: {_name(writer)} is none of {', '.join(map(_name, reader))}"]
        )
    kind, wanted = _kind(writer), _kind(reader)
    if kind in _PRIMITIVES and wanted in _PRIMITIVES:
        if wanted not in _PROMOTIONS.get(kind, {kind}):
            return [f"{here}: {kind} cannot be read as {wanted}"]
        if (
            isinstance(writer, dict)
            and isinstance(reader, dict)
            and writer.get("logicalType") != reader.get("logicalType")
        ):
            return [f"{here}: logical type {writer.get('logicalType')} cannot be read as {reader.get('logicalType')}"]
        return []
    if kind != wanted:
        return [f"{here}: {kind} cannot be read as {wanted}"]
    if kind == "array":
        return unreadable(writer["items"], reader["items"], f"{where}[]")
    if kind == "map":
        return unreadable(writer["values"], reader["values"], f"{where}{{}}")
    if writer.get("name") != reader.get("name") and reader.get("name") not in reader.get("aliases", []):
        return [f"{here}: {kind} {writer.get('name')} cannot be read as {reader.get('name')}"]
    if kind == "enum":
        missing = [s for s in writer["symbols"] if s not in reader["symbols"]]
        return [f"{here}: symbols {', '.join(missing)} are unknown"] if missing and "default" not in reader else []
    if kind == "fixed":
        return [] if writer["size"] == reader["size"] else [f"{here}: sizes differ"]
    written = {f["name"]: f for f in writer["fields"]}
    problems = []
    for field in reader["fields"]:
        name = f"{where}.{field['name']}" if where else field["name"]
        source = next((written[n] for n in (field["name"], *field.get("aliases", [])) if n in written), None)
        if source is not None:
            problems += unreadable(source["type"], field["type"], name)
        elif "default" not in field:
            problems.append(f"{name}: missing, and it has no default")
    return problems


def _unwrap(schema: Any) -> Any:
    return schema["type"] if isinstance(schema, dict) and isinstance(schema.get("type"), dict | list) else schema


def _kind(schema: Any) -> str:
    return str(schema["type"] if isinstance(schema, dict) else schema)


def _name(schema: Any) -> str:
    return str(schema.get("name", schema.get("type")) if isinstance(schema, dict) else schema)
