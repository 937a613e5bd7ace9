import dataclasses
from collections import Counter

import numpy as np
import pytest

from simulator import memory
from simulator.chemistry.integrals import build_problem
from simulator.chemistry.molecules import load_molecule
from simulator.engines.sector import SectorEngine
from simulator.operators.excitations import uccsd
from simulator.stages import Stages
from simulator.vqe.initial_point import MAX_START_AMPLITUDE, MIN_GAP, mp2_parameters
from simulator.vqe.spec import make_spec


def problem_and_excitations(name, *, reps=1, screened=True, **given):
    problem = build_problem(make_spec(load_molecule(name), **given), Stages())
    orbsym = problem.orbsym if screened else None
    excitations = uccsd(problem.norb, problem.nelec, orbsym=orbsym, spin_tied=problem.is_closed_shell, reps=reps)
    return problem, excitations


def test_mp2_amplitudes_lower_the_energy_and_leave_later_repetitions_at_zero():
    problem, excitations = problem_and_excitations("lih", reps=2)
    start = mp2_parameters(problem, excitations)
    assert SectorEngine(problem, excitations).energy(start)[0] < problem.hf_energy - 0.01
    half = excitations.n_parameters // 2
    assert np.any(start[:half])
    assert not np.any(start[half:])


@pytest.mark.parametrize(("name", "screened"), [("lih", True), ("lih", False), ("oh", True), ("ch2", False)])
def test_mp2_amplitudes_are_the_gradient_at_hartree_fock_over_twice_the_gap(name, screened):
    problem, excitations = problem_and_excitations(name, screened=screened)
    slopes = SectorEngine(problem, excitations).energy_and_gradient(np.zeros(excitations.n_parameters))[1]
    shared_by = Counter(excitations.parameter.tolist())
    expected = np.zeros(excitations.n_parameters)
    for k, excitation in zip(excitations.parameter, excitations.excitations, strict=True):
        gap = max(excitation.gap(problem.mo_ea, problem.mo_eb), MIN_GAP)
        expected[k] = -slopes[k] / (2 * shared_by[int(k)] * gap)
    assert np.count_nonzero(np.abs(expected) > 1e-4) > 3
    limited = np.clip(expected, -MAX_START_AMPLITUDE, MAX_START_AMPLITUDE)
    np.testing.assert_allclose(mp2_parameters(problem, excitations), limited, atol=1e-12)


def test_mp2_doubles_are_pyscfs():
    from pyscf import gto, mp, scf

    molecule = load_molecule("h2o")
    mol = gto.M(atom=list(zip(molecule.elements, molecule.geometry, strict=True)), basis="sto-3g", verbose=0)
    theirs = np.sort(np.abs(mp.MP2(scf.RHF(mol).run(conv_tol=1e-12)).run().t2), axis=None)
    problem, excitations = problem_and_excitations("h2o")
    ours = np.abs(mp2_parameters(problem, excitations))
    mixed = [i for i, label in enumerate(excitations.labels) if "a" in label.split()[0] and " b" in label]
    for amplitude in ours[mixed]:  # t2 has each pair and its mirror image, ours has them once
        assert np.min(np.abs(theirs - amplitude)) < 1e-7
    assert np.max(ours[mixed]) == pytest.approx(theirs[-1], abs=1e-7)


def test_amplitudes_without_a_gap_are_held_to_the_largest():
    problem, excitations = problem_and_excitations("lih")
    steep = dataclasses.replace(problem, mo_ea=np.zeros(problem.norb), mo_eb=np.zeros(problem.norb))
    assert np.max(np.abs(mp2_parameters(steep, excitations))) == MAX_START_AMPLITUDE


def test_amplitudes_need_no_vector_of_determinants(monkeypatch):
    problem, excitations = problem_and_excitations("lih")
    expected = mp2_parameters(problem, excitations)
    monkeypatch.setattr(memory, "available_bytes", lambda: 4000)
    np.testing.assert_array_equal(mp2_parameters(problem, excitations), expected)
