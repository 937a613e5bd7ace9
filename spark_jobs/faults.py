"""Errors of a warehouse's catalog and files as one line each, for every command that opens a warehouse."""

import sqlite3
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from simulator.errors import InputError, StorageError, VqeError, one_line

if TYPE_CHECKING:
    from spark_jobs.location import Location

CONNECT_SECONDS = 10
"""How long Postgres and S3 may take to answer a connection."""

_READERS_OF_METADATA = ("pyiceberg.avro", "pyiceberg.manifest", "pyiceberg.serializers", "pyiceberg.table.metadata")
"""Modules that fail, each in its own way, on a metadata file, manifest list or manifest that is damaged."""


@contextmanager
def warehouse_faults(location: "Location") -> Iterator[None]:
    """Raise what the catalog, the files or their store do wrong in this block as one `VqeError`.

    Raises:
        InputError: `VQE_CATALOG_URI` or `VQE_WAREHOUSE` cannot be right.
        StorageError: a service is away or refuses, a file is missing or damaged, the disk is full.
    """
    try:
        yield
    except VqeError:
        raise
    except Exception as error:
        told = warehouse_fault(error, location)
        if told is None:
            raise
        raise told from error


def warehouse_fault(error: Exception, location: "Location") -> VqeError | None:
    """What an error means for who uses the warehouse; None for one that is no fault of catalog, files and store."""
    kinds = {f"{c.__module__.partition('.')[0]}.{c.__name__}" for c in type(error).__mro__}
    line = one_line(error)
    if "sqlalchemy.SQLAlchemyError" in kinds or isinstance(error, ModuleNotFoundError):
        return catalog_fault(error, location.catalog_uri, _how_to_mend(location))
    if isinstance(error, OSError):
        return StorageError(f"warehouse {location.warehouse}: {error.strerror or line}")
    if kinds & {"pyarrow.ArrowException", "duckdb.Error", "_duckdb.Error"}:
        return StorageError(
            f"warehouse {location.warehouse}: a data file cannot be read: {_first(line)}. {_how_to_mend(location)}"
        )
    if kinds & {"botocore.BotoCoreError", "botocore.ClientError"}:
        return StorageError(f"warehouse {location.warehouse}: {line}")
    read = [str(f.f_globals.get("__name__", "")) for f, _ in traceback.walk_tb(error.__traceback__)]
    if any(name.startswith(_READERS_OF_METADATA) for name in read):
        return StorageError(
            f"warehouse {location.warehouse}: a metadata file is damaged ({type(error).__name__}: {_first(line)}). {_how_to_mend(location)}"
        )
    if "pyiceberg.NoSuchTableError" in kinds:
        return None  # its callers know what it means
    if any(c.startswith("pyiceberg.") for c in kinds):
        return StorageError(f"warehouse {location.warehouse}: {_first(line)}")
    if isinstance(error, ValueError) and read[-1].startswith("pyiceberg.io"):  # no store is known for its scheme
        return InputError(f"VQE_WAREHOUSE {location.warehouse}: {_first(line)}")
    return None


def catalog_fault(error: Exception, uri: str, mend: str = "") -> VqeError:
    """What SQLAlchemy's error, or that of a driver that cannot be loaded, says about the catalog; `mend` of a damaged one."""
    if isinstance(error, ModuleNotFoundError):
        return InputError(
            f"VQE_CATALOG_URI {uri}: no module {error.name} (pip install 'vqe-pipeline[lake]' has Postgres')"
        )
    cause = getattr(error, "orig", None)
    if cause is None:
        kind = type(error).__name__
        if kind in ("ArgumentError", "NoSuchModuleError"):
            allowed = "sqlite:////FOLDER/catalog.db or postgresql+psycopg2://USER:PASSWORD@HOST/DATABASE"
            return InputError(f"VQE_CATALOG_URI {uri}: {one_line(error)} (use {allowed})")
        return StorageError(f"catalog {uri}: {one_line(error)}")
    line = _first(one_line(cause))
    if not isinstance(cause, sqlite3.Error):
        return StorageError(f"the catalog's database {uri} does not answer: {line} (it has {CONNECT_SECONDS} s)")
    damaged = type(cause) is sqlite3.DatabaseError or line.startswith("no such ")
    return StorageError(
        f"catalog {uri.partition('///')[2]}{' is damaged' if damaged else ''}: {line}. {mend if damaged else ''}".rstrip(
            ". "
        )
    )


def _how_to_mend(location: "Location") -> str:
    if "://" in location.warehouse.removeprefix("file://"):
        return "The raw objects hold every event: see the runbook"
    return f"The raw files hold every event: move {location.local} away and run `vqe tables build`"


def _first(line: str) -> str:
    """The beginning of a message that may list whole files or schemas."""
    return line if len(line) <= 300 else line[:297] + "..."


def with_timeout(catalog_uri: str) -> str:
    """The URI with a limit on how long Postgres may take to answer, unless it has one: the library waits minutes."""
    import sqlalchemy

    if not catalog_uri.startswith("postgresql"):
        return catalog_uri
    url = sqlalchemy.make_url(catalog_uri)
    if url.get_backend_name() != "postgresql" or "connect_timeout" in url.query or "pg8000" in url.drivername:
        return catalog_uri
    return url.update_query_dict({"connect_timeout": str(CONNECT_SECONDS)}).render_as_string(hide_password=False)
