"""The sector engine: exact factorised UCCSD in the space of fixed (n_alpha, n_beta), with adjoint gradients.

An excitation rotates pairs of amplitudes, exp(theta (T - T^dagger)): c_i, c_j -> cos c_i - s sin c_j, s sin c_i + cos c_j.
Which pairs and with which sign is a product of an alpha and a beta table over occupation strings; the determinants' own
tables, na x nb as long, are never made. One energy costs the rotations and one product H c (PySCF's contract_2e); all
derivatives cost about two more sets of rotations (adjoint differentiation, Jones and Gacon, arXiv:2009.02823).
"""

from typing import Any

import numpy as np

from simulator.chemistry.integrals import omp_threads
from simulator.chemistry.problem import Problem
from simulator.engines.kernels import kernel
from simulator.engines.limits import check_sector
from simulator.operators.excitations import ExcitationSet, Ladder

MAX_PLAIN = 100
"""Excitations times determinants up to which kernels run as plain Python, 0.2 ms an energy: H2's and HeH+'s in a minimal basis."""


@kernel(cache=True)
def string_tables(strings: np.ndarray, ladders: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Source, target and sign of every ladder's action on every string it does not annihilate.

    Args:
        strings: occupation bit strings, ascending, int64, shape: (n_strings,).
        ladders: created 0, created 1, removed 0, removed 1, -1 where absent, int64, shape: (n_ladders, 4).

    Returns:
        source, target (int64), sign (float64), all of shape (n_entries,), and where each ladder's begin, (n_ladders + 1,).
    """
    n_entries = 0
    size = len(strings) * len(ladders)
    source, target = np.empty(size, np.int64), np.empty(size, np.int64)
    sign = np.empty(size, np.float64)
    offset = np.zeros(len(ladders) + 1, np.int64)
    for k in range(len(ladders)):
        for index in range(len(strings)):
            string = strings[index]
            s = 1.0
            for place in (3, 2, 1, 0):  # the rightmost operator acts first
                orbital = ladders[k, place]
                if orbital < 0:
                    continue
                bit = np.int64(1) << orbital
                occupied = (string & bit) != 0
                if occupied == (place < 2):
                    s = 0.0
                    break
                below = string & (bit - 1)
                while below:
                    s = -s
                    below &= below - 1
                string ^= bit
            if s != 0.0:
                source[n_entries] = index
                target[n_entries] = np.searchsorted(strings, string)
                sign[n_entries] = s
                n_entries += 1
        offset[k + 1] = n_entries
    return source[:n_entries].copy(), target[:n_entries].copy(), sign[:n_entries].copy(), offset


@kernel(cache=True, fastmath=True)
def rotate(
    c: np.ndarray,
    a_src: np.ndarray,
    a_dst: np.ndarray,
    a_sgn: np.ndarray,
    a_off: np.ndarray,
    b_src: np.ndarray,
    b_dst: np.ndarray,
    b_sgn: np.ndarray,
    b_off: np.ndarray,
    which: np.ndarray,
    angles: np.ndarray,
) -> None:
    """Apply every excitation to c, shape (na, nb), in place; `which[e]` holds its alpha and beta ladder, -1 for none."""
    nb = c.shape[1]
    for e in range(len(which)):
        cs, sn = np.cos(angles[e]), np.sin(angles[e])
        la, lb = which[e, 0], which[e, 1]
        if lb < 0:
            for k in range(a_off[la], a_off[la + 1]):
                i, j, s = a_src[k], a_dst[k], a_sgn[k] * sn
                for p in range(nb):
                    u, v = c[i, p], c[j, p]
                    c[i, p] = cs * u - s * v
                    c[j, p] = s * u + cs * v
        elif la < 0:
            for i in range(c.shape[0]):
                for k in range(b_off[lb], b_off[lb + 1]):
                    p, q, s = b_src[k], b_dst[k], b_sgn[k] * sn
                    u, v = c[i, p], c[i, q]
                    c[i, p] = cs * u - s * v
                    c[i, q] = s * u + cs * v
        else:
            for k in range(a_off[la], a_off[la + 1]):
                i, j, sa = a_src[k], a_dst[k], a_sgn[k] * sn
                for m in range(b_off[lb], b_off[lb + 1]):
                    p, q, s = b_src[m], b_dst[m], b_sgn[m] * sa
                    u, v = c[i, p], c[j, q]
                    c[i, p] = cs * u - s * v
                    c[j, q] = s * u + cs * v


@kernel(cache=True, fastmath=True)
def unrotate(
    c: np.ndarray,
    lam: np.ndarray,
    a_src: np.ndarray,
    a_dst: np.ndarray,
    a_sgn: np.ndarray,
    a_off: np.ndarray,
    b_src: np.ndarray,
    b_dst: np.ndarray,
    b_sgn: np.ndarray,
    b_off: np.ndarray,
    which: np.ndarray,
    angles: np.ndarray,
    parameter: np.ndarray,
    gradient: np.ndarray,
) -> None:
    """Undo every excitation on c (the state) and lam (H times it), adding 2 <lam| T - T^dagger |c> to each parameter's slot."""
    nb = c.shape[1]
    for e in range(len(which) - 1, -1, -1):
        cs, sn = np.cos(angles[e]), np.sin(angles[e])
        la, lb = which[e, 0], which[e, 1]
        total = 0.0
        if lb < 0:
            for k in range(a_off[la], a_off[la + 1]):
                i, j, s = a_src[k], a_dst[k], a_sgn[k] * sn
                row = 0.0
                for p in range(nb):
                    u, v, x, y = c[i, p], c[j, p], lam[i, p], lam[j, p]
                    row += y * u - x * v
                    c[i, p] = cs * u + s * v
                    c[j, p] = cs * v - s * u
                    lam[i, p] = cs * x + s * y
                    lam[j, p] = cs * y - s * x
                total += a_sgn[k] * row
        elif la < 0:
            for i in range(c.shape[0]):
                for k in range(b_off[lb], b_off[lb + 1]):
                    p, q, s = b_src[k], b_dst[k], b_sgn[k] * sn
                    u, v, x, y = c[i, p], c[i, q], lam[i, p], lam[i, q]
                    total += b_sgn[k] * (y * u - x * v)
                    c[i, p] = cs * u + s * v
                    c[i, q] = cs * v - s * u
                    lam[i, p] = cs * x + s * y
                    lam[i, q] = cs * y - s * x
        else:
            for k in range(a_off[la], a_off[la + 1]):
                i, j = a_src[k], a_dst[k]
                for m in range(b_off[lb], b_off[lb + 1]):
                    p, q, s0 = b_src[m], b_dst[m], b_sgn[m] * a_sgn[k]
                    s = s0 * sn
                    u, v, x, y = c[i, p], c[j, q], lam[i, p], lam[j, q]
                    total += s0 * (y * u - x * v)
                    c[i, p] = cs * u + s * v
                    c[j, q] = cs * v - s * u
                    lam[i, p] = cs * x + s * y
                    lam[j, q] = cs * y - s * x
        gradient[parameter[e]] += 2.0 * total


class SectorEngine:
    """Energies and gradients of UCCSD over the determinants with the problem's electron numbers.

    Raises:
        InputError: the state vectors would not fit in memory.
    """

    name = "sector"

    def __init__(self, problem: Problem, ansatz: ExcitationSet):
        from pyscf import fci

        check_sector(problem.norb, problem.nelec)
        self.problem, self.ansatz = problem, ansatz
        self.labels = ansatz.labels
        self.n_parameters = ansatz.n_parameters
        norb, nelec = problem.norb, problem.nelec
        self._shape = tuple(fci.cistring.num_strings(norb, n) for n in nelec)
        small = len(ansatz.excitations) * self._shape[0] * self._shape[1] <= MAX_PLAIN
        self._rotate, self._unrotate = (k.plain if small else k.compiled for k in (rotate, unrotate))
        self._tables, self._which = _tables(norb, nelec, ansatz, plain=small)
        self._h2 = fci.direct_spin1.absorb_h1e(problem.h1, problem.eri, norb, nelec, 0.5)
        self._links = tuple(fci.cistring.gen_linkstr_index_trilidx(range(norb), n) for n in nelec)
        self._contract = fci.direct_spin1.contract_2e

    def state(self, parameters: np.ndarray) -> np.ndarray:
        """The normalised state, PySCF's FCI vector, shape: (n_alpha_strings, n_beta_strings)."""
        c = np.zeros(self._shape)
        c[0, 0] = 1.0
        self._rotate(c, *self._tables, self._which, np.asarray(parameters, dtype=float)[self.ansatz.parameter])
        return c

    def energy(self, parameters: np.ndarray) -> tuple[float, None]:
        """Total energy in hartree; it has no standard error."""
        c = self.state(parameters)
        return float(np.vdot(c, self._hamiltonian(c))) + self.problem.energy_offset, None

    def energy_and_gradient(self, parameters: np.ndarray) -> tuple[float, np.ndarray]:
        """Total energy in hartree and its derivatives in hartree per radian, shape: (n_parameters,)."""
        angles = np.asarray(parameters, dtype=float)[self.ansatz.parameter]
        c = self.state(parameters)
        lam = self._hamiltonian(c)
        energy = float(np.vdot(c, lam)) + self.problem.energy_offset
        gradient = np.zeros(self.n_parameters)
        self._unrotate(c, lam, *self._tables, self._which, angles, self.ansatz.parameter, gradient)
        return energy, gradient

    def n_electrons_and_spin(self, parameters: np.ndarray) -> tuple[float, float]:
        """<N> over the active space and <S^2> of the state."""
        from pyscf import fci

        c = self.state(parameters)
        spin = fci.spin_op.spin_square0(c, self.problem.norb, self.problem.nelec)[0]
        return float(np.vdot(c, c)) * sum(self.problem.nelec), float(spin)

    def _hamiltonian(self, c: np.ndarray) -> np.ndarray:
        with omp_threads(c.size):
            out = self._contract(self._h2, c, self.problem.norb, self.problem.nelec, self._links)
        return np.asarray(out).reshape(self._shape)


def _tables(
    norb: int, nelec: tuple[int, int], ansatz: ExcitationSet, *, plain: bool
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """String tables of alpha and beta ladders, and the ladders of each excitation, shape: (n_excitations, 2)."""
    from pyscf.fci import cistring

    which = np.full((len(ansatz.excitations), 2), -1, dtype=np.int64)
    tables: list[Any] = []
    for spin, ladders_of in enumerate((lambda e: e.alpha, lambda e: e.beta)):
        index: dict[Ladder, int] = {}
        for e, excitation in enumerate(ansatz.excitations):
            ladder = ladders_of(excitation)
            if ladder[0]:
                which[e, spin] = index.setdefault(ladder, len(index))
        rows = np.full((len(index), 4), -1, dtype=np.int64)
        for (created, removed), k in index.items():
            rows[k, : len(created)] = created
            rows[k, 2 : 2 + len(removed)] = removed
        strings = np.asarray(cistring.make_strings(range(norb), nelec[spin]), dtype=np.int64)
        tables += (string_tables.plain if plain else string_tables)(strings, rows)
    return tuple(tables), which
