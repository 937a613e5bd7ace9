"""SQL over the tables: Spark SQL in, DuckDB underneath, nothing written and nothing read but the warehouse's files.

A query sees one batch: that of the newest tag, or of `as_of`. Tables are DuckDB views on the Parquet files of the
tag's snapshot, so that DuckDB reads only the columns and row groups that it needs; a column that a file does not have
yet is null. Names tell columns apart: we never rename one.

DuckDB would have to download an extension to read S3. Files of a warehouse there are given to it as an Arrow dataset
instead: its optimizer decides which columns and filters each scan gets, so that what is read follows from its plan
(no filter of a null-producing side of an outer join is ever among them), and rows are streamed.
"""

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import sqlglot
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.types import IcebergType, ListType, MapType, PrimitiveType
from sqlglot import exp
from sqlglot.errors import SqlglotError

from simulator.errors import InputError, StorageError
from spark_jobs.location import local_path
from spark_jobs.table_dataset import table_dataset
from spark_jobs.tables import NAMESPACE, TABLES, Table
from spark_jobs.warehouse import TAG_PREFIX, Warehouse

VIEWS = ("run_summary", "convergence", "stage_times", "accuracy_by_ansatz", "repeats", "vqe_features")
"""Views in `spark_jobs/sql/<name>.sql`, Spark SQL; a view uses tables and views before it."""

_ARROW = "__arrow"
"""Ending of the names under which DuckDB knows rows that Arrow gives it."""

MEMORY_LIMIT = "2GB"
"""DuckDB spills to a temporary folder beyond it."""


@dataclass(frozen=True)
class Answer:
    """Rows of a query."""

    rows: pa.Table
    as_of: str | None  # the tag that was read


def query(
    data_dir: str | Path, sql: str, *, as_of: str | None = None, tables: Sequence[Table] = TABLES, views: bool = True
) -> Answer:
    """Answers a query: SELECT, WITH, SHOW TABLES or DESCRIBE, in Spark's SQL.

    Args:
        data_dir: the data dir.
        sql: one statement; tables are named `vqe_results` or `vqe.vqe_results`.
        as_of: a tag, a batch id, or the beginning of one.

    Raises:
        InputError: the SQL is wrong, writes, or names what is not there.
    """
    statement = parse(sql)
    with Warehouse.read(data_dir, tables) as warehouse:
        tag = resolve_tag(warehouse, as_of)
        known = {t.name: t for t in warehouse.tables}
        shown = [*known, *(VIEWS if views else ())]
        if isinstance(statement, exp.Show):
            return Answer(_listing(known, views), tag)
        described = statement.this if isinstance(statement, exp.Describe) else None
        wanted = _names(statement, shown)
        with duckdb.connect(":memory:", config={"autoinstall_known_extensions": "false"}) as connection:
            connection.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
            connection.execute("SET TimeZone = 'UTC'")
            _register(connection, warehouse, tag, wanted, _identifiers(statement, wanted))
            for command in _fences(warehouse):
                connection.execute(command)
            target = statement
            if described is not None:  # a table or view, or a query
                queried = isinstance(described, exp.Query)
                target = described if queried else exp.Select().select("*").from_(described)
            text = _translated(target)
            if described is not None:
                docs = _column_docs(_bare(described), known)
                return Answer(_with_our_errors(lambda: _describe(connection, text, docs), warehouse), tag)
            return Answer(_as_spark(_with_our_errors(lambda: _rows(connection, text), warehouse)), tag)


def _rows(connection: duckdb.DuckDBPyConnection, text: str) -> pa.Table:
    """The rows of a SELECT.

    DuckDB gives up where its plan gives a scan of a dataset a comparison that Arrow does not have (IS NOT DISTINCT FROM,
    a list of time stamps). Then the same is asked again, with filters kept above the scans.
    """
    try:
        return _select(connection, text)
    except (duckdb.NotImplementedException, duckdb.InvalidInputException):
        if not (scanned := _scanned_by_arrow(connection)):
            raise
        for name in scanned:
            _view_of_arrow(connection, name, filters=False)
        return _select(connection, text)


def _select(connection: duckdb.DuckDBPyConnection, text: str) -> pa.Table:
    found = connection.sql(text)
    if found is None:
        raise InputError("the statement returns no rows: vqe sql answers SELECT, WITH, SHOW TABLES and DESCRIBE")
    return found.to_arrow_table()


def _translated(statement: exp.Expr) -> str:
    """The statement in DuckDB's SQL."""
    try:
        return _named(statement).sql(dialect="duckdb")
    except SqlglotError as e:
        raise InputError(f"SQL error: {_parse_error(e)}") from e
    except RecursionError:
        raise InputError("SQL error: nested too deep") from None


def _with_our_errors(ask: Callable[[], pa.Table], warehouse: Warehouse) -> pa.Table:
    """What `ask` returns. DuckDB's errors about the query become ours; those about the warehouse's files are raised as they are, for
    `Warehouse` to explain."""
    try:
        return ask()
    except (duckdb.IOException, duckdb.OutOfMemoryException, duckdb.HTTPException):
        raise  # no fault of the query
    except RecursionError:
        raise InputError("SQL error: nested too deep") from None
    except duckdb.Error as e:
        if _names_a_file(e, warehouse):
            raise
        if "arrow_scan" in str(e) or "arrow::" in str(e):
            raise StorageError(f"the warehouse cannot be read: {_one_line(e).removeprefix('SQL error: ')}") from e
        raise InputError(_one_line(e)) from e


def parse(sql: str) -> exp.Expr:
    """The one statement of a text, if it only reads.

    Raises:
        InputError: it is no Spark SQL, several statements, or it writes.
    """
    if re.fullmatch(r"\s*show\s+tables\s*;?\s*", sql, re.IGNORECASE):
        return exp.Show(name="TABLES")
    try:
        statements = [s for s in sqlglot.parse(sql, read="spark") if s is not None]
    except SqlglotError as e:
        raise InputError(f"SQL error: {_parse_error(e)}") from e
    except RecursionError:
        raise InputError("SQL error: nested too deep") from None
    if len(statements) != 1:
        raise InputError(f"one statement at a time, not {len(statements)}")
    statement = statements[0]
    reads = isinstance(statement, exp.Query | exp.Describe)
    writes = (exp.Insert, exp.Update, exp.Delete, exp.Create, exp.Drop, exp.Alter, exp.Merge, exp.Into, exp.Copy)
    if not reads or statement.find(*writes):
        kind = sql.strip().split(None, 1)[0].upper() if sql.strip() else "nothing"
        raise InputError(f"vqe sql only reads: SELECT, WITH, SHOW TABLES or DESCRIBE, not {kind}")
    return statement


def resolve_tag(warehouse: Warehouse, as_of: str | None) -> str | None:
    """The tag to read: the newest published, or the one that `as_of` names in full, as a batch id or by its beginning.

    Raises:
        InputError: none or several begin so.
    """
    tags = warehouse.published()
    if as_of is None:
        return tags[-1] if tags else None
    wanted = as_of if as_of.startswith(TAG_PREFIX) else TAG_PREFIX + as_of
    found = [t for t in tags if t == wanted] or [t for t in tags if t.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise InputError(f"no batch {as_of} (kept: {len(tags)}, newest {', '.join(reversed(tags[-3:])) or 'none'})")
    raise InputError(f"{as_of} begins {len(found)} batches: {', '.join(found[:3])}, ...")


@cache
def view_sql(name: str) -> str:
    """A view's SELECT, in Spark SQL."""
    return (files("spark_jobs") / "sql" / f"{name}.sql").read_text(encoding="utf-8")


def _names(statement: exp.Expr, shown: Sequence[str]) -> list[str]:
    """Tables and views that a statement reads, each after what it needs itself.

    Raises:
        InputError: one is not there.
    """
    needed: list[str] = []

    def need(expression: exp.Expr) -> None:
        local = {cte.alias for cte in expression.find_all(exp.CTE)}
        for table in expression.find_all(exp.Table):
            name = table.name.lower()
            if not isinstance(table.this, exp.Identifier) or (name in {a.lower() for a in local} and not table.db):
                continue
            if table.db.lower() not in ("", NAMESPACE) or name not in shown:
                near = difflib.get_close_matches(name, shown, 1)
                hint = f"did you mean {near[0]}? " if near else ""
                raise InputError(f"no table {table.sql(dialect='spark')}: {hint}Tables: {', '.join(shown)}")
            if name in VIEWS and name not in needed:
                need(parse(view_sql(name)))
            if name not in needed:
                needed.append(name)

    need(statement)
    return needed


def _identifiers(statement: exp.Expr, wanted: Sequence[str]) -> set[str]:
    """Every name in a statement and in the views that it uses, in lower case: among them each column of a filter."""
    expressions = [statement, *(parse(view_sql(name)) for name in wanted if name in VIEWS)]
    return {str(found.this).lower() for e in expressions for found in e.find_all(exp.Identifier)}


def _named(statement: exp.Expr) -> exp.Expr:
    """The statement with each unnamed result named by its text in Spark's SQL, not by DuckDB's translation."""
    select = statement.find(exp.Select)
    if select is None or not isinstance(statement, exp.Select):
        return statement
    for column in list(select.expressions):
        if not isinstance(column, exp.Alias | exp.Column | exp.Star | exp.Explode | exp.Posexplode | exp.Inline):
            column.replace(exp.alias_(column.copy(), column.sql(dialect="spark"), quoted=True))
    return statement


def _as_spark(rows: pa.Table) -> pa.Table:
    """DuckDB sums integers to 128 bits, Spark to 64."""
    for i, field in enumerate(rows.schema):
        if field.type == pa.decimal128(38, 0):
            try:
                rows = rows.set_column(i, field.name, rows.column(i).cast(pa.int64()))
            except pa.ArrowInvalid:
                continue  # beyond 64 bits
    return rows


def _bare(described: Any) -> str:
    return str(described.name).lower()


def _listing(known: dict[str, Table], views: bool) -> pa.Table:
    rows = [{"name": t.name, "kind": "table", "what it is": t.doc} for t in known.values()]
    if views:
        rows += [{"name": v, "kind": "view", "what it is": _view_doc(v)} for v in VIEWS]
    return pa.Table.from_pylist(rows)


def _view_doc(name: str) -> str:
    lines = [line.removeprefix("--").strip() for line in view_sql(name).splitlines() if line.startswith("--")]
    return " ".join(lines)


def _column_docs(name: str, known: dict[str, Table]) -> dict[str, str]:
    """What the columns are: a table's by its declaration, a view's by the comments behind them."""
    if name in known:
        return {c.name: known[name].doc_of(c) for c in known[name].columns}
    if name in VIEWS:
        return dict(re.findall(r"(\w+),? +-- (.+)$", view_sql(name), re.MULTILINE))
    return {}


def _describe(connection: duckdb.DuckDBPyConnection, text: str, docs: dict[str, str]) -> pa.Table:
    found = connection.sql(f"DESCRIBE {text}").fetchall()
    return pa.Table.from_pylist(
        [{"column": name, "type": type_.lower(), "what it is": docs.get(name, "")} for name, type_, *_ in found]
    )


def _register(
    connection: duckdb.DuckDBPyConnection,
    warehouse: Warehouse,
    tag: str | None,
    wanted: Sequence[str],
    identifiers: set[str],
) -> None:
    """Makes the wanted tables and views, in schema `vqe`, found without it too."""
    connection.execute(f"CREATE SCHEMA {NAMESPACE}")
    connection.execute(f"SET search_path = '{NAMESPACE},main'")
    by_name = {t.name: t for t in warehouse.tables}
    for name in wanted:
        if name in by_name:
            _register_table(connection, warehouse, by_name[name], tag, identifiers)
        else:
            select = sqlglot.transpile(view_sql(name), read="spark", write="duckdb")[0]
            connection.execute(f"CREATE VIEW {NAMESPACE}.{name} AS {select}")


def _register_table(
    connection: duckdb.DuckDBPyConnection,
    warehouse: Warehouse,
    table: Table,
    tag: str | None,
    identifiers: set[str],
) -> None:
    found = warehouse.load(table)
    snapshot = warehouse.snapshot_of(found, tag)
    scan = found.scan(snapshot_id=snapshot)
    schema = scan.projection()
    tasks = [] if tag is None else list(scan.plan_files())  # a batch that died before the first was published: nothing
    if any(t.delete_files for t in tasks):
        # We write no delete files; another program did. Only pyiceberg applies them, and into memory.
        _register_arrow(connection, table, scan.to_arrow())
        return
    paths = [local_path(t.file.file_path) for t in tasks]
    if any(p is None for p in paths):
        assert isinstance(found.io, PyArrowFileIO)
        _register_arrow(connection, table, table_dataset(found.io, schema, tasks, identifiers))
        return
    columns = [(f.field_id, f.name, duckdb_type(f.field_type)) for f in schema.fields]
    if not paths:
        nulls = ", ".join(f'CAST(NULL AS {type_}) AS "{name}"' for _, name, type_ in columns)
        connection.execute(f"CREATE VIEW {NAMESPACE}.{table.name} AS SELECT {nulls} LIMIT 0")
        return
    listed = ", ".join(_literal(_as_pattern(p)) for p in paths if p is not None)
    evolved = len(found.metadata.schemas) > 1  # then files may differ in their columns, and DuckDB opens all of them
    source = f"read_parquet([{listed}], union_by_name = {str(evolved).lower()})"
    held = {row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()}
    select = ", ".join(
        f'"{name}"' if name in held else f'CAST(NULL AS {type_}) AS "{name}"' for _, name, type_ in columns
    )
    connection.execute(f"CREATE VIEW {NAMESPACE}.{table.name} AS SELECT {select} FROM {source}")


def _register_arrow(connection: duckdb.DuckDBPyConnection, table: Table, rows: pa.Table | ds.Dataset) -> None:
    connection.register(f"{table.name}{_ARROW}", rows)
    _view_of_arrow(connection, table.name)


def _view_of_arrow(connection: duckdb.DuckDBPyConnection, name: str, filters: bool = True) -> None:
    """Makes a table's view on its Arrow rows. Without `filters` none is handed to their scan: none passes a limit."""
    limit = "" if filters else f" LIMIT {(1 << 63) - 1}"
    connection.execute(f"CREATE OR REPLACE VIEW {NAMESPACE}.{name} AS SELECT * FROM {name}{_ARROW}{limit}")


def _scanned_by_arrow(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Tables whose rows DuckDB is given by Arrow."""
    views = connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
    return [name.removesuffix(_ARROW) for (name,) in views if name.endswith(_ARROW)]


def duckdb_type(type_: IcebergType) -> str:
    """DuckDB's name of an Iceberg type."""
    if isinstance(type_, ListType):
        return f"{duckdb_type(type_.element_type)}[]"
    if isinstance(type_, MapType):
        return f"MAP({duckdb_type(type_.key_type)}, {duckdb_type(type_.value_type)})"
    assert isinstance(type_, PrimitiveType)
    names = {"string": "VARCHAR", "int": "INTEGER", "long": "BIGINT", "timestamptz": "TIMESTAMP WITH TIME ZONE"}
    return names.get(str(type_), str(type_).upper())


def _fences(warehouse: Warehouse) -> list[str]:
    """What keeps a query to the warehouse's files."""
    roots = _roots(warehouse)
    patterns = [*map(str, roots), *map(_as_pattern, roots)]  # DuckDB asks for the pattern first, then for what it finds
    listed = ", ".join(_literal(f"{p}/") for p in dict.fromkeys(patterns))
    return [
        *([f"SET allowed_directories = [{listed}]"] if roots else ()),
        "SET enable_external_access = false",
        "SET lock_configuration = true",
    ]


def _names_a_file(error: duckdb.Error, warehouse: Warehouse) -> bool:
    """Whether an error is of one of the warehouse's files, e.g. a damaged one, and not of the query."""
    named = any(f"{root}/" in str(error) for root in _roots(warehouse))
    return named and not isinstance(error, duckdb.PermissionException)


def _roots(warehouse: Warehouse) -> list[Path]:
    """The folders of a local warehouse: its own, and its tables' where these name it by a link."""
    root = local_path(warehouse.location.warehouse)
    tables = [local_path(warehouse.load(t).location()) for t in warehouse.tables]
    return [
        path for path in (root, *tables) if path is not None and (path is root or not root or root not in path.parents)
    ]


def _as_pattern(path: Path) -> str:
    """The pattern that finds this file alone: DuckDB takes * and [ in a file's name for those of a pattern."""
    return re.sub(r"[*?\[]", r"[\g<0>]", str(path))


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _parse_error(error: SqlglotError) -> str:
    details = getattr(error, "errors", None)
    if details:
        first = details[0]
        return f"{first['description']} at line {first['line']}, column {first['col']}, near {first['highlight']!r}"
    return str(error).splitlines()[0]


def _one_line(error: Exception) -> str:
    """DuckDB's message in one line, its candidates kept."""
    text = re.sub(r"\n\s*LINE \d+:.*", "", str(error), flags=re.DOTALL)
    return "SQL error: " + " ".join(re.sub(r"\s+", " ", text).split())
