"""`vqe run` and `vqe doctor`."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from simulator.cli import options as o
from simulator.errors import InputError, one_line
from simulator.signals import on_stop

if TYPE_CHECKING:
    from simulator.events.records import Result
    from simulator.settings import Settings
    from simulator.vqe.spec import RunSpec
    from spark_jobs.batch import BatchReport


def run(
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
    build_tables: Annotated[
        bool,
        typer.Option("--tables/--no-tables", envvar="VQE_TABLES", help="Build the tables when the runs have ended."),
    ] = True,
    json_output: o.JsonOfRuns = False,
) -> int:
    """Run VQE on one or more molecules and put the events into tables."""
    from simulator.settings import load_settings
    from simulator.vqe.spec import make_spec, parse_noise

    settings = load_settings(data_dir=data_dir, sink=sink, record_parameters=record_parameters)
    check_data_dir(settings, build_tables=build_tables)
    active = o.active_orbitals(active_space, orbitals)
    start = o.resolve_initial_point(initial_point, settings.data_dir)
    specs: list[tuple[str, RunSpec]] = []
    for loaded in o.load_molecules(molecule, atoms, charge, multiplicity):
        if symmetrize:
            loaded = o.symmetrized(loaded)
        for i in range(repeat):
            spec = make_spec(
                loaded, engine=engine or "auto", basis=basis, **active,
                freeze_core=freeze_core, mapper=mapper, ansatz=ansatz, reps=reps, optimizer=optimizer,
                optimizer_options=o.parse_optimizer_options(optimizer_option), max_iterations=max_iterations,
                tolerance=tolerance, initial_point=start.initial_point, initial_vector=start.initial_vector,
                seed=(seed or 0) + i, aer_method=aer_method, device=device, precision=precision, shots=shots,
                noise=parse_noise(noise) if noise else None,
            )  # fmt: skip
            specs.append((loaded.name, spec))
    return _run_all(specs, settings, build_tables=build_tables, json_output=json_output)


def _run_all(specs: "list[tuple[str, RunSpec]]", settings: "Settings", *, build_tables: bool, json_output: bool) -> int:
    from simulator import log
    from simulator.cli.progress import RunProgress, print_json, print_summary
    from simulator.runs.session import Session, exit_code, switch_threads_often
    from simulator.runs.sink import make_sink

    switch_threads_often()
    log.configure(settings.log_level, settings.log_format)
    results: list[Result] = []
    bad_input: InputError | None = None
    sink = make_sink(settings)
    session = Session(sink, settings)

    def stop() -> None:
        if session.stop_requested:  # asked a second time: at once
            raise KeyboardInterrupt
        session.request_stop()

    with on_stop(stop):
        try:
            with RunProgress(len(specs), quiet=json_output) as progress:
                for name, spec in specs:
                    if session.stop_requested:
                        break
                    progress.begin(name, spec)
                    try:
                        result = session.execute(spec, name, observer=progress)
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
        print(f"vqe: interrupted after {len(results)} of {len(specs)} runs; what ran is kept", file=sys.stderr)
        return 130
    if tables_problem is not None:
        raise tables_problem
    return max((exit_code(result) for result in results), default=0)


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
    from spark_jobs.batch import build

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
    from simulator.runs.session import versions
    from simulator.settings import load_settings
    from simulator.sinks.file import FileSink

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
