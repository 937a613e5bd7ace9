"""Basis sets: a name that PySCF knows, with the effective core potential that belongs to it."""

import warnings

import pytest

from simulator.chemistry.basis_sets import check_basis_name, ecp_of, load_basis, normalized
from simulator.chemistry.integrals import build_problem, solve_orbitals
from simulator.chemistry.molecules import Molecule, load_molecule
from simulator.errors import InputError
from simulator.stages import Stages
from simulator.vqe.spec import make_spec


def diatomic(first, second, distance, multiplicity=1):
    return Molecule("", (first, second), ((0, 0, 0), (0, 0, distance)), 0, multiplicity)


def pyscf_hf(molecule, basis, ecp):
    from pyscf import gto, scf

    from simulator.chemistry.scf import without_checkpoint

    atoms = list(zip(molecule.elements, molecule.geometry, strict=True))
    mol = gto.M(atom=atoms, basis=basis, ecp=ecp, spin=molecule.multiplicity - 1, charge=molecule.charge, verbose=0)
    return without_checkpoint((scf.RHF if mol.spin == 0 else scf.ROHF)(mol)).run()


@pytest.mark.parametrize(
    ("molecule", "basis", "ecp"),
    [
        (diatomic("H", "Cl", 1.275), "lanl2dz", "lanl2dz"),
        (Molecule("", ("I",), ((0, 0, 0),), -1), "def2-svp", "def2-svp"),
        (diatomic("Li", "Li", 2.673), "stuttgart", "stuttgart"),
        (Molecule("", ("Zn",), ((0, 0, 0),), 0), "cc-pwcvdz-pp", "cc-pvdz-pp"),
        (diatomic("Li", "H", 1.595), "ccecp-ccpvdz", "ccecp"),
        (diatomic("Na", "H", 1.887), "bfd-vdz", "bfd"),
        (Molecule("", ("Br",), ((0, 0, 0),), -1), "unc-lanl2dz", "lanl2dz"),
    ],
)
def test_a_basis_brings_its_ecp_and_the_energy_is_pyscfs_with_both(molecule, basis, ecp):
    spec = make_spec(molecule, basis=basis)
    found = solve_orbitals(spec).solution
    assert spec.ecp_electrons > 0
    assert found.energy == pytest.approx(pyscf_hf(molecule, basis, ecp).e_tot, abs=1e-7)


def test_everything_follows_the_valence_electrons():
    from pyscf import mcscf

    from simulator.chemistry.references import compute_references, reference_energy

    iodine = diatomic("I", "I", 2.666)
    spec = make_spec(iodine, basis="lanl2dz", active_electrons=4, active_orbitals=4)
    problem = build_problem(spec, Stages())
    expected = mcscf.CASCI(pyscf_hf(iodine, "lanl2dz", "lanl2dz"), 4, 4).run(verbose=0).e_tot
    assert reference_energy(compute_references(problem, spec, Stages())) == ("CASCI", pytest.approx(expected, abs=1e-6))
    assert (spec.nelec, problem.n_core, problem.nelec) == ((7, 7), 5, (2, 2))
    assert spec.nuclear_repulsion == pytest.approx(7 * 7 * 0.529177210903 / 2.666)
    with pytest.raises(InputError, match="active space 16e,16o is larger than the molecule: I2 has 14 electrons"):
        make_spec(iodine, basis="lanl2dz", active_electrons=16, active_orbitals=16)
    with pytest.raises(InputError, match="its ECP leaves 0 of Na\\+'s 10 electrons"):
        make_spec(Molecule("", ("Na",), ((0, 0, 0),), 1, 1), basis="lanl2dz")


def test_a_frozen_core_is_what_the_ecp_leaves_of_it():
    frozen = [
        len(solve_orbitals(make_spec(anion, basis=basis, freeze_core=True)).active.core)
        for anion, basis in (
            (Molecule("", ("Cl",), ((0, 0, 0),), -1), "def2-svp"), (Molecule("", ("Br",), ((0, 0, 0),), -1), "lanl2dz"),
            (Molecule("", ("Na",), ((0, 0, 0),), -1), "ccecp-he-ccpvdz"),
        )
    ]  # fmt: skip
    assert frozen == [5, 0, 4]  # 1s 2s 2p; none: the ECP holds 3d as well; 2s 2p, as it holds 1s


@pytest.mark.parametrize(
    ("basis", "element", "says"),
    [
        ("weigend", "C", "is a fitting set"),
        ("def2-universal-jkfit", "C", "is a fitting set"),
        ("cc-pvdz-ri", "C", "is a fitting set"),
        ("gth-dzvp", "C", "GTH pseudopotentials"),
        ("DZVP-MOLOPT-GTH-q4".lower(), "C", "GTH pseudopotentials"),
        ("cc-pvdz-pp-nr", "Cu", "PySCF does not have"),
        ("minao", "I", "cannot describe its core electrons"),
        ("ano-rcc", "Au", "cannot describe its core electrons"),
        ("ma-def2-svp", "Ce", "cannot describe its core electrons"),
        ("ccecp", "C", "unknown basis 'ccecp' for C"),
        ("sto-3h", "C", "did you mean sto3g"),
        ("../sto-3g", "C", "is not a name"),
        ("H S\n 1.0 1.0", "H", "is not a name"),
        ("x" * 65, "H", "is not a name"),
    ],
)
def test_what_has_no_ecp_or_is_no_orbital_set_is_refused_by_name(basis, element, says):
    with pytest.raises(InputError) as caught:
        load_basis(basis, element)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unsuitable_name_is_refused_when_the_specification_is_made():
    with pytest.raises(InputError, match="fitting set"):
        make_spec(load_molecule("h2"), basis="weigend")


def test_a_file_of_the_basis_name_in_the_working_folder_is_not_read(tmp_path, monkeypatch):
    before = load_basis("6-31g", "He")
    monkeypatch.chdir(tmp_path)
    for name in ("6-31g", "631g", "6-31g ", "lanl2dz"):
        (tmp_path / name).write_text("He    S\n      9.0    1.0\nCl ECP\nCl nelec 2\nCl ul\n2 1.0 1.0\n")
    load_basis.cache_clear()
    assert load_basis("6-31g", "He") == before
    assert load_basis("lanl2dz", "Cl")[1][0] == 10


def test_the_table_of_ecps_is_pyscfs():
    from pyscf import gto
    from pyscf.gto.basis import ALIAS

    elements = ("H", "C", "Na", "Cl", "Fe", "Zn", "Br", "Sr", "Ag", "I", "Nd", "Au", "Pb", "U")
    seen = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ALIAS:
            if (
                name.startswith(("ecpds", "ccecp2", "ccecp3", "dyall", "aug", "ma", "stuttgartr", "def2"))
                and name != "def2svp"
            ):
                continue  # the same potentials under another name, or none that has functions
            try:
                check_basis_name(name)
            except InputError:
                continue
            for element in elements:
                try:
                    ecp = gto.basis.load_ecp(name, element)
                except (RuntimeError, TypeError, KeyError, IndexError, ValueError, OSError):
                    continue
                if ecp and _has_functions(name, element):
                    found = ecp_of(name, element)
                    assert found is not None, (name, element)
                    assert found.electrons == ecp[0], (name, element)
                    seen.add(name)
    assert {"lanl2dz", "def2svp", "crenbl", "sbkjc", "stuttgart", "ccpvdzpp"} <= seen


def _has_functions(name, element):
    from pyscf import gto

    try:
        return bool(gto.basis.load(name, element))
    except (RuntimeError, TypeError, KeyError, IndexError, ValueError, OSError):
        return False


def test_names_are_compared_as_pyscf_compares_them():
    assert normalized("LANL2-DZ") == normalized("lanl2dz") == normalized("unc-lanl2dz") == "lanl2dz"
    assert ecp_of("LANL2DZ", "I").electrons == ecp_of("lanl2dz@2s2p", "I").electrons == 46
    assert ecp_of("lanl2dz", "C") is None
    assert ecp_of("6-31g", "I") is None
