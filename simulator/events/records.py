"""The events of a run, one dataclass a stream; a test holds each to its schema in `schemas/`.

Energies are total energies in hartree unless a name says otherwise. Times are microseconds since 1970, UTC.
"""

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import uuid_utils

TERMS_PER_RECORD = 2_000
MAX_RECORD_BYTES = 500_000


def new_id() -> str:
    """A UUIDv7 in lower case: ordered by the time it was made, within a process strictly."""
    return str(uuid_utils.uuid7())


def now_micros() -> int:
    """Microseconds since 1970, UTC."""
    return time.time_ns() // 1_000


class Event:
    """What every event is: a dataclass whose fields are those of its stream's schema, the key first.

    Every kind of task has streams of its own; whoever takes events asks these members and not which class it is.
    """

    __slots__ = ()
    stream: ClassVar[str]
    """Name of the schema's record."""
    begins_run: ClassVar[bool] = False
    ends_run: ClassVar[bool] = False
    """A run's last event: its writer has it on disk before it goes on."""

    def metric_labels(self) -> dict[str, str]:
        """Of an event that begins a run: what its metrics are labelled with, few values each, never an id."""
        return {}

    def gauges(self) -> Iterator[tuple[str, str, float | None]]:
        """Name, meaning and value of what the event shows while the run goes on; None is not shown."""
        return iter(())


@dataclass(frozen=True, slots=True)
class Run(Event):
    """A VQE run that began."""

    begins_run: ClassVar[bool] = True

    stream: ClassVar[str] = "vqe_run"
    run_id: str
    recorded_at: int
    spec_id: str
    molecule_id: str
    problem_id: str
    sweep_id: str | None
    attempt: int
    molecule_name: str
    molecule: dict[str, Any]
    spec: dict[str, Any]
    spec_json: str
    host: str
    process_id: int
    versions: dict[str, str]
    resumed_from: str | None = None

    def metric_labels(self) -> dict[str, str]:
        """Formula, ansatz, optimizer, engine and device."""
        return vqe_labels(self.molecule["formula"], self.spec)


@dataclass(frozen=True, slots=True)
class Iteration(Event):
    """One optimizer iteration; iteration 0 is the initial point."""

    stream: ClassVar[str] = "vqe_iteration"
    run_id: str
    recorded_at: int
    iteration: int
    energy: float
    error_mha: float | None
    standard_error: float | None
    gradient_norm: float | None
    evaluations: int
    gradient_evaluations: int
    elapsed_seconds: float
    parameters: list[float] | None

    def gauges(self) -> Iterator[tuple[str, str, float | None]]:
        """The energy and how far the optimizer has come."""
        error = None if self.error_mha is None else self.error_mha / 1e3
        yield "energy_hartree", "Total energy of the last iteration.", self.energy
        yield "error_hartree", "Its distance to the reference energy, with its sign.", error
        yield "gradient_norm_hartree", "Norm of the gradient, hartree per radian.", self.gradient_norm
        yield "iterations", "Iterations so far.", self.iteration
        yield "evaluations", "Energy evaluations so far.", self.evaluations
        yield "elapsed_seconds", "Seconds of optimization so far.", self.elapsed_seconds


@dataclass(frozen=True, slots=True)
class Hamiltonian(Event):
    """Up to 2,000 terms of a qubit Hamiltonian: chunk i of n."""

    stream: ClassVar[str] = "vqe_hamiltonian"
    hamiltonian_id: str
    recorded_at: int
    problem_id: str
    mapper: str
    n_qubits: int
    n_terms: int
    energy_offset: float
    chunk: int
    n_chunks: int
    terms: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class SystemMetrics(Event):
    """A sample of the performance monitor."""

    stream: ClassVar[str] = "vqe_system_metrics"
    run_id: str
    recorded_at: int
    sample_index: int
    elapsed_seconds: float
    interval_seconds: float
    process_cpu_percent: float
    system_cpu_percent: float
    memory_rss_bytes: int
    memory_available_bytes: int
    threads: int
    disk_read_bytes: int | None
    disk_write_bytes: int | None
    gpu_names: list[str] = field(default_factory=list)
    gpu_utilization_percent: list[float] = field(default_factory=list)
    gpu_memory_used_bytes: list[int] = field(default_factory=list)
    gpu_power_watts: list[float] = field(default_factory=list)
    gpu_temperature_celsius: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Result(Event):
    """A VQE run that ended, however it ended."""

    ends_run: ClassVar[bool] = True

    stream: ClassVar[str] = "vqe_result"
    run_id: str
    recorded_at: int
    spec_id: str
    molecule_id: str
    problem_id: str
    sweep_id: str | None
    attempt: int
    molecule_name: str
    formula: str
    hamiltonian_id: str | None
    spec: dict[str, Any]
    spec_json: str
    status: str
    started_at: int
    finished_at: int
    total_seconds: float
    counts: dict[str, int]
    host: str
    versions: dict[str, str]
    error: str | None = None
    physical: bool | None = None
    physical_reason: str | None = None
    converged: bool | None = None
    convergence_reason: str | None = None
    energy: float | None = None
    standard_error: float | None = None
    hf_energy: float | None = None
    reference_name: str | None = None
    reference_energy: float | None = None
    error_mha: float | None = None
    chemical_accuracy: bool | None = None
    aer_energy: float | None = None
    aer_reason: str | None = None
    electron_number: float | None = None
    s_squared: float | None = None
    s_squared_expected: float | None = None
    n_active_electrons: int | None = None
    n_orbitals: int | None = None
    n_qubits: int | None = None
    n_terms: int | None = None
    n_parameters: int | None = None
    circuit_depth: int | None = None
    two_qubit_gates: int | None = None
    energy_offset: float | None = None
    nuclear_repulsion: float | None = None
    ecp: str | None = None
    ecp_electrons: int | None = None
    orbitals: list[str] | None = None
    natural_orbitals: int | None = None
    orbital_numbers: list[int] = field(default_factory=list)
    iterations: int = 0
    evaluations: int = 0
    gradient_evaluations: int = 0
    notes: list[str] = field(default_factory=list)
    references: list[dict[str, Any]] = field(default_factory=list)
    timings: list[dict[str, Any]] = field(default_factory=list)
    parameters: list[dict[str, Any]] = field(default_factory=list)
    resumed_from: str | None = None


STREAM_CLASSES: tuple[type[Event], ...] = (Run, Iteration, Hamiltonian, SystemMetrics, Result)


_NAMES: dict[type[Event], tuple[str, ...]] = {}


def _field_names(event: type[Event]) -> tuple[str, ...]:
    if event not in _NAMES:
        _NAMES[event] = tuple(f.name for f in dataclasses.fields(event))  # type: ignore[arg-type]
    return _NAMES[event]


def to_record(event: Event) -> dict[str, Any]:
    """The event as a dict in the order of its fields; nothing is copied."""
    return {name: getattr(event, name) for name in _field_names(type(event))}


def message_key(event: Event) -> str:
    """What decides the event's Kafka partition, so that its stream's order is kept: its first field."""
    key: str = getattr(event, _field_names(type(event))[0])
    return key


def vqe_labels(formula: str, spec: dict[str, Any]) -> dict[str, str]:
    """The labels of a VQE run's metrics, of what its events hold."""
    return {"molecule": formula, **{name: spec[name] for name in ("ansatz", "optimizer", "engine", "device")}}


def hamiltonian_events(
    *, hamiltonian_id: str, problem_id: str, mapper: str, n_qubits: int, energy_offset: float,
    labels: list[str], coefficients: list[float],
) -> list[Hamiltonian]:  # fmt: skip
    """A qubit Hamiltonian in records of at most 2,000 terms."""
    starts = range(0, max(len(labels), 1), TERMS_PER_RECORD)
    return [
        Hamiltonian(
            hamiltonian_id=hamiltonian_id,
            recorded_at=now_micros(),
            problem_id=problem_id,
            mapper=mapper,
            n_qubits=n_qubits,
            n_terms=len(labels),
            energy_offset=energy_offset,
            chunk=chunk,
            n_chunks=len(starts),
            terms=[
                {"term_index": i, "pauli": labels[i], "coefficient": float(coefficients[i])}
                for i in range(start, min(start + TERMS_PER_RECORD, len(labels)))
            ],
        )
        for chunk, start in enumerate(starts)
    ]
