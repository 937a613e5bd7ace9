"""Active orbitals: chosen by energy, number, name, irrep or natural occupation, and a warning where a set is cut."""

import json

import numpy as np
import pytest
from pyscf import ao2mo
from typer.testing import CliRunner

from simulator.chemistry.integrals import build_problem, solve_orbitals
from simulator.chemistry.molecules import Molecule, load_molecule
from simulator.chemistry.orbitals import largest_forbidden
from simulator.chemistry.references import compute_references, reference_energy
from simulator.chemistry.scf import without_checkpoint
from simulator.cli.main import app
from simulator.errors import InputError
from simulator.stages import Stages
from simulator.vqe.spec import make_spec


def problem_of(name, **given):
    molecule = load_molecule(name) if isinstance(name, str) else name
    return build_problem(make_spec(molecule, **given), Stages())


def casci_energy(problem, **given):
    name, energy = reference_energy(compute_references(problem, make_spec(problem.molecule, **given), Stages()))
    assert name == "CASCI"
    return energy


def pyscf_mean_field(name):
    from pyscf import gto, scf

    molecule = load_molecule(name)
    mol = gto.M(
        atom=list(zip(molecule.elements, molecule.geometry, strict=True)), spin=molecule.multiplicity - 1, verbose=0
    )
    return without_checkpoint((scf.RHF if mol.spin == 0 else scf.ROHF)(mol)).run(conv_tol=1e-12)


def rotated(molecule, seed):
    from scipy.stats import special_ortho_group

    turned = np.array(molecule.geometry) @ special_ortho_group.rvs(3, random_state=seed).T
    return Molecule("", molecule.elements, tuple(map(tuple, turned.tolist())), molecule.charge, molecule.multiplicity)


def test_orbitals_by_number_give_pyscfs_casci_of_the_same_orbitals():
    from pyscf import mcscf

    given = {"orbitals": ("2", "3", "6")}
    problem = problem_of("lih", **given)
    cas = mcscf.CASCI(pyscf_mean_field("lih"), 3, 2)
    expected = cas.kernel(cas.sort_mo([2, 3, 6]), verbose=0)[0]
    assert casci_energy(problem, **given) == pytest.approx(expected, abs=1e-8)
    assert (problem.active_orbitals, problem.n_core, problem.nelec) == ((1, 2, 5), 1, (1, 1))
    assert problem.notes == ()


def test_names_and_irreps_mean_the_numbers_of_the_list():
    assert problem_of("lih").orbital_names == ("1a1", "2a1", "3a1", "1e1x", "1e1y", "4a1")
    for given, numbers in (
        (("2a1", "3a1", "4a1"), (1, 2, 5)), (("2a1", "1e1"), (1, 3, 4)), (("2", "1e1x"), (1, 3)), (("a1",), (0, 1, 2, 5)),
    ):  # fmt: skip
        assert problem_of("lih", orbitals=given).active_orbitals == numbers
    assert problem_of("lih", orbitals=("a1",), freeze_core=True).active_orbitals == (1, 2, 5)


def test_an_open_shell_keeps_its_unpaired_electrons():
    from pyscf import mcscf

    given = {"orbitals": ("3", "4", "5", "6")}
    problem = problem_of("oh", **given)
    assert (problem.n_core, problem.nelec) == (2, (3, 2))
    expected = mcscf.CASCI(pyscf_mean_field("oh"), 4, 5).run(verbose=0).e_tot
    assert casci_energy(problem, **given) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("lih", {"orbitals": ("2", "7")}, "orbitals: 7 is more than the 6 of HLi in sto-3g"),
        ("lih", {"orbitals": ("2a1", "1b1")}, "HLi in sto-3g has no 1b1 (irreps here: a1, e1x, e1y)"),
        ("lih", {"orbitals": ("3", "4")}, "none of them holds an electron"),
        ("lih", {"orbitals": ("1", "2", "3"), "freeze_core": True}, "1 is one of the 1 orbitals of the frozen core"),
        ("oh", {"orbitals": ("3", "4", "6")}, "the singly occupied 5 must be among them"),
        ("lih", {"natural_orbitals": 7}, "active space auto:7: HLi in sto-3g has 6 orbitals to choose from"),
        ("lih", {"natural_orbitals": 1}, "at least 2 orbitals are needed"),
        ("oh", {"natural_orbitals": 1}, "at least 2 orbitals are needed"),
    ],
)
def test_a_choice_that_does_not_fit_is_one_line(name, given, says):
    with pytest.raises(InputError) as caught:
        problem_of(name, **given)
    assert says in str(caught.value)


def test_an_active_space_that_cuts_a_degenerate_set_is_told_with_the_set():
    assert problem_of("lih", active_electrons=2, active_orbitals=3).notes == (
        (
            "active space cuts a degenerate set at 0.1639 hartree: orbital 4 (1e1x) inside, 5 (1e1y) outside, so the energy"
            " depends on the molecule's orientation (choose whole sets, e.g. orbitals 2,3,4,5)"
        ),
    )
    assert len(problem_of("nh3", active_electrons=4, active_orbitals=4).notes) == 2  # an occupied and an empty pair
    assert problem_of("nh3", active_electrons=6, active_orbitals=6).notes == ()


def test_whole_sets_have_one_energy_in_every_orientation_and_halves_have_not():
    ammonia, whole = load_molecule("nh3"), {"orbitals": ("3", "4", "5", "6", "7", "8")}
    energies = [casci_energy(problem_of(rotated(ammonia, seed), **whole), **whole) for seed in (1, 2)]
    assert energies[0] == pytest.approx(energies[1], abs=1e-8)
    halves = [{"orbitals": ("4", "5", "6", empty)} for empty in ("7", "8")]  # of one pair, which a rotation mixes
    energies = [casci_energy(problem_of(ammonia, **given), **given) for given in halves]
    assert abs(energies[0] - energies[1]) > 1e-6


@pytest.mark.parametrize("name", ["lih", "h2o", "oh", "nh3"])
def test_natural_orbitals_leave_hartree_fock_as_it_is_and_hold_more_correlation(name):
    size = {"lih": 3, "h2o": 4, "oh": 3, "nh3": 6}[name]
    given = {"natural_orbitals": size}
    problem = problem_of(name, **given)
    assert problem.hf_energy == pytest.approx(pyscf_mean_field(name).e_tot, abs=1e-8)
    assert determinant_energy(problem) == pytest.approx(problem.hf_energy, abs=1e-8)
    nearest = {"active_electrons": sum(problem.nelec), "active_orbitals": size}
    assert casci_energy(problem, **given) < casci_energy(problem_of(name, **nearest), **nearest) + 1e-9
    assert problem.notes == ()  # no set is cut


@pytest.mark.parametrize("name", ["lih", "h2o", "oh", "nh3", "n2", "beh2"])
def test_irreps_of_natural_orbitals_are_those_of_the_orbitals(name):
    """By occupation, orbitals of different irreps stand in another order than by energy."""
    problem = problem_of(name, natural_orbitals=4)
    assert len(set(problem.orbsym)) > 1
    full = ao2mo.restore(1, problem.eri, problem.norb)
    assert largest_forbidden(problem.orbsym, problem.h1, full) < 1e-9


def determinant_energy(problem):
    """Energy of the determinant of the first orbitals, from the integrals."""
    full = ao2mo.restore(1, problem.eri, problem.norb)
    energy = problem.energy_offset
    occupied = [range(n) for n in problem.nelec]
    for spin in occupied:
        energy += sum(problem.h1[i, i] for i in spin)
        energy += 0.5 * sum(full[i, i, j, j] - full[i, j, j, i] for i in spin for j in spin)
    return energy + sum(full[i, i, j, j] for i in occupied[0] for j in occupied[1])


def test_natural_orbitals_of_a_stretched_bond_come_from_cisd_where_mp2_breaks_down():
    stretched = Molecule("", ("Li", "H"), ((0, 0, 0), (0, 0, 8.0)))
    found = solve_orbitals(make_spec(stretched, natural_orbitals=2))
    occupations = found.active.occupations[list(found.active.indices)]
    assert np.all((occupations > -1e-6) & (occupations < 2 + 1e-6))
    assert occupations == pytest.approx([1.0, 1.0], abs=0.2)  # a broken bond


def test_vqe_orbitals_lists_what_can_be_chosen():
    answer = CliRunner().invoke(app, ["orbitals", "lih", "--orbitals", "2,3,6", "--json"])
    assert answer.exit_code == 0
    rows = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [row["number"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["name"] for row in rows] == ["1a1", "2a1", "3a1", "1e1x", "1e1y", "4a1"]
    assert [row["active"] for row in rows] == [False, True, True, False, False, True]
    assert [row["occupation"] for row in rows] == [2, 2, 0, 0, 0, 0]
    assert rows[3]["degenerate_with"] == [5]
    assert sum(row["natural_occupation"] for row in rows) == pytest.approx(4.0, abs=1e-6)
    assert rows[0]["functions"] == ["0 Li 1s"]
    table = CliRunner().invoke(app, ["orbitals", "lih", "--active-space", "2e,3o"])
    assert "cuts a degenerate set" in table.stdout
    assert "1e1x" in table.stdout
