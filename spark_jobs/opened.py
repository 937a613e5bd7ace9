"""The tables as a library: opened by a data dir, asked in Spark's SQL, answered as Arrow."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spark_jobs.tables import TABLES

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Tables:
    """The tables of a data dir, as of its newest batch or an earlier one.

    Every question reads one batch whole, and nothing is kept open between questions: what is built meanwhile is seen by the next.
    """

    data_dir: Path
    as_of: str | None = None
    """A tag, a batch id or the beginning of one; None: the newest at the time of each question."""

    @property
    def names(self) -> tuple[str, ...]:
        """The tables' names."""
        return tuple(table.name for table in TABLES)

    def sql(self, statement: str) -> "pa.Table":
        """The rows of a SELECT, WITH, SHOW TABLES or DESCRIBE in Spark's SQL; `.to_pandas()` makes a data frame of them.

        Raises:
            InputError: the SQL is wrong, writes, or names what is not there.
            StorageError: files of the tables cannot be read.
        """
        from spark_jobs.query import query

        return query(self.data_dir, statement, as_of=self.as_of).rows

    def __getitem__(self, name: str) -> "pa.Table":
        """A whole table, e.g. `tables["vqe_results"]`.

        Raises:
            KeyError: no such table.
        """
        if name not in self.names:
            raise KeyError(f"no table {name!r} (there are {', '.join(self.names)})")
        return self.sql(f"select * from {name}")


def open_tables(data_dir: str | Path = "vqe-data", *, as_of: str | None = None) -> Tables:
    """The tables of a data dir.

    Args:
        data_dir: the folder that runs wrote to.
        as_of: a tag, a batch id or the beginning of one; the newest batch where nothing is given.

    Raises:
        InputError: there are no tables.
    """
    from simulator.errors import InputError

    found = Path(data_dir).expanduser()
    if not found.is_dir():
        raise InputError(
            f"no tables in {found}: there is no such folder (vqe run makes one, vqe tables build its tables)"
        )
    return Tables(found, as_of)
