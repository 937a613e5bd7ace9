"""XYZ and extended XYZ: a number of atoms, a comment line, one atom a line; frames one after another.

Also read: GAMESS' column of nuclear charges, and the data set QM9's files (Ramakrishnan et al., Sci. Data 1, 140022, 2014), which have
Mulliken charges as a fifth column and frequencies, SMILES and InChI behind the atoms.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from simulator.chemistry.elements import ATOMIC_NUMBERS
from simulator.chemistry.formats.comment import UNITS, Stated, merge, read_comment
from simulator.chemistry.formats.given import Given
from simulator.chemistry.formats.tokens import Element, element_of, elements_of, number_of, numbers_of, row_fields
from simulator.errors import InputError
from simulator.input_files import shown

_PROPERTY = re.compile(r"([A-Za-z_]\w*):([SRIL]):(\d{1,3})")
_SPECIES = ("species", "element", "elements", "symbols", "symbol")
_NUMBERS = ("z", "numbers", "atomic_numbers", "atomic_number")
_POSITIONS = ("pos", "positions", "position", "coords")
_MAX_COMMENT = 4_000
"""Characters of a comment line that are looked through."""
_KEY_VALUE = re.compile(r"([A-Za-z_][\w.-]*)\s*=\s*(\"[^\"]*\"|'[^']*'|\{[^}]*\}|\S+)")


@dataclass(frozen=True)
class _Frame:
    first_line: int
    count: int
    count_text: str  # what line 1 says beside the number
    comment: str
    rows: tuple[tuple[int, str], ...]  # line number and text
    is_qm9: bool


@dataclass(frozen=True)
class _Column:
    name: str
    kind: str  # S, R, I or L
    width: int
    start: int


def read_xyz(text: str, what: str) -> list[Callable[[], Given]]:
    """The frames of a file, each to be read when it is chosen.

    Raises:
        InputError: the file is not made of frames.
    """
    return [partial(_read_frame, frame, what) for frame in _frames(text, what)]


def _frames(text: str, what: str) -> list[_Frame]:
    lines = re.split(r"\r\n|\n|\r", text.removeprefix("\ufeff"))
    frames: list[_Frame] = []
    at = 0
    while at < len(lines) and (not frames or any(line.strip() for line in lines[at:])):
        while frames and not lines[at].strip():
            at += 1
        first = at + 1
        head = lines[at].split()
        count = int(head[0]) if head and re.fullmatch(r"\+?\d{1,7}", head[0], re.ASCII) else None
        if count is None:
            if frames:
                promised = f"line {frames[-1].first_line} promises {frames[-1].count} atoms, the file has"
                more = sum(1 for line in lines[at:] if line.strip())
                if len(lines[at].split()) >= 4:
                    raise InputError(f"{what}: {promised} {frames[-1].count + more}")
                raise InputError(
                    f"{what}: line {first}: {shown(lines[at].strip())} is neither an atom nor another frame"
                )
            raise InputError(f"{what}: line 1 must be the number of atoms, not {shown(lines[0])}")
        if count < 1:
            raise InputError(f"{what}: line {first} gives {count} atoms (at least 1 is needed)")
        comment = lines[at + 1] if at + 1 < len(lines) else ""
        rows: list[tuple[int, str]] = []
        at += 2
        while at < len(lines) and len(rows) < count:
            if lines[at].strip():
                rows.append((at + 1, lines[at]))
            at += 1
        if len(rows) < count:
            raise InputError(f"{what}: line {first} promises {count} atoms, the file has {len(rows)}")
        tail = _qm9_tail(lines, at, rows)
        at += tail
        frames.append(_Frame(first, count, " ".join(head[1:]), comment, tuple(rows), tail > 0))
    return frames


def _qm9_tail(lines: list[str], at: int, rows: list[tuple[int, str]]) -> int:
    """How many lines of QM9's tail follow: frequencies, SMILES, InChI behind atoms with a fifth column."""
    if any(len(row.split()) != 5 for _, row in rows) or at + 2 >= len(lines):
        return 0
    frequencies, smiles, inchi = (lines[at + i].split() for i in range(3))
    known = (
        frequencies
        and all(number_of(f) is not None for f in frequencies)
        and 1 <= len(smiles) <= 2
        and all(number_of(s) is None for s in smiles)
        and 1 <= len(inchi) <= 2
        and all(i.startswith("InChI=") for i in inchi)
    )
    return 3 if known else 0


def _read_frame(frame: _Frame, what: str) -> Given:
    rows = [(number, row_fields(row)) for number, row in frame.rows]
    comment_line = f"{what}: line {frame.first_line + 1}"
    if len(frame.comment) > _MAX_COMMENT or len(frame.count_text) > _MAX_COMMENT:
        raise InputError(f"{comment_line} is longer than {_MAX_COMMENT:,} characters")
    stated = _count_line(frame, what)
    comment, columns = _extended(frame.comment, comment_line)
    if columns is not None:
        atoms, geometry = _by_columns(rows, columns, what)
    elif frame.is_qm9:
        atoms, geometry = _plain([(number, fields[:4]) for number, fields in rows], what)
    else:
        atoms, geometry = _by_width(rows, frame.comment, what)
    elements, notes = elements_of(atoms, what)
    stated = merge(
        stated, read_comment(comment, comment_line, elements), f"{what}: line {frame.first_line}, or the next,"
    )
    if columns is not None:
        _check_named_columns(rows, columns, stated, comment_line)
    return Given(
        "", tuple(elements), tuple(geometry), stated.units or "angstrom", stated.charge, stated.multiplicity,
        stated.spin, stated.unclear, notes,
    )  # fmt: skip


def _count_line(frame: _Frame, what: str) -> Stated:
    """What stands beside the number of atoms: a unit, or free text."""
    text = frame.count_text
    where = f"{what}: line {frame.first_line}"
    if not text:
        return Stated()
    if text.lower() in UNITS and text != "Au":
        return Stated(units=UNITS[text.lower()])
    if any(number_of(word) is not None for word in text.split()):
        raise InputError(f"{where} must be the number of atoms, not {shown(f'{frame.count} {text}')}")
    return read_comment(text, where, bare_numbers=False)


def _extended(comment: str, where: str) -> tuple[str, list[_Column] | None]:
    """The comment without the keys that only extended XYZ has, and the columns that it names.

    Raises:
        InputError: a cell that repeats, or Properties that cannot be read.
    """
    found = {m[1].lower(): m[2].strip("\"'{}") for m in _KEY_VALUE.finditer(comment)}
    cell = next((found[k] for k in ("lattice", "cell", "virtual_lattice") if k in found), None)
    periodic = found.get("pbc")
    flags = [] if periodic is None else re.findall(r"[A-Za-z0-9]+", periodic)
    is_open = bool(flags) and all(f.lower() in ("f", "false", "0") for f in flags)
    if (cell is not None or periodic is not None) and not is_open:
        raise InputError(
            f'{where} gives a periodic cell; molecules have none (pbc="F F F" says that it does not repeat)'
        )
    for key in ("lattice", "cell", "virtual_lattice", "origin", "pbc"):
        comment = re.sub(rf"(?<![\w]){key}\s*=\s*(\"[^\"]*\"|'[^']*'|\{{[^}}]*\}}|\S+)", " ", comment, flags=re.I)
    if "properties" not in found:
        return comment, None
    comment = re.sub(r"(?<![\w])properties\s*=\s*(\"[^\"]*\"|'[^']*'|\S+)", " ", comment, flags=re.I)
    columns, start, text = [], 0, found["properties"]
    if not re.fullmatch(rf"{_PROPERTY.pattern}(?::{_PROPERTY.pattern})*", text):
        raise InputError(f"{where}: Properties={shown(text)} is not of the form species:S:1:pos:R:3")
    for name, kind, width in _PROPERTY.findall(text):
        columns.append(_Column(name.lower(), kind, int(width), start))
        start += int(width)
    return comment, columns


def _by_columns(
    rows: list[tuple[int, list[str]]], columns: list[_Column], what: str
) -> tuple[list[Element], list[tuple[float, float, float]]]:
    def only(names: tuple[str, ...], kind: str, width: int) -> _Column | None:
        found = [c for c in columns if c.name in names]
        if len(found) > 1 or (found and (found[0].kind != kind or found[0].width != width)):
            raise InputError(
                f"{what}: Properties gives {found[0].name} in a form that is not {names[0]}:{kind}:{width}"
            )
        return found[0] if found else None

    species, numbers = only(_SPECIES, "S", 1), only(_NUMBERS, "I", 1)
    positions = only(_POSITIONS, "R", 3)
    if positions is None or (species is None and numbers is None):
        raise InputError(f"{what}: Properties must name species:S:1 (or Z:I:1) and pos:R:3")
    width = sum(c.width for c in columns)
    atoms, geometry = [], []
    for i, (number, fields) in enumerate(rows, start=1):
        if len(fields) != width:
            raise InputError(f"{what}: line {number} has {len(fields)} columns, Properties names {width}")
        atom = element_of(fields[(species or numbers).start], i, what)  # type: ignore[union-attr]
        if species and numbers and element_of(fields[numbers.start], i, what).symbol != atom.symbol:
            raise InputError(f"{what}: line {number} gives element {atom.symbol} and number {fields[numbers.start]}")
        atoms.append(atom)
        at = positions.start
        geometry.append(numbers_of(fields[at : at + 3], f"{what}: line {number}"))
    return atoms, geometry


def _check_named_columns(rows: list[tuple[int, list[str]]], columns: list[_Column], stated: Stated, where: str) -> None:
    """Charges and moments of atoms that are not all zero say something about the sum, which must be said, too."""
    for column in columns:
        for key, pattern in (("charge", r"charge|^q$"), ("multiplicity", r"magmom|spin|moment")):
            if not re.search(pattern, column.name) or getattr(stated, key) is not None:
                continue
            values = [number_of(f) for _, fields in rows for f in fields[column.start : column.start + column.width]]
            if any(values):
                stated.unclear.setdefault(
                    key, f"{where} names a column {column.name}, but no {key}: write {key}= there, or give --{key}"
                )


def _by_width(
    rows: list[tuple[int, list[str]]], comment: str, what: str
) -> tuple[list[Element], list[tuple[float, float, float]]]:
    """Four columns, or five with the nuclear charge as the second, as GAMESS has them."""
    for number, fields in rows:
        if len(fields) < 4:
            raise InputError(
                f"{what}: line {number} must be an element and three coordinates, not {shown(' '.join(fields))}"
            )
    if all(len(fields) == 4 for _, fields in rows):
        return _plain(rows, what)
    if all(len(fields) == 5 for _, fields in rows):
        charges = [number_of(fields[1]) for _, fields in rows]
        atoms = [
            element_of(fields[0], i, what, charge)
            for i, ((_, fields), charge) in enumerate(zip(rows, charges, strict=True), start=1)
        ]
        if all(ATOMIC_NUMBERS[a.symbol] == charge for a, charge in zip(atoms, charges, strict=True)):
            _check_not_xyz(rows, atoms, comment, what)
            return atoms, [numbers_of(fields[2:], f"{what}: line {number}") for number, fields in rows]
    number, fields = next((number, fields) for number, fields in rows if len(fields) != 4)
    raise InputError(
        f"{what}: line {number} must be an element and three coordinates, not {shown(' '.join(fields))}; more columns are"
        " read where the comment names them (Properties=species:S:1:pos:R:3:forces:R:3), and GAMESS' nuclear charges"
    )


def _check_not_xyz(rows: list[tuple[int, list[str]]], atoms: list[Element], comment: str, what: str) -> None:
    """Of one element only, a column of nuclear charges could be the x coordinate of a flat molecule."""
    if len({a.symbol for a in atoms}) > 1 or re.search(r"nuclear|gamess", comment, re.I):
        return
    places = [numbers_of(fields[1:4], what) for _, fields in rows]
    if all(math.dist(a, b) > 0.1 for i, a in enumerate(places) for b in places[:i]) and len(rows) > 1:
        raise InputError(
            f"{what}: is the second column x or the nuclear charge? (say GAMESS in the comment, or use 4 columns)"
        )


def _plain(rows: list[tuple[int, list[str]]], what: str) -> tuple[list[Element], list[tuple[float, float, float]]]:
    atoms, geometry = [], []
    for i, (number, fields) in enumerate(rows, start=1):
        geometry.append(numbers_of(fields[1:4], f"{what}: line {number}"))
        atoms.append(element_of(fields[0], i, what))
    return atoms, geometry
