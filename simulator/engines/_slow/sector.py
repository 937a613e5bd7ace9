"""The sector engine's states, determinant by determinant in plain Python."""

from itertools import combinations
from math import cos, sin

import numpy as np

from simulator.operators.excitations import Excitation, ExcitationSet, Ladder


def occupation_strings(norb: int, n_electrons: int) -> list[int]:
    """All occupation bit strings of one spin, ascending."""
    return sorted(sum(1 << p for p in chosen) for chosen in combinations(range(norb), n_electrons))


def apply_ladder(string: int, ladder: Ladder) -> tuple[int, int]:
    """Sign and result of a ladder's operators, the rightmost first; (0, 0) where they annihilate the string."""
    created, removed = ladder
    sign = 1
    for orbital, create in reversed([(p, True) for p in created] + [(p, False) for p in removed]):
        bit = 1 << orbital
        if bool(string & bit) == create:
            return 0, 0
        if (string & (bit - 1)).bit_count() % 2:
            sign = -sign
        string ^= bit
    return sign, string


def excitation_matrix(norb: int, nelec: tuple[int, int], excitation: Excitation) -> np.ndarray:
    """T in the determinant basis, shape: (n_determinants, n_determinants)."""
    alpha, beta = (occupation_strings(norb, n) for n in nelec)
    out = np.zeros((len(alpha) * len(beta),) * 2)
    for i, a in enumerate(alpha):
        for j, b in enumerate(beta):
            sign_a, to_a = apply_ladder(a, excitation.alpha)
            sign_b, to_b = apply_ladder(b, excitation.beta)
            if sign_a and sign_b:
                out[alpha.index(to_a) * len(beta) + beta.index(to_b), i * len(beta) + j] = sign_a * sign_b
    return out


def uccsd_state(norb: int, nelec: tuple[int, int], ansatz: ExcitationSet, parameters: np.ndarray) -> np.ndarray:
    """The ansatz's state, shape: (n_alpha_strings, n_beta_strings).

    K = T - T^dagger has the eigenvalues -i, 0, i: exp(theta K) = 1 + sin(theta) K + (1 - cos(theta)) K^2.
    """
    sizes = [len(occupation_strings(norb, n)) for n in nelec]
    state = np.zeros(sizes[0] * sizes[1])
    state[0] = 1.0
    for excitation, index in zip(ansatz.excitations, ansatz.parameter, strict=True):
        t = excitation_matrix(norb, nelec, excitation)
        k = t - t.T
        theta = float(parameters[index])
        state = state + sin(theta) * (k @ state) + (1 - cos(theta)) * (k @ (k @ state))
    return state.reshape(sizes)
