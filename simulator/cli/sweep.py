"""`vqe sweep` and `vqe submit`."""

import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simulator.cli import options as o
from simulator.cli.run import build_after_runs, check_data_dir
from simulator.errors import VqeError

if TYPE_CHECKING:
    from simulator.runs.child import ChildAnswer
    from simulator.runs.sweep import PlannedRun, Sweep
    from simulator.settings import Settings

_GIB_PER_WORKER = 1.5
"""Resident memory of a worker on molecules of up to 16 qubits, with room."""

Experiment = Annotated[Path, typer.Argument(help="Experiment file: molecules, settings, matrix, seeds (YAML).")]
Force = Annotated[bool, typer.Option("--force", envvar="VQE_FORCE", help="Run what is completed already, too.")]


def sweep(
    experiment: Experiment,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and run nothing.")] = False,
    submit_jobs: Annotated[bool, typer.Option("--submit", help="Send the runs to the workers instead.")] = False,
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
    force: Force = False,
    sink: o.SinkName = None,
    record_parameters: o.RecordParameters = None,
    data_dir: o.DataDir = None,
    json_output: o.JsonOfRuns = False,
) -> int:
    """Run a matrix of molecules, settings and seeds; what is completed is skipped."""
    from simulator.runs.sweep import load_sweep
    from simulator.settings import load_settings

    settings = load_settings(data_dir=data_dir, sink=sink, record_parameters=record_parameters)
    check_data_dir(settings)
    planned = _told(load_sweep(experiment))
    if submit_jobs:
        return _submit(planned, settings, force=force)
    done = set() if force else completed_specs(settings)
    todo = [run for run in planned.runs if run.spec.spec_id not in done]
    if dry_run:
        _show_plan(planned, todo)
        return 0
    if not todo:
        typer.echo(
            f"{planned.sweep_id}: all {len(planned.runs)} runs are completed (--force runs them again)", err=json_output
        )
        return 0
    outcome = _run_children(planned, todo, settings, workers or _fitting_workers(len(todo)), json_output)
    answers, problem = outcome.answers, outcome.problem
    if settings.sink == "file":
        _, unbuilt = build_after_runs(settings)
        problem = problem or unbuilt
    _show_outcome(planned, len(planned.runs) - len(todo), answers, json_output)
    if outcome.interrupted or isinstance(problem, KeyboardInterrupt):
        return 130
    if problem is not None:
        raise problem
    return 1 if any(answer.exit_code for _, answer in answers) else 0


def submit(experiment: Experiment, force: Force = False, data_dir: o.DataDir = None) -> int:
    """Send the runs of an experiment to the workers (vqe worker)."""
    from simulator.runs.sweep import load_sweep
    from simulator.settings import load_settings

    return _submit(_told(load_sweep(experiment)), load_settings(data_dir=data_dir), force=force)


def _told(planned: "Sweep") -> "Sweep":
    for note in planned.notes:
        typer.echo(note, err=True)
    return planned


def completed_specs(settings: "Settings") -> set[str]:
    """spec_ids that have a completed result: in Kafka with the kafka sink, else in the tables."""
    if settings.sink == "kafka":
        from simulator.kafka.results import read_outcomes

        return read_outcomes(settings).completed
    from spark_jobs.arrow.batch import build
    from spark_jobs.query import query

    build(settings.data_dir)  # what an interrupted sweep left in raw files counts as well
    statement = "select distinct spec_id from vqe_results where status = 'completed'"
    return {row["spec_id"] for row in query(settings.data_dir, statement).rows.to_pylist()}


def _submit(planned: "Sweep", settings: "Settings", *, force: bool) -> int:
    from simulator.kafka.clients import require_kafka

    require_kafka()
    from simulator.runs.jobs import submit_jobs

    sent = submit_jobs(planned, settings, force=force)
    typer.echo(f"{planned.sweep_id}: {sent} jobs sent")
    return 0


def _fitting_workers(jobs: int) -> int:
    import os

    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    by_memory = int(psutil.virtual_memory().available / (_GIB_PER_WORKER * 2**30))
    return max(1, min(cores, by_memory, jobs))


@dataclass(frozen=True)
class _Outcome:
    """What became of the runs of a sweep."""

    answers: "list[tuple[PlannedRun, ChildAnswer]]"
    interrupted: bool  # by the user
    problem: BaseException | None  # why the rest was not run, where that is no fault of a run


def _run_children(
    planned: "Sweep", todo: "list[PlannedRun]", settings: "Settings", workers: int, json_output: bool
) -> "_Outcome":
    """Run everything in child processes."""
    import json
    import sys
    from multiprocessing.connection import wait

    from simulator.cli.progress import SweepProgress
    from simulator.runs.child import Child, ChildJob
    from simulator.signals import on_stop

    queue = deque(todo)
    running: dict[Child, PlannedRun] = {}
    answers: list[tuple[PlannedRun, ChildAnswer]] = []
    children: list[Child] = []
    interrupted, problem = False, None

    def stop() -> None:
        nonlocal interrupted
        if interrupted:  # asked a second time: at once
            raise KeyboardInterrupt
        interrupted = True
        for child in children:
            child.interrupt()

    try:
        with on_stop(stop), SweepProgress(planned.sweep_id, len(todo), quiet=json_output) as progress:
            while len(children) < min(workers, len(todo)) and not interrupted:
                children.append(Child(settings))
            while (queue and not interrupted) or running:
                for child in children:
                    if child not in running and queue and not interrupted:
                        run = running[child] = queue.popleft()
                        child.submit(ChildJob("vqe", run.spec.canonical_json(), run.name, planned.sweep_id))
                        if interrupted:  # asked while the job was on its way
                            child.interrupt()
                wait([item for child in running for item in (child.pipe, child.process.sentinel)], timeout=1.0)
                for child in list(running):
                    answer = child.answer()
                    if answer is None:
                        continue
                    run = running.pop(child)
                    answers.append((run, answer))
                    progress.end(run.name, answer)
                    if json_output and answer.summary is not None:
                        sys.stdout.write(json.dumps(answer.summary) + "\n")
                        sys.stdout.flush()
            end = time.monotonic() + settings.delivery_seconds + 30
            for child in children:
                child.close(max(1.0, end - time.monotonic()))
    except VqeError as error:  # the children that can work keep what they have
        problem = error
        for child in running:
            child.interrupt()
        for child in children:
            child.close()
    finally:
        for child in children:
            child.kill()
    return _Outcome(answers, interrupted, problem)


def _show_plan(planned: "Sweep", todo: "list[PlannedRun]") -> None:
    from collections import Counter

    from rich.table import Table

    from simulator.cli.console import PlainConsole

    table = Table("molecule", "ansatz", "optimizer", "engine", "runs", "to run", title=f"Sweep {planned.sweep_id}")
    key = lambda run: (run.name, run.spec.ansatz, run.spec.optimizer, run.spec.engine)  # noqa: E731
    waiting = Counter(map(key, todo))
    for row, count in Counter(map(key, planned.runs)).items():
        table.add_row(*row, str(count), str(waiting[row]))
    console = PlainConsole()
    console.print(table)
    console.print(f"{len(planned.runs)} runs, {len(planned.runs) - len(todo)} completed, {len(todo)} to run")


def _show_outcome(
    planned: "Sweep", skipped: int, answers: "list[tuple[PlannedRun, ChildAnswer]]", json_output: bool
) -> None:
    completed = [answer for _, answer in answers if answer.completed]
    doubtful = sum(bool(answer.exit_code) for answer in completed)
    typer.echo(
        f"{planned.sweep_id}: {len(completed)} runs completed"
        + (f" ({doubtful} of them not converged or not physical)" if doubtful else "")
        + f", {len(answers) - len(completed)} not, {skipped} were completed before",
        err=json_output,
    )
    for run, answer in answers:
        if answer.exit_code == 0:
            continue
        summary = answer.summary or {}
        reason = answer.error or summary.get("physical_reason") or summary.get("convergence_reason") or "interrupted"
        typer.echo(f"  {run.name} {run.spec.ansatz} {run.spec.optimizer} seed {run.spec.seed}: {reason}", err=True)
