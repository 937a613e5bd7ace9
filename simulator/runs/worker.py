"""The worker: a pool that stays. It delivers what a dead process left, waits for jobs, and shows its metrics."""

from collections.abc import Callable, Sequence
from pathlib import Path

from simulator.errors import InputError
from simulator.log import get_logger
from simulator.queue import JobQueue
from simulator.runs.pool import Pool, PoolCounts, PoolLimits
from simulator.settings import Settings
from simulator.signals import on_stop

_QUEUE_RETRY_SECONDS = 2.0
"""The pool asks a database that is away again by itself; no call may keep it from the leases of its other jobs."""


def run_worker(
    settings: Settings, *, workers: int, threads: int, devices: Sequence[str], lease_seconds: float, heartbeat: Path | None,
    max_jobs: int | None, idle_seconds: float | None, idle: Callable[[], None],
) -> PoolCounts:  # fmt: skip
    """Take jobs until stopped, `max_jobs` were taken, or none came for `idle_seconds`.

    Args:
        settings: where events go and the queue is.
        workers: runs at a time.
        threads: threads of the numerical libraries in a run.
        devices: jobs of these are taken; `gpu` is left out where there is none.
        lease_seconds: silence after which other workers take this one's jobs.
        heartbeat: file that is touched while the worker is well.
        max_jobs: end after so many.
        idle_seconds: end when none came for so long.
        idle: called when jobs were done and there are no more.

    Raises:
        InputError: settings are wrong, or no device is left.
        QueueAway: the queue's database cannot be used at the start.
    """
    replayed = _deliver_what_was_left(settings)
    with JobQueue.open(settings, retry_seconds=_QUEUE_RETRY_SECONDS) as queue:
        devices = _usable(devices)
        pool = Pool(
            settings, queue, workers=workers, threads=threads, devices=devices, lease_seconds=lease_seconds,
            heartbeat=heartbeat, idle=idle,
        )  # fmt: skip
        metrics = None
        if settings.metrics_port:
            from simulator.runs.pool_metrics import PoolMetrics

            metrics = PoolMetrics(pool, replayed)
        try:
            with on_stop(pool.stop):
                return pool.run(PoolLimits(max_jobs, idle_seconds))
        finally:
            if metrics is not None:
                metrics.close()


def _usable(devices: Sequence[str]) -> tuple[str, ...]:
    """The devices that this machine has: a worker without a GPU leaves the jobs for GPUs to others.

    Raises:
        InputError: none is left.
    """
    if "gpu" not in devices:
        return tuple(devices)
    if (reason := _why_no_gpu()) is None:
        return tuple(devices)
    rest = tuple(d for d in devices if d != "gpu")
    if not rest:
        raise InputError(f"a worker for GPUs cannot run here: {reason}")
    get_logger().info("jobs for GPUs are left to other workers", reason=reason)
    return rest


def _why_no_gpu() -> str | None:
    """Why Aer cannot use a GPU here; None where it can. The driver is asked first, as loading Aer takes seconds."""
    import pynvml

    try:
        pynvml.nvmlInit()
        pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        return f"no NVIDIA driver: {error}"
    from simulator.engines.aer import gpu_available

    usable, reason = gpu_available()
    return None if usable else reason


def _deliver_what_was_left(settings: Settings) -> dict[str, int]:
    """Events delivered, failed and rejected of those that dead processes left in this machine's spool."""
    if settings.sink != "kafka":
        return {}
    from simulator.kafka.replay import replay
    from simulator.runs.child import DELIVERY

    done = replay(settings, seconds=settings.delivery_seconds).delivery
    return {name: getattr(done, name) for name in DELIVERY}
