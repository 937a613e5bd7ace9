"""Point groups: detection never ends a run, and never changes an energy."""

import numpy as np
import pytest

from simulator.chemistry import point_group
from simulator.chemistry.integrals import _mole, solve_orbitals
from simulator.chemistry.molecules import Molecule, load_molecule
from simulator.chemistry.scf import without_checkpoint
from simulator.vqe.spec import make_spec

ETHYLENE = (
    ("C", (0.0, 0.0, 0.6695)), ("C", (0.0, 0.0, -0.6695)), ("H", (0.0, 0.9289, 1.2321)), ("H", (0.0, -0.9289, 1.2321)),
    ("H", (0.0, 0.9289, -1.2321)), ("H", (0.0, -0.9289, -1.2321)),
)  # fmt: skip


def turned(atoms, decimals, seed):
    """The molecule in a random orientation, its coordinates rounded."""
    from scipy.stats import special_ortho_group

    rotation = special_ortho_group.rvs(3, random_state=seed)
    elements, positions = zip(*atoms, strict=True)
    return Molecule("", elements, tuple(map(tuple, np.round(np.array(positions) @ rotation.T, decimals).tolist())))


def without_symmetry(molecule):
    """PySCF's RHF, run plainly."""
    from pyscf import gto, scf

    mol = gto.M(atom=list(zip(molecule.elements, molecule.geometry, strict=True)), basis="sto-3g", verbose=0)
    return without_checkpoint(scf.RHF(mol)).run(conv_tol=1e-11).e_tot


@pytest.mark.parametrize("decimals", [4, 5, 6])
@pytest.mark.parametrize("name", ["h2o", "nh3"])
def test_an_orientation_does_not_change_the_energy(name, decimals):
    molecule = load_molecule(name)
    atoms = list(zip(molecule.elements, molecule.geometry, strict=True))
    rounded = turned(atoms, decimals, seed=decimals)
    found = solve_orbitals(make_spec(rounded))
    assert found.solution.energy == pytest.approx(without_symmetry(rounded), abs=1e-7)


@pytest.mark.broad
@pytest.mark.parametrize("decimals", [4, 5, 6])
@pytest.mark.parametrize("name", ["h2", "lih", "beh2", "h2o", "nh3", "ch4", "n2", "co", "hf", "c2h4"])
def test_none_of_forty_orientations_changes_an_energy(name, decimals):
    if name == "c2h4":
        atoms = ETHYLENE
    else:
        molecule = load_molecule(name)
        atoms = tuple(zip(molecule.elements, molecule.geometry, strict=True))
    for seed in range(40):
        rounded = turned(atoms, decimals, seed=1000 * decimals + seed)
        found = solve_orbitals(make_spec(rounded)).solution.energy
        assert found == pytest.approx(without_symmetry(rounded), abs=1e-7), f"orientation {seed}"


def test_five_decimals_are_detected_at_a_looser_tolerance_with_a_note():
    bad = (
        ("C", (0.00251, 0.32545, 0.58507)), ("C", (-0.00251, -0.32545, -0.58507)), ("H", (-0.01592, -0.21260, 1.52823)),
        ("H", (0.02516, 1.41046, 0.62522)), ("H", (-0.02516, -1.41046, -0.62522)), ("H", (0.01592, 0.21260, -1.52823)),
    )  # fmt: skip
    molecule = Molecule("", *zip(*bad, strict=True))
    mol, notes = _mole(molecule, "sto-3g")
    assert mol.topgroup == "D2h"
    assert notes == ("point group D2h found at a tolerance of 0.0001 bohr: coordinates are rounded",)
    found = solve_orbitals(make_spec(molecule))
    assert found.solution.energy == pytest.approx(without_symmetry(molecule), abs=1e-7)


def test_coordinates_stay_as_they_were_given():
    molecule = turned(ETHYLENE, 4, 3)
    mol, _ = _mole(molecule, "sto-3g")
    np.testing.assert_allclose(mol.atom_coords(unit="Ang"), molecule.geometry, atol=1e-10)


def test_without_any_group_a_run_goes_on_in_c1(monkeypatch):
    monkeypatch.setattr(point_group, "MIXED_OVERLAP", -1.0)  # nothing is sound
    found = solve_orbitals(make_spec(load_molecule("h2o")))
    assert found.orbsym is None
    assert "point group not used: the coordinates are near a symmetry, not on it" in found.notes
    assert found.solution.energy == pytest.approx(without_symmetry(load_molecule("h2o")), abs=1e-7)


def test_pyscfs_tolerance_is_left_as_it_was():
    from pyscf.symm import geom

    before = geom.TOLERANCE
    _mole(turned(ETHYLENE, 4, 1), "sto-3g")
    assert before == geom.TOLERANCE
