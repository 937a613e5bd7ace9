"""A table's data files as an Arrow dataset, for whoever reads only some columns and rows of it.

The files are those of a snapshot's manifests. What a manifest says of a file (the lowest and highest value of a column)
goes with it as its partition expression, so that a filter leaves out whole files before anything of them is read, their
footers included. Of the others a filter reads the row groups whose statistics can match, and of these the columns asked
for. The filter still holds each row, so bounds that are too wide cost time and no correctness.
"""

from collections.abc import Collection, Sequence
from functools import reduce
from operator import and_
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyarrow.fs import FileSystem
from pyiceberg.conversions import from_bytes
from pyiceberg.io.pyarrow import PyArrowFileIO, schema_to_pyarrow
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask
from pyiceberg.types import IntegerType, LongType, NestedField, PrimitiveType, StringType, TimestamptzType

_BOUNDED_TYPES = (IntegerType, LongType, StringType, TimestamptzType)
"""Types whose bounds are used. Not doubles: bounds leave NaN out, which SQL orders above all numbers."""


def table_dataset(
    io: PyArrowFileIO, schema: Schema, tasks: Sequence[FileScanTask], bounded: Collection[str]
) -> ds.FileSystemDataset:
    """A dataset of data files without deletes; a column that a file does not have yet is null in it.

    Args:
        io: the table's file access.
        schema: the snapshot's columns. Names tell columns apart.
        tasks: the planned files, at least one.
        bounded: columns whose bounds are worth telling, in lower case: those that a filter may name.
    """
    arrow_schema = schema_to_pyarrow(schema, include_field_ids=False)
    fields = [f for f in schema.fields if f.name.lower() in bounded and isinstance(f.field_type, _BOUNDED_TYPES)]
    format_ = ds.ParquetFileFormat()
    fragments = []
    file_system: FileSystem | None = None
    for task in tasks:
        file_system, path = file_system_of(io, task.file.file_path)
        known = [k for f in fields if (k := _known(f, task.file, arrow_schema.field(f.name).type)) is not None]
        facts = reduce(and_, known) if known else None
        fragments.append(format_.make_fragment(path, file_system, partition_expression=facts))
    return ds.FileSystemDataset(fragments, arrow_schema, format_, file_system)


def file_system_of(io: PyArrowFileIO, location: str) -> tuple[FileSystem, str]:
    """The file system of a data file, and the file's path in it."""
    scheme, netloc, path = PyArrowFileIO.parse_location(location, io.properties)
    return io.fs_by_scheme(scheme, netloc), path


def _known(field: NestedField, file: Any, type_: pa.DataType) -> pc.Expression | None:
    """What a manifest says of a column of a file; None where it says nothing of it.

    Each bound is told as "at least this, or null": in this form Arrow recognises it and knows that nulls may be there.
    """
    column = pc.field(field.name)
    lower, upper = (bounds or {} for bounds in (file.lower_bounds, file.upper_bounds))
    bounds = []
    if (at_least := lower.get(field.field_id)) is not None:
        bounds.append(column >= _scalar(field, at_least, type_))
    if (at_most := upper.get(field.field_id)) is not None:
        bounds.append(column <= _scalar(field, at_most, type_))
    without_nulls = (file.null_value_counts or {}).get(field.field_id) == 0
    told = [*bounds, column.is_valid()] if without_nulls else [bound | column.is_null() for bound in bounds]
    return reduce(and_, told) if told else None


def _scalar(field: NestedField, value: bytes, type_: pa.DataType) -> pa.Scalar:
    """A bound as the column's type; a timestamp's is in microseconds, as the column is."""
    assert isinstance(field.field_type, PrimitiveType)
    return pa.scalar(from_bytes(field.field_type, value), type=type_)
