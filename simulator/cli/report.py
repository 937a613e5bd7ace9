"""`vqe report`: an HTML page with the results, plots inside."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from simulator.errors import StorageError


def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="Run ids, how they begin, or molecules; none: all runs."),
    ] = None,
    data_dir: Annotated[
        Path, typer.Option("--data-dir", envvar="VQE_DATA_DIR", help="Folder with raw/ and warehouse/.")
    ] = Path("vqe-data"),
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; by default in reports/.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object with the path, and nothing else.")
    ] = False,
) -> None:
    """Write an HTML report: a summary, convergence, accuracy by reference, stage times and every run's details."""
    from simulator.report.collect import collect
    from simulator.report.html import page

    found = collect(data_dir, runs or ())
    now = datetime.now(UTC)
    path = output or data_dir / "reports" / f"report-{now:%Y%m%d-%H%M%S}.html"
    path = Path(os.path.expanduser(path))
    text = page(found, now)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as e:
        raise StorageError(f"cannot write {path}: {e.strerror}") from e
    if as_json:
        typer.echo(json.dumps({"path": str(path), "runs": len(found.runs)}))
    else:
        typer.echo(f"Report of {len(found.runs)} runs: {path}")
