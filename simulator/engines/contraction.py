"""The Hamiltonian times a vector of determinants in rows: one row for each string of a spin, its columns the other spin's.

H = H_alpha + H_beta + sum (pq|rs) E_pq^alpha E_rs^beta. The parts of one spin are sparse matrices over strings (`same_spin`), applied to
whole rows. The mixed part goes row by row of beta strings and irrep by irrep of the pairs (after Olsen et al.,
doi:10.1063/1.455063): sum_rs (pq|rs) E_rs is a few rows with few coefficients, for all pq at once; E_pq then gathers. That takes n_links n_pairs
multiplications a determinant, where PySCF's contraction over intermediate determinants takes n_pairs^2 (Knowles and Handy).
"""

from typing import NamedTuple

import numpy as np

from simulator.engines.kernels import njit
from simulator.engines.layout import Blocks, Layout, Rows
from simulator.engines.strings import Links, Orbitals, SameSpin, links, same_spin
from simulator.engines.threads import in_threads

TILE = 16
"""Rows and columns that are transposed together."""

COLUMN_BLOCK = 512
"""Columns of a row that the same-spin part takes at a time, so that the rows it joins stay in the second-level cache."""

SMALL = 10_000
"""Numbers up to which a product is one kernel in one thread: calling five takes 0.05 ms. Which way is taken does not depend on the number of
threads: within one kernel the compiler rounds otherwise."""


class Integrals(NamedTuple):
    """(pq|rs) between pairs of one irrep, n_pairs[k] x n_pairs[k] numbers from start[k] on."""

    n_pairs: np.ndarray  # int64, shape: (n_irreps,)
    start: np.ndarray  # int64, shape: (n_irreps,)
    value: np.ndarray  # hartree, shape: (sum of n_pairs^2,)


def pair_integrals(orbitals: Orbitals, eri: np.ndarray) -> Integrals:
    """The integrals by irreps of pairs; eri is (pq|rs), hartree, shape: (norb, norb, norb, norb)."""
    parts = []
    p, q = np.tril_indices(len(orbitals.irrep))
    k_of_pair = orbitals.irrep[p] ^ orbitals.irrep[q]
    for k in range(len(orbitals.n_pairs)):
        mine = k_of_pair == k
        order = np.argsort(orbitals.pair[p[mine], q[mine]])
        pk, qk = p[mine][order], q[mine][order]
        parts.append(eri[pk[:, None], qk[:, None], pk[None, :], qk[None, :]].ravel())
    squares = orbitals.n_pairs**2
    return Integrals(orbitals.n_pairs, np.cumsum(squares) - squares, np.concatenate(parts))


class Tables(NamedTuple):
    """All that the product reads."""

    blocks: Blocks
    rows: Rows  # by alpha strings
    columns: Rows  # by beta strings, of the transpose
    alpha: SameSpin
    beta: SameSpin
    alpha_links: Links
    beta_links: Links
    integrals: Integrals
    row_classes: np.ndarray  # class of the alpha strings in each beta string's row, int64, shape: (n_beta_strings,)
    class_sizes: np.ndarray  # of the alpha strings, int64, shape: (n_classes,)
    n_buffer: int  # numbers that a thread's work space for the mixed part takes


def n_buffer(class_sizes: np.ndarray, orbitals: Orbitals) -> int:
    """Numbers in the work space of a thread: for one row, all pairs by all alpha strings that the row may be joined to."""
    if len(class_sizes) == 1:
        return int(orbitals.n_pairs.sum() * class_sizes[0])
    irreps = np.arange(len(class_sizes))
    return int(max(np.sum(class_sizes[irreps ^ c] * orbitals.n_pairs) for c in irreps))


class Contraction:
    """H times vectors of a layout.

    Args:
        layout: of the vectors.
        orbitals: the pairs of orbitals; irreps may be finer than the layout's classes.
        h1: hartree, shape: (norb, norb).
        eri: (pq|rs), hartree, shape: (norb, norb, norb, norb).
        n_threads: rows are shared out among these; results do not depend on it.
    """

    def __init__(self, layout: Layout, orbitals: Orbitals, h1: np.ndarray, eri: np.ndarray, n_threads: int = 1) -> None:
        self.layout, self._n_threads = layout, n_threads
        h1, eri = np.ascontiguousarray(h1), np.ascontiguousarray(eri)
        alpha = (same_spin(layout.alpha, orbitals.irrep, h1, eri), links(layout.alpha, orbitals))
        shared = len(layout.alpha) == len(layout.beta) and np.array_equal(layout.alpha.masks, layout.beta.masks)
        beta = alpha if shared else (same_spin(layout.beta, orbitals.irrep, h1, eri), links(layout.beta, orbitals))
        self.tables = Tables(
            layout.blocks, layout.rows, layout.columns, alpha[0], beta[0], alpha[1], beta[1],
            pair_integrals(orbitals, eri), layout.beta.classes ^ layout.irrep, layout.alpha.class_sizes,
            n_buffer(layout.alpha.class_sizes, orbitals),
        )  # fmt: skip
        self._transposed = np.empty(layout.size)
        self._product = np.empty(layout.size)

    def __call__(self, vector: np.ndarray) -> tuple[np.ndarray, float]:
        """H times a vector, and <vector| H |vector>, hartree, without the energy offset, shape: (size,)."""
        out = np.empty_like(vector)
        return out, self.into(out, vector)

    def into(self, out: np.ndarray, vector: np.ndarray) -> float:
        """Write H times a vector into `out`; returns <vector| H |vector>."""
        tables, transposed, product = self.tables, self._transposed, self._product
        if self.layout.size < SMALL:
            return float(multiply(vector, out, transposed, product, tables))
        n_alpha, n_beta = self.layout.shape
        n_blocks = len(tables.blocks.start)
        in_threads(self._n_threads, n_blocks, lambda i, j: transpose(vector, transposed, tables.blocks, i, j, False))

        def rows(i: int, j: int) -> None:
            mixed_rows(transposed, product, tables, i, j)
            same_spin_rows(transposed, product, tables.beta, tables.columns, i, j)

        in_threads(self._n_threads, n_beta, rows)
        # the transpose goes first: both write to the same numbers, in an order that is always the same
        in_threads(self._n_threads, n_blocks, lambda i, j: transpose(product, out, tables.blocks, i, j, True))
        in_threads(self._n_threads, n_alpha, lambda i, j: same_spin_rows(vector, out, tables.alpha, tables.rows, i, j))
        return float(dot(vector, out))


@njit(cache=True, fastmath=True, nogil=True)
def transpose(vector: np.ndarray, out: np.ndarray, blocks: Blocks, first: int, last: int, back: bool) -> None:
    """Transpose blocks first to last - 1 into `out`; `back` from columns to rows."""
    for block in range(first, last):
        start, n, m = blocks.start[block], blocks.n_rows[block], blocks.n_columns[block]
        if back:
            n, m = m, n
        for i0 in range(0, n, TILE):
            for j0 in range(0, m, TILE):
                for i in range(i0, min(i0 + TILE, n)):
                    for j in range(j0, min(j0 + TILE, m)):
                        out[start + j * n + i] = vector[start + i * m + j]


@njit(cache=True, fastmath=True, nogil=True)
def same_spin_rows(vector: np.ndarray, out: np.ndarray, matrix: SameSpin, rows: Rows, first: int, last: int) -> None:
    """Add the matrix times the rows to rows first to last - 1 of `out`."""
    longest = 0
    for row in range(first, last):
        longest = max(longest, rows.length[row])
    for x0 in range(0, longest, COLUMN_BLOCK):
        for row in range(first, last):
            width = min(rows.length[row] - x0, COLUMN_BLOCK)
            if width <= 0:
                continue
            target = out[rows.start[row] + x0 : rows.start[row] + x0 + width]
            begin, end = matrix.start[row], matrix.start[row + 1]
            at = begin
            while at + 4 <= end:
                v0, v1, v2, v3 = matrix.value[at], matrix.value[at + 1], matrix.value[at + 2], matrix.value[at + 3]
                r0, r1 = rows.start[matrix.source[at]] + x0, rows.start[matrix.source[at + 1]] + x0
                r2, r3 = rows.start[matrix.source[at + 2]] + x0, rows.start[matrix.source[at + 3]] + x0
                s0, s1, s2, s3 = (
                    vector[r0 : r0 + width], vector[r1 : r1 + width], vector[r2 : r2 + width], vector[r3 : r3 + width],
                )  # fmt: skip
                for x in range(width):
                    target[x] += v0 * s0[x] + v1 * s1[x] + v2 * s2[x] + v3 * s3[x]
                at += 4
            while at < end:
                v0, r0 = matrix.value[at], rows.start[matrix.source[at]] + x0
                s0 = vector[r0 : r0 + width]
                for x in range(width):
                    target[x] += v0 * s0[x]
                at += 1


@njit(cache=True, fastmath=True, nogil=True)
def mixed_rows(vector: np.ndarray, out: np.ndarray, tables: Tables, first: int, last: int) -> None:
    """Write the mixed part times the vector, both by beta rows, into rows first to last - 1 of `out`."""
    rows, alpha, beta, integrals = tables.columns, tables.alpha_links, tables.beta_links, tables.integrals
    n_classes = len(tables.class_sizes)
    buffer = np.empty(tables.n_buffer, np.float64)
    most_pairs, n_irreps = 0, len(integrals.n_pairs)
    for k in range(n_irreps):
        most_pairs = max(most_pairs, integrals.n_pairs[k])
    most_links = 1
    for row in range(first, last):
        for k in range(n_irreps):
            most_links = max(most_links, beta.start[row, k + 1] - beta.start[row, k])
    weights = np.empty(most_links * most_pairs, np.float64)
    origin = np.empty(most_links, np.int64)
    for row in range(first, last):
        width = rows.length[row]
        target = out[rows.start[row] : rows.start[row] + width]
        if width == 0:
            continue
        own = tables.row_classes[row]
        for k in range(n_irreps):
            begin, middle, end = beta.start[row, k], beta.middle[row, k], beta.start[row, k + 1]
            n_pairs = integrals.n_pairs[k]
            length = tables.class_sizes[own ^ k if n_classes > 1 else 0]
            base = alpha.offset[own, k]
            if begin == end or length == 0:
                buffer[base : base + n_pairs * length] = 0.0
                continue
            # rows that are joined, and with which weights for each pair; all E_rr join the row itself
            n = 0
            for at in range(begin, end):
                source = beta.source[at]
                g = integrals.start[k] + beta.pair[at] * n_pairs
                if source == row and at > begin:
                    for pq in range(n_pairs):
                        weights[pq] += integrals.value[g + pq]
                    continue
                origin[n] = rows.start[source]
                w = n * n_pairs
                if at < middle:
                    for pq in range(n_pairs):
                        weights[w + pq] = integrals.value[g + pq]
                else:
                    for pq in range(n_pairs):
                        weights[w + pq] = -integrals.value[g + pq]
                n += 1
            for pq in range(n_pairs):
                part = buffer[base + pq * length : base + (pq + 1) * length]
                at = 0
                if n >= 4:
                    w0, w1 = weights[pq], weights[n_pairs + pq]
                    w2, w3 = weights[2 * n_pairs + pq], weights[3 * n_pairs + pq]
                    s0, s1 = vector[origin[0] : origin[0] + length], vector[origin[1] : origin[1] + length]
                    s2, s3 = vector[origin[2] : origin[2] + length], vector[origin[3] : origin[3] + length]
                    for x in range(length):
                        part[x] = w0 * s0[x] + w1 * s1[x] + w2 * s2[x] + w3 * s3[x]
                    at = 4
                else:
                    w0, s0 = weights[pq], vector[origin[0] : origin[0] + length]
                    for x in range(length):
                        part[x] = w0 * s0[x]
                    at = 1
                while at + 4 <= n:
                    w0, w1 = weights[at * n_pairs + pq], weights[(at + 1) * n_pairs + pq]
                    w2, w3 = weights[(at + 2) * n_pairs + pq], weights[(at + 3) * n_pairs + pq]
                    s0, s1 = vector[origin[at] : origin[at] + length], vector[origin[at + 1] : origin[at + 1] + length]
                    s2, s3 = (
                        vector[origin[at + 2] : origin[at + 2] + length], vector[origin[at + 3] : origin[at + 3] + length],
                    )  # fmt: skip
                    for x in range(length):
                        part[x] += w0 * s0[x] + w1 * s1[x] + w2 * s2[x] + w3 * s3[x]
                    at += 4
                if at + 2 <= n:
                    w0, w1 = weights[at * n_pairs + pq], weights[(at + 1) * n_pairs + pq]
                    s0, s1 = vector[origin[at] : origin[at] + length], vector[origin[at + 1] : origin[at + 1] + length]
                    for x in range(length):
                        part[x] += w0 * s0[x] + w1 * s1[x]
                    at += 2
                if at < n:
                    w0, s0 = weights[at * n_pairs + pq], vector[origin[at] : origin[at] + length]
                    for x in range(length):
                        part[x] += w0 * s0[x]
        for x in range(width):
            string = rows.column[row] + x
            total = 0.0
            middle, end = alpha.gather_middle[string], alpha.start[string, n_irreps]
            for at in range(alpha.start[string, 0], middle):
                total += buffer[alpha.element[at]]
            for at in range(middle, end):
                total -= buffer[alpha.element[at]]
            target[x] = total


@njit(cache=True, fastmath=True, nogil=True)
def dot(left: np.ndarray, right: np.ndarray) -> float:
    """The scalar product, in an order that no number of threads changes."""
    total = 0.0
    for k in range(len(left)):
        total += left[k] * right[k]
    return total


@njit(cache=True, nogil=True)
def multiply(vector: np.ndarray, out: np.ndarray, transposed: np.ndarray, product: np.ndarray, tables: Tables) -> float:
    """H times the vector into `out`; returns <vector| H |vector>. The other two are work space."""
    n_blocks = len(tables.blocks.start)
    transpose(vector, transposed, tables.blocks, 0, n_blocks, False)
    mixed_rows(transposed, product, tables, 0, len(tables.columns.start))
    same_spin_rows(transposed, product, tables.beta, tables.columns, 0, len(tables.columns.start))
    transpose(product, out, tables.blocks, 0, n_blocks, True)
    same_spin_rows(vector, out, tables.alpha, tables.rows, 0, len(tables.rows.start))
    return dot(vector, out)
