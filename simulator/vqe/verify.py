"""Whether a final state is believable: its electrons, its spin, its energy against the exact one, and our engine against Aer."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from simulator.chemistry.problem import Problem
from simulator.chemistry.references import Reference, exact_energy, sector_minimum
from simulator.engines.limits import MAX_AER_CHECK_QUBITS
from simulator.trust import ELECTRON_TOLERANCE, ENERGY_TOLERANCE, ENGINE_TOLERANCE, SPIN_TOLERANCE, Check
from simulator.vqe.ansatz import Ansatz
from simulator.vqe.spec import RunSpec

if TYPE_CHECKING:
    from simulator.engines.aer import AerCheck


@dataclass(frozen=True)
class Failure:
    """A check that a state failed."""

    check: Check
    what: str  # what was found and what was expected, in words


@dataclass(frozen=True)
class Verdict:
    """What the checks found, and what follows from it. What was not looked at is None."""

    physical: bool | None = None  # None where a check could not be made
    reason: str | None = None  # what is wrong, or why `physical` is None
    failures: tuple[Failure, ...] = ()
    electron_number: float | None = None  # <N> over the active space
    s_squared: float | None = None  # <S^2>
    aer_energy: float | None = None  # total, hartree, noiseless, at the final parameters
    aer_reason: str | None = None  # why there is no energy from Aer
    circuit_depth: int | None = None
    two_qubit_gates: int | None = None


INTERRUPTED = Verdict(reason="interrupted before the checks", aer_reason="interrupted")
"""What an interrupted run says of its state."""


def verify(
    spec: RunSpec, ansatz: Ansatz, references: tuple[Reference, ...], parameters: np.ndarray, energy: float
) -> Verdict:
    """Check the state at the end of a run.

    Args:
        spec: the run's specification.
        ansatz: as the run used it.
        references: with the exact energy of the asked spin, and the sector's minimum.
        parameters: where the run ended, radian, shape: (n_parameters,).
        energy: what the run tells, total, hartree.
    """
    n_electrons, s_squared, on_aer = _observables(ansatz, parameters)
    failures = [
        *([] if on_aer is None else _engine_failures(spec, ansatz, parameters, energy, on_aer.energy)),
        *_state_failures(ansatz.problem, n_electrons, s_squared),
        *([] if spec.estimated_by else _energy_failures(energy, s_squared, references)),
    ]
    unchecked = _unchecked(spec, ansatz, references)
    physical: bool | None = not failures
    if spec.estimated_by or (unchecked and not failures):
        physical = None
    return Verdict(
        physical=physical, reason=None if physical else "; ".join([*(f.what for f in failures), *unchecked]),
        failures=tuple(failures), electron_number=n_electrons, s_squared=s_squared,
        aer_energy=None if on_aer is None else on_aer.energy,
        aer_reason=_too_large_for_aer(ansatz),
        circuit_depth=None if on_aer is None else on_aer.depth,
        two_qubit_gates=None if on_aer is None else on_aer.two_qubit_gates,
    )  # fmt: skip


def _observables(ansatz: Ansatz, parameters: np.ndarray) -> "tuple[float, float, AerCheck | None]":
    """<N>, <S^2>, and what Aer says where the register is small enough for it."""
    if _too_large_for_aer(ansatz):
        return *ansatz.engine.n_electrons_and_spin(parameters), None
    from simulator.engines.aer import evaluate

    on_aer = evaluate(ansatz.circuit(), parameters, ansatz.hamiltonian, ansatz.mapping)
    if ansatz.engine.name == "sector":
        return *ansatz.engine.n_electrons_and_spin(parameters), on_aer
    return on_aer.n_electrons, on_aer.s_squared, on_aer


def _too_large_for_aer(ansatz: Ansatz) -> str | None:
    """Why the state is not run on Aer; None where it is."""
    n_qubits = ansatz.hamiltonian.n_qubits
    if n_qubits <= MAX_AER_CHECK_QUBITS:
        return None
    return f"{n_qubits} qubits, checked on Aer up to {MAX_AER_CHECK_QUBITS}"


def _unchecked(spec: RunSpec, ansatz: Ansatz, references: tuple[Reference, ...]) -> list[str]:
    """Why a state that fails no check may be unphysical all the same."""
    reasons = [_too_large_for_aer(ansatz)]
    minimum = sector_minimum(references)
    if spec.estimated_by:
        reasons.append(f"{' and '.join(spec.estimated_by)}: the energy is an estimate")
    elif minimum is None:
        reasons.append("no exact energy: not computed")
    elif minimum.energy is None:
        reasons.append(f"no exact energy: {minimum.reason or ''}")
    return [reason for reason in reasons if reason is not None]


def _engine_failures(
    spec: RunSpec, ansatz: Ansatz, parameters: np.ndarray, energy: float, aer_energy: float
) -> list[Failure]:
    """Our engine against Aer at the final parameters; where the run was on Aer, our statevector engine is asked instead."""
    found = []
    ours = energy
    if ansatz.engine.name == "aer":
        from simulator.engines.statevector import StatevectorEngine

        ours = StatevectorEngine(ansatz.circuit(), ansatz.hamiltonian, ansatz.mapping).energy(parameters)[0]
    if (apart := abs(ours - aer_energy)) > ENGINE_TOLERANCE:
        found.append(Failure(Check.ENGINES, f"our engine and Aer differ by {apart:.1e} hartree"))
    if ansatz.engine.name == "aer" and not spec.estimated_by and (apart := abs(energy - aer_energy)) > ENGINE_TOLERANCE:
        found.append(Failure(Check.ENGINES, f"Aer by method {spec.aer_method} differs by {apart:.1e} hartree"))
    return found


def _state_failures(problem: Problem, n_electrons: float, s_squared: float) -> list[Failure]:
    """The state's electrons and spin against those that were asked for."""
    found = []
    if abs(n_electrons - sum(problem.nelec)) > ELECTRON_TOLERANCE:
        found.append(Failure(Check.ELECTRON_NUMBER, f"{n_electrons:.4f} electrons instead of {sum(problem.nelec)}"))
    if abs(s_squared - problem.spin_squared) > SPIN_TOLERANCE:
        found.append(Failure(Check.SPIN, f"<S^2> is {s_squared:.4f} instead of {problem.spin_squared:g}"))
    return found


def _energy_failures(energy: float, s_squared: float, references: tuple[Reference, ...]) -> list[Failure]:
    """A variational energy that is below an exact one."""
    found = []
    minimum, of_spin = sector_minimum(references), exact_energy(references)
    if minimum is not None and minimum.energy is not None and energy < minimum.energy - ENERGY_TOLERANCE:
        below = f"energy {minimum.energy - energy:.1e} hartree below the exact energy of its sector"
        found.append(Failure(Check.ENERGY, below))
    if of_spin is not None and energy < of_spin[1] - ENERGY_TOLERANCE:
        name, exact = of_spin
        found.append(
            Failure(
                Check.ENERGY,
                f"energy {exact - energy:.1e} hartree below {name}, the exact energy of its spin: the reference is"
                f" wrong or other spins are mixed in (<S^2> {s_squared:.4f})",
            )
        )
    return found
