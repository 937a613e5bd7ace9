"""Aer: the check of a run's final parameters, and the engine for shots, noise, other methods, precisions and devices."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.ansatz import Gates, build_circuit
from simulator.errors import RunFailed
from simulator.hamiltonian import Mapping, QubitHamiltonian
from simulator.paulis import PauliSum

if TYPE_CHECKING:
    from simulator.spec import RunSpec


@dataclass(frozen=True)
class AerCheck:
    """What Aer says about an ansatz at given parameters, without noise, in double precision."""

    energy: float  # total, hartree
    n_electrons: float  # over the active space
    s_squared: float
    depth: int
    two_qubit_gates: int


def evaluate(gates: Gates, parameters: np.ndarray, hamiltonian: QubitHamiltonian, mapping: Mapping) -> AerCheck:
    """Run the ansatz's circuit on Aer's statevector method.

    Raises:
        RunFailed: Aer reports an error.
    """
    from qiskit_aer import AerSimulator
    from qiskit_aer.library import SaveExpectationValue

    circuit = build_circuit(gates, gates.angles(parameters).tolist())
    depth, two_qubit_gates = circuit.depth(), circuit.count_ops().get("cx", 0)
    observables = {
        "energy": hamiltonian.as_sparse_pauli_op(),
        "n_electrons": sparse_pauli_op(mapping.number_operator()),
        "s_squared": sparse_pauli_op(mapping.spin_squared_operator()),
    }
    for label, observable in observables.items():
        circuit.append(SaveExpectationValue(observable, label=label), range(gates.n_qubits))
    values = completed(AerSimulator(method="statevector", precision="double").run(circuit, shots=1)).data(0)
    return AerCheck(
        float(values["energy"]) + hamiltonian.energy_offset, float(values["n_electrons"]), float(values["s_squared"]),
        depth, two_qubit_gates,
    )  # fmt: skip


def completed(job: Any) -> Any:
    """A job's result.

    Raises:
        RunFailed: it did not succeed.
    """
    result = job.result()
    if not result.success:
        raise RunFailed(f"Aer failed: {result.status}")
    return result


def sparse_pauli_op(operator: PauliSum) -> Any:
    """A Hermitian PauliSum as Qiskit's SparsePauliOp."""
    from qiskit.quantum_info import SparsePauliOp

    if not len(operator):
        return SparsePauliOp("I" * operator.n_qubits, [0.0])
    return SparsePauliOp(operator.labels(), operator.coefficients.real)


class AerEngine:
    def __init__(self, spec: "RunSpec", gates: Gates, hamiltonian: QubitHamiltonian, mapping: Mapping) -> None:
        raise NotImplementedError
