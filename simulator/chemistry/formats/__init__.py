"""Molecule files: one module a format, and `read_molecule_file`, which chooses it by the file's suffix.

What a file says about units, charge, spin or columns is obeyed or refused, never ignored: a wrong guess is an energy that
looks right.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

from simulator.chemistry.formats.fcidump import is_fcidump, read_fcidump
from simulator.chemistry.formats.given import Given
from simulator.chemistry.formats.json_molecules import read_json
from simulator.chemistry.formats.mdl import read_mol
from simulator.chemistry.formats.tokens import element_of, elements_of, numbers_of, row_fields
from simulator.chemistry.formats.xyz import read_xyz
from simulator.errors import InputError
from simulator.input_files import MAX_BYTES, read_text, shown

FORMATS = (
    ".xyz and .extxyz, .mol and .sdf (V2000), .json (atoms with units; QCSchema; quantum-pipeline's lists), and .fcidump"
    " (integrals); of several molecules in a file the third is FILE#3"
)
"""The formats that are read, as errors and the documentation name them."""

_READERS: dict[str, Callable[[str, str], list[Callable[[], Given]]]] = {
    ".xyz": read_xyz, ".extxyz": read_xyz, ".mol": read_mol, ".sdf": read_mol, ".json": read_json,
}  # fmt: skip
_UNREAD_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]{0,9}$")


def is_molecule_file(text: str) -> bool:
    """Whether a text can only mean a file, e.g. `water.xyz`, `set.sdf#2` or `./water`: bundled names have no dot."""
    path, _ = split_entry(text)
    return (
        path.suffix.lower() in _READERS
        or is_fcidump(path)
        or "/" in text
        or _UNREAD_SUFFIX.search(path.name) is not None
    )


def split_entry(text: str) -> tuple[Path, int | None]:
    """The path and the number in `set.xyz#3`; a file whose own name ends so is meant whole. `~` is home."""
    text = os.path.expanduser(text)
    match = re.fullmatch(r"(.+)#(\d{1,9})", text, re.DOTALL)
    if match is None or _exists(Path(text)):
        return Path(text), None
    return Path(match[1]), int(match[2])


def read_molecule_file(text: str, name: str) -> Given:
    """What a file says about one molecule.

    Args:
        text: path, with `#n` for the n-th of several molecules.
        name: how errors name the file.

    Raises:
        InputError: no such file, a format that is not read, several molecules and no number, or anything in the file that
            is malformed or whose meaning is not plain.
    """
    path, entry = split_entry(text)
    what = f"molecule {name}"
    reader = _READERS.get(path.suffix.lower())
    if not _exists(path):
        known = reader or is_fcidump(path)
        raise InputError(f"{what}: no such file" + ("" if known else f" (formats: {FORMATS})"))
    found: list[Callable[[], Given]]
    if is_fcidump(path):
        found = [lambda: read_fcidump(path, what)]
    elif reader is None:
        raise InputError(f"{what}: unknown molecule format {path.suffix or '(no suffix)'} (formats: {FORMATS})")
    else:
        found = reader(read_text(path, what, MAX_BYTES), what)
    if entry is None:
        if len(found) > 1:
            raise InputError(
                f"{what}: holds {len(found)} molecules (frames); choose one: {name}#1 to {name}#{len(found)}"
            )
        entry = 1
    if not 1 <= entry <= len(found):
        raise InputError(f"{what}: holds {len(found)} molecule{'s' if len(found) > 1 else ''}, there is no #{entry}")
    return found[entry - 1]()


def read_atoms_text(text: str) -> Given:
    """A geometry as PySCF and Qiskit write it, in angstrom: `H 0 0 0; H 0 0 0.735`.

    Raises:
        InputError: an atom is not an element and three coordinates.
    """
    what = "atoms"
    fields = []
    for number, row in enumerate((row for row in re.split(r"[;\n]", text) if row.strip()), start=1):
        parts = row_fields(row)
        if len(parts) != 4:
            raise InputError(
                f"{what}: atom {number} must be an element and three coordinates in angstrom, not {shown(row.strip())}"
                ' (as in "H 0 0 0; H 0 0 0.735")'
            )
        fields.append(parts)
    if not fields:
        raise InputError(f'{what}: no atoms (use e.g. "H 0 0 0; H 0 0 0.735")')
    atoms = [element_of(parts[0], i, what) for i, parts in enumerate(fields, start=1)]
    elements, notes = elements_of(atoms, what)
    geometry = [numbers_of(parts[1:], f"{what}: atom {i}") for i, parts in enumerate(fields, start=1)]
    return Given("", tuple(elements), tuple(geometry), notes=notes)


def _exists(path: Path) -> bool:
    try:
        return os.path.lexists(path)
    except (OSError, ValueError):  # a name that is too long, or holds a NUL byte
        return False
