"""The state that a specification's circuit prepares, on qubits."""

from typing import TYPE_CHECKING

import numpy as np

from simulator.chemistry.integrals import build_problem
from simulator.chemistry.references import compute_references
from simulator.engines.limits import check_statevector
from simulator.engines.statevector import StatevectorEngine
from simulator.errors import InputError
from simulator.operators.hamiltonian import Mapping, qubit_hamiltonian
from simulator.stages import Stages
from simulator.vqe.ansatz import ansatz_gates, choose_excitations, choose_screening

if TYPE_CHECKING:
    from simulator.vqe.spec import RunSpec


def state_vector(spec: "RunSpec", parameters: np.ndarray) -> np.ndarray:
    """The noiseless state of the ansatz at parameters in radian.

    Args:
        spec: the run's specification.
        parameters: radian, shape: (n_parameters,).

    Returns:
        shape: (2^n_qubits,), complex, normalised; qubit 0 is the lowest bit of the index, as in Qiskit.

    Raises:
        InputError: the parameters are not as many as the ansatz has, or the state would not fit into memory.
    """
    stages = Stages()
    problem = build_problem(spec, stages)
    mapping = Mapping(spec.mapper, problem.norb, problem.nelec)
    references = compute_references(problem, spec, stages)  # they decide which excitations the run had
    excitations = choose_excitations(spec, problem, choose_screening(spec, problem, references))
    gates = ansatz_gates(spec, excitations, mapping)
    check_statevector(gates.n_qubits)
    if len(parameters) != gates.n_parameters:
        raise InputError(f"the state has {gates.n_parameters} parameters, not {len(parameters)}")
    return StatevectorEngine(gates, qubit_hamiltonian(problem, spec.mapper, stages), mapping).state(parameters)
