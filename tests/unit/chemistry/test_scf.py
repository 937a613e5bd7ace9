"""The mean field: stationary, stable where that can be had, and told where not."""

import numpy as np
import pytest

from simulator.chemistry.integrals import build_problem, solve_orbitals
from simulator.chemistry.molecules import Molecule, load_molecule
from simulator.chemistry.scf import mean_field, without_checkpoint
from simulator.errors import RunFailed
from simulator.stages import Stages
from simulator.vqe.spec import make_spec


def diatomic(first, second, distance, multiplicity=1):
    return Molecule("", (first, second), ((0, 0, 0), (0, 0, distance)), 0, multiplicity)


def orbitals_of(molecule, **given):
    return solve_orbitals(make_spec(molecule, **given))


def is_minimum(solution):
    """Whether PySCF's own analysis says so, and no small rotation of the orbitals in any of 40 directions lowers the energy."""
    from pyscf import scf
    from scipy.linalg import expm

    mf = solution.mf
    mo, occ = np.array(mf.mo_coeff), np.array(mf.mo_occ)
    mol = mf.mol.copy().build(dump_input=False, parse_arg=False, symmetry=False)
    plain = without_checkpoint((scf.RHF if mol.spin == 0 else scf.ROHF)(mol))
    plain._eri, plain.verbose = mf._eri, 0
    plain.mo_coeff, plain.mo_occ, plain.mo_energy = mo, occ, np.array(mf.mo_energy)
    random = np.random.default_rng(1)
    for _ in range(40):
        turn = np.triu(random.normal(size=(len(occ), len(occ))), 1) * 0.02
        if plain.energy_tot(plain.make_rdm1(mo @ expm(turn - turn.T), occ)) < solution.energy - 1e-9:
            return False
    return bool(plain.stability(return_status=True)[2])


def test_an_unstable_solution_is_followed_to_a_stable_one_and_told():
    found = orbitals_of(diatomic("N", "N", 4.0))
    assert found.solution.energy == pytest.approx(-106.372044 - 0.426242, abs=2e-6)
    assert "left an unstable solution at -106.372044 hartree for one 0.426242 lower" in " ".join(found.notes)
    assert "breaks the molecule's symmetry (Dooh)" in " ".join(found.notes)
    assert is_minimum(found.solution)


def test_an_open_shell_is_followed_too():
    found = orbitals_of(diatomic("B", "B", 1.59, 3))
    mol = found.solution.mf.mol
    from pyscf import scf

    plain = without_checkpoint(scf.ROHF(mol.copy().build(dump_input=False, parse_arg=False, symmetry=True))).run(
        conv_tol=1e-12
    )
    assert found.solution.energy < plain.e_tot - 1e-3
    assert is_minimum(found.solution)


def test_a_lower_solution_of_a_specification_with_an_old_id_is_told_and_not_taken():
    spec = make_spec(load_molecule("h4-square"))
    found = solve_orbitals(spec)
    assert spec.spec_version == 1
    assert found.solution.energy == pytest.approx(-1.694890, abs=1e-6)  # as ever
    assert any(
        "SCF is unstable: a solution 0.066185 hartree lower without the molecule's symmetry" in n for n in found.notes
    )
    assert any("RHF is unstable towards UHF" in note for note in found.notes)


def test_the_check_of_minima_finds_a_saddle():
    assert not is_minimum(orbitals_of(load_molecule("h4-square")).solution)


def test_a_stable_solution_has_no_notes_and_keeps_its_symmetry():
    found = orbitals_of(load_molecule("h2o"))
    assert found.notes == ()
    assert found.orbsym is not None


@pytest.mark.parametrize(
    ("molecule", "basis", "energy"),
    [
        (diatomic("N", "O", 1.1508, 2), "6-31g", -129.168586),
        (diatomic("H", "F", 3.0), "sto-3g", -98.116040),
        (diatomic("Na", "H", 10.0), "sto-3g", -160.012210),
        (Molecule("", ("H",) * 6, tuple((0, 0, 5.0 * i) for i in range(6))), "sto-3g", -1.797075),
    ],
)
def test_what_diis_does_not_converge_runs(molecule, basis, energy):
    found = orbitals_of(molecule, basis=basis)
    assert found.solution.retried
    assert found.solution.energy == pytest.approx(energy, abs=2e-6)


def test_a_level_shift_alone_converges_what_swings(monkeypatch):
    from simulator.chemistry import scf

    plain = scf._second_order

    def idle(mf):
        out = plain(mf)
        out.max_cycle = 0
        return out

    monkeypatch.setattr(scf, "_second_order", idle)
    found = orbitals_of(diatomic("H", "F", 2.5)).solution
    assert (found.mf.converged, found.retried) == (True, True)
    assert found.energy == pytest.approx(-98.162552, abs=2e-6)


def test_what_is_nearly_stationary_is_accepted_with_its_gradient(mean_fields):
    def demanding(mf, _):
        mf.conv_tol_grad, mf.max_cycle = 1e-16, 12  # no arithmetic reaches that

    mean_fields(demanding)
    found = orbitals_of(load_molecule("lih"))
    assert found.solution.energy == pytest.approx(-7.86202696, abs=1e-7)
    assert any("SCF accepted" in note and "orbital gradient of" in note for note in found.notes)


def test_what_is_nowhere_stationary_fails_and_tells_every_attempt(mean_fields):
    mean_fields(lambda mf, _: setattr(mf, "max_cycle", 0))
    with pytest.raises(
        RunFailed, match=r"SCF of HLi in sto-3g did not converge: .* by DIIS \(gradient .*level shift.*second-order"
    ):
        orbitals_of(load_molecule("lih"))


def test_an_scf_that_cannot_fill_its_irreps_goes_on_without_symmetry(mean_fields):
    def more_than_there_are(mf, symmetry):
        if symmetry:
            mf.irrep_nelec = {"A1": 6, "E1x": 6}

    mean_fields(more_than_there_are)
    found = orbitals_of(load_molecule("lih"))
    assert found.orbsym is None
    assert found.solution.energy == pytest.approx(-7.86202696, abs=1e-7)


def test_fewer_orbitals_than_functions_are_what_the_scf_gives():
    chain = Molecule("", ("H",) * 6, tuple((0, 0, 0.6 * i) for i in range(6)))
    problem = build_problem(make_spec(chain, basis="6-31++g"), Stages())
    assert (problem.n_molecular_orbitals, problem.norb, problem.is_full_space) == (17, 17, True)
    assert "basis 6-31++g is nearly linearly dependent here: 17 orbitals from 18 functions" in problem.notes


@pytest.mark.parametrize(
    ("atoms", "basis", "ecp"), [("H 0 0 0; F 0 0 0.9", "cc-pvdz", None), ("H 0 0 0; I 0 0 1.6", "lanl2dz", "lanl2dz")]
)
def test_the_first_density_is_pyscfs_to_the_last_bit(atoms, basis, ecp):
    from pyscf import gto
    from pyscf.scf import hf

    mol = gto.M(atom=atoms, basis=basis, ecp=ecp or {}, verbose=0)
    ours = mean_field(mol).get_init_guess(mol)
    assert np.array_equal(ours, hf.init_guess_by_minao(mol))


def test_a_second_geometry_reads_no_basis_set_again(monkeypatch):
    from pyscf.gto.basis import parse_nwchem

    orbitals_of(diatomic("H", "H", 0.7))
    monkeypatch.setattr(parse_nwchem, "load", lambda *_, **__: pytest.fail("a basis set was read again"))
    orbitals_of(diatomic("H", "H", 0.9))
