import json
import math

import pytest

from simulator.chemistry.elements import ATOMIC_NUMBERS, core_orbitals
from simulator.chemistry.molecules import Molecule, bundled_molecules, load_molecule, published_energies
from simulator.errors import InputError

H2 = (("H", "H"), ((0.0, 0.0, 0.0), (0.0, 0.0, 0.735)))


def test_every_promised_molecule_is_bundled_with_a_source():
    molecules = {m.name: m for m in bundled_molecules()}
    promised = "h2 heh+ h3+ h4 h4-square lih beh2 h2o nh3 ch4 n2 hf co oh o2 ch2"
    assert set(promised.split()) <= set(molecules)
    assert all(m.source and m.description for m in molecules.values())
    assert molecules["oh"].multiplicity == 2
    assert molecules["o2"].multiplicity == molecules["ch2"].multiplicity == 3


def test_published_energies_are_of_bundled_molecules():
    for entry in published_energies():
        assert load_molecule(entry["molecule"]).name == entry["molecule"]
        assert entry["source"]


@pytest.mark.parametrize(
    ("name", "formula"),
    [("h2o", "H2O"), ("ch4", "CH4"), ("heh+", "HHe+"), ("h3+", "H3+"), ("lih", "HLi"), ("co", "CO")],
)
def test_formula_follows_hill(name, formula):
    assert load_molecule(name).formula == formula


def test_names_are_taken_in_any_case():
    assert load_molecule("H2O") == load_molecule("h2o")


def test_nuclear_repulsion_is_pyscfs():
    from pyscf import gto

    molecule = load_molecule("nh3")
    mol = gto.M(atom=list(zip(molecule.elements, molecule.geometry, strict=True)), verbose=0)
    assert molecule.nuclear_repulsion == pytest.approx(mol.energy_nuc(), abs=1e-9)


def test_id_ignores_signed_zeros_and_digits_beyond_1e_8_and_the_name():
    one = Molecule("a", *H2)
    other = Molecule("b", ("h", "H"), ((-0.0, 0.0, -1e-10), (0.0, -0.0, 0.735 + 2e-10)))
    assert one.molecule_id == other.molecule_id
    assert one.molecule_id != Molecule("a", H2[0], ((0.0, 0.0, 0.0), (0.0, 0.0, 0.736))).molecule_id
    assert one.molecule_id != Molecule("a", *H2, charge=0, multiplicity=3).molecule_id


def test_electrons_are_split_by_multiplicity():
    oxygen = load_molecule("o2")
    assert (oxygen.n_electrons, oxygen.n_alpha, oxygen.n_beta) == (16, 9, 7)


def test_xyz_file(tmp_path):
    path = tmp_path / "ion.xyz"
    path.write_text("2\ncharge=1 multiplicity=1 from a test\nHe 0 0 0\nh 0 0 0.7743\n\n")
    molecule = load_molecule(str(path))
    assert molecule.molecule_id == load_molecule("heh+").molecule_id
    assert load_molecule(str(path), charge=0).multiplicity == 2  # the lowest that three electrons have


def test_json_file_in_bohr(tmp_path):
    path = tmp_path / "h2.json"
    path.write_text(json.dumps({"units": "bohr", "atoms": [["H", 0, 0, 0], ["H", 0, 0, 1.4]]}))
    molecule = load_molecule(str(path))
    assert math.dist(*molecule.geometry) == pytest.approx(0.740848, abs=1e-6)
    assert molecule.multiplicity == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1"),
        ("two\n\nH 0 0 0\n", "line 1"),
        ("0\n\n", "at least 1"),
        ("2\n\nH 0 0 0\n", "promises 2 atoms, the file has 1"),
        ("1\n\nH 0 0\n", "line 3"),
        ("1\n\nH 0 0 x\n", "'x' is not a number"),
        ("1\n\nH 0 0 nan\n", "not a finite number"),
        ("1\n\nH 0 0 1e999\n", "not a finite number"),
        ("1\n\nXx 0 0 0\n", "unknown element 'Xx'"),
        ("1\ncharge=one\nH 0 0 0\n", "charge=one"),
        ("2\n\nH 0 0 0\nH 0 0 0.01\n", "atoms 1 (H) and 2 (H) are 0.010 angstrom apart"),
    ],
)
def test_malformed_xyz_is_refused_in_one_line(tmp_path, text, says):
    path = tmp_path / "bad.xyz"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        load_molecule(str(path))
    assert says in str(error.value)
    assert "bad.xyz" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("{", "not JSON"),
        ([], "must be a JSON object"),
        ({"atoms": [["H", 0, 0, 0]]}, "units must be angstrom or bohr"),
        ({"units": "bohr", "atoms": []}, "atoms must be a list"),
        ({"units": "bohr", "atoms": [["H", 0, 0]]}, "atom 1"),
        ({"units": "bohr", "atoms": [["H", 0, 0, None]]}, "not a number"),
        ({"units": "bohr", "atoms": [["H", 0, 0, 0]], "carge": 1}, "unknown key 'carge'"),
        ({"units": "bohr", "atoms": [["H", 0, 0, 0]], "charge": 0.5}, "charge must be a whole number"),
        ({"units": "bohr", "atoms": [["H", 0, 0, 0]], "charge": 1}, "leaves 0 electrons"),
        (
            {"units": "bohr", "atoms": [["H", 0, 0, 0]], "multiplicity": 1},
            "multiplicity 1 is impossible with 1 electron",
        ),
        ({"units": "bohr", "atoms": [["H", 0, 0, 0]], "name": 3}, "name must be text"),
    ],
)
def test_malformed_json_is_refused_in_one_line(tmp_path, value, says):
    path = tmp_path / "bad.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    with pytest.raises(InputError) as error:
        load_molecule(str(path))
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_and_binary_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_molecule(str(tmp_path / "none.xyz"))
    (tmp_path / "raw.xyz").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8"):
        load_molecule(str(tmp_path / "raw.xyz"))
    (tmp_path / "folder.xyz").mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        load_molecule(str(tmp_path / "folder.xyz"))


def test_unknown_molecule_names_the_nearest():
    with pytest.raises(InputError, match=r"unknown molecule 'beh3' \(did you mean beh2\?"):
        load_molecule("beh3")


def test_impossible_multiplicity_says_which_are_possible():
    with pytest.raises(
        InputError, match=r"molecule h2o: multiplicity 2 is impossible with 10 electrons \(use 1, 3, \.\.\.\)"
    ):
        load_molecule("h2o", multiplicity=2)


def test_core_orbitals_are_noble_gas_cores():
    assert [core_orbitals(e) for e in ("H", "He", "Li", "Ne", "Na", "Ar", "K")] == [0, 0, 1, 1, 5, 5, 9]
    assert ATOMIC_NUMBERS["Og"] == 118
