"""`vqe run` and `vqe doctor`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from simulator.cli import options as o
from simulator.errors import InputError, one_line
from simulator.signals import on_stop

if TYPE_CHECKING:
    from simulator.cli.progress import RunProgress
    from simulator.events.records import Result
    from simulator.runs.checkpoints import CheckpointFiles, SavedRun
    from simulator.runs.session import Session
    from simulator.settings import Settings
    from simulator.tasks.base import Task
    from spark_jobs.batch import BatchReport


def run(
    context: typer.Context,
    molecule: Annotated[list[str] | None, typer.Argument(help=f"Each a {o.MOLECULE_HELP}.")] = None,
    atoms: o.Atoms = None,
    basis: o.Basis = None,
    charge: o.Charge = None,
    multiplicity: o.Multiplicity = None,
    active_space: o.ActiveSpace = None,
    orbitals: o.OrbitalChoice = None,
    symmetrize: o.Symmetrize = False,
    freeze_core: o.FreezeCore = False,
    mapper: o.Mapper = None,
    ansatz: o.Ansatz = None,
    reps: o.Reps = None,
    optimizer: o.Optimizer = None,
    optimizer_option: o.OptimizerOption = None,
    max_iterations: o.MaxIterations = None,
    tolerance: o.Tolerance = None,
    initial_point: o.InitialPoint = None,
    seed: o.Seed = None,
    engine: o.EngineName = None,
    aer_method: o.AerMethod = None,
    device: o.Device = None,
    precision: o.Precision = None,
    shots: o.Shots = None,
    noise: o.NoiseText = None,
    repeat: Annotated[
        int,
        typer.Option(
            "--repeat", min=1, max=100_000, envvar="VQE_REPEAT", help="Runs of each molecule, seeds counted up."
        ),
    ] = 1,
    record_parameters: o.RecordParameters = None,
    sink: o.SinkName = None,
    data_dir: o.DataDir = None,
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            metavar="RUN_ID",
            help="Go on with a run that was stopped or killed, from its checkpoint; `last` is the newest.",
        ),
    ] = None,
    build_tables: Annotated[
        bool,
        typer.Option("--tables/--no-tables", envvar="VQE_TABLES", help="Build the tables when the runs have ended."),
    ] = True,
    json_output: o.JsonOfRuns = False,
) -> int:
    """Run VQE on one or more molecules and put the events into tables."""
    from simulator.runs.checkpoints import CheckpointFiles
    from simulator.settings import load_settings
    from simulator.tasks.vqe.task import VqeTask
    from simulator.vqe.spec import make_spec, parse_noise

    settings = load_settings(data_dir=data_dir, sink=sink, record_parameters=record_parameters)
    check_data_dir(settings, build_tables=build_tables)
    if resume is not None:
        _refuse_beside_resume(context)
        saved = CheckpointFiles(settings).load(resume)
        return _run_all([saved], settings, build_tables=build_tables, json_output=json_output)
    active = o.active_orbitals(active_space, orbitals)
    start = o.resolve_initial_point(initial_point, settings.data_dir)
    circuit = o.resolve_circuit(ansatz)
    runs: list[NamedRun | SavedRun] = []
    for loaded in o.load_molecules(molecule, atoms, charge, multiplicity):
        if symmetrize:
            loaded = o.symmetrized(loaded)
        for i in range(repeat):
            spec = make_spec(
                loaded, engine=engine or "auto", basis=basis, **active,
                freeze_core=freeze_core, mapper=mapper, ansatz=circuit or ansatz, reps=reps, optimizer=optimizer,
                optimizer_options=o.parse_optimizer_options(optimizer_option), max_iterations=max_iterations,
                tolerance=tolerance, initial_point=start.initial_point, initial_vector=start.initial_vector,
                seed=(seed or 0) + i, aer_method=aer_method, device=device, precision=precision, shots=shots,
                noise=parse_noise(noise) if noise else None,
            )  # fmt: skip
            runs.append(NamedRun(VqeTask(spec), loaded.name))
    return _run_all(runs, settings, build_tables=build_tables, json_output=json_output)


def _refuse_beside_resume(context: typer.Context) -> None:
    """Raise InputError where an option of this command would be left unused, as the checkpoint holds the specification."""
    allowed = {"resume", "record_parameters", "sink", "data_dir", "build_tables", "json_output"}
    for name in context.params:
        source = context.get_parameter_source(name)
        if name not in allowed and source is not None and source.name == "COMMANDLINE":
            shown = "a molecule" if name == "molecule" else f"--{name.replace('_', '-')}"
            raise InputError(f"--resume goes on with the run's own specification and takes no {shown}")


@dataclass(frozen=True)
class NamedRun:
    """A run that is to begin at its beginning."""

    task: "Task"
    name: str
    checkpoint: None = None


def _run_all(
    runs: "Sequence[NamedRun | SavedRun]", settings: "Settings", *, build_tables: bool, json_output: bool
) -> int:
    from simulator import log
    from simulator.cli.progress import RunProgress, print_json, print_summary
    from simulator.runs.checkpoints import CheckpointFiles
    from simulator.runs.session import Session, switch_threads_often
    from simulator.runs.sink import make_sink

    switch_threads_often()
    log.configure(settings.log_level, settings.log_format)
    results: list[Result] = []
    bad_input: InputError | None = None
    resumable = None
    sink = make_sink(settings)
    session = Session(sink, settings)
    files = CheckpointFiles(settings)

    def stop() -> None:
        if session.stop_requested:  # asked a second time: at once
            raise KeyboardInterrupt
        session.request_stop()

    with on_stop(stop):
        try:
            with RunProgress(len(runs), quiet=json_output) as progress:
                for run in runs:
                    if session.stop_requested:
                        break
                    progress.begin(run.name or run.task.title)
                    try:
                        result, resumable = _run_one(session, files, run, progress)
                    except InputError as error:
                        bad_input = error
                        break
                    progress.end(result)
                    results.append(result)
                    if json_output:
                        print_json(result)
        finally:
            sink.close()
    report, tables_problem = None, None
    if build_tables and settings.sink == "file":
        report, tables_problem = build_after_runs(settings)
    if results and not json_output:
        print_summary(results, settings, report)
    if bad_input is not None:
        raise bad_input
    if session.stop_requested or isinstance(tables_problem, KeyboardInterrupt):
        print(f"vqe: interrupted after {len(results)} of {len(runs)} runs; what ran is kept", file=sys.stderr)
        if resumable is not None:
            print(f"vqe: go on with it by vqe run --resume {resumable}", file=sys.stderr)
        return 130
    if tables_problem is not None:
        raise tables_problem
    return max((run.task.exit_code(result) for run, result in zip(runs, results, strict=False)), default=0)


def _run_one(
    session: "Session", files: "CheckpointFiles", run: "NamedRun | SavedRun", progress: "RunProgress"
) -> "tuple[Result, str | None]":
    """A run's last event, and the id under which it can be resumed where it was interrupted."""
    from simulator.runs.checkpoints import Keeper, SavedRun

    before = run.checkpoint
    keeper = Keeper(
        lambda reached: files.save(SavedRun(run.task, run.name, reached)), session.settings.checkpoint_seconds
    )
    attempt = 1 if before is None else 2
    result: Result = session.execute(
        run.task, run.name, attempt=attempt, observer=progress, resumed=before, keep=keeper
    )  # fmt: skip
    if result.status != "interrupted":
        files.remove(result.run_id)
        if before is not None and result.status == "completed":
            files.remove(before.run_id)
        return result, None
    keeper.flush()
    if files.has(result.run_id):
        if before is not None:
            files.remove(before.run_id)
        return result, result.run_id
    return result, None if before is None else before.run_id


def check_data_dir(settings: "Settings", *, build_tables: bool = True) -> None:
    """Raise InputError before a run where its events could not become tables of the data dir after it."""
    if settings.sink != "file":
        return
    from spark_jobs.location import Location

    location = Location.of(settings.data_dir)
    if build_tables:
        location.check()


def build_after_runs(settings: "Settings") -> "tuple[BatchReport | None, BaseException | None]":
    """The tables of runs that have ended, and what kept them from being built: the runs are told of before it is.

    What is not built now, `vqe tables build` or the end of the next run builds.
    """
    from spark_jobs.arrow.batch import build

    try:
        return build(settings.data_dir), None
    except (Exception, KeyboardInterrupt) as problem:
        return None, problem


def doctor(
    data_dir: o.DataDir = None,
) -> int:
    """Check what this machine can run: packages, memory, GPU, data directory."""
    import os

    import psutil
    from rich.table import Table
    from rich.text import Text

    from simulator.cli.console import PlainConsole
    from simulator.engines.aer import gpu_available
    from simulator.settings import load_settings
    from simulator.sinks.file import FileSink
    from simulator.versions import versions

    settings = load_settings(data_dir=data_dir)
    table = Table("check", "found", title="vqe doctor", show_lines=False)
    for name, found in versions().items():
        table.add_row(name, found)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    table.add_row("cores", str(cores))
    table.add_row("memory available", f"{psutil.virtual_memory().available / 2**30:.1f} GiB")
    usable, reason = gpu_available()
    table.add_row("Aer on GPU", "yes" if usable else f"no: {reason}")
    problem = ""
    try:
        check_data_dir(settings)
        FileSink(settings.raw_dir).close()
        table.add_row("data directory", f"{settings.data_dir} (writable)")
    except Exception as error:
        problem = one_line(error)
        table.add_row("data directory", Text(problem, style="red"))
    PlainConsole().print(table)
    return 1 if problem else 0
