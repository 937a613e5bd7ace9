"""Integrals in place of atoms: the same energies as the molecule that they were made from, whatever the orbitals' order."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import scipy.linalg
from pyscf import ao2mo, fci, gto, scf
from pyscf.tools import fcidump
from samples import a_result, encoded_bytes

from simulator.chemistry import references
from simulator.chemistry.formats.fcidump import parse_fcidump
from simulator.chemistry.given_integrals import MAX_ORBITALS, GivenIntegrals, n_packed, n_pairs, packed
from simulator.chemistry.integrals import build_problem
from simulator.chemistry.molecules import Molecule, load_molecule
from simulator.chemistry.references import compute_references
from simulator.errors import InputError
from simulator.events.records import (
    MAX_RECORD_BYTES,
    Run,
    new_id,
    now_micros,
)
from simulator.operators.hamiltonian import qubit_hamiltonian
from simulator.operators.hamiltonian_files import fcidump_lines, molpro_irreps
from simulator.stages import Stages
from simulator.vqe.loop import minimize
from simulator.vqe.records import molecule_record, spec_record
from simulator.vqe.spec import make_spec

NAMES = ("h2", "lih", "h2o", "ch2")


def mean_field(name, symmetry=True):
    m = load_molecule(name)
    mol = gto.M(
        atom=list(zip(m.elements, m.geometry, strict=True)), charge=m.charge, spin=m.multiplicity - 1, symmetry=symmetry,
        verbose=0,
    )  # fmt: skip
    mf = (scf.RHF if mol.spin == 0 else scf.ROHF)(mol)
    mf.chkfile = None
    mf._chkfile.close()
    return mf.run(conv_tol=1e-12, conv_tol_grad=1e-8)


@pytest.fixture(scope="module")
def dumped(tmp_path_factory):
    """PySCF's FCIDUMP of each molecule, with Molpro's irreps."""
    folder = tmp_path_factory.mktemp("fcidump")
    for name in NAMES:
        fcidump.from_scf(mean_field(name), str(folder / f"{name}.fcidump"), molpro_orbsym=True)
    return folder


def given(folder, name, **options):
    return load_molecule(f"{folder}/{name}.fcidump", **options)


def references_of(spec):
    problem = build_problem(spec, Stages())
    return problem, {r.name: r for r in compute_references(problem, spec, Stages())}


def solved(spec):
    problem = build_problem(spec, Stages())
    references = compute_references(problem, spec, Stages())
    operator = qubit_hamiltonian(problem, spec.mapper, Stages())
    return minimize(
        spec, problem, operator, references, observe=lambda _: None, should_stop=lambda: False, stages=Stages()
    )


def pyscfs_fci(path, multiplicity=1):
    found = fcidump.read(str(path), verbose=False)
    spin = multiplicity - 1
    nelec = ((found["NELEC"] + spin) // 2, (found["NELEC"] - spin) // 2)
    solver = fci.addons.fix_spin(fci.direct_spin1.FCI(), ss=spin / 2 * (spin / 2 + 1))
    return solver.kernel(found["H1"], found["H2"], found["NORB"], nelec, ecore=found["ECORE"], tol=1e-12)[0]


def in_other_orbitals(molecule, coefficients, orbsym=None):
    """The molecule's integrals over the given mixtures of its orbitals, shape (norb, norb)."""
    old = molecule.integrals
    norb, c = old.norb, coefficients
    h1 = c.T @ old.one_body_matrix() @ c
    eri = ao2mo.restore(8, ao2mo.kernel(old.two_body_packed(), c), norb)
    new = replace(old, one_body=packed(h1[np.tril_indices(norb)]), two_body=packed(eri), orbsym=orbsym)
    return replace(molecule, integrals=new)


def rotation(norb, pairs, angle=0.3):
    generator = np.zeros((norb, norb))
    for p, q in pairs:
        generator[p, q], generator[q, p] = angle, -angle
    return scipy.linalg.expm(generator)


@pytest.mark.parametrize("name", NAMES)
def test_references_are_those_of_the_molecule_and_fci_is_pyscfs(dumped, name):
    molecule = given(dumped, name)
    problem, found = references_of(make_spec(molecule))
    its_problem, expected = references_of(make_spec(load_molecule(name)))
    assert problem.nelec == its_problem.nelec
    assert problem.active_orbitals == its_problem.active_orbitals
    for reference in ("HF", "MP2", "CCSD", "FCI", "sector_minimum"):
        if expected[reference].energy is None:
            assert found[reference].reason == expected[reference].reason
        else:
            assert found[reference].energy == pytest.approx(expected[reference].energy, abs=1e-8), reference
    assert found["FCI"].energy == pytest.approx(pyscfs_fci(dumped / f"{name}.fcidump", molecule.multiplicity), abs=1e-8)
    assert found["FCI"].hf_irrep_weight == expected["FCI"].hf_irrep_weight == 1
    assert found["published"].reason == "integrals were given, and no geometry to look up"


@pytest.mark.parametrize("name", NAMES)
def test_a_run_ends_where_that_of_the_molecule_ends(dumped, name):
    found, expected = solved(make_spec(given(dumped, name))), solved(make_spec(load_molecule(name)))
    assert found.energy == pytest.approx(expected.energy, abs=1e-8)
    assert (found.n_parameters, found.labels) == (expected.n_parameters, expected.labels)  # ORBSYM screens alike
    assert (found.verdict.physical, found.converged) == (True, True)
    assert found.verdict.s_squared == pytest.approx(expected.verdict.s_squared, abs=1e-6)


@pytest.mark.parametrize("options", [{}, {"mapper": "parity", "ansatz": "efficient_su2", "max_iterations": 3}])
def test_mappings_and_ansatze_take_integrals_too(dumped, options):
    found, expected = (
        solved(make_spec(given(dumped, "h2"), **options)),
        solved(make_spec(load_molecule("h2"), **options)),
    )
    assert found.energy == pytest.approx(expected.energy, abs=1e-8)


def test_orbitals_in_the_order_of_irreps_have_the_same_reference_and_energies(dumped):
    """As Molpro writes them: the first five are no determinant that anybody means."""
    molecule = given(dumped, "h2o")
    order = np.argsort(molecule.integrals.orbsym, kind="stable")
    assert list(order) != sorted(order)
    labels = tuple(molecule.integrals.orbsym[i] for i in order)
    problem, found = references_of(make_spec(in_other_orbitals(molecule, np.eye(7)[:, order], labels)))
    _, expected = references_of(make_spec(molecule))
    for name in ("HF", "MP2", "CCSD", "FCI"):
        assert found[name].energy == pytest.approx(expected[name].energy, abs=1e-8)
    assert problem.orbsym.max() > 0
    # four of irrep 1, two of the next, one of the third: the last one is occupied, the fourth and the sixth are empty
    assert problem.active_orbitals == tuple(i for i in range(7) if order[i] < 5) + tuple(
        i for i in range(7) if order[i] >= 5
    )
    assert (
        "reference determinant: orbitals 1, 2, 3, 5, 6 are occupied" in problem.notes[1]
        or "1, 2, 3, 5, 7" in problem.notes[1]
    )


def test_orbitals_of_an_open_shell_in_any_order_have_the_same_reference(dumped):
    molecule = given(dumped, "ch2")
    order = np.array([6, 4, 2, 0, 5, 3, 1])
    labels = tuple(molecule.integrals.orbsym[i] for i in order)
    problem, found = references_of(make_spec(in_other_orbitals(molecule, np.eye(7)[:, order], labels)))
    _, expected = references_of(make_spec(molecule))
    assert [int(order[i]) for i in problem.active_orbitals] == [2, 0, 1, 4, 3, 6, 5]
    for name in ("HF", "FCI", "sector_minimum"):
        assert found[name].energy == pytest.approx(expected[name].energy, abs=1e-8)


def test_mp2_of_localized_orbitals_is_that_of_canonical_ones_and_it_is_told(dumped):
    molecule = given(dumped, "h2o")
    mixed = in_other_orbitals(molecule, rotation(7, [(0, 1), (1, 3), (2, 4), (5, 6)]))
    problem, found = references_of(make_spec(mixed))
    _, expected = references_of(make_spec(molecule))
    for name in ("HF", "MP2", "CCSD", "FCI"):
        assert found[name].energy == pytest.approx(expected[name].energy, abs=1e-8), name
    assert any(note.startswith("orbitals are not canonical") for note in problem.notes)
    assert -1e-8 < solved(make_spec(mixed)).energy - expected["FCI"].energy < 1.6e-3


def test_orbitals_that_are_not_hartree_focks_have_no_mp2_and_the_same_fci(dumped):
    molecule = given(dumped, "h2o")
    mixed = in_other_orbitals(molecule, rotation(7, [(3, 5), (4, 6)], 0.1))
    problem, found = references_of(make_spec(mixed))
    _, expected = references_of(make_spec(molecule))
    assert found["MP2"].energy is None
    assert found["MP2"].reason.startswith("the given orbitals are not Hartree-Fock orbitals: the Fock matrix joins")
    assert found["HF"].energy > expected["HF"].energy + 1e-3
    assert found["FCI"].energy == pytest.approx(expected["FCI"].energy, abs=1e-8)
    assert any(note.startswith("orbitals are not Hartree-Fock orbitals") for note in problem.notes)
    assert -1e-8 < solved(make_spec(mixed)).energy - expected["FCI"].energy < 1.6e-3


def test_orbitals_that_are_not_hartree_focks_have_no_triples_either(dumped, monkeypatch):
    monkeypatch.setattr(references, "MAX_FCI_DETERMINANTS", 1)
    mixed = in_other_orbitals(given(dumped, "h2o"), rotation(7, [(3, 5), (4, 6)], 0.01))
    _, found = references_of(make_spec(mixed))
    assert found["CCSD"].energy is not None
    assert found["CCSD(T)"].energy is None
    assert found["CCSD(T)"].reason.startswith("the given orbitals are not Hartree-Fock orbitals")
    _, found = references_of(make_spec(given(dumped, "h2o")))
    assert found["CCSD(T)"].energy is not None


def test_a_degenerate_set_that_is_cut_is_told_by_the_files_numbers(dumped):
    order = np.array([5, 3, 0, 1, 2, 4])  # 4 and 5 of LiH's orbitals are a pair
    mixed = in_other_orbitals(given(dumped, "lih"), np.eye(6)[:, order])
    (note,) = build_problem(make_spec(mixed, active_electrons=2, active_orbitals=3), Stages()).notes[2:]
    assert "orbital 2 inside, 6 outside, so the energy depends on which mixture of them the integrals are over" in note
    assert note.endswith("(choose whole sets, e.g. orbitals 2,4,5,6)")


def test_ccsd_over_any_orbitals_is_exact_for_two_electrons(dumped):
    _, found = references_of(make_spec(in_other_orbitals(given(dumped, "h2"), rotation(2, [(0, 1)], 0.2))))
    assert found["CCSD"].energy == pytest.approx(found["FCI"].energy, abs=1e-8)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", ["lih", "ch2"])
def test_the_reference_determinant_is_the_lowest_of_all_where_orbitals_are_any(dumped, name, seed):
    """Counted out over every choice of doubly and singly occupied orbitals."""
    whole = given(dumped, name)
    norb = whole.integrals.norb
    turned = rotation(norb, list(combinations(range(norb), 2)), 0.15)
    order = np.random.default_rng(seed).permutation(norb)
    molecule = in_other_orbitals(whole, turned[:, order])
    spec = make_spec(molecule)
    h1, eri = molecule.integrals.one_body_matrix(), ao2mo.restore(1, molecule.integrals.two_body_packed(), norb)
    coulomb, exchange = np.einsum("ppqq->pq", eri), np.einsum("pqqp->pq", eri)

    def energy(doubly, singly):
        alpha, beta = [*doubly, *singly], list(doubly)
        total = alpha + beta
        two = coulomb[np.ix_(total, total)].sum()
        two -= exchange[np.ix_(alpha, alpha)].sum() + exchange[np.ix_(beta, beta)].sum()
        return h1.diagonal()[total].sum() + 0.5 * two + molecule.integrals.core_energy

    n_alpha, n_beta = spec.nelec
    lowest = min(
        energy(doubly, singly)
        for doubly in combinations(range(norb), n_beta)
        for singly in combinations([i for i in range(norb) if i not in doubly], n_alpha - n_beta)
    )
    assert build_problem(spec, Stages()).hf_energy == pytest.approx(lowest, abs=1e-6)


@pytest.mark.parametrize(
    ("labels", "note"),
    [
        (None, None),
        ((1,) * 7, None),
        ((1, 2, 3, 1, 2, 1, 3), "ORBSYM is not used: an integral of"),
    ],
)
def test_irreps_that_the_integrals_break_are_not_used(dumped, labels, note):
    molecule = given(dumped, "h2o")
    problem, found = references_of(make_spec(in_other_orbitals(molecule, np.eye(7), labels)))
    assert problem.orbsym.tolist() == [0] * 7
    assert [n.startswith(note) for n in problem.notes[1:]] == [True] if note else len(problem.notes) == 1
    _, expected = references_of(make_spec(molecule))
    assert found["FCI"].energy == pytest.approx(expected["FCI"].energy, abs=1e-8)


def test_pyscfs_own_numbering_of_irreps_is_as_good(tmp_path, dumped):
    path = tmp_path / "h2o.fcidump"
    fcidump.from_scf(mean_field("h2o"), str(path))
    theirs, ours = solved(make_spec(load_molecule(str(path)))), solved(make_spec(given(dumped, "h2o")))
    assert (theirs.n_parameters, theirs.energy) == (ours.n_parameters, pytest.approx(ours.energy, abs=1e-10))


def test_a_state_that_the_file_asks_for_and_the_run_does_not_is_told(dumped):
    (note,) = build_problem(make_spec(given(dumped, "ch2")), Stages()).notes[1:]
    assert note.startswith("ISYM=1 is not followed: the reference determinant has irrep 2")
    assert len(build_problem(make_spec(given(dumped, "h2o")), Stages()).notes) == 1


@pytest.mark.parametrize(
    ("name", "choice"),
    [
        ("h2o", {"active_electrons": 4, "active_orbitals": 4}),
        ("h2o", {"active_electrons": 8, "active_orbitals": 6}),
        ("h2o", {"orbitals": ("2", "4", "5", "7")}),
        ("ch2", {"active_electrons": 6, "active_orbitals": 6}),
        ("ch2", {"orbitals": ("3", "4", "5", "6")}),
    ],
)
def test_active_spaces_are_those_of_the_molecule(dumped, name, choice):
    problem, found = references_of(make_spec(given(dumped, name), **choice))
    its_problem, expected = references_of(make_spec(load_molecule(name), **choice))
    assert (problem.active_orbitals, problem.nelec) == (its_problem.active_orbitals, its_problem.nelec)
    assert problem.energy_offset == pytest.approx(its_problem.energy_offset, abs=1e-8)
    for reference in ("HF", "CASCI", "MP2"):
        if expected[reference].energy is not None:
            assert found[reference].energy == pytest.approx(expected[reference].energy, abs=1e-8), reference


def test_an_active_space_by_energy_does_not_depend_on_the_files_order(dumped):
    molecule, order = given(dumped, "h2o"), np.array([4, 0, 6, 1, 2, 5, 3])
    shuffled = in_other_orbitals(molecule, np.eye(7)[:, order])
    space = {"active_electrons": 4, "active_orbitals": 3}
    problem, found = references_of(make_spec(shuffled, **space))
    _, expected = references_of(make_spec(molecule, **space))
    assert sorted(order[i] for i in problem.active_orbitals) == [3, 4, 5]
    assert found["CASCI"].energy == pytest.approx(expected["CASCI"].energy, abs=1e-8)
    by_number = tuple(str(i + 1) for i in sorted(problem.active_orbitals))
    _, chosen = references_of(make_spec(shuffled, orbitals=by_number))
    assert chosen["CASCI"].energy == pytest.approx(expected["CASCI"].energy, abs=1e-8)


@pytest.mark.parametrize(
    ("name", "choice", "says"),
    [
        ("h2o", {"orbitals": ("2a1",)}, "orbitals: 2a1 is a name, and an FCIDUMP tells no point group"),
        ("h2o", {"orbitals": ("5", "8")}, "orbitals: 8 is more than the 7 of the integrals"),
        ("h2o", {"orbitals": ("6", "7")}, "orbitals 6,7: none of them holds an electron (occupied are 1, 2, 3, 4, 5)"),
        ("ch2", {"orbitals": ("3", "4", "6")}, "orbitals 3,4,6: the singly occupied 5 must be among them"),
        ("h2o", {"active_electrons": 4, "active_orbitals": 5}, "4e,5o is larger than the molecule: 10e7o in fcidump has 7"),
    ],
)  # fmt: skip
def test_an_active_space_that_does_not_fit_is_refused(dumped, name, choice, says):
    with pytest.raises(InputError) as error:
        build_problem(make_spec(given(dumped, name), **choice), Stages())
    assert says in str(error.value)


def test_another_multiplicity_is_that_state_of_the_same_electrons(dumped):
    problem, found = references_of(make_spec(given(dumped, "h2o", multiplicity=3)))
    assert problem.nelec == (6, 4)
    assert found["FCI"].energy == pytest.approx(pyscfs_fci(dumped / "h2o.fcidump", 3), abs=1e-8)
    assert found["FCI"].s_squared == pytest.approx(2)


def test_no_other_scf_solution_is_looked_for_where_the_orbitals_are_given(dumped):
    assert make_spec(given(dumped, "ch2")).spec_version == 1
    assert make_spec(given(dumped, "h2o", multiplicity=5)).spec_version == 1


# --- writing ---------------------------------------------------------------------------------------------------------

WATER = Molecule("", ("O", "H", "H"), ((0, 0, 0), (0, 0, 0.96), (0.93, 0, -0.24)))


@pytest.mark.parametrize(
    ("name", "choice"),
    [
        ("h2o", {}), ("h2o", {"active_electrons": 4, "active_orbitals": 4}), ("lih", {"freeze_core": True}),
        ("lih", {"orbitals": ("2", "3", "6")}), ("ch2", {}), ("oh", {"freeze_core": True}), ("h4-square", {}),
        ("h2o", {"natural_orbitals": 4}),
    ],
)  # fmt: skip
def test_what_is_written_reads_back_to_the_same_problem_and_energy(tmp_path, name, choice):
    spec = make_spec(load_molecule(name), **choice)
    problem = build_problem(spec, Stages())
    path = tmp_path / "w.fcidump"
    path.write_text("\n".join(fcidump_lines(problem)))
    again = make_spec(load_molecule(str(path)))
    read = build_problem(again, Stages())
    assert (read.norb, read.nelec) == (problem.norb, problem.nelec)
    assert read.hf_energy == pytest.approx(problem.hf_energy, abs=1e-10)
    assert len(read.notes) == 1  # the file's first orbitals are the reference, canonical, of irrep ISYM
    for part in ("h1", "eri", "energy_offset", "mo_ea", "mo_eb"):
        assert getattr(read, part) == pytest.approx(getattr(problem, part), abs=1e-13), part
    assert solved(again).energy == pytest.approx(solved(spec).energy, abs=1e-10)
    theirs = fcidump.read(str(path), molpro_orbsym=True, verbose=False)
    assert theirs["ECORE"] == problem.energy_offset
    assert np.abs(theirs["H1"] - problem.h1).max() < 1e-14
    assert np.abs(theirs["H2"] - problem.eri).max() < 1e-14


@pytest.mark.parametrize(
    ("molecule", "group"),
    [
        (load_molecule("h2o"), "C2v"), (load_molecule("n2"), "Dooh"), (load_molecule("lih"), "Coov"),
        (load_molecule("h4-square"), "D2h"), (replace(WATER, elements=("O", "H", "F")), "Cs"),
        (Molecule("", ("C",), ((0, 0, 0),), 0, 3), "SO3"),
        (Molecule("", ("H", "O", "O", "H"), ((0.8, 0.9, 0.4), (0, 0.7, 0), (0, -0.7, 0), (-0.8, -0.9, 0.4))), "C2"),
        (Molecule("", ("F", "N", "N", "F"), ((-0.3, 1.6, 0), (0.5, 0.4, 0), (-0.5, -0.4, 0), (0.3, -1.6, 0))), "C2h"),
    ],
)  # fmt: skip
def test_irreps_are_written_as_pyscf_converts_them_to_molpros(molecule, group):
    problem = build_problem(make_spec(molecule), Stages())
    assert problem.group == group
    subgroup = {"Dooh": "D2h", "Coov": "C2v", "SO3": "D2h"}.get(group, group)
    assert molpro_irreps(problem) == tuple(fcidump.ORBSYM_MAP[subgroup][i] for i in problem.orbsym)
    read = parse_fcidump("\n".join(fcidump_lines(problem)), "f").integrals
    assert (
        build_problem(make_spec(Molecule("", (), (), 0, molecule.multiplicity, integrals=read)), Stages()).group
        == "unknown"
    )


# --- the size of records ---------------------------------------------------------------------------------------------


def test_no_record_is_larger_than_the_limit_at_the_most_orbitals_and_parameters():
    values = lambda n: packed([-0.123456789012345678] * n)  # noqa: E731
    integrals = GivenIntegrals(
        MAX_ORBITALS, 20, -1.5, values(n_pairs(MAX_ORBITALS)), values(n_packed(MAX_ORBITALS)), (8,) * MAX_ORBITALS
    )
    molecule = Molecule("", (), (), 0, 1, integrals=integrals)
    n = make_spec(molecule).max_parameters
    assert n > 1_000
    spec = make_spec(molecule, initial_point="vector", initial_vector=(-0.123456789012345678,) * n)
    result = a_result(n, spec=spec_record(spec), spec_json=spec.canonical_json(), notes=["a note" * 100] * 10)
    run = Run(
        run_id=new_id(), recorded_at=now_micros(), spec_id=spec.spec_id, molecule_id=spec.molecule_id,
        problem_id=spec.problem_id, sweep_id="s" * 1000, attempt=1, molecule_name="m" * 1000,
        molecule=molecule_record(spec.molecule), spec=spec_record(spec), spec_json=spec.canonical_json(), host="host",
        process_id=1, versions={"python": "3"},
    )  # fmt: skip
    assert max(map(encoded_bytes, (result, run))) < MAX_RECORD_BYTES


def test_parameters_that_have_no_room_beside_the_integrals_are_refused(dumped, monkeypatch):
    monkeypatch.setattr("simulator.vqe.spec.RECORD_ROOM", 5_000)
    spec = make_spec(given(dumped, "h2o"))
    with pytest.raises(
        InputError, match=r"ansatz uccsd has \d+ parameters here, at most \d+ are allowed beside the integrals of 7"
    ):
        solved(spec)
