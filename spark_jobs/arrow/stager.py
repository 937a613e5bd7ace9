"""A batch's objects read, deduplicated and written by Arrow, in this process.

Objects are read one at a time, and a table's rows are written to files once they are `FLUSH_BYTES` in Arrow; so a batch
of any size takes a few times that memory, and the largest object.
"""

from collections.abc import Collection, Sequence
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.expressions import BooleanExpression
from pyiceberg.manifest import DataFile

from simulator.errors import StorageError
from spark_jobs import filters, quality
from spark_jobs.arrow import builder
from spark_jobs.batch import ReadObject, Staged
from spark_jobs.quality import Issue
from spark_jobs.raw import RawObject, RawStore, content_etag
from spark_jobs.rows import with_declared_types, without_known
from spark_jobs.tables import Table
from spark_jobs.warehouse import Warehouse, month_of

FLUSH_BYTES = 128 << 20
"""Arrow bytes of a table's rows that wait in memory. 160,000 iterations of 40 parameters are 64 MiB."""


class ArrowStager:
    """Stages rows as data files that no snapshot has."""

    def __init__(self, warehouse: Warehouse, store: RawStore, batch_id: str) -> None:
        self.warehouse = warehouse
        self.store = store
        self.batch_id = batch_id
        self.pending = {t.name: builder.Pending(t) for t in warehouse.data_tables}
        self.files: dict[str, list[DataFile]] = {t.name: [] for t in warehouse.data_tables}
        self.written_keys: dict[str, list[pa.Table]] = {t.name: [] for t in warehouse.data_tables}
        self.recorded: dict[str, tuple[datetime, datetime]] = {}
        """By table, the first and last `recorded_at` of the rows that this batch adds."""
        self.rows: dict[str, int] = {t.name: 0 for t in warehouse.data_tables}
        self.issues: list[Issue] = []
        self.duplicates = 0
        self.table_to_merge: Table | None = None

    def stage(self, objects: Sequence[RawObject]) -> Staged:
        """Writes the new rows of all objects to data files."""
        tables = self.warehouse.data_tables
        read = []
        for index, raw in enumerate(objects):
            read.append(self._read(raw, index))
            for table in tables:
                if self.pending[table.name].nbytes >= FLUSH_BYTES:
                    self._flush(table)
        for table in tables:
            if self.pending[table.name].parts:
                self._flush(table)
        self.table_to_merge = self._choose_table_to_merge()
        return Staged(read, self.rows, self.duplicates, self.issues)

    def append(self, table: Table) -> None:
        """Commits a table's data files; those of the table whose turn it is together with its small files, merged."""
        if not (files := self.files[table.name]):
            return
        self.files[table.name] = []  # from here on they may be committed: nobody deletes them
        if table is self.table_to_merge:
            self.warehouse.append_and_merge(table, files, self.batch_id, growing=self._months_of(table))
        else:
            self.warehouse.append(table, files, batch_id=self.batch_id)

    def discard(self) -> None:
        """Deletes the data files that are not committed. Those of a commit that was begun are not known here any more."""
        for table in self.warehouse.data_tables:
            self.warehouse.discard(table, self.files[table.name])

    def _read(self, raw: RawObject, index: int) -> ReadObject:
        try:
            content = self.store.read(raw.path)
        except OSError as e:
            raise StorageError(f"cannot read {raw.path}: {e.strerror or e}") from e
        etag = content_etag(content)
        try:
            events = builder.decode(content, raw.topic)
            rows = builder.project(raw, events, self.warehouse.data_tables)
        except builder.CorruptObject as e:
            return ReadObject(raw, etag, len(content), problem=str(e))
        for name, (source, of_table) in rows.items():
            quality.audit_finite(self.pending[name].table, of_table, raw.path)
            self.pending[name].add(of_table, source, index)
        found = builder.facts(events)
        return ReadObject(
            raw,
            etag,
            len(content),
            records=found.records,
            first_event_at=found.first_event_at,
            last_event_at=found.last_event_at,
            run_ids=found.run_ids,
        )

    def _flush(self, table: Table) -> None:
        """Writes a table's pending rows to files: those whose key is new."""
        unique = builder.first_of_each_key(self.pending[table.name].take(), table)
        self.issues += quality.other_values(table, unique.again, unique.first)
        where = _where_keys(table, unique.new)
        key = list(table.key)
        known = self.warehouse.scan(table, key, where)
        new, again = without_known(unique.new, known, key)
        for keys in self.written_keys[table.name]:
            new, earlier = without_known(new, keys, key)
            self.duplicates += earlier.num_rows
        self.duplicates += unique.again.num_rows + again.num_rows
        if again.num_rows:
            self._compare(table, again, where)
        if new.num_rows == 0:
            return
        keys = new.select(key).combine_chunks()
        quality.audit_unique(table, keys)
        self.written_keys[table.name].append(keys)
        span = pc.min_max(new["recorded_at"]).as_py()
        first, last = self.recorded.get(table.name, (span["min"], span["max"]))
        self.recorded[table.name] = (min(first, span["min"]), max(last, span["max"]))
        self.rows[table.name] += new.num_rows
        self.files[table.name] += self.warehouse.write(table, new)

    def _compare(self, table: Table, again: pa.Table, where: BooleanExpression) -> None:
        """Holds rows whose key the table has against the table's rows."""
        key = list(table.key)
        wanted = again.select(key)
        stored = []
        columns = [*key, *table.comparable()]
        for part in self.warehouse.scan_batches(table, columns, where):
            rows = with_declared_types(pa.Table.from_batches([part]), table, columns)
            _, matching = without_known(rows, wanted, key)
            if matching.num_rows:
                stored.append(matching)
        first = pa.concat_tables(stored)
        order = [(name, "ascending") for name in key]
        self.issues += quality.other_values(table, again.sort_by(order), first.sort_by(order))

    def _choose_table_to_merge(self) -> Table | None:
        """The table whose small files this batch merges: one a batch, so that no single batch pays for all."""
        candidates = [t for t in self.warehouse.data_tables if self.files[t.name]]
        counts = {t.name: len(self.warehouse.small_files(t, self._months_of(t))) for t in candidates}
        most = max(candidates, key=lambda t: counts[t.name], default=None)
        return most if most is not None and counts[most.name] else None

    def _months_of(self, table: Table) -> Collection[int]:
        """Months, counted from January 1970, from the first to the last one that this batch adds to."""
        if table.partition is None or table.name not in self.recorded:
            return ()
        first, last = map(month_of, self.recorded[table.name])
        return range(first, last + 1)


def _where_keys(table: Table, rows: pa.Table) -> BooleanExpression:
    """What bounds a look-up of these rows' keys: ids, or ranges of run ids, which files' statistics prune."""
    first = table.key[0]
    if table.by_run:
        return filters.ids(first, pc.unique(rows[first]).to_pylist())
    ids = pc.unique(rows[first]).to_pylist()
    return filters.among(first, ids) if len(ids) <= filters.MAX_IN else filters.EVERYTHING
