"""MDL MOL files and SDF, version V2000 (BIOVIA, CTfile formats, 2020): coordinates in angstrom, charges and radicals of atoms.

A drawing without its hydrogens, or in two dimensions, is no geometry and is refused.
"""

import re
from collections.abc import Callable
from functools import partial

from simulator.chemistry.formats.comment import Stated, merge, read_comment
from simulator.chemistry.formats.given import Given
from simulator.chemistry.formats.tokens import element_of, elements_of, numbers_of, whole_number_of
from simulator.errors import InputError
from simulator.input_files import shown

_MAX_LINE = 1_000
"""Characters of a title or comment; the format allows 80."""
_CHARGE_CODES = {0: 0, 1: 3, 2: 2, 3: 1, 4: 0, 5: -1, 6: -2, 7: -3}
_DOUBLET_CODE = 4
_VALENCES = {
    "H": (1,), "B": (3,), "C": (4,), "N": (3, 5), "O": (2,), "F": (1,), "Si": (4,), "P": (3, 5), "S": (2, 4, 6),
    "Cl": (1, 3, 5, 7), "Br": (1, 3, 5, 7), "I": (1, 3, 5, 7),
}  # fmt: skip
"""Numbers of bonds that a MOL file's readers fill up with hydrogens."""
_AS_CHARGED = {("B", -1): "C", ("C", 1): "B", ("C", -1): "N", ("N", 1): "C", ("N", -1): "O", ("O", 1): "N", ("O", -1): "F", ("F", 1): "O"}  # fmt: skip
"""A charged atom has the bonds of the neutral one with as many electrons."""


def read_mol(text: str, what: str) -> list[Callable[[], Given]]:
    """The molecules of a file, each to be read when it is chosen.

    Raises:
        InputError: the file holds none.
    """
    lines = re.split(r"\r\n|\n|\r", text.removeprefix("\ufeff"))
    records: list[list[str]] = [[]]
    for line in lines:
        if line.startswith("$$$$"):
            records.append([])
        else:
            records[-1].append(line)
    found = [record for record in records if any(line.strip() for line in record)]
    if not found:
        raise InputError(f"{what}: no molecule (a MOL file has a counts line with V2000 as line 4)")
    return [partial(_read_record, record, what) for record in found]


def _read_record(lines: list[str], what: str) -> Given:
    counts = lines[3] if len(lines) > 3 else ""
    if any(len(line) > _MAX_LINE for line in lines[:4]):
        raise InputError(f"{what}: its first lines are longer than {_MAX_LINE} characters")
    if "V3000" in counts:
        raise InputError(f"{what}: MOL version V3000 is not read; write it as V2000")
    match = re.match(r"([ \d]{3})([ \d]{3})", counts)
    if not match or not match[1].strip() or "V2000" not in counts:
        raise InputError(f"{what}: line 4 must be the counts line of a MOL file (V2000), not {shown(counts)}")
    if lines[1][20:22].upper() == "2D":
        raise InputError(f"{what}: is a drawing in two dimensions, not a geometry")
    n_atoms, n_bonds = int(match[1]), int(match[2].strip() or 0)
    if n_atoms < 1:
        raise InputError(f"{what}: line 4 gives 0 atoms (at least 1 is needed)")
    if len(lines) < 4 + n_atoms + n_bonds:
        raise InputError(f"{what}: line 4 promises {n_atoms} atoms and {n_bonds} bonds, the file ends before")
    atoms, geometry, charges, radicals, valences = [], [], [0] * n_atoms, {}, [0] * n_atoms
    isotopes: dict[int, int] = {}
    for i, line in enumerate(lines[4 : 4 + n_atoms]):
        where = f"{what}: line {5 + i}"
        if len(line) < 32:
            raise InputError(
                f"{where} must be three coordinates and an element in the columns of V2000, not {shown(line)}"
            )
        geometry.append(numbers_of([line[0:10].strip(), line[10:20].strip(), line[20:30].strip()], where))
        atoms.append(element_of(line[31:34], i + 1, what))
        if difference := _integer(line[34:36], where):
            isotopes[i] = difference
        code = _integer(line[36:39], where)
        if code not in _CHARGE_CODES:
            raise InputError(f"{where} has charge code {code} (0 to 7)")
        charges[i] = _CHARGE_CODES[code]
        if code == _DOUBLET_CODE:
            radicals[i] = 2
        valences[i] = _integer(line[48:51], where)
    bonds = _bonds(lines[4 + n_atoms : 4 + n_atoms + n_bonds], n_atoms, what, 5 + n_atoms)
    rest = _properties(lines[4 + n_atoms + n_bonds :], charges, radicals, isotopes, what)
    elements, notes = elements_of(atoms, what)
    told = [f"atom {i + 1} is an isotope of {elements[i]}" for i in sorted(isotopes)]
    if told:
        more = f" and {len(told) - 3} more" if len(told) > 3 else ""
        notes = (*notes, f"{', '.join(told[:3])}{more}: electronic energies do not depend on masses")
    _check_hydrogens(elements, charges, radicals, valences, bonds, what)
    if n_atoms > 3 and bonds and all(z == 0 for _, _, z in geometry) and lines[1][20:22].upper() != "3D":
        raise InputError(f"{what}: all z are 0 and line 2 does not say 3D; it may be a drawing in two dimensions")
    stated = _stated(lines, rest, what)
    charge = sum(charges)
    if stated.charge is not None and stated.charge != charge:
        raise InputError(f"{what}: says charge {stated.charge}, its atoms' charges make {charge}")
    if stated.units not in (None, "angstrom"):
        raise InputError(f"{what}: says units {stated.units}, but MOL files are in angstrom")
    unclear = dict(stated.unclear)
    if charge:
        unclear.pop("charge", None)  # the words say what the atoms say
    multiplicity = stated.multiplicity
    if multiplicity is None and stated.spin is None and radicals:
        unclear.pop("multiplicity", None)
        if len(radicals) == 1:
            multiplicity = next(iter(radicals.values()))
        else:
            unclear["multiplicity"] = (
                f"{what}: {len(radicals)} radical atoms can couple to several spins: give --multiplicity"
            )
    name = lines[0].strip()
    return Given(
        "", tuple(elements), tuple(geometry), "angstrom", charge, multiplicity, stated.spin, unclear, notes,
        description=name if name.isprintable() else "",
    )  # fmt: skip


def _integer(text: str, where: str) -> int:
    if not text.strip():
        return 0
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{where}: {shown(text)} is not a number in the columns of V2000") from None


def _bonds(lines: list[str], n_atoms: int, what: str, first: int) -> list[tuple[int, int, int]]:
    found = []
    for number, line in enumerate(lines, start=first):
        where = f"{what}: line {number}"
        a, b, order = (_integer(line[i : i + 3], where) for i in (0, 3, 6))
        if not (1 <= a <= n_atoms and 1 <= b <= n_atoms and order >= 1):
            raise InputError(f"{where} must be a bond of two of the {n_atoms} atoms, not {shown(line)}")
        found.append((a - 1, b - 1, order))
    return found


def _properties(
    lines: list[str], charges: list[int], radicals: dict[int, int], isotopes: dict[int, int], what: str
) -> list[str]:
    """Apply `M  CHG`, `M  RAD` and `M  ISO`; returns what follows `M  END`.

    Charges or radicals that stand here replace all those of the atoms' lines.
    """
    found: dict[str, list[tuple[int, int]]] = {"CHG": [], "RAD": [], "ISO": []}
    for n, line in enumerate(lines):
        kind = line[3:6]
        if line.startswith("M  END"):
            if found["CHG"] or found["RAD"]:
                charges[:] = [0] * len(charges)
                radicals.clear()
            for i, value in found["CHG"]:
                charges[i] += value
            for i, value in found["RAD"]:
                if value not in (1, 2, 3):
                    raise InputError(f"{what}: M  RAD gives {value} (1 singlet, 2 doublet, 3 triplet)")
                radicals[i] = value
            isotopes |= dict(found["ISO"])
            return lines[n + 1 :]
        if line.startswith("M  ") and kind in found:
            read = [whole_number_of(text) for text in line[6:].split()]
            numbers = [n for n in read if n is not None]
            pairs = list(zip(numbers[1::2], numbers[2::2], strict=False))
            if len(numbers) != len(read) or len(numbers) != 1 + 2 * len(pairs) or numbers[0] != len(pairs):
                raise InputError(f"{what}: {shown(line)} is not a count and pairs of atom and value")
            for atom, value in pairs:
                if not 1 <= atom <= len(charges):
                    raise InputError(f"{what}: {shown(line)} names atom {atom} of {len(charges)}")
                found[kind].append((atom - 1, value))
        elif line.startswith("M  ALS") or line[:1] == "G":
            raise InputError(f"{what}: {shown(line.strip())} is a query or a group, not an atom")
    raise InputError(f"{what}: the line M  END is missing")


def _check_hydrogens(
    elements: list[str], charges: list[int], radicals: dict[int, int], valences: list[int],
    bonds: list[tuple[int, int, int]], what: str,
) -> None:  # fmt: skip
    """Refuse a drawing whose readers add hydrogens.

    Raises:
        InputError: an atom has fewer bonds than its valence and no radical.
    """
    if not bonds and len(elements) > 1:
        return  # a file without bonds says nothing about them
    orders = [0.0] * len(elements)
    for a, b, order in bonds:
        weight = {1: 1.0, 2: 2.0, 3: 3.0, 4: 1.5}.get(order)
        if weight is None:
            return
        orders[a] += weight
        orders[b] += weight
    for i, element in enumerate(elements):
        name = _AS_CHARGED.get((element, charges[i]), "") if charges[i] else element
        if name not in _VALENCES or i in radicals or valences[i]:
            continue
        wanted = next((v for v in _VALENCES[name] if v >= orders[i] - 0.5), None)
        missing = 0 if wanted is None else round(wanted - orders[i] - 0.01)
        if missing >= 1 and not (element == "H" and len(elements) == 1):
            raise InputError(
                f"{what}: atom {i + 1} ({element}) has room for {missing} hydrogen{'s' if missing > 1 else ''} that the file"
                " does not give; write all hydrogens, or M  RAD where there are none"
            )


def _stated(lines: list[str], rest: list[str], what: str) -> Stated:
    """What the title, the comment and the data fields of SDF say about charge, spin and units."""
    stated = Stated()
    for number in (1, 3):
        where = f"{what}: line {number}"
        stated = merge(stated, read_comment(lines[number - 1], where, bare_numbers=False), where)
    text = "\n".join(rest)
    for match in re.finditer(r"^>[^<\n]*<([^>\n]*)>[^\n]*\n((?:[^\n]+\n?)*)", text, re.M):
        key, value = match[1].lower(), match[2].strip()
        where = f"{what}: field <{match[1]}>"
        if re.search(r"partial|mmff|gasteiger|mulliken|atomic[ _]charge", key):
            continue
        if re.search(r"charge|multiplicity|\bspin|_spin|^units?$|_units?$", key):
            kind = "charge" if "charge" in key else "multiplicity" if "multiplicity" in key else "spin" if "spin" in key else "units"  # fmt: skip
            stated = merge(stated, read_comment(f"{kind}={value[:_MAX_LINE]}", where, bare_numbers=False), where)
    return stated
