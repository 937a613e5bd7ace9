"""What is told of a run: event records, their schemas, and the one reader of the files that hold them.

The records' names are loaded when they are first used: readers of files, Spark's workers among them, need none of them.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulator.events.records import Event as Event
    from simulator.events.records import Hamiltonian as Hamiltonian
    from simulator.events.records import Iteration as Iteration
    from simulator.events.records import Result as Result
    from simulator.events.records import Run as Run
    from simulator.events.records import SystemMetrics as SystemMetrics
    from simulator.events.records import new_id as new_id
    from simulator.events.records import now_micros as now_micros

_RECORDS = ("Event", "Hamiltonian", "Iteration", "Result", "Run", "SystemMetrics", "new_id", "now_micros")


def __getattr__(name: str) -> Any:
    if name not in _RECORDS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from simulator.events import records

    return getattr(records, name)
