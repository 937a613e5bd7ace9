"""The exact states: the lowest of their spin, whichever irrep it is in and however they are searched for."""

import itertools
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from pyscf import ao2mo
from pyscf.fci import cistring, direct_spin1, spin_op

from simulator.chemistry import fci
from simulator.chemistry.fci import FullSpace, NotSure, lowest_of_sector, lowest_of_spin
from simulator.chemistry.integrals import build_problem
from simulator.chemistry.molecules import Molecule
from simulator.chemistry.references import compute_references
from simulator.stages import Stages
from simulator.vqe.spec import make_spec

SETTINGS = [  # elements, geometry, multiplicity, settings; ground states that are degenerate, pulled apart, of another irrep or spin than Hartree-Fock's
    (("B",), 0.0, 2, {"basis": "6-31g", "active_space": (3, 6)}),
    (("O",), 0.0, 3, {"basis": "6-31g", "active_space": (4, 5)}),
    (("O",), 0.0, 1, {"basis": "6-31g", "active_space": (4, 5)}),
    (("C", "C"), 2.3, 1, {"active_space": (6, 6)}),
    (("N", "N"), 3.1, 1, {"active_space": (6, 6)}),
    (("B", "B"), 2.9, 3, {"active_space": (6, 6)}),
    (("O", "O"), 2.5, 3, {"active_space": (8, 6)}),
    (("N", "H"), 2.0, 1, {"active_space": (6, 5)}),
    (("H", "H", "H", "H", "H"), 1.7, 4, {}),
    (("H", "H", "H", "H", "H", "H"), 1.5, 1, {}),
]  # fmt: skip


def a_problem(elements, distance, multiplicity, settings):
    """Atoms at a distance in angstrom, more than two of them on a ring with that side."""
    n = len(elements)
    radius = distance / (2 * np.sin(np.pi / n)) if n > 1 else 0.0
    angles = 2 * np.pi * np.arange(n) / n
    geometry = tuple((radius * np.cos(a), radius * np.sin(a), 0.0) for a in angles)
    given = dict(settings)
    if (space := given.pop("active_space", None)) is not None:
        given |= {"active_electrons": space[0], "active_orbitals": space[1]}
    spec = make_spec(Molecule("", elements, geometry, 0, multiplicity), **given)
    return build_problem(spec, Stages())


def all_of_spin(problem):
    """The slow twin: every eigenvalue of the whole sector, and <S^2> of its eigenvectors with a tiny field to tell spins apart."""
    shape = tuple(cistring.num_strings(problem.norb, n) for n in problem.nelec)
    size = shape[0] * shape[1]
    eri = ao2mo.restore(1, problem.eri, problem.norb)
    _, hamiltonian = direct_spin1.pspace(problem.h1, eri, problem.norb, problem.nelec, np=size)
    spin = np.array(
        [spin_op.contract_ss(row.reshape(shape), problem.norb, problem.nelec).ravel() for row in np.eye(size)]
    )
    lifted = np.linalg.eigvalsh(hamiltonian + 50 * (spin - problem.spin_squared * np.eye(size)))[0]
    return lifted + problem.energy_offset, np.linalg.eigvalsh(hamiltonian)[0] + problem.energy_offset


@cache
def solved(case):
    """The problem of SETTINGS[case], and what the slow twin finds."""
    problem = a_problem(*SETTINGS[case])
    return problem, *all_of_spin(problem)


@pytest.mark.parametrize(
    ("case", "dense"),
    [
        pytest.param(
            i,
            dense,
            id=f"{''.join(SETTINGS[i][0])}-{SETTINGS[i][2]}-{dense}",
            marks=pytest.mark.broad if dense == fci.DENSE and i % 3 else (),
        )
        for i, dense in itertools.product(range(len(SETTINGS)), (10, fci.DENSE))
    ],
)
def test_the_lowest_state_of_the_spin_and_of_the_sector_are_found(case, dense, monkeypatch):
    monkeypatch.setattr(fci, "DENSE", dense)
    monkeypatch.setattr(fci, "_GUESS_DETERMINANTS", 10)
    problem, of_spin, minimum = solved(case)
    for labels in (problem.orbsym, None):  # and without the symmetry that tells where to look
        labelled = replace(problem, orbsym=labels)
        found = lowest_of_spin(labelled)
        assert found.energy == pytest.approx(of_spin, abs=1e-8)
        assert found.s_squared == pytest.approx(problem.spin_squared, abs=1e-4)
        assert lowest_of_sector(labelled, found).energy == pytest.approx(minimum, abs=1e-8)


def test_a_degenerate_ground_state_is_taken_from_hartree_focks_irrep():
    for element, multiplicity in (("B", 2), ("C", 3), ("O", 3), ("F", 2)):
        problem = a_problem((element,), 0.0, multiplicity, {})
        assert lowest_of_spin(problem).in_hf_irrep is True


def test_labels_that_the_integrals_do_not_keep_are_not_believed():
    problem = a_problem(("Li", "H"), 1.595, 1, {})
    right = lowest_of_spin(problem).energy
    wrong = replace(problem, orbsym=np.roll(problem.orbsym, 1))
    space = FullSpace(wrong)
    assert space.orbsym is None
    assert space.lowest().energy == pytest.approx(right, abs=1e-9)


def test_a_state_that_did_not_converge_is_no_reference(monkeypatch):
    monkeypatch.setattr(fci, "DENSE", 10)
    monkeypatch.setattr(fci, "_GUESS_DETERMINANTS", 4)
    monkeypatch.setattr(fci, "_MAX_ITERATIONS", 1)
    monkeypatch.setattr(fci, "LAST_RESORT", 10)
    problem = a_problem(*SETTINGS[-1])
    with pytest.raises(NotSure, match="the lowest root has a residual of"):
        lowest_of_spin(problem)
    found = {r.name: r for r in compute_references(problem, None, Stages())}
    for name in ("FCI", "sector_minimum"):
        assert found[name].energy is None
        assert found[name].reason.startswith("not sure: the lowest root has a residual of")


def test_a_penalty_too_weak_for_the_spin_is_raised(monkeypatch):
    problem = a_problem(("O",), 0.0, 1, {})
    exact = lowest_of_spin(problem)
    monkeypatch.setattr(fci, "PENALTIES", (1e-3, 0.5))
    assert lowest_of_spin(problem).energy == pytest.approx(exact.energy, abs=1e-9)
    monkeypatch.setattr(fci, "PENALTIES", (1e-3,))
    with pytest.raises(NotSure, match=r"no state of <S\^2> = 0 was found: the search ended at 2\.0000"):
        lowest_of_spin(problem)
