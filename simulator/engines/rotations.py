"""The excitations of an ansatz as rotations of vectors in rows of alpha strings, taken together so that rows stay in the cache.

The order of the factors is the ansatz' own and part of its definition: excitations do not commute in general, not even those of one
alpha ladder, so none is moved. What may be chosen is the order over rows. The alpha ladders of a run of consecutive excitations
join strings; strings that they do not join, whatever the beta ladders, never meet within the run. So the whole run may be
applied to one unit, a set of rows that nothing in the run leaves, and then to the next unit, with equal numbers: row after row sees the same
factors in the same order. Runs are as long as their largest such set of rows fits into the cache. Units are what threads share out.
"""

from typing import NamedTuple

import numpy as np

from simulator.engines.kernels import kernel
from simulator.engines.layout import Layout, Rows
from simulator.engines.strings import LadderTable, ladder_table
from simulator.engines.threads import in_threads
from simulator.operators.excitations import ExcitationSet, Ladder

CACHED = 256 * 1024
"""Bytes of the state's rows in a unit; the second-level cache, of 512 KiB and more, holds as many of H times the state as well."""

MIN_UNITS = 16
"""Units into which a vector longer than CACHED falls at least, so that threads share them evenly."""


class Run(NamedTuple):
    """Consecutive excitations that are applied to one unit of rows after the other."""

    first: int  # number of the first excitation
    alpha: np.ndarray  # alpha ladder of each excitation within the run, -1 for none, int64, shape: (n,)
    beta: np.ndarray  # its beta ladder in the ansatz' table, -1 for none, int64, shape: (n,)
    unit_start: np.ndarray  # first entry of each unit in `rows`, and the end, int64, shape: (n_units + 1,)
    rows: np.ndarray  # of the units, int64, shape: (n_rows,)
    start: (
        np.ndarray
    )  # first entry of each alpha ladder and unit below, and the end, int64, shape: (n_ladders, n_units + 1)
    source: np.ndarray  # row, int32, shape: (n_entries,)
    target: np.ndarray  # row, int32, shape: (n_entries,)
    sign: np.ndarray  # float64, shape: (n_entries,)


class Rotations:
    """Applies exp(theta (T - T^dagger)) of every excitation to vectors of a layout, and undoes it.

    Args:
        layout: of the vectors; every excitation keeps its blocks.
        ansatz: the excitations in their order.
        n_threads: units are shared out among these; results do not depend on it.
        compiled: whether the kernels are compiled; loading them is not worth it for a few determinants.
        cached: bytes of a unit, CACHED by default; a unit has at least the rows that one ladder joins.
    """

    def __init__(
        self,
        layout: Layout,
        ansatz: ExcitationSet,
        *,
        n_threads: int = 1,
        compiled: bool = True,
        cached: int | None = None,
    ) -> None:
        cached = CACHED if cached is None else cached
        self._n_threads, self._parameter, self.n_parameters = n_threads, ansatz.parameter, ansatz.n_parameters
        self._rows, self._classes = layout.rows, layout.alpha.classes ^ layout.irrep
        alpha, self.which_alpha = _ladders([e.alpha for e in ansatz.excitations])
        beta, self.which_beta = _ladders([e.beta for e in ansatz.excitations])
        alpha_table = ladder_table(layout.alpha, alpha, compiled=compiled)
        self._beta = _by_columns(ladder_table(layout.beta, beta, compiled=compiled), layout)
        self._rotate, self._unrotate = (k.compiled if compiled else k.plain for k in (rotate, unrotate))
        if 8 * layout.size <= cached:
            self.runs = [_one_run(self.which_alpha, self.which_beta, alpha_table, len(layout.alpha))]
        else:
            limit = min(cached // 8, max(1, layout.size // MIN_UNITS))
            self.runs = _runs(self.which_alpha, self.which_beta, alpha_table, layout.rows.length, limit)

    def apply(self, vector: np.ndarray, parameters: np.ndarray) -> None:
        """Every excitation in order, in place; parameters in radian, shape: (n_parameters,)."""
        angles = np.asarray(parameters, dtype=float)[self._parameter]
        cosines, sines = np.cos(angles), np.sin(angles)
        for run in self.runs:

            def work(i: int, j: int, run: Run = run) -> None:
                self._rotate(vector, self._rows, self._classes, run, self._beta, cosines, sines, i, j)

            in_threads(self._n_threads, len(run.unit_start) - 1, work)

    def undo(self, vector: np.ndarray, other: np.ndarray, parameters: np.ndarray) -> np.ndarray:
        """Undo all on the state and on H times it, in place.

        Returns:
            2 <other| T - T^dagger |vector> summed over each parameter's excitations, shape: (n_parameters,).
        """
        angles = np.asarray(parameters, dtype=float)[self._parameter]
        cosines, sines = np.cos(angles), np.sin(angles)
        slopes = np.zeros(len(angles))
        for run in reversed(self.runs):
            n_units, n = len(run.unit_start) - 1, len(run.alpha)
            parts = np.zeros((n_units, n))  # added up in the order of the units, whichever thread did which

            def work(i: int, j: int, run: Run = run, parts: np.ndarray = parts) -> None:
                self._unrotate(vector, other, self._rows, self._classes, run, self._beta, cosines, sines, i, j, parts)

            in_threads(self._n_threads, n_units, work)
            slopes[run.first : run.first + n] = parts.sum(axis=0)
        return 2.0 * np.bincount(self._parameter, weights=slopes, minlength=self.n_parameters)


def _ladders(of_excitations: list[Ladder]) -> tuple[list[Ladder], np.ndarray]:
    """The different ladders, and the number of each excitation's among them, -1 where it has none."""
    index: dict[Ladder, int] = {}
    which = [index.setdefault(ladder, len(index)) if ladder[0] else -1 for ladder in of_excitations]
    return list(index), np.array(which, dtype=np.int64)


def _by_columns(table: LadderTable, layout: Layout) -> LadderTable:
    """The table of beta ladders with columns of rows in place of strings, by the class of the row's beta strings."""
    columns = layout.beta.columns.astype(np.int32)
    return table._replace(source=columns[table.source], target=columns[table.target])


def _one_run(which_alpha: np.ndarray, which_beta: np.ndarray, alpha: LadderTable, n_rows: int) -> Run:
    """All excitations on all rows at once."""
    return Run(
        0, which_alpha, which_beta, np.array([0, n_rows]), np.arange(n_rows), np.ascontiguousarray(alpha.start[:, [0, -1]]),
        alpha.source, alpha.target, alpha.sign,
    )  # fmt: skip


def _runs(
    which_alpha: np.ndarray, which_beta: np.ndarray, alpha: LadderTable, lengths: np.ndarray, limit: int
) -> list[Run]:
    """Consecutive excitations in runs whose joined rows hold no more than `limit` numbers, if two rows do not hold more."""
    edges = alpha.start[:, 0], alpha.start[:, -1]
    pairs = [(alpha.source[i:j], alpha.target[i:j]) for i, j in zip(*edges, strict=True)]
    runs, first = [], 0
    while first < len(which_alpha):
        last, root, joined = _longest_run(which_alpha, pairs, lengths, first, limit)
        runs.append(_run(first, last, which_alpha, which_beta, alpha, lengths, limit, root if joined else None))
        first = last
    return runs


def _longest_run(
    which_alpha: np.ndarray, pairs: list[tuple[np.ndarray, np.ndarray]], lengths: np.ndarray, first: int, limit: int
) -> tuple[int, np.ndarray, bool]:
    """Where the run from `first` ends, the root of each row's set, and whether the run has alpha ladders: all have or none."""
    last, seen = first, set()
    parent, weight = np.arange(len(lengths)), lengths.copy()
    joined = bool(which_alpha[first] >= 0)
    while last < len(which_alpha) and (which_alpha[last] >= 0) == joined:
        ladder = int(which_alpha[last])
        if joined and ladder not in seen:
            before = parent.copy(), weight.copy()
            if join(parent, weight, *pairs[ladder]) > limit and last > first:
                parent, weight = before
                break
            seen.add(ladder)
        last += 1
    while not np.array_equal(parent, parent[parent]):
        parent = parent[parent]
    return last, parent, joined


@kernel(cache=True)
def join(parent: np.ndarray, weight: np.ndarray, source: np.ndarray, target: np.ndarray) -> int:
    """Unite the sets of each source and target; returns the largest weight of those."""
    largest = 0
    for k in range(len(source)):
        a, b = source[k], target[k]
        while parent[a] != a:
            parent[a] = parent[parent[a]]
            a = parent[a]
        while parent[b] != b:
            parent[b] = parent[parent[b]]
            b = parent[b]
        if a != b:
            if b < a:
                a, b = b, a
            parent[b] = a
            weight[a] += weight[b]
        largest = max(largest, weight[a])
    return largest


def _run(
    first: int,
    last: int,
    which_alpha: np.ndarray,
    which_beta: np.ndarray,
    alpha: LadderTable,
    lengths: np.ndarray,
    limit: int,
    root: np.ndarray | None,
) -> Run:
    """The run of excitations first to last - 1; `root` names each row's set, None where beta ladders act alone."""
    ladders, local = np.unique(which_alpha[first:last], return_inverse=True)
    parts = [np.arange(alpha.start[la, 0], alpha.start[la, -1]) for la in ladders] if root is not None else []
    entries = np.concatenate(parts) if parts else np.zeros(0, np.int64)
    ladder_of = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    source, target, sign = alpha.source[entries], alpha.target[entries], alpha.sign[entries]
    if root is None:
        root, rows = np.arange(len(lengths)), np.arange(len(lengths))
    else:
        rows = np.unique(np.concatenate([source, target])).astype(np.int64)
    sets, set_of = np.unique(root[rows], return_inverse=True)
    unit_of = np.full(len(lengths), -1)
    unit_of[rows] = _units(np.bincount(set_of, weights=lengths[rows], minlength=len(sets)), limit)[set_of]
    n_units = int(unit_of.max(initial=-1)) + 1
    rows = rows[np.argsort(unit_of[rows], kind="stable")]
    key = ladder_of * n_units + unit_of[source]
    order = np.argsort(key, kind="stable")
    edges = np.arange(max(len(parts), 1))[:, None] * n_units + np.arange(n_units + 1)
    return Run(
        first, local.astype(np.int64) if parts else np.full(last - first, -1), which_beta[first:last],
        np.searchsorted(unit_of[rows], np.arange(n_units + 1)), rows, np.searchsorted(key[order], edges),
        source[order], target[order], sign[order],
    )  # fmt: skip


def _units(weights: np.ndarray, limit: int) -> np.ndarray:
    """Sets of rows, each of a weight, in units of no more than `limit` where one set is not more, shape: (n_sets,)."""
    units, filled, unit = np.empty(len(weights), np.int64), 0.0, 0
    for k, weight in enumerate(weights.tolist()):
        if filled and filled + weight > limit:
            unit, filled = unit + 1, 0.0
        units[k] = unit
        filled += weight
    return units


@kernel(cache=True, fastmath=True, nogil=True)
def rotate(
    c: np.ndarray,
    rows: Rows,
    classes: np.ndarray,
    run: Run,
    beta: LadderTable,
    cosines: np.ndarray,
    sines: np.ndarray,
    first_unit: int,
    last_unit: int,
) -> None:
    """A run's excitations on units of c, in place.

    Args:
        c: the state.
        rows: its rows.
        classes: class of the beta strings in each row, shape: (n_rows,).
        run: the excitations and the units.
        beta: the ansatz' beta ladders, by columns of rows.
        cosines, sines: of every excitation's angle, shape: (n_excitations,).
        first_unit, last_unit: the units first to last - 1.
    """
    for unit in range(first_unit, last_unit):
        for e in range(len(run.alpha)):
            la, lb = run.alpha[e], run.beta[e]
            cs, sn = cosines[run.first + e], sines[run.first + e]
            if la < 0:
                for at in range(run.unit_start[unit], run.unit_start[unit + 1]):
                    row = run.rows[at]
                    i = rows.start[row]
                    for m in range(beta.start[lb, classes[row]], beta.start[lb, classes[row] + 1]):
                        p, q, s = i + beta.source[m], i + beta.target[m], beta.sign[m] * sn
                        u, v = c[p], c[q]
                        c[p] = cs * u - s * v
                        c[q] = s * u + cs * v
                continue
            for at in range(run.start[la, unit], run.start[la, unit + 1]):
                row, sa = run.source[at], run.sign[at] * sn
                i, j = rows.start[row], rows.start[run.target[at]]
                if lb < 0:
                    for p in range(rows.length[row]):
                        u, v = c[i + p], c[j + p]
                        c[i + p] = cs * u - sa * v
                        c[j + p] = sa * u + cs * v
                    continue
                for m in range(beta.start[lb, classes[row]], beta.start[lb, classes[row] + 1]):
                    p, q, s = i + beta.source[m], j + beta.target[m], beta.sign[m] * sa
                    u, v = c[p], c[q]
                    c[p] = cs * u - s * v
                    c[q] = s * u + cs * v


@kernel(cache=True, fastmath=True, nogil=True)
def unrotate(
    c: np.ndarray,
    lam: np.ndarray,
    rows: Rows,
    classes: np.ndarray,
    run: Run,
    beta: LadderTable,
    cosines: np.ndarray,
    sines: np.ndarray,
    first_unit: int,
    last_unit: int,
    parts: np.ndarray,
) -> None:
    """Undo a run's excitations on units of c (the state) and lam (H times it), the last excitation first.

    `parts` takes <lam| T - T^dagger |c> of each unit and excitation, shape: (n_units, n_excitations_of_the_run).
    """
    for unit in range(first_unit, last_unit):
        for e in range(len(run.alpha) - 1, -1, -1):
            la, lb = run.alpha[e], run.beta[e]
            cs, sn = cosines[run.first + e], sines[run.first + e]
            total = 0.0
            if la < 0:
                for at in range(run.unit_start[unit], run.unit_start[unit + 1]):
                    row = run.rows[at]
                    i = rows.start[row]
                    for m in range(beta.start[lb, classes[row]], beta.start[lb, classes[row] + 1]):
                        p, q, sign = i + beta.source[m], i + beta.target[m], beta.sign[m]
                        s = sign * sn
                        u, v, x, y = c[p], c[q], lam[p], lam[q]
                        total += sign * (y * u - x * v)
                        c[p] = cs * u + s * v
                        c[q] = cs * v - s * u
                        lam[p] = cs * x + s * y
                        lam[q] = cs * y - s * x
                parts[unit, e] = total
                continue
            for at in range(run.start[la, unit], run.start[la, unit + 1]):
                row, sign_a = run.source[at], run.sign[at]
                i, j = rows.start[row], rows.start[run.target[at]]
                if lb < 0:
                    s, part = sign_a * sn, 0.0
                    for p in range(rows.length[row]):
                        u, v, x, y = c[i + p], c[j + p], lam[i + p], lam[j + p]
                        part += y * u - x * v
                        c[i + p] = cs * u + s * v
                        c[j + p] = cs * v - s * u
                        lam[i + p] = cs * x + s * y
                        lam[j + p] = cs * y - s * x
                    total += sign_a * part
                    continue
                for m in range(beta.start[lb, classes[row]], beta.start[lb, classes[row] + 1]):
                    p, q, sign = i + beta.source[m], j + beta.target[m], beta.sign[m] * sign_a
                    s = sign * sn
                    u, v, x, y = c[p], c[q], lam[p], lam[q]
                    total += sign * (y * u - x * v)
                    c[p] = cs * u + s * v
                    c[q] = cs * v - s * u
                    lam[p] = cs * x + s * y
                    lam[q] = cs * y - s * x
            parts[unit, e] = total
