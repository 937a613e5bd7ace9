"""Energies from shots of a state vector: each group's outcomes are drawn from the probabilities that measuring it would have.

One state serves all groups. A group's change of basis (`CommutingGroup`) permutes amplitudes, multiplies them by powers of i, and ends with Hadamard gates
on k pivot qubits: 2^(n-k) pieces of 2^k amplitudes, each gathered from the state and transformed on its own. Nothing else is as long as the
state. Outcomes are drawn by inverting the cumulative distribution, piece by piece, at sorted uniform numbers.
"""

import numpy as np

from simulator.engines.gate_kernels import odd
from simulator.engines.kernels import njit
from simulator.operators.commuting import CommutingGroup, commuting_groups
from simulator.operators.paulis import PauliSum

MAX_DRAWN_AT_ONCE = 1 << 20
"""Shots of a group that are drawn in one pass over the state: 24 MiB of uniform numbers, outcomes and counts."""


class ShotSampler:
    """Estimates an operator's expectation value from shots in groups of commuting strings.

    Each group has `shots` shots on average: the total, `shots` times the groups, is shared out by `shared_out`.

    Args:
        operator: Hermitian, coefficients in hartree.
        shots: of a group, on average.
    """

    def __init__(self, operator: PauliSum, shots: int) -> None:
        self.groups = commuting_groups(operator)
        self.constant = float(operator.coefficients.real[(operator.x | operator.z) == 0].sum())  # hartree
        norms = np.array([np.linalg.norm(group.coefficients) for group in self.groups])
        self.shots = shared_out(shots, norms)

    def estimate(self, psi: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
        """The operator's mean over the shots (hartree) and the variance of that mean (hartree squared, 0 with one shot a group).

        Args:
            psi: real and imaginary parts of the normalised state, shape: (2, 2^n).
            rng: draws the outcomes.
        """
        mean, variance = self.constant, 0.0
        for group, shots in zip(self.groups, self.shots.tolist(), strict=True):
            moments = np.zeros(3)
            for drawn in pieces(shots):
                add_moments(*sample(psi, group, drawn, rng), group.outcome_masks, group.coefficients, moments)
            mean += float(moments[1])
            variance += float(moments[2]) / max(shots - 1, 1) / shots
        return mean, variance


def shared_out(shots: int, norms: np.ndarray) -> np.ndarray:
    """Shots of each group, `shots` times the groups in all, shape: (n_groups,).

    Shots that minimise the error are proportional to the standard deviations of the groups' observables, which are not known
    beforehand. In a random state these are about the norms of the groups' coefficients; near a determinant the strings of Z, which
    have the largest coefficients, hardly spread, and equal shots are better. Shots proportional to the square root of the norm are the
    geometric mean of the two: H2O at the minimum of UCCSD needs 2.0 times fewer than with equal shots and 3.7 times fewer than by norm
    (`benchmarks/shots.py`). Every group has two shots, without which it has no spread, or one where there is only one for each.

    Args:
        shots: of a group, on average.
        norms: square root of the sum of the squared coefficients of each group, hartree, shape: (n_groups,).
    """
    if not len(norms):
        return np.zeros(0, np.int64)
    least = min(shots, 2)
    free = (shots - least) * len(norms)
    weights = np.sqrt(norms)
    exact = free * weights / weights.sum()
    found = np.floor(exact).astype(np.int64)
    # what rounding down left over goes to those that it took the most from
    found[np.argsort(found - exact, kind="stable")[: free - int(found.sum())]] += 1
    return found + least


def pieces(shots: int) -> list[int]:
    """The shots in numbers that are drawn at once."""
    full, rest = divmod(shots, MAX_DRAWN_AT_ONCE)
    return [MAX_DRAWN_AT_ONCE] * full + ([rest] if rest else [])


def sample(
    psi: np.ndarray, group: CommutingGroup, shots: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes of measuring all qubits after the group's change of basis, and how often each was drawn.

    Args:
        psi: real and imaginary parts of the normalised state, shape: (2, 2^n).
        group: gives the change of basis.
        shots: how often it is measured.
        rng: draws the outcomes.
    """
    uniform = sorted_uniform(shots, rng)
    outcomes, counts = np.empty(shots, np.uint64), np.empty(shots, np.int64)
    n = draw_outcomes(psi, group.pivots, group.flips, group.phases, uniform, outcomes, counts)
    return outcomes[:n], counts[:n]


def sorted_uniform(n: int, rng: np.random.Generator) -> np.ndarray:
    """Uniform numbers between 0 and 1 in ascending order, shape: (n,).

    Between sorted uniform numbers there are exponential ones, over their sum (Devroye, Non-Uniform Random Variate Generation, 1986, chapter V.3).
    Sorting takes most of the time of a million shots.
    """
    sums = np.cumsum(rng.standard_exponential(n + 1))
    return np.asarray(sums[:-1] / sums[-1])


@njit(cache=True, inline="always")
def _transform(re: np.ndarray, im: np.ndarray) -> None:
    """Hadamard gates on all qubits of a piece, in place, without their factor of 2^(-k/2)."""
    size, half = len(re), 1
    while half < size:
        for start in range(0, size, 2 * half):
            for k in range(start, start + half):
                ar, ai, br, bi = re[k], im[k], re[k + half], im[k + half]
                re[k], im[k], re[k + half], im[k + half] = ar + br, ai + bi, ar - br, ai - bi
        half *= 2


@njit(cache=True)
def draw_outcomes(
    psi: np.ndarray, pivots: np.ndarray, flips: np.ndarray, phases: np.ndarray,
    uniform: np.ndarray, outcomes: np.ndarray, counts: np.ndarray,
) -> int:  # fmt: skip
    """Invert the cumulative distribution of a group's outcomes at sorted uniform numbers; returns how many outcomes were drawn.

    The piece of the outcomes whose other qubits read t is, before its Hadamard gates, i^phase(j) psi[t ^ flip(j)], where bit i of j is
    pivot i's, and flip and phase combine those of the pivots that are 1.

    Args:
        psi: real and imaginary parts of the state, shape: (2, 2^n).
        pivots, flips, phases: of the CommutingGroup.
        uniform: ascending, from 0 to 1, shape: (n_shots,).
        outcomes: filled with the outcomes that were drawn, shape: (n_shots,).
        counts: filled with how often each was drawn, shape: (n_shots,).
    """
    k, one = len(pivots), np.uint64(1)
    size = 1 << k
    flip, place = np.zeros(size, np.uint64), np.zeros(size, np.uint64)
    phase = np.zeros(size, np.uint8)
    on_pivots = np.uint64(0)
    for i in range(k):
        bit = one << np.uint64(pivots[i])
        on_pivots |= bit
        for j in range(1 << i):
            upper = j | 1 << i
            flip[upper], place[upper] = flip[j] ^ flips[i], place[j] | bit
            turns = 2 * np.uint64(odd(phases[i] & np.uint64(j))) + (phases[i] >> np.uint64(i) & one)
            phase[upper] = (np.uint64(phase[j]) + turns) & np.uint64(3)
    norm = 0.0
    for b in range(psi.shape[1]):
        norm += psi[0, b] * psi[0, b] + psi[1, b] * psi[1, b]
    # The transform leaves out 2^(-k/2), so all probabilities are 2^k times too large; rounding of the norm is taken out as well.
    scale = norm * size
    re, im = np.empty(size), np.empty(size)
    drawn, shot, below, last = 0, 0, 0.0, np.uint64(0)
    for b in range(psi.shape[1]):
        t = np.uint64(b)
        if t & on_pivots:
            continue
        is_empty = True
        for j in range(size):
            source = np.int64(t ^ flip[j])
            ur, ui = psi[0, source], psi[1, source]
            if phase[j] & 1:
                ur, ui = -ui, ur
            if phase[j] & 2:
                ur, ui = -ur, -ui
            re[j], im[j] = ur, ui
            is_empty = is_empty and ur == 0.0 and ui == 0.0
        if is_empty:
            continue
        _transform(re, im)
        for j in range(size):
            probability = re[j] * re[j] + im[j] * im[j]
            if probability == 0.0:
                continue
            below += probability
            last = t | place[j]
            first = shot
            while shot < len(uniform) and uniform[shot] * scale < below:
                shot += 1
            if shot > first:
                outcomes[drawn], counts[drawn] = last, shot - first
                drawn += 1
        if shot == len(uniform):
            return drawn
    # The sum of all probabilities may end below the last number by rounding: that shot is the last possible outcome's.
    outcomes[drawn], counts[drawn] = last, len(uniform) - shot
    return drawn + 1


@njit(cache=True)
def add_moments(
    outcomes: np.ndarray, counts: np.ndarray, masks: np.ndarray, coefficients: np.ndarray, moments: np.ndarray
) -> None:
    """Add outcomes to (number of shots, mean, sum of squared deviations) of sum_k coefficients[k] (-1)^|masks[k] & outcome|.

    By Welford's recurrence, doi:10.1080/00401706.1962.10490022.

    Args:
        outcomes: measured bits, uint64, shape: (n_outcomes,).
        counts: how often each was measured, shape: (n_outcomes,).
        masks: of Z strings, uint64, shape: (n_strings,).
        coefficients: hartree, shape: (n_strings,).
        moments: of the shots so far, changed in place, shape: (3,).
    """
    for m in range(len(outcomes)):
        value = 0.0
        for k in range(len(masks)):
            value += -coefficients[k] if odd(masks[k] & outcomes[m]) else coefficients[k]
        moments[0] += counts[m]
        step = value - moments[1]
        moments[1] += step * counts[m] / moments[0]
        moments[2] += counts[m] * step * (value - moments[1])
