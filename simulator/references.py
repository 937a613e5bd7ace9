"""What a run's energy is held against: HF, MP2, CCSD, CCSD(T), FCI, all in the run's active space, and published energies."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.integrals import Problem, omp_threads, problem_determinants, without_checkpoint
from simulator.memory import MAX_FCI_DETERMINANTS, available_bytes
from simulator.molecules import load_molecule, published_energies
from simulator.stages import Stages

if TYPE_CHECKING:
    from simulator.spec import RunSpec

SPIN_TOLERANCE = 0.05
"""How far <S^2> of an exact state may be from the asked one before the state counts as another spin."""


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
    hf_irrep_weight: float | None = None  # FCI: share of the state that has the Hartree-Fock determinant's irrep


def compute_references(problem: Problem, spec: "RunSpec", stages: Stages) -> tuple[Reference, ...]:
    """All references of a run, those that cannot be had with the reason.

    FCI is solved for the asked <S^2> (PySCF's fix_spin where the lowest root has another spin: singlet O2's is a triplet) up
    to MAX_FCI_DETERMINANTS determinants, CCSD(T) is computed beyond.
    """
    with stages("reference"), omp_threads(problem_determinants(problem)):
        found = [Reference("HF", problem.hf_energy, None, problem.spin_squared)]
        exact = _exact(problem)
        found += _perturbative(problem, with_triples=exact[0].energy is None)
        found += exact
        found += _published(problem)
    return tuple(found)


def reference_energy(references: tuple[Reference, ...]) -> tuple[str, float] | None:
    """Name and energy (hartree) of the best reference: FCI or CASCI, else CCSD(T), CCSD, MP2, HF; None without any."""
    energies = {r.name: r.energy for r in references}
    for name in ("FCI", "CASCI", "CCSD(T)", "CCSD", "MP2", "HF"):
        energy = energies.get(name)
        if energy is not None:
            return name, energy
    return None


def _perturbative(problem: Problem, with_triples: bool) -> list[Reference]:
    names = ("MP2", "CCSD", "CCSD(T)")
    if not problem.is_closed_shell:
        return [
            Reference(n, None, "open shell: PySCF would compute it on unrestricted orbitals (ROHF-MP2 becomes UMP2)")
            for n in names
        ]
    if problem.norb == problem.nelec[0]:
        return [Reference(n, problem.hf_energy, None, 0.0) for n in names]  # no virtual orbitals: nothing correlates
    from pyscf import cc, mp

    mf = _mean_field(problem)
    out = [Reference("MP2", problem.hf_energy + float(mp.MP2(mf).run(verbose=0).e_corr))]
    nocc, nvir = problem.nelec[0], problem.norb - problem.nelec[0]
    if 8 * 8 * nocc**2 * nvir**2 + 8 * nvir**4 > available_bytes():
        return out + [
            Reference(n, None, f"amplitudes of {nocc} occupied and {nvir} virtual orbitals exceed memory")
            for n in names[1:]
        ]
    ccsd = cc.CCSD(mf)
    ccsd.verbose, ccsd.conv_tol, ccsd.max_cycle = 0, 1e-9, 200
    ccsd.kernel()
    if not ccsd.converged:
        return out + [Reference(n, None, f"CCSD did not converge in {ccsd.max_cycle} cycles") for n in names[1:]]
    energy = problem.hf_energy + float(ccsd.e_corr)
    out.append(Reference("CCSD", energy))
    if with_triples:
        out.append(Reference("CCSD(T)", energy + float(ccsd.ccsd_t())))
    else:
        out.append(Reference("CCSD(T)", None, "not needed: the exact energy is there"))
    return out


def _mean_field(problem: Problem) -> Any:
    """An RHF object whose atomic orbitals are the active molecular ones, so that MP2 and CCSD see the active space alone."""
    from pyscf import gto, scf

    mol = gto.M(verbose=0)
    mol.nelectron, mol.spin, mol.incore_anyway = sum(problem.nelec), 0, True
    mol.nao = problem.norb
    mf = without_checkpoint(scf.RHF(mol))
    mf.get_hcore = lambda *_: problem.h1
    mf.get_ovlp = lambda *_: np.eye(problem.norb)
    mf.energy_nuc = lambda *_: problem.energy_offset
    mf._eri = problem.eri
    mf.mo_coeff, mf.mo_energy = np.eye(problem.norb), problem.mo_energy
    mf.mo_occ = np.repeat([2.0, 0.0], [problem.nelec[0], problem.norb - problem.nelec[0]])
    mf.e_tot, mf.converged = problem.hf_energy, True
    return mf


def _exact(problem: Problem) -> list[Reference]:
    """FCI (CASCI) with the asked spin, and the sector's minimum."""
    name = "FCI" if problem.is_full_space else "CASCI"
    size = problem_determinants(problem)
    if size > MAX_FCI_DETERMINANTS:
        reason = f"{size} determinants exceed the bound of {MAX_FCI_DETERMINANTS}"
        return [Reference(name, None, reason), Reference("sector_minimum", None, reason)]
    energy, vector, spin, converged = _lowest_root(problem, None)
    if not converged:
        reason = "Davidson iterations did not converge"
        return [Reference(name, None, reason), Reference("sector_minimum", None, reason)]
    minimum = Reference("sector_minimum", energy, None, spin)
    wanted = problem.spin_squared
    if abs(spin - wanted) > 1e-4:
        energy, vector, spin, converged = _lowest_root(problem, wanted)
        if not converged or abs(spin - wanted) > SPIN_TOLERANCE:
            reason = f"no state of <S^2> = {wanted:g} was found: fix_spin ended at {spin:.3f}"
            return [Reference(name, None, reason), minimum]
    return [Reference(name, energy, None, spin, hf_irrep_weight=_hf_irrep_weight(problem, vector)), minimum]


def _lowest_root(problem: Problem, spin_squared: float | None) -> tuple[float, np.ndarray, float, bool]:
    """Total energy (hartree), FCI vector, <S^2> and whether it converged; with `spin_squared`, other spins are shifted up."""
    from pyscf import fci

    solver = fci.direct_spin1.FCISolver()
    solver.verbose, solver.conv_tol, solver.max_cycle = 0, 1e-11, 300
    # the starting vector is exact in this many determinants: with too few of them it can miss the lowest irrep
    solver.pspace_size = 800
    if spin_squared is not None:
        solver = fci.addons.fix_spin_(solver, shift=0.5, ss=spin_squared)
    energy, vector = solver.kernel(problem.h1, problem.eri, problem.norb, problem.nelec)
    vector = np.asarray(vector)
    spin = float(fci.spin_op.spin_square0(vector, problem.norb, problem.nelec)[0])
    if spin_squared is not None:  # the energy without what is left of the penalty
        energy = solver.energy(problem.h1, problem.eri, vector, problem.norb, problem.nelec)
    return float(energy) + problem.energy_offset, vector, spin, bool(np.all(solver.converged))


def _hf_irrep_weight(problem: Problem, vector: np.ndarray) -> float | None:
    if problem.orbsym is None:
        return None
    alpha, beta = (string_irreps(problem.orbsym, n) for n in problem.nelec)
    irreps = alpha[:, None] ^ beta[None, :]
    return float(np.sum(np.abs(vector.reshape(irreps.shape)[irreps == irreps[0, 0]]) ** 2))


def string_irreps(orbsym: np.ndarray, n_electrons: int) -> np.ndarray:
    """Irrep of each occupation string of `n_electrons` of one spin, in PySCF's order, shape: (n_strings,)."""
    from pyscf.fci import cistring

    strings = np.asarray(cistring.make_strings(range(len(orbsym)), n_electrons))
    out = np.zeros(len(strings), dtype=np.int64)
    for orbital, irrep in enumerate(orbsym):
        out ^= np.where(strings >> orbital & 1, irrep, 0)
    return out


def _published(problem: Problem) -> list[Reference]:
    if not problem.is_full_space:
        return [Reference("published", None, "published energies are of the full space")]
    entries = [
        e for e in published_energies()
        if e["basis"] == problem.basis and load_molecule(e["molecule"]).molecule_id == problem.molecule.molecule_id
    ]  # fmt: skip
    if not entries:
        return [Reference("published", None, f"none in the bundled table for this geometry in {problem.basis}")]
    return [Reference(f"published {e['method']}", float(e["energy"]), source=e["source"]) for e in entries]
