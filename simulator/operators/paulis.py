"""Sums of Pauli strings as bit masks: the algebra behind the qubit Hamiltonian and the ansatz circuits.

A string on n qubits is a pair of masks: P(x, z) = i^|x & z| X^x Z^z, so that x & z marks the Ys. Bit q is qubit q; in a
label, as in Qiskit, qubit 0 is the rightmost letter.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PauliSum:
    """sum_k coefficients[k] P(x[k], z[k])."""

    n_qubits: int
    x: np.ndarray  # shape: (n_terms,), uint64
    z: np.ndarray  # shape: (n_terms,), uint64
    coefficients: np.ndarray  # shape: (n_terms,), complex

    def __post_init__(self) -> None:
        if not self.x.shape == self.z.shape == self.coefficients.shape:
            raise ValueError(f"shapes differ: {self.x.shape}, {self.z.shape}, {self.coefficients.shape}")

    @classmethod
    def from_terms(cls, n_qubits: int, terms: Iterable[tuple[int, int, complex]]) -> "PauliSum":
        """From (x, z, coefficient)."""
        x, z, c = zip(*terms, strict=True)
        return cls(n_qubits, np.array(x, np.uint64), np.array(z, np.uint64), np.array(c, complex))

    @classmethod
    def from_labels(cls, labels: Sequence[str], coefficients: Iterable[complex]) -> "PauliSum":
        """From strings of one length in the letters I, X, Y and Z, qubit 0 rightmost."""
        as_mask = [str.maketrans("IXZY", bits) for bits in ("0101", "0011")]
        terms = [
            (*(int(label.translate(bits), 2) for bits in as_mask), c)
            for label, c in zip(labels, coefficients, strict=True)
        ]
        return cls.from_terms(len(labels[0]), terms)  # type: ignore[arg-type]  # a starred pair has no length for mypy

    @classmethod
    def identity(cls, n_qubits: int, coefficient: complex = 1.0) -> "PauliSum":
        return cls.from_terms(n_qubits, [(0, 0, coefficient)])

    def __len__(self) -> int:
        return len(self.x)

    def __add__(self, other: "PauliSum") -> "PauliSum":
        return concatenated([self, other])

    def __mul__(self, scalar: complex) -> "PauliSum":
        return PauliSum(self.n_qubits, self.x, self.z, self.coefficients * scalar)

    def __sub__(self, other: "PauliSum") -> "PauliSum":
        return self + other * -1

    def __matmul__(self, other: "PauliSum") -> "PauliSum":
        """The operator product, simplified."""
        x, z, c = product(
            self.x[:, None], self.z[:, None], self.coefficients[:, None],
            other.x[None, :], other.z[None, :], other.coefficients[None, :],
        )  # fmt: skip
        return PauliSum(self.n_qubits, x.ravel(), z.ravel(), c.ravel()).simplified()

    def adjoint(self) -> "PauliSum":
        return PauliSum(self.n_qubits, self.x, self.z, self.coefficients.conj())

    def simplified(self, cutoff: float = 1e-14) -> "PauliSum":
        """Equal strings summed, sorted by (x, z), coefficients of at most `cutoff` in magnitude dropped."""
        order = np.lexsort((self.z, self.x))
        x, z, c = self.x[order], self.z[order], self.coefficients[order]
        if not len(x):
            return self
        first = np.flatnonzero(np.concatenate([[True], (x[1:] != x[:-1]) | (z[1:] != z[:-1])]))
        c = np.add.reduceat(c, first)
        keep = np.abs(c) > cutoff
        return PauliSum(self.n_qubits, x[first][keep], z[first][keep], c[keep])

    def without_qubits(self, qubits: dict[int, int]) -> "PauliSum":
        """Qubits in a known Z eigenstate removed: {qubit: +1 or -1}. Every string must act there as I or Z.

        Raises:
            ValueError: a string flips one of the qubits.
        """
        c = self.coefficients.copy()
        for qubit, eigenvalue in qubits.items():
            bit = np.uint64(1 << qubit)
            if np.any(self.x & bit):
                raise ValueError(f"an operator flips qubit {qubit}, which is to be removed")
            if eigenvalue < 0:
                c[(self.z & bit) != 0] *= -1
        x, z = self.x, self.z
        for qubit in sorted(qubits, reverse=True):
            x, z = drop_bit(x, qubit), drop_bit(z, qubit)
        return PauliSum(self.n_qubits - len(qubits), x, z, c).simplified()

    def labels(self) -> list[str]:
        """The strings in letters, qubit 0 rightmost."""
        if not len(self.x):
            return []
        qubits = np.arange(self.n_qubits - 1, -1, -1, dtype=np.uint64)
        one = np.uint64(1)
        code = ((self.x[:, None] >> qubits) & one) + 2 * ((self.z[:, None] >> qubits) & one)
        letters = np.frombuffer(b"IXZY", dtype="S1")[code.astype(np.intp)]
        return [row.tobytes().decode() for row in letters]


def concatenated(sums: list[PauliSum]) -> PauliSum:
    """The sum of several sums, simplified."""
    return PauliSum(
        sums[0].n_qubits,
        np.concatenate([s.x for s in sums]),
        np.concatenate([s.z for s in sums]),
        np.concatenate([s.coefficients for s in sums]),
    ).simplified()


def product(
    x1: np.ndarray, z1: np.ndarray, c1: np.ndarray, x2: np.ndarray, z2: np.ndarray, c2: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Masks and coefficients of c1 P(x1, z1) c2 P(x2, z2), broadcast.

    X^x1 Z^z1 X^x2 Z^z2 = (-1)^|z1 & x2| X^(x1^x2) Z^(z1^z2); the powers of i are those of the masks' definition.
    """
    x, z = x1 ^ x2, z1 ^ z2
    count = lambda m: np.bitwise_count(m).astype(np.int64)  # noqa: E731
    power = count(x1 & z1) + count(x2 & z2) - count(x & z) + 2 * count(z1 & x2)
    return x, z, c1 * c2 * _POWERS_OF_I[power % 4]


_POWERS_OF_I = np.array([1, 1j, -1, -1j])


def drop_bit(mask: np.ndarray, bit: int) -> np.ndarray:
    """The masks without that bit, the higher ones moved down."""
    low = np.uint64((1 << bit) - 1)
    return (mask & low) | ((mask >> np.uint64(1)) & ~low)
