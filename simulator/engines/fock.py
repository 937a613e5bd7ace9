"""The electronic Hamiltonian times a state vector of qubits, by the contraction over occupation strings.

A mapper's basis states are occupations, renamed: which qubits an occupied mode flips is a mask, and an occupation's basis state the XOR of its
modes' masks. All signs are those of the occupations. So a state vector is a matrix of alpha by beta strings of every electron number,
and the Hamiltonian's product with it costs what the sector engine's does: its Pauli strings' signs are never counted.
"""

import numpy as np

from simulator.engines.contraction import TILE, Contraction
from simulator.engines.kernels import njit
from simulator.engines.layout import Layout
from simulator.engines.strings import StringSet, believable_irreps, number_pairs
from simulator.engines.threads import engine_threads
from simulator.operators.hamiltonian import ElectronicIntegrals, Mapping
from simulator.operators.paulis import drop_bit

EXACT_IRREPS = 1e-12
"""Hartree: integrals that irreps forbid, up to which they are left out."""


class FockProduct:
    """H times state vectors.

    Args:
        integrals: the electronic Hamiltonian.
        mapping: how occupations are basis states of the qubits.
    """

    def __init__(self, integrals: ElectronicIntegrals, mapping: Mapping) -> None:
        from pyscf import ao2mo

        norb = mapping.norb
        eri = ao2mo.restore(1, integrals.eri, norb)
        irreps = believable_irreps(integrals.orbsym, integrals.h1, eri, EXACT_IRREPS)
        n_alpha, n_beta = mapping.nelec
        # A mapper that removes qubits keeps the occupations of one parity for each spin.
        removes = mapping.n_qubits < 2 * norb
        alpha, beta = (_strings(norb, n % 2 if removes else None) for n in (n_alpha, n_beta))
        self._alpha_index, self._beta_index = (
            basis_states(mapping, s.masks, shift) for s, shift in ((alpha, 0), (beta, norb))
        )
        self._layout = Layout(alpha, alpha if np.array_equal(alpha.masks, beta.masks) else beta, 0)
        orbitals = number_pairs(np.zeros(norb, np.int64) if irreps is None else irreps)
        self._contraction = Contraction(self._layout, orbitals, integrals.h1, eri, engine_threads(self._layout.size))
        self._vector, self._product = np.empty((2, self._layout.size))

    def parts_with_energy(self, psi: np.ndarray) -> tuple[np.ndarray, float]:
        """H psi and <psi| H |psi>, hartree, without the energy offset.

        H is real, so that real and imaginary parts, shape (2, 2^n_qubits), are two vectors; one that is zero is left out.
        """
        n_alpha, n_beta = self._layout.shape
        out = np.zeros_like(psi)
        energy = 0.0
        for part, product in zip(psi, out, strict=True):
            if reorder(part, self._vector, self._alpha_index, self._beta_index, n_alpha, n_beta, False):
                energy += self._contraction.into(self._product, self._vector)
                reorder(self._product, product, self._alpha_index, self._beta_index, n_alpha, n_beta, True)
        return out, energy


def _strings(norb: int, parity: int | None) -> StringSet:
    """All occupations of one spin, of one parity where it is given."""
    masks = np.arange(2**norb, dtype=np.int64)
    if parity is not None:
        masks = masks[np.bitwise_count(masks) % 2 == parity]
    return StringSet.of(masks, np.zeros(len(masks), np.int64), 1)


def basis_states(mapping: Mapping, masks: np.ndarray, shift: int) -> np.ndarray:
    """What occupations contribute to the index of their basis state, by XOR, int64, shape: (n_strings,).

    Args:
        mapping: of modes to qubits.
        masks: occupations of one spin's orbitals, shape: (n_strings,).
        shift: the mode of that spin's first orbital.
    """
    out = np.zeros(len(masks), np.uint64)
    for p in range(mapping.norb):
        flips = np.uint64(
            mapping.annihilators()[p + shift].x[0]
        )  # both strings of a ladder operator flip the same qubits
        out ^= np.where(masks >> p & 1, flips, np.uint64(0))
    for qubit in sorted(mapping.removed_qubits, reverse=True):
        out = drop_bit(out, qubit)
    return out.astype(np.int64)


@njit(cache=True)
def reorder(
    vector: np.ndarray, out: np.ndarray, alpha_index: np.ndarray, beta_index: np.ndarray, n_alpha: int, n_beta: int, back: bool
) -> bool:  # fmt: skip
    """From basis states to rows of alpha strings, `back` from these to basis states; returns whether a number is not zero."""
    not_zero = False
    for a0 in range(0, n_alpha, TILE):
        for b0 in range(0, n_beta, TILE):
            for a in range(a0, min(a0 + TILE, n_alpha)):
                for b in range(b0, min(b0 + TILE, n_beta)):
                    at, index = a * n_beta + b, alpha_index[a] ^ beta_index[b]
                    if back:
                        out[index] = vector[at]
                    else:
                        out[at] = vector[index]
                        not_zero |= vector[index] != 0.0
    return not_zero
