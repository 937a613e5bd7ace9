"""`vqe jobs`: what waits, runs and has ended in the work queue; cancel and retry."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from simulator.queue import Job, JobFilter, JobQueue

app = typer.Typer(help="List, show, cancel and retry jobs of the work queue.", no_args_is_help=True)

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Folder with queue.db; VQE_QUEUE_URI names another database.", show_default="./vqe-data"),
]  # fmt: skip
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a line on stdout, and nothing else there.")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="[JOB]...", help="Job ids, or their beginnings or ends.")]
States = Annotated[
    list[str] | None,
    typer.Option("--state", help="waiting, running, completed, failed, cancelled or dead; may be given several times."),
]
Sweep = Annotated[str | None, typer.Option("--sweep", help="Jobs of this sweep id.")]
Owner = Annotated[str | None, typer.Option("--owner", help="Jobs of this owner.")]
Kind = Annotated[str | None, typer.Option("--kind", help="Jobs of this kind, e.g. vqe.")]
Name = Annotated[str | None, typer.Option("--name", help="Jobs of this name, e.g. h2o.")]
Since = Annotated[
    str | None,
    typer.Option("--since", help="Submitted since: 30m, 12h, 7d ago, or a time such as 2026-01-31T12:00 (UTC)."),
]
Limit = Annotated[int, typer.Option("--limit", min=1, help="At most so many, the newest.")]

_AGES = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_WATCH_SECONDS = 1.0
_RUNNING_SHOWN = 30
_COLOURS = {"running": "cyan", "completed": "green", "cancelled": "yellow", "failed": "red", "dead": "bold red"}


@app.command("list")
def list_(
    state: States = None, sweep: Sweep = None, owner: Owner = None, kind: Kind = None, name: Name = None,
    since: Since = None, limit: Limit = 50, as_json: Json = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show what waits and runs live, until Ctrl-C.")] = False,
    data_dir: DataDir = None,
) -> None:  # fmt: skip
    """List jobs, the newest first: `vqe jobs list --state failed --since 7d`, `vqe jobs list --sweep 0199 --json`."""
    chosen = _filter(state, sweep, owner, kind, name, since)
    with _queue(data_dir) as queue:
        if watch:
            _watch(queue, chosen, limit)
            return
        found = _listed(queue, chosen, limit)
        if as_json:
            for job in found:
                typer.echo(json.dumps(_plain(job, with_spec=False), default=str))
            return
        from simulator.cli.console import stdout_console

        console = stdout_console()
        if found:
            console.print(_table(found))
        console.print(_counted(queue.counts()))


@app.command("show")
def show(ids: Annotated[list[str], typer.Argument(metavar="JOB...", help="Job ids, or their beginnings or ends.")],
         as_json: Json = False, data_dir: DataDir = None) -> None:  # fmt: skip
    """Show all that is known of jobs, their specifications included: `vqe jobs show 1f3a9c`."""
    with _queue(data_dir) as queue:
        for job_id in queue.find(ids):
            job = queue.job(job_id)
            if as_json:
                typer.echo(json.dumps(_plain(job, with_spec=True), default=str))
            else:
                _show(job)


@app.command("cancel")
def cancel(
    ids: Ids = None, state: States = None, sweep: Sweep = None, owner: Owner = None, kind: Kind = None,
    name: Name = None, since: Since = None, data_dir: DataDir = None,
) -> None:  # fmt: skip
    """Cancel jobs that wait and stop those that run: `vqe jobs cancel 1f3a9c`, `vqe jobs cancel --sweep 0199...`."""
    chosen = _filter(state, sweep, owner, kind, name, since)
    with _queue(data_dir) as queue:
        done = queue.cancel(_chosen(queue, ids, chosen, "cancel"))
    typer.echo(f"{done.n_cancelled} waiting jobs cancelled, {done.n_requested} running ones asked to stop.")


@app.command("retry")
def retry(
    ids: Ids = None, state: States = None, sweep: Sweep = None, owner: Owner = None, kind: Kind = None,
    name: Name = None, since: Since = None, data_dir: DataDir = None,
) -> None:  # fmt: skip
    """Let jobs wait again that failed, were cancelled or are dead: `vqe jobs retry 1f3a9c`, `vqe jobs retry --state dead`."""
    chosen = _filter(state, sweep, owner, kind, name, since)
    with _queue(data_dir) as queue:
        n = queue.retry(_chosen(queue, ids, chosen, "retry"))
    typer.echo(f"{n} jobs wait again.")


@app.command("migrate")
def migrate(data_dir: DataDir = None) -> None:
    """Make the queue's tables in the database of VQE_QUEUE_URI, or bring them to this version: once before a platform starts."""
    from simulator.queue import JobQueue
    from simulator.settings import load_settings

    with JobQueue.open(load_settings(data_dir=data_dir), migrate=True) as queue:
        typer.echo(f"The queue's tables are those of this version: {queue.where}")


@contextmanager
def _queue(data_dir: Path | None) -> Iterator["JobQueue"]:
    from simulator.errors import InputError
    from simulator.queue import JobQueue
    from simulator.settings import load_settings

    settings = load_settings(data_dir=data_dir)
    path = settings.data_dir / "queue.db"
    if settings.queue_uri is None and not path.exists():
        raise InputError(f"no work queue {path}: submit something first, or name a data dir with --data-dir")
    with JobQueue.open(settings) as queue:
        yield queue


def _filter(
    state: list[str] | None, sweep: str | None, owner: str | None, kind: str | None, name: str | None, since: str | None
) -> "JobFilter":
    from simulator.queue import JobFilter

    states: Any = tuple(state) if state else None
    return JobFilter(states, sweep, owner, kind, name, None if since is None else _time(since))


def _time(text: str) -> datetime:
    from simulator.errors import InputError

    if (match := re.fullmatch(r"(\d{1,4})([smhd])", text)) is not None:
        return datetime.now(UTC) - timedelta(**{_AGES[match[2]]: int(match[1])})
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"--since {text!r}: use 30m, 12h, 7d or a time such as 2026-01-31T12:00") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _chosen(queue: "JobQueue", ids: list[str] | None, chosen: "JobFilter", verb: str) -> Any:
    """The jobs of a command that changes them: by id or by a filter, never all for want of either."""
    from simulator.errors import InputError
    from simulator.queue import JobFilter

    if ids and chosen != JobFilter():
        raise InputError(f"vqe jobs {verb}: give either job ids or a filter such as --sweep")
    if ids:
        return queue.find(ids)
    if chosen == JobFilter():
        raise InputError(f"vqe jobs {verb}: which jobs? Give ids, or a filter such as --sweep or --state")
    return chosen


def _listed(queue: "JobQueue", chosen: "JobFilter", limit: int) -> "list[Job]":
    given = {f.name: getattr(chosen, f.name) for f in fields(chosen)}
    return queue.jobs(**given, limit=limit)


def _plain(job: "Job", *, with_spec: bool) -> dict[str, Any]:
    """A job as JSON values; times as ISO 8601."""
    found = asdict(job)
    spec = found.pop("spec_json")
    if with_spec:
        found["spec"] = json.loads(spec)
    else:
        del found["checkpoint"]
    return {k: v.isoformat() if isinstance(v, datetime) else v for k, v in found.items()}


def _table(jobs: "list[Job]") -> "Table":
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("job", "kind", "name", "state", "device", "owner"):
        shown.add_column(heading, no_wrap=True)
    for heading in ("priority", "attempt", "age"):
        shown.add_column(heading, justify="right", no_wrap=True)
    shown.add_column("energy / Ha", justify="right", no_wrap=True)
    shown.add_column("error", no_wrap=True, overflow="ellipsis")
    now = datetime.now(UTC)
    for job in jobs:
        energy = (job.summary or {}).get("energy", job.checkpoint_energy)
        shown.add_row(
            Text(job.job_id[-12:]), Text(job.kind), Text(job.name), Text(job.state, style=_COLOURS.get(job.state, "")),
            Text(job.device), Text(job.owner), str(job.priority), str(job.attempt), _age(now - job.created_at),
            f"{energy:.8f}" if isinstance(energy, float) else "", Text(job.error or ""),
        )  # fmt: skip
    return shown


def _show(job: "Job") -> None:
    from simulator.cli.console import stdout_console

    console = stdout_console()
    for name, value in _plain(job, with_spec=True).items():
        if value is None or value in ("", ()) or name.startswith("checkpoint_"):
            continue
        if name == "checkpoint":
            value = f"iteration {value['iteration']}, {value['energy']:.10f} Ha, {len(value['parameters'])} parameters"
        elif isinstance(value, dict):
            value = json.dumps(value, indent=2)
        console.print(f"{name:<16} {value}", soft_wrap=True)
    console.print()


def _counted(counts: dict[tuple[str, str, str], int]) -> str:
    from simulator.queue import STATES

    totals = {s: sum(n for (state, _, _), n in counts.items() if state == s) for s in STATES}
    return ", ".join(f"{n:,} {state}" for state, n in totals.items() if n) or "No jobs."


def _age(age: timedelta) -> str:
    seconds = max(0, int(age.total_seconds()))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _watch(queue: "JobQueue", chosen: "JobFilter", limit: int) -> None:
    """The counts and the running jobs, each second; while the database is away, its error in their place."""
    from rich.live import Live
    from rich.text import Text

    from simulator.cli.console import stdout_console
    from simulator.queue import QueueAway

    console = stdout_console()
    with Live(_picture(queue, chosen, limit), console=console, auto_refresh=False) as live:
        try:
            while True:
                time.sleep(_WATCH_SECONDS)
                try:
                    live.update(_picture(queue, chosen, limit), refresh=True)
                except QueueAway as error:
                    live.update(Text(str(error), style="red"), refresh=True)
        except KeyboardInterrupt:
            return


def _picture(queue: "JobQueue", chosen: "JobFilter", limit: int) -> "Group":
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from simulator.queue import JobFilter

    of_running = {**{f.name: getattr(chosen, f.name) for f in fields(JobFilter)}, "states": ("running",)}
    running = queue.jobs(**of_running, limit=min(limit, _RUNNING_SHOWN))
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("job", "kind", "name", "device", "worker"):
        shown.add_column(heading, no_wrap=True)
    for heading in ("attempt", "runs for", "iteration", "energy / Ha"):
        shown.add_column(heading, justify="right", no_wrap=True)
    now = datetime.now(UTC)
    for job in running:
        shown.add_row(
            Text(job.job_id[-12:]), Text(job.kind), Text(job.name), Text(job.device), Text(job.worker or ""),
            str(job.attempt), _age(now - (job.started_at or now)),
            "" if job.checkpoint_iteration is None else str(job.checkpoint_iteration),
            "" if job.checkpoint_energy is None else f"{job.checkpoint_energy:.8f}",
        )  # fmt: skip
    waits = queue.oldest_waiting()
    longest = ", ".join(f"{_age(timedelta(seconds=s))} on {device}" for device, s in sorted(waits.items()))
    return Group(
        Text(_counted(queue.counts())), Text(f"longest wait: {longest}" if longest else "nothing waits"), Text(), shown
    )
