"""The statevector engine: exact energies and adjoint gradients for every ansatz and mapping, on all 2^n amplitudes.

Gates are Pauli rotations and CNOTs in place; H psi goes by occupation strings (`fock`), in small registers by groups of Pauli strings
that flip the same qubits; the gradient is the
adjoint method (Jones and Gacon, arXiv:2009.02823): the price of about three circuits, whatever the number of parameters.
"""

import numpy as np

from simulator.engines.fock import FockProduct
from simulator.engines.gate_kernels import LOW_QUBITS, Program, angles_of, odd, program_of, run_program, undo_program
from simulator.engines.kernels import njit
from simulator.engines.limits import check_statevector
from simulator.operators.circuits import Gates
from simulator.operators.hamiltonian import Mapping, QubitHamiltonian
from simulator.operators.paulis import PauliSum

MIN_FOCK_QUBITS = 10
"""Qubits from which H psi goes by occupation strings; below, Pauli strings are as quick and need no further kernels."""


@njit(cache=True)
def apply_paulis(
    psi: np.ndarray, flips: np.ndarray, group: np.ndarray, z: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """sum_k weights[k] X^flips[g(k)] Z^z[k] psi; the strings of group g are group[g] to group[g + 1]."""
    out = np.zeros_like(psi)
    for g in range(len(flips)):
        x = flips[g]
        for k in range(len(psi)):
            b = np.uint64(k)
            diagonal = 0.0 + 0.0j
            for t in range(group[g], group[g + 1]):
                diagonal += -weights[t] if odd(z[t] & b) else weights[t]
            out[b ^ x] += diagonal * psi[k]
    return out


class PauliOperator:
    """A PauliSum ready to be applied to state vectors."""

    def __init__(self, operator: PauliSum) -> None:
        order = np.lexsort((operator.z, operator.x))
        x, z = operator.x[order], operator.z[order]
        powers = np.array([1, 1j, -1, -1j])[np.bitwise_count(x & z).astype(np.int64) % 4]
        first = np.flatnonzero(np.concatenate([[True], x[1:] != x[:-1]])) if len(x) else np.zeros(0, np.int64)
        self._args = (x[first], np.append(first, len(x)).astype(np.int64), z, operator.coefficients[order] * powers)

    def apply(self, psi: np.ndarray) -> np.ndarray:
        """The operator times psi, shape (2^n,)."""
        return np.asarray(apply_paulis(psi, *self._args))

    def expectation(self, psi: np.ndarray) -> float:
        """<psi| operator |psi> of a Hermitian operator."""
        return float(np.vdot(psi, self.apply(psi)).real)

    def parts_with_energy(self, psi: np.ndarray) -> tuple[np.ndarray, float]:
        """The operator times psi, and <psi| operator |psi>, by real and imaginary parts, shape (2, 2^n)."""
        product = self.apply(joined(psi))
        out = np.array([product.real, product.imag])
        return out, float(np.vdot(psi, out))


def joined(psi: np.ndarray) -> np.ndarray:
    """Real and imaginary parts, shape (2, 2^n), as complex numbers, shape (2^n,)."""
    out = np.empty(psi.shape[1], dtype=complex)
    out.real, out.imag = psi
    return out


def state_at(gates: Gates, program: Program, angles: np.ndarray) -> np.ndarray:
    """Real and imaginary parts of the state that the gates make, shape (2, 2^n_qubits).

    Args:
        gates: the ansatz.
        program: of these gates.
        angles: of every gate in radian, shape: (n_gates,).
    """
    psi = np.zeros((2, 2**gates.n_qubits))
    psi[0, gates.initial_state] = 1.0
    run_program(psi, program, angles_of(gates, angles), LOW_QUBITS)
    return psi


class StatevectorEngine:
    """Energies and gradients of a circuit over all 2^n amplitudes.

    Raises:
        InputError: the state vectors would not fit in memory.
    """

    name = "statevector"

    def __init__(self, gates: Gates, hamiltonian: QubitHamiltonian, mapping: Mapping) -> None:
        check_statevector(gates.n_qubits)
        self.gates, self.labels, self.n_parameters = gates, gates.labels, gates.n_parameters
        self._offset = hamiltonian.energy_offset
        self._hamiltonian: FockProduct | PauliOperator
        if hamiltonian.integrals is not None and gates.n_qubits >= MIN_FOCK_QUBITS:
            self._hamiltonian = FockProduct(hamiltonian.integrals, mapping)
        else:
            self._hamiltonian = PauliOperator(hamiltonian.operator)
        self._mapping = mapping
        self._program = program_of(gates)

    def state(self, parameters: np.ndarray) -> np.ndarray:
        """The normalised state, shape (2^n_qubits,), complex; qubit 0 is the lowest bit of the index."""
        psi = self._state(parameters)
        return joined(psi)

    def energy(self, parameters: np.ndarray) -> tuple[float, None]:
        """Total energy in hartree; it has no standard error."""
        return self._hamiltonian.parts_with_energy(self._state(parameters))[1] + self._offset, None

    def energy_and_gradient(self, parameters: np.ndarray) -> tuple[float, np.ndarray]:
        """Total energy in hartree and its derivatives in hartree per radian, shape: (n_parameters,)."""
        gates = self.gates
        psi = self._state(parameters)
        lam, energy = self._hamiltonian.parts_with_energy(psi)
        slopes = np.zeros(len(gates.slot))
        undo_program(psi, lam, self._program, angles_of(gates, gates.angles(parameters)), LOW_QUBITS, slopes)
        rotations = gates.slot >= 0
        by_slot = np.zeros(len(gates.slot_parameter))
        np.add.at(by_slot, gates.slot[rotations], (gates.coefficient * slopes)[rotations])
        return energy + self._offset, gates.gradient_of(by_slot, parameters)

    def _state(self, parameters: np.ndarray) -> np.ndarray:
        """Real and imaginary parts of the state, shape (2, 2^n_qubits)."""
        return state_at(self.gates, self._program, self.gates.angles(parameters))

    def n_electrons_and_spin(self, parameters: np.ndarray) -> tuple[float, float]:
        """<N> over the active space and <S^2> of the state."""
        psi = self.state(parameters)
        operators = (self._mapping.number_operator(), self._mapping.spin_squared_operator())
        n, spin = (PauliOperator(op).expectation(psi) for op in operators)
        return n, spin
