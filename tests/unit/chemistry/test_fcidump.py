"""An FCIDUMP gives the integrals that were written, in every dialect, or one line that refuses it; a specification holds them."""

import base64
import itertools
import json
import random

import numpy as np
import pytest
from pyscf.tools import fcidump

from simulator.chemistry.formats.fcidump import parse_fcidump, read_fcidump
from simulator.chemistry.given_integrals import (
    MAX_ORBITALS,
    GivenIntegrals,
    n_packed,
    n_pairs,
    packed,
    pair_index,
)
from simulator.chemistry.molecules import Molecule, load_molecule
from simulator.chemistry.symmetrize import symmetrized
from simulator.errors import InputError
from simulator.runs.sweep import load_sweep
from simulator.vqe.spec import MAX_PARAMETERS, RunSpec, make_spec

HEAD = " &FCI NORB=2,NELEC=2,MS2=0,\n  ORBSYM=1,5,\n  ISYM=1,\n &END\n"
ROWS = (
    " 0.67571015480351 1 1 1 1\n 0.18121046201519 2 1 2 1\n 0.66458173025529 2 2 1 1\n 0.69857372273202 2 2 2 2\n"
    " -1.2563390730032 1 1 0 0\n -0.47189600728114 2 2 0 0\n 0.71996899444897 0 0 0 0\n"
)
H2 = HEAD + ROWS


def parsed(text):
    return parse_fcidump(text, "molecule h2.fcidump")


def refusal(text):
    with pytest.raises(InputError) as error:
        parsed(text)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith("molecule h2.fcidump: ")
    return message.removeprefix("molecule h2.fcidump: ")


def random_integrals(norb, seed, n_electrons=2):
    chance = random.Random(seed)
    values = lambda n: packed(round(chance.uniform(-1, 1), 10) for _ in range(n))  # noqa: E731
    return GivenIntegrals(norb, n_electrons, chance.uniform(-9, 9), values(n_pairs(norb)), values(n_packed(norb)))


def permutations(i, j, k, m):
    for first, second in (((i, j), (k, m)), ((k, m), (i, j))):
        for a, b in itertools.product({first, first[::-1]}, {second, second[::-1]}):
            yield (*a, *b)


def written(integrals, seed):
    """The integrals as a file: lines in any order, each under any permutation of its indices, some under all of them."""
    chance = random.Random(seed)
    norb, h1, two_body = integrals.norb, integrals.one_body_matrix().tolist(), integrals.two_body_packed().tolist()
    number = lambda v: chance.choice([f"{v!r}", f"{v:.17E}".replace("E", "D"), f"{v:24.16e},", f"{v:+.16f}"])  # noqa: E731
    lines = []
    pairs = list(itertools.combinations_with_replacement(range(1, norb + 1), 2))
    for first, second in itertools.combinations_with_replacement(pairs, 2):
        i, j, k, m = (*first, *second)
        value = two_body[pair_index(pair_index(i - 1, j - 1), pair_index(k - 1, m - 1))]
        ways = sorted(set(permutations(i, j, k, m)))
        for way in ways if chance.random() < 0.3 else [chance.choice(ways)]:
            lines.append(f"{number(value)} {' '.join(map(str, way))}")
    for i, j in pairs:
        way = chance.choice([(i, j), (j, i)])
        lines.append(f"{number(h1[i - 1][j - 1])}\t{way[0]} {way[1]} 0 0")
    lines += [f"{number(0.1 * i)} {i} 0 0 0" for i in range(1, norb + 1)]  # orbital energies
    lines.append(f"{number(integrals.core_energy)} 0 0 0 0")
    chance.shuffle(lines)
    head = chance.choice([
        f"&FCI NORB={norb},NELEC={integrals.n_electrons},MS2=0, &END", f"\n $FCI norb = {norb} nelec = {integrals.n_electrons}\n/",
        f" &fci\n  NELEC= {integrals.n_electrons}\n  NORB={norb}, ! orbitals\n  orbsym={norb}*1,\n  UHF=.FALSE.,\n &end",
    ])  # fmt: skip
    return "\n".join([head, *lines, ""])


@pytest.mark.parametrize("seed", range(30))
def test_what_was_written_in_any_order_and_dialect_is_read(seed):
    integrals = random_integrals(1 + seed % 4, seed)
    found = parsed(written(integrals, seed)).integrals
    assert (found.norb, found.n_electrons) == (integrals.norb, integrals.n_electrons)
    assert found.core_energy == pytest.approx(integrals.core_energy, abs=1e-15)
    assert found.one_body_matrix() == pytest.approx(integrals.one_body_matrix(), abs=1e-15)
    assert found.two_body_packed() == pytest.approx(integrals.two_body_packed(), abs=1e-15)


@pytest.mark.parametrize(("norb", "nelec", "ms"), [(3, 4, 0), (5, 5, 1), (6, 4, 2)])
def test_integrals_are_those_that_pyscf_reads(tmp_path, norb, nelec, ms):
    given = random_integrals(norb, norb)
    path = tmp_path / "FCIDUMP"
    fcidump.from_integrals(
        str(path), given.one_body_matrix(), given.two_body_packed(), norb, nelec, nuc=1.5, ms=ms, orbsym=[1] * norb
    )
    theirs, found = fcidump.read(str(path), verbose=False), read_fcidump(path, "f")
    assert (found.integrals.norb, found.integrals.n_electrons) == (theirs["NORB"], theirs["NELEC"])
    assert found.multiplicity == theirs["MS2"] + 1
    assert found.integrals.core_energy == theirs["ECORE"]
    assert np.array_equal(found.integrals.one_body_matrix(), theirs["H1"])
    assert np.array_equal(found.integrals.two_body_packed(), theirs["H2"])


@pytest.mark.parametrize(
    "head",
    [
        "&FCI NORB=2,NELEC=2,MS2=0,ORBSYM=1,5,ISYM=1,&END\n",
        "&FCI NORB=2,NELEC=2,MS2=0,ORBSYM=1,5,ISYM=1 /\n",
        " $FCI NORB=2,NELEC=2,MS2=0,ORBSYM=1,5,ISYM=1 $END\n",
        " $FCI NORB=2,NELEC=2,MS2=0,ORBSYM=1,5,ISYM=1 $\n",
        "\n\n&fci norb= 2 , nelec =2\nms2=  0\n orbsym=1,\n5\n isym=1\n&end\n",
        " &FCI NORB=   2,NELEC=  2,MS2= 0,\n  ORBSYM=1 5\n  ISYM=1,UHF=.FALSE.,IUHF=0\n /\n",
        " &FCI MEMORY=100000, NROOT=1, NORB=2, NELEC=2, MS2=0, ORBSYM=1*1,1*5, ISYM=1, KREL=0 ! of a program\n &END\n",
        "\ufeff&FCI NORB=+2 NELEC=2 ORBSYM=1 5 &END\n",
    ],
)
def test_every_dialect_of_the_namelist_means_the_same(tmp_path, head):
    path = tmp_path / "h2.FCIDUMP"
    path.write_text(head + ROWS, encoding="utf-8")
    found = load_molecule(str(path))
    assert found.integrals == parsed(H2).integrals
    assert (found.multiplicity, found.n_electrons, found.formula, found.elements) == (1, 2, "2e2o", ())


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        (H2, "", "empty: an FCIDUMP begins with &FCI"),
        (HEAD, "&FCI &END\n", "the &FCI namelist lacks NORB"),
        (HEAD, "2\n", "line 1: an FCIDUMP begins with &FCI, not with '2'"),
        (" &END\n", "", "line 1: the &FCI namelist has no end (&END or /)"),
        (" &END\n", " &END 0.5 1 1 1 1\n", "line 4: '0.5 1 1 1 1' stands behind the namelist's end"),
        ("&FCI ", "&FCI 3 ", "line 1: '3' is no KEY=VALUE"),
        ("NORB=2,", "", "the &FCI namelist lacks NORB"),
        ("NELEC=2,", "", "the &FCI namelist lacks NELEC"),
        ("NORB=2", "NORB=two", "line 1: NORB must be a whole number from 1 to 1000000, not 'two'"),
        ("NORB=2", "NORB=", "line 1: NORB must be a whole number from 1 to 1000000, not nothing"),
        ("NORB=2", "NORB=0", "line 1: NORB must be"),
        ("NORB=2", "NORB=23", "line 1: 23 orbitals are more than the 22 whose integrals a specification can hold"),
        ("NELEC=2", "NELEC=5", "line 1: NELEC must be a whole number from 1 to 4, not '5'"),
        ("MS2=0", "MS2=1", "line 1: MS2=1 is impossible with 2 electrons in 2 orbitals (0 to 2 in steps of 2)"),
        ("MS2=0", "MS2=4", "line 1: MS2=4 is impossible"),
        ("MS2=0", "MS2=0,MS2=2", "line 1: MS2 is given twice"),
        ("ORBSYM=1,5", "ORBSYM=1", "line 2: ORBSYM has 1 numbers for 2 orbitals"),
        ("ORBSYM=1,5", "ORBSYM=1,a1", "line 2: ORBSYM of orbital 2 must be a whole number, not 'a1'"),
        ("ORBSYM=1,5", "ORBSYM(1)=1", "line 2: ORBSYM(1)= gives a single element"),
        ("ORBSYM=1,5", "ORBSYM=99999999*1", "line 2: ORBSYM has '99999999*1', which is no COUNT*VALUE"),
        ("ISYM=1", "ISYM=9", "line 3: ISYM must be a whole number from 0 to 8, not '9'"),
        ("ISYM=1", "IUHF=1", "line 3: IUHF=1: spin-unrestricted integrals are not read"),
        ("ISYM=1", "UHF=.TRUE.", "line 3: UHF=.TRUE.: spin-unrestricted"),
        ("ISYM=1", "KREL=1", "line 3: KREL=1: relativistic integrals over spinors are not read"),
        ("ISYM=1", "NPROP=3 3 3", "line 3: NPROP=3,3,3: orbitals of momentum are complex"),
        ("ISYM=1", "COLOUR=1", "line 3: unknown key COLOUR (known are NORB, NELEC, MS2, ORBSYM, ISYM)"),
        (ROWS, "\n", "holds no integrals"),
        (" -1.2563390730032 1 1 0 0\n -0.47189600728114 2 2 0 0\n", "", "holds no one-electron integrals (is it cut short?)"),
        ("0.18121046201519 2 1 2 1", "0.18121046201519 2 1 2", "line 6: '0.18121046201519 2 1 2' is not a value and four"),
        ("0.18121046201519 2 1", "0.18121046201519 0.0 2 1", "line 6: '0.18121046201519 0.0 2 1 2 1': complex integrals"),
        ("0.18121046201519 2 1", "(0.181,0.0) 2 1", "line 6: '(0.181,0.0) 2 1 2 1': complex integrals are not read"),
        ("0.18121046201519", "NaN", "line 6: 'NaN' is not a finite number"),
        ("0.18121046201519", "inf", "line 6: 'inf' is not a finite number"),
        ("0.18121046201519", "1_0", "line 6: '1_0' is not a finite number"),
        ("0.18121046201519", "1e999", "line 6: 1e999 is no integral in hartree"),
        ("0.18121046201519", "-1e8", "line 6: -1e8 is no integral in hartree (at most 1e+07)"),
        ("2 1 2 1", "3 1 2 1", "line 6: index 3 is more than NORB=2"),
        ("2 1 2 1", "-2 1 2 1", "line 6: index '-2' is not a whole number from 0 to 2"),
        ("2 1 2 1", "2.5 1 2 1", "line 6: index '2.5' is not a whole number"),
        ("2 1 2 1", "2 1 2 0", "line 6: indices 2 1 2 0 mean nothing"),
        ("2 1 2 1", "0 1 0 0", "line 6: indices 0 1 0 0 mean nothing"),
        ("2 2 1 1", "2 1 2 1", "line 7: 2 1 2 1 stands in line 6 already"),
        ("2 2 1 1", "1 2 2 1", "line 7: 0.6645817303 differs from line 6's 0.181210462, which over real orbitals is the same"),
        ("2 2 0 0", "1 1 0 0", "line 10: 1 1 0 0 stands in line 9 already"),
        ("0.71996899444897", "0.0 0 0 0 0\n 0.71996899444897", "line 12: 0 0 0 0 stands in line 11 already (spin-unrestricted"),
    ],
)  # fmt: skip
def test_what_is_malformed_or_has_another_meaning_is_refused_with_its_line(before, after, says):
    assert H2.count(before) == 1
    assert says in refusal(H2.replace(before, after))


def test_a_file_larger_than_is_read_is_refused_for_its_orbitals(tmp_path):
    path = tmp_path / "large.fcidump"
    path.write_text(HEAD.replace("NORB=2", "NORB=60").replace("1,5", "60*1") + " 0.1 60 1 1 1\n" * 1_200_000)
    with pytest.raises(InputError, match="line 1: 60 orbitals are more than the 22"):
        load_molecule(str(path))


def test_whatever_is_damaged_in_a_file_is_one_line_or_a_hamiltonian():
    chance = random.Random(1)
    alphabet = "0123456789 .-+eEdD*,=&$/!()\n\tABNORSYM\u2212\u0663\x0c\x85'"
    refusals = []
    for _ in range(3_000):
        text = H2
        for _ in range(chance.randint(1, 3)):
            first, second = sorted(chance.randrange(len(text)) for _ in range(2))
            put = chance.choice((chance.choice(alphabet), text[first:second]))
            text = text[:first] + put + text[chance.choice((first, first + 1, second)) :]
        try:
            found = parsed(text)
        except InputError as error:
            refusals.append(str(error))
        else:
            Molecule("", (), (), 0, found.multiplicity, integrals=found.integrals)
    assert 1_000 < len(refusals) < 3_000
    assert all(line.startswith("molecule h2.fcidump: ") and "\n" not in line for line in refusals)


def test_numbers_may_be_fortrans(tmp_path):
    found = parsed(H2.replace("0.18121046201519", "1.8121046201519D-01").replace("-0.47189600728114", "-.5-100"))
    assert found.integrals.two_body_packed()[2] == 0.18121046201519
    assert found.integrals.one_body_matrix()[1, 1] == -0.5e-100


def test_what_a_file_leaves_open_is_told(tmp_path):
    assert parsed(H2.replace(" 0.71996899444897 0 0 0 0\n", "")).notes == (
        "the file holds no core energy: it is taken as 0",
    )
    assert parsed(H2.replace("MS2=0", "MS2=-2")).notes == ("MS2=-2 is read as 2: alpha and beta are interchangeable",)
    assert parsed(H2.replace("MS2=0", "MS2=-2")).multiplicity == 3
    assert parsed(H2.replace("NELEC=2,MS2=0,", "NELEC=3,")).multiplicity == 2
    found = parsed(H2.replace("ORBSYM=1,5", "ORBSYM=0,5"))
    assert found.integrals.orbsym == (1, 6)
    assert found.notes == ("ORBSYM counts from 0 and is read as PySCF's numbering",)
    found = parsed(H2.replace("ORBSYM=1,5", "ORBSYM=1,14"))
    assert found.integrals.orbsym is None
    assert found.notes == ("ORBSYM is not used: its numbers are none of Molpro's (1 to 8)",)


# --- the specification -----------------------------------------------------------------------------------------------


@pytest.fixture
def h2(tmp_path):
    path = tmp_path / "h2.fcidump"
    path.write_text(H2)
    return load_molecule(str(path))


def test_a_specification_holds_the_integrals_and_comes_back(h2):
    spec = make_spec(h2, mapper="parity")
    again = RunSpec.from_json(spec.canonical_json())
    assert again == spec
    assert (again.spec_id, again.molecule_id, again.problem_id) == (spec.spec_id, spec.molecule_id, spec.problem_id)
    assert (spec.elements, spec.geometry, spec.charge, spec.basis, spec.nelec) == ((), (), 0, "fcidump", (1, 1))
    assert spec.nuclear_repulsion is None


def test_ids_of_integrals_are_pinned_so_that_resumed_sweeps_find_their_results(h2):
    spec = make_spec(h2)
    assert spec.spec_id == "1c8b2129849012e9570613cac9f325150eafa23f5d255eef328e0da3c0e3cba3"
    assert spec.molecule_id == "76775a14a91986830318f423ffec2f60b9b7945b08d146173521f4ebb84eb68c"


def test_specifications_of_atoms_do_not_mention_integrals():
    assert "integrals" not in make_spec(load_molecule("h2")).canonical_json()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("0.18121046201519", "0.18121046201518"), ("-0.47189600728114", "-0.47189600728113"), ("0.71996899444897", "0.7"),
        ("ORBSYM=1,5", "ORBSYM=1,2"), ("NELEC=2", "NELEC=4"), ("MS2=0", "MS2=2"),
    ],
)  # fmt: skip
def test_every_number_of_the_file_is_part_of_the_ids(tmp_path, h2, before, after):
    path = tmp_path / "other.fcidump"
    path.write_text(H2.replace(before, after))
    ids = lambda spec: {spec.spec_id, spec.molecule_id, spec.problem_id}  # noqa: E731
    assert not ids(make_spec(h2)) & ids(make_spec(load_molecule(str(path))))


def test_a_zero_has_no_sign_in_the_id():
    plus, minus = (parsed(H2.replace("0.71996899444897", zero)).integrals for zero in ("0.0", "-0.0"))
    assert plus.sha256 == minus.sha256
    signed = lambda zero: parsed(H2.replace("0.18121046201519", zero)).integrals.sha256  # noqa: E731
    assert signed("0.0") == signed("-0.0")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"basis": "sto-3g"}, "h2.fcidump: basis sto-3g needs atoms, and integrals are all that an FCIDUMP holds"),
        ({"freeze_core": True}, "freeze core needs atoms"),
        ({"charge": 0}, "charge 0 needs atoms"),
        ({"natural_orbitals": 2}, "active space auto:2: natural orbitals are made from atoms"),
        ({"multiplicity": 2}, "multiplicity 2 is impossible with 2 electrons in 2 orbitals (use 1, 3)"),
        ({"multiplicity": 5}, "multiplicity 5 is impossible"),
        ({"active_electrons": 4, "active_orbitals": 2}, "active space 4e,2o is larger than the molecule: 2e2o has 2"),
        ({"integrals": 5}, "integrals must be given ones, not 5"),
        ({"elements": ("H",), "geometry": ((0, 0, 0),)}, "integrals stand in the place of atoms and charge, both were given"),
    ],
)  # fmt: skip
def test_what_needs_atoms_is_refused(h2, given, says):
    with pytest.raises(InputError) as error:
        make_spec(h2, **given)
    assert says in str(error.value)


def test_charge_symmetry_and_scale_need_atoms(tmp_path, h2):
    with pytest.raises(InputError, match="charge 1 needs atoms"):
        load_molecule(h2.name, charge=1)
    with pytest.raises(InputError, match="has integrals and no atoms to move"):
        symmetrized(h2)
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text("molecules:\n  - molecule: h2.fcidump\n    scale: [0.9, 1.0]\n")
    with pytest.raises(InputError, match=r"sweep.yaml:3: molecule .*h2.fcidump: scale needs atoms"):
        load_sweep(sweep)


def test_a_multiplicity_replaces_the_files(h2):
    assert load_molecule(h2.name, multiplicity=3).multiplicity == 3
    assert make_spec(h2, multiplicity=3).nelec == (2, 0)
    assert make_spec(h2, multiplicity=3).spec_id == make_spec(load_molecule(h2.name, multiplicity=3)).spec_id


def test_a_file_holds_one_hamiltonian(h2):
    assert load_molecule(f"{h2.name}#1").integrals == h2.integrals
    with pytest.raises(InputError, match="holds 1 molecule, there is no #2"):
        load_molecule(f"{h2.name}#2")


def test_a_sweep_takes_a_file_beside_it(tmp_path, h2, monkeypatch):
    (tmp_path / "sweep.yaml").write_text("molecules: [h2.fcidump, lih]\nmatrix: {mapper: [jordan_wigner, parity]}\n")
    monkeypatch.chdir("/")
    specs = [run.spec for run in load_sweep(tmp_path / "sweep.yaml").runs]
    assert [spec.molecule.formula for spec in specs] == ["2e2o", "2e2o", "HLi", "HLi"]


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("norb", 0, "norb must be a whole number from 1 to 22, not 0"),
        ("norb", 3, "one_body must be 6 numbers in 48 bytes, not 24 bytes"),
        ("norb", MAX_ORBITALS + 1, "norb must be"),
        ("n_electrons", 5, "2 orbitals hold at most 4 electrons"),
        ("core_energy", "1", "core_energy must hold finite numbers, not '1'"),
        ("core_energy", 1e9, "core_energy holds 1e+09, which is no energy"),
        ("one_body", "AAAA*", "one_body is not base64"),
        ("one_body", 3, "one_body is not base64"),
        ("two_body", base64.b64encode(np.full(6, np.nan).tobytes()).decode(), "two_body must hold finite numbers, not nan"),
        ("orbsym", [1], "1 irreps for 2 orbitals"),
        ("orbsym", [1, 9], "orbsym must be a whole number from 1 to 8, not 9"),
        ("orbsym", 1, "orbsym must be a list, not 1"),
        ("isym", True, "isym must be a whole number from 0 to 8, not True"),
        ("colour", 1, "integrals have unknown keys: colour"),
    ],
)  # fmt: skip
def test_integrals_of_a_specification_are_checked_wherever_it_comes_from(h2, key, value, says):
    values = make_spec(h2).to_dict()
    values["integrals"][key] = value
    with pytest.raises(InputError) as error:
        RunSpec.from_json(json.dumps(values))
    assert says in str(error.value)


@pytest.mark.parametrize("key", ["norb", "core_energy", "two_body"])
def test_integrals_that_lack_a_part_are_refused(h2, key):
    values = make_spec(h2).to_dict()
    del values["integrals"][key]
    with pytest.raises(InputError, match=f"integrals lack {key}"):
        RunSpec.from_json(json.dumps(values))


def test_integrals_that_are_no_object_are_refused(h2):
    with pytest.raises(InputError, match="integrals must be a JSON object, not 5"):
        RunSpec.from_json(json.dumps({**make_spec(h2).to_dict(), "integrals": 5}))


def test_an_initial_vector_has_the_room_that_integrals_leave(h2):
    assert make_spec(load_molecule("h2")).max_parameters == MAX_PARAMETERS
    most = make_spec(h2).max_parameters
    with pytest.raises(InputError, match=rf"initial vector has {most + 1} values \(1 to {most} are allowed\)"):
        make_spec(h2, initial_point="vector", initial_vector=(0.1,) * (most + 1))
