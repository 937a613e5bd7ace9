"""A table's rows in memory, as Arrow: the form in which pyiceberg takes and gives them, whatever engine made them."""

import re
from collections.abc import Iterable, Sequence
from functools import cache

import pyarrow as pa
import pyarrow.compute as pc

from spark_jobs.tables import Table


@cache
def arrow_schema(table: Table) -> pa.Schema:
    """The table's columns as Arrow; required columns are not nullable, as pyiceberg wants them."""
    return pa.schema([pa.field(c.name, column_type(c.type), nullable=not c.required) for c in table.columns])


def column_type(name: str) -> pa.DataType:
    """The Arrow type of a declared type."""
    if inner := re.fullmatch(r"list<(.+)>", name):
        return pa.list_(column_type(inner[1]))
    if inner := re.fullmatch(r"map<string, *(.+)>", name):
        return pa.map_(pa.string(), column_type(inner[1]))
    return {
        "string": pa.string(),
        "boolean": pa.bool_(),
        "int": pa.int32(),
        "long": pa.int64(),
        "double": pa.float64(),
        "timestamptz": pa.timestamp("us", "UTC"),
    }[name]


def with_declared_types(rows: pa.Table, table: Table, columns: Sequence[str]) -> pa.Table:
    """Some columns of scanned rows with the types that the table declares: a scan gives large strings and lists."""
    wanted = arrow_schema(table)
    arrays = [rows[name].cast(wanted.field(name).type) for name in columns]
    return pa.Table.from_arrays(arrays, schema=pa.schema([wanted.field(name) for name in columns]))


def without_known(rows: pa.Table, known: pa.Table, key: Sequence[str]) -> tuple[pa.Table, pa.Table]:
    """Rows whose key is not among the known ones, and the others."""
    if known.num_rows == 0 or rows.num_rows == 0:
        return rows, rows.slice(0, 0)
    key = list(key)
    keys = rows.select(key).append_column("__row", pa.array(range(rows.num_rows), pa.int64()))
    known = _typed(known.select(key), keys.schema)
    fresh = keys.join(known, keys=key, join_type="left anti")["__row"].combine_chunks()
    if len(fresh) == rows.num_rows:
        return rows, rows.slice(0, 0)
    fresh = fresh.take(pc.sort_indices(fresh))
    is_fresh = pc.is_in(keys["__row"], value_set=fresh)
    return rows.take(fresh), rows.filter(pc.invert(is_fresh))


def _typed(known: pa.Table, schema: pa.Schema) -> pa.Table:
    """Key columns as `schema` has them: a scan gives large or dictionary strings, which do not join."""
    columns = [_plain(known[name]).cast(schema.field(name).type) for name in known.column_names]
    return pa.Table.from_arrays(columns, schema=pa.schema([schema.field(n) for n in known.column_names]))


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def differing(again: pa.Table, first: pa.Table, columns: Iterable[str]) -> list[tuple[int, list[str]]]:
    """Rows of `again` that differ from those of `first`, pairwise, with the columns that differ.

    Numbers may differ by 1e-9: what shares a key made of rounded numbers may differ in its last bits.
    """
    found: dict[int, list[str]] = {}
    for name in columns:
        a, b = again[name].combine_chunks(), first[name].combine_chunks()
        b = b if a.type == b.type else b.cast(a.type)
        if a.equals(b):
            continue
        if pa.types.is_floating(a.type):
            apart = pc.greater(pc.abs(pc.subtract(a, b)), 1e-9)
            rows = pc.or_(pc.fill_null(apart, False), pc.xor(pc.is_null(a), pc.is_null(b))).to_pylist()
        else:
            rows = [x != y for x, y in zip(a.to_pylist(), b.to_pylist(), strict=True)]
        for i, differs in enumerate(rows):
            if differs:
                found.setdefault(i, []).append(name)
    return sorted(found.items())


def sorted_rows(rows: pa.Table, table: Table) -> pa.Table:
    """Rows in the table's sort order, in one chunk a column."""
    order = pc.sort_indices(rows.select(list(table.sort)), sort_keys=[(name, "ascending") for name in table.sort])
    return rows.take(order).combine_chunks()
