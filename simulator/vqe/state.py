"""The state that a specification's circuit prepares, on qubits."""

import numpy as np

from simulator.chemistry.problem import Problem
from simulator.chemistry.references import Reference
from simulator.engines.statevector import StatevectorEngine
from simulator.errors import InputError
from simulator.operators.hamiltonian import Mapping, QubitHamiltonian
from simulator.vqe.ansatz import ansatz_gates, choose_excitations, choose_screening
from simulator.vqe.spec import RunSpec


def state_vector(
    spec: RunSpec,
    problem: Problem,
    hamiltonian: QubitHamiltonian,
    references: tuple[Reference, ...],
    parameters: np.ndarray,
) -> np.ndarray:
    """The noiseless state of the ansatz at parameters in radian.

    Args:
        spec: the run's specification.
        problem: the active space's integrals.
        hamiltonian: on qubits, with the mapping of `spec.mapper`.
        references: of the run: they decided which excitations it had.
        parameters: radian, shape: (n_parameters,).

    Returns:
        shape: (2^n_qubits,), complex, normalised; qubit 0 is the lowest bit of the index, as in Qiskit.

    Raises:
        InputError: the parameters are not as many as the ansatz has, or the state would not fit into memory.
    """
    mapping = Mapping(spec.mapper, problem.norb, problem.nelec)
    excitations = choose_excitations(spec, problem, choose_screening(spec, problem, references))
    gates = ansatz_gates(spec, excitations, mapping)
    if len(parameters) != gates.n_parameters:
        raise InputError(f"the state has {gates.n_parameters} parameters, not {len(parameters)}")
    return StatevectorEngine(gates, hamiltonian, mapping).state(parameters)
