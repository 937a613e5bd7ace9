"""How vectors of determinants lie in memory: blocks of alpha strings by beta strings, one for each class of strings."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from simulator.engines.strings import StringSet


class Rows(NamedTuple):
    """Where rows lie: row I has length[I] numbers from start[I] on, for the other spin's strings from column[I] on."""

    start: np.ndarray  # int64, shape: (n_strings,)
    length: np.ndarray  # int64, shape: (n_strings,)
    column: np.ndarray  # int64, shape: (n_strings,)


class Blocks(NamedTuple):
    """Matrices of n_rows alpha strings x n_columns beta strings, each from start on."""

    start: np.ndarray  # int64, shape: (n_blocks,)
    n_rows: np.ndarray  # int64, shape: (n_blocks,)
    n_columns: np.ndarray  # int64, shape: (n_blocks,)


@dataclass(frozen=True)
class Layout:
    """Vectors over determinants of one irrep: class c of the alpha strings with class c ^ irrep of the beta strings, for every c.

    A vector lies by rows of alpha strings. Its transpose, by rows of beta strings, has the same blocks in the same places.
    """

    alpha: StringSet
    beta: StringSet
    irrep: int

    @cached_property
    def blocks(self) -> Blocks:
        n_rows = self.alpha.class_sizes
        n_columns = self.beta.class_sizes[np.arange(len(n_rows)) ^ self.irrep]
        return Blocks(np.cumsum(n_rows * n_columns) - n_rows * n_columns, n_rows, n_columns)

    @cached_property
    def size(self) -> int:
        """Numbers in a vector."""
        return int(np.sum(self.blocks.n_rows * self.blocks.n_columns))

    @cached_property
    def rows(self) -> Rows:
        """A vector's, by alpha strings."""
        own, blocks = self.alpha.classes, self.blocks
        start = blocks.start[own] + self.alpha.columns * blocks.n_columns[own]
        return Rows(start, blocks.n_columns[own], self.beta.class_starts[own ^ self.irrep])

    @cached_property
    def columns(self) -> Rows:
        """Its transpose's, by beta strings."""
        partner, blocks = self.beta.classes ^ self.irrep, self.blocks
        start = blocks.start[partner] + self.beta.columns * blocks.n_rows[partner]
        return Rows(start, blocks.n_rows[partner], self.alpha.class_starts[partner])

    @property
    def shape(self) -> tuple[int, int]:
        """Of PySCF's vector: all alpha strings by all beta strings."""
        return len(self.alpha), len(self.beta)

    def unpacked(self, vector: np.ndarray) -> np.ndarray:
        """PySCF's vector, zero outside the blocks, shape: (n_alpha_strings, n_beta_strings)."""
        out = np.zeros(self.shape)
        for block, where in self._addresses():
            out[where] = vector[block].reshape(out[where].shape)
        return out

    def packed(self, vector: np.ndarray) -> np.ndarray:
        """The blocks of PySCF's vector, shape: (size,)."""
        out = np.empty(self.size)
        for block, where in self._addresses():
            out[block] = vector[where].ravel()
        return out

    def _addresses(self) -> list[tuple[slice, tuple[np.ndarray, ...]]]:
        """Where each block lies in a vector and in PySCF's."""
        alpha, beta = (np.split(s.address, np.cumsum(s.class_sizes)[:-1]) for s in (self.alpha, self.beta))
        return [
            (slice(start, start + n * m), np.ix_(alpha[c], beta[c ^ self.irrep]))
            for c, (start, n, m) in enumerate(zip(*(field.tolist() for field in self.blocks), strict=True))
        ]
