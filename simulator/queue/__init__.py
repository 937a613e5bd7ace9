"""The work queue: what is to be run, who runs it and what became of it, in one SQL database.

Names are loaded when they are first used, so that importing `simulator` or the package does not load SQLAlchemy.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulator.checkpoint import Checkpoint as Checkpoint
    from simulator.queue.job_queue import JobQueue as JobQueue
    from simulator.queue.records import MAX_ATTEMPTS as MAX_ATTEMPTS
    from simulator.queue.records import STATES as STATES
    from simulator.queue.records import Cancelled as Cancelled
    from simulator.queue.records import Claim as Claim
    from simulator.queue.records import Job as Job
    from simulator.queue.records import JobFilter as JobFilter
    from simulator.queue.records import LeaseLost as LeaseLost
    from simulator.queue.records import NewJob as NewJob
    from simulator.queue.records import QueueAway as QueueAway
    from simulator.queue.records import Submitted as Submitted
    from simulator.queue.records import WorkerRow as WorkerRow

_IN_RECORDS = (
    "MAX_ATTEMPTS", "STATES", "Cancelled", "Checkpoint", "Claim", "Job", "JobFilter", "LeaseLost", "NewJob", "QueueAway",
    "Submitted", "WorkerRow",
)  # fmt: skip

__all__ = ["JobQueue", *_IN_RECORDS]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module = "job_queue" if name == "JobQueue" else "records"
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
