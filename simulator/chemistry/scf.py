"""The mean field behind the orbitals: an RHF or ROHF solution that is stationary, and stable where that can be had.

An SCF that stops is not yet a solution, and a solution need not be a minimum: N2 at 4 angstrom converges to a state that
lies 0.4 hartree above another one of the same kind. So every solution's orbital Hessian is looked at, and a negative
eigenvalue is followed down.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from types import FunctionType, SimpleNamespace
from typing import Any

import numpy as np

from simulator.errors import RunFailed

SCF_ENERGY_TOLERANCE = 1e-12
"""Hartree. Far tighter than an energy needs: orbitals, and with them the Hamiltonian's coefficients and its id, must
come out equal to 1e-10 whoever runs the SCF."""

SCF_GRADIENT_TOLERANCE = 1e-8
"""Orbital gradient, hartree."""

STATIONARY_GRADIENT = 1e-4
"""Largest orbital gradient, in hartree, of a solution that is accepted with a note. The energy's error is of the order of
its square, 1e-8 hartree, and a VQE over the full space does not depend on it at all."""

UNSTABLE = -1e-4
"""Hartree. A Hessian eigenvalue below this is a way down; nearer to zero it may be rounding, or the free rotation of a
degenerate pair."""

MAX_FOLLOWED = 10
"""How many times a solution that is unstable is followed to the next one."""

OTHER_GUESSES = ("1e", "vsap")
"""Initial guesses that are tried beside PySCF's own where the first solution was not a minimum."""

DENSE_HESSIAN = 120
"""Orbital rotations up to which the Hessian is diagonalized whole: no root can be missed."""


@dataclass(frozen=True)
class ScfSolution:
    """A mean field and what a result should say about it."""

    mf: Any  # PySCF's RHF or ROHF, its orbitals labelled by irrep unless the symmetry was given up
    retried: bool = False  # the first SCF did not converge
    notes: tuple[str, ...] = ()

    @property
    def energy(self) -> float:
        """Total energy, hartree."""
        return float(self.mf.e_tot)


def solve_scf(mol: Any, what: str, *, follow: bool, scf: Callable[[Any], Any]) -> ScfSolution:
    """A stationary RHF or ROHF solution, and a note where it is not a minimum.

    Args:
        mol: PySCF's molecule, with its point group where it has one.
        what: names the calculation in errors, e.g. `H2O in sto-3g`.
        follow: go on from a solution that is no minimum to one that is. Without it, a solution stays that the first release
            found as well, because results that are stored under the same id rest on it: a lower one is told.
        scf: makes the mean field of a molecule.

    Raises:
        RunFailed: no attempt came near a stationary point.
    """
    found, new = _stationary(mol, what, follow, scf)
    plain = _without_symmetry(found.mf, scf)
    values, _ = _hessian_roots(plain)
    if len(values) and values[0] < UNSTABLE:
        lowest = _lowest(found, mol, scf)
        if follow or new:
            found, plain = lowest, _without_symmetry(lowest.mf, scf)
        elif lowest is not found:
            told = f"SCF is unstable: a solution {found.energy - lowest.energy:.6f} hartree lower"
            breaks = "without the molecule's symmetry exists" if lowest.mf.mol.symmetry is False else "exists"
            found = replace(found, notes=(*found.notes, f"{told} {breaks}"))
    return replace(found, notes=(*found.notes, *_spin_instability(plain)))


def mean_field(mol: Any) -> Any:
    """RHF, or ROHF for open shells, with our tolerances."""
    from pyscf import scf

    mf = scf.RHF(mol) if mol.spin == 0 else scf.ROHF(mol)
    if mol.spin == 0:
        mf.init_guess_by_minao = _minao_guess()
    mf.conv_tol = SCF_ENERGY_TOLERANCE
    mf.conv_tol_grad = SCF_GRADIENT_TOLERANCE
    mf.max_cycle = 100
    return without_checkpoint(mf)


@cache
def _minao_guess() -> Callable[[Any], Any]:
    """PySCF's first density for RHF, by its own code, which here reads an element's ANO basis once a process.

    PySCF parses 1.4 MB of text for each guess: 7 of the 50 ms of a point of H2's curve. The copy of its function has the same
    code and other globals, so that nothing of PySCF is changed.
    """
    from pyscf import gto
    from pyscf.scf import hf

    basis = SimpleNamespace(**vars(gto.basis) | {"load": cache(gto.basis.load)})
    names = vars(hf) | {"gto": SimpleNamespace(**vars(gto) | {"basis": basis})}
    return FunctionType(hf.init_guess_by_minao.__code__, names)


def without_checkpoint(mf: Any) -> Any:
    """A mean field whose checkpoint file is closed and gone, instead of when the garbage collector finds it."""
    # Orbital Hessians ask for this attribute, and PySCF loads all its modules, for half a second, to find one that is not there.
    mf.__dict__.setdefault("_scf", None)
    mf.chkfile = None
    if getattr(mf, "_chkfile", None) is not None:
        mf._chkfile.close()
        mf._chkfile = None
    return mf


# --- a stationary point --------------------------------------------------------------------------------------------


def _stationary(mol: Any, what: str, follow: bool, scf: Callable[[Any], Any]) -> tuple[ScfSolution, bool]:
    """The first attempt that converges, else the lowest whose gradient is small; and whether the first release had failed."""
    tried: list[tuple[str, Any, float]] = []
    for name, mf in _attempts(mol, follow, scf):
        if mf.converged and np.isfinite(mf.e_tot):
            return ScfSolution(mf, bool(tried)), len(tried) >= 2
        tried.append((name, mf, _gradient_norm(_without_symmetry(mf, scf))))
    accepted = [row for row in tried if row[2] < STATIONARY_GRADIENT and np.isfinite(row[1].e_tot)]
    if not accepted:
        told = ", ".join(f"{float(mf.e_tot):.6f} hartree {name} (gradient {g:.0e})" for name, mf, g in tried)
        raise RunFailed(f"SCF of {what} did not converge: {told}")
    name, mf, gradient = min(accepted, key=lambda row: (round(float(row[1].e_tot), 7), row[2]))
    note = f"SCF accepted {name} with an orbital gradient of {gradient:.1e} hartree: not converged to {SCF_GRADIENT_TOLERANCE:.0e}"
    return ScfSolution(mf, True, (note,)), True


def _attempts(mol: Any, follow: bool, scf: Callable[[Any], Any]) -> Iterator[tuple[str, Any]]:
    """Mean fields after their kernel: DIIS; with a level shift; without symmetry; with second-order steps."""
    mf = _plain_kernel(mol, scf)
    if mf is None:  # PySCF cannot fill the irreps (or worse): symmetry is a convenience
        mol = mol.copy().build(dump_input=False, parse_arg=False, symmetry=False)
        mf = scf(mol)
        mf.kernel()
    yield "by DIIS", mf
    density = mf.make_rdm1()
    plain = mol.copy().build(dump_input=False, parse_arg=False, symmetry=False)
    if not follow:  # what came second in the first release, so that solutions stay what they were
        mf = _second_order(scf(plain))
        mf.kernel()
        yield "by second-order steps from the start", mf
    if mol.symmetry:
        mf = _shifted(mol, scf, density)
        yield "by DIIS with a level shift", mf
        density = mf.make_rdm1()
    mf = _shifted(plain, scf, density)
    yield "by DIIS with a level shift and without symmetry", mf
    density = mf.make_rdm1()
    mf = _second_order(scf(plain))
    mf.kernel(dm0=density)
    yield "by second-order steps without symmetry", mf


def _plain_kernel(mol: Any, scf: Callable[[Any], Any]) -> Any:
    mf = scf(mol)
    try:
        mf.kernel()
    except (ValueError, IndexError, RuntimeError, KeyError, np.linalg.LinAlgError):
        if mol.symmetry:
            return None
        raise
    return mf


def _shifted(mol: Any, scf: Callable[[Any], Any], density: np.ndarray) -> Any:
    mf = scf(mol)
    mf.level_shift = 0.3  # hartree, on the empty orbitals: damps the exchange of frontier orbitals
    mf.kernel(dm0=density)
    mf.level_shift = 0.0
    return mf


def _second_order(mf: Any) -> Any:
    mf = without_checkpoint(mf.newton())
    mf.verbose = 0
    return mf


# --- a minimum -----------------------------------------------------------------------------------------------------


def _lowest(first: ScfSolution, mol: Any, scf: Callable[[Any], Any]) -> ScfSolution:
    """The lowest solution among those that the first, unstable one and other guesses lead to; itself where none is lower."""
    plain = _without_symmetry(first.mf, scf)
    candidates = [_followed(plain, scf)]
    for guess in OTHER_GUESSES:
        mf = _second_order(scf(plain.mol))
        mf._eri, mf.init_guess = plain._eri, guess
        try:
            mf.kernel()
        except (RuntimeError, ValueError, np.linalg.LinAlgError):
            continue  # a guess that PySCF cannot make for these elements
        if np.isfinite(mf.e_tot):
            candidates.append(_followed(mf, scf))
    good = [c for c in candidates if _gradient_norm(c) < STATIONARY_GRADIENT]
    best = min(good, key=lambda mf: float(mf.e_tot), default=plain)
    gained = first.energy - float(best.e_tot)
    if gained < 1e-6:
        return first
    note = f"SCF left an unstable solution at {first.energy:.6f} hartree for one {gained:.6f} lower"
    again = _with_symmetry(best, mol, scf)
    if again is None and mol.symmetry:
        note += f", which breaks the molecule's symmetry ({mol.topgroup})"
    return ScfSolution(best if again is None else again, first.retried, (note,))


def _followed(mf: Any, scf: Callable[[Any], Any]) -> Any:
    """The solution at the end of the way down from an unstable one, without symmetry."""
    for _ in range(MAX_FOLLOWED):
        values, vectors = _hessian_roots(mf)
        if not len(values) or values[0] > UNSTABLE:
            return mf
        from pyscf.scf import hf

        rotation = hf.unpack_uniq_var(vectors[:, 0], mf.mo_occ)
        from scipy.linalg import expm

        lower = _second_order(scf(mf.mol))
        lower._eri = mf._eri
        lower.kernel(np.asarray(mf.mo_coeff) @ expm(rotation), mf.mo_occ)
        if not np.isfinite(lower.e_tot) or lower.e_tot > mf.e_tot - 1e-7:
            return mf
        mf = lower
    return mf


def _without_symmetry(mf: Any, scf: Callable[[Any], Any]) -> Any:
    """The same orbitals on a molecule that has no symmetry, so that every rotation of them is looked at."""
    mol = mf.mol
    if mol.symmetry:
        mol = mol.copy().build(dump_input=False, parse_arg=False, symmetry=False)
    out = scf(mol)
    out._eri, out.converged, out.e_tot = mf._eri, mf.converged, mf.e_tot
    out.mo_coeff, out.mo_occ = np.array(mf.mo_coeff), np.array(mf.mo_occ)
    out.mo_energy = np.array(mf.mo_energy)
    return out


def _gradient_norm(mf: Any) -> float:
    """Norm of the orbital gradient over all rotations, hartree."""
    return float(np.linalg.norm(mf.get_grad(np.asarray(mf.mo_coeff), np.asarray(mf.mo_occ))))


def _hessian_roots(mf: Any) -> tuple[np.ndarray, np.ndarray]:
    """Lowest eigenvalues (hartree) and eigenvectors of the orbital Hessian; empty where nothing can rotate."""
    from pyscf.soscf import newton_ah

    make = newton_ah.gen_g_hop_rhf if mf.mol.spin == 0 else newton_ah.gen_g_hop_rohf
    mo, occ = np.asarray(mf.mo_coeff), np.asarray(mf.mo_occ)
    if not _rotations(occ):
        return np.zeros(0), np.zeros((0, 0))
    _, product, diagonal = make(mf, mo, occ, with_symmetry=False)
    return _lowest_roots(product, diagonal)


def _spin_instability(mf: Any) -> tuple[str, ...]:
    """A note where a closed shell lowers its energy by letting alpha and beta orbitals differ; it is told, not followed."""
    from pyscf.soscf import newton_ah

    occ = np.asarray(mf.mo_occ)
    if mf.mol.spin != 0 or not _rotations(occ):
        return ()
    unrestricted = unrestricted_copy(mf)
    _, product, diagonal = newton_ah.gen_g_hop_uhf(
        unrestricted, unrestricted.mo_coeff, unrestricted.mo_occ, with_symmetry=False
    )
    half = len(diagonal) // 2
    values, _ = _lowest_roots(lambda x: product(np.concatenate([x, -x]))[:half], diagonal[:half])
    if values[0] > UNSTABLE:
        return ()
    return (
        "RHF is unstable towards UHF (spin symmetry would break): strongly correlated, methods that start from RHF are poor",
    )


def unrestricted_copy(mf: Any) -> Any:
    """UHF on the orbitals of an RHF or ROHF solution. PySCF's own conversion leaves a temporary file open."""
    from pyscf import scf

    out = without_checkpoint(scf.UHF(mf.mol))
    mo, occ, energy = np.asarray(mf.mo_coeff), np.asarray(mf.mo_occ), np.asarray(mf.mo_energy)
    out.mo_coeff, out.mo_energy = np.array([mo, mo]), np.array([energy, energy])
    out.mo_occ = np.array([(occ > 0).astype(float), (occ > 1).astype(float)])
    out._eri, out.e_tot, out.converged, out.verbose = mf._eri, mf.e_tot, mf.converged, 0
    return out


def _rotations(occ: np.ndarray) -> int:
    """Number of independent rotations between orbitals of unequal occupation."""
    doubly, singly, empty = (int(np.sum(occ == n)) for n in (2, 1, 0))
    return doubly * singly + doubly * empty + singly * empty


def _lowest_roots(product: Callable[[np.ndarray], np.ndarray], diagonal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest eigenvalues and eigenvectors of a symmetric operator: all where it is small, else by Davidson from several guesses."""
    from pyscf import lib

    size = len(diagonal)
    if size <= DENSE_HESSIAN:
        matrix = np.array([product(row) for row in np.eye(size)])
        values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
        return values, vectors
    guesses = []
    for i in np.argsort(diagonal)[:4]:
        guess = np.zeros(size)
        guess[i] = 1.0
        guesses.append(guess)
    # a guess without symmetry, so that roots of every irrep are within reach
    guesses.append(np.random.default_rng(0).normal(size=size) / np.sqrt(size) / np.maximum(np.abs(diagonal), 0.1))
    _, values, vectors = lib.davidson1(
        lambda xs: [product(x) for x in xs],
        guesses,
        lambda dx, e, *_: dx / np.where(np.abs(diagonal - e) < 1e-4, 1e-4, diagonal - e),
        tol=1e-6, tol_residual=1e-3, nroots=3, max_cycle=60, verbose=0,
    )  # fmt: skip
    order = np.argsort(values)
    return np.asarray(values)[order], np.array(vectors).T[:, order]


def _with_symmetry(mf: Any, mol: Any, scf: Callable[[Any], Any]) -> Any:
    """The same solution with orbitals labelled by irrep; None where it breaks the symmetry."""
    if not mol.symmetry:
        return None
    overlap = mol.intor_symmetric("int1e_ovlp")
    occ = np.asarray(mf.mo_occ)
    adapted = [c @ _inverse_root(c.T @ overlap @ c) for c in mol.symm_orb]
    electrons: dict[str, Any] = {}
    for spin in range(2):
        orbitals = np.asarray(mf.mo_coeff)[:, occ > spin]  # alpha, then beta
        shares = [c.T @ overlap @ orbitals for c in adapted]
        for name, share in zip(mol.irrep_name, shares, strict=True):
            weights = np.linalg.eigvalsh(share @ share.T)
            if np.any((weights > 1e-4) & (weights < 1 - 1e-4)):
                return None
            electrons.setdefault(name, []).append(int(np.sum(weights > 0.5)))
    again = scf(mol)
    again._eri = mf._eri
    again.irrep_nelec = {n: sum(ab) if mol.spin == 0 else tuple(ab) for n, ab in electrons.items()}
    again.kernel(dm0=mf.make_rdm1())
    same = again.converged and abs(again.e_tot - mf.e_tot) < 1e-7
    return again if same else None


def _inverse_root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    keep = values > 1e-9
    return np.asarray(vectors[:, keep] / np.sqrt(values[keep]))
