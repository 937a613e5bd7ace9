"""The event that ends a VQE run, of everything that is known of the run by then."""

import math
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from simulator.events.records import Result, now_micros
from simulator.tasks.base import Ended, TaskRun
from simulator.tasks.vqe.problems import Prepared
from simulator.trust import CHEMICAL_ACCURACY_MHA
from simulator.versions import versions
from simulator.vqe.records import spec_record
from simulator.vqe.spec import RunSpec

if TYPE_CHECKING:
    from simulator.chemistry.references import Reference
    from simulator.vqe.loop import Solution
    from simulator.vqe.search import IterationRecord


@dataclass
class Reached:
    """What a run has reached so far, so that a failed or interrupted one tells it."""

    prepared: Prepared | None = None
    solution: "Solution | None" = None
    initial: list[float] | None = None  # radian, shape: (n_parameters,)
    last: "IterationRecord | None" = None
    iterations: int = 0  # records of the stream, the start included
    chunks: int = 0  # records that hold the Hamiltonian


def result_event(spec: RunSpec, run: TaskRun, reached: Reached, how: Ended) -> Result:
    """The `vqe_result` event of a run, completed or not."""
    prepared, solution, last = reached.prepared, reached.solution, reached.last
    energy = solution.energy if solution else last.energy if last else None
    fields: dict[str, Any] = {"hamiltonian_id": None}
    if prepared is not None:
        problem, hamiltonian = prepared.problem, prepared.hamiltonian
        reference_name, reference = compared_with(prepared.references)
        error_mha, accurate = error_to(energy, reference)
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
            "converged": False, "convergence_reason": how.status, "n_parameters": len(last.parameters),
            "evaluations": last.evaluations, "gradient_evaluations": last.gradient_evaluations,
            "parameters": _parameter_records(labels, reached.initial or [], last.parameters.tolist()),
        }  # fmt: skip
    now = now_micros()
    return Result(
        run_id=run.run_id, recorded_at=now, spec_id=spec.spec_id, molecule_id=spec.molecule_id, problem_id=spec.problem_id,
        sweep_id=run.sweep_id, attempt=run.attempt, molecule_name=run.name, formula=spec.molecule.formula, spec=spec_record(spec),
        spec_json=spec.canonical_json(), status=how.status, error=how.error, energy=energy, started_at=run.started_at,
        finished_at=now, total_seconds=how.seconds, nuclear_repulsion=spec.nuclear_repulsion, ecp=spec.ecp, ecp_electrons=spec.ecp_electrons,
        orbitals=None if spec.orbitals is None else list(spec.orbitals), natural_orbitals=spec.natural_orbitals,
        iterations=max(reached.iterations - 1, 0), timings=[{"stage": row.stage, "seconds": row.seconds, "calls": row.calls} for row in how.stages],
        counts={
            "iterations": reached.iterations, "system_metrics": how.samples, "hamiltonian_chunks": reached.chunks,
            "hamiltonian_terms": len(prepared.hamiltonian.labels) if prepared and reached.chunks else 0,
        },
        host=socket.gethostname(), versions=versions(), resumed_from=None if run.resumed is None else run.resumed.run_id,
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
    error, accurate = error_to(energy, known)
    if known is not None and energy is not None:
        correlation = known - hf_energy
        share = (energy - hf_energy) / correlation if abs(correlation) > 1e-9 else None
    return {
        "name": reference.name, "energy": _finite(known), "error_mha": _finite(error),
        "chemical_accuracy": accurate, "correlation_share": _finite(share), "s_squared": _finite(reference.s_squared),
        "source": reference.source, "reason": reference.reason,
    }  # fmt: skip


def compared_with(references: "tuple[Reference, ...]") -> tuple[str | None, float | None]:
    """Name and energy of the reference that errors are taken against; None twice without one."""
    from simulator.chemistry.references import reference_energy

    return reference_energy(references) or (None, None)


def error_to(energy: float | None, known: float | None) -> tuple[float | None, bool | None]:
    """Distance to a known energy in millihartree, and whether it is within chemical accuracy."""
    if energy is None or known is None:
        return None, None
    error = 1e3 * (energy - known)
    return error, abs(error) < CHEMICAL_ACCURACY_MHA


def _finite(value: Any) -> Any:
    """None for a number that is not finite: events hold no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
