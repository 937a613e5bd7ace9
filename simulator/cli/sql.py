"""`vqe sql`: a question to the tables."""

import csv
import json
import re
import sys
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simulator.errors import InputError
from simulator.input_files import read_text

if TYPE_CHECKING:
    import pyarrow as pa

MAX_SHOWN = 200
"""Rows of the table format; CSV and JSON print all."""


class Format(StrEnum):
    """How an answer is printed."""

    table = "table"
    csv = "csv"
    json = "json"


def sql(
    text: Annotated[
        str | None, typer.Argument(metavar="SQL", help="One SELECT, WITH, SHOW TABLES or DESCRIBE.")
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read the SQL from a file; - is stdin.")] = None,
    as_of: Annotated[str | None, typer.Option(help="Tables as of a batch: its tag, its id, or how one begins.")] = None,
    format_: Annotated[Format, typer.Option("--format", help="How to print the answer.")] = Format.table,
    data_dir: Annotated[
        Path, typer.Option("--data-dir", envvar="VQE_DATA_DIR", help="Folder with raw/ and warehouse/.")
    ] = Path("vqe-data"),
) -> None:
    """Answer a question from the tables, in Spark's SQL.

    SHOW TABLES lists them, DESCRIBE vqe_results their columns. Example:

        vqe sql "select molecule_name, ansatz, energy, error_mha from vqe_results order by error_mha"
    """
    statement = _statement(text, file)
    from spark_jobs.query import query

    answer = query(data_dir, statement, as_of=as_of)
    if format_ is Format.csv:
        _print_csv(answer.rows)
    elif format_ is Format.json:
        typer.echo(json.dumps([{k: _json_value(v) for k, v in row.items()} for row in answer.rows.to_pylist()]))
    else:
        _print_table(answer.rows)


def _statement(text: str | None, file: Path | None) -> str:
    if (text is None) == (file is None):
        raise InputError('give the SQL as an argument or with --file, e.g. vqe sql "show tables"')
    if file is None:
        return text or ""
    return read_text(Path("/dev/stdin") if str(file) == "-" else file, f"cannot read {file}")


def _print_csv(rows: "pa.Table") -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(rows.column_names)
    for batch in rows.to_batches(max_chunksize=10_000):
        for row in zip(*(c.to_pylist() for c in batch.columns), strict=True):
            writer.writerow([_csv_value(v) for v in row])


def _print_table(rows: "pa.Table") -> None:
    import pyarrow as pa
    from rich.table import Table
    from rich.text import Text

    from simulator.cli.console import PlainConsole

    shown = Table(box=None, header_style="bold", pad_edge=False)
    for field in rows.schema:
        is_number = (
            pa.types.is_integer(field.type) or pa.types.is_floating(field.type) or pa.types.is_decimal(field.type)
        )
        shown.add_column(Text(field.name), justify="right" if is_number else "left", overflow="ellipsis", no_wrap=True)
    for row in rows.slice(0, MAX_SHOWN).to_pylist():
        shown.add_row(*(Text(_text(v)) for v in row.values()))
    # a pipe has no width: nothing is cut there
    console = PlainConsole(width=None if sys.stdout.isatty() else max(200, 40 * rows.num_columns))
    console.print(shown)
    if rows.num_rows > MAX_SHOWN:
        console.print(f"... {rows.num_rows:,} rows; --format csv or json prints all")


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value):
        return f"{value[:12]}…"  # an id; CSV and JSON have it whole
    text = str(value) if not isinstance(value, list | dict) else json.dumps(_json_value(value))
    return text if len(text) <= 120 else text[:117] + "..."


def _csv_value(value: Any) -> Any:
    if value is None:
        return ""
    value = _json_value(value)
    return json.dumps(value) if isinstance(value, list | dict | bool) else value


def _json_value(value: Any) -> Any:
    """The value as JSON holds it: times in ISO 8601, numbers that JSON lacks as null."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [_json_value(v) for v in value]
    if isinstance(value, dict):
        return {str(k): _json_value(v) for k, v in value.items()}
    return str(value)
