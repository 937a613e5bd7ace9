"""What shots are drawn from: a group's outcomes, gate by gate, with the exact mean and variance of what they are worth."""

import numpy as np

from simulator.operators.commuting import CommutingGroup


def probabilities(psi: np.ndarray, group: CommutingGroup) -> np.ndarray:
    """Of each outcome when all qubits are measured after the group's change of basis, shape: (2^n,).

    Args:
        psi: the normalised state, complex, shape: (2^n,).
        group: gives the change of basis.
    """
    b = np.arange(len(psi))
    psi = psi.astype(complex)
    for gate, qubits in group.circuit():
        first, last = b >> qubits[0] & 1, b >> qubits[-1] & 1
        if gate == "cx":
            psi = psi[b ^ first << qubits[1]]
        elif gate == "s":
            psi = np.where(first, 1j * psi, psi)
        elif gate == "cz":
            psi = np.where(first & last, -psi, psi)
        else:
            psi = np.sqrt(0.5) * (psi[b & ~(1 << qubits[0])] + np.where(first, -1, 1) * psi[b | 1 << qubits[0]])
    return np.abs(psi) ** 2


def outcome_values(group: CommutingGroup, n_qubits: int) -> np.ndarray:
    """The group's observable at each outcome, hartree, shape: (2^n,)."""
    b = np.arange(2**n_qubits, dtype=np.uint64)
    out = np.zeros(2**n_qubits)
    for mask, coefficient in zip(group.outcome_masks, group.coefficients.tolist(), strict=True):
        out += coefficient * (1.0 - 2.0 * (np.bitwise_count(b & mask) % 2))
    return out


def mean_and_variance(psi: np.ndarray, group: CommutingGroup) -> tuple[float, float]:
    """Expectation value (hartree) of the group's observable in a state, complex, shape (2^n,), and the variance of one shot of it."""
    p, values = probabilities(psi, group), outcome_values(group, len(psi).bit_length() - 1)
    mean = float(p @ values)
    return mean, float(p @ (values - mean) ** 2)
