"""Molecules in JSON: atoms with units, QCSchema (MolSSI) and the lists of quantum-pipeline; a list holds several."""

import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any

from simulator.chemistry.formats.given import Given
from simulator.chemistry.formats.tokens import coordinate, element_of, elements_of
from simulator.errors import InputError
from simulator.input_files import shown

_OWN_KEYS = {"name", "units", "atoms", "charge", "multiplicity", "description", "source"}
_LIST_FREE_KEYS = {"name", "masses", "description", "basis", "basis_set", "source", "reference"}
_QCSCHEMA_NAMES = re.compile(r"qc_?schema(?:_(?:molecule|input|output))?")
_QCSCHEMA_VERSIONS = (1, 2)
_QCSCHEMA_KEYS = {
    "schema_name", "schema_version", "symbols", "geometry", "molecular_charge", "molecular_multiplicity", "real", "name",
    "comment", "masses", "mass_numbers", "atomic_numbers", "atom_labels", "fragments", "fragment_charges",
    "fragment_multiplicities", "connectivity", "fix_com", "fix_orientation", "fix_symmetry", "identifiers", "provenance",
    "extras", "id", "validated",
}  # fmt: skip
_NAMED = re.compile(r"charge|spin|multiplicit|(?:^|_)units?(?:_|$)|bohr", re.I)


def read_json(text: str, what: str) -> list[Callable[[], Given]]:
    """The molecules of a file, each to be read when it is chosen.

    Raises:
        InputError: the file is not JSON, or neither an object nor a list of objects.
    """
    try:
        given = json.loads(text, object_pairs_hook=partial(_no_key_twice, what))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{what}: not JSON ({error})") from None
    entries = given if isinstance(given, list) and given else [given]
    if not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{what}: must be a JSON object or a list of them, not {type(given).__name__}")
    return [partial(_read_entry, entry, what) for entry in entries]


def _no_key_twice(what: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise InputError(f"{what}: {shown(key)} is given twice")
        found[key] = value
    return found


def _read_entry(given: dict[str, Any], what: str) -> Given:
    nested = given.get("molecule")
    if isinstance(nested, dict):
        _check_schema(given, what)
        outer = {"schema_name": given["schema_name"], "schema_version": given.get("schema_version", 1)}
        return _read_qcschema(outer | nested, what, _methods_note(given))
    if "schema_name" in given or ("symbols" in given and "geometry" in given):
        return _read_qcschema(given, what, ())
    if "symbols" in given or "coords" in given:
        return _read_lists(given, what)
    return _read_own(given, what)


def _read_own(given: dict[str, Any], what: str) -> Given:
    """An object with `atoms` ([[element, x, y, z], ...]), `units` (angstrom or bohr), `charge`, `multiplicity`."""
    if unknown := sorted(set(given) - _OWN_KEYS):
        raise InputError(f"{what}: unknown key {shown(unknown[0])} (allowed: {', '.join(sorted(_OWN_KEYS))})")
    units = _units(given.get("units"), what)
    atoms = given.get("atoms")
    if not isinstance(atoms, list) or not atoms:
        raise InputError(f"{what}: atoms must be a list of [element, x, y, z]")
    for number, atom in enumerate(atoms, start=1):
        if not isinstance(atom, list) or len(atom) != 4 or not isinstance(atom[0], str):
            raise InputError(f"{what}: atom {number} must be [element, x, y, z], not {shown(atom)}")
    out = _given([a[0] for a in atoms], [a[1:] for a in atoms], units, what)
    _add_texts(out, given, what)
    out.charge, out.multiplicity = given.get("charge", 0), given.get("multiplicity")
    return out


def _read_lists(given: dict[str, Any], what: str) -> Given:
    """quantum-pipeline's object: lists `symbols` and `coords`, `units`, `charge`, `multiplicity`, and free keys."""
    for key in given:
        if key not in _LIST_FREE_KEYS | {"symbols", "coords", "units", "charge", "multiplicity"} and _NAMED.search(key):
            raise InputError(f"{what}: key {shown(key)} is not known (charge, multiplicity and units are)")
    units = _units(str(given["units"]).lower() if "units" in given else None, what)
    out = _given(given.get("symbols"), given.get("coords"), units, what)
    _add_texts(out, given, what)
    out.charge = _whole(given.get("charge", 0), "charge", what)
    multiplicity = given.get("multiplicity")
    out.multiplicity = None if multiplicity is None else _whole(multiplicity, "multiplicity", what)
    out.notes += _basis_note(given.get("basis", given.get("basis_set")))
    return out


def _read_qcschema(given: dict[str, Any], what: str, notes: tuple[str, ...]) -> Given:
    """QCSchema's molecule: lists `symbols` and `geometry` (bohr, flat), `molecular_charge`, `molecular_multiplicity`."""
    _check_schema(given, what)
    if unknown := sorted(set(given) - _QCSCHEMA_KEYS):
        raise InputError(f"{what}: {shown(unknown[0])} is no key of QCSchema's molecule")
    symbols, geometry = given.get("symbols"), given.get("geometry")
    if isinstance(geometry, list) and geometry and not isinstance(geometry[0], list):
        if len(geometry) % 3:
            raise InputError(f"{what}: geometry has {len(geometry)} numbers, which are no coordinates of three")
        geometry = [geometry[i : i + 3] for i in range(0, len(geometry), 3)]
    out = _given(symbols, geometry, "bohr", what)
    real = given.get("real")
    if real is not None and (
        not isinstance(real, list) or len(real) != len(out.elements) or not all(r is True for r in real)
    ):
        raise InputError(f"{what}: ghost atoms (real: false) are not read")
    numbers = given.get("atomic_numbers")
    if numbers is not None:
        named = (
            [element_of(n, i, what).symbol for i, n in enumerate(numbers, start=1)] if isinstance(numbers, list) else []
        )
        if tuple(named) != out.elements:
            raise InputError(f"{what}: symbols and atomic_numbers differ")
    charges = given.get("fragment_charges")
    charge = given.get("molecular_charge")
    if charge is None and isinstance(charges, list):
        charge = sum(_whole(c, "fragment_charges", what) for c in charges)
    out.charge = _whole(0 if charge is None else charge, "molecular_charge", what)
    multiplicity = given.get("molecular_multiplicity")
    if multiplicity is not None:
        out.multiplicity = _whole(multiplicity, "molecular_multiplicity", what)
    elif any(m != 1 for m in given.get("fragment_multiplicities") or []):
        out.unclear["multiplicity"] = (
            f"{what}: fragments have multiplicities, the molecule has none: give --multiplicity"
        )
    name = given.get("name")
    out.description = (
        given["comment"] if isinstance(given.get("comment"), str) else name if isinstance(name, str) else ""
    )
    out.notes += notes
    return out


def _check_schema(given: dict[str, Any], what: str) -> None:
    name, version = given.get("schema_name"), given.get("schema_version", 1)
    if name is None:
        raise InputError(
            f"{what}: symbols and geometry without schema_name (qcschema_molecule) say no units; or give coords and units"
        )
    if not isinstance(name, str) or not _QCSCHEMA_NAMES.fullmatch(name):
        raise InputError(f"{what}: schema_name {shown(name)} is no molecule of QCSchema (qcschema_molecule)")
    if isinstance(version, bool) or version not in _QCSCHEMA_VERSIONS:
        raise InputError(f"{what}: schema_version {shown(version)} is not known (1 or 2)")


def _methods_note(given: dict[str, Any]) -> tuple[str, ...]:
    model = given.get("model")
    return _basis_note(model.get("basis")) if isinstance(model, dict) else ()


def _basis_note(basis: Any) -> tuple[str, ...]:
    return (f"its basis {shown(basis)} is not taken over: --basis says which one",) if basis else ()


def _given(symbols: Any, positions: Any, units: str, what: str) -> Given:
    if not isinstance(symbols, list) or not symbols:
        raise InputError(f"{what}: symbols must be a list of elements")
    if not isinstance(positions, list) or len(positions) != len(symbols):
        found = len(positions) if isinstance(positions, list) else "no"
        raise InputError(f"{what}: {len(symbols)} elements but {found} positions")
    geometry = []
    for i, position in enumerate(positions, start=1):
        if not isinstance(position, list) or len(position) != 3:
            raise InputError(f"{what}: atom {i} must have three coordinates, not {shown(position)}")
        x, y, z = (coordinate(value, f"{what}: atom {i}") for value in position)
        geometry.append((x, y, z))
    elements, notes = elements_of([element_of(s, i, what) for i, s in enumerate(symbols, start=1)], what)
    return Given("", tuple(elements), tuple(geometry), units, notes=notes)


def _units(units: Any, what: str) -> str:
    if units not in ("angstrom", "bohr"):
        raise InputError(f"{what}: units must be angstrom or bohr, not {shown(units)}")
    return str(units)


def _whole(value: Any, key: str, what: str) -> int:
    """A whole number; QCSchema writes charges as 1.0."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{what}: {key} must be a whole number, not {shown(value)}")
    return value


def _add_texts(out: Given, given: dict[str, Any], what: str) -> None:
    for key in ("name", "description", "source"):
        if not isinstance(given.get(key, ""), str):
            raise InputError(f"{what}: {key} must be text, not {shown(given[key])}")
    out.name = given.get("name", "")
    out.description, out.source = given.get("description", ""), given.get("source", "")
