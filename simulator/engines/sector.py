"""The sector engine: exact factorised UCCSD in the space of fixed (n_alpha, n_beta), with adjoint gradients.

An excitation rotates pairs of amplitudes, exp(theta (T - T^dagger)): c_i, c_j -> cos c_i - s sin c_j, s sin c_i + cos c_j.
Which pairs and with which sign is a product of an alpha and a beta table over occupation strings; the determinants' own
tables, na x nb as long, are never made. Vectors hold the determinants of the state's irrep only. One energy costs the rotations and one
product H c; all derivatives cost about two more sets of rotations (adjoint differentiation, Jones and Gacon, arXiv:2009.02823).
"""

from typing import Any, Protocol

import numpy as np

from simulator.chemistry.integrals import omp_threads
from simulator.chemistry.orbitals import SYMMETRY_TOLERANCE
from simulator.chemistry.problem import Problem
from simulator.engines.layout import Layout
from simulator.engines.limits import check_sector
from simulator.engines.rotations import Rotations
from simulator.engines.spin import spin_squared
from simulator.engines.strings import StringSet, believable_irreps, irreps_of, number_pairs
from simulator.engines.threads import engine_threads
from simulator.operators.excitations import ExcitationSet

MAX_PLAIN = 100
"""Excitations times determinants up to which kernels run as plain Python, 0.2 ms an energy: H2's and HeH+'s in a minimal basis."""

EXACT_IRREPS = 1e-12
"""Hartree: integrals that irreps forbid, up to which they are left out for a state of several irreps. For a state of one irrep they
contribute nothing to the energy, so that there SYMMETRY_TOLERANCE will do."""


class SectorEngine:
    """Energies and gradients of UCCSD over the determinants with the problem's electron numbers.

    Raises:
        InputError: the state vectors would not fit in memory.
    """

    name = "sector"

    def __init__(self, problem: Problem, ansatz: ExcitationSet):
        from pyscf import ao2mo, fci

        self.problem, self.ansatz = problem, ansatz
        self.labels = ansatz.labels
        self.n_parameters = ansatz.n_parameters
        norb, nelec = problem.norb, problem.nelec
        n_determinants = fci.cistring.num_strings(norb, nelec[0]) * fci.cistring.num_strings(norb, nelec[1])
        small = len(ansatz.excitations) * n_determinants <= MAX_PLAIN
        self._small = small
        h1, eri = problem.h1, ao2mo.restore(1, problem.eri, norb)
        irreps = None if small else believable_irreps(problem.orbsym, h1, eri, SYMMETRY_TOLERANCE)
        kept = irreps is not None and all(e.is_totally_symmetric(irreps) for e in ansatz.excitations)
        self._layout = sector_layout(norb, nelec, irreps if kept else None)
        n_irreps = len(self._layout.alpha.class_sizes)
        check_sector(norb, nelec, n_irreps, n_threads=(n_threads := engine_threads(n_determinants)))
        self._rotations = Rotations(self._layout, ansatz, n_threads=n_threads, compiled=not small)
        self._multiply: Product
        if small:
            self._multiply = PyscfContraction(problem)
        else:
            from simulator.engines.contraction import Contraction

            if not kept:
                irreps = believable_irreps(problem.orbsym, h1, eri, EXACT_IRREPS)
            orbitals = number_pairs(np.zeros(norb, np.int64) if irreps is None else irreps)
            self._multiply = Contraction(self._layout, orbitals, h1, eri, n_threads)
        self._c, self._lam = np.empty(self._layout.size), np.empty(self._layout.size)

    def state(self, parameters: np.ndarray) -> np.ndarray:
        """The normalised state, PySCF's FCI vector of all irreps, shape: (n_alpha_strings, n_beta_strings)."""
        return self._layout.unpacked(self._state(parameters))

    def energy(self, parameters: np.ndarray) -> tuple[float, None]:
        """Total energy in hartree; it has no standard error."""
        return self._multiply.into(self._lam, self._state(parameters)) + self.problem.energy_offset, None

    def energy_and_gradient(self, parameters: np.ndarray) -> tuple[float, np.ndarray]:
        """Total energy in hartree and its derivatives in hartree per radian, shape: (n_parameters,)."""
        c = self._state(parameters)
        energy = self._multiply.into(self._lam, c) + self.problem.energy_offset
        return energy, self._rotations.undo(c, self._lam, parameters)

    def n_electrons_and_spin(self, parameters: np.ndarray) -> tuple[float, float]:
        """<N> over the active space and <S^2> of the state."""
        c, nelec = self._state(parameters), self.problem.nelec
        return float(np.vdot(c, c)) * sum(nelec), spin_squared(c, self._layout, nelec, compiled=not self._small)

    def _state(self, parameters: np.ndarray) -> np.ndarray:
        """The state's blocks, in the engine's own memory: the next call overwrites them."""
        c = self._c
        c[:] = 0.0
        reference = self._layout.alpha.place[0]  # the lowest orbitals' strings have the address 0
        c[self._layout.rows.start[reference] + self._layout.beta.columns[self._layout.beta.place[0]]] = 1.0
        self._rotations.apply(c, parameters)
        return c


class Product(Protocol):
    """H times vectors of the engine's layout."""

    def into(self, out: np.ndarray, vector: np.ndarray) -> float:
        """Write H times a vector into `out`; returns <vector| H |vector>, hartree, without the energy offset."""


class PyscfContraction:
    """H times PySCF's vector by PySCF: for a few determinants, where loading kernels would take longer."""

    def __init__(self, problem: Problem) -> None:
        from pyscf import fci

        self._problem, (norb, nelec) = problem, (problem.norb, problem.nelec)
        self._h2 = fci.direct_spin1.absorb_h1e(problem.h1, problem.eri, norb, nelec, 0.5)
        self._links = tuple(fci.cistring.gen_linkstr_index_trilidx(range(norb), n) for n in nelec)
        self._shape = tuple(fci.cistring.num_strings(norb, n) for n in nelec)
        self._contract: Any = fci.direct_spin1.contract_2e

    def into(self, out: np.ndarray, vector: np.ndarray) -> float:
        """Write H times a vector into `out`; returns <vector| H |vector>."""
        with omp_threads(vector.size):
            product = self._contract(
                self._h2, vector.reshape(self._shape), self._problem.norb, self._problem.nelec, self._links
            )
        out[:] = np.asarray(product).ravel()
        return float(np.vdot(vector, out))


def sector_layout(norb: int, nelec: tuple[int, int], irreps: np.ndarray | None) -> Layout:
    """Vectors of a sector: those of the Hartree-Fock determinant's irrep, or all where there are no irreps."""
    from pyscf.fci import cistring

    labels = np.zeros(norb, np.int64) if irreps is None else irreps
    n_classes = len(number_pairs(labels).n_pairs)
    sets, irrep = [], 0
    for n in nelec:
        masks = np.asarray(cistring.make_strings(range(norb), n), dtype=np.int64)
        classes = irreps_of(masks, labels)
        irrep ^= int(classes[0])
        sets.append(StringSet.of(masks, classes, n_classes))
    return Layout(sets[0], sets[0] if nelec[0] == nelec[1] else sets[1], irrep)
