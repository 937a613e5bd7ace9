"""Where a warehouse is, and whether the tables that its catalog names are its own.

Iceberg's paths are absolute. The tables of a data dir that was copied or moved are still those of the folder where they
were made: a commit would go there. So every path is compared with the warehouse's before anything is read or written.
"""

import os
import shlex
import sqlite3
import urllib.parse
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from simulator.errors import InputError
from simulator.settings import from_home, load_table_settings

_IN_URLS = "#?%"
"""Characters that Iceberg's libraries take for parts of a URL."""


class MisplacedTables(InputError):
    """A catalog's tables are elsewhere than in its warehouse, which was copied or moved.

    Args:
        message: the line for the user.
        place: the warehouse where they are.
    """

    def __init__(self, message: str, place: str) -> None:
        super().__init__(message)
        self.place = place


@dataclass(frozen=True)
class Location:
    """Where a warehouse and its catalog are.

    A data dir has `warehouse/` with the SQLite catalog in it. `VQE_CATALOG_URI` (SQLAlchemy's form, with the driver:
    `postgresql+psycopg2://...`) and `VQE_WAREHOUSE` (a folder or `s3://...`) name others.
    """

    data_dir: Path
    catalog_uri: str = field(repr=False)  # may hold a password
    warehouse: str
    warehouse_is_named: bool = False
    """Whether `VQE_WAREHOUSE` names the warehouse."""

    @classmethod
    def of(cls, data_dir: str | Path) -> "Location":
        """The location of a data dir's warehouse, as the settings have it.

        Raises:
            InputError: a path has characters with which Iceberg cannot write there.
        """
        try:
            root = Path(from_home(data_dir)).resolve()
        except (ValueError, OSError, RuntimeError) as e:  # no such user, a name that is too long, links in a circle
            raise InputError(f"data dir {data_dir}: {getattr(e, 'strerror', None) or e}") from None
        settings = load_table_settings()
        named_catalog = settings.catalog_uri.get_secret_value() if settings.catalog_uri else None
        if named_catalog is None or settings.warehouse is None:
            _check_path(str(root), "data dir")
        named = settings.warehouse
        if named is not None and (path := local_path(named)) is not None:
            _check_path(str(path), "VQE_WAREHOUSE")
        if named is not None and "://" not in named and not named.startswith("file:"):
            named = os.path.abspath(named)
        return cls(
            data_dir=root,
            catalog_uri=named_catalog or f"sqlite:///{root / 'warehouse' / 'catalog.db'}",
            warehouse=named or f"file://{root / 'warehouse'}",  # not quoted: pyiceberg takes it literally
            warehouse_is_named=named is not None,
        )

    @property
    def local(self) -> Path:
        """Folder of a local warehouse, where its lock lies."""
        return self.data_dir / "warehouse"

    @property
    def catalog_file(self) -> Path | None:
        """The SQLite catalog; None where the catalog is another database."""
        scheme, slashes, path = self.catalog_uri.partition(":///")
        return Path(path.partition("?")[0]) if slashes and scheme.partition("+")[0] == "sqlite" else None

    @property
    def exists(self) -> bool:
        """Whether a catalog is there; only a file can be missing."""
        return self.catalog_file is None or self.catalog_file.is_file()

    def check(self) -> None:
        """Compare where the catalog's tables are with where the warehouse is. Reads the SQLite catalog and nothing else;
        that of another database is compared when a table is opened.

        Raises:
            MisplacedTables: they are elsewhere.
        """
        for namespace, name, metadata in self._tables():
            check_table(self, namespace, name, [metadata])

    def _tables(self) -> list[tuple[str, str, str]]:
        """Namespace, name and metadata location of each table in a SQLite catalog that can be read."""
        if self.catalog_file is None or not self.catalog_file.is_file():
            return []
        uri = f"file:{urllib.parse.quote(str(self.catalog_file.absolute()))}?mode=ro"
        statement = "select table_namespace, table_name, metadata_location from iceberg_tables"
        try:
            with closing(sqlite3.connect(uri, uri=True, timeout=30)) as connection:
                return [row for row in connection.execute(statement) if None not in row]
        except sqlite3.Error:  # damaged, or just made: whoever opens it tells
            return []


def check_table(location: Location, namespace: str, name: str, files: Iterable[str]) -> None:
    """Compare where files of a table are with where the warehouse is.

    Raises:
        MisplacedTables: one is elsewhere.
    """
    for place in {place_of(file, namespace, name) for file in files}:
        if not _is_ours(place, location):
            raise MisplacedTables(_misplaced_message(place, location), place)


def place_of(file: str, namespace: str, name: str) -> str:
    """The warehouse of a table's file, which is at `WAREHOUSE/NAMESPACE/NAME/...`; the whole where it is not so named."""
    return file.rpartition(f"/{namespace}/{name}/")[0] or file


def _is_ours(place: str, location: Location) -> bool:
    theirs, ours = local_path(place), local_path(location.warehouse)
    if theirs is None or ours is None:
        if theirs is None and not location.warehouse_is_named:
            return True  # the catalog alone was named: its tables tell where the warehouse is
        return theirs is ours and _remote(place) == _remote(location.warehouse)
    if theirs == ours:
        return True
    try:
        return os.path.samefile(theirs, ours)  # reached by a link or a mount
    except OSError:
        return os.path.realpath(theirs) == os.path.realpath(ours)


def _misplaced_message(place: str, location: Location) -> str:
    theirs = local_path(place) or place
    if local_path(location.warehouse) is None or local_path(place) is None:
        return (
            f"VQE_WAREHOUSE is {location.warehouse}, but the tables of its catalog are in {theirs}: "
            f"set VQE_WAREHOUSE={theirs}, or name another catalog with VQE_CATALOG_URI"
        )
    ours = local_path(location.warehouse) if location.warehouse_is_named else location.data_dir
    return (
        f"{ours} was copied or moved: its tables are those of {theirs} (Iceberg's paths are absolute). "
        f"`vqe tables relocate --data-dir {shlex.quote(str(location.data_dir))}` makes them its own"
    )


def _remote(place: str) -> str:
    scheme, _, path = place.partition("://")
    return f"{'s3' if scheme in ('s3a', 's3n') else scheme}://{path.rstrip('/')}"


def local_path(location: str) -> Path | None:
    """The path of a local file's location; None for another store's."""
    if location.startswith("file:"):
        return Path("/" + location.removeprefix("file:").lstrip("/"))
    return None if "://" in location else Path(location)


def _check_path(path: str, what: str) -> None:
    forbidden = sorted(set(_IN_URLS) & set(path))
    if forbidden:
        raise InputError(
            f"{what} {path}: Iceberg reads {' '.join(forbidden)} in a path as parts of a URL (name another folder)"
        )
    if any(ord(c) < 32 or ord(c) == 127 for c in path):
        raise InputError(f"{what} {path!r}: Iceberg cannot write below a name with control characters")
    if not path.isascii():
        try:
            path.encode()
        except UnicodeEncodeError:
            raise InputError(f"{what} {path!r}: not UTF-8 text (name another folder)") from None
