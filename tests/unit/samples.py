"""Events for tests."""

import io
import time

import fastavro

from simulator.chemistry.molecules import load_molecule
from simulator.errors import StorageError
from simulator.events import schemas
from simulator.events.records import Event, Iteration, Result, Run, SystemMetrics, new_id, now_micros, to_record
from simulator.vqe.records import spec_record
from simulator.vqe.spec import make_spec


def an_iteration(i: int, run_id: str = "r", n: int = 40) -> Iteration:
    """Iteration `i` of a run with `n` parameters."""
    return Iteration(run_id, now_micros(), i, -1.0 - i, None, None, 0.1, i, i, 0.1 * i, [0.5] * n)


def a_result(n_parameters: int = 3, **given) -> Result:
    spec = make_spec(load_molecule("h2"), initial_point="vector", initial_vector=(0.123456789012345678,) * n_parameters)
    now = now_micros()
    fields = {
        "run_id": new_id(), "recorded_at": now, "spec_id": spec.spec_id, "molecule_id": spec.molecule_id,
        "problem_id": spec.problem_id, "sweep_id": None, "attempt": 1, "molecule_name": "h2", "formula": "H2",
        "hamiltonian_id": "ab" * 32, "spec": spec_record(spec), "spec_json": spec.canonical_json(),
        "status": "completed", "started_at": now, "finished_at": now, "total_seconds": 0.1,
        "counts": {"iterations": 1, "system_metrics": 2, "hamiltonian_chunks": 1, "hamiltonian_terms": 15},
        "host": "host", "versions": {"python": "3"},
        "parameters": [
            {"parameter_index": i, "label": "a10,a11->a20,a21 b10,b11->b20,b21"[:36], "initial": 0.1, "optimal": 0.2}
            for i in range(n_parameters)
        ],
    }  # fmt: skip
    return Result(**{**fields, **given})


def encoded_bytes(event: Event) -> int:
    """Bytes of the event's Avro record."""
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, schemas.current(event.stream), to_record(event), strict=True)
    return len(buffer.getvalue())


class ListSink:
    """Keeps events in memory; fails from the n-th on when asked to."""

    def __init__(self, fails_after: int | None = None) -> None:
        self.events: list = []
        self.fails_after = fails_after

    def emit(self, event) -> None:
        if self.fails_after is not None and len(self.events) >= self.fails_after:
            raise StorageError("the disk is full")
        self.events.append(event)

    def flush(self) -> None: ...

    def deliver(self, seconds: float) -> bool:
        return True

    def close(self) -> None: ...

    def of(self, cls) -> list:
        return [e for e in self.events if isinstance(e, cls)]


def spin(seconds: float) -> None:
    """Keep a core busy."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(1000))


def a_run(run_id: str = "r") -> Run:
    spec = make_spec(load_molecule("h2"))
    return Run(
        run_id, now_micros(), spec.spec_id, spec.molecule_id, spec.problem_id, None, 1, "h2", {"formula": "H2"},
        spec_record(spec), spec.canonical_json(), "host", 1, {},
    )  # fmt: skip


def a_sample(**given) -> SystemMetrics:
    return SystemMetrics("r", now_micros(), 0, 1.0, 1.0, 150.0, 50.0, 1000, 2000, 4, 10, None, **given)
