"""The statevector engine: exact energies and adjoint gradients for every ansatz and mapping, on all 2^n amplitudes.

Gates are Pauli rotations and CNOTs in place; H psi goes by groups of strings that flip the same qubits; the gradient is the
adjoint method (Jones and Gacon, arXiv:2009.02823): the price of about three circuits, whatever the number of parameters.
"""

import numpy as np

from simulator.engines.kernels import njit
from simulator.engines.limits import check_statevector
from simulator.operators.circuits import CNOT, Gates
from simulator.operators.hamiltonian import Mapping, QubitHamiltonian
from simulator.operators.paulis import PauliSum


@njit(cache=True, inline="always")
def _odd(mask: np.uint64) -> bool:
    """Whether a mask has an odd number of ones."""
    mask ^= mask >> np.uint64(32)
    mask ^= mask >> np.uint64(16)
    mask ^= mask >> np.uint64(8)
    mask ^= mask >> np.uint64(4)
    return (np.uint64(0x6996) >> (mask & np.uint64(15))) & np.uint64(1) == np.uint64(1)


@njit(cache=True)
def _i_power(x: np.uint64, z: np.uint64) -> complex:
    """i^|x & z|, the phase in P(x, z)."""
    both, count = x & z, 0
    while both:
        both &= both - np.uint64(1)
        count += 1
    return (1.0 + 0.0j, 1.0j, -1.0 + 0.0j, -1.0j)[count % 4]


@njit(cache=True)
def apply_gate(psi: np.ndarray, kind: int, x: np.uint64, z: np.uint64, angle: float) -> None:
    """One gate of `Gates` on psi, shape (2^n,), complex, in place."""
    size = len(psi)
    if kind == CNOT:
        for k in range(size):
            b = np.uint64(k)
            if b & x and not b & z:
                psi[k], psi[b ^ z] = psi[b ^ z], psi[k]
        return
    c, s = np.cos(0.5 * angle), np.sin(0.5 * angle)
    if x == 0:
        plus, minus = c - 1j * s, c + 1j * s
        for k in range(size):
            psi[k] *= minus if _odd(z & np.uint64(k)) else plus
        return
    phase = -1j * s * _i_power(x, z)
    flips_sign = _odd(x & z)
    top = x
    while top & (top - np.uint64(1)):
        top &= top - np.uint64(1)
    for k in range(size):
        b = np.uint64(k)
        if b & top:
            continue
        partner = b ^ x
        u, v = psi[k], psi[partner]
        from_u = -phase if _odd(z & b) else phase  # <partner| -i s P |b>
        from_v = -from_u if flips_sign else from_u  # <b| -i s P |partner>
        psi[k] = c * u + from_v * v
        psi[partner] = c * v + from_u * u


@njit(cache=True)
def run_gates(psi: np.ndarray, kind: np.ndarray, x: np.ndarray, z: np.ndarray, angles: np.ndarray) -> None:
    """All gates on psi, in place."""
    for g in range(len(kind)):
        apply_gate(psi, kind[g], x[g], z[g], angles[g])


@njit(cache=True)
def _expectation(lam: np.ndarray, psi: np.ndarray, x: np.uint64, z: np.uint64) -> complex:
    """<lam| P(x, z) |psi>."""
    total = 0.0 + 0.0j
    for k in range(len(psi)):
        b = np.uint64(k)
        value = np.conj(lam[b ^ x]) * psi[k]
        total += -value if _odd(z & b) else value
    return total * _i_power(x, z)


@njit(cache=True)
def undo_gates(
    psi: np.ndarray,
    lam: np.ndarray,
    kind: np.ndarray,
    x: np.ndarray,
    z: np.ndarray,
    angles: np.ndarray,
    slot: np.ndarray,
    coefficient: np.ndarray,
    slot_gradient: np.ndarray,
) -> None:
    """Undo all gates on psi and lam = H psi, adding the energy's derivatives to each slot's.

    A rotation's is 2 Re <lam| -i/2 P |psi> = Im <lam| P |psi>.
    """
    for g in range(len(kind) - 1, -1, -1):
        if slot[g] >= 0:
            slot_gradient[slot[g]] += coefficient[g] * _expectation(lam, psi, x[g], z[g]).imag
        apply_gate(psi, kind[g], x[g], z[g], -angles[g])
        apply_gate(lam, kind[g], x[g], z[g], -angles[g])


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
                diagonal += -weights[t] if _odd(z[t] & b) else weights[t]
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
        self._hamiltonian = PauliOperator(hamiltonian.operator)
        self._mapping = mapping

    def state(self, parameters: np.ndarray) -> np.ndarray:
        """The normalised state, shape (2^n_qubits,), complex; qubit 0 is the lowest bit of the index."""
        gates = self.gates
        psi = np.zeros(2**gates.n_qubits, dtype=complex)
        psi[gates.initial_state] = 1.0
        run_gates(psi, gates.kind, gates.x, gates.z, gates.angles(parameters))
        return psi

    def energy(self, parameters: np.ndarray) -> tuple[float, None]:
        """Total energy in hartree; it has no standard error."""
        return self._hamiltonian.expectation(self.state(parameters)) + self._offset, None

    def energy_and_gradient(self, parameters: np.ndarray) -> tuple[float, np.ndarray]:
        """Total energy in hartree and its derivatives in hartree per radian, shape: (n_parameters,)."""
        gates = self.gates
        psi = self.state(parameters)
        lam = self._hamiltonian.apply(psi)
        energy = float(np.vdot(psi, lam).real) + self._offset
        by_slot = np.zeros(len(gates.slot_parameter))
        angles = gates.angles(parameters)
        undo_gates(psi, lam, gates.kind, gates.x, gates.z, angles, gates.slot, gates.coefficient, by_slot)
        gradient = np.zeros(gates.n_parameters)
        np.add.at(gradient, gates.slot_parameter, by_slot)
        return energy, gradient

    def n_electrons_and_spin(self, parameters: np.ndarray) -> tuple[float, float]:
        """<N> over the active space and <S^2> of the state."""
        psi = self.state(parameters)
        operators = (self._mapping.number_operator(), self._mapping.spin_squared_operator())
        n, spin = (PauliOperator(op).expectation(psi) for op in operators)
        return n, spin
