"""Rows from raw objects, on Arrow: decode Avro, project events to tables as declared, deduplicate by key."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.compute as pc

from simulator.errors import StorageError
from simulator.events import avro, schemas
from spark_jobs.raw import RawObject
from spark_jobs.rows import arrow_schema, column_type
from spark_jobs.tables import Column, Constant, Item, Path, Position, Source, Table, fed_by

RECORDS_AT_ONCE = 4_000
"""Records that are Python objects at a time: 40 parameters take 2 kB a record as objects, 0.4 kB in Arrow."""

_PRIORITY = ("__major", "__order")


class CorruptObject(StorageError):
    """A raw object that cannot be read: its rows are not taken, its reason goes to the ledger."""


def decode(content: bytes, topic: str) -> pa.Table:
    """A raw object's records, in the reader's schema (the newest minor version of its major).

    Args:
        content: an Avro container, of any released schema version of the topic.
        topic: its topic.

    Returns:
        Events, one column a field; timestamps as UTC microseconds.

    Raises:
        CorruptObject: it is no Avro container, is cut or damaged, or its schema is not compatible. Blocks before
            the damage are not used either: a damaged object is replaced whole, and `reconcile` then loads it.
    """
    reader_schema, event = reader_of(topic)
    try:
        written = avro.read_header(content).schema()
        # resolving costs fastavro a third of its speed
        resolved = None if _same(written, schemas.newest(topic)) else reader_schema
        batches = []
        records: list[Any] = []
        for record in avro.records(content, resolved):
            records.append(record)
            if len(records) == RECORDS_AT_ONCE:
                batches.append(_to_arrow(records, event))
                records = []
        if records:
            batches.append(_to_arrow(records, event))
    except MemoryError:
        raise
    except Exception as e:  # a damaged schema or record makes fastavro and Arrow raise nearly anything
        raise CorruptObject(_reason(e, topic)) from e
    return pa.Table.from_batches(batches, schema=pa.schema(list(event)))


def _reason(error: Exception, topic: str) -> str:
    """Why an object was not read, in one line."""
    if isinstance(error, avro.DamagedContainer):
        return str(error)
    name = type(error).__name__
    if name == "SchemaResolutionError":
        version = schemas.newest(topic)["version"]
        return f"the schema it was written with cannot be read as {topic.rsplit('_v', 1)[0]} {version}"
    told = " ".join(str(error).split())
    return f"the file is damaged: {told if isinstance(error, ValueError) else f'{name} {told}'}"[:300].strip()


@cache
def _reader_schema(topic: str, version: str) -> tuple[Any, pa.StructType]:
    schema = schemas.newest(topic)
    return fastavro.parse_schema(schema), arrow_type(schema)


def reader_of(topic: str) -> tuple[Any, pa.StructType]:
    """The reader's schema of a topic, parsed, and the Arrow type of its records.

    Raises:
        CorruptObject: this release does not know the topic.
    """
    if topic not in schemas.released():
        raise CorruptObject(f"no schema of topic {topic} (known: {', '.join(schemas.released())})")
    return _reader_schema(topic, schemas.newest(topic)["version"])


def arrow_type(avro: Any) -> pa.DataType:
    """The Arrow type of an Avro type; a union with null is nullable, as every Arrow type is."""
    if isinstance(avro, list):
        inner = [t for t in avro if t != "null"]
        if len(inner) != 1:
            raise ValueError(f"a union of {len(inner)} types has no column type")
        return arrow_type(inner[0])
    if isinstance(avro, str):
        return {
            "string": pa.string(),
            "boolean": pa.bool_(),
            "int": pa.int32(),
            "long": pa.int64(),
            "double": pa.float64(),
            "float": pa.float32(),
            "bytes": pa.binary(),
        }[avro]
    match avro["type"]:
        case "record":
            return pa.struct([pa.field(f["name"], arrow_type(f["type"])) for f in avro["fields"]])
        case "array":
            return pa.list_(arrow_type(avro["items"]))
        case "map":
            return pa.map_(pa.string(), arrow_type(avro["values"]))
        case "enum":
            return pa.string()
        case inner:
            return pa.timestamp("us", "UTC") if avro.get("logicalType") == "timestamp-micros" else arrow_type(inner)


def _to_arrow(records: list[Any], event: pa.StructType) -> pa.RecordBatch:
    array = pa.array(records, type=event)
    return pa.RecordBatch.from_arrays(array.flatten(), schema=pa.schema(list(event)))


def _same(written: Any, known: Any) -> bool:
    """Whether two schemas read alike; docs, defaults and our version mark do not matter."""
    return _bare(written) == _bare(known)


def _bare(avro: Any) -> Any:
    if isinstance(avro, dict):
        kept = {
            k: v
            for k, v in avro.items()
            if k in ("type", "name", "fields", "items", "values", "symbols", "logicalType")
        }
        if "name" in kept:
            kept["name"] = kept["name"].rsplit(".", 1)[-1]
        if kept.keys() == {"type"}:
            return _bare(kept["type"])
        return {k: _bare(v) for k, v in kept.items()}
    if isinstance(avro, list):
        return [_bare(a) for a in avro]
    return avro


@dataclass(frozen=True)
class Facts:
    """What the ledger says of a loaded object."""

    records: int
    first_event_at: Any  # datetime, UTC
    last_event_at: Any
    run_ids: list[str] | None  # sorted


def facts(events: pa.Table) -> Facts:
    """Number of records, the first and last `recorded_at`, and the runs that they are of."""
    span = pc.min_max(events["recorded_at"]).as_py()
    runs = pc.unique(events["run_id"]).to_pylist() if "run_id" in events.column_names else []
    return Facts(events.num_rows, span["min"], span["max"], sorted(runs) or None)


# --- events to rows ------------------------------------------------------------------------------------------------


def check_paths(table: Table, source: Source) -> None:
    """Holds a declaration against the reader's schema of its topic.

    Raises:
        KeyError: a path is none of the event's.
    """
    _, event = reader_of(source.topic)
    rows_of(table, source, pa.Table.from_batches([], schema=pa.schema(list(event))))


def rows_of(table: Table, source: Source, events: pa.Table) -> pa.Table:
    """A table's rows of some events, columns as declared.

    Raises:
        KeyError: a declared path is not in the events.
        CorruptObject: a required value is null.
    """
    events = events.combine_chunks()
    parents: pa.Array | None = None
    items: pa.Array | None = None
    positions: pa.Array | None = None
    if source.explode is not None:
        lists = _value(events, source.explode)
        parents = pc.list_parent_indices(lists)
        items = pc.list_flatten(lists)
        positions = _positions(lists)
    n_rows = events.num_rows if parents is None else len(parents)

    def column_of(column: Column) -> pa.Array:
        type_ = column_type(column.type)
        match table.expression(source, column):
            case Path(at):
                found = _value(events, at)
                return _cast(found if parents is None else found.take(parents), type_)
            case Item(at):
                if items is None:
                    raise KeyError(
                        f"table {table.name}: column {column.name} is of an element, {source.topic} is not exploded"
                    )
                return _cast(_field(items, at), type_)
            case Position():
                if positions is None:
                    raise KeyError(
                        f"table {table.name}: column {column.name} is a position, {source.topic} is not exploded"
                    )
                return _cast(positions, type_)
            case Constant(value):
                return pa.repeat(pa.scalar(value, type=type_), n_rows)

    columns = [column_of(c) for c in table.columns]
    for declared, array in zip(table.columns, columns, strict=True):
        if declared.required and array.null_count:
            raise CorruptObject(f"{array.null_count} records of {source.topic} have no {declared.name}")
    return pa.Table.from_arrays(columns, schema=arrow_schema(table))


def _value(events: pa.Table, at: str) -> pa.Array:
    """The array at a path of the events."""
    name, _, rest = at.partition(".")
    if name not in events.column_names:
        raise KeyError(f"events have no field {at}")
    column = events[name]
    array = (
        column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks) if column.num_chunks else None
    )
    if array is None:
        array = pa.array([], type=column.type)
    return _field(array, rest) if rest else array


def _field(array: pa.Array, at: str) -> pa.Array:
    """The field at a path of a struct array; null where a struct on the way is null."""
    for name in at.split("."):
        if array.type.get_field_index(name) < 0:
            raise KeyError(f"events have no field {at}")
        array = pc.struct_field(array, name)
    return array


def _positions(lists: pa.Array) -> pa.Array:
    """Position of each flattened element within its list."""
    parents = pc.list_parent_indices(lists)
    lengths = pc.fill_null(pc.list_value_length(lists), 0)
    starts = pc.subtract(pc.cumulative_sum(lengths), lengths)
    return pc.subtract(pa.array(range(len(parents)), pa.int64()), pc.cast(starts.take(parents), pa.int64()))


def _cast(array: pa.Array, type_: pa.DataType) -> pa.Array:
    return array if array.type == type_ else array.cast(type_)


# --- one row a key -------------------------------------------------------------------------------------------------


class Pending:
    """Rows of a table that a batch has read and not yet written, of several objects."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.parts: list[pa.Table] = []
        self.nbytes = 0

    def add(self, rows: pa.Table, source: Source, object_index: int) -> None:
        """Rows of one object; objects are numbered in the order in which they were listed."""
        if rows.num_rows == 0:
            return
        self.nbytes += rows.nbytes
        n = rows.num_rows
        rows = rows.append_column(_PRIORITY[0], pa.repeat(pa.scalar(source.major, pa.int32()), n))
        self.parts.append(rows.append_column(_PRIORITY[1], pa.repeat(pa.scalar(object_index, pa.int32()), n)))

    def take(self) -> pa.Table:
        """All rows by priority: highest major version, earliest recorded_at, first listed. None are left then."""
        rows = pa.concat_tables(self.parts)
        self.parts, self.nbytes = [], 0
        order = pc.sort_indices(
            rows.select([*_PRIORITY, "recorded_at"]),
            sort_keys=[("__major", "descending"), ("recorded_at", "ascending"), ("__order", "ascending")],
        )
        return rows.drop_columns(list(_PRIORITY)).take(order)


@dataclass(frozen=True)
class Deduplicated:
    """Rows to append, and rows whose key is there already beside the row that it has."""

    new: pa.Table
    again: pa.Table  # rows that are not taken
    first: pa.Table  # for each of them, the row that is kept


def first_of_each_key(rows: pa.Table, table: Table) -> Deduplicated:
    """The first row of each key; `again` are the others, each beside its first."""
    key = list(table.key)
    keys = rows.select(key).append_column("__row", pa.array(range(rows.num_rows), pa.int64()))
    firsts = keys.group_by(key, use_threads=False).aggregate([("__row", "min")])
    if firsts.num_rows == rows.num_rows:
        return Deduplicated(rows, rows.slice(0, 0), rows.slice(0, 0))
    kept = pc.sort_indices(firsts["__row_min"])
    new = rows.take(firsts["__row_min"].take(kept))
    beside = keys.join(firsts, keys=key, join_type="inner")
    beside = beside.filter(pc.not_equal(beside["__row"], beside["__row_min"])).sort_by("__row")
    return Deduplicated(new, rows.take(beside["__row"]), rows.take(beside["__row_min"]))


def project(raw: RawObject, events: pa.Table, tables: Sequence[Table]) -> Mapping[str, tuple[Source, pa.Table]]:
    """Rows of every table that an object's topic feeds.

    Raises:
        CorruptObject: no table has paths for this topic, or a required value is null.
    """
    fed = fed_by(raw.topic, tuple(tables))
    if not fed:
        stream = schemas.stream_of(raw.topic)
        known = sorted({s.topic for t in tables for s in t.sources if s.stream == stream})
        raise CorruptObject(f"no table reads topic {raw.topic} (read: {', '.join(known) or 'none'})")
    return {table.name: (source, rows_of(table, source, events)) for table, source in fed}


# --- verdicts, which Spark's batches ask for too -------------------------------------------------------------------


def object_problem(content: bytes, raw: RawObject, tables: Sequence[Table]) -> str | None:
    """Why a raw object cannot be loaded, in the words of the ledger; None where it can."""
    try:
        project(raw, decode(content, raw.topic), tables)
    except (CorruptObject, ValueError) as e:
        return str(e)
    return None


def topic_problem(topic: str, tables: Sequence[Table]) -> str | None:
    """Why no object of a topic can be loaded, in the words of the ledger; None where they can."""
    try:
        _, event = reader_of(topic)
        no_events = pa.Table.from_batches([], schema=pa.schema(list(event)))
        project(RawObject("", topic, "", 0), no_events, tables)
    except CorruptObject as e:
        return str(e)
    return None
