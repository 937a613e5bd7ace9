"""What a warehouse holds, as tests compare it: rows in the order of their keys, tags, the ledger."""

import shutil
from pathlib import Path
from typing import Any

from raw_events import Run

from spark_jobs.tables import LEDGER, TABLES, Table, by_name
from spark_jobs.warehouse import Warehouse, tags_of


def rows_of(data_dir: Path, name: str, tables: tuple[Table, ...] = TABLES) -> list[dict[str, Any]]:
    with Warehouse.read(data_dir, tables) as found:
        return rows_in(found, by_name(name, tables))


def rows_in(found: Warehouse, table: Table) -> list[dict[str, Any]]:
    rows = found.scan(table, [c.name for c in table.columns])
    return rows.sort_by([(k, "ascending") for k in table.key]).to_pylist()


def everything(data_dir: Path, tables: tuple[Table, ...] = TABLES) -> dict[str, list[dict[str, Any]]]:
    with Warehouse.read(data_dir, tables) as found:
        return {t.name: rows_in(found, t) for t in tables if t.name != LEDGER}


def tags(data_dir: Path) -> dict[str, list[str]]:
    with Warehouse.read(data_dir) as found:
        return {t.name: sorted(tags_of(found.load(t))) for t in TABLES}


def ledger(data_dir: Path) -> dict[str, str]:
    return {row["source_path"]: row["status"] for row in rows_of(data_dir, LEDGER)}


def two_runs() -> list[Run]:
    return [Run(0), Run(1, molecule=1, iterations=4, status="failed")]


class Restored:
    """A data dir with tables that tests change, made whole again for each: Iceberg's paths are absolute, so it is always the same one."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir, self._whole = data_dir, data_dir.with_name(f"{data_dir.name}-whole")
        shutil.copytree(data_dir, self._whole)

    def again(self) -> Path:
        shutil.rmtree(self._data_dir, ignore_errors=True)
        shutil.copytree(self._whole, self._data_dir)
        return self._data_dir
