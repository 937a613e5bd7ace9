"""A run in one JSON object: what `--json` prints and what a child process answers."""

from typing import Any

from simulator.events.records import Result


def summary_record(result: Result) -> dict[str, Any]:
    """The run as `--json` prints it; energies in hartree."""
    return {
        "run_id": result.run_id, "spec_id": result.spec_id, "molecule": result.molecule_name,
        "formula": result.formula, "status": result.status, "physical": result.physical,
        "physical_reason": result.physical_reason, "converged": result.converged,
        "convergence_reason": result.convergence_reason, "energy": result.energy,
        "standard_error": result.standard_error, "reference": result.reference_name,
        "reference_energy": result.reference_energy, "error_mha": result.error_mha,
        "chemical_accuracy": result.chemical_accuracy, "aer_energy": result.aer_energy,
        "electron_number": result.electron_number, "s_squared": result.s_squared, "engine": result.spec["engine"],
        "iterations": result.iterations, "evaluations": result.evaluations, "seconds": result.total_seconds,
        "notes": result.notes, "error": result.error,
    }  # fmt: skip


def exit_code(result: Result) -> int:
    """0 done; 1 failed, unphysical or not converged; 130 interrupted."""
    if result.status == "interrupted":
        return 130
    return 0 if result.status == "completed" and result.physical is not False and result.converged else 1
