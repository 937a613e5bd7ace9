"""What `vqe run` shows: a progress bar on stderr while it runs, a table on stdout when it has ended, or JSON lines."""

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import JustifyMethod
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from simulator.cli.console import PlainConsole, stdout_console
from simulator.events.records import Iteration, Result
from simulator.tasks.vqe.summary import summary_record

if TYPE_CHECKING:
    from simulator.runs.child import ChildAnswer
    from simulator.settings import Settings


class RunProgress:
    """A bar over the runs, with the stage, iteration, energy and error of the one that runs."""

    def __init__(self, total: int, *, quiet: bool) -> None:
        console = PlainConsole(file=sys.stderr)
        self._live = console.is_terminal and not quiet
        self._lines = None if quiet or self._live else console
        self._done, self._total = 0, total
        self._progress = Progress(
            TextColumn("{task.fields[molecule]:<8}", style="bold", markup=False), BarColumn(bar_width=28), MofNCompleteColumn(),
            TimeElapsedColumn(), TextColumn("{task.fields[state]}", markup=False),
            console=console, disable=not self._live, transient=True,
        )  # fmt: skip
        self._task = self._progress.add_task("runs", total=total, molecule="", state="")

    def __enter__(self) -> "RunProgress":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, name: str) -> None:
        self._progress.update(self._task, molecule=name, state="")

    def stage(self, name: str) -> None:
        self._progress.update(self._task, state=name)

    def iteration(self, event: Iteration) -> None:
        if self._live:
            error = "" if event.error_mha is None else f"  {event.error_mha:+.3f} mHa"
            self._progress.update(self._task, state=f"iteration {event.iteration}  {event.energy:.8f} Ha{error}")

    def end(self, result: Result) -> None:
        self._done += 1
        self._progress.update(self._task, advance=1)
        if self._lines is not None:
            error = "" if result.energy is None else "  error unknown"
            if result.error_mha is not None:
                error = f"  {result.error_mha:+.4f} mHa to {result.reference_name}"
            energy = "" if result.energy is None else f"  {result.energy:.8f} Ha"
            self._lines.print(
                f"{self._done}/{self._total} {result.molecule_name} {result.status}{energy}{error}"
                f"  {result.total_seconds:.2f} s",
                soft_wrap=True,
            )  # fmt: skip


class SweepProgress:
    """A bar over the runs of a sweep, with how many did not complete."""

    def __init__(self, name: str, total: int, *, quiet: bool) -> None:
        console = PlainConsole(file=sys.stderr)
        self._live = console.is_terminal and not quiet
        self._lines = None if quiet or self._live else console
        self._total, self._ended, self._failed = total, 0, 0
        self._progress = Progress(
            TextColumn("{task.description}", style="bold", markup=False), BarColumn(bar_width=28), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("{task.fields[state]}", markup=False), console=console, disable=not self._live,
        )  # fmt: skip
        self._task = self._progress.add_task(name, total=total, state="")

    def __enter__(self) -> "SweepProgress":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def end(self, name: str, answer: "ChildAnswer") -> None:
        self._ended += 1
        self._failed += not answer.completed
        state = f"{self._failed} not completed" if self._failed else ""
        self._progress.update(self._task, advance=1, state=state)
        if self._lines is not None:
            energy = (answer.summary or {}).get("energy")
            found = answer.error or ("" if energy is None else f"{energy:.8f} Ha")
            self._lines.print(f"{self._ended}/{self._total} {name} {found}", soft_wrap=True)


def print_json(result: Result) -> None:
    """One JSON object a line on stdout."""
    sys.stdout.write(json.dumps(summary_record(result)) + "\n")
    sys.stdout.flush()


def print_summary(results: list[Result], settings: "Settings", report: Any) -> None:
    """A table of the runs on stdout, the notes under it, and where the data are."""
    console = stdout_console()
    table = Table(title="VQE runs", title_justify="left", box=SIMPLE_HEAD)
    narrow = console.width < 100
    columns: list[tuple[str, JustifyMethod, Callable[[Result], str | Text]]] = [
        ("molecule", "left", lambda r: r.molecule_name or r.formula),
        ("ansatz", "left", lambda r: r.spec["ansatz"]),
        ("engine", "left", lambda r: r.spec["engine"]),
        ("energy / Ha", "right", lambda r: _number(r.energy, 8)),
        ("error / mHa", "right", _error),
        ("to", "left", lambda r: r.reference_name or ""),
        ("<S²>", "right", lambda r: _number(r.s_squared, 3)),
        ("iter.", "right", lambda r: str(r.iterations)),
        ("s", "right", lambda r: f"{r.total_seconds:.2f}"),
        ("status", "left", _status),
    ]
    columns = [c for c in columns if not (narrow and c[0] in ("engine", "<S²>"))]
    for heading, justify, _ in columns:
        table.add_column(heading, justify=justify, no_wrap=True)
    for r in results:
        table.add_row(*(cell(r) for _, _, cell in columns))
    console.print(table)
    for r in results:
        for line in ([Text(r.error, style="red")] if r.error else []) + _doubts(r) + [Text(note) for note in r.notes]:
            console.print(Text(f"{r.molecule_name}: ").append_text(line))
    if report is not None and report.batch_id is not None:
        rows = sum(report.rows.values())
        console.print(f"{rows:,} new rows in the tables of {settings.data_dir} ({report.seconds:.1f} s)")
        if report.rejected:
            console.print(f"{len(report.rejected)} raw files could not be read; see vqe tables verify", style="red")


def _doubts(r: Result) -> list[Text]:
    if r.physical is False:
        return [Text(f"unphysical: {r.physical_reason}", style="bold red")]
    if r.status == "completed" and not r.converged:
        return [Text(f"not converged: {r.convergence_reason}", style="yellow")]
    return []


def _status(r: Result) -> Text:
    if r.physical is False:
        return Text("unphysical", style="bold red")
    if r.status == "completed":
        return Text("converged", style="green") if r.converged else Text("not converged", style="yellow")
    return Text(r.status, style="red" if r.status == "failed" else "yellow")


def _error(r: Result) -> str | Text:
    if r.error_mha is None:
        return "" if r.energy is None else "unknown"
    return Text(f"{r.error_mha:+.4f}", style="green" if r.chemical_accuracy else "yellow")


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
