"""Our exact references against another way to the same energies, on 200 molecules and geometries.

    OMP_NUM_THREADS=1 python benchmarks/references.py [--part 1/4] [--only C2,O2]

G2's atoms, and diatomics at 0.8 to 3 times their bond length, singlets to quartets, most of them with a frozen core. The FCI that a
run is told its error against, and the sector's minimum, are compared with a dense diagonalization of the whole
sector, without symmetry, up to 1,500 determinants, and beyond with many roots of ARPACK's Lanczos iteration from a random vector;
states of other spins are lifted by S^2 from PySCF's tables. A reference that is further off than 1e-6 hartree is counted as wrong, one that is
missing is listed with its reason, and so is a molecule whose SCF fails. Exit code 1 if any is wrong.
"""

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import scipy.linalg
from pyscf import ao2mo
from pyscf.fci import cistring, direct_spin1
from scipy.sparse import csr_matrix, kron
from scipy.sparse.linalg import ArpackNoConvergence, eigsh

from simulator.chemistry.integrals import build_problem, problem_determinants
from simulator.chemistry.molecules import Molecule
from simulator.chemistry.problem import Problem
from simulator.chemistry.references import compute_references
from simulator.errors import VqeError
from simulator.stages import Stages
from simulator.vqe.spec import make_spec

WRONG = 1e-6  # hartree
DENSE = 1_500  # determinants
PENALTY = 1.0  # hartree per unit of <S^2>
ROOTS = 6

ATOMS = [
    ("H", 2), ("He", 1), ("He", 3), ("Li", 2), ("Be", 1), ("Be", 3), ("B", 2), ("B", 4), ("C", 3), ("C", 1), ("N", 4),
    ("N", 2), ("O", 3), ("O", 1), ("F", 2), ("Na", 2), ("Mg", 1), ("Al", 2), ("Si", 3), ("Si", 1), ("P", 4), ("P", 2),
    ("S", 3), ("S", 1), ("Cl", 2),
]  # fmt: skip
DIATOMICS = [  # bond length in angstrom (NIST WebBook), multiplicity, all electrons correlated
    ("Li", "H", 1.595, 1, True), ("Be", "H", 1.343, 2, True), ("B", "H", 1.232, 1, True), ("B", "H", 1.232, 3, True),
    ("C", "H", 1.120, 2, True), ("C", "H", 1.120, 4, True), ("N", "H", 1.036, 3, True), ("N", "H", 1.036, 1, True),
    ("O", "H", 0.970, 2, True), ("F", "H", 0.917, 1, True), ("Si", "H", 1.520, 2, False), ("H", "Cl", 1.275, 1, False),
    ("Li", "Li", 2.673, 1, False), ("Li", "F", 1.564, 1, False), ("Be", "Be", 2.453, 1, False),
    ("B", "B", 1.590, 3, False), ("C", "C", 1.243, 1, False), ("C", "C", 1.312, 3, False), ("C", "N", 1.172, 2, False),
    ("N", "N", 1.098, 1, False), ("N", "N", 1.287, 3, False), ("C", "O", 1.128, 1, False), ("C", "O", 1.206, 3, False),
    ("N", "O", 1.151, 2, False), ("N", "O", 1.151, 4, False), ("O", "O", 1.208, 3, False), ("O", "O", 1.216, 1, False),
    ("F", "F", 1.412, 1, False), ("B", "N", 1.281, 3, False), ("Si", "Si", 2.246, 3, False), ("P", "P", 1.893, 1, False),
    ("S", "S", 1.889, 3, False), ("Si", "O", 1.510, 1, False), ("C", "S", 1.535, 1, False), ("S", "O", 1.481, 3, False),
]  # fmt: skip
STRETCHES = (0.8, 1.0, 1.5, 2.2, 3.0)


def cases() -> Iterator[tuple[str, Molecule, str, bool]]:
    """Label, molecule, basis, frozen core."""
    for element, multiplicity in ATOMS:
        basis = "6-31g" if element not in ("Na", "Mg", "Al", "Si", "P", "S", "Cl") else "sto-3g"
        yield (
            f"{element} {multiplicity}",
            Molecule("", (element,), ((0.0, 0.0, 0.0),), 0, multiplicity),
            basis,
            element not in ("H", "He", "Li", "Be"),
        )
    for first, second, length, multiplicity, full in DIATOMICS:
        for stretch in STRETCHES:
            geometry = ((0.0, 0.0, 0.0), (0.0, 0.0, round(stretch * length, 6)))
            name = f"{first}{second} {multiplicity} x{stretch:g}"
            yield name, Molecule("", (first, second), geometry, 0, multiplicity), "sto-3g", not full


def other_way(problem: Problem) -> tuple[str, float, float]:
    """Method, lowest energy of the asked spin, and of the sector (total, hartree)."""
    norb, nelec, size = problem.norb, problem.nelec, problem_determinants(problem)
    eri = ao2mo.restore(1, problem.eri, norb)
    _, found = direct_spin1.pspace(problem.h1, eri, norb, nelec, np=size)
    hamiltonian = np.asarray(found)
    penalized = hamiltonian + PENALTY * other_spins(norb, nelec).toarray()
    method, lowest = "Lanczos", []
    for matrix in (penalized, hamiltonian):
        roots = None
        if size > DENSE:
            matrix[np.abs(matrix) < 1e-13] = 0.0
            start = np.random.default_rng(7).standard_normal(size)
            given = {"k": ROOTS, "which": "SA", "v0": start, "tol": 1e-10, "ncv": 6 * ROOTS, "maxiter": 200}
            with contextlib.suppress(
                ArpackNoConvergence
            ):  # too many states lie close together: dense, however long it takes
                roots = eigsh(csr_matrix(matrix), return_eigenvectors=False, **given)
        if roots is None:
            method = "dense"
            roots = scipy.linalg.eigh(matrix, eigvals_only=True, subset_by_index=[0, 0])
        lowest.append(float(np.min(roots)) + problem.energy_offset)
    return method, lowest[0], lowest[1]


def other_spins(norb: int, nelec: tuple[int, int]) -> csr_matrix:
    """S- S+, which is S^2 - M(M + 1), over all determinants, from PySCF's tables of creation and annihilation."""
    size = cistring.num_strings(norb, nelec[0]) * cistring.num_strings(norb, nelec[1])
    if nelec[1] == 0 or nelec[0] == norb:
        return csr_matrix((size, size))
    raising = 0
    created, removed = (
        cistring.gen_cre_str_index(range(norb), nelec[0]),
        cistring.gen_des_str_index(range(norb), nelec[1]),
    )
    n_more, n_fewer = cistring.num_strings(norb, nelec[0] + 1), cistring.num_strings(norb, nelec[1] - 1)
    for orbital in range(norb):
        alpha = _one_operator(created, 0, orbital, n_more)
        beta = _one_operator(removed, 1, orbital, n_fewer)
        raising = raising + kron(alpha, beta, format="csr")
    return raising.T @ raising


def _one_operator(table: np.ndarray, place: int, orbital: int, n_targets: int) -> csr_matrix:
    """One creation (orbital in column 0 of the table) or annihilation operator (column 1) between strings."""
    source, entry = np.nonzero(table[:, :, place] == orbital)
    target, sign = table[source, entry, 2], table[source, entry, 3]
    return csr_matrix((sign.astype(float), (target, source)), shape=(n_targets, len(table)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default="1/1", help="which part of how many")
    parser.add_argument("--only", default="", help="labels that begin so, separated by commas")
    arguments = parser.parse_args()
    part, parts = (int(x) for x in arguments.part.split("/"))
    wanted = tuple(x for x in arguments.only.split(",") if x)
    chosen = [c for i, c in enumerate(cases()) if i % parts == part - 1 and (not wanted or c[0].startswith(wanted))]
    counts = dict.fromkeys(("right", "wrong", "missing", "no SCF"), 0)
    largest = ours_seconds = theirs_seconds = 0.0  # hartree, seconds
    for label, molecule, basis, frozen in chosen:
        spec = make_spec(molecule, basis=basis, freeze_core=frozen)
        try:
            problem = build_problem(spec, Stages())
        except VqeError as error:
            counts["no SCF"] += 1
            print(f"{label:14} no SCF: {error}", flush=True)
            continue
        began = time.perf_counter()
        found = {r.name: r for r in compute_references(problem, spec, Stages())}
        ours_seconds += (ours := time.perf_counter() - began)
        began = time.perf_counter()
        method, of_spin, minimum = other_way(problem)
        theirs_seconds += (theirs := time.perf_counter() - began)
        exact, least = found.get("FCI") or found["CASCI"], found["sector_minimum"]
        if exact.energy is None or least.energy is None:
            verdict, error_text = "missing", str(exact.reason or least.reason)
        else:
            off = max(abs(exact.energy - of_spin), abs(least.energy - minimum))
            verdict, error_text = ("right" if off <= WRONG else "wrong"), f"{off:.1e}"
            largest = max(largest, off)
            if verdict == "wrong":
                error_text += f" (spin {exact.energy:.7f}, {of_spin:.7f}; sector {least.energy:.7f}, {minimum:.7f})"
        counts[verdict] += 1
        size = problem_determinants(problem)
        print(
            f"{label:14} {size:6d} {problem.group:5} {method:7} {of_spin:15.7f} {minimum:15.7f} {verdict:7} {error_text} {ours:.2f} s, {theirs:.2f} s",
            flush=True,
        )
    print(
        f"{len(chosen)} molecules and geometries: {counts}; largest difference {largest:.1e} hartree; {ours_seconds:.0f} s, the other way {theirs_seconds:.0f} s"
    )
    sys.exit(1 if counts["wrong"] else 0)


if __name__ == "__main__":
    main()
