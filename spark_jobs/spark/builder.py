"""Rows from raw objects, on Spark: the twin of `arrow/builder.py`, from the same declarations."""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import reduce

import pyarrow as pa
from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql import types as T

from simulator.events import avro, schemas
from spark_jobs.arrow.builder import object_problem
from spark_jobs.raw import content_etag, parse
from spark_jobs.tables import Constant, Item, Path, Position, Source, Table, streams_of

PATH, BLOCK, ROW, MAJOR, RANK, KNOWN = "__path", "__block", "__row", "__major", "__rank", "__known"


def id_paths(tables: Iterable[Table], topics: Collection[str]) -> dict[str, dict[str, str]]:
    """Where events hold the ids by which the rows of tables that are not by run are found.

    Returns:
        By the first column of such a table's key, its path in the events of each of these topics that feeds the table. A
        column that is not the same value of a whole event wherever it is fed is left out.
    """
    found: dict[str, dict[str, str]] = {}
    unbounded = set()
    for table in tables:
        name = table.key[0]
        for source in table.sources:
            if table.by_run or source.topic not in topics:
                continue
            expression = table.expression(source, table.column(name))
            at = expression.at if isinstance(expression, Path) else None
            if at is None or found.setdefault(name, {}).setdefault(source.topic, at) != at:
                unbounded.add(name)
    return {name: paths for name, paths in found.items() if name not in unbounded}


def spark_type(name: str) -> T.DataType:
    """The Spark type of a declared one."""
    if name.startswith("list<"):
        return T.ArrayType(spark_type(name[5:-1]))
    if name.startswith("map<string,"):
        return T.MapType(T.StringType(), spark_type(name[11:-1].strip()))
    return {
        "string": T.StringType(),
        "boolean": T.BooleanType(),
        "int": T.IntegerType(),
        "long": T.LongType(),
        "double": T.DoubleType(),
        "timestamptz": T.TimestampType(),
    }[name]


def read_events(spark: SparkSession, topic: str, uris: Sequence[str]) -> DataFrame:
    """A topic's records in the reader's schema, each with its object and where it stands in it."""
    # without the reader's schema, Spark takes one file's and drops the fields that newer files have
    events = spark.read.format("avro").option("avroSchema", json.dumps(schemas.newest(topic))).load(list(uris))
    return events.select(
        "*",
        F.col("_metadata.file_path").alias(PATH),
        F.col("_metadata.file_block_start").alias(BLOCK),
        F.monotonically_increasing_id().alias(ROW),
    )


def rows_of(table: Table, source: Source, events: DataFrame) -> DataFrame:
    """A table's rows of some events: the declared columns, and those that tell rows of one key apart."""
    if source.explode is not None:
        events = events.select("*", F.posexplode(source.explode).alias("__position", "__item"))

    def value(name: str) -> SparkColumn:
        column = table.column(name)
        type_ = spark_type(column.type)
        match table.expression(source, column):
            case Path(at):
                found = F.col(at)
            case Item(at):
                found = F.col(f"__item.{at}")
            case Position():
                found = F.col("__position")
            case Constant(constant):
                found = F.lit(constant)
        return found.cast(type_).alias(name)

    declared = [value(c.name) for c in table.columns]
    return events.select(*declared, PATH, BLOCK, ROW, F.lit(source.major).alias(MAJOR))


def ranked(rows: Sequence[DataFrame], table: Table) -> DataFrame:
    """Rows of all sources with their rank within their key: the highest major version, then the earliest recorded_at,
    then the first listed is 1."""
    together = reduce(lambda a, b: a.unionByName(b), rows)
    return together.withColumn(RANK, F.row_number().over(Window.partitionBy(*table.key).orderBy(*priority())))


def with_known(rows: DataFrame, stored: DataFrame, table: Table) -> DataFrame:
    """The rows with the column KNOWN: whether the table has their key already."""
    key = list(table.key)
    return rows.join(stored.select(*key, F.lit(True).alias(KNOWN)), key, "left").withColumn(
        KNOWN, F.coalesce(KNOWN, F.lit(False))
    )


def facts_of(events: DataFrame, ids: Mapping[str, str | None]) -> DataFrame:
    """By object: its records, first and last event, runs, and other ids.

    Args:
        events: as `read_events` gives them.
        ids: further columns with the sets of ids of an object, each by its path in the events; None: they have none.
    """
    no_text = F.lit(None).cast("string")
    run_id = F.col("run_id") if "run_id" in events.columns else no_text
    return events.groupBy(PATH).agg(
        F.count("*").alias("records"),
        F.min("recorded_at").alias("first"),
        F.max("recorded_at").alias("last"),
        F.collect_set(run_id).alias("run_ids"),
        *(F.collect_set(no_text if at is None else F.col(at)).alias(name) for name, at in ids.items()),
    )


def priority() -> list[SparkColumn]:
    """The order among rows of one key."""
    return [F.desc(MAJOR), F.asc("recorded_at"), F.asc(PATH), F.asc(BLOCK), F.asc(ROW)]


def not_finite(table: Table) -> SparkColumn | None:
    """How many of a row's numbers are NaN or infinite."""
    found = []
    for column in table.columns:
        if "double" in column.type:
            found.append(_infinite(F.col(column.name), column.type))
    return reduce(lambda a, b: a | b, found) if found else None


def _infinite(value: SparkColumn, type_: str) -> SparkColumn:
    if type_.startswith("list<"):
        return F.coalesce(F.exists(value, lambda v: _infinite(v, type_[5:-1])), F.lit(False))
    return F.coalesce(F.isnan(value) | (F.abs(value) == float("inf")), F.lit(False))


def differs(table: Table, other: str) -> SparkColumn:
    """Whether a row differs from that in the struct `other` in what is compared, as `rows.differing` does it."""
    found = []
    for name in table.comparable():
        type_ = table.column(name).type
        x, y = F.col(name), F.col(f"{other}.{name}")
        if type_ == "double":
            apart = F.coalesce(F.abs(x - y) > 1e-9, F.lit(False))
            found.append(apart | (x.isNull() != y.isNull()))
        elif type_.startswith("map"):
            found.append(~_entries(x).eqNullSafe(_entries(y)))
        else:
            found.append(~x.eqNullSafe(y))
    return reduce(lambda p, q: p | q, found)


def comparable(table: Table, name: str, value: SparkColumn) -> SparkColumn:
    """A value as it is compared: a map has no order, but Spark and Arrow each keep one."""
    return F.map_from_entries(_entries(value)) if table.column(name).type.startswith("map") else value


def _entries(value: SparkColumn) -> SparkColumn:
    return F.array_sort(F.map_entries(value))


# --- judging objects -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Examined:
    """What an object's bytes tell without decoding its records."""

    uri: str
    size_bytes: int
    etag: str
    records: int | None  # None: the container is damaged
    problem: str | None  # why it cannot be loaded; None: its container is whole


def examine_object(content: bytes, uri: str) -> Examined:
    """An object's size, MD5 and records by its bytes, and what is wrong with its container."""
    try:
        found = avro.examine(content)
    except ValueError as e:
        return Examined(uri, len(content), content_etag(content), None, str(e))
    return Examined(uri, len(content), found.etag, found.records, None)


def examine_objects(spark: SparkSession, uris: Sequence[str]) -> list[Examined]:
    """As `examine_object`, read by the workers."""
    return _over_bytes(spark, uris, examine_object)


def judge_objects(spark: SparkSession, uris: Sequence[str], tables: Sequence[Table]) -> list[Examined]:
    """Each object decoded by the workers as the embedded build does it: what it rejects is rejected here, with the same
    reason."""
    declared, streams = tuple(tables), streams_of(tables)

    def judge(content: bytes, uri: str) -> Examined:
        raw = parse(uri[uri.index("raw/") :], len(content), streams=streams)
        assert raw is not None
        examined = examine_object(content, uri)
        return replace(examined, problem=object_problem(content, raw, declared) or examined.problem)

    return _over_bytes(spark, uris, judge)


def _over_bytes(spark: SparkSession, uris: Sequence[str], examine: Callable[[bytes, str], Examined]) -> list[Examined]:
    def of_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            found = [
                asdict(examine(content, uri))
                for uri, content in zip(batch["path"].to_pylist(), batch["content"].to_pylist(), strict=True)
            ]
            yield pa.RecordBatch.from_pylist(found, schema=schema)

    schema = pa.schema(
        [("uri", pa.string()), ("size_bytes", pa.int64()), ("etag", pa.string()), ("records", pa.int64()),
         ("problem", pa.string())]
    )  # fmt: skip
    files = spark.read.format("binaryFile").load(list(uris)).select("path", "content")
    answered = files.mapInArrow(of_batches, "uri string, size_bytes long, etag string, records long, problem string")
    return [Examined(**row.asDict()) for row in answered.collect()]
