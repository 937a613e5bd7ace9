"""From a molecule to the electronic Hamiltonian of its active space: RHF or ROHF orbitals and their integrals, by PySCF."""

import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.elements import core_orbitals
from simulator.errors import InputError, RunFailed
from simulator.memory import check_memory, check_run, n_determinants
from simulator.molecules import Molecule
from simulator.stages import Stages

if TYPE_CHECKING:
    from simulator.spec import RunSpec

SCF_ENERGY_TOLERANCE = 1e-12
"""Hartree. Far tighter than an energy needs: orbitals, and with them the Hamiltonian's coefficients and its id, must
come out equal to 1e-10 whoever runs the SCF."""

SCF_GRADIENT_TOLERANCE = 1e-8
"""Orbital gradient, hartree."""

SINGLE_THREADED = 200_000
"""Vectors shorter than this are worked on by one thread."""

DEGENERACY = 1e-6
"""Orbitals closer than this, in hartree, are degenerate: which mixture of them the SCF found is chance."""


@dataclass(frozen=True)
class Problem:
    """Electronic Hamiltonian of the active space, in molecular orbitals, hartree.

    H = energy_offset + sum_pq h1[p,q] E_pq + 1/2 sum_pqrs (pq|rs) (E_pq E_rs - delta_qr E_ps).
    """

    molecule: Molecule
    basis: str
    problem_id: str
    norb: int
    nelec: tuple[int, int]  # alpha, beta
    h1: np.ndarray  # hartree, shape: (norb, norb); the frozen core's mean field is in it
    eri: (
        np.ndarray
    )  # (pq|rs), hartree, 8-fold packed, shape: (n_pairs (n_pairs + 1) / 2,) with n_pairs = norb (norb + 1) / 2
    energy_offset: float  # hartree: nuclear repulsion and frozen core
    hf_energy: float  # total, hartree
    mo_energy: np.ndarray  # hartree, shape: (norb,); the mean of mo_ea and mo_eb in an open shell
    mo_ea: np.ndarray  # alpha Fock diagonal, hartree, shape: (norb,)
    mo_eb: np.ndarray  # beta Fock diagonal, hartree, shape: (norb,)
    orbsym: np.ndarray | None  # irrep of each orbital in D2h or a subgroup, combined by XOR, shape: (norb,)
    group: str  # point group that was used, C1 where none
    active_orbitals: tuple[int, ...]  # indices of the molecular orbitals
    n_core: int  # doubly occupied orbitals that are frozen
    n_molecular_orbitals: int
    scf_retried: bool  # the first SCF did not converge

    def __post_init__(self) -> None:
        n_pairs = self.norb * (self.norb + 1) // 2
        for name, wanted in (
            ("h1", (self.norb, self.norb)),
            ("eri", (n_pairs * (n_pairs + 1) // 2,)),
            ("mo_energy", (self.norb,)),
        ):
            got = getattr(self, name).shape
            if got != wanted:
                raise ValueError(f"{name} has shape {got}, not {wanted}")

    @property
    def n_qubits(self) -> int:
        """Spin orbitals of the active space; parity with two-qubit reduction needs two qubits fewer."""
        return 2 * self.norb

    @property
    def is_closed_shell(self) -> bool:
        return self.nelec[0] == self.nelec[1]

    @property
    def is_full_space(self) -> bool:
        return self.norb == self.n_molecular_orbitals

    @property
    def spin_squared(self) -> float:
        """The <S^2> asked for, S(S+1)."""
        s = (self.molecule.multiplicity - 1) / 2
        return s * (s + 1)


def build_problem(spec: "RunSpec", stages: Stages) -> Problem:
    """Orbitals by RHF (ROHF for open shells), integrals over the active space.

    An SCF that does not converge is run again without point-group symmetry and with second-order steps.

    Raises:
        InputError: a basis that PySCF does not have for an element, or an active space that does not fit the molecule.
        RunFailed: neither SCF converged.
    """
    molecule = spec.molecule
    with stages("scf"):
        mol = _mole(molecule, spec.basis)
        n_core, norb = _active_space(spec, mol.nao)
        nelec = (molecule.n_alpha - n_core, molecule.n_beta - n_core)
        check_run(spec, norb, nelec)
        nao = mol.nao
        n_pairs = nao * (nao + 1) // 2
        check_memory(
            f"integrals of {nao} orbitals ({molecule.formula}, {spec.basis})", 8 * n_pairs**2, "use a smaller basis"
        )
        with omp_threads(n_pairs**2):
            mf, retried = _converged_scf(mol, molecule)
        coefficients, orbsym = _canonical_orbitals(mf)
    with stages("integrals"), omp_threads(n_pairs**2):
        return _problem(spec, mf, coefficients, orbsym, n_core, norb, nelec, retried)


def _mole(molecule: Molecule, basis: str) -> Any:
    from pyscf import gto
    from pyscf.lib.exceptions import BasisNotFoundError

    for element in dict.fromkeys(molecule.elements):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PySCF recommends packages for bases that it lacks
            try:
                found = bool(gto.basis.load(basis, element))
            except (BasisNotFoundError, KeyError, ValueError, RuntimeError, AssertionError, IndexError, OSError):
                found = False
        if not found:
            raise InputError(
                f"unknown basis {basis!r} for {element} (use one that PySCF has, e.g. sto-3g, 6-31g, cc-pvdz)"
            )
    mol = gto.Mole()
    mol.build(
        dump_input=False, parse_arg=False, verbose=0, unit="Angstrom", basis=basis, charge=molecule.charge,
        spin=molecule.multiplicity - 1, symmetry=True, atom=list(zip(molecule.elements, molecule.geometry, strict=True)),
    )  # fmt: skip
    return mol


def _active_space(spec: "RunSpec", n_orbitals: int) -> tuple[int, int]:
    """Frozen doubly occupied orbitals, active orbitals."""
    molecule = spec.molecule
    core = sum(core_orbitals(e) for e in molecule.elements) if spec.freeze_core else 0
    if spec.active_electrons is None or spec.active_orbitals is None:
        n_core, norb = core, n_orbitals - core
        if n_core > molecule.n_beta:
            raise InputError(
                f"freeze core: {molecule.formula} has {molecule.n_beta} doubly occupied orbitals, its core {core}"
            )
        what = f"{spec.basis} with the core frozen" if core else spec.basis
    else:
        frozen = molecule.n_electrons - spec.active_electrons
        n_core, norb = frozen // 2, spec.active_orbitals
        what = f"active space {spec.active_electrons}e,{spec.active_orbitals}o"
        if frozen < 0 or frozen % 2:
            raise InputError(
                f"{what}: {molecule.formula} has {molecule.n_electrons} electrons, an even number must stay outside"
            )
        if n_core + norb > n_orbitals:
            raise InputError(
                f"{what} is larger than the molecule: {molecule.formula} in {spec.basis} has {n_orbitals} orbitals,"
                f" {n_core} of them doubly occupied outside the active space"
            )
        if n_core < core:
            raise InputError(
                f"{what} reaches into the core: {core} core orbitals are frozen, {n_core} are outside the active space"
            )
    if molecule.n_alpha - n_core > norb or molecule.n_beta < n_core:
        raise InputError(
            f"{what}: {norb} orbital{'s' if norb > 1 else ''} cannot hold {molecule.n_alpha - n_core} alpha electrons"
        )
    if molecule.n_alpha == n_core:
        raise InputError(f"{what}: no electron is left to correlate")
    return n_core, norb


def _converged_scf(mol: Any, molecule: Molecule) -> tuple[Any, bool]:
    """A converged RHF or ROHF and whether it took the second attempt."""
    mf = _scf(mol)
    mf.kernel()
    if mf.converged:
        return mf, False
    first = float(mf.e_tot)
    retry = _scf(mol.copy().build(dump_input=False, parse_arg=False, symmetry=False)).newton()
    retry.verbose = 0
    retry.kernel()
    if not retry.converged or not np.isfinite(retry.e_tot):
        raise RunFailed(
            f"SCF of {molecule.formula} in {mol.basis} did not converge: {first:.6f} hartree after {mf.max_cycle} cycles,"
            f" {float(retry.e_tot):.6f} without symmetry and with second-order steps"
        )
    return retry, True


def _scf(mol: Any) -> Any:
    from pyscf import scf

    mf = scf.RHF(mol) if mol.spin == 0 else scf.ROHF(mol)
    mf.conv_tol = SCF_ENERGY_TOLERANCE
    mf.conv_tol_grad = SCF_GRADIENT_TOLERANCE
    mf.max_cycle = 100
    return without_checkpoint(mf)


def without_checkpoint(mf: Any) -> Any:
    """A mean field whose checkpoint file is closed and gone, instead of when the garbage collector finds it."""
    mf.chkfile = None
    if getattr(mf, "_chkfile", None) is not None:
        mf._chkfile.close()
        mf._chkfile = None
    return mf


def _canonical_orbitals(mf: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Orbitals and their irreps, with what the SCF leaves to chance decided: order and mixtures of degenerate ones, signs.

    A degenerate set is ordered by irrep, those of one irrep become the eigenvectors of a position operator with unequal
    weights on x, y and z; a sign makes the largest coefficient (the first among equals) positive.
    """
    coefficients, orbsym = np.array(mf.mo_coeff), _irreps(mf)
    energies, occupations = np.asarray(mf.mo_energy), np.asarray(mf.mo_occ)
    x, y, z = mf.mol.intor_symmetric("int1e_r", comp=3)
    position = x + np.sqrt(2) * y + np.sqrt(3) * z
    labels = np.zeros(len(energies), np.int64) if orbsym is None else orbsym
    apart = (np.diff(energies) > DEGENERACY) | (np.diff(occupations) != 0)
    for chosen in np.split(np.arange(len(energies)), np.flatnonzero(apart) + 1):
        order = chosen[np.argsort(labels[chosen], kind="stable")]
        coefficients[:, chosen], labels[chosen] = coefficients[:, order], labels[order]
        for label in np.unique(labels[chosen]):
            same = chosen[labels[chosen] == label]
            if len(same) > 1:
                block = coefficients[:, same]
                coefficients[:, same] = block @ np.linalg.eigh(block.T @ position @ block)[1]
    for column in coefficients.T:
        magnitude = np.abs(column)
        if column[np.flatnonzero(magnitude > magnitude.max() - 1e-6)[0]] < 0:
            column *= -1
    return coefficients, None if orbsym is None else labels


def _irreps(mf: Any) -> np.ndarray | None:
    """Irrep numbers that combine by XOR; PySCF's linear groups hold theirs in the last digit."""
    orbsym = getattr(mf.mo_coeff, "orbsym", None)
    return None if orbsym is None else np.asarray(orbsym, dtype=np.int64) % 10


def _problem(
    spec: "RunSpec",
    mf: Any,
    coefficients: np.ndarray,
    orbsym: np.ndarray | None,
    n_core: int,
    norb: int,
    nelec: tuple[int, int],
    retried: bool,
) -> Problem:
    from pyscf import ao2mo

    mol = mf.mol
    active = slice(n_core, n_core + norb)
    core, space = coefficients[:, :n_core], coefficients[:, active]
    hcore = mf.get_hcore()
    offset = float(mol.energy_nuc())
    ao_integrals = mf._eri if mf._eri is not None else mol
    if n_core:
        density = 2 * core @ core.T
        mean_field = mf.get_veff(mol, density) if mol.spin == 0 else _closed_shell_potential(mf, density)
        offset += float(np.einsum("ij,ji->", density, hcore + 0.5 * mean_field))
        hcore = hcore + mean_field
    h1 = space.T @ hcore @ space
    eri = ao2mo.restore(8, ao2mo.kernel(ao_integrals, space), norb)
    mo_ea, mo_eb = _fock_diagonals(h1, eri, norb, nelec)
    return Problem(
        molecule=spec.molecule, basis=spec.basis, problem_id=spec.problem_id, norb=norb, nelec=nelec,
        h1=0.5 * (h1 + h1.T), eri=np.ascontiguousarray(eri), energy_offset=offset, hf_energy=float(mf.e_tot),
        mo_energy=0.5 * (mo_ea + mo_eb), mo_ea=mo_ea, mo_eb=mo_eb,
        orbsym=None if orbsym is None else orbsym[active], group=str(mol.groupname) if orbsym is not None else "C1",
        active_orbitals=tuple(range(n_core, n_core + norb)), n_core=n_core, n_molecular_orbitals=coefficients.shape[1],
        scf_retried=retried,
    )  # fmt: skip


def _closed_shell_potential(mf: Any, density: np.ndarray) -> np.ndarray:
    j, k = mf.get_jk(mf.mol, density)
    return np.asarray(j - 0.5 * k)


def _fock_diagonals(
    h1: np.ndarray, eri: np.ndarray, norb: int, nelec: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Diagonals of the alpha and beta Fock matrices, which an ROHF's own orbital energies are not."""
    from pyscf import ao2mo

    full = ao2mo.restore(1, eri, norb)
    coulomb = np.einsum("ppqq->pq", full)
    exchange = np.einsum("pqqp->pq", full)
    n_alpha, n_beta = nelec
    direct = h1.diagonal() + coulomb[:, :n_alpha].sum(1) + coulomb[:, :n_beta].sum(1)
    return direct - exchange[:, :n_alpha].sum(1), direct - exchange[:, :n_beta].sum(1)


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
