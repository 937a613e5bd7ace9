"""`vqe sweep` and `vqe submit`."""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simulator.cli import options as o
from simulator.cli.run import build_after_runs, check_data_dir
from simulator.errors import InputError, NoTables, VqeError

if TYPE_CHECKING:
    from simulator.queue import Job, JobQueue, NewJob
    from simulator.runs.child import ChildAnswer
    from simulator.runs.sweep import PlannedRun, Sweep
    from simulator.settings import Settings

_LOOK_SECONDS = 2.0
"""Between two looks at the queue of who waits for jobs."""

Experiment = Annotated[Path, typer.Argument(help="Experiment file: molecules, settings, matrix, seeds (YAML).")]
Priority = Annotated[
    int,
    typer.Option("--priority", envvar="VQE_PRIORITY", min=0, max=9, help="Of the jobs in the queue; 9 is taken first."),
]
Force = Annotated[bool, typer.Option("--force", envvar="VQE_FORCE", help="Run what is completed already, too.")]


def sweep(
    experiment: Experiment,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and run nothing.")] = False,
    submit_jobs: Annotated[
        bool, typer.Option("--submit", help="Put the runs into the queue and leave them to workers.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="With --submit: wait until every run has ended, or one cannot.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            envvar="VQE_WORKERS",
            min=1,
            max=1024,
            help="Runs at a time.",
            show_default="by cores and memory",
        ),
    ] = None,
    priority: Priority = 5,
    force: Force = False,
    sink: o.SinkName = None,
    record_parameters: o.RecordParameters = None,
    data_dir: o.DataDir = None,
    json_output: o.JsonOfRuns = False,
) -> int:
    """Run a matrix of molecules, settings and seeds; what is completed is skipped."""
    from simulator.queue import JobQueue
    from simulator.runs.sweep import load_sweep
    from simulator.settings import load_settings

    if wait and not submit_jobs:
        raise InputError("--wait is for --submit: without it a sweep runs here, and ends when its runs have")
    settings = load_settings(data_dir=data_dir, sink=sink, record_parameters=record_parameters)
    check_data_dir(settings)
    planned = _told(load_sweep(experiment))
    if submit_jobs:
        return _submit(planned, settings, force=force, priority=priority, wait=wait)
    with JobQueue.open(settings) as queue:
        done = set() if force else completed_specs(settings, queue, planned)
        todo = [run for run in planned.runs if run.spec.spec_id not in done]
        if dry_run:
            _show_plan(planned, todo, queue, json_output)
            return 0
        if not todo:
            told = f"{planned.sweep_id}: all {len(planned.runs)} runs are completed (--force runs them again)"
            typer.echo(told, err=json_output)
            return 0
        return _work_off(
            planned, todo, queue, settings, workers or fitting_workers(len(todo)), force, priority, json_output
        )


def submit(
    experiment: Experiment,
    force: Force = False,
    priority: Priority = 5,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until every run has ended, or one cannot.")] = False,
    data_dir: o.DataDir = None,
) -> int:
    """Put the runs of an experiment into the queue, for workers (vqe worker)."""
    from simulator.runs.sweep import load_sweep
    from simulator.settings import load_settings

    settings = load_settings(data_dir=data_dir)
    return _submit(_told(load_sweep(experiment)), settings, force=force, priority=priority, wait=wait)


def _told(planned: "Sweep") -> "Sweep":
    for note in planned.notes:
        typer.echo(note, err=True)
    return planned


def completed_specs(settings: "Settings", queue: "JobQueue", planned: "Sweep") -> set[str]:
    """Specifications of the sweep that are completed: the queue knows it, else the tables do."""
    asked = {run.spec.spec_id for run in planned.runs}
    known = queue.completed_specs("vqe", asked)
    if known == asked:
        return known
    if not has_tables(settings) and (settings.sink != "file" or not has_events(settings)):
        return known
    from spark_jobs.query import query

    if settings.sink == "file":
        from spark_jobs.arrow.batch import build

        build(settings.data_dir)  # what an interrupted sweep left in raw files counts as well
    statement = "select distinct spec_id from vqe_results where status = 'completed'"
    try:
        return known | {row["spec_id"] for row in query(settings.data_dir, statement).rows.to_pylist()}
    except NoTables:
        return known


def has_tables(settings: "Settings") -> bool:
    """Whether this process can read tables: those of a catalog that the settings name, or of its data dir."""
    return settings.catalog_uri is not None or (settings.data_dir / "warehouse" / "catalog.db").is_file()


def has_events(settings: "Settings") -> bool:
    """Whether there may be raw events: somewhere else, or in the data dir."""
    return settings.raw_store is not None or (settings.raw_dir.is_dir() and any(settings.raw_dir.iterdir()))


def _jobs_of(planned: "Sweep", runs: "list[PlannedRun]", force: bool, priority: int) -> "Iterator[NewJob]":
    from simulator.queue import NewJob

    for run in runs:
        yield NewJob(
            "vqe", run.spec.spec_id, run.spec.canonical_json(), run.name, sweep_id=planned.sweep_id, owner=owner(),
            priority=priority, device=run.spec.device, force=force,
        )  # fmt: skip


def owner() -> str:
    """Who asks for jobs here: the user of this process."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user has a number and no name
        return f"uid-{os.getuid()}"


def _submit(planned: "Sweep", settings: "Settings", *, force: bool, priority: int, wait: bool) -> int:
    from simulator.queue import JobQueue

    with JobQueue.open(settings) as queue:
        done = set() if force else completed_specs(settings, queue, planned)
        todo = [run for run in planned.runs if run.spec.spec_id not in done]
        sent = queue.submit(_jobs_of(planned, todo, force, priority))
        known = len(planned.runs) - sent.n_new
        typer.echo(f"{planned.sweep_id}: {sent.n_new} jobs in the queue" + (f", {known} known before" if known else ""))
        return _wait_for(queue, sent.job_ids, planned.sweep_id) if wait else 0


def _wait_for(queue: "JobQueue", job_ids: list[str], sweep_id: str) -> int:
    """Wait for jobs; ends with all of them, or at the first that cannot be completed."""
    from simulator.queue import QueueAway

    while True:
        try:
            states = queue.states(job_ids)
        except QueueAway as error:  # it is asked again: jobs do not depend on who waits for them
            typer.echo(f"vqe: {error}", err=True)
            time.sleep(_LOOK_SECONDS)
            continue
        bad = [job_id for job_id, state in states.items() if state in ("failed", "dead", "cancelled")]
        if bad:
            job = queue.job(bad[0])
            typer.echo(
                f"{sweep_id}: {job.name} {job.state}: {job.error or 'somebody cancelled it'} (job {job.job_id})",
                err=True,
            )
            return 1
        if all(state == "completed" for state in states.values()):
            typer.echo(f"{sweep_id}: all {len(states)} jobs completed")
            return 0
        time.sleep(_LOOK_SECONDS)


def fitting_workers(jobs: int) -> int:
    """Runs at a time that cores and memory bear."""
    from simulator.memory import available_bytes
    from simulator.runs.pool import MEMORY_PER_RUN

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    by_memory = available_bytes() // MEMORY_PER_RUN
    return max(1, min(cores, by_memory, jobs))


def _work_off(
    planned: "Sweep", todo: "list[PlannedRun]", queue: "JobQueue", settings: "Settings", workers: int, force: bool,
    priority: int, json_output: bool,
) -> int:  # fmt: skip
    """Put the runs into the queue and work them off here, in child processes."""
    from simulator.cli.progress import SweepProgress
    from simulator.runs.pool import Pool, PoolLimits
    from simulator.signals import on_stop

    sent = queue.submit(_jobs_of(planned, todo, force, priority))
    queue.adopt(sent.job_ids, planned.sweep_id)
    answers: list[tuple[Job, ChildAnswer]] = []
    problem: BaseException | None = None

    def ended(job: "Job", answer: "ChildAnswer") -> None:
        answers.append((job, answer))
        progress.end(job.name, answer)
        if json_output and answer.summary is not None:
            sys.stdout.write(json.dumps(answer.summary) + "\n")
            sys.stdout.flush()

    def drained() -> bool:
        return not any(state in ("waiting", "running") for state in queue.states(sent.job_ids).values())

    pool = Pool(
        settings, queue, workers=workers, devices=("cpu", "gpu"), sweep_id=planned.sweep_id, patient=False, ended=ended
    )
    interrupted = False

    def stop() -> None:
        nonlocal interrupted
        if interrupted:  # asked a second time: at once
            raise KeyboardInterrupt
        interrupted = True
        pool.stop()

    with on_stop(stop), SweepProgress(planned.sweep_id, len(sent.job_ids), quiet=json_output) as progress:
        try:
            pool.run(PoolLimits(drained=drained))
        except VqeError as error:  # why the rest was not run, where that is no fault of a run
            problem = error
    if settings.sink == "file":
        _, unbuilt = build_after_runs(settings)
        problem = problem or unbuilt
    elsewhere = _ended_elsewhere(queue, sent.job_ids, answers)
    _show_outcome(planned, len(planned.runs) - len(todo), answers, elsewhere, json_output)
    if interrupted or isinstance(problem, KeyboardInterrupt):
        return 130
    if problem is not None:
        raise problem
    not_done = [job for job in elsewhere if job.state != "completed"]
    return 1 if not_done or any(answer.exit_code for _, answer in answers) else 0


def _ended_elsewhere(queue: "JobQueue", job_ids: list[str], answers: "list[tuple[Job, ChildAnswer]]") -> "list[Job]":
    """Jobs of the sweep that another worker ended, or that were cancelled or died."""
    here = {job.job_id for job, answer in answers}
    states = queue.states([job_id for job_id in job_ids if job_id not in here])
    return [queue.job(job_id) for job_id, state in states.items() if state not in ("waiting", "running")]


def _show_plan(planned: "Sweep", todo: "list[PlannedRun]", queue: "JobQueue", json_output: bool) -> None:
    from collections import Counter

    from rich.table import Table

    from simulator.cli.console import PlainConsole

    jobs = queue.latest("vqe", [run.spec.spec_id for run in todo])
    states = Counter(state for state, _ in jobs.values())
    if json_output:
        errors = [error for state, error in jobs.values() if state in ("failed", "dead", "cancelled")]
        plan = {
            "sweep_id": planned.sweep_id, "runs": len(planned.runs), "completed": len(planned.runs) - len(todo),
            "to_run": len(todo), "jobs": dict(states), "errors": [error or "cancelled" for error in errors[:5]],
        }  # fmt: skip
        typer.echo(json.dumps(plan))
        return
    table = Table("molecule", "ansatz", "optimizer", "engine", "runs", "to run", title=f"Sweep {planned.sweep_id}")
    key = lambda run: (run.name, run.spec.ansatz, run.spec.optimizer, run.spec.engine)  # noqa: E731
    waiting = Counter(map(key, todo))
    for row, count in Counter(map(key, planned.runs)).items():
        table.add_row(*row, str(count), str(waiting[row]))
    console = PlainConsole()
    console.print(table)
    console.print(f"{len(planned.runs)} runs, {len(planned.runs) - len(todo)} completed, {len(todo)} to run")
    if states:
        console.print("in the queue: " + ", ".join(f"{count} {state}" for state, count in sorted(states.items())))


def _show_outcome(
    planned: "Sweep", skipped: int, answers: "list[tuple[Job, ChildAnswer]]", elsewhere: "list[Job]", json_output: bool
) -> None:
    completed = [answer for _, answer in answers if answer.completed]
    doubtful = sum(bool(answer.exit_code) for answer in completed)
    others = sum(job.state == "completed" for job in elsewhere)
    typer.echo(
        f"{planned.sweep_id}: {len(completed) + others} runs completed"
        + (f" ({doubtful} of them not converged or not physical)" if doubtful else "")
        + f", {len(answers) - len(completed) + len(elsewhere) - others} not, {skipped} were completed before",
        err=json_output,
    )
    specs = {run.spec.spec_id: run for run in planned.runs}
    reasons = [(job.spec_id, _reason(answer)) for job, answer in answers if answer.exit_code]
    reasons += [(job.spec_id, f"{job.state}: {job.error}") for job in elsewhere if job.state != "completed"]
    for spec_id, reason in reasons:
        run = specs[spec_id]
        typer.echo(f"  {run.name} {run.spec.ansatz} {run.spec.optimizer} seed {run.spec.seed}: {reason}", err=True)


def _reason(answer: "ChildAnswer") -> str:
    summary = answer.summary or {}
    return str(answer.error or summary.get("physical_reason") or summary.get("convergence_reason") or "interrupted")
