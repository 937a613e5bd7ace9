"""<S^2> of vectors of determinants in blocks."""

import numpy as np

from simulator.engines.kernels import kernel
from simulator.engines.layout import Layout, Rows


def spin_squared(vector: np.ndarray, layout: Layout, nelec: tuple[int, int], *, compiled: bool = True) -> float:
    """<vector| S^2 |vector>, S^2 = S_- S_+ + S_z (S_z + 1), S_- S_+ = N_beta - sum_pq E_qp^alpha E_pq^beta.

    Args:
        vector: of the layout, shape: (size,).
        layout: of the vector.
        nelec: alpha and beta electrons.
        compiled: whether the kernel is compiled.
    """
    run = exchanged.compiled if compiled else exchanged.plain
    alpha, beta = layout.alpha, layout.beta
    sets = (alpha.masks, alpha.ascending, alpha.place, beta.masks, beta.ascending, beta.place, beta.columns)
    s_z = 0.5 * (nelec[0] - nelec[1])
    return float((s_z * (s_z + 1) + nelec[1]) * np.vdot(vector, vector) - run(vector, layout.rows, *sets))


@kernel(cache=True)
def exchanged(
    vector: np.ndarray,
    rows: Rows,
    alpha: np.ndarray,
    alpha_ascending: np.ndarray,
    alpha_place: np.ndarray,
    beta: np.ndarray,
    beta_ascending: np.ndarray,
    beta_place: np.ndarray,
    beta_columns: np.ndarray,
) -> float:
    """sum_pq <vector| E_qp^alpha E_pq^beta |vector>: both spins' electrons change places, where only one of p and q has either."""
    total = 0.0
    for i in range(len(alpha)):
        for x in range(rows.length[i]):
            a, b = alpha[i], beta[rows.column[i] + x]
            both = a & b
            element = 0.0
            while both:
                element += vector[rows.start[i] + x]
                both &= both - 1
            only_a = a & ~b
            while only_a:
                q = only_a & -only_a
                only_a ^= q
                only_b = b & ~a
                while only_b:
                    p = only_b & -only_b
                    only_b ^= p
                    low, high = min(p, q), max(p, q)
                    between = (high - 1) & ~(2 * low - 1)
                    moved = (a & between) ^ (b & between)  # the sign is the product of the two strings'
                    sign = 1.0
                    while moved:
                        sign = -sign
                        moved &= moved - 1
                    to_a = alpha_place[np.searchsorted(alpha_ascending, a ^ p ^ q)]
                    to_b = beta_place[np.searchsorted(beta_ascending, b ^ p ^ q)]
                    element += sign * vector[rows.start[to_a] + beta_columns[to_b]]
            total += element * vector[rows.start[i] + x]
    return total
