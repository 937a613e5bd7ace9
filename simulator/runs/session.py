"""One run from specification to result event: what every command that runs VQE calls."""

import contextlib
import dataclasses
import math
import os
import platform
import socket
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from simulator import __version__
from simulator.errors import InputError, Interrupted, StorageError, VqeError
from simulator.events.records import (
    Iteration,
    Result,
    Run,
    hamiltonian_events,
    new_id,
    now_micros,
)
from simulator.log import get_logger
from simulator.settings import Settings, parse_recording
from simulator.sinks import Sink
from simulator.stages import Stages
from simulator.trust import CHEMICAL_ACCURACY_MHA
from simulator.vqe.records import molecule_record, spec_record
from simulator.vqe.spec import RunSpec

if TYPE_CHECKING:
    from simulator.chemistry.problem import Problem
    from simulator.chemistry.references import Reference
    from simulator.operators.hamiltonian import QubitHamiltonian
    from simulator.vqe.loop import Solution
    from simulator.vqe.search import IterationRecord

SWITCH_SECONDS = 5e-4
_CACHED_PROBLEMS = 4
_VERSIONED = ("numpy", "scipy", "numba", "pyscf", "qiskit", "qiskit-aer", "qiskit-nature")


class Observer(Protocol):
    """Is told how a run goes on, in the run's own thread; must return at once."""

    def stage(self, name: str) -> None: ...
    def iteration(self, event: Iteration) -> None: ...


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What the runs of one problem share."""

    problem: "Problem"
    references: "tuple[Reference, ...]"
    hamiltonian: "QubitHamiltonian"


@dataclasses.dataclass
class _Progress:
    """What a run has reached, so that a failed or interrupted one keeps it."""

    prepared: Prepared | None = None
    solution: "Solution | None" = None
    initial: list[float] | None = None
    last: "IterationRecord | None" = None
    iterations: int = 0
    chunks: int = 0


class Session:
    """Runs specifications one after another into a sink.

    A Hamiltonian is sent once a session; integrals, references and Hamiltonian of the last problems are kept, as
    repeats over seeds or optimizers share them.
    """

    def __init__(self, sink: Sink, settings: Settings, *, sweep_id: str | None = None) -> None:
        self.sink, self.settings, self.sweep_id = sink, settings, sweep_id
        self.stop_requested = False
        self._may_be_left = False
        self._sent: dict[str, int] = {}
        self._problems: OrderedDict[str, Prepared] = OrderedDict()

    def request_stop(self) -> None:
        """End the run under way as interrupted; for signal handlers, which Python calls in the main thread.

        The optimizer ends at its next evaluation, with the best point so far. Every other stage has nothing to keep and
        may take minutes, so it is left at once.

        Raises:
            Interrupted: from within such a stage.
        """
        self.stop_requested = True
        if self._may_be_left and not _importing():
            self._may_be_left = False
            raise Interrupted

    def execute(self, spec: RunSpec, name: str, *, attempt: int = 1, observer: Observer | None = None) -> Result:
        """Run one specification; its events go to the sink, the last of them is returned.

        Args:
            spec: what to run.
            name: what the user calls the molecule.
            attempt: which attempt at this specification, from 1.
            observer: is told stages and iterations.

        Raises:
            InputError: the specification cannot be run, e.g. an unknown basis; a failed result was emitted.
            StorageError: events could not be kept.
        """
        run_id, began, started = new_id(), time.monotonic(), now_micros()
        with structlog.contextvars.bound_contextvars(run_id=run_id, spec_id=spec.spec_id):
            self._emit_run(run_id, spec, name, attempt)
            stages, progress = Stages(self._begin_stage), _Progress()
            status, error, raised, samples = self._solve(run_id, spec, stages, progress, observer)
            result = _result(
                run_id=run_id, spec=spec, name=name, sweep_id=self.sweep_id, attempt=attempt, started=started,
                seconds=time.monotonic() - began, status=status, error=error, stages=stages, progress=progress,
                samples=samples,
            )  # fmt: skip
            self.sink.emit(result)
        if isinstance(raised, InputError):
            raise raised
        return result

    def _emit_run(self, run_id: str, spec: RunSpec, name: str, attempt: int) -> None:
        self.sink.emit(
            Run(
                run_id=run_id,
                recorded_at=now_micros(),
                spec_id=spec.spec_id,
                molecule_id=spec.molecule_id,
                problem_id=spec.problem_id,
                sweep_id=self.sweep_id,
                attempt=attempt,
                molecule_name=name,
                molecule=molecule_record(spec.molecule),
                spec=spec_record(spec),
                spec_json=spec.canonical_json(),
                host=socket.gethostname(),
                process_id=os.getpid(),
                versions=versions(),
            )
        )

    def _solve(
        self, run_id: str, spec: RunSpec, stages: Stages, progress: _Progress, observer: Observer | None
    ) -> tuple[str, str | None, BaseException | None, int]:
        """Status, error line, the exception behind it, and the monitor's samples."""
        from simulator.observability.monitor import Monitor

        monitor = Monitor(run_id, self.sink.emit, interval=self.settings.monitor_interval)
        try:
            with monitor:
                self._steps(run_id, spec, stages, progress, observer)
            # A stop that came too late to shorten the run counts all the same: its caller is told one thing.
            self.stop_requested |= progress.solution is not None and progress.solution.interrupted
            status = "interrupted" if self.stop_requested else "completed"
            outcome: tuple[str, str | None, BaseException | None] = (status, None, None)
        except KeyboardInterrupt as stop:
            self.stop_requested = True
            outcome = ("interrupted", None, stop)
        except StorageError:
            raise
        except VqeError as known:
            outcome = ("failed", str(known), known)
        except MemoryError as known:
            outcome = ("failed", "the machine ran out of memory", known)
        except Exception as unknown:
            if _from_stop(unknown):
                self.stop_requested = True
                return ("interrupted", None, unknown, monitor.samples)
            get_logger().error("run failed", exc_info=True)
            line = " ".join(str(unknown).split())
            outcome = ("failed", f"{type(unknown).__name__}: {line}"[:2000], unknown)
        return (*outcome, monitor.samples)

    def _steps(
        self, run_id: str, spec: RunSpec, stages: Stages, progress: _Progress, observer: Observer | None
    ) -> None:
        from simulator.vqe.loop import minimize

        tell: Callable[[str], None] = observer.stage if observer else lambda _: None
        self._may_be_left = True
        try:
            progress.prepared = prepared = self._prepare(spec, stages, tell)
        finally:
            self._may_be_left = False
        progress.chunks = self._send_hamiltonian(spec, prepared.hamiltonian)
        _, reference = _compared_with(prepared.references)
        every = parse_recording(self.settings.record_parameters)

        def observe(record: "IterationRecord") -> None:
            parameters = record.parameters.tolist()
            if progress.initial is None:
                progress.initial = parameters
            progress.last, progress.iterations = record, progress.iterations + 1
            event = Iteration(
                run_id=run_id, recorded_at=now_micros(), iteration=record.iteration, energy=record.energy,
                error_mha=_error_mha(record.energy, reference)[0],
                standard_error=record.standard_error, gradient_norm=record.gradient_norm,
                evaluations=record.evaluations, gradient_evaluations=record.gradient_evaluations,
                elapsed_seconds=record.elapsed_seconds,
                parameters=parameters if every and record.iteration % every == 0 else None,
            )  # fmt: skip
            self.sink.emit(event)
            if observer:
                observer.iteration(event)

        tell("optimization")
        try:
            progress.solution = minimize(
                spec, prepared.problem, prepared.hamiltonian, prepared.references,
                observe=observe, should_stop=lambda: self.stop_requested, stages=stages,
            )  # fmt: skip
        finally:
            self._may_be_left = False

    def prepared(self, spec: RunSpec) -> Prepared | None:
        """What a run of this session has built for the specification's problem; None where it came to nothing or is forgotten."""
        return self._problems.get(spec.problem_id)

    def _begin_stage(self, stage: str) -> None:
        self._may_be_left = stage != "optimization"
        if self.stop_requested:
            raise Interrupted

    def _prepare(self, spec: RunSpec, stages: Stages, tell: Callable[[str], None]) -> Prepared:
        if (known := self.prepared(spec)) is not None:
            self._problems.move_to_end(spec.problem_id)
            return known
        from simulator.chemistry.integrals import build_problem
        from simulator.chemistry.references import compute_references
        from simulator.engines.limits import check_run
        from simulator.operators.hamiltonian import qubit_hamiltonian

        tell("integrals")
        problem = build_problem(spec, stages, partial(check_run, spec))
        tell("references")
        references = compute_references(problem, spec, stages)
        tell("mapping")
        prepared = Prepared(problem, references, qubit_hamiltonian(problem, spec.mapper, stages))
        self._problems[spec.problem_id] = prepared
        if len(self._problems) > _CACHED_PROBLEMS:
            self._problems.popitem(last=False)
        return prepared

    def _send_hamiltonian(self, spec: RunSpec, hamiltonian: "QubitHamiltonian") -> int:
        """Records that hold the operator; sent unless this session has sent them."""
        known = self._sent.get(hamiltonian.hamiltonian_id)
        if known is not None:
            return known
        events = hamiltonian_events(
            hamiltonian_id=hamiltonian.hamiltonian_id, problem_id=spec.problem_id, mapper=spec.mapper,
            n_qubits=hamiltonian.n_qubits, energy_offset=hamiltonian.energy_offset, labels=list(hamiltonian.labels),
            coefficients=hamiltonian.coefficients.tolist(),
        )  # fmt: skip
        for event in events:
            self.sink.emit(event)
        self._sent[hamiltonian.hamiltonian_id] = len(events)
        return len(events)


def switch_threads_often() -> None:
    """Let threads that write and deliver events have the interpreter after 0.5 instead of 5 ms, in the whole process.

    It is for processes that do nothing else: the command and its children, never the library.
    """
    sys.setswitchinterval(min(SWITCH_SECONDS, sys.getswitchinterval()))


def _importing() -> bool:
    """Whether a module is being loaded: NumPy and others cannot be loaded again after an interrupted attempt."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _from_stop(error: BaseException | None) -> bool:
    """Whether an error is how a library passed on that the run was asked to stop."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


@cache
def versions() -> dict[str, str]:
    """Versions of the packages that decide numbers."""
    found = {"vqe-pipeline": __version__, "python": platform.python_version()}
    for name in _VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # qiskit-aer is called qiskit-aer-gpu where Aer runs on GPUs
    if "qiskit-aer" not in found:
        with contextlib.suppress(PackageNotFoundError):
            found["qiskit-aer-gpu"] = version("qiskit-aer-gpu")
    return found


def exit_code(result: Result) -> int:
    """0 done; 1 failed, unphysical or not converged; 130 interrupted."""
    if result.status == "interrupted":
        return 130
    return 0 if result.status == "completed" and result.physical is not False and result.converged else 1


def _result(
    *, run_id: str, spec: RunSpec, name: str, sweep_id: str | None, attempt: int, started: int, seconds: float,
    status: str, error: str | None, stages: Stages, progress: _Progress, samples: int,
) -> Result:  # fmt: skip
    prepared, solution, last = progress.prepared, progress.solution, progress.last
    energy = solution.energy if solution else last.energy if last else None
    fields: dict[str, Any] = {"hamiltonian_id": None}
    if prepared is not None:
        problem, hamiltonian = prepared.problem, prepared.hamiltonian
        reference_name, reference = _compared_with(prepared.references)
        error_mha, accurate = _error_mha(energy, reference)
        spin = (spec.multiplicity - 1) / 2
        fields |= {
            "hamiltonian_id": hamiltonian.hamiltonian_id, "hf_energy": problem.hf_energy,
            "reference_name": reference_name, "reference_energy": reference, "error_mha": error_mha,
            "chemical_accuracy": accurate, "s_squared_expected": spin * (spin + 1), "n_active_electrons": sum(problem.nelec),
            "n_orbitals": problem.norb, "n_qubits": hamiltonian.n_qubits, "n_terms": len(hamiltonian.labels),
            "energy_offset": hamiltonian.energy_offset, "notes": list(problem.notes),
            "orbital_numbers": [i + 1 for i in problem.active_orbitals],
            "references": [_reference_record(r, energy, problem.hf_energy) for r in prepared.references],
        }  # fmt: skip
    if solution is not None:
        verdict = solution.verdict
        fields |= {
            "standard_error": solution.standard_error, "converged": solution.converged,
            "convergence_reason": solution.reason, "aer_energy": verdict.aer_energy,
            "aer_reason": verdict.aer_reason, "electron_number": verdict.electron_number,
            "s_squared": verdict.s_squared, "physical": verdict.physical,
            "physical_reason": verdict.reason, "n_parameters": len(solution.parameters),
            "circuit_depth": verdict.circuit_depth, "two_qubit_gates": verdict.two_qubit_gates,
            "evaluations": solution.evaluations, "gradient_evaluations": solution.gradient_evaluations,
            "notes": [*fields.get("notes", []), *solution.notes, *_without_yardstick(prepared)],
            "parameters": _parameter_records(solution.labels, solution.initial_parameters, solution.parameters),
        }  # fmt: skip
    elif last is not None:  # failed or interrupted in the middle: what ran is kept
        labels = [f"theta[{i}]" for i in range(len(last.parameters))]
        fields |= {
            "converged": False, "convergence_reason": status, "n_parameters": len(last.parameters),
            "evaluations": last.evaluations, "gradient_evaluations": last.gradient_evaluations,
            "parameters": _parameter_records(labels, progress.initial or [], last.parameters.tolist()),
        }  # fmt: skip
    now = now_micros()
    return Result(
        run_id=run_id, recorded_at=now, spec_id=spec.spec_id, molecule_id=spec.molecule_id, problem_id=spec.problem_id,
        sweep_id=sweep_id, attempt=attempt, molecule_name=name, formula=spec.molecule.formula, spec=spec_record(spec),
        spec_json=spec.canonical_json(), status=status, error=error, energy=energy, started_at=started,
        finished_at=now, total_seconds=seconds, nuclear_repulsion=spec.nuclear_repulsion, ecp=spec.ecp, ecp_electrons=spec.ecp_electrons,
        orbitals=None if spec.orbitals is None else list(spec.orbitals), natural_orbitals=spec.natural_orbitals,
        iterations=max(progress.iterations - 1, 0), timings=[{"stage": row.stage, "seconds": row.seconds, "calls": row.calls} for row in stages.rows()],
        counts={
            "iterations": progress.iterations, "system_metrics": samples, "hamiltonian_chunks": progress.chunks,
            "hamiltonian_terms": len(prepared.hamiltonian.labels) if prepared and progress.chunks else 0,
        },
        host=socket.gethostname(), versions=versions(),
        **{name: _finite(value) for name, value in fields.items()},
    )  # fmt: skip


def _without_yardstick(prepared: Prepared | None) -> list[str]:
    from simulator.chemistry.references import no_yardstick

    reason = None if prepared is None else no_yardstick(prepared.references)
    return [] if reason is None else [reason]


def _parameter_records(labels: Any, initial: Any, optimal: Any) -> list[dict[str, Any]]:
    return [
        {"parameter_index": i, "label": label, "initial": _finite(float(a)), "optimal": _finite(float(b))}
        for i, (label, a, b) in enumerate(zip(labels, initial, optimal, strict=True))
    ]


def _reference_record(reference: "Reference", energy: float | None, hf_energy: float) -> dict[str, Any]:
    known, share = reference.energy, None
    error, accurate = _error_mha(energy, known)
    if known is not None and energy is not None:
        correlation = known - hf_energy
        share = (energy - hf_energy) / correlation if abs(correlation) > 1e-9 else None
    return {
        "name": reference.name, "energy": _finite(known), "error_mha": _finite(error),
        "chemical_accuracy": accurate, "correlation_share": _finite(share), "s_squared": _finite(reference.s_squared),
        "source": reference.source, "reason": reference.reason,
    }  # fmt: skip


def _compared_with(references: "tuple[Reference, ...]") -> tuple[str | None, float | None]:
    """Name and energy of the reference that errors are taken against; None twice without one."""
    from simulator.chemistry.references import reference_energy

    return reference_energy(references) or (None, None)


def _error_mha(energy: float | None, known: float | None) -> tuple[float | None, bool | None]:
    """Distance to a known energy in millihartree, and whether it is within chemical accuracy."""
    if energy is None or known is None:
        return None, None
    error = 1e3 * (energy - known)
    return error, abs(error) < CHEMICAL_ACCURACY_MHA


def _finite(value: Any) -> Any:
    """None for a number that is not finite: events hold no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
