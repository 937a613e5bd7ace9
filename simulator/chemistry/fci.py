"""The lowest states of an active space (full configuration interaction), found so that none below them is missed.

One Davidson root from one guess can end at another root: a guess never leaves its irrep, nor the spin or the angular momentum
that it has by chance, and C2 or N2 pulled apart then come out millihartrees too high without a word. Here every
irrep is searched by itself; small blocks are diagonalized as dense matrices, in larger ones several roots are followed
from several guesses, random ones among them; states of another spin are shifted out of the way by a penalty that leaves the
wanted ones as they are; and a state counts only when ||Hc - Ec|| says so.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from simulator.chemistry.orbitals import SYMMETRY_TOLERANCE, largest_forbidden
from simulator.chemistry.problem import Problem
from simulator.memory import available_bytes, readable

DENSE = 1_000
"""Determinants in an irrep up to which its block is diagonalized as a dense matrix: 0.1 s on one core. With eight
irreps that is a space of 8,000."""

LAST_RESORT = 4_000
"""Determinants up to which a block whose search did not end is diagonalized all the same: half a minute on one core."""

RESIDUAL = 1e-6
"""Hartree: the largest ||Hc - Ec|| of a state that counts. An eigenvalue is at most this far from E."""

COARSE = 2e-2
"""Hartree: the residual to which every irrep is searched before the ones that lie higher for sure are left out."""

SAME_ENERGY = 1e-7
"""Hartree: irreps whose lowest states are this close are one degenerate level."""

PURE = 1e-4
"""How far <S^2> of a state may be from S(S+1) before another spin counts as mixed in."""

PENALTIES = (0.5, 2.0, 8.0)
"""Hartree per unit of <S^2> - S(S+1). The first lifts a triplet by one hartree over the singlets, more than any molecule's
lowest singlet lies above its lowest triplet; the others are there for what is no molecule."""

_ROOTS = 6
_RANDOM = 2
_GUESS_DETERMINANTS = 300
_PATIENCE = 40
_MAX_ITERATIONS = 250


class NotSure(Exception):
    """No state can be vouched for; the message is the reason."""


@dataclass(frozen=True)
class ExactState:
    """An eigenstate of the active space's Hamiltonian."""

    energy: float  # total, hartree
    s_squared: float
    residual: float  # ||Hc - Ec||, hartree
    in_hf_irrep: bool | None  # None where the orbitals have no irreps


def lowest_of_spin(problem: Problem) -> ExactState:
    """The lowest state with the problem's electrons and its spin, S = (n_alpha - n_beta) / 2.

    Raises:
        NotSure: none can be vouched for.
    """
    found = FullSpace(problem).lowest()
    assert found is not None  # only a limit leaves states out
    return found


def lowest_of_sector(problem: Problem, known: ExactState) -> ExactState:
    """The lowest state with the problem's numbers of alpha and beta electrons, whatever its spin.

    Every spin is searched where it is the lowest one, in the sector with as many more alpha electrons: states of different
    spin that nearly agree in energy, as those of atoms far apart do, then cannot hide one another.

    Args:
        problem: the active space.
        known: its lowest state of the lowest spin.

    Raises:
        NotSure: none can be vouched for.
    """
    lowest = known
    n_alpha, n_beta = problem.nelec
    while n_beta > 0 and n_alpha < problem.norb:
        n_alpha, n_beta = n_alpha + 1, n_beta - 1
        found = FullSpace(replace(problem, nelec=(n_alpha, n_beta))).lowest(below=lowest.energy)
        if found is not None and found.energy < lowest.energy:
            lowest = found
    return lowest


class FullSpace:
    """All determinants of an active space's (n_alpha, n_beta) sector, in blocks of one irrep each."""

    def __init__(self, problem: Problem) -> None:
        from pyscf import ao2mo
        from pyscf.fci import cistring, direct_spin1

        self.problem = problem
        self.orbsym = _believable(problem)
        norb, nelec = problem.norb, problem.nelec
        self.strings = tuple(np.asarray(cistring.make_strings(range(norb), n), dtype=np.int64) for n in nelec)
        eri = ao2mo.restore(1, problem.eri, norb)
        self.diagonal = np.asarray(direct_spin1.make_hdiag(problem.h1, eri, norb, nelec)).ravel()
        h2 = direct_spin1.absorb_h1e(problem.h1, problem.eri, norb, nelec, 0.5)
        self.h2 = ao2mo.restore(4, h2, norb)
        self.links = tuple(cistring.gen_linkstr_index_trilidx(range(norb), n) for n in nelec)
        self.eri = eri
        labels = np.zeros(norb, np.int64) if self.orbsym is None else self.orbsym
        self.string_irreps = tuple(string_irreps(labels, n) for n in nelec)
        self.hf_irrep = int(self.string_irreps[0][0] ^ self.string_irreps[1][0])
        irreps = np.unique(self.string_irreps[0][:, None] ^ self.string_irreps[1][None, :])
        self.blocks = [_Block(self, int(irrep)) for irrep in irreps]
        largest = max(block.size for block in self.blocks)
        needed = 8 * (len(self.diagonal) * 2 * _subspace(largest) + 4 * largest)
        if largest > DENSE and needed > available_bytes():
            raise NotSure(f"its vectors need {readable(needed)} of memory, {readable(available_bytes())} are available")

    def lowest(self, below: float | None = None) -> ExactState | None:
        """The lowest state of the sector's lowest spin, S = (n_alpha - n_beta) / 2.

        Args:
            below: total energy, hartree; None is returned where the state lies above it for sure.

        Raises:
            NotSure: it did not converge, or no state has the spin.
        """
        limit = None if below is None else below - self.problem.energy_offset
        ended_at = 0.0
        for penalty in PENALTIES:
            found = self._lowest(penalty, limit)
            if found is None or abs(found.s_squared - self._spin_squared) < PURE:
                return found
            ended_at = found.s_squared
        raise NotSure(f"no state of <S^2> = {self._spin_squared:g} was found: the search ended at {ended_at:.4f}")

    @property
    def _spin_squared(self) -> float:
        m = 0.5 * (self.problem.nelec[0] - self.problem.nelec[1])
        return m * (m + 1)

    def _lowest(self, penalty: float, limit: float | None) -> ExactState | None:
        searches = [block.search(penalty) for block in self.blocks]
        for search in searches:
            search.until(COARSE)
        if limit is not None and min(search.energy - search.residual for search in searches) > limit:
            return None
        highest = min(search.energy + search.residual for search in searches)
        kept = [search for search in searches if search.energy - search.residual <= highest + SAME_ENERGY]
        for search in kept:
            search.until(RESIDUAL)
        lowest = min(search.energy for search in kept)
        level = [search for search in kept if search.energy <= lowest + SAME_ENERGY]
        for search in kept:
            if not search.settled:
                raise NotSure(
                    f"the lowest root has a residual of {search.residual:.0e} hartree after {search.iterations} iterations,"
                    f" {RESIDUAL:.0e} is asked for"
                )
        best = min(level, key=lambda search: (search.block.irrep != self.hf_irrep, search.energy))
        other_spin = best.block.other_spin(best.vector)
        in_hf_irrep = None if self.orbsym is None else best.block.irrep == self.hf_irrep
        energy = best.energy - penalty * other_spin + self.problem.energy_offset
        return ExactState(energy, self._spin_squared + other_spin, best.residual, in_hf_irrep)


def string_irreps(orbsym: np.ndarray, n_electrons: int) -> np.ndarray:
    """Irrep of each occupation string of `n_electrons` of one spin, in PySCF's order, shape: (n_strings,)."""
    from pyscf.fci import cistring

    strings = np.asarray(cistring.make_strings(range(len(orbsym)), n_electrons))
    out = np.zeros(len(strings), dtype=np.int64)
    for orbital, irrep in enumerate(orbsym):
        out ^= np.where(strings >> orbital & 1, irrep, 0)
    return out


def _believable(problem: Problem) -> np.ndarray | None:
    """The orbitals' irreps, None where there are none or where the Hamiltonian does not keep them."""
    from pyscf import ao2mo

    if problem.orbsym is None:
        return None
    labels = np.asarray(problem.orbsym, dtype=np.int64)
    full = ao2mo.restore(1, problem.eri, problem.norb)
    return labels if largest_forbidden(labels, problem.h1, full) < SYMMETRY_TOLERANCE else None


class _Block:
    """The determinants of one irrep. A vector holds them by the irrep of their alpha string, as PySCF's symmetric product does."""

    def __init__(self, space: FullSpace, irrep: int) -> None:
        self.space, self.irrep = space, irrep
        alpha, beta = space.string_irreps
        rows = []
        for a in range(8):
            i, j = np.flatnonzero(alpha == a), np.flatnonzero(beta == a ^ irrep)
            rows.append((i[:, None] * len(beta) + j[None, :]).ravel())
        self.addresses = np.concatenate(rows)  # in the whole sector, shape: (size,)
        self.size = len(self.addresses)
        self.diagonal = space.diagonal[self.addresses]

    def apply(self, c: np.ndarray) -> np.ndarray:
        """H c, without the energy offset, shape: (size,)."""
        from pyscf.fci import direct_spin1, direct_spin1_symm

        space, p = self.space, self.space.problem
        if space.orbsym is None:
            whole = c.reshape(len(space.strings[0]), len(space.strings[1]))
            return np.asarray(direct_spin1.contract_2e(space.h2, whole, p.norb, p.nelec, space.links)).ravel()
        out = direct_spin1_symm.contract_2e(space.h2, c, p.norb, p.nelec, space.links, space.orbsym, self.irrep)
        return np.asarray(out).ravel()

    @cached_property
    def raising(self) -> Any:
        """S+ from these determinants to those with one alpha electron more, a sparse matrix, shape: (any, size).

        S^2 = S- S+ + M(M + 1) on states of M = (n_alpha - n_beta) / 2: S+ c = 0 singles out the sector's lowest spin, S = M.
        """
        from scipy.sparse import csr_matrix

        norb, (n_alpha, n_beta) = self.space.problem.norb, self.space.problem.nelec
        if n_beta == 0 or n_alpha == norb:
            return csr_matrix((1, self.size))
        from pyscf.fci import cistring

        alpha, beta = self.space.strings
        i, j = np.divmod(self.addresses, len(beta))
        more = np.asarray(cistring.make_strings(range(norb), n_alpha + 1), dtype=np.int64)
        fewer = np.asarray(cistring.make_strings(range(norb), n_beta - 1), dtype=np.int64)
        rows, columns, values = [], [], []
        for orbital in range(norb):
            bit = np.int64(1) << orbital
            column = np.flatnonzero((alpha[i] & bit == 0) & (beta[j] & bit != 0))
            a, b = alpha[i[column]], beta[j[column]]
            sign = 1 - 2 * (np.bitwise_count(a & (bit - 1)) + np.bitwise_count(b & (bit - 1)) & 1).astype(np.int8)
            rows.append(np.searchsorted(more, a | bit) * len(fewer) + np.searchsorted(fewer, b ^ bit))
            columns.append(column)
            values.append(sign.astype(float))
        row, column, value = np.concatenate(rows), np.concatenate(columns), np.concatenate(values)
        reached, row = np.unique(row, return_inverse=True)  # only determinants that are reached: the others are most
        return csr_matrix((value, (row, column)), shape=(max(len(reached), 1), self.size))

    def other_spin(self, c: np.ndarray) -> float:
        """<S^2> - M(M + 1) of a normalized vector."""
        return float(np.sum((self.raising @ c) ** 2))

    def matrix(self, chosen: np.ndarray, penalty: float) -> np.ndarray:
        """H + penalty (S^2 - M(M + 1)) among some of the determinants, dense, shape: (n_chosen, n_chosen)."""
        from pyscf.fci import direct_spin1

        space, p = self.space, self.space.problem
        # PySCF takes the determinants of the lowest diagonal elements: those of all others are raised beyond any
        diagonal = np.full(len(space.diagonal), np.inf)
        diagonal[self.addresses[chosen]] = self.diagonal[chosen]
        found, matrix = direct_spin1.pspace(p.h1, space.eri, p.norb, p.nelec, hdiag=diagonal, np=len(chosen))
        place = np.empty(len(chosen), np.int64)
        place[np.argsort(self.addresses[chosen])] = np.argsort(found)
        out = np.asarray(matrix)[np.ix_(place, place)]
        if penalty:
            raising = self.raising[:, chosen]
            out = out + penalty * (raising.T @ raising).toarray()
        return out

    def search(self, penalty: float) -> "_Search":
        return _Dense(self, penalty) if self.size <= DENSE else _Davidson(self, penalty)

    def guess_determinants(self) -> np.ndarray:
        """Determinants with the lowest diagonal elements, with all that differ from them in spins only."""
        alpha, beta = self.space.strings
        i, j = np.divmod(self.addresses, len(beta))
        a, b = alpha[i].astype(np.uint64), beta[j].astype(np.uint64)
        configuration = (a & b) << np.uint64(self.space.problem.norb) | (a ^ b)
        low = np.argpartition(self.diagonal, _GUESS_DETERMINANTS)[:_GUESS_DETERMINANTS]
        return np.flatnonzero(np.isin(configuration, configuration[low]))


class _Search:
    """The lowest root of a block's H + penalty (S^2 - M(M + 1)): energy (hartree, without offset), vector and residual."""

    block: _Block
    energy: float
    residual: float
    vector: np.ndarray
    iterations = 0
    settled = True

    def until(self, residual: float) -> None:
        """Go on until the residual is this small and no other root that is followed can come out lower: then it is settled."""


class _Dense(_Search):
    def __init__(self, block: _Block, penalty: float) -> None:
        import scipy.linalg

        self.block = block
        matrix = block.matrix(np.arange(block.size), penalty)
        energies, vectors = scipy.linalg.eigh(matrix, subset_by_index=[0, 0])
        self.energy, self.vector = float(energies[0]), vectors[:, 0]
        self.residual = float(np.linalg.norm(matrix @ self.vector - self.energy * self.vector))


class _Davidson(_Search):
    """Block Davidson (J. Comput. Phys. 17, 87): several roots at a time, restarted from their Ritz vectors."""

    def __init__(self, block: _Block, penalty: float) -> None:
        self.block, self.penalty = block, penalty
        self.limit = _subspace(block.size)
        raising = block.raising if penalty else None
        flips = 0.0 if raising is None else np.asarray(raising.power(2).sum(axis=0)).ravel()
        self.diagonal = block.diagonal + penalty * flips
        self.roots = _ROOTS
        self.rng = np.random.default_rng([block.size, block.irrep])
        self._basis = np.empty((self.limit, block.size))
        self._images = np.empty((self.limit, block.size))  # the operator's products with the basis
        self._used = 0
        self._extend(self._guesses())

    @property
    def basis(self) -> np.ndarray:
        return self._basis[: self._used]

    @property
    def images(self) -> np.ndarray:
        return self._images[: self._used]

    def until(self, residual: float) -> None:
        while True:
            energies, vectors, residuals, norms = self._ritz()
            self.energy, self.vector, self.residual = float(energies[0]), vectors[0], float(norms[0])
            # an eigenvalue is within a root's residual: a root that may yet fall below the first is worked on too
            open_roots = [
                k for k in range(len(energies))
                if (norms[k] > residual if k == 0 else energies[k] - norms[k] < energies[0] - RESIDUAL)
            ]  # fmt: skip
            self.settled = not open_roots
            if self.settled or self.iterations >= _MAX_ITERATIONS:
                break
            self.iterations += 1
            if self.iterations % _PATIENCE == 0:  # more states lie close together than are followed: atoms far apart
                self.roots = min(2 * self.roots, self.limit // 2 - 2)
            if self._used + len(open_roots) > self.limit:
                self._restart()
            corrections = [residuals[k] / _away_from_zero(self.diagonal - energies[k]) for k in open_roots]
            if not self._extend(np.array(corrections)):
                self._extend(self.rng.standard_normal((1, self.block.size)))
        if not self.settled and self.block.size <= LAST_RESORT:
            dense = _Dense(self.block, self.penalty)
            self.energy, self.vector, self.residual, self.settled = dense.energy, dense.vector, dense.residual, True

    def _guesses(self) -> np.ndarray:
        """Eigenvectors among the lowest determinants, and random vectors: they alone have a part in every state."""
        chosen = self.block.guess_determinants()
        _, found = np.linalg.eigh(self.block.matrix(chosen, self.penalty))
        states = found[:, :_ROOTS].T
        out = np.zeros((len(states), self.block.size))
        out[:, chosen] = states
        noise = self.rng.standard_normal((_RANDOM, self.block.size)) / (self.diagonal - self.diagonal.min() + 0.2)
        return np.vstack([out, noise])

    def _extend(self, vectors: np.ndarray) -> int:
        """Add what is new in the vectors to the basis; how many were new."""
        added = 0
        for vector in vectors:
            vector = vector / np.linalg.norm(vector)
            for _ in range(2):
                vector = vector - self.basis.T @ (self.basis @ vector)
            norm = np.linalg.norm(vector)
            if norm < 1e-5:
                continue
            vector /= norm
            vector -= self.basis.T @ (self.basis @ vector)
            vector /= np.linalg.norm(vector)
            image = self.block.apply(vector)
            if self.penalty:
                raising = self.block.raising
                image = image + self.penalty * (raising.T @ (raising @ vector))
            self._basis[self._used], self._images[self._used] = vector, image
            self._used += 1
            added += 1
        return added

    def _ritz(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Energies, vectors, residual vectors and their norms of the roots that are followed."""
        projected = self.basis @ self.images.T
        energies, coefficients = np.linalg.eigh(0.5 * (projected + projected.T))
        energies, coefficients = energies[: self.roots], coefficients[:, : self.roots].T
        vectors = coefficients @ self.basis
        residuals = coefficients @ self.images - energies[:, None] * vectors
        return energies, vectors, residuals, np.linalg.norm(residuals, axis=1)

    def _restart(self) -> None:
        projected = self.basis @ self.images.T
        _, coefficients = np.linalg.eigh(0.5 * (projected + projected.T))
        kept = coefficients[:, : min(self.roots + 4, self.limit - self.roots)].T
        self._basis[: len(kept)], self._images[: len(kept)] = kept @ self.basis, kept @ self.images
        self._used = len(kept)


def _subspace(size: int) -> int:
    """Vectors that a search keeps at most."""
    return 48 if size < 50_000 else 24


def _away_from_zero(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < 1e-2, np.copysign(1e-2, x), x)
