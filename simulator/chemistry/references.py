"""What a run's energy is held against: HF, MP2, CCSD, CCSD(T), FCI, all in the run's active space, and published energies."""

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.chemistry.fci import NotSure, lowest_of_sector, lowest_of_spin
from simulator.chemistry.integrals import omp_threads, problem_determinants
from simulator.chemistry.molecules import load_molecule, published_energies
from simulator.chemistry.problem import Problem
from simulator.chemistry.scf import STATIONARY_GRADIENT, without_checkpoint
from simulator.memory import available_bytes
from simulator.stages import Stages

if TYPE_CHECKING:
    from simulator.chemistry.problem_spec import ProblemSpec


MAX_FCI_DETERMINANTS = 1_000_000
"""Largest determinant space in which FCI is run as a reference: about a minute on one core, 8 MB a vector."""


@dataclass(frozen=True)
class Reference:
    """One reference energy, or why there is none.

    Names: HF, MP2, CCSD, CCSD(T), FCI (CASCI where orbitals are left out), sector_minimum (the lowest energy with the
    asked numbers of alpha and beta electrons, whatever its spin), `published <method>`.
    """

    name: str
    energy: float | None  # total, hartree
    reason: str | None = None  # why there is no energy
    s_squared: float | None = None
    source: str | None = None  # of a published energy
    hf_irrep_weight: float | None = None  # FCI: 1 where the state has the Hartree-Fock determinant's irrep, else 0


def compute_references(problem: Problem, spec: "ProblemSpec", stages: Stages) -> tuple[Reference, ...]:
    """All references of a run, those that cannot be had or vouched for with the reason: none of them ends the run.

    FCI is the lowest state of the asked <S^2>, up to MAX_FCI_DETERMINANTS determinants (`simulator.chemistry.fci`); CCSD(T) is computed
    where FCI is not there.
    """
    with stages("reference"), omp_threads(problem_determinants(problem)), _quiet():
        found = [Reference("HF", problem.hf_energy, None, problem.spin_squared)]
        exact = _exact(problem)
        found += _perturbative(problem, exact[0])
        found += exact
        try:
            found += _published(problem)
        except Exception as error:
            found.append(Reference("published", None, _what_went_wrong(error)))
    return tuple(found)


EXACT = ("FCI", "CASCI")
"""Names of the exact energy of the asked spin, in the full space and in an active one."""

SECTOR_MINIMUM = "sector_minimum"

YARDSTICKS = (*EXACT, "CCSD(T)")
"""What errors are told against. MP2 and CCSD can be off by more than a run's own error, on either side."""


def reference_energy(references: tuple[Reference, ...]) -> tuple[str, float] | None:
    """Name and energy (hartree) of the yardstick: FCI or CASCI, else CCSD(T) where it can be trusted; None without one."""
    energies = {r.name: r.energy for r in references}
    for name in YARDSTICKS:
        energy = energies.get(name)
        if energy is not None:
            return name, energy
    return None


def exact_energy(references: tuple[Reference, ...]) -> tuple[str, float] | None:
    """Name and energy (hartree) of FCI or CASCI, the lowest state of the asked spin; None without it."""
    return next(((r.name, r.energy) for r in references if r.name in EXACT and r.energy is not None), None)


def sector_minimum(references: tuple[Reference, ...]) -> Reference | None:
    """The lowest energy with the asked numbers of alpha and beta electrons; None where nobody asked for it."""
    return next((r for r in references if r.name == SECTOR_MINIMUM), None)


def no_yardstick(references: tuple[Reference, ...]) -> str | None:
    """Why a run's energy has no error, in one line; None where it has one, or where no reference was asked for."""
    if not references or reference_energy(references) is not None:
        return None
    reasons = [f"{r.name}: {r.reason}" for r in references if r.name in YARDSTICKS and r.reason]
    return "no error is told, there is no exact energy and no CCSD(T) to tell it against (" + "; ".join(reasons) + ")"


TRIPLES_NOT_NEEDED = Reference("CCSD(T)", None, "not needed: the exact energy is there")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Amplitudes that grow without bound are an answer (no reference), not a warning on the user's screen."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def _what_went_wrong(error: BaseException) -> str:
    """One line; a request to stop that a library passed on as an error of its own stays a request to stop."""
    first = error
    while (before := first.__cause__ or first.__context__) is not None:
        first = before
        if isinstance(first, KeyboardInterrupt):
            raise first
    line = " ".join(str(first).split())
    return f"{type(first).__name__}: {line}"[:300]


def _perturbative(problem: Problem, exact: Reference) -> list[Reference]:
    """MP2, CCSD and CCSD(T).

    Args:
        problem: the active space.
        exact: FCI or CASCI, or why there is none.
    """
    names = ("MP2", "CCSD", "CCSD(T)")
    if not problem.is_closed_shell:
        return [
            Reference(n, None, "open shell: PySCF would compute it on unrestricted orbitals (ROHF-MP2 becomes UMP2)")
            for n in names
        ]
    if problem.norb == problem.nelec[0]:
        return [Reference(n, problem.hf_energy, None, 0.0) for n in names]  # no virtual orbitals: nothing correlates
    if sum(problem.nelec) == 2 and exact.energy is not None and exact.hf_irrep_weight == 1:
        # Singles and doubles are all excitations of two electrons: CCSD is exact, and its equations need not be solved again.
        return [_mp2(problem), Reference("CCSD", exact.energy), TRIPLES_NOT_NEEDED]
    return [_mp2(problem), *_coupled_cluster(problem, with_triples=exact.energy is None)]


def _mp2(problem: Problem) -> Reference:
    from pyscf import mp

    if (reason := _not_hartree_fock(problem)) is not None:
        return Reference("MP2", None, reason)
    try:
        return _finite("MP2", problem.hf_energy + float(mp.MP2(_mean_field(problem)).run(verbose=0).e_corr))
    except Exception as error:
        return Reference("MP2", None, f"MP2 failed ({_what_went_wrong(error)})")


def _coupled_cluster(problem: Problem, with_triples: bool) -> list[Reference]:
    """CCSD and CCSD(T)."""
    names = ("CCSD", "CCSD(T)")
    nocc, nvir = problem.nelec[0], problem.norb - problem.nelec[0]
    if 8 * 8 * nocc**2 * nvir**2 + 8 * nvir**4 > available_bytes():
        reason = f"amplitudes of {nocc} occupied and {nvir} virtual orbitals exceed memory"
        return [Reference(n, None, reason) for n in names]
    from pyscf import cc

    try:
        ccsd = cc.CCSD(_mean_field(problem))
        ccsd.verbose, ccsd.conv_tol, ccsd.max_cycle = 0, 1e-9, 200
        ccsd.async_io = False  # a thread for each piece that it reads took longer than the pieces, which are in memory
        ccsd.kernel()
    except Exception as error:
        # PySCF's DIIS meets a singular matrix where a gap closes, e.g. in H2 pulled apart
        return [Reference(n, None, f"CCSD failed ({_what_went_wrong(error)})") for n in names]
    if not ccsd.converged:
        return [Reference(n, None, f"CCSD did not converge in {ccsd.max_cycle} cycles") for n in names]
    found = [_finite("CCSD", problem.hf_energy + float(ccsd.e_corr))]
    if not with_triples:
        return [*found, TRIPLES_NOT_NEEDED]
    if (unfit := _not_hartree_fock(problem)) is not None:
        return [*found, Reference("CCSD(T)", None, unfit)]
    if (doubt := _doubt(ccsd)) is not None:
        return [*found, Reference("CCSD(T)", None, doubt)]
    try:
        return [*found, _finite("CCSD(T)", problem.hf_energy + float(ccsd.e_corr) + float(ccsd.ccsd_t()))]
    except Exception as error:
        return [*found, Reference("CCSD(T)", None, f"its triples failed ({_what_went_wrong(error)})")]


def _not_hartree_fock(problem: Problem) -> str | None:
    """Why perturbation theory does not apply, None where it does: it leaves out what vanishes for Hartree-Fock orbitals."""
    if problem.coupling < STATIONARY_GRADIENT:
        return None
    return (
        "the given orbitals are not Hartree-Fock orbitals: the Fock matrix joins occupied and empty ones by up to"
        f" {problem.coupling:.1e} hartree"
    )


def _finite(name: str, energy: float) -> Reference:
    return Reference(name, energy) if np.isfinite(energy) else Reference(name, None, f"{name} is not a number")


MAX_T1 = 0.02
"""T1 diagnostic above which one determinant is no fair start (Lee and Taylor, Int. J. Quantum Chem. Symp. 23, 199, 1989)."""

MAX_DOUBLE = 0.15
"""Largest double amplitude of a CCSD on which CCSD(T) is trusted. In STO-3G, N2 has 0.14 at its bond length (CCSD(T) is
2.2 mHa above FCI), 0.20 at 1.2 times that (6.5 mHa) and 0.77 at 1.8 times (98 mHa below)."""


def _doubt(ccsd: Any) -> str | None:
    """Why CCSD(T) on top of this CCSD is no yardstick, None where it can be trusted."""
    t1 = float(np.linalg.norm(ccsd.t1) / np.sqrt(2 * ccsd.t1.shape[0]))
    largest = float(np.abs(ccsd.t2).max(initial=0.0))
    if t1 > MAX_T1:
        return f"not trusted: CCSD's T1 diagnostic is {t1:.3f}, {MAX_T1:g} at most is"
    if largest > MAX_DOUBLE:
        return f"not trusted: CCSD's largest double amplitude is {largest:.2f}, {MAX_DOUBLE:g} at most is"
    return None


def _mean_field(problem: Problem) -> Any:
    """An RHF object whose atomic orbitals are the active molecular ones, so that MP2 and CCSD see the active space alone."""
    from pyscf import gto, scf

    mol = gto.M(verbose=0)
    mol.nelectron, mol.spin, mol.incore_anyway = sum(problem.nelec), 0, True
    mol.nao = problem.norb
    mf = without_checkpoint(scf.RHF(mol))
    mf.with_df = None  # asked for by MP2; PySCF loads all its modules to find an attribute that is not there
    mf.get_hcore = lambda *_: problem.h1
    mf.get_ovlp = lambda *_: np.eye(problem.norb)
    mf.energy_nuc = lambda *_: problem.energy_offset
    mf._eri = problem.eri
    mf.mo_coeff, mf.mo_energy = np.eye(problem.norb), problem.mo_energy
    if not problem.is_canonical:
        from simulator.chemistry.given_problem import semicanonical_orbitals

        mf.mo_coeff, mf.mo_energy = semicanonical_orbitals(problem)
    mf.mo_occ = np.repeat([2.0, 0.0], [problem.nelec[0], problem.norb - problem.nelec[0]])
    mf.e_tot, mf.converged = problem.hf_energy, True
    return mf


def _exact(problem: Problem) -> list[Reference]:
    """FCI (CASCI) with the asked spin, and the sector's minimum."""
    name = EXACT[0] if problem.is_full_space else EXACT[1]
    size = problem_determinants(problem)
    if size > MAX_FCI_DETERMINANTS:
        reason = f"{size} determinants exceed the bound of {MAX_FCI_DETERMINANTS}"
        return [Reference(name, None, reason), Reference(SECTOR_MINIMUM, None, reason)]
    try:
        state = lowest_of_spin(problem)
    except Exception as error:
        reason = _why_not(error)
        return [Reference(name, None, reason), Reference(SECTOR_MINIMUM, None, reason)]
    weight = None if state.in_hf_irrep is None else float(state.in_hf_irrep)
    found = Reference(name, state.energy, None, state.s_squared, hf_irrep_weight=weight)
    try:
        minimum = lowest_of_sector(problem, state)
    except Exception as error:
        return [found, Reference(SECTOR_MINIMUM, None, _why_not(error))]
    return [found, Reference(SECTOR_MINIMUM, minimum.energy, None, minimum.s_squared)]


def _why_not(error: Exception) -> str:
    return f"not sure: {error}" if isinstance(error, NotSure) else _what_went_wrong(error)


def _published(problem: Problem) -> list[Reference]:
    if problem.molecule.integrals is not None:
        return [Reference("published", None, "integrals were given, and no geometry to look up")]
    if not problem.is_full_space:
        return [Reference("published", None, "published energies are of the full space")]
    entries = [
        e for e in published_energies()
        if e["basis"] == problem.basis and _bundled_id(e["molecule"]) == problem.molecule.molecule_id
    ]  # fmt: skip
    if not entries:
        return [Reference("published", None, f"none in the bundled table for this geometry in {problem.basis}")]
    return [Reference(f"published {e['method']}", float(e["energy"]), source=e["source"]) for e in entries]


@cache
def _bundled_id(name: str) -> str:
    return load_molecule(name).molecule_id
