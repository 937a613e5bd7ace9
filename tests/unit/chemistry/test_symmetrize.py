"""Symmetrising moves atoms onto the symmetry that they nearly have, and only when it is asked for."""

import numpy as np
import pytest

from simulator.chemistry.integrals import _mole
from simulator.chemistry.molecules import Molecule, load_molecule
from simulator.chemistry.symmetrize import largest_move, symmetrized
from simulator.errors import InputError


def rounded(molecule, decimals=4, seed=5):
    from scipy.stats import special_ortho_group

    turned = np.array(molecule.geometry) @ special_ortho_group.rvs(3, random_state=seed).T + 0.3
    return Molecule("", molecule.elements, tuple(map(tuple, np.round(turned, decimals).tolist())), molecule.charge)


def distances(molecule):
    positions = np.array(molecule.geometry)
    return np.sort(np.linalg.norm(positions[:, None] - positions, axis=2).ravel())


@pytest.mark.parametrize(
    ("name", "group"),
    [("h2o", "C2v"), ("nh3", "C3v"), ("ch4", "Td"), ("h4-square", "D4h"), ("h3+", "D3h"), ("n2", "Dooh")],
)
def test_a_rounded_molecule_gets_its_group_back(name, group):
    exact = load_molecule(name)
    before = rounded(exact)
    after = symmetrized(before)
    assert _mole(after, "sto-3g")[0].topgroup == group
    assert _mole(after, "sto-3g")[1] == ()
    assert largest_move(before, after) < 3e-4
    np.testing.assert_allclose(distances(after), distances(before), atol=3e-4)


def test_what_has_no_symmetry_stays():
    peroxide = Molecule("", ("O", "O", "H", "F"), ((0, 0.7, 0), (0, -0.7, 0), (0.8, 0.9, 0.4), (-0.7, -0.9, 0.9)), 0, 1)
    assert largest_move(peroxide, symmetrized(peroxide)) < 1e-12
    almost = Molecule("", ("O", "H", "H"), ((0, 0, 0.12), (0, 0.757, -0.47), (0, -0.737, -0.47)))  # two different bonds
    assert largest_move(almost, symmetrized(almost)) < 1e-12


def test_vqe_orbitals_symmetrizes_when_asked(tmp_path):
    from typer.testing import CliRunner

    from simulator.cli.main import app

    water = rounded(load_molecule("h2o"))
    lines = ["3", "", *(f"{e} {x} {y} {z}" for e, (x, y, z) in zip(water.elements, water.geometry, strict=True))]
    (tmp_path / "w.xyz").write_text("\n".join(lines) + "\n")
    asked = CliRunner().invoke(app, ["orbitals", str(tmp_path / "w.xyz"), "--symmetrize"])
    assert "symmetrized, atoms moved by at most" in asked.output
    assert "1b1" in asked.output  # C2v
    assert "1b1" not in CliRunner().invoke(app, ["orbitals", str(tmp_path / "w.xyz")]).output


def test_charges_labels_and_elements_do_not_mix():
    mixed = symmetrized(Molecule("", ("C", "O"), ((0, 0, 0), (0.00001, 0, 1.128))))
    assert mixed.elements == ("C", "O")


def test_a_tolerance_that_would_move_atoms_far_is_refused():
    with pytest.raises(InputError, match=r"below 0\.1 angstrom"):
        symmetrized(load_molecule("h2o"), 0.5)
