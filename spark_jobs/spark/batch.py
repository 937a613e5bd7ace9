"""A batch on Spark: the protocol of `batch`, its objects read, deduplicated and written by Spark.

Write, audit, publish. Spark writes a table's new rows as a staged snapshot (`spark.wap.id`), which is nobody's current
one; the audits read what was written; then each table's main is moved to its staged snapshot. Only then come the issues,
the ledger and the tags. Where an audit fails, no table, ledger or tag has changed. A driver that dies leaves staged
snapshots, which the next batch's tags expire with their files, or some tables with rows, whose keys the next batch
finds and does not add again.

Rows are appended after an anti-join with the keys that the table has, not merged: the join reads the keys of the batch's
range of run ids and no more, and an append never rewrites a file.

Metadata (ledger, moves of main, tags) is pyiceberg's, from this process; rows are Spark's.
"""

from collections.abc import Sequence
from datetime import datetime
from functools import partial, reduce
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.storagelevel import StorageLevel

import simulator
from simulator.errors import StorageError
from spark_jobs import batch, filters, quality
from spark_jobs import warehouse as commits
from spark_jobs.arrow import builder as arrow_builder
from spark_jobs.batch import BatchReport
from spark_jobs.ledger import Ledger
from spark_jobs.lock import WAIT_SECONDS
from spark_jobs.raw import LocalStore, RawObject, RawStore, S3Store, StoredWithin
from spark_jobs.spark import builder as spark_builder
from spark_jobs.spark.session import fit_partitions
from spark_jobs.tables import TABLES, Table
from spark_jobs.warehouse import CATALOG_NAME, Warehouse

FILE_BYTES = 64 << 20
"""Avro bytes that go to one data file of a batch: 128 MB of Parquet at most, as parameters hardly compress."""

READ_HERE_BYTES = 16 << 20
"""Objects of a batch that are this small together are examined by the driver: workers take seconds to start."""

_MAX_IDS = 1_000


def build(
    spark: SparkSession,
    data_dir: str | Path,
    *,
    store: RawStore,
    tables: Sequence[Table] = TABLES,
    now: datetime | None = None,
    wait_seconds: float = WAIT_SECONDS,
    whole: bool = False,
) -> BatchReport:
    """Brings the tables up to date with the raw objects: `batch.build`, and `batch.reconcile` with `whole`."""
    return batch._run(data_dir, store, tables, now, wait_seconds, whole, make=partial(SparkBatch, spark))


class SparkBatch(batch._Batch):
    """Reads objects with Spark, stages rows in snapshots, and publishes them by moving main."""

    def __init__(
        self, spark: SparkSession, warehouse: Warehouse, store: RawStore, ledger: Ledger, now: datetime
    ) -> None:
        super().__init__(warehouse, store, ledger, now)
        self.spark = spark
        self.attempt = 0
        self.staged: dict[str, int] = {}  # table -> snapshot
        self.cached: list[DataFrame] = []
        self.run_ids: list[tuple[str, str]] = []  # ranges that hold those of the batch
        self.ids: dict[str, list[str]] = {name: [] for name in spark_builder.IDS}

    # --- reading and staging ---

    def read(self, objects: Sequence[RawObject]) -> None:
        fit_partitions(self.spark, sum(raw.size for raw in objects))
        by_uri = {self._uri(raw): raw for raw in objects}
        facts = self._examine(by_uri)
        try:
            while True:
                good = {uri: raw for uri, raw in by_uri.items() if facts[uri]["problem"] is None}
                try:
                    self._stage(good, facts)
                    break
                except (PySparkException, Py4JJavaError) as e:
                    self._judge(good, facts, e)
        finally:
            for frame in self.cached:
                frame.unpersist()
            self.cached.clear()
        for uri, raw in by_uri.items():
            self._enter(raw, facts[uri])
        loaded = sum(e["status"] == "loaded" for e in self.entries)
        quality.audit_objects(len(objects), loaded, len(self.entries) - loaded)

    def _uri(self, raw: RawObject) -> str:
        store = self.store
        while isinstance(store, StoredWithin):
            store = store.store
        if isinstance(store, S3Store):
            return f"s3a://{store.bucket}/{raw.path}"
        assert isinstance(store, LocalStore)
        return f"file:{store.root.resolve() / raw.path}"

    def _examine(self, by_uri: dict[str, RawObject]) -> dict[str, dict[str, Any]]:
        """What each object's bytes say, with a problem where it cannot be loaded."""
        if sum(raw.size for raw in by_uri.values()) <= READ_HERE_BYTES:
            facts = {uri: self._examine_here(uri, raw) for uri, raw in by_uri.items()}
        else:
            facts = {_plain(f["uri"]): f for f in spark_builder.examine_objects(self.spark, list(by_uri))}
        if missing := by_uri.keys() - facts.keys():
            raise StorageError(f"cannot read {sorted(missing)[0]}: it was listed and is not there")
        for topic in sorted({raw.topic for raw in by_uri.values()}):
            if (problem := spark_builder.topic_problem(topic, self.data_tables)) is not None:
                for uri, raw in by_uri.items():
                    if raw.topic == topic:
                        facts[uri]["problem"] = problem
        return facts

    def _examine_here(self, uri: str, raw: RawObject) -> dict[str, Any]:
        try:
            content = self.store.read(raw.path)
        except Exception as e:
            raise StorageError(f"cannot read {raw.path}: {_first_line(e)}") from e
        return {"uri": uri, "size": len(content), **spark_builder._examine(content, uri)}

    def _judge(self, good: dict[str, RawObject], facts: dict[str, dict[str, Any]], error: Exception) -> None:
        """After Spark failed: finds the objects that the embedded build rejects. Raises where there is none."""
        self.staged.clear()
        try:
            judged = spark_builder.judge_objects(self.spark, list(good), self.data_tables)
        except (PySparkException, Py4JJavaError) as e:
            raise StorageError(f"Spark cannot build the batch: {_first_line(error)}") from e
        found = {_plain(j["uri"]): j["problem"] for j in judged if j["problem"] is not None}
        if not found:
            raise StorageError(f"Spark cannot build the batch: {_first_line(error)}") from error
        for uri, problem in found.items():
            facts[uri]["problem"] = problem

    def _stage(self, good: dict[str, RawObject], facts: dict[str, dict[str, Any]]) -> None:
        """Writes every table's new rows to a staged snapshot, and audits them there."""
        self.attempt += 1
        self.duplicates, self.issues = 0, []
        self.rows = {t.name: 0 for t in self.warehouse.tables}
        events: dict[str, DataFrame] = {}
        sizes: dict[str, int] = {}
        for topic in sorted({raw.topic for raw in good.values()}):
            uris = [uri for uri, raw in good.items() if raw.topic == topic]
            events[topic] = spark_builder.read_events(self.spark, topic, uris)
            sizes[topic] = sum(good[uri].size for uri in uris)
        self._date(events, facts)
        for table in self.data_tables:
            sources = [s for s in table.sources if s.topic in events]
            if sources:
                rows = [spark_builder.rows_of(table, s, events[s.topic]) for s in sources]
                self._stage_table(table, spark_builder.ranked(rows, table), sum(sizes[s.topic] for s in sources))

    def _date(self, events: dict[str, DataFrame], facts: dict[str, dict[str, Any]]) -> None:
        """Each object's records, first and last event and ids; what Spark read must be what its blocks promise."""
        if not events:
            return
        frames = [spark_builder.facts_of(e) for e in events.values()]
        rows = reduce(lambda a, b: a.unionByName(b), frames).toArrow().to_pylist()
        if run_ids := [id_ for row in rows for id_ in row["run_ids"]]:
            self.run_ids = filters.id_ranges(run_ids)
        for name in self.ids:
            self.ids[name] = sorted({id_ for row in rows for id_ in row[name]})
        for row in rows:
            of_object = facts[_plain(row[spark_builder.PATH])]
            of_object |= {"read": row["records"], "first": row["first"], "last": row["last"]}
            of_object["run_ids"] = sorted(row["run_ids"]) or None
        for uri, found in facts.items():
            if found["problem"] is None and found.get("read", 0) != found["records"]:
                read, promised = found.get("read", 0), found["records"]
                raise StorageError(f"{uri}: Spark read {read} records, its blocks promise {promised}")

    def _stage_table(self, table: Table, ranked: DataFrame, size: int) -> None:
        rank, known = F.col(spark_builder.RANK), F.col(spark_builder.KNOWN)
        stored = self._stored(table)
        if stored is None:
            flagged = ranked.withColumn(spark_builder.KNOWN, F.lit(False))
        else:
            flagged = spark_builder.with_known(ranked, stored, table)
        flagged = flagged.persist(StorageLevel.MEMORY_AND_DISK)
        self.cached.append(flagged)
        infinite = spark_builder.not_finite(table)
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
            self._issues_of(table, flagged.where(rank > 1), firsts, spark_builder.priority())
        if n_known:
            assert stored is not None
            self._issues_of(table, firsts.where(known), stored, [F.asc(k) for k in table.key])
        if n_new:
            self._write(table, firsts.where(~known).select(*(c.name for c in table.columns)), size)
            self._audit(table, n_new)
            self.rows[table.name] = n_new

    def _stored(self, table: Table) -> DataFrame | None:
        """The table's rows that can share a key with the batch's; None where it is empty."""
        snapshot = self.warehouse.load(table).current_snapshot()
        if snapshot is None or commits._summary(snapshot).get("total-records", "0") == "0":
            return None
        stored = self.spark.table(f"{CATALOG_NAME}.{table.identifier}")
        first = F.col(table.key[0])
        if table.by_run:
            ranges = [first.between(lowest, highest) for lowest, highest in self.run_ids]
            return stored.where(reduce(lambda a, b: a | b, ranges, F.lit(False)))
        ids = self.ids[table.key[0]]
        return stored.where(first.isin(ids)) if len(ids) <= _MAX_IDS else stored

    def _write(self, table: Table, new: DataFrame, size: int) -> None:
        """Appends rows to a staged snapshot, in files that are narrow in the sort order."""
        found = self.warehouse.load(table)
        if found.properties.get("write.wap.enabled") != "true":  # a table of an earlier release
            commits.before_commit()
            with found.transaction() as transaction:
                transaction.set_properties({"write.wap.enabled": "true"})
        wap_id = f"{self.batch_id}.{self.attempt}"
        self.spark.conf.set("spark.wap.id", wap_id)
        n_files = -(-size // FILE_BYTES)
        sort = [F.col(name) for name in table.sort]
        new = new.coalesce(1) if n_files == 1 else new.repartitionByRange(n_files, *sort)
        month = [] if table.partition is None else [F.trunc(table.partition, "month")]
        commits.before_commit()
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
        staged = [s for s in found.metadata.snapshots if commits._summary(s).get("wap.id") == wap_id]
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
        infinite = spark_builder.not_finite(table)
        bad = F.lit(0) if infinite is None else F.count_if(infinite)
        keys = F.struct(*table.key)
        rows, distinct, not_finite = written.agg(F.count("*"), F.count_distinct(keys), bad).collect()[0]
        if not_finite:
            raise quality.AuditFailed(f"batch not published: {not_finite} rows of {table.name} hold NaN or infinity")
        if distinct != rows:
            raise quality.AuditFailed(f"batch not published: {rows - distinct} keys of {table.name} stand twice in it")
        if rows != n_rows:
            raise quality.AuditFailed(f"batch not published: {table.name} was to get {n_rows} rows and got {rows}")

    def _fail_not_finite(self, table: Table, rows: DataFrame) -> None:
        row = rows.orderBy(*spark_builder.priority()).first()
        assert row is not None
        path = _plain(row[spark_builder.PATH])
        path = path[path.index("raw/") :]
        one = pa.Table.from_pylist(
            [{c.name: row[c.name] for c in table.columns}], schema=arrow_builder.arrow_schema(table)
        )
        quality.audit_finite(table, one, path)
        raise quality.AuditFailed(f"batch not published: {path}: a number of {table.name} is not finite")

    # --- keys that came again ---

    def _issues_of(self, table: Table, again: DataFrame, first: DataFrame, order: list[Any]) -> None:
        """Rows that came again with other values: told by the same words as the embedded build."""
        key = list(table.key)
        columns = [*key, *table.comparable()]
        beside = first.select(F.struct(*columns).alias("__first"))
        same_key = reduce(lambda p, q: p & q, [F.col(k) == F.col(f"__first.{k}") for k in key])
        pairs = again.join(beside, same_key).where(spark_builder.differs(table, "__first"))
        came = [spark_builder.comparable(table, c, F.col(c)).alias(f"came__{c}") for c in columns]
        kept = [spark_builder.comparable(table, c, F.col(f"__first.{c}")).alias(f"kept__{c}") for c in columns]
        found = pairs.orderBy(*order).limit(1000).select(*came, *kept).toArrow()
        if found.num_rows == 0:
            return
        sides = [
            pa.Table.from_arrays([_cast(found[f"{side}__{c}"], table, c) for c in columns], names=columns)
            for side in ("came", "kept")
        ]
        self.issues += quality.other_values(table, *sides)

    # --- the ledger's rows ---

    def _enter(self, raw: RawObject, found: dict[str, Any]) -> None:
        etag = raw.etag or found["etag"]
        if self.ledger.has_rejected(raw.path, etag):
            self.retried.append(raw.path)
        entry: dict[str, Any] = {
            "source_path": raw.path,
            "etag": etag,
            "batch_id": self.batch_id,
            "topic": raw.topic,
            "raw_partition": raw.partition,
            "size_bytes": found["size"],
            "code_version": simulator.__version__,
            "processed_at": self.now,
        }
        if found["problem"] is not None:
            self.entries.append(entry | {"status": "rejected", "error": found["problem"]})
            return
        self.entries.append(
            entry
            | {
                "status": "loaded",
                "records": found["records"],
                "first_event_at": found.get("first"),
                "last_event_at": found.get("last"),
                "run_ids": found.get("run_ids"),
            }
        )

    # --- commits ---

    def _append(self, table: Table, merge: bool = False) -> None:
        if table.name not in self.staged:
            super()._append(table, merge)
            return
        found = self.warehouse.load(table)
        commits.before_commit()
        snapshot = self.staged.pop(table.name)
        found.manage_snapshots().set_current_snapshot(snapshot_id=snapshot).commit()
        commits.on_commit(f"append {table.name}")


def _plain(uri: str) -> str:
    """A file's URI as it was asked for: Spark gives some quoted, and local ones with more slashes."""
    uri = unquote(uri)
    return "file:/" + uri.removeprefix("file:").lstrip("/") if uri.startswith("file:") else uri


def _cast(column: pa.ChunkedArray, table: Table, name: str) -> pa.ChunkedArray:
    return column.cast(arrow_builder.column_type(table.column(name).type))


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:500] if text else type(error).__name__
