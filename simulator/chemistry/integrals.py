"""From a molecule to the electronic Hamiltonian of its active space: RHF or ROHF orbitals and their integrals, by PySCF."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.chemistry.active_space import ActiveOrbitals, checked_space, choose_orbitals, cut_sets
from simulator.chemistry.basis_sets import load_basis
from simulator.chemistry.given_integrals import n_pairs
from simulator.chemistry.molecules import Molecule
from simulator.chemistry.orbitals import canonical_orbitals
from simulator.chemistry.point_group import with_point_group
from simulator.chemistry.problem import Problem, SizeCheck, fock_diagonals
from simulator.chemistry.scf import ScfSolution, mean_field, solve_scf
from simulator.memory import check_memory, n_determinants
from simulator.stages import Stages

if TYPE_CHECKING:
    from simulator.chemistry.problem_spec import ProblemSpec

SINGLE_THREADED = 200_000
"""Vectors shorter than this are worked on by one thread."""

LARGEST_OVERLAP = 1_000
"""Functions up to which their linear dependence is looked at before the SCF: beyond, its diagonalization takes seconds."""


def build_problem(spec: "ProblemSpec", stages: Stages, check_size: SizeCheck | None = None) -> Problem:
    """Orbitals by RHF (ROHF for open shells), integrals over the active space; from given integrals where there are such.

    Raises:
        InputError: a basis that PySCF does not have for an element, or an active space that does not fit the molecule.
        RunFailed: no SCF came near a stationary point.
    """
    if spec.integrals is not None:
        from simulator.chemistry.given_problem import given_problem

        with stages("integrals"):
            return given_problem(spec, check_size)
    with stages("scf"):
        orbitals = solve_orbitals(spec, check_size)
    with stages("integrals"), omp_threads(orbitals.n_pairs**2):
        return _problem(spec, orbitals)


@dataclass(frozen=True)
class Orbitals:
    """The molecular orbitals of a specification and which of them are active."""

    solution: ScfSolution
    coefficients: np.ndarray  # shape: (n_functions, n_orbitals)
    orbsym: np.ndarray | None  # irrep of each orbital, combined by XOR, shape: (n_orbitals,)
    active: ActiveOrbitals
    notes: tuple[str, ...]

    @property
    def n_pairs(self) -> int:
        """Pairs of basis functions."""
        return n_pairs(self.coefficients.shape[0])


def solve_orbitals(spec: "ProblemSpec", check_size: SizeCheck | None = None) -> Orbitals:
    """The SCF's orbitals, with what it leaves to chance decided, and the active ones among them.

    Args:
        spec: the specification.
        check_size: refuses an active space that would not fit into memory, before the SCF is begun.

    Raises:
        InputError: no such basis, the active space does not fit the molecule, or the run not the machine.
        RunFailed: no SCF came near a stationary point.
    """
    molecule = spec.molecule
    mol, notes = _mole(molecule, spec.basis)
    n_functions = mol.nao
    pairs = n_pairs(n_functions)
    # As many orbitals as functions that are independent; the SCF decides, but what cannot fit is refused before it.
    n_orbitals = _n_independent(mol)
    if check_size is not None:
        space = checked_space(spec, n_orbitals)
        if space is not None:
            check_size(space.norb, space.nelec)
    check_memory(
        f"integrals of {n_functions} orbitals ({molecule.formula}, {spec.basis})", 8 * pairs**2, "use a smaller basis"
    )
    with omp_threads(pairs**2):
        solution = _converged_scf(mol, spec)
        coefficients, orbsym = canonical_orbitals(solution.mf)
        n_orbitals = coefficients.shape[1]
        if n_orbitals < n_functions:
            notes += (
                f"basis {spec.basis} is nearly linearly dependent here: {n_orbitals} orbitals from {n_functions} functions",
            )
        active, coefficients, orbsym = choose_orbitals(spec, solution.mf, coefficients, orbsym)
    if check_size is not None:
        check_size(len(active.indices), active.nelec)
    notes += (*solution.notes, *cut_sets(spec, active))
    return Orbitals(solution, coefficients, orbsym, active, notes)


def _mole(molecule: Molecule, basis: str) -> tuple[Any, tuple[str, ...]]:
    """PySCF's molecule with its point group, and a note where that could not be had as usual."""
    from pyscf import gto

    loaded = {element: load_basis(basis, element) for element in dict.fromkeys(molecule.elements)}

    def build(symmetry: bool) -> Any:
        mol = gto.Mole()
        mol.build(
            dump_input=False, parse_arg=False, verbose=0, unit="Angstrom", charge=molecule.charge,
            basis={element: functions for element, (functions, _) in loaded.items()},
            ecp={element: ecp for element, (_, ecp) in loaded.items() if ecp is not None},
            spin=molecule.multiplicity - 1, symmetry=symmetry,
            atom=list(zip(molecule.elements, molecule.geometry, strict=True)),
        )  # fmt: skip
        return mol

    return with_point_group(build)


def _n_independent(mol: Any) -> int:
    """Orbitals that the basis gives: its functions less those that others express, by PySCF's own threshold."""
    from pyscf.scf import hf

    if mol.nao > LARGEST_OVERLAP:
        return int(mol.nao)
    values = np.linalg.eigvalsh(mol.intor_symmetric("int1e_ovlp"))
    return int(np.sum(values > hf.overlap_zero_eigenvalue_threshold))


_scf = mean_field


def _converged_scf(mol: Any, spec: "ProblemSpec") -> ScfSolution:
    what = f"{spec.molecule.formula} in {spec.basis}"
    return solve_scf(mol, what, follow=spec.spec_version > 1, scf=_scf)


def _problem(spec: "ProblemSpec", orbitals: Orbitals) -> Problem:
    from pyscf import ao2mo

    mf, active, coefficients, orbsym = orbitals.solution.mf, orbitals.active, orbitals.coefficients, orbitals.orbsym
    mol, norb, nelec = mf.mol, len(active.indices), active.nelec
    core, space = coefficients[:, list(active.core)], coefficients[:, list(active.indices)]
    hcore = mf.get_hcore()
    offset = float(mol.energy_nuc())
    ao_integrals = mf._eri if mf._eri is not None else mol
    if active.core:
        density = 2 * core @ core.T
        mean_field = mf.get_veff(mol, density) if mol.spin == 0 else _closed_shell_potential(mf, density)
        offset += float(np.einsum("ij,ji->", density, hcore + 0.5 * mean_field))
        hcore = hcore + mean_field
    h1 = space.T @ hcore @ space
    eri = ao2mo.restore(8, ao2mo.kernel(ao_integrals, space), norb)
    mo_ea, mo_eb = fock_diagonals(h1, eri, norb, nelec)
    return Problem(
        molecule=spec.molecule, basis=spec.basis, problem_id=spec.problem_id, norb=norb, nelec=nelec,
        h1=0.5 * (h1 + h1.T), eri=np.ascontiguousarray(eri), energy_offset=offset, hf_energy=float(mf.e_tot),
        mo_energy=0.5 * (mo_ea + mo_eb), mo_ea=mo_ea, mo_eb=mo_eb,
        orbsym=None if orbsym is None else orbsym[list(active.indices)],
        group=str(mol.groupname) if orbsym is not None else "C1",
        active_orbitals=active.indices, n_core=len(active.core), n_molecular_orbitals=coefficients.shape[1],
        scf_retried=orbitals.solution.retried, notes=orbitals.notes,
        orbital_names=tuple(active.names[i] for i in active.indices),
    )  # fmt: skip


def _closed_shell_potential(mf: Any, density: np.ndarray) -> np.ndarray:
    j, k = mf.get_jk(mf.mol, density)
    return np.asarray(j - 0.5 * k)


def omp_threads(size: int) -> AbstractContextManager[Any]:
    """One OpenMP thread for PySCF where vectors of `size` numbers are too short for more.

    Two threads on a busy two-core machine took 0.55 s for NH3's optimization, one thread 0.05 s: libgomp's threads spin
    while they wait for each other.
    """
    from pyscf import lib

    return lib.with_omp_threads(1) if size < SINGLE_THREADED else nullcontext()


def problem_determinants(problem: Problem) -> int:
    """Determinants of the active space's (n_alpha, n_beta) sector."""
    return n_determinants(problem.norb, problem.nelec)
