"""The sector engine's blocks, runs of excitations and contraction, against PySCF's contraction and the slow twin."""

import dataclasses

import numpy as np
import pytest
from pyscf import ao2mo
from pyscf.fci import direct_spin1

from simulator.chemistry.integrals import build_problem
from simulator.chemistry.molecules import load_molecule
from simulator.chemistry.orbitals import SYMMETRY_TOLERANCE
from simulator.engines import contraction, rotations
from simulator.engines._slow.sector import uccsd_state
from simulator.engines.contraction import Contraction
from simulator.engines.rotations import Rotations
from simulator.engines.sector import SectorEngine, sector_layout
from simulator.engines.strings import believable_irreps, number_pairs
from simulator.operators.excitations import ExcitationSet, uccsd
from simulator.stages import Stages
from simulator.vqe.spec import make_spec

D2H_FOUR = np.array([0, 5, 2, 7])
"""Irreps that leave several classes of strings empty."""


@pytest.fixture(scope="module")
def template():
    return build_problem(make_spec(load_molecule("h2")), Stages())


def random_integrals(norb, irreps, seed=3):
    """h1 and (pq|rs) with their permutational symmetry, zero where the irreps forbid them."""
    random = np.random.default_rng(seed)
    h1 = random.normal(size=(norb, norb))
    n_pairs = norb * (norb + 1) // 2
    pairs = random.normal(size=(n_pairs, n_pairs))
    eri = ao2mo.restore(1, pairs + pairs.T, norb)
    product = irreps[:, None] ^ irreps[None, :]
    h1[product != 0] = 0.0
    eri[product[:, :, None, None] != product[None, None, :, :]] = 0.0
    return h1 + h1.T, eri


def made_problem(template, norb, nelec, irreps, orbsym):
    h1, eri = random_integrals(norb, irreps)
    return dataclasses.replace(
        template, norb=norb, nelec=nelec, h1=h1, eri=ao2mo.restore(8, eri, norb), orbsym=orbsym,
        mo_energy=np.arange(norb, dtype=float),
    )  # fmt: skip


def pyscf_product(h1, eri, norb, nelec, vector):
    h2 = direct_spin1.absorb_h1e(h1, eri, norb, nelec, 0.5)
    return np.asarray(direct_spin1.contract_2e(h2, vector, norb, nelec)).reshape(vector.shape)


SPACES = [
    (1, (1, 0), np.array([0])),
    (1, (1, 1), np.array([3])),
    (4, (2, 2), np.zeros(4, np.int64)),
    (4, (2, 1), D2H_FOUR),
    (5, (3, 2), np.array([0, 1, 0, 1, 1])),
    (5, (2, 0), np.array([0, 3, 2, 1, 0])),
    (4, (4, 1), D2H_FOUR),
    (6, (3, 3), np.array([0, 5, 0, 6, 7, 5])),
]


@pytest.mark.parametrize(("norb", "nelec", "irreps"), SPACES)
def test_the_contraction_is_pyscfs(norb, nelec, irreps):
    h1, eri = random_integrals(norb, irreps)
    layout = sector_layout(norb, nelec, irreps)
    packed = np.random.default_rng(1).normal(size=layout.size)
    vector = layout.unpacked(packed)
    np.testing.assert_array_equal(layout.packed(vector), packed)
    product, energy = Contraction(layout, number_pairs(irreps), h1, eri)(packed)
    expected = pyscf_product(h1, eri, norb, nelec, vector)
    np.testing.assert_allclose(layout.unpacked(product), expected, atol=1e-12)
    assert energy == pytest.approx(np.vdot(vector, expected), abs=1e-11)


@pytest.mark.parametrize(("norb", "nelec", "irreps"), SPACES)
def test_one_block_with_the_integrals_irreps_is_pyscfs(norb, nelec, irreps):
    h1, eri = random_integrals(norb, irreps)
    layout = sector_layout(norb, nelec, None)
    vector = np.random.default_rng(1).normal(size=layout.shape)
    product, _ = Contraction(layout, number_pairs(irreps), h1, eri)(layout.packed(vector))
    np.testing.assert_allclose(layout.unpacked(product), pyscf_product(h1, eri, norb, nelec, vector), atol=1e-12)


@pytest.mark.parametrize("cached", [1, 100, 250, 10**9])
@pytest.mark.parametrize(("norb", "nelec", "irreps"), [(5, (3, 2), np.array([0, 1, 0, 1, 1])), (4, (2, 2), None)])
def test_excitations_in_runs_are_the_ansatz_in_its_own_order(norb, nelec, irreps, cached):
    """However long the runs: the slow twin applies one factor after the other to all determinants."""
    ansatz = uccsd(norb, nelec, orbsym=irreps, reps=2)
    layout = sector_layout(norb, nelec, irreps)
    taken = Rotations(layout, ansatz, cached=cached)
    assert (len(taken.runs) == 1) == (cached == 10**9)
    assert sum(len(run.alpha) for run in taken.runs) == len(ansatz.excitations)
    x = np.random.default_rng(2).uniform(-0.9, 0.9, ansatz.n_parameters)
    start = layout.packed(uccsd_state(norb, nelec, ansatz, np.zeros(len(x))))
    state = start.copy()
    taken.apply(state, x)
    np.testing.assert_allclose(layout.unpacked(state), uccsd_state(norb, nelec, ansatz, x), atol=1e-13)
    taken.undo(state, state.copy(), x)
    np.testing.assert_allclose(state, start, atol=1e-13)


def test_no_row_is_in_two_units_of_a_run_and_no_excitation_leaves_its_unit():
    ansatz = uccsd(5, (3, 2))
    for run in Rotations(sector_layout(5, (3, 2), None), ansatz, cached=250).runs:
        unit_of = np.full(10, -1)
        unit_of[run.rows] = np.repeat(np.arange(len(run.unit_start) - 1), np.diff(run.unit_start))
        assert len(np.unique(run.rows)) == len(run.rows)
        assert np.array_equal(unit_of[run.source], unit_of[run.target])


def test_factors_of_one_alpha_ladder_do_not_commute():
    """Why runs keep the order of the excitations."""
    ansatz = uccsd(4, (2, 2))
    mixed = [e for e in ansatz.excitations if e.alpha == ((2,), (0,)) and e.beta[0]]
    x = np.full(len(mixed), 0.7)
    states = []
    for order in (mixed, mixed[::-1]):
        turned = ExcitationSet(tuple(order), np.arange(len(order)), tuple(e.label for e in order))
        states.append(uccsd_state(4, (2, 2), turned, x))
    assert np.abs(states[0] - states[1]).max() > 1e-2


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("h2o", {}), ("lih", {"freeze_core": True}), ("oh", {}), ("ch2", {}), ("h4", {}),
        ("n2", {"active_electrons": 6, "active_orbitals": 6}),
    ],
)  # fmt: skip
def test_energies_of_molecules_are_pyscfs_for_the_slow_twins_state(name, given):
    p = build_problem(make_spec(load_molecule(name), **given), Stages())
    ansatz = uccsd(p.norb, p.nelec, orbsym=p.orbsym, spin_tied=p.is_closed_shell)
    engine = SectorEngine(p, ansatz)
    x = np.random.default_rng(7).uniform(-0.3, 0.3, ansatz.n_parameters)
    c = engine.state(x)
    if c.size < 500:
        np.testing.assert_allclose(c, uccsd_state(p.norb, p.nelec, ansatz, x), atol=1e-12)
    expected = np.vdot(c, pyscf_product(p.h1, p.eri, p.norb, p.nelec, c)) + p.energy_offset
    assert engine.energy(x)[0] == pytest.approx(expected, abs=1e-11)
    assert engine._layout.size < c.size


def test_the_vectors_hold_the_states_irrep_only_and_state_gives_them_all():
    p = build_problem(make_spec(load_molecule("h2o")), Stages())
    engine = SectorEngine(p, uccsd(p.norb, p.nelec, orbsym=p.orbsym))
    c = engine.state(np.full(engine.n_parameters, 0.1))
    assert c.shape == (21, 21)
    assert np.count_nonzero(c) <= engine._c.size == 133


@pytest.mark.parametrize("why", ["no irreps", "excitations of other irreps", "forbidden integrals"])
def test_a_state_without_symmetry_is_one_block_with_equal_energies(template, why):
    norb, nelec, irreps = 4, (2, 2), np.array([0, 1, 0, 1])
    p = made_problem(template, norb, nelec, irreps, None if why == "no irreps" else irreps)
    if why == "forbidden integrals":
        h1 = p.h1.copy()
        h1[0, 1] = h1[1, 0] = 0.1
        p = dataclasses.replace(p, h1=h1)
    ansatz = uccsd(norb, nelec, orbsym=None if why == "excitations of other irreps" else irreps)
    engine = SectorEngine(p, ansatz)
    assert engine._layout.size == 36
    x = np.random.default_rng(4).uniform(-0.5, 0.5, ansatz.n_parameters)
    c = uccsd_state(norb, nelec, ansatz, x)
    expected = np.vdot(c, pyscf_product(p.h1, p.eri, norb, nelec, c)) + p.energy_offset
    assert engine.energy(x)[0] == pytest.approx(expected, abs=1e-11)


def test_irreps_are_believed_up_to_a_tolerance_only():
    irreps = np.array([0, 1, 0])
    h1, eri = random_integrals(3, irreps)
    assert believable_irreps(irreps, h1, eri, SYMMETRY_TOLERANCE) is not None
    eri[0, 0, 0, 1] = 2 * SYMMETRY_TOLERANCE
    assert believable_irreps(irreps, h1, eri, SYMMETRY_TOLERANCE) is None
    assert believable_irreps(None, h1, eri, SYMMETRY_TOLERANCE) is None


def test_one_and_two_threads_agree_bit_for_bit(monkeypatch):
    p = build_problem(make_spec(load_molecule("n2"), freeze_core=True), Stages())
    ansatz = uccsd(p.norb, p.nelec, orbsym=p.orbsym, spin_tied=True)
    x = np.random.default_rng(5).uniform(-0.2, 0.2, ansatz.n_parameters)
    monkeypatch.setattr(rotations, "CACHED", 2000)
    monkeypatch.setattr(contraction, "SMALL", 0)
    found = []
    for n_threads in (1, 2, 2, 3):
        monkeypatch.setattr("simulator.engines.sector.engine_threads", lambda size, n=n_threads: n)
        engine = SectorEngine(p, ansatz)
        assert len(engine._rotations.runs) > 1
        found.append((*engine.energy_and_gradient(x), engine._multiply(engine._state(x))[0]))
    for energy, gradient, product in found[1:]:
        assert energy == found[0][0]
        np.testing.assert_array_equal(gradient, found[0][1])
        np.testing.assert_array_equal(product, found[0][2])


def test_one_kernel_and_several_give_the_same_product(monkeypatch):
    irreps = np.array([0, 5, 0, 6, 7, 5])
    h1, eri = random_integrals(6, irreps)
    layout = sector_layout(6, (3, 3), irreps)
    vector = np.random.default_rng(1).normal(size=layout.size)
    taken = Contraction(layout, number_pairs(irreps), h1, eri, 2)
    product, energy = taken(vector)
    monkeypatch.setattr(contraction, "SMALL", 0)
    in_pieces, its_energy = taken(vector)
    np.testing.assert_allclose(in_pieces, product, atol=1e-12)
    assert its_energy == pytest.approx(energy, abs=1e-11)
