"""Each format gives the molecule that was written, or one line that refuses it."""

import itertools
import json
import math
import random

import pytest

from simulator.chemistry.elements import ATOMIC_NUMBERS
from simulator.chemistry.molecules import BOHR, Molecule, load_molecule, molecule_from_atoms
from simulator.errors import InputError

H2 = "H 0 0 0\nH 0 0 1.4\n"
ELEMENTS = ("H", "He", "Li", "Be", "B", "C", "N", "O", "F", "Na", "Mg", "Al", "Si", "P", "S", "Cl", "K", "Ca", "Br")


def read(tmp_path, text, name="given.xyz", entry="", **options):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_molecule(f"{path}{entry}", **options)


def refusal(tmp_path, text, name="given.xyz", entry="", **options):
    with pytest.raises(InputError) as error:
        read(tmp_path, text, name, entry, **options)
    message = str(error.value)
    assert "\n" not in message
    assert name in message
    return message


def xyz(comment, rows=H2):
    return f"{len(rows.splitlines())}\n{comment}\n{rows}"


def random_molecules(count):
    """Molecules of one to six atoms on a grid of 1e-4 angstrom, ions and open shells among them."""
    chance = random.Random(20)
    while count:
        elements = [chance.choice(ELEMENTS) for _ in range(chance.randint(1, 6))]
        geometry = [tuple(chance.randint(-40_000, 40_000) / 1e4 for _ in range(3)) for _ in elements]
        charge = chance.choice((0, 0, 1, -1, 2))
        electrons = sum(ATOMIC_NUMBERS[e] for e in elements) - charge
        multiplicity = 1 + electrons % 2 + 2 * chance.choice((0, 0, 1))
        close = any(math.dist(a, b) < 0.3 for a, b in itertools.combinations(geometry, 2))
        if electrons < multiplicity or close:
            continue
        count -= 1
        yield Molecule("m", tuple(elements), tuple(geometry), charge, multiplicity)


def rows_of(m, number="{:.4f}".format, scale=1.0, element=lambda i, e: e, join=" ".join):
    return [
        join([element(i, e), *(number(x * scale) for x in xyz)])
        for i, (e, xyz) in enumerate(zip(m.elements, m.geometry, strict=True), start=1)
    ]


def state(m, form):
    return form.format(q=m.charge, m=m.multiplicity, unpaired=m.multiplicity - 1)


STATES = (
    "charge={q} multiplicity={m}", "charge = {q}, mult = {m}", "charge: {q} multiplicity: {m}", "{q} {m}",
    "Charge={q:+d} MULT={m}", "total charge {q}; spin multiplicity {m}", 'charge="{q}" unpaired={unpaired}',
    "energy=-76.4 charge={q}.0 2S+1={m} config=7", "water, chg={q} mult={m}",
)  # fmt: skip


def written_xyz(m):
    """The molecule in every dialect of XYZ, and what the dialect is."""
    n, plain = len(m.elements), rows_of(m)
    said = state(m, STATES[0])
    for form in STATES:
        yield form, "\n".join([str(n), state(m, form), *plain])
    bohr = rows_of(m, "{:.12f}".format, 1 / BOHR)
    for form in ("units=bohr {}", "{} units: au", "{}, in bohr", "{} unit bohr", "{}; coordinates in bohr"):
        yield form, "\n".join([str(n), form.format(said), *bohr])
    for unit in ("bohr", "au", "a.u."):
        yield f"line 1 {unit}", "\n".join([f"{n} {unit}", said, *bohr])
    yield "line 1 angstrom", "\n".join([f"{n} angstrom", said, *plain])
    yield "crlf, bom, tabs", "\ufeff" + "\r\n".join([str(n), said, *rows_of(m, join="\t".join), "", ""])
    yield "commas", "\n".join([str(n), said, *rows_of(m, join=", ".join)])
    yield "fortran", "\n".join([str(n), said, *rows_of(m, lambda x: f"{x:.8E}".replace("E", "D"))])
    yield "mathematica", "\n".join([str(n), said, *rows_of(m, lambda x: f"{x:.8e}".replace("e", "*^"))])
    yield "unicode minus", "\n".join([str(n), said, *rows_of(m, lambda x: f"{x:.4f}".replace("-", "\N{MINUS SIGN}"))])
    yield "all of it", "\n".join([str(n), said, *rows_of(m, lambda x: f"{x:.8E}".replace("E", "d").replace("-", "\N{MINUS SIGN}"))])  # fmt: skip
    yield "labels", "\n".join([str(n), said, *rows_of(m, element=lambda i, e: f"{e}{i}")])
    yield "lower case", "\n".join([str(n), said, *rows_of(m, element=lambda i, e: e.lower())])
    yield "capitals", "\n".join([str(n), said, *rows_of(m, element=lambda i, e: e.upper())])
    yield "numbers", "\n".join([str(n), said, *rows_of(m, element=lambda i, e: str(ATOMIC_NUMBERS[e]))])
    yield "gamess", "\n".join([str(n), said, *rows_of(m, element=lambda i, e: f"{e} {ATOMIC_NUMBERS[e]}.0")])
    fields = {
        "species:S:1": lambda i, e, p: e, "pos:R:3": lambda i, e, p: " ".join(map(str, p)),
        "Z:I:1": lambda i, e, p: str(ATOMIC_NUMBERS[e]), "forces:R:3": lambda i, e, p: "0.1 -0.2 0.3",
    }  # fmt: skip
    for order in itertools.permutations(fields):
        atoms = enumerate(zip(m.elements, m.geometry, strict=True), start=1)
        rows = [" ".join(fields[f](i, e, p) for f in order) for i, (e, p) in atoms]
        yield f"extxyz {order}", "\n".join([str(n), f'Properties={":".join(order)} pbc="F F F" {said}', *rows])


def written_mol(m):
    """V2000 with the charge on the first atom, in both ways; None where it does not fit."""
    if abs(m.charge) > 3:
        return
    codes = {0: 0, 3: 1, 2: 2, 1: 3, -1: 5, -2: 6, -3: 7}
    for lines_of_properties in (False, True):
        rows = []
        for i, (e, (x, y, z)) in enumerate(zip(m.elements, m.geometry, strict=True)):
            code = codes[m.charge] if i == 0 and not lines_of_properties else 0
            # The valence 15 means no hydrogens of its own.
            rows.append(f"{x:10.4f}{y:10.4f}{z:10.4f} {e:<3} 0{code:3d}  0  0  0 15  0  0  0  0  0  0")
        head = ["m", "  program 3D", f"multiplicity={m.multiplicity}", f"{len(m.elements):3d}  0  0  0  0  0            999 V2000"]  # fmt: skip
        tail = [f"M  CHG  1   1{m.charge:4d}"] if lines_of_properties and m.charge else []
        yield "\n".join([*head, *rows, *tail, "M  END", ""])


def written_json(m):
    atoms = [[e, *p] for e, p in zip(m.elements, m.geometry, strict=True)]
    bohr = [[x / BOHR for x in p] for p in m.geometry]
    own = {"units": "angstrom", "atoms": atoms, "charge": m.charge, "multiplicity": m.multiplicity}
    lists = {"name": "m", "symbols": list(m.elements), "coords": m.geometry, "charge": m.charge,
             "multiplicity": m.multiplicity, "units": "angstrom", "masses": [1.0] * len(atoms), "expected_qubits": 4}  # fmt: skip
    schema = {"schema_name": "qcschema_molecule", "schema_version": 2, "symbols": m.elements, "geometry": [x for p in bohr for x in p],
              "molecular_charge": float(m.charge), "molecular_multiplicity": m.multiplicity, "real": [True] * len(atoms)}  # fmt: skip
    nested = {"schema_name": "qcschema_input", "schema_version": 1, "driver": "energy",
              "molecule": {k: v for k, v in schema.items() if not k.startswith("schema_")}}  # fmt: skip
    yield from (
        own,
        lists,
        [lists],
        lists | {"coords": bohr, "units": "bohr"},
        schema,
        schema | {"geometry": bohr},
        nested,
    )


def assert_same(found, wanted, where):
    assert (found.elements, found.charge, found.multiplicity) == (wanted.elements, wanted.charge, wanted.multiplicity), where  # fmt: skip
    distance = max(math.dist(a, b) for a, b in zip(found.geometry, wanted.geometry, strict=True))
    assert distance < 1e-9, where


def test_every_molecule_read_back_is_the_same_or_refused(tmp_path):
    read_back, refused = 0, []
    for m in random_molecules(12):
        files = [(f"xyz {what}", text, "m.xyz") for what, text in written_xyz(m)]
        files += [("mol", text, "m.mol") for text in written_mol(m)]
        files += [("json", json.dumps(value), "m.json") for value in written_json(m)]
        for what, text, name in files:
            try:
                found = read(tmp_path, text, name)
            except InputError:
                refused.append(what)
                continue
            read_back += 1
            assert_same(found, m, (what, text))
        text = "; ".join(rows_of(m))
        assert_same(molecule_from_atoms(text, charge=m.charge, multiplicity=m.multiplicity), m, text)
    assert read_back > 12 * 50
    # Capitals may be labels, numbers in order may number atoms; all else is plain.
    assert set(refused) <= {"xyz capitals", "xyz numbers", "xyz gamess"}
    assert len(refused) < 12


def test_frames_and_records_are_chosen_by_number(tmp_path):
    frames = [xyz(f"frame {i}", f"H 0 0 0\nH 0 0 {0.7 + i / 10}") + "\n" for i in range(3)]
    for text in ("".join(frames), "\n".join(frames)):
        assert "holds 3 molecules (frames); choose one" in refusal(tmp_path, text)
        assert read(tmp_path, text, entry="#3").geometry[1][2] == pytest.approx(0.9)
        assert "there is no #4" in refusal(tmp_path, text, entry="#4")
        assert "there is no #0" in refusal(tmp_path, text, entry="#0")
    lists = [{"name": f"m{i}", "symbols": ["H", "H"], "coords": [[0, 0, 0], [0, 0, i]], "units": "angstrom"} for i in (1, 2)]  # fmt: skip
    assert read(tmp_path, json.dumps(lists), "m.json", "#2").name == "m2"
    assert "choose one" in refusal(tmp_path, json.dumps(lists), "m.json")
    record = next(written_mol(Molecule("", ("He",), ((0.0, 0.0, 0.0),))))
    other = next(written_mol(Molecule("", ("Ne",), ((0.0, 0.0, 0.0),))))
    assert read(tmp_path, f"{record}$$$$\n{other}$$$$\n", "m.sdf", "#2").formula == "Ne"
    assert "holds 2" in refusal(tmp_path, f"{record}$$$$\n{other}$$$$\n", "m.sdf")
    assert read(tmp_path, xyz(""), "odd#2.xyz").formula == "H2"  # a number sign within a name is part of it
    (tmp_path / "both.xyz").write_text("".join(frames))
    assert "unknown molecule format .xyz#2" in refusal(tmp_path, xyz(""), "both.xyz#2")  # not both.xyz' second frame


def test_a_frame_that_is_cut_short_is_refused_whichever_is_chosen(tmp_path):
    text = xyz("one") + "2\ntwo\nH 0 0 0\n"
    assert "promises 2 atoms, the file has 1" in refusal(tmp_path, text, entry="#1")
    assert "neither an atom nor another frame" in refusal(tmp_path, xyz("one") + "Mulliken 1\n")
    assert "promises 2 atoms, the file has 3" in refusal(tmp_path, xyz("one") + "H 0 0 5\n")


@pytest.mark.parametrize(
    ("comment", "charge", "multiplicity", "bohr"),
    [
        ("", 0, 1, False),
        ("free text, R = 0.735 Angstrom, B3LYP/6-31G(d) energy=-1.13 au", 0, 1, False),
        ("E=-1.13 a.u. at 3:12 pm, multiple steps of a discharge", 0, 1, False),
        ("0 3", 0, 3, False),
        ("-1 2", -1, 2, False),
        ("triplet state", 0, 3, False),
        ("neutral singlet", 0, 1, False),
        ("chg=1 spin=1", 1, 2, False),  # 2S: one electron leaves no other reading
        ("charge=1 spin=1/2", 1, 2, False),
        ("spin=0", 0, 1, False),
        ("charge=1+", 1, 2, False),
        ("cation with charge +1", 1, 2, False),
        ("charge = \N{MINUS SIGN}1", -1, 2, False),
        ("water, in bohr", 0, 1, True),
        ("Units are Bohr", 0, 1, True),
        ("coordinates (a.u.)", 0, 1, True),
        ("length_unit=bohr energy_unit=eV", 0, 1, True),
        ("units=angstrom (converted from bohr)", 0, 1, False),
        ("Gold, or Au, is heavy", 0, 1, False),
        ("atom x y z", 0, 1, False),
    ],
)
def test_what_a_comment_says_plainly_is_obeyed(tmp_path, comment, charge, multiplicity, bohr):
    found = read(tmp_path, xyz(comment))
    assert (found.charge, found.multiplicity) == (charge, multiplicity)
    assert found.geometry[1][2] == pytest.approx(1.4 * BOHR if bohr else 1.4)


@pytest.mark.parametrize(
    ("comment", "says"),
    [
        ("R = 1.4 bohr", "names 'bohr'"),
        ("converted from bohr", "names 'bohr'"),
        ("energies in au", "names 'au'"),
        ("units=nm", "use angstrom or bohr"),
        ("coordinates in pm", "names 'pm'"),
        ("fractional coordinates", "fractional"),
        ("not in angstrom", "are the coordinates in angstrom?"),
        ("units=bohr, units: angstrom", "says units bohr and units angstrom"),
        ("charge=1 charge=2", "charge 1 and charge 2"),
        ("charge=one", "no whole number"),
        ("charge=0.5", "no whole number"),
        ("charge 0 1", "write charge="),
        ("charge/mult: 0 1", "write charge="),
        ("total_charges=1", "write charge="),
        ("q=1", "write charge="),
        ("+1", "may be the charge"),
        ("hydrogen cation", "'cation'"),
        ("a dication", "'dication'"),
        ("H2+", "names an ion of H2"),
        ("neutral, charge=1", "charge 1 and charge 0"),
        ("mult=1 multiplicity=3", "multiplicity 1 and multiplicity 3"),
        ("triplet, mult=1", "multiplicity 1 and multiplicity 3"),
        ("singlet-triplet gap", "write multiplicity="),
        ("high spin", "write multiplicity="),
        ("radical", "write multiplicity="),
        ("magmom=2", "write multiplicity="),
        ("spin=1", "2S (multiplicity 2), S (multiplicity 3)"),
        ("S=1", "2S (multiplicity 2), S (multiplicity 3)"),
        ("0 3 oxygen", "may be charge and multiplicity"),
        ("z y x", "columns in another order"),
        ("columns: atom charge", "names columns"),
        ('Lattice="9 0 0 0 9 0 0 0 9"', "periodic"),
        ('pbc="T T F"', "periodic"),
        ("Properties=species:S:1:frac:R:3", "must name species:S:1"),
        ("Properties=species:S:1:pos:R:3:forces:R:3", "Properties names 7"),
        ("Properties=species:pos", "is not of the form"),
    ],
)
def test_what_names_units_charge_spin_or_columns_and_is_not_plain_is_refused(tmp_path, comment, says):
    assert says in refusal(tmp_path, xyz(comment))


def test_options_answer_what_a_file_leaves_unclear(tmp_path):
    assert read(tmp_path, xyz("cation"), charge=1).multiplicity == 2
    assert read(tmp_path, xyz("spin=1"), multiplicity=3).multiplicity == 3
    assert read(tmp_path, xyz("high spin"), multiplicity=3).multiplicity == 3
    assert "bohr" in refusal(tmp_path, xyz("not bohr"), charge=0, multiplicity=1)  # no option says units


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("H 0 0 0 0.1\nH 0 0 1 0.1", "more columns are read where"),  # charges of atoms, or velocities
        ("H 0 0 0 1 2 3\nH 0 0 1 1 2 3", "more columns are read where"),
        ("H 1 1 0 0\nH 1 2 0 0.5", "nuclear charge"),  # only by chance no two atoms of either reading meet
        ("O 1.0 0 0 0\nH 8.0 0 0 1", "more columns are read where"),
        ("H 0,0 0,0 0,0\nH 0,0 0,0 0,7", "not a number"),
        ("H 1,5 0 0\nH 1,2 0 0", "not a number"),
        ("1 0 0 0\n2 0 0 1\n3 0 0 2", "may number the atoms"),
        ("CA 0 0 0\nH 0 0 1", "may mean Ca or a label of C"),
        ("HE1 0 0 0\nH 0 0 1", "may mean He or a label of H"),
        ("X 0 0 0\nH 0 0 1", "dummy"),
        ("Bq 0 0 0\nH 0 0 1", "dummy"),
        ("H-Bq 0 0 0\nH 0 0 1", "dummy"),
        ("0 0 0 0\nH 0 0 1", "dummy"),
        ("H 1_0 0 0\nH 0 0 1", "not a number"),
        ("H 0.7(1) 0 0\nH 0 0 1", "not a number"),
        ("H 0x1 0 0\nH 0 0 1", "not a number"),
        ("1 H 0 0 0\n2 H 0 0 1", "more columns"),
    ],
)
def test_columns_and_elements_that_are_not_plain_are_refused(tmp_path, rows, says):
    assert says in refusal(tmp_path, xyz("text", rows))


def test_isotopes_are_told(tmp_path):
    found = read(tmp_path, xyz("", "D 0 0 0\n13C 0 0 1\nH 0 0 2"))
    assert found.elements == ("H", "C", "H")
    assert found.notes == ("atom 1 (deuterium) is read as H, atom 2 (13C) is read as C: electronic energies do not depend on masses",)  # fmt: skip
    assert read(tmp_path, xyz("", "H1 0 0 0\nH2 0 0 1")).notes == ()


def test_qm9_files_are_read(tmp_path):
    atoms = "O\t0\t0\t0.1173\t-0.4\nH\t0\t0.7572\t-0.4692\t 0.2\nH\t0\t-7.572*^-1\t-0.4692\t 0.2\n"
    tail = "1671.4\t3803.1\t3907.6\nO\tO\t\nInChI=1S/H2O/h1H2\tInChI=1S/H2O/h1H2\n"
    found = read(tmp_path, f"3\ngdb 3\t799.6\t437.9\t1.85\n{atoms}{tail}")
    assert found.geometry[2] == (0.0, -0.7572, -0.4692)
    assert "more columns" in refusal(tmp_path, f"3\ngdb 3\n{atoms}")
    assert "neither an atom nor another frame" in refusal(tmp_path, f"3\ngdb 3\n{atoms}1671.4\nO\n")


def test_atoms_charges_in_named_columns_need_a_total(tmp_path):
    head = "Properties=species:S:1:pos:R:3:initial_charges:R:1"
    rows = "H 0 0 0 1.0\nH 0 0 1 0.0"
    assert "initial_charges" in refusal(tmp_path, xyz(head, rows))
    assert read(tmp_path, xyz(f"{head} charge=1", rows)).charge == 1
    assert read(tmp_path, xyz(head, rows.replace("1.0", "0.0"))).charge == 0


def mol(atoms, bonds=(), properties=(), title="", comment="", end="M  END\n", version="V2000"):
    rows = [f"{x:10.4f}{y:10.4f}{z:10.4f} {e:<3} 0{code:3d}" for e, x, y, z, code in atoms]
    rows += [f"{a:3d}{b:3d}{order:3d}" for a, b, order in bonds]
    return "\n".join([title, "  program           3D", comment, f"{len(atoms):3d}{len(bonds):3d}  0  0  0 {version}", *rows, *properties, end])  # fmt: skip


OH = (("O", 0, 0, 0, 0), ("H", 0, 0, 0.97, 0))


def test_mol_charges_and_radicals_are_obeyed(tmp_path):
    def of(*given, **more):
        found = read(tmp_path, mol(*given, **more), "m.mol")
        return found.charge, found.multiplicity

    assert of((("O", 0, 0, 0, 5), OH[1]), [(1, 2, 1)]) == (-1, 1)
    assert of(OH, [(1, 2, 1)], ["M  CHG  1   1  -1"]) == (-1, 1)
    assert of((("O", 0, 0, 0, 3), OH[1]), [(1, 2, 1)], ["M  CHG  1   1  -1"]) == (
        -1,
        1,
    )  # the line replaces the columns
    assert of(OH, [(1, 2, 1)], ["M  RAD  1   1   2"]) == (0, 2)
    assert of((("C", 0, 0, 0, 0), ("H", 0, 0.9, 0.5, 0), ("H", 0, -0.9, 0.5, 0)), [(1, 2, 1), (1, 3, 1)], ["M  RAD  1   1   3"]) == (0, 3)  # fmt: skip
    assert of((("C", 0, 0, 0, 5), ("O", 0, 0, 1.13, 3)), [(1, 2, 3)]) == (0, 1)
    assert of((("N", 0, 0, 0, 0), ("N", 0, 0, 1.1, 0)), [(1, 2, 3)]) == (0, 1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (mol(OH, [(1, 2, 1)]), "room for 1 hydrogen"),  # its readers make water of it
        (mol((("C", 0, 0, 0, 0),)), "room for 4 hydrogens"),
        (mol(OH, [(1, 2, 1)], ["M  RAD  2   1   2   2   2"]), "give --multiplicity"),
        (mol(OH, version="V3000"), "V3000 is not read"),
        (mol(OH, end=""), "M  END is missing"),
        (mol(OH).replace("3D", "2D"), "two dimensions"),
        (mol(OH, [(1, 3, 1)]), "must be a bond"),
        (mol(OH, (), ["M  CHG  1   9   1"]), "names atom 9 of 2"),
        (mol(OH, (), ["M  CHG  2   1   1"]), "pairs of atom and value"),
        (mol((("O", 0, 0, 0, 9),)), "charge code 9"),
        (mol((("R#", 0, 0, 0, 0),)), "unknown element"),
        (mol(OH, comment="charge=1"), "says charge 1, its atoms' charges make 0"),
        (mol(OH, title="hydroxide anion"), "'anion'"),
        (mol(OH, comment="units=bohr"), "MOL files are in angstrom"),
        (mol(OH) + "> <PUBCHEM_TOTAL_CHARGE>\n-1\n\n$$$$\n", "says charge -1"),
        (mol(OH) + "> <SPIN>\n2\n\n$$$$\n", "spin=2 may mean"),
        ("only\ntext\n", "counts line"),
        ("", "no molecule"),
    ],
)
def test_mol_files_that_are_not_plain_are_refused(tmp_path, text, says):
    assert says in refusal(tmp_path, text, "m.sdf")


def test_mol_isotopes_are_told(tmp_path):
    found = read(tmp_path, mol((("H", 0, 0, 0, 0), ("H", 0, 0, 0.74, 0)), [(1, 2, 1)], ["M  ISO  1   2   2"]), "m.mol")
    assert found.notes == ("atom 2 is an isotope of H: electronic energies do not depend on masses",)


SCHEMA = {
    "schema_name": "qcschema_molecule",
    "schema_version": 2,
    "symbols": ["H", "H"],
    "geometry": [0, 0, 0, 0, 0, 1.4],
}
LISTS = {"symbols": ["H", "H"], "coords": [[0, 0, 0], [0, 0, 0.7]], "units": "angstrom"}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (SCHEMA | {"schema_name": "other_molecule"}, "schema_name 'other_molecule'"),
        (SCHEMA | {"schema_version": 9}, "schema_version 9"),
        ({k: v for k, v in SCHEMA.items() if k != "schema_name"}, "say no units"),
        (SCHEMA | {"units": "angstrom"}, "'units' is no key"),
        (SCHEMA | {"charge": 1}, "'charge' is no key"),
        (SCHEMA | {"molecular_charge": 0.5}, "molecular_charge must be a whole number"),
        (SCHEMA | {"real": [True, False]}, "ghost"),
        (SCHEMA | {"geometry": [0, 0, 0, 0]}, "no coordinates of three"),
        (SCHEMA | {"geometry": [0, 0, 0]}, "2 elements but 1 positions"),
        (SCHEMA | {"atomic_numbers": [1, 2]}, "differ"),
        (SCHEMA | {"fragment_multiplicities": [2, 2]}, "give --multiplicity"),
        ({k: v for k, v in LISTS.items() if k != "units"}, "units must be angstrom or bohr"),
        (LISTS | {"units": "nm"}, "units must be angstrom or bohr"),
        (LISTS | {"spin": 2}, "key 'spin' is not known"),
        (LISTS | {"total_charge": 1}, "key 'total_charge' is not known"),
        (LISTS | {"charge": "1"}, "charge must be a whole number"),
        ([LISTS, 3], "a JSON object or a list of them"),
    ],
)
def test_json_that_is_not_plain_is_refused(tmp_path, value, says):
    assert says in refusal(tmp_path, json.dumps(value), "m.json")


def test_a_key_that_is_given_twice_is_refused(tmp_path):
    text = '{"units": "angstrom", "units": "bohr", "atoms": [["H", 0, 0, 0]]}'
    assert "'units' is given twice" in refusal(tmp_path, text, "m.json")


def test_charges_of_fragments_make_the_charge(tmp_path):
    assert read(tmp_path, json.dumps(SCHEMA | {"fragment_charges": [1.0, 0.0]}), "m.json").charge == 1


@pytest.mark.parametrize("name", ["m.pdb", "m.cif", "m.gjf", "m.log", "m.mol2", "POSCAR/"])
def test_other_formats_are_refused_with_those_that_are_read(tmp_path, name):
    if name.endswith("/"):
        with pytest.raises(InputError, match="no such file"):
            load_molecule(f"{tmp_path}/{name}")
        return
    message = refusal(tmp_path, "anything", name)
    assert ".xyz and .extxyz, .mol and .sdf (V2000), .json" in message
    with pytest.raises(InputError, match="no such file"):
        load_molecule(f"{tmp_path}/none{name}")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no atoms"),
        ("H; H 1 0.735", "atom 1 must be an element and three coordinates"),  # a Z-matrix
        ("H 0 0 0; H 0 0", "atom 2 must be"),
        ("H 0 0 0; ghost-H 0 0 1", "dummy and ghost"),
        ("H 0 0 0; H 0 0 0.735 bohr", "atom 2 must be"),
    ],
)
def test_atoms_that_are_not_plain_are_refused(text, says):
    with pytest.raises(InputError) as error:
        molecule_from_atoms(text)
    assert says in str(error.value)


def test_atoms_are_read_as_pyscf_reads_them():
    from pyscf import gto

    for text in ("H 0 0 0; H 0 0 0.735", "O 0,0,0\nH1 0,0.76,0.59\nH2 0,-0.76,0.59\n", "8 0 0 0; H@1 0 0 1; 1 0 1 0"):
        mol = gto.M(atom=text, verbose=0)
        found = molecule_from_atoms(text)
        assert list(found.elements) == [mol.atom_pure_symbol(i) for i in range(mol.natm)]
        assert found.nuclear_repulsion == pytest.approx(mol.energy_nuc(), abs=1e-8)
        assert found.name == found.formula


def test_ids_of_files_read_before_stay(tmp_path):
    """The ids are of the first release, which read plain XYZ in angstrom and JSON with units."""
    water = "3\nwater\nO 0 0 0.1173\nH 0 0.7572 -0.4692\nH 0 -0.7572 -0.4692\n"
    assert read(tmp_path, water).molecule_id == "8b8b53cad15cdc5eedccdc5cc8faab44e34f26412d6a4c977b64e0d4ccea0550"
    ion = "2\ncharge=1 multiplicity=1 from a test\nHe 0 0 0\nh 0 0 0.7743\n\n"
    assert read(tmp_path, ion).molecule_id == "e38600cc8b84539f08921430c11fef5fd97deeffb8f869c0e8fbc44443517118"
    bohr = json.dumps({"units": "bohr", "atoms": [["H", 0, 0, 0], ["H", 0, 0, 1.4]]})
    assert (
        read(tmp_path, bohr, "m.json").molecule_id == "a17cf7baa6f5d6ba23cb00773dc43e6705b173ab44c63ab36a70698894121cc9"
    )


def call(capsys, *arguments):
    from simulator.cli.main import main

    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    out, err = capsys.readouterr()
    return ended.value.code, out, err


def test_commands_take_atoms_and_tell_notes_on_stderr(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, "run", "--atoms", "D 0 0 0; H 0 0 0.735", "--json", "--no-tables")
    assert code == 0
    found = json.loads(out)
    assert found["molecule"] == "H2"
    assert found["energy"] == pytest.approx(-1.137306, abs=1e-5)
    assert "H2: atom 1 (deuterium) is read as H" in err
    code, out, _ = call(capsys, "orbitals", "--atoms", "He 0 0 0", "--json")
    assert (code, json.loads(out)["number"]) == (0, 1)
    for wrong in (["run"], ["orbitals"], ["orbitals", "h2", "--atoms", "H 0 0 0"], ["run", "--atoms", "H 0 0"]):
        code, out, err = call(capsys, *wrong)
        assert (code, out, len(err.splitlines())) == (2, "", 1), wrong
        assert "atoms" in err


def test_a_sweep_takes_atoms_and_files_with_numbers_beside_it(capsys, tmp_path):
    from simulator.runs.sweep import load_sweep

    (tmp_path / "two.xyz").write_text(xyz("one") + xyz("", "D 0 0 0\nH 0 0 0.9\n"))
    path = tmp_path / "s.yaml"
    path.write_text("molecules:\n  - two.xyz#2\n  - atoms: H 0 0 0; H 0 0 1.1\n    charge: 1\n")
    planned = load_sweep(path)
    assert [run.spec.geometry[1][2] for run in planned.runs] == [0.9, 1.1]
    assert planned.runs[1].spec.charge == 1
    assert "deuterium" in planned.notes[0]
    code, _, err = call(capsys, "sweep", str(path), "--dry-run")
    assert code == 0
    assert "deuterium" in err
    path.write_text("molecules:\n  - molecule: h2\n    atoms: H 0 0 0\n")
    with pytest.raises(InputError, match=r"s\.yaml:2: a molecule needs a name or a file, or atoms"):
        load_sweep(path)
