import pytest

from simulator import references
from simulator.integrals import build_problem, without_checkpoint
from simulator.molecules import load_molecule, published_energies
from simulator.references import compute_references, reference_energy
from simulator.spec import make_spec
from simulator.stages import Stages


def references_of(name, multiplicity=None, **given):
    spec = make_spec(load_molecule(name, multiplicity=multiplicity), **given)
    return {r.name: r for r in compute_references(build_problem(spec, Stages()), spec, Stages())}


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
