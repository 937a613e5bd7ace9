"""`vqe tables`: build, list, verify, reconcile, maintain and relocate the tables of a data dir."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from simulator.cli.console import PlainConsole
    from spark_jobs.batch import BatchReport
    from spark_jobs.raw import RawStore

app = typer.Typer(help="Build, list, verify, maintain and relocate the tables.", no_args_is_help=True)

DataDir = Annotated[
    Path, typer.Option("--data-dir", envvar="VQE_DATA_DIR", help="Folder with raw/ and warehouse/.", show_default=True)
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")]
DEFAULT_DATA_DIR = Path("vqe-data")


@app.command("init")
def init(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Create the tables that are missing; builds do it too, so only readers that come first need it."""
    from spark_jobs.lock import lock_of
    from spark_jobs.warehouse import Location, Warehouse

    location = Location.of(data_dir)
    with lock_of(location) as lock, Warehouse(location, lock=lock) as warehouse:
        warehouse.prepare()
    _console().print(f"{len(warehouse.tables)} tables are there.")


@app.command("build")
def build(data_dir: DataDir = DEFAULT_DATA_DIR, as_json: Json = False) -> None:
    """Bring the tables up to date with raw/ (of VQE_RAW_STORE where it is set): load what is new."""
    from spark_jobs.arrow import batch

    _show_batch(batch.build(data_dir, store=_raw(data_dir)), as_json)


@app.command("reconcile")
def reconcile(data_dir: DataDir = DEFAULT_DATA_DIR, as_json: Json = False) -> None:
    """Compare every raw file with the ledger: load what was missed, replaced or rejected before."""
    from spark_jobs.arrow import batch

    _show_batch(batch.reconcile(data_dir, store=_raw(data_dir)), as_json)


@app.command("list")
def list_(data_dir: DataDir = DEFAULT_DATA_DIR, as_json: Json = False) -> None:
    """List the tables with their rows, files and sizes, and the batches that can be asked for."""
    from spark_jobs import maintenance

    found, tags = maintenance.summaries(data_dir)
    if as_json:
        _print_json({"tables": [asdict(t) for t in found], "batches": tags})
        return
    from rich.table import Table

    shown = Table("table", "a row is", box=None, header_style="bold", pad_edge=False)
    for name in ("rows", "files", "kB"):
        shown.add_column(name, justify="right")
    for t in found:
        shown.add_row(t.name, t.doc.split(":")[0].split(";")[0], f"{t.rows:,}", f"{t.files:,}", f"{t.bytes / 1e3:,.0f}")
    console = _console()
    console.print(shown)
    if tags:
        console.print(f"\n{len(tags)} batches kept; the newest: {tags[-1]}")


@app.command("verify")
def verify(data_dir: DataDir = DEFAULT_DATA_DIR, as_json: Json = False) -> None:
    """Check that every row that was promised is there, once, and that every file can be read."""
    from spark_jobs import maintenance
    from spark_jobs.raw import named_store

    issues = maintenance.verify(data_dir, store=named_store(data_dir))
    if as_json:
        _print_json(
            {
                "issues": [
                    {"check": i.check_name, "table": i.table_name, "key": dict(i.row_key), "detail": i.detail}
                    for i in issues
                ]
            }
        )
    else:
        console = _console()
        for issue in issues[:50]:
            key = ", ".join(f"{k} {v}" for k, v in issue.row_key.items())
            console.print(f"{issue.check_name}: {issue.table_name} {key}: {issue.detail}")
        if len(issues) > 50:
            console.print(f"... and {len(issues) - 50} more (--json prints all)")
        if not issues:
            console.print("The tables are whole: counts as promised, keys unique, tags complete, files readable.")
    if issues:
        raise typer.Exit(1)


@app.command("maintain")
def maintain(data_dir: DataDir = DEFAULT_DATA_DIR, as_json: Json = False) -> None:
    """Merge small files and delete files that no snapshot has. No row changes."""
    from spark_jobs import maintenance

    done = maintenance.maintain(data_dir)
    merged = sum(done.merged_files.values())
    told = (
        f"Merged {merged} small files of {len(done.merged_files)} tables, deleted {done.orphan_files} files that no "
        f"snapshot has ({done.orphan_bytes / 1e6:.1f} MB), in {done.seconds:.1f} s."
    )
    _tell(done, as_json, lambda console: console.print(told))


@app.command("relocate")
def relocate(data_dir: DataDir = DEFAULT_DATA_DIR, as_json: Json = False) -> None:
    """Make the tables of a data dir that was copied or moved its own; history and tags are kept.

    Where files that they need are missing, the old tables are set aside and new ones are built from raw/.
    """
    from spark_jobs import relocate as relocation
    from spark_jobs.arrow.batch import build as build_tables
    from spark_jobs.raw import named_store

    done = relocation.relocate(data_dir, build_tables, store=named_store(data_dir))

    def in_words(console: "PlainConsole") -> None:
        if done.moved_from is None:
            console.print("Nothing to do: the tables are where their metadata says.")
        elif done.rebuilt is None:
            console.print(
                f"{done.tables} tables are at home in {data_dir} now, with their history and tags: {done.files} metadata files "
                f"written in {done.seconds:.1f} s. They were those of {done.moved_from.removeprefix('file://')}."
            )
        else:
            console.print(
                f"The tables could not be relocated ({done.reason}) and are built anew from raw/: their history begins here. "
                f"The old ones are in {done.set_aside}; what raw/ no longer has is there alone."
            )
            _tell_batch(done.rebuilt, console)

    _tell(done, as_json, in_words)


def _show_batch(report: "BatchReport", as_json: bool) -> None:
    _tell(report, as_json, lambda console: _tell_batch(report, console))


def _tell_batch(report: "BatchReport", console: "PlainConsole") -> None:
    if report.batch_id is None:
        console.print("The tables are up to date: no new raw file.")
        return
    for path, reason in report.rejected:
        console.print(f"rejected {path}: {reason}", style="red")
    for name, rows in report.rows.items():
        if rows:
            console.print(f"{name:<20} {rows:>10,} rows")
    told = [f"{report.loaded} files loaded in {report.seconds:.1f} s"]
    if report.rejected:
        told.append(f"{len(report.rejected)} rejected")
    if report.duplicates:
        told.append(f"{report.duplicates:,} rows were there already")
    if report.issues:
        told.append(f"{report.issues} new rows in quality_issues")
    console.print(f"{', '.join(told)}. Batch {report.batch_id}")


def _raw(data_dir: Path) -> "RawStore":
    from simulator.errors import InputError
    from spark_jobs.raw import LocalStore, named_store

    store = named_store(data_dir)
    if isinstance(store, LocalStore) and not store.root.is_dir():
        raise InputError(f"no data dir {store.root}: make a run first, or name one with --data-dir")
    return store


def _tell(found: "DataclassInstance", as_json: bool, in_words: Callable[["PlainConsole"], None]) -> None:
    """Print what a command found, as JSON or in words."""
    if as_json:
        _print_json(asdict(found))
    else:
        in_words(_console())


def _print_json(found: Any) -> None:
    typer.echo(json.dumps(found, default=str))


def _console() -> "PlainConsole":
    from simulator.cli.console import PlainConsole

    return PlainConsole()
