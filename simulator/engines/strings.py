"""Occupation strings of one spin in classes, and what the Hamiltonian does to them: single excitations and the same-spin part.

A class holds the strings of one irrep, where the state keeps one; otherwise one class holds all strings. Within a class the
strings ascend.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from simulator.chemistry.orbitals import largest_forbidden
from simulator.engines.kernels import kernel
from simulator.operators.excitations import Ladder

NEGLIGIBLE = 1e-15
"""Hartree. Elements of the same-spin Hamiltonian up to this are left out: they are symmetry's zeros, rounded."""


class Orbitals(NamedTuple):
    """Pairs p <= q of orbitals, numbered within the irrep of their product."""

    irrep: np.ndarray  # of each orbital, int64, shape: (norb,)
    pair: np.ndarray  # number of the pair within its irrep, int64, shape: (norb, norb)
    n_pairs: np.ndarray  # in each irrep, int64, shape: (n_irreps,)


def number_pairs(irrep: np.ndarray) -> Orbitals:
    """Number the pairs of orbitals with these irreps, which combine by XOR, shape: (norb,)."""
    norb, n_irreps = len(irrep), 1
    while n_irreps <= max(irrep.tolist(), default=0):
        n_irreps *= 2
    pair = np.zeros((norb, norb), np.int64)
    n_pairs = np.zeros(n_irreps, np.int64)
    for p in range(norb):
        for q in range(p + 1):
            k = irrep[p] ^ irrep[q]
            pair[p, q] = pair[q, p] = n_pairs[k]
            n_pairs[k] += 1
    return Orbitals(np.asarray(irrep, np.int64), pair, n_pairs)


def believable_irreps(
    orbsym: np.ndarray | None, h1: np.ndarray, eri: np.ndarray, tolerance: float
) -> np.ndarray | None:
    """The orbitals' irreps; None where there are none, or where an integral that they forbid exceeds the tolerance.

    Args:
        orbsym: irrep of each orbital, combined by XOR, shape: (norb,).
        h1: hartree, shape: (norb, norb).
        eri: (pq|rs), hartree, shape: (norb, norb, norb, norb).
        tolerance: hartree.
    """
    if orbsym is None or largest_forbidden(np.asarray(orbsym, np.int64), h1, eri) > tolerance:
        return None
    return np.asarray(orbsym, np.int64)


@dataclass(frozen=True)
class StringSet:
    """Strings of one spin, sorted by class, ascending within each."""

    masks: np.ndarray  # int64, shape: (n_strings,)
    classes: np.ndarray  # class of each string, int64, shape: (n_strings,)
    class_sizes: np.ndarray  # int64, shape: (n_classes,)
    address: np.ndarray  # of each string among the ascending masks, as in PySCF's vectors, shape: (n_strings,)

    @classmethod
    def of(cls, masks: np.ndarray, classes: np.ndarray, n_classes: int) -> "StringSet":
        """Sorted from ascending masks and the class of each."""
        order = np.argsort(classes, kind="stable")
        return cls(masks[order], classes[order], np.bincount(classes, minlength=n_classes).astype(np.int64), order)

    def __len__(self) -> int:
        return len(self.masks)

    @cached_property
    def ascending(self) -> np.ndarray:
        """The masks in ascending order, shape: (n_strings,)."""
        return np.sort(self.masks)

    @cached_property
    def place(self) -> np.ndarray:
        """Where the string of each address stands in this set, shape: (n_strings,)."""
        out = np.empty_like(self.address)
        out[self.address] = np.arange(len(self.address))
        return out

    @cached_property
    def class_starts(self) -> np.ndarray:
        """The first string of each class, shape: (n_classes,)."""
        return np.cumsum(self.class_sizes) - self.class_sizes

    @cached_property
    def columns(self) -> np.ndarray:
        """Each string's number within its class, shape: (n_strings,)."""
        return np.arange(len(self.masks)) - self.class_starts[self.classes]


def irreps_of(masks: np.ndarray, irrep: np.ndarray) -> np.ndarray:
    """Irreps of occupation strings, int64, shape: (n_strings,)."""
    out = np.zeros(len(masks), np.int64)
    for orbital, its_irrep in enumerate(irrep.tolist()):
        out ^= np.where(masks >> orbital & 1, its_irrep, 0)
    return out


class LadderTable(NamedTuple):
    """What ladders do to the strings that they do not annihilate, ladder by ladder, sources ascending within each."""

    start: (
        np.ndarray
    )  # first entry of each ladder and class of sources, and the end, int64, shape: (n_ladders, n_classes + 1)
    source: np.ndarray  # int32, shape: (n_entries,)
    target: np.ndarray  # int32, shape: (n_entries,)
    sign: np.ndarray  # float64, shape: (n_entries,)


def ladder_table(strings: StringSet, ladders: list[Ladder], *, compiled: bool = True) -> LadderTable:
    """The table of ladders of at most two created and two removed orbitals; sources and targets number the set's strings."""
    rows = np.full((len(ladders), 4), -1, dtype=np.int64)
    for row, (created, removed) in zip(rows, ladders, strict=True):
        row[: len(created)] = created
        row[2 : 2 + len(removed)] = removed
    run = act_ladders.compiled if compiled else act_ladders.plain
    arguments = (strings.masks, strings.ascending, strings.place, strings.classes, len(strings.class_sizes), rows)
    return LadderTable(*run(*arguments))


@kernel(cache=True)
def act_ladders(
    masks: np.ndarray,
    ascending: np.ndarray,
    place: np.ndarray,
    classes: np.ndarray,
    n_classes: int,
    ladders: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The fields of a LadderTable. Ladders: created 0, created 1, removed 0, removed 1, -1 where absent, (n_ladders, 4)."""
    n_entries = 0
    size = len(masks) * len(ladders)
    source, target = np.empty(size, np.int32), np.empty(size, np.int32)
    sign = np.empty(size, np.float64)
    start = np.zeros((len(ladders), n_classes + 1), np.int64)
    for k in range(len(ladders)):
        start[k, 0] = n_entries
        for index in range(len(masks)):
            string = masks[index]
            s = 1.0
            for place_of_operator in (3, 2, 1, 0):  # the rightmost operator acts first
                orbital = ladders[k, place_of_operator]
                if orbital < 0:
                    continue
                bit = np.int64(1) << orbital
                occupied = (string & bit) != 0
                if occupied == (place_of_operator < 2):
                    s = 0.0
                    break
                below = string & (bit - 1)
                while below:
                    s = -s
                    below &= below - 1
                string ^= bit
            if s != 0.0:
                source[n_entries] = index
                target[n_entries] = place[np.searchsorted(ascending, string)]
                sign[n_entries] = s
                n_entries += 1
            start[k, classes[index] + 1] = n_entries
        for c in range(n_classes):  # classes without strings
            start[k, c + 1] = max(start[k, c + 1], start[k, c])
    return start, source[:n_entries].copy(), target[:n_entries].copy(), sign[:n_entries].copy()


class Links(NamedTuple):
    """Single excitations <I| E_pq |J> = +1 or -1 of every string I, E_pp among them, in two orders.

    By the irrep k of the pair: entries start[I, k] to start[I, k + 1], the positive ones before middle[I, k], E_pp first.
    For gathering, in `element`: entries start[I, 0] to start[I, n_irreps], the positive ones before gather_middle[I].
    """

    start: np.ndarray  # int64, shape: (n_strings, n_irreps + 1)
    middle: np.ndarray  # int64, shape: (n_strings, n_irreps)
    source: np.ndarray  # J, int32, shape: (n_links,)
    pair: np.ndarray  # number of the pair within k, int32, shape: (n_links,)
    gather_middle: np.ndarray  # int64, shape: (n_strings,)
    element: (
        np.ndarray
    )  # offset[I's class, k] + pair * (strings in J's class) + J's number there, int32, shape: (n_links,)
    offset: np.ndarray  # int64, shape: (n_classes, n_irreps)


def links(strings: StringSet, orbitals: Orbitals) -> Links:
    """The single excitations of a set of strings that holds every string it leads to."""
    n, norb = np.bitwise_count(strings.masks).astype(np.int64), len(orbitals.irrep)
    n_links = int(np.sum(n * (norb - n) + n))
    classes, irreps = np.arange(len(strings.class_sizes)), np.arange(len(orbitals.n_pairs))
    # with one class, it is every irrep's partner
    partner = classes[:, None] ^ irreps[None, :] if len(classes) > 1 else np.zeros((1, len(irreps)), np.int64)
    sizes = strings.class_sizes[partner] * orbitals.n_pairs
    offset = np.cumsum(sizes, axis=1) - sizes
    found = find_links(
        strings.masks, strings.ascending, strings.place, strings.classes, strings.columns, strings.class_sizes, offset,
        orbitals, n_links,
    )  # fmt: skip
    return Links._make((*found, offset))


@kernel(cache=True)
def find_links(
    masks: np.ndarray,
    ascending: np.ndarray,
    place: np.ndarray,
    classes: np.ndarray,
    columns: np.ndarray,
    class_sizes: np.ndarray,
    offset: np.ndarray,
    orbitals: Orbitals,
    n_links: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The fields of Links but the last."""
    norb, n_irreps = len(orbitals.irrep), len(orbitals.n_pairs)
    start = np.zeros((len(masks), n_irreps + 1), np.int64)
    middle = np.zeros((len(masks), n_irreps), np.int64)
    gather_middle = np.zeros(len(masks), np.int64)
    source, pair, element = np.empty(n_links, np.int32), np.empty(n_links, np.int32), np.empty(n_links, np.int32)
    count = np.zeros((n_irreps, 2), np.int64)
    gather = np.zeros(2, np.int64)
    position = 0
    for index in range(len(masks)):
        string = masks[index]
        count[:] = 0
        for filling in range(2):  # counted first, then written
            for step in range(2):
                for p in range(norb):
                    if not string >> p & 1:
                        continue
                    for q in range(norb):
                        if (p == q) != (step == 0) or (p != q and string >> q & 1):
                            continue
                        low, high = min(p, q), max(p, q)
                        between = string & ((np.int64(1) << high) - 1) & ~((np.int64(2) << low) - 1)
                        negative = 0
                        while between:
                            negative = 1 - negative
                            between &= between - 1
                        k = orbitals.irrep[p] ^ orbitals.irrep[q]
                        if filling:
                            other = string ^ (np.int64(1) << p) ^ (np.int64(1) << q)
                            at = place[np.searchsorted(ascending, other)]
                            where = count[k, negative]
                            source[where] = at
                            pair[where] = orbitals.pair[p, q]
                            length = class_sizes[classes[at]]
                            element[gather[negative]] = (
                                offset[classes[index], k] + orbitals.pair[p, q] * length + columns[at]
                            )
                            gather[negative] += 1
                        count[k, negative] += 1
            if not filling:
                gather[0] = position
                gather[1] = position
                for k in range(n_irreps):
                    start[index, k] = position
                    middle[index, k] = position + count[k, 0]
                    position = middle[index, k] + count[k, 1]
                    gather[1] += count[k, 0]
                    count[k, 0], count[k, 1] = start[index, k], middle[index, k]
                start[index, n_irreps] = position
                gather_middle[index] = gather[1]
    return start, middle, source, pair, gather_middle, element


class SameSpin(NamedTuple):
    """The part of the Hamiltonian that acts on one spin only, by rows (CSR)."""

    start: np.ndarray  # int64, shape: (n_strings + 1,)
    source: np.ndarray  # int32, shape: (n_elements,)
    value: np.ndarray  # hartree, shape: (n_elements,)


def same_spin(strings: StringSet, irrep: np.ndarray, h1: np.ndarray, eri: np.ndarray) -> SameSpin:
    """Slater and Condon's rules for strings of one spin.

    Args:
        strings: a set that holds every string of its electron numbers and classes.
        irrep: of each orbital, shape: (norb,).
        h1: hartree, shape: (norb, norb).
        eri: (pq|rs), hartree, shape: (norb, norb, norb, norb).
    """
    n = np.bitwise_count(strings.masks).astype(np.int64)
    v = len(irrep) - n
    most = int(np.sum(1 + n * v + n * (n - 1) * v * (v - 1) // 4))
    return SameSpin(*find_same_spin(strings.masks, strings.ascending, strings.place, irrep, h1, eri, NEGLIGIBLE, most))


@kernel(cache=True)
def find_same_spin(
    masks: np.ndarray,
    ascending: np.ndarray,
    place: np.ndarray,
    irrep: np.ndarray,
    h1: np.ndarray,
    eri: np.ndarray,
    negligible: float,
    most: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The fields of SameSpin, of at most `most` elements."""
    norb = len(irrep)
    start = np.zeros(len(masks) + 1, np.int64)
    source, value = np.empty(most, np.int32), np.empty(most, np.float64)
    occupied, empty = np.empty(norb, np.int64), np.empty(norb, np.int64)
    at = 0
    one = np.int64(1)
    for index in range(len(masks)):
        string = masks[index]
        n, v = 0, 0
        for p in range(norb):
            if string >> p & 1:
                occupied[n] = p
                n += 1
            else:
                empty[v] = p
                v += 1
        diagonal = 0.0
        for x in range(n):
            i = occupied[x]
            diagonal += h1[i, i]
            for y in range(x):
                j = occupied[y]
                diagonal += eri[i, i, j, j] - eri[i, j, j, i]
        source[at], value[at] = index, diagonal
        at += 1
        for x in range(n):
            i = occupied[x]
            for y in range(v):
                a = empty[y]
                if irrep[i] != irrep[a]:
                    continue
                element = h1[i, a]
                for z in range(n):
                    j = occupied[z]
                    element += eri[i, a, j, j] - eri[i, j, j, a]
                if abs(element) <= negligible:
                    continue
                between = string & ((one << max(i, a)) - 1) & ~((one << (min(i, a) + 1)) - 1)
                while between:
                    element = -element
                    between &= between - 1
                source[at] = place[np.searchsorted(ascending, string ^ (one << i) ^ (one << a))]
                value[at] = element
                at += 1
        for x in range(n):
            for y in range(x):
                i, j = occupied[x], occupied[y]
                for z in range(v):
                    for w in range(z):
                        a, b = empty[z], empty[w]
                        if irrep[i] ^ irrep[j] != irrep[a] ^ irrep[b]:
                            continue
                        element = eri[a, i, b, j] - eri[a, j, b, i]
                        if abs(element) <= negligible:
                            continue
                        # b+ j- moves first, then a+ i- on what it leaves
                        moved = string ^ (one << j) ^ (one << b)
                        between = string & ((one << max(j, b)) - 1) & ~((one << (min(j, b) + 1)) - 1)
                        while between:
                            element = -element
                            between &= between - 1
                        between = moved & ((one << max(i, a)) - 1) & ~((one << (min(i, a) + 1)) - 1)
                        while between:
                            element = -element
                            between &= between - 1
                        source[at] = place[np.searchsorted(ascending, moved ^ (one << i) ^ (one << a))]
                        value[at] = element
                        at += 1
        start[index + 1] = at
    return start, source[:at], value[:at]
