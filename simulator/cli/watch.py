"""`vqe watch`: running VQEs live in the terminal."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from simulator.live.watch import Watch

_ROWS = 30


def watch(
    run: Annotated[list[str] | None, typer.Argument(help="Run ids (beginning or end) or molecules. [all]")] = None,
    since: Annotated[
        float, typer.Option("--since", min=0, help="Begin with events of the last so many seconds.")
    ] = 3600,
    exit_when_done: Annotated[
        bool, typer.Option("--exit-when-done", help="End when every run shown has ended.")
    ] = False,
    sink: Annotated[str | None, typer.Option("--sink", help="Follow the topics (kafka) or local files (file).")] = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="Folder of raw files.", show_default="./vqe-data")
    ] = None,
) -> int:
    """Show running VQEs live: energy, error, gradient norm and a sparkline of the convergence. Ctrl-C ends it."""
    from rich.live import Live

    from simulator.cli.console import PlainConsole
    from simulator.live.watch import Watch, make_source
    from simulator.settings import load_settings

    settings = load_settings(sink=sink, data_dir=data_dir)
    if settings.sink == "kafka":
        from simulator.kafka.clients import require_kafka

        require_kafka()
    source, watched = make_source(settings, since_seconds=since), Watch(tuple(run or ()))
    console = PlainConsole(width=None if sys.stdout.isatty() else 140)
    quiet_rounds = 0
    try:
        with Live(_table(watched), console=console, auto_refresh=False, transient=False) as live:
            while True:
                quiet_rounds = 0 if watched.take(source.read()) else quiet_rounds + 1
                if console.is_terminal:
                    live.update(_table(watched), refresh=True)
                shown = watched.shown()
                ended = bool(shown) and all(r.status != "running" for r in shown)
                if exit_when_done and ended and quiet_rounds >= 10:  # iterations may come behind their result
                    live.update(_table(watched), refresh=True)
                    return 0
    except KeyboardInterrupt:
        return 0
    finally:
        source.close()


def _table(watched: "Watch") -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from simulator.live.watch import sparkline
    from simulator.trust import CHEMICAL_ACCURACY_MHA

    runs = watched.shown()
    active = [r for r in runs if r.status == "running"]
    ended = [r for r in runs if r.status != "running"]
    rows = (ended + active)[-_ROWS:]
    table = Table(box=SIMPLE_HEAD, title=f"{len(active)} running, {len(ended)} ended", title_justify="left")
    for heading in ("run", "molecule", "ansatz", "optimizer"):
        table.add_column(heading, no_wrap=True)
    for heading in ("iteration", "energy / Ha", "error / mHa", "|gradient|", "s"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("convergence", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for r in rows:
        good = r.error_mha is not None and abs(r.error_mha) < CHEMICAL_ACCURACY_MHA
        table.add_row(
            r.run_id[-8:], r.molecule, r.ansatz, r.optimizer, "" if r.iteration is None else str(r.iteration),
            "" if r.energy is None else f"{r.energy:.8f}",
            "" if r.error_mha is None else Text(f"{r.error_mha:+.4f}", style="green" if good else "yellow"),
            "" if r.gradient_norm is None else f"{r.gradient_norm:.1e}", f"{r.seconds:.1f}",
            Text(sparkline(r.points), style="cyan"), _status(r.status, r.physical),
        )  # fmt: skip
    if not runs:
        table.caption = "waiting for events"
    return table


def _status(status: str, physical: bool | None) -> "Text":
    from rich.text import Text

    if physical is False:
        return Text("unphysical", style="bold red")
    colour = {"running": "cyan", "completed": "green", "interrupted": "yellow"}.get(status, "red")
    return Text(status, style=colour)
