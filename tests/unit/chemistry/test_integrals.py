from functools import partial

import numpy as np
import pytest

from simulator import memory
from simulator.chemistry import integrals
from simulator.chemistry.integrals import build_problem
from simulator.chemistry.molecules import load_molecule
from simulator.chemistry.scf import without_checkpoint
from simulator.engines.limits import check_run
from simulator.errors import InputError
from simulator.operators.hamiltonian import qubit_hamiltonian
from simulator.stages import Stages
from simulator.vqe.spec import make_spec


def problem(name, **given):
    spec = make_spec(load_molecule(name), **given)
    return build_problem(spec, Stages(), partial(check_run, spec))


def pyscf_scf(name, basis="sto-3g"):
    from pyscf import gto, scf

    molecule = load_molecule(name)
    atoms = list(zip(molecule.elements, molecule.geometry, strict=True))
    mol = gto.M(atom=atoms, basis=basis, charge=molecule.charge, spin=molecule.multiplicity - 1, verbose=0)
    return without_checkpoint((scf.RHF if mol.spin == 0 else scf.ROHF)(mol)).run()


@pytest.mark.parametrize("name", ["h2", "heh+", "lih", "h2o", "oh", "o2"])
def test_hartree_fock_energy_is_pyscfs(name):
    assert problem(name).hf_energy == pytest.approx(pyscf_scf(name).e_tot, abs=1e-7)


@pytest.mark.parametrize(("name", "electrons", "orbitals"), [("h2o", 4, 4), ("oh", 5, 4), ("n2", 6, 6)])
def test_active_space_has_pyscfs_casci_energy(name, electrons, orbitals):
    from pyscf import mcscf

    from simulator.chemistry.references import compute_references, reference_energy

    spec = make_spec(load_molecule(name), active_electrons=electrons, active_orbitals=orbitals)
    found = reference_energy(compute_references(build_problem(spec, Stages()), spec, Stages()))
    expected = mcscf.CASCI(pyscf_scf(name), orbitals, electrons).run(verbose=0).e_tot
    assert found == ("CASCI", pytest.approx(expected, abs=1e-7))


def test_frozen_core_leaves_the_oxygen_1s_out():
    frozen = problem("h2o", freeze_core=True)
    assert (frozen.n_core, frozen.norb, frozen.nelec) == (1, 6, (4, 4))
    assert frozen.active_orbitals == tuple(range(1, 7))


@pytest.mark.parametrize("name", ["nh3", "ch4", "n2", "o2"])
def test_two_scf_guesses_give_one_hamiltonian(name, mean_fields):
    first = qubit_hamiltonian(problem(name), "jordan_wigner", Stages())
    other = "vsap" if name == "n2" else "1e"  # N2 from bare nuclei ends in an excited state
    mean_fields(lambda mf, _: setattr(mf, "init_guess", other))
    second = qubit_hamiltonian(problem(name), "jordan_wigner", Stages())
    assert first.labels == second.labels
    np.testing.assert_allclose(first.coefficients, second.coefficients, atol=1e-8)


@pytest.mark.parametrize("name", ["nh3", "n2"])
def test_what_an_scf_leaves_to_chance_does_not_reach_the_hamiltonian(name, monkeypatch):
    first = qubit_hamiltonian(problem(name), "jordan_wigner", Stages())
    plain = integrals._converged_scf

    def scrambled(mol, spec):
        """Other signs, and degenerate orbitals in the other order."""
        from pyscf import lib

        found = plain(mol, spec)
        mf = found.mf
        order = np.arange(mol.nao)
        for k in np.flatnonzero(np.diff(mf.mo_energy) < 1e-6)[:1]:  # one pair: both is a symmetry of N2
            order[[k, k + 1]] = order[[k + 1, k]]
        assert np.any(order != np.arange(mol.nao)) or name == "nh3"  # its geometry is rounded: not quite degenerate
        signs = np.random.default_rng(0).choice([-1.0, 1.0], mol.nao)
        mf.mo_coeff = lib.tag_array(np.array(mf.mo_coeff)[:, order] * signs, orbsym=mf.mo_coeff.orbsym[order])
        return found

    monkeypatch.setattr(integrals, "_converged_scf", scrambled)
    assert qubit_hamiltonian(problem(name), "jordan_wigner", Stages()).labels == first.labels
    second = qubit_hamiltonian(problem(name), "jordan_wigner", Stages())
    np.testing.assert_allclose(first.coefficients, second.coefficients, atol=1e-9)


def test_equal_runs_give_equal_hamiltonian_ids():
    ids = {qubit_hamiltonian(problem("nh3"), "jordan_wigner", Stages()).hamiltonian_id for _ in range(2)}
    assert len(ids) == 1


def test_scf_that_does_not_converge_is_tried_without_symmetry(mean_fields):
    mean_fields(lambda mf, symmetry: setattr(mf, "max_cycle", 1 if symmetry else 50))
    retried = problem("h2o")
    assert retried.scf_retried
    assert retried.group == "C1"
    assert retried.hf_energy == pytest.approx(pyscf_scf("h2o").e_tot, abs=1e-7)


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("h2o", {"basis": "nonsense"}, "unknown basis 'nonsense' for O"),
        ("h2o", {"active_electrons": 4, "active_orbitals": 9}, "active space 4e,9o is larger than the molecule"),
        ("h2o", {"active_electrons": 10, "active_orbitals": 7, "freeze_core": True}, "reaches into the core"),
        ("h2o", {"basis": "cc-pv5z"}, "402 qubits are more than the 64"),
        ("h2o", {"basis": "cc-pvdz", "engine": "statevector"}, "statevector engine of 48 qubits needs 16.0 PiB"),
        ("lih", {"freeze_core": True, "active_electrons": 4, "active_orbitals": 6}, "reaches into the core"),
    ],
)
def test_what_cannot_be_run_is_refused(name, given, says):
    with pytest.raises(InputError) as error:
        problem(name, **given)
    assert says in str(error.value)


def test_memory_is_checked_with_the_number_before_the_scf(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 2**15)
    monkeypatch.setattr(integrals, "_scf", lambda mol: pytest.fail("the SCF was begun"))
    with pytest.raises(
        InputError,
        match=r"sector engine over 14400 determinants in 8 irreps needs \d+\.\d KiB of memory, 32\.0 KiB are",
    ):
        problem("co")
