"""Runs as a library: `run_vqe` gives a result in memory, or sends the same events as the command line does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from simulator.errors import InputError, Interrupted, RunFailed
from simulator.events import records
from simulator.runs.session import Session
from simulator.settings import Settings, load_settings
from simulator.sinks import Sink
from simulator.tasks.base import Observer
from simulator.tasks.vqe.problems import Prepared, SharedProblems
from simulator.tasks.vqe.task import VqeTask
from simulator.vqe.spec import RunSpec

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


@dataclass(frozen=True)
class Result:
    """A run that ended, with every iteration of it. Energies are total energies in hartree, errors in millihartree."""

    spec: RunSpec
    record: records.Result = field(repr=False)
    """The event with everything that is known of the run; the properties below are its most wanted fields."""
    iterations: tuple[records.Iteration, ...] = field(repr=False)
    """The optimizer's iterations; iteration 0 is the initial point."""
    _prepared: Prepared | None = field(repr=False, compare=False)  # None where the run ended before there was a problem

    @property
    def energy(self) -> float:
        """The run's final energy, hartree."""
        assert self.record.energy is not None  # a completed run has one
        return self.record.energy

    @property
    def converged(self) -> bool:
        return bool(self.record.converged)

    @property
    def physical(self) -> bool | None:
        """Whether the state is believable; None with `record.physical_reason` where that was not or could not be checked."""
        return self.record.physical

    @property
    def error_mha(self) -> float | None:
        """Distance to `record.reference_name`'s energy, millihartree; None where there is no exact reference."""
        return self.record.error_mha

    @property
    def parameters(self) -> np.ndarray:
        """The final parameters, radian, shape: (n_parameters,)."""
        import numpy as np

        return np.array([row["optimal"] for row in self.record.parameters], dtype=float)

    @property
    def labels(self) -> tuple[str, ...]:
        """What each parameter turns, e.g. an excitation."""
        return tuple(row["label"] for row in self.record.parameters)

    @property
    def references(self) -> Mapping[str, float | None]:
        """Reference energies by name (HF, MP2, CCSD, FCI, ...), hartree; None where one could not be had surely."""
        return MappingProxyType({row["name"]: row["energy"] for row in self.record.references})

    @property
    def history(self) -> pa.Table:
        """The iterations as an Arrow table, in the columns of the table `vqe_iterations`; `.to_pandas()` makes a data frame."""
        import pyarrow as pa

        from spark_jobs.rows import arrow_schema
        from spark_jobs.tables import by_name

        declared = arrow_schema(by_name("vqe_iterations"))
        rows = [records.to_record(iteration) for iteration in self.iterations]
        names = [name for name in records.Iteration.__dataclass_fields__ if name in declared.names]
        return pa.Table.from_pylist(rows, schema=pa.schema([declared.field(name) for name in names]))

    def state_vector(self) -> np.ndarray:
        """The final state on qubits, shape: (2^n_qubits,), complex; qubit 0 is the index's lowest bit, as in Qiskit.

        It is computed by the statevector engine from the final parameters, whatever engine the run used: for a noisy run it is
        the noiseless state.

        Raises:
            InputError: it would not fit into memory, or the run was stopped before it had parameters.
        """
        from simulator.vqe.state import state_vector

        if self._prepared is None:
            raise InputError("the run was stopped before it had a state")
        built = self._prepared
        return state_vector(self.spec, built.problem, built.hamiltonian, built.references, self.parameters)


class RunInterrupted(Interrupted):
    """A run was stopped by Ctrl-C; `result` holds what it had reached."""

    def __init__(self, result: Result) -> None:
        super().__init__("the run was interrupted")
        self.result = result


class _Recorder:
    """Keeps iterations in memory and passes every event on to a sink, where there is one."""

    def __init__(self, sink: Sink | None) -> None:
        self.iterations: list[records.Iteration] = []
        self._sink = sink

    def emit(self, event: records.Event) -> None:
        if isinstance(event, records.Iteration):
            self.iterations.append(event)
        if self._sink is not None:
            self._sink.emit(event)

    def flush(self) -> None:
        if self._sink is not None:
            self._sink.flush()

    def deliver(self, seconds: float) -> bool:
        return self._sink is None or self._sink.deliver(seconds)

    def close(self) -> None:
        """The sink is its owner's to close."""


def run_vqe(
    spec: RunSpec,
    *,
    name: str | None = None,
    sink: Sink | None = None,
    data_dir: str | Path | None = None,
    observer: Observer | None = None,
) -> Result:
    """Run VQE in this process.

    Args:
        spec: what to run, from `make_spec`.
        name: what the run is called in events and tables; the molecule's formula where nothing is given.
        sink: gets every event as it happens, and is flushed at the end; closing it is the caller's.
        data_dir: the events and tables of this folder hold the run, as after `vqe run --data-dir`. Without `sink` and
            `data_dir` nothing is written.
        observer: is told stages and iterations while the run goes on; it must return at once.

    Returns:
        The completed run. A run that did not converge, or whose state is not believable, is returned, too: see `converged` and
        `physical`.

    Raises:
        InputError: the specification cannot be run.
        RunFailed: the run failed, e.g. because no SCF came near a stationary point.
        StorageError: events or tables could not be written.
        RunInterrupted: Ctrl-C; its `result` is what the run had reached.
    """
    if sink is not None and data_dir is not None:
        raise ValueError("run_vqe takes a sink or a data_dir, not both")
    settings = load_settings(data_dir=None if data_dir is None else Path(data_dir))
    if data_dir is None:
        return _run(spec, name, sink, settings, observer)
    from simulator.runs.sink import make_sink
    from spark_jobs.arrow.batch import build
    from spark_jobs.location import Location

    Location.of(settings.data_dir).check()
    files = make_sink(settings.model_copy(update={"sink": "file"}))
    try:
        result = _run(spec, name, files, settings, observer)
    finally:
        files.close()
    build(settings.data_dir)
    return result


def _run(spec: RunSpec, name: str | None, sink: Sink | None, settings: Settings, observer: Observer | None) -> Result:
    recorder = _Recorder(sink)
    if sink is None:  # what is in memory is the caller's alone, and whole
        settings = settings.model_copy(update={"record_parameters": "all"})
    session = Session(recorder, settings)
    event = session.execute(VqeTask(spec), name or spec.molecule.formula, observer=observer)
    recorder.flush()
    result = Result(spec, event, tuple(recorder.iterations), SharedProblems.of(session.memory("vqe")).known(spec))
    if event.status == "failed":
        raise RunFailed(event.error or "the run failed")
    if event.status == "interrupted":
        raise RunInterrupted(result)
    return result
