"""`vqe worker`."""

from pathlib import Path
from typing import Annotated

import typer

from simulator.cli import options as o
from simulator.errors import InputError

DEVICES = {"cpu": ("cpu",), "gpu": ("gpu",), "all": ("cpu", "gpu")}


def worker(
    data_dir: o.DataDir = None,
    workers: Annotated[
        int, typer.Option("--workers", envvar="VQE_WORKER_PROCESSES", min=1, max=1024, help="Runs at a time.")
    ] = 1,
    threads: Annotated[
        int, typer.Option("--threads", envvar="VQE_WORKER_THREADS", min=1, help="Threads of a run.")
    ] = 1,
    device: Annotated[
        str, typer.Option("--device", envvar="VQE_WORKER_DEVICE", help="Take jobs of this device: cpu, gpu or all.")
    ] = "all",
    max_jobs: Annotated[int | None, typer.Option("--max-jobs", min=1, help="End after so many jobs.")] = None,
    idle_exit: Annotated[
        float | None, typer.Option("--idle-exit", min=0, help="End when no job came for so many seconds.")
    ] = None,
    lease_seconds: Annotated[
        float,
        typer.Option(
            "--lease-seconds", envvar="VQE_WORKER_LEASE_SECONDS", min=2, max=3600,
            help="Silence after which other workers take this one's jobs.",
        ),
    ] = 30.0,
    heartbeat: Annotated[
        Path | None,
        typer.Option("--heartbeat", envvar="VQE_WORKER_HEARTBEAT", help="File touched while the worker is well."),
    ] = None,
    sink: o.SinkName = None,
) -> int:  # fmt: skip
    """Take jobs from the queue and run them; SIGTERM gives those that run back with what they have reached.

    The queue is that of the data dir, or the database that VQE_QUEUE_URI names.
    """
    from simulator import log
    from simulator.cli.run import build_after_runs, check_data_dir
    from simulator.runs.worker import run_worker
    from simulator.settings import load_settings

    settings = load_settings(data_dir=data_dir, sink=sink)
    log.configure("info" if settings.log_level == "warning" else settings.log_level, settings.log_format)
    devices = DEVICES.get(device or "all")
    if devices is None:
        raise InputError(f"device {device!r} (use cpu, gpu or all)")
    check_data_dir(settings)

    def idle() -> None:
        if settings.sink == "file":
            _, problem = build_after_runs(settings)
            if problem is not None:
                raise problem

    counts = run_worker(
        settings, workers=workers, threads=threads, devices=devices, lease_seconds=lease_seconds, heartbeat=heartbeat,
        max_jobs=max_jobs, idle_seconds=idle_exit, idle=idle,
    )  # fmt: skip
    idle()
    typer.echo(
        f"{counts.done} jobs done, {counts.failed} failed, {counts.skipped} skipped, {counts.cancelled} cancelled, "
        f"{counts.returned} returned"
    )
    return 0
