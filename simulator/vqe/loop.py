"""The variational quantum eigensolver: build the ansatz, search for its lowest energy, verify the state that was found."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from simulator.checkpoint import Checkpoint
from simulator.chemistry.problem import Problem
from simulator.chemistry.references import Reference
from simulator.operators.hamiltonian import QubitHamiltonian
from simulator.stages import Stages
from simulator.vqe.ansatz import build_ansatz
from simulator.vqe.search import IterationRecord, Search, told_if_stuck
from simulator.vqe.spec import RunSpec
from simulator.vqe.verify import INTERRUPTED, Verdict, verify


@dataclass(frozen=True)
class Solution:
    """What a run found."""

    energy: float  # total, hartree
    standard_error: float | None  # hartree, shots only
    parameters: np.ndarray  # radian, shape: (n_parameters,)
    initial_parameters: np.ndarray  # radian, shape: (n_parameters,)
    labels: tuple[str, ...]  # of the parameters, shape: (n_parameters,)
    converged: bool
    reason: str  # why the search ended
    iterations: int
    evaluations: int
    gradient_evaluations: int
    n_parameters: int
    n_excitations: int | None  # None unless the ansatz is UCCSD
    n_qubits: int
    notes: tuple[str, ...]
    verdict: Verdict
    interrupted: bool = False  # the run was asked to stop: the best point so far, or a minimum without its checks


def minimize(
    spec: RunSpec,
    problem: Problem,
    hamiltonian: QubitHamiltonian,
    references: tuple[Reference, ...],
    *,
    observe: Callable[[IterationRecord], None],
    should_stop: Callable[[], bool],
    stages: Stages,
    resumed: Checkpoint | None = None,
) -> Solution:
    """Run the VQE that `spec` describes.

    Args:
        spec: the run's specification.
        problem: the active space's integrals.
        hamiltonian: on qubits, with the mapping of `spec.mapper`.
        references: the exact one decides whether symmetry screening is safe, the sector's minimum whether the energy is.
        observe: called once an iteration, the start included.
        should_stop: asked at every evaluation; True ends the run with the best point so far, interrupted and unchecked.
        stages: takes the times of ansatz, optimization and verification.
        resumed: where an earlier attempt at this specification was, in place of the initial point.

    Raises:
        InputError: what was asked does not fit (memory, number of parameters, initial vector, no GPU).
        RunFailed: the energy is not a number, or the optimizer broke down.
        Interrupted: asked to stop before there was an energy.
    """
    with stages("ansatz"):
        ansatz = build_ansatz(spec, problem, hamiltonian, references)
    with stages("optimization"):
        search = Search(spec, ansatz.engine, observe, should_stop, resumed, steps=ansatz.steps)
        optimum = told_if_stuck(search.run(ansatz.start), search, problem.hf_energy, references)
    interrupted, verdict = optimum.interrupted, INTERRUPTED
    if not interrupted:
        try:
            with stages("verification"):
                verdict = verify(spec, ansatz, references, optimum.parameters, optimum.energy)
        except KeyboardInterrupt:  # the minimum is found, and is kept without the checks
            interrupted = True
    return Solution(
        energy=optimum.energy, standard_error=optimum.standard_error, parameters=optimum.parameters,
        initial_parameters=optimum.start, labels=ansatz.engine.labels, converged=optimum.converged, reason=optimum.reason,
        iterations=search.iterations, evaluations=search.evaluations, gradient_evaluations=search.gradient_evaluations,
        n_parameters=ansatz.engine.n_parameters, n_excitations=ansatz.n_excitations, n_qubits=hamiltonian.n_qubits,
        notes=(*ansatz.notes, *optimum.notes), verdict=verdict, interrupted=interrupted,
    )  # fmt: skip
