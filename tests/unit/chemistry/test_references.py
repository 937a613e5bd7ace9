import numpy as np
import pytest

from simulator.chemistry import references
from simulator.chemistry.integrals import build_problem
from simulator.chemistry.molecules import Molecule, load_molecule, published_energies
from simulator.chemistry.references import compute_references, no_yardstick, reference_energy
from simulator.chemistry.scf import without_checkpoint
from simulator.stages import Stages
from simulator.vqe.spec import make_spec


def references_of(name, multiplicity=None, **given):
    spec = make_spec(load_molecule(name, multiplicity=multiplicity), **given)
    return {r.name: r for r in compute_references(build_problem(spec, Stages()), spec, Stages())}


def diatomic(first, second, distance, multiplicity=1, **given):
    """References of two atoms at a distance in angstrom."""
    molecule = Molecule("", (first, second), ((0.0, 0.0, 0.0), (0.0, 0.0, distance)), 0, multiplicity)
    spec = make_spec(molecule, **given)
    return compute_references(build_problem(spec, Stages()), spec, Stages())


def pyscf_mean_field(name):
    from pyscf import gto, scf

    molecule = load_molecule(name)
    mol = gto.M(atom=list(zip(molecule.elements, molecule.geometry, strict=True)), verbose=0)
    return without_checkpoint(scf.RHF(mol)).run(conv_tol=1e-12)


def test_references_are_pyscfs():
    from pyscf import cc, fci, mp

    mf, found = pyscf_mean_field("lih"), references_of("lih")
    assert found["MP2"].energy == pytest.approx(mp.MP2(mf).run(verbose=0).e_tot, abs=1e-8)
    assert found["CCSD"].energy == pytest.approx(cc.CCSD(mf).run(verbose=0).e_tot, abs=1e-6)
    assert found["FCI"].energy == pytest.approx(fci.FCI(mf).kernel()[0], abs=1e-8)
    assert found["sector_minimum"].energy == found["FCI"].energy


@pytest.mark.parametrize("entry", published_energies(), ids=lambda e: f"{e['molecule']}-{e['method']}")
def test_published_energies_are_what_pyscf_gets(entry, monkeypatch):
    monkeypatch.setattr(references, "MAX_FCI_DETERMINANTS", 0 if entry["method"] == "CCSD(T)" else 10**6)
    found = references_of(entry["molecule"], basis=entry["basis"])
    assert found[f"published {entry['method']}"].energy == entry["energy"]
    assert found[entry["method"]].energy == pytest.approx(entry["energy"], abs=1e-7)


def test_no_published_energy_has_a_reason():
    assert (
        "none in the bundled table for this geometry in 6-31g" in references_of("h2", basis="6-31g")["published"].reason
    )
    assert "none in the bundled table" in references_of("heh+")["published"].reason


def test_singlet_oxygen_is_a_singlet_above_the_sectors_minimum():
    found = references_of("o2", multiplicity=1)
    assert found["FCI"].s_squared == pytest.approx(0, abs=1e-3)
    assert found["sector_minimum"].s_squared == pytest.approx(2, abs=1e-3)
    assert found["FCI"].energy > found["sector_minimum"].energy + 0.01
    triplet = references_of("o2")
    assert found["sector_minimum"].energy == pytest.approx(triplet["FCI"].energy, abs=1e-6)


def test_open_shells_have_no_perturbative_references_and_say_why():
    found = references_of("oh")
    for name in ("MP2", "CCSD", "CCSD(T)"):
        assert found[name].energy is None
        assert "open shell" in found[name].reason
    assert found["FCI"].s_squared == pytest.approx(0.75, abs=1e-6)


def test_beyond_the_bound_fci_gives_way_to_ccsd_t(monkeypatch):
    monkeypatch.setattr(references, "MAX_FCI_DETERMINANTS", 100)
    spec = make_spec(load_molecule("lih"))
    found = compute_references(build_problem(spec, Stages()), spec, Stages())
    by_name = {r.name: r for r in found}
    assert by_name["FCI"].reason == "225 determinants exceed the bound of 100"
    assert reference_energy(found)[0] == "CCSD(T)"
    assert by_name["CCSD(T)"].energy < by_name["CCSD"].energy


def test_an_atom_without_virtual_orbitals_is_exact_at_hartree_fock(tmp_path):
    (tmp_path / "he.xyz").write_text("1\n\nHe 0 0 0\n")
    found = references_of(str(tmp_path / "he.xyz"))
    assert found["CCSD"].energy == found["HF"].energy == pytest.approx(found["FCI"].energy, abs=1e-9)


def test_square_h4s_exact_state_has_another_irrep_than_hartree_fock():
    assert references_of("h4-square")["FCI"].hf_irrep_weight < 0.01
    assert references_of("h4")["FCI"].hf_irrep_weight > 0.99


@pytest.mark.parametrize(
    ("atoms", "distance", "multiplicity", "exact"),
    [  # dense diagonalization of the whole sector; one root from one guess was 0.2 mHa too high, or none at all
        ("OO", 2.2, 3, -147.6107329),
        ("NN", 3.0, 1, -107.4384909),
    ],
)
def test_atoms_pulled_apart_have_their_exact_energy(atoms, distance, multiplicity, exact):
    found = {r.name: r for r in diatomic(*atoms, distance, multiplicity)}
    assert found["FCI"].energy == pytest.approx(exact, abs=1e-6)
    assert found["sector_minimum"].energy == pytest.approx(exact, abs=1e-6)


def test_a_reference_that_fails_is_missing_with_its_reason_and_ends_nothing(monkeypatch):
    from pyscf import cc, mp

    def broken(*_, **__):
        try:
            raise np.linalg.LinAlgError("Singular matrix")
        except np.linalg.LinAlgError:
            raise AttributeError("module 'numpy.linalg' has no attribute 'linalg'")  # noqa: B904  as PySCF's DIIS does

    monkeypatch.setattr(cc.ccsd.CCSD, "kernel", broken)
    monkeypatch.setattr(mp.mp2.MP2, "kernel", broken)
    monkeypatch.setattr(references, "lowest_of_sector", broken)
    monkeypatch.setattr(references, "published_energies", broken)
    found = references_of("lih")
    for name in ("MP2", "CCSD", "CCSD(T)", "sector_minimum", "published"):
        assert found[name].energy is None
        assert "LinAlgError: Singular matrix" in found[name].reason
    assert found["FCI"].energy is not None
    monkeypatch.setattr(references, "lowest_of_spin", broken)
    assert "Singular matrix" in references_of("lih")["FCI"].reason


def test_ccsd_of_two_electrons_is_their_exact_energy_and_is_not_solved(monkeypatch):
    from pyscf import cc

    solved = cc.CCSD(pyscf_mean_field("h2"))
    solved.conv_tol = 1e-9
    pyscfs = solved.run(verbose=0).e_tot
    monkeypatch.setattr(cc.ccsd.CCSD, "kernel", lambda *_: pytest.fail("CCSD was solved"))
    found = references_of("h2")
    assert found["CCSD"].energy == found["FCI"].energy == pytest.approx(pyscfs, abs=1e-8)
    assert found["CCSD(T)"].reason == "not needed: the exact energy is there"
    active = references_of("lih", active_electrons=2, active_orbitals=3)
    assert active["CCSD"].energy == active["CASCI"].energy


def test_ccsd_of_two_electrons_without_an_exact_energy_is_solved(monkeypatch):
    exact = references_of("h2")["FCI"].energy
    monkeypatch.setattr(references, "MAX_FCI_DETERMINANTS", 1)
    found = references_of("h2")
    assert found["FCI"].energy is None
    assert found["CCSD"].energy == pytest.approx(exact, abs=1e-8)


def test_ccsd_of_hydrogen_pulled_apart_is_right():
    found = {r.name: r for r in diatomic("H", "H", 6.0)}  # PySCF's DIIS meets a singular matrix
    assert found["FCI"].energy == pytest.approx(-0.9331637, abs=1e-6)
    assert found["CCSD"].energy == found["FCI"].energy


def test_a_request_to_stop_is_no_reason_for_a_missing_reference(monkeypatch):
    from pyscf import cc

    def stopped(*_, **__):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise RuntimeError("callback failed")  # noqa: B904  as a library passes it on

    monkeypatch.setattr(cc.ccsd.CCSD, "kernel", stopped)
    with pytest.raises(KeyboardInterrupt):
        references_of("lih")


def test_no_error_is_told_against_mp2_ccsd_or_hartree_fock(monkeypatch):
    monkeypatch.setattr(references, "MAX_FCI_DETERMINANTS", 10)
    found = diatomic("N", "N", 2.0)
    by_name = {r.name: r for r in found}
    assert by_name["MP2"].energy is not None
    assert by_name["CCSD(T)"].energy is None
    assert reference_energy(found) is None
    assert no_yardstick(found).startswith(
        "no error is told, there is no exact energy and no CCSD(T) to tell it against ("
    )
    assert "14400 determinants exceed the bound of 10" in no_yardstick(found)


@pytest.mark.parametrize(
    ("atoms", "distance", "says"), [("BN", 1.28, "T1 diagnostic is 0.06"), ("HH", 1.5, "double amplitude is 0.3")]
)
def test_ccsd_t_is_trusted_only_where_one_determinant_is_a_fair_start(monkeypatch, atoms, distance, says):
    monkeypatch.setattr(references, "MAX_FCI_DETERMINANTS", 1)
    found = {r.name: r for r in diatomic(*atoms, distance)}
    assert says in found["CCSD(T)"].reason
    assert found["CCSD"].energy is not None


def test_an_open_shell_beyond_fci_has_no_yardstick_and_the_reasons_are_told(monkeypatch):
    monkeypatch.setattr(references, "MAX_FCI_DETERMINANTS", 1)
    found = tuple(references_of("oh").values())
    assert reference_energy(found) is None
    assert "open shell" in no_yardstick(found)
    assert no_yardstick(()) is None
