"""Pauli strings, gates and states as dense matrices."""

import numpy as np

from simulator.operators.circuits import CNOT, Gates
from simulator.operators.paulis import PauliSum

_LETTERS = {
    "I": np.eye(2, dtype=complex),
    "X": np.array([[0, 1], [1, 0]], dtype=complex),
    "Y": np.array([[0, -1j], [1j, 0]]),
    "Z": np.diag([1.0 + 0j, -1.0]),
}


def string_matrix(label: str) -> np.ndarray:
    """The matrix of a Pauli string, qubit 0 rightmost, shape: (2^n, 2^n)."""
    out = np.eye(1, dtype=complex)
    for letter in label:
        out = np.kron(out, _LETTERS[letter])
    return out


def sum_matrix(operator: PauliSum) -> np.ndarray:
    """The matrix of a sum of strings, shape: (2^n, 2^n)."""
    out = np.zeros((2**operator.n_qubits,) * 2, dtype=complex)
    for label, coefficient in zip(operator.labels(), operator.coefficients, strict=True):
        out += coefficient * string_matrix(label)
    return out


def gates_state(gates: Gates, parameters: np.ndarray) -> np.ndarray:
    """The state that the gates make, shape: (2^n,)."""
    n = gates.n_qubits
    psi = np.zeros(2**n, dtype=complex)
    psi[gates.initial_state] = 1.0
    for kind, x, z, angle in zip(gates.kind, gates.x.tolist(), gates.z.tolist(), gates.angles(parameters), strict=True):
        if kind == CNOT:
            psi = np.array([psi[b ^ z if b & x else b] for b in range(2**n)])
        else:
            label = "".join("IXZY"[(x >> q & 1) + 2 * (z >> q & 1)] for q in reversed(range(n)))
            psi = np.cos(angle / 2) * psi - 1j * np.sin(angle / 2) * (string_matrix(label) @ psi)
    return psi
