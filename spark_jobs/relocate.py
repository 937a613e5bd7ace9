"""A warehouse that was copied or moved: its metadata rewritten to where it is now, history and tags kept.

Nothing of the place where it was before is read or written. New metadata files, manifest lists and manifests are
written beside the old ones, which stay as they are; then the catalog changes over to them, all tables in one
transaction. Killed before that, it has changed nothing that counts, and killed after it, it is done. What the catalog
no longer names, `vqe tables maintain` deletes in time.
"""

import gzip
import io
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fastavro
import sqlalchemy

from simulator.errors import InputError, StorageError
from spark_jobs.batch import BatchReport
from spark_jobs.faults import warehouse_faults, with_timeout
from spark_jobs.location import Location, MisplacedTables, local_path, place_of
from spark_jobs.lock import WAIT_SECONDS, lock_of
from spark_jobs.raw import RawStore, store_of
from spark_jobs.tables import TABLES, Table
from spark_jobs.warehouse import CATALOG_NAME, Warehouse

_DELETED = 2
"""Status of a manifest's entry: the file has left the table and may be gone."""


def _nothing(what: str) -> None:
    pass


on_step: Callable[[str], None] = _nothing
"""Called after each step with what it did. A test's place to kill the process between any two."""


class NotWhole(Exception):
    """Files that the tables need are not in this folder, so that their metadata cannot be rewritten."""


@dataclass(frozen=True)
class Relocation:
    """What was done."""

    moved_from: str | None  # where the tables said that they were; None: they were here already
    tables: int  # whose metadata was rewritten
    files: int  # of metadata that were written
    seconds: float
    reason: str | None = None  # why the tables were built anew instead
    set_aside: str | None = None  # the folder that holds the old ones then
    rebuilt: BatchReport | None = None


def relocate(
    data_dir: str | Path,
    rebuild: Callable[..., BatchReport],
    *,
    store: RawStore | None = None,
    tables: Sequence[Table] = TABLES,
    wait_seconds: float = WAIT_SECONDS,
) -> Relocation:
    """Makes the tables of a data dir that was copied or moved its own.

    Where files that they need are missing here, the old tables are set aside and new ones are built from raw/: their
    history begins anew.

    Args:
        data_dir: folder with `raw/` and `warehouse/`.
        rebuild: builds new tables, as `arrow.batch.build` does.
        store: where raw objects lie; by default `raw/` of the data dir.
        tables: the declarations.
        wait_seconds: how long to wait for another writer.

    Raises:
        InputError: there are no tables, they are in S3, their catalog is another warehouse's, or neither all their
            files nor a raw object is here.
        StorageError: the warehouse cannot be written, or a writer holds it too long.
    """
    started = time.perf_counter()
    location = Location.of(data_dir)
    root = local_path(location.warehouse)
    if root is None:
        raise InputError(f"warehouse {location.warehouse}: only the tables of a folder can be relocated")
    if not location.exists:
        raise InputError(f"{location.data_dir} has no tables: `vqe tables build` builds them from raw/")
    store = store or store_of(location.data_dir, tables)
    with lock_of(location, wait_seconds), warehouse_faults(location):
        place = misplaced(location, tables)
        if place is None:
            return Relocation(None, 0, 0, time.perf_counter() - started)
        _refuse_a_catalog_in_use(location, place)
        _own_catalog_file(location)
        engine = sqlalchemy.create_engine(with_timeout(location.catalog_uri), poolclass=sqlalchemy.pool.NullPool)
        entries = _entries(engine)
        try:
            rewriters = [_Rewriter(root, location.warehouse, *entry[:2]) for entry in entries]
            rewritten = [rewriter.table(entry[2]) for rewriter, entry in zip(rewriters, entries, strict=True)]
        except NotWhole as e:
            reason = str(e)
        else:
            _change_over(engine, entries, rewritten, place, location.warehouse)
            files = sum(r.written for r in rewriters)
            return Relocation(place, len(entries), files, time.perf_counter() - started)
        if next(iter(store.objects()), None) is None:
            raise InputError(f"{location.data_dir}: {reason}, and there is no raw object to build the tables from")
        aside = _set_aside(location, root, reason)
    rebuilt = rebuild(data_dir, store=store, tables=tables, wait_seconds=wait_seconds)
    return Relocation(place, 0, 0, time.perf_counter() - started, reason, str(aside), rebuilt)


def misplaced(location: Location, tables: Sequence[Table] = TABLES) -> str | None:
    """Where the catalog's tables say that they are, if any of them is elsewhere than in the warehouse; None: all are here.

    Reads the catalog first, and metadata only where that is in the warehouse.
    """
    try:
        location.check()
        with Warehouse(location, tables) as warehouse:
            for name in warehouse.catalog.list_tables("vqe") if warehouse.catalog.namespace_exists("vqe") else ():
                warehouse.catalog.load_table(name)
    except MisplacedTables as e:
        return e.place
    return None


def _refuse_a_catalog_in_use(location: Location, place: str) -> None:
    """Refuse a catalog outside the data dir while the original is there: it was not copied, and is still the original's."""
    file = location.catalog_file
    if file is not None and file.parent.resolve().is_relative_to(location.data_dir):
        return
    folder = local_path(place)
    if folder is None or folder.exists():
        raise InputError(
            f"the catalog that VQE_CATALOG_URI names is that of {folder or place}, which is still there: name another "
            f"catalog for {location.data_dir}, and build its tables with `vqe tables build`"
        )


def _own_catalog_file(location: Location) -> None:
    """Replace a catalog file that is a link: a copy by links (`cp -al`, `cp -as`) shares its bytes with the original."""
    file = location.catalog_file
    if file is None or not (file.is_symlink() or file.stat().st_nlink > 1):
        return
    copy = file.with_name(f"{file.name}.{uuid.uuid4().hex}")
    shutil.copy2(file, copy)
    os.replace(copy, file)


def _entries(engine: sqlalchemy.Engine) -> list[tuple[str, str, str]]:
    """Namespace, name and metadata location of each table and view of the catalog."""
    statement = (
        "select table_namespace, table_name, metadata_location from iceberg_tables "
        "where catalog_name = :catalog and metadata_location is not null order by 1, 2"
    )
    with engine.connect() as connection:
        return [
            (str(r[0]), str(r[1]), str(r[2]))
            for r in connection.execute(sqlalchemy.text(statement), {"catalog": CATALOG_NAME})
        ]


def _change_over(
    engine: sqlalchemy.Engine, entries: Sequence[tuple[str, str, str]], rewritten: Sequence[str], old: str, new: str
) -> None:
    """Make the catalog name the new metadata files, of all tables in one transaction."""
    update = sqlalchemy.text(
        "update iceberg_tables set metadata_location = :new, previous_metadata_location = null "
        "where catalog_name = :catalog and table_namespace = :namespace and table_name = :name and metadata_location = :old"
    )
    properties = sqlalchemy.text(
        "update iceberg_namespace_properties set property_value = :new || substr(property_value, :length) "
        "where catalog_name = :catalog and (property_value = :old or substr(property_value, 1, :length) = :folder)"
    )
    with engine.begin() as connection:
        for (namespace, name, before), after in zip(entries, rewritten, strict=True):
            values = {"new": after, "catalog": CATALOG_NAME, "namespace": namespace, "name": name, "old": before}
            if connection.execute(update, values).rowcount != 1:
                raise StorageError(f"table {name} was changed meanwhile by a writer without the lock: try again")
        named: dict[str, str | int] = {
            "new": new.rstrip("/"),
            "old": old,
            "folder": f"{old}/",
            "length": len(old) + 1,
            "catalog": CATALOG_NAME,
        }
        connection.execute(properties, named)
        on_step("catalog, before its commit")
    on_step("catalog")


class _Rewriter:
    """Writes the metadata of one table anew, for the folder in which it is now.

    Args:
        root: the warehouse's folder.
        warehouse: how the catalog names it.
    """

    def __init__(self, root: Path, warehouse: str, namespace: str, name: str) -> None:
        self.root, self.warehouse = root, warehouse.rstrip("/")
        self.namespace, self.name = namespace, name
        self.written = 0
        self._manifests: dict[str, tuple[str, int]] = {}  # old location -> new location, bytes

    def table(self, metadata_location: str) -> str:
        """Rewrites the table, or the view, of a metadata file; returns the new one's location."""
        content = self._path(metadata_location).read_bytes()
        if ".gz.metadata.json" in metadata_location or metadata_location.endswith(".json.gz"):
            content = gzip.decompress(content)
        try:
            metadata = json.loads(content)
            old = str(metadata["location"])
        except (ValueError, KeyError, TypeError) as e:
            raise NotWhole(f"table {self.name}: {metadata_location} is damaged ({type(e).__name__})") from e
        for snapshot in metadata.get("snapshots", ()):
            if "manifest-list" not in snapshot:
                raise NotWhole(f"table {self.name} has a snapshot of Iceberg's first format")
            snapshot["manifest-list"] = self._manifest_list(snapshot["manifest-list"], snapshot["snapshot-id"])
        for kind in ("statistics", "partition-statistics"):
            for statistics in metadata.get(kind, ()):
                statistics["statistics-path"] = self._moved(statistics["statistics-path"], needed=True)
        # A commit deletes the oldest files of this log. Those before this one name the old folder and are left out.
        metadata["metadata-log"] = []
        metadata = _replaced(metadata, old, self._here(old + "/").rstrip("/"))
        version = Path(metadata_location).name.partition("-")[0]
        number = int(version) + 1 if version.isdigit() else 0
        return self._write(
            f"{number:05d}-{uuid.uuid4()}.metadata.json", json.dumps(metadata, separators=(",", ":")).encode()
        )

    def _manifest_list(self, old: str, snapshot_id: int) -> str:
        entries, schema, meta = _avro(self._path(old), old)
        for entry in entries:
            if entry.get("content", 0) != 0:
                raise NotWhole(f"table {self.name} has delete files, which name data files by their paths")
            entry["manifest_path"], entry["manifest_length"] = self._manifest(entry["manifest_path"])
        return self._write(f"snap-{snapshot_id}-0-{uuid.uuid4()}.avro", _avro_bytes(entries, schema, meta))

    def _manifest(self, old: str) -> tuple[str, int]:
        if old not in self._manifests:
            entries, schema, meta = _avro(self._path(old), old)
            for entry in entries:
                file = entry["data_file"]
                file["file_path"] = self._moved(file["file_path"], needed=entry["status"] != _DELETED)
            content = _avro_bytes(entries, schema, meta)
            self._manifests[old] = (self._write(f"{uuid.uuid4()}-m0.avro", content), len(content))
        return self._manifests[old]

    def _here(self, old: str) -> str:
        """The location in this warehouse of a file of the table, which was at another one's."""
        place = place_of(old, self.namespace, self.name)
        if place == old:
            raise NotWhole(f"table {self.name} has a file outside its folder: {old}")
        return self.warehouse + old.removeprefix(place)

    def _path(self, old: str) -> Path:
        path = self.root / self._here(old).removeprefix(f"{self.warehouse}/")
        if not path.is_file():
            raise NotWhole(f"table {self.name}: {path} is missing")
        return path

    def _moved(self, old: str, needed: bool) -> str:
        if needed:
            self._path(old)
        return self._here(old)

    def _write(self, name: str, content: bytes) -> str:
        """Writes a file of a new name into the table's metadata folder, so that it outlives a power cut."""
        path = self.root / self.namespace / self.name / "metadata" / name
        with path.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self.written += 1
        on_step(f"write {self.name}")
        return f"{self.warehouse}/{self.namespace}/{self.name}/metadata/{name}"


def _replaced(value: Any, old: str, new: str) -> Any:
    """A JSON value in which each text that is a location below `old` is one below `new`."""
    if isinstance(value, dict):
        return {key: _replaced(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, old, new) for item in value]
    if isinstance(value, str) and (value == old or value.startswith(f"{old}/")):
        return new + value.removeprefix(old)
    return value


def _avro(path: Path, named: str) -> tuple[list[dict[str, Any]], Any, dict[str, str]]:
    """Records of an Avro file, their schema, and the file's own metadata, its codec included."""
    try:
        with path.open("rb") as file:
            reader = fastavro.reader(file)
            records: list[Any] = list(reader)
            return records, json.loads(reader.metadata["avro.schema"]), dict(reader.metadata)
    except (ValueError, EOFError, KeyError, IndexError, TypeError) as e:
        raise NotWhole(f"{path} is damaged ({type(e).__name__})") from e


def _avro_bytes(records: list[dict[str, Any]], schema: Any, meta: dict[str, str]) -> bytes:
    out = io.BytesIO()
    codec = meta.get("avro.codec", "null")
    kept = {name: value for name, value in meta.items() if not name.startswith("avro.")}
    fastavro.writer(out, schema, records, codec=codec, metadata=kept)
    return out.getvalue()


def _set_aside(location: Location, root: Path, reason: str) -> Path:
    """Moves old tables and their catalog into a folder of the data dir, to be built anew; deletes nothing.

    The catalog goes last: until then it names tables that are elsewhere, and nothing is built beside what is left.
    """
    file = location.catalog_file
    if file is None or file.resolve().parent != root.resolve():
        raise InputError(
            f"{location.data_dir}: {reason}, and its catalog is not in its warehouse: name a new catalog with "
            "VQE_CATALOG_URI, and build the tables with `vqe tables build`"
        )
    aside = location.data_dir / f"warehouse.{datetime.now(UTC):%Y%m%dT%H%M%S}.{uuid.uuid4().hex[:8]}.old"
    aside.mkdir()
    for entry in sorted(os.scandir(root), key=lambda e: e.name):
        if entry.name not in (file.name, ".lock", ".lock.next"):
            os.rename(entry.path, aside / entry.name)
            on_step(f"set aside {entry.name}")
    os.rename(file, aside / file.name)
    on_step(f"set aside {file.name}")
    return aside
