"""A batch's objects read, deduplicated and written by Spark.

Write, audit, publish. Spark writes a table's new rows as a staged snapshot (`spark.wap.id`), which is nobody's current
one; the audits read what was written; then each table's main branch is moved to its staged snapshot. Only then come the
issues, the ledger and the tags. Where an audit fails, no table, ledger or tag has changed. A driver that dies leaves
staged snapshots, which the next batch's tags expire with their files, or some tables with rows, whose keys the next
batch finds and does not add again.

Rows are appended after an anti-join with the keys that the table has, not merged: the join reads the keys of the batch's
range of run ids and no more, and an append never rewrites a file.

Metadata (ledger, moves of main, tags) is pyiceberg's, from this process; rows are Spark's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any, NoReturn
from urllib.parse import unquote

import pyarrow as pa
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.storagelevel import StorageLevel

from simulator.errors import StorageError
from spark_jobs import filters, quality
from spark_jobs import warehouse as commits
from spark_jobs.arrow.builder import topic_problem
from spark_jobs.batch import ReadObject, Staged
from spark_jobs.quality import Issue
from spark_jobs.raw import LocalStore, RawObject, RawStore, S3Store, StoredWithin
from spark_jobs.rows import arrow_schema, with_declared_types
from spark_jobs.spark import builder
from spark_jobs.spark.session import fit_partitions
from spark_jobs.tables import Table
from spark_jobs.warehouse import CATALOG_NAME, Warehouse, summary_of

FILE_BYTES = 64 << 20
"""Avro bytes that go to one data file of a batch: 128 MB of Parquet at most, as parameters hardly compress."""

READ_HERE_BYTES = 16 << 20
"""Objects of a batch that are this small together are examined by the driver: workers take seconds to start."""

_MAX_IDS = 1_000


class SparkStager:
    """Stages rows in snapshots that are nobody's current ones, and appends by moving main to them."""

    def __init__(self, spark: SparkSession, warehouse: Warehouse, store: RawStore, batch_id: str) -> None:
        self.spark = spark
        self.warehouse = warehouse
        self.store = store
        self.batch_id = batch_id
        self.attempt = 0
        self.staged: dict[str, int] = {}  # table -> snapshot
        self.cached: list[DataFrame] = []
        self.run_ids: list[tuple[str, str]] = []  # ranges that hold those of the batch
        self.ids: dict[str, list[str]] = {}
        """By the first column of the key of tables that are not by run, the ids of the batch's rows; a column that is
        missing here can have any."""
        self.rows: dict[str, int] = {}
        self.duplicates = 0
        self.issues: list[Issue] = []

    def stage(self, objects: Sequence[RawObject]) -> Staged:
        """Writes the new rows of all objects to staged snapshots.

        Spark does not tell which object it failed on. So after a failure the objects are judged one by one as the
        embedded build does it, and those that can be loaded are staged again.
        """
        fit_partitions(self.spark, sum(raw.size for raw in objects))
        read = self._examine({self._uri(raw): raw for raw in objects})
        try:
            while True:
                loadable = {uri: found for uri, found in read.items() if found.problem is None}
                try:
                    read |= self._stage(loadable)
                    break
                except (PySparkException, Py4JJavaError) as e:
                    read |= self._rejected(loadable, e)
        finally:
            for frame in self.cached:
                frame.unpersist()
            self.cached.clear()
        return Staged(list(read.values()), self.rows, self.duplicates, self.issues)

    def append(self, table: Table) -> None:
        """Moves a table's main branch to its staged snapshot."""
        if table.name not in self.staged:
            return
        found = self.warehouse.load(table)
        self.warehouse.check_lock()
        snapshot = self.staged.pop(table.name)
        found.manage_snapshots().set_current_snapshot(snapshot_id=snapshot).commit()
        commits.on_commit(f"append {table.name}")

    def discard(self) -> None:
        """Leaves staged snapshots to the tags of the next batch, which expire them with their files."""

    # --- reading ---

    def _uri(self, raw: RawObject) -> str:
        store = self.store
        while isinstance(store, StoredWithin):
            store = store.store
        if isinstance(store, S3Store):
            return f"s3a://{store.bucket}/{raw.path}"
        assert isinstance(store, LocalStore)
        return f"file:{store.root.resolve() / raw.path}"

    def _examine(self, by_uri: Mapping[str, RawObject]) -> dict[str, ReadObject]:
        """What each object's bytes tell, with a problem where it cannot be loaded."""
        if sum(raw.size for raw in by_uri.values()) <= READ_HERE_BYTES:
            examined = {uri: self._examine_here(uri, raw) for uri, raw in by_uri.items()}
        else:
            examined = {_plain_uri(e.uri): e for e in builder.examine_objects(self.spark, list(by_uri))}
        if missing := by_uri.keys() - examined.keys():
            raise StorageError(f"cannot read {sorted(missing)[0]}: it was listed and is not there")
        tables = self.warehouse.data_tables
        of_topic = {topic: topic_problem(topic, tables) for topic in {raw.topic for raw in by_uri.values()}}
        return {
            uri: ReadObject(
                raw,
                examined[uri].etag,
                examined[uri].size_bytes,
                problem=of_topic[raw.topic] or examined[uri].problem,
                records=examined[uri].records,
            )
            for uri, raw in by_uri.items()
        }

    def _examine_here(self, uri: str, raw: RawObject) -> builder.Examined:
        try:
            content = self.store.read(raw.path)
        except Exception as e:
            raise StorageError(f"cannot read {raw.path}: {_first_line(e)}") from e
        return builder.examine_object(content, uri)

    def _rejected(self, loadable: Mapping[str, ReadObject], error: Exception) -> dict[str, ReadObject]:
        """After Spark failed: the objects among these that the embedded build rejects, with its reasons.

        Raises:
            StorageError: there is none, so that Spark failed for another reason.
        """
        self.staged.clear()
        try:
            judged = builder.judge_objects(self.spark, list(loadable), self.warehouse.data_tables)
        except (PySparkException, Py4JJavaError) as e:
            raise StorageError(f"Spark cannot build the batch: {_first_line(error)}") from e
        found = {_plain_uri(j.uri): j.problem for j in judged if j.problem is not None}
        if not found:
            raise StorageError(f"Spark cannot build the batch: {_first_line(error)}") from error
        return {uri: replace(loadable[uri], problem=problem) for uri, problem in found.items()}

    # --- staging ---

    def _stage(self, loadable: Mapping[str, ReadObject]) -> dict[str, ReadObject]:
        """Writes every table's new rows to a staged snapshot and audits them there. Returns the objects with what Spark
        read of their events."""
        self.attempt += 1
        self.duplicates, self.issues = 0, []
        self.rows = {t.name: 0 for t in self.warehouse.data_tables}
        events: dict[str, DataFrame] = {}
        sizes: dict[str, int] = {}
        for topic in sorted({found.raw.topic for found in loadable.values()}):
            uris = [uri for uri, found in loadable.items() if found.raw.topic == topic]
            events[topic] = builder.read_events(self.spark, topic, uris)
            sizes[topic] = sum(loadable[uri].raw.size for uri in uris)
        read = self._read_facts(loadable, events)
        for table in self.warehouse.data_tables:
            sources = [s for s in table.sources if s.topic in events]
            if sources:
                rows = [builder.rows_of(table, s, events[s.topic]) for s in sources]
                self._stage_table(table, builder.ranked(rows, table), sum(sizes[s.topic] for s in sources))
        return read

    def _read_facts(self, loadable: Mapping[str, ReadObject], events: Mapping[str, DataFrame]) -> dict[str, ReadObject]:
        """The objects with their first and last event and their runs; notes the ids that the batch's rows can have.

        Raises:
            StorageError: Spark read another number of records than an object's blocks promise.
        """
        if not events:
            return {}
        paths = builder.id_paths(self.warehouse.data_tables, events)
        self.ids = {name: [] for name in paths}
        frames = [
            builder.facts_of(e, {name: of_topic.get(topic) for name, of_topic in paths.items()})
            for topic, e in events.items()
        ]
        facts = reduce(lambda a, b: a.unionByName(b), frames).toArrow().to_pylist()
        if run_ids := [id_ for row in facts for id_ in row["run_ids"]]:
            self.run_ids = filters.id_ranges(run_ids)
        for name in self.ids:
            self.ids[name] = sorted({id_ for row in facts for id_ in row[name]})
        by_uri = {_plain_uri(row[builder.PATH]): row for row in facts}
        read = {}
        for uri, found in loadable.items():
            row = by_uri.get(uri, {"records": 0, "first": None, "last": None, "run_ids": []})
            if row["records"] != found.records:
                raise StorageError(f"{uri}: Spark read {row['records']} records, its blocks promise {found.records}")
            read[uri] = replace(
                found, first_event_at=row["first"], last_event_at=row["last"], run_ids=sorted(row["run_ids"]) or None
            )
        return read

    def _stage_table(self, table: Table, ranked: DataFrame, size: int) -> None:
        rank, known = F.col(builder.RANK), F.col(builder.KNOWN)
        stored = self._rows_with_possible_keys(table)
        if stored is None:
            flagged = ranked.withColumn(builder.KNOWN, F.lit(False))
        else:
            flagged = builder.with_known(ranked, stored, table)
        flagged = flagged.persist(StorageLevel.MEMORY_AND_DISK)
        self.cached.append(flagged)
        infinite = builder.not_finite(table)
        bad = F.lit(0) if infinite is None else F.count_if(infinite)
        first_rank = rank == 1
        counts = (F.count_if(rank > 1), F.count_if(first_rank & known), F.count_if(first_rank & ~known), bad)
        n_again, n_known, n_new, n_bad = flagged.agg(*counts).collect()[0]
        if n_bad:  # in a row that is not taken, too: its object is wrong
            assert infinite is not None
            self._fail_not_finite(table, flagged.where(infinite))
        self.duplicates += n_again + n_known
        firsts = flagged.where(rank == 1)
        if n_again:
            self._compare(table, flagged.where(rank > 1), firsts, builder.priority())
        if n_known:
            assert stored is not None
            self._compare(table, firsts.where(known), stored, [F.asc(k) for k in table.key])
        if n_new:
            self._write(table, firsts.where(~known).select(*(c.name for c in table.columns)), size)
            self._audit(table, n_new)
            self.rows[table.name] = n_new

    def _rows_with_possible_keys(self, table: Table) -> DataFrame | None:
        """The table's rows that can share a key with the batch's; None where it is empty."""
        snapshot = self.warehouse.load(table).current_snapshot()
        if snapshot is None or summary_of(snapshot).get("total-records", "0") == "0":
            return None
        stored = self.spark.table(f"{CATALOG_NAME}.{table.identifier}")
        first = F.col(table.key[0])
        if table.by_run:
            ranges = [first.between(lowest, highest) for lowest, highest in self.run_ids]
            return stored.where(reduce(lambda a, b: a | b, ranges, F.lit(False)))
        ids = self.ids.get(table.key[0])
        return stored if ids is None or len(ids) > _MAX_IDS else stored.where(first.isin(ids))

    def _write(self, table: Table, new: DataFrame, size: int) -> None:
        """Appends rows to a staged snapshot, in files that are narrow in the sort order."""
        found = self.warehouse.load(table)
        if found.properties.get("write.wap.enabled") != "true":  # a table of an earlier release
            self.warehouse.check_lock()
            with found.transaction() as transaction:
                transaction.set_properties({"write.wap.enabled": "true"})
        wap_id = f"{self.batch_id}.{self.attempt}"
        self.spark.conf.set("spark.wap.id", wap_id)
        n_files = -(-size // FILE_BYTES)
        sort = [F.col(name) for name in table.sort]
        new = new.coalesce(1) if n_files == 1 else new.repartitionByRange(n_files, *sort)
        month = [] if table.partition is None else [F.trunc(table.partition, "month")]
        self.warehouse.check_lock()
        (
            new.sortWithinPartitions(*month, *sort)
            .writeTo(f"{CATALOG_NAME}.{table.identifier}")
            .option("use-table-distribution-and-ordering", "false")
            .option("check-nullability", "false")
            .option("snapshot-property.vqe.batch-id", self.batch_id)
            .append()
        )
        commits.on_commit(f"stage {table.name}")
        found.refresh()
        staged = [s for s in found.metadata.snapshots if summary_of(s).get("wap.id") == wap_id]
        self.staged[table.name] = staged[-1].snapshot_id

    def _audit(self, table: Table, n_rows: int) -> None:
        """Holds what was written against the facts of the batch.

        Raises:
            AuditFailed: a number is not finite, a key stands twice, or rows are missing.
        """
        main = self.warehouse.load(table).metadata.current_snapshot_id
        written = (
            self.spark.read.format("iceberg")
            .option("start-snapshot-id", main)
            .option("end-snapshot-id", self.staged[table.name])
            .load(f"{CATALOG_NAME}.{table.identifier}")
        )
        infinite = builder.not_finite(table)
        bad = F.lit(0) if infinite is None else F.count_if(infinite)
        keys = F.struct(*table.key)
        rows, distinct, not_finite = written.agg(F.count("*"), F.count_distinct(keys), bad).collect()[0]
        if not_finite:
            raise quality.AuditFailed(f"batch not published: {not_finite} rows of {table.name} hold NaN or infinity")
        if distinct != rows:
            raise quality.AuditFailed(f"batch not published: {rows - distinct} keys of {table.name} stand twice in it")
        if rows != n_rows:
            raise quality.AuditFailed(f"batch not published: {table.name} was to get {n_rows} rows and got {rows}")

    def _fail_not_finite(self, table: Table, rows: DataFrame) -> NoReturn:
        """Raises what the embedded build raises for the first of these rows, which hold NaN or infinity."""
        row = rows.orderBy(*builder.priority()).first()
        assert row is not None
        path = _plain_uri(row[builder.PATH])
        path = path[path.index("raw/") :]
        one = pa.Table.from_pylist([{c.name: row[c.name] for c in table.columns}], schema=arrow_schema(table))
        quality.audit_finite(table, one, path)
        raise quality.AuditFailed(f"batch not published: {path}: a number of {table.name} is not finite")

    # --- keys that came again ---

    def _compare(self, table: Table, again: DataFrame, first: DataFrame, order: list[Any]) -> None:
        """Rows that came again with other values: told by the same words as the embedded build."""
        key = list(table.key)
        columns = [*key, *table.comparable()]
        beside = first.select(F.struct(*columns).alias("__first"))
        same_key = reduce(lambda p, q: p & q, [F.col(k) == F.col(f"__first.{k}") for k in key])
        pairs = again.join(beside, same_key).where(builder.differs(table, "__first"))
        came = [builder.comparable(table, c, F.col(c)).alias(f"came__{c}") for c in columns]
        kept = [builder.comparable(table, c, F.col(f"__first.{c}")).alias(f"kept__{c}") for c in columns]
        found = pairs.orderBy(*order).limit(1000).select(*came, *kept).toArrow()
        if found.num_rows == 0:
            return
        came_rows, kept_rows = (
            with_declared_types(found.select([f"{side}__{c}" for c in columns]).rename_columns(columns), table, columns)
            for side in ("came", "kept")
        )
        self.issues += quality.other_values(table, came_rows, kept_rows)


def _plain_uri(uri: str) -> str:
    """A file's URI as it was asked for: Spark gives some quoted, and local ones with more slashes."""
    uri = unquote(uri)
    return "file:/" + uri.removeprefix("file:").lstrip("/") if uri.startswith("file:") else uri


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:500] if text else type(error).__name__
