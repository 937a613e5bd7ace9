"""Molecules: bundled ones, `.xyz` and `.json` files, and what makes a geometry believable."""

import difflib
import hashlib
import json
import math
import os
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from simulator.elements import ATOMIC_NUMBERS, SYMBOLS
from simulator.errors import InputError
from simulator.input_files import read_text, shown

BOHR = 0.529177210903
"""One bohr in angstrom (CODATA 2018)."""

MIN_DISTANCE = 0.1
"""Atoms nearer than this, in angstrom, are on top of each other: a mistake in the input, not a molecule."""

MAX_NAME = 1_000
"""Characters of a name, which stands in every event of a run; paths are names too."""

MAX_COORDINATE = 10_000.0
"""Largest coordinate taken, in angstrom; beyond it 1e-8 angstrom, to which ids are rounded, is lost in the digits."""


@dataclass(frozen=True)
class Molecule:
    """Nuclei, charge and multiplicity.

    Raises:
        InputError: an unknown element, a coordinate that is no number, atoms on top of each other, a charge that leaves
            no electron, or a multiplicity that the electrons cannot have.
    """

    name: str
    elements: tuple[str, ...]  # shape: (n_atoms,)
    geometry: tuple[tuple[float, float, float], ...]  # angstrom, shape: (n_atoms, 3)
    charge: int = 0
    multiplicity: int = 1  # 2 S + 1
    description: str = field(default="", compare=False)
    source: str = field(default="", compare=False)  # of the geometry

    def __post_init__(self) -> None:
        where = f"molecule {self.name}" if self.name else "molecule"
        if not self.name.isprintable() or len(self.name) > MAX_NAME:
            raise InputError(f"molecule {shown(self.name)}: a name is up to {MAX_NAME} printable characters")
        if not self.elements:
            raise InputError(f"{where}: no atoms")
        if len(self.elements) != len(self.geometry):
            raise InputError(f"{where}: {len(self.elements)} elements but {len(self.geometry)} positions")
        object.__setattr__(self, "elements", tuple(_element(s, i, where) for i, s in enumerate(self.elements, start=1)))
        object.__setattr__(
            self, "geometry", tuple(_position(p, i, where) for i, p in enumerate(self.geometry, start=1))
        )
        self._check_distances(where)
        for name in ("charge", "multiplicity"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise InputError(f"{where}: {name} must be a whole number, not {shown(value)}")
        self._check_electrons(where)

    def _check_distances(self, where: str) -> None:
        for i, first in enumerate(self.geometry):
            for j in range(i):
                distance = math.dist(first, self.geometry[j])
                if distance < MIN_DISTANCE:
                    raise InputError(
                        f"{where}: atoms {j + 1} ({self.elements[j]}) and {i + 1} ({self.elements[i]}) are {distance:.3f}"
                        f" angstrom apart (at least {MIN_DISTANCE} is needed; are the units right?)"
                    )

    def _check_electrons(self, where: str) -> None:
        n = self.n_electrons
        if n < 1:
            raise InputError(f"{where}: charge {self.charge} leaves {n} electrons (at least 1 is needed)")
        if self.multiplicity < 1 or (self.multiplicity - 1 - n) % 2 or self.multiplicity > n + 1:
            allowed = [str(m) for m in range(1 + n % 2, n + 2, 2)]
            listed = ", ".join(allowed[:2]) + (", ..." if len(allowed) > 2 else "")
            raise InputError(
                f"{where}: multiplicity {self.multiplicity} is impossible with {n} electron{'s' if n > 1 else ''} (use {listed})"
            )

    @property
    def n_electrons(self) -> int:
        return sum(ATOMIC_NUMBERS[e] for e in self.elements) - self.charge

    @property
    def n_alpha(self) -> int:
        return (self.n_electrons + self.multiplicity - 1) // 2

    @property
    def n_beta(self) -> int:
        return (self.n_electrons - self.multiplicity + 1) // 2

    @property
    def formula(self) -> str:
        """Hill's formula (carbon, hydrogen, then the alphabet), with the charge: `H2O`, `HHe+`, `H3+`."""
        counts = Counter(self.elements)
        first = [e for e in ("C", "H") if e in counts] if "C" in counts else []
        order = first + sorted(e for e in counts if e not in first)
        text = "".join(e + (str(counts[e]) if counts[e] > 1 else "") for e in order)
        size = "" if abs(self.charge) <= 1 else str(abs(self.charge))
        return text + (size + ("+" if self.charge > 0 else "-") if self.charge else "")

    @property
    def nuclear_repulsion(self) -> float:
        """Coulomb energy of the nuclei, in hartree."""
        charges = [ATOMIC_NUMBERS[e] for e in self.elements]
        return sum(
            charges[i] * charges[j] * BOHR / math.dist(self.geometry[i], self.geometry[j])
            for i in range(len(charges))
            for j in range(i)
        )

    @property
    def molecule_id(self) -> str:
        """SHA-256, in hex, of elements, geometry (angstrom, to 1e-8, without signed zeros), charge and multiplicity."""
        identity = {
            "charge": self.charge,
            "elements": list(self.elements),
            # as text with a fixed number of digits, so that no two JSON writers differ in how a float looks
            "geometry": [[f"{round(x, 8) + 0.0:.8f}" for x in position] for position in self.geometry],
            "multiplicity": self.multiplicity,
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def load_molecule(
    text: str, *, charge: int | None = None, multiplicity: int | None = None, where: str | None = None
) -> Molecule:
    """A molecule by bundled name, or from an `.xyz` (angstrom) or `.json` file.

    Args:
        text: bundled name (any case) or path.
        charge: replaces the file's or bundled charge.
        multiplicity: replaces the file's or bundled multiplicity. Where neither is given: the lowest, 1 or 2.
        where: how errors name the source; `text` if None.

    Raises:
        InputError: no such molecule (names the nearest), an unreadable or malformed file, or an impossible molecule.
    """
    path = Path(os.path.expanduser(text))
    suffix = path.suffix.lower()
    if suffix in (".xyz", ".json"):
        name = where or text
        if not os.path.lexists(path):
            raise InputError(f"molecule {name}: no such file")
        content = read_text(path, f"molecule {name}")
        given = _parse_xyz(content, name) if suffix == ".xyz" else _parse_json(content, name)
    else:
        given = _bundled_named(text, where)
    if charge is not None:
        if charge != given["charge"] and multiplicity is None:
            given["multiplicity"] = None  # the one that came with the other charge may be impossible now
        given["charge"] = charge
    if multiplicity is not None:
        given["multiplicity"] = multiplicity
    if given["multiplicity"] is None:
        given["multiplicity"] = _lowest_multiplicity(given)
    return Molecule(**given)


def bundled_molecules() -> list[Molecule]:
    """The molecules that come with the package, smallest first."""
    return [Molecule(**values) for values in _bundled().values()]


def published_energies() -> list[dict[str, Any]]:
    """The bundled table of published total energies: `molecule` (a bundled name), `basis`, `method`, `energy` (hartree), `source`."""
    entries: list[dict[str, Any]] = json.loads(files("simulator").joinpath("bundled/published.json").read_text())[
        "energies"
    ]
    return entries


@cache
def _bundled() -> dict[str, dict[str, Any]]:
    found = {}
    for entry in files("simulator").joinpath("bundled").iterdir():
        if entry.name.endswith(".json") and entry.name != "published.json":
            values = _parse_json(entry.read_text(), entry.name)
            found[values["name"]] = values
    return dict(sorted(found.items(), key=lambda item: (sum(ATOMIC_NUMBERS[e] for e in item[1]["elements"]), item[0])))


def _bundled_named(text: str, where: str | None) -> dict[str, Any]:
    name = text.strip().lower()
    known = _bundled()
    if name in known:
        return dict(known[name])
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    hint = f"did you mean {near[0]}? " if near else ""
    place = f"{where}: " if where and where != text else ""
    raise InputError(
        f"{place}unknown molecule {text!r} ({hint}bundled: {', '.join(known)}; or a path to an .xyz or .json file)"
    )


def _parse_xyz(text: str, name: str) -> dict[str, Any]:
    """An XYZ file: number of atoms, a comment (which may say `charge=1 multiplicity=2`), then one atom a line."""
    lines = text.splitlines()
    try:
        n_atoms = int(lines[0].split()[0])
    except (IndexError, ValueError):
        raise InputError(
            f"molecule {name}: line 1 must be the number of atoms, not {shown(lines[0] if lines else '')}"
        ) from None
    if n_atoms < 1:
        raise InputError(f"molecule {name}: line 1 gives {n_atoms} atoms (at least 1 is needed)")
    rows = [(number, line) for number, line in enumerate(lines[2:], start=3) if line.strip()]
    if len(rows) != n_atoms:
        raise InputError(f"molecule {name}: line 1 promises {n_atoms} atoms, the file has {len(rows)}")
    elements, geometry = [], []
    for number, line in rows:
        parts = line.split()
        if len(parts) < 4:
            raise InputError(
                f"molecule {name}: line {number} must be an element and three coordinates, not {shown(line.strip())}"
            )
        elements.append(parts[0])
        geometry.append(tuple(_coordinate(p, f"molecule {name}: line {number}") for p in parts[1:4]))
    comment = dict(part.split("=", 1) for part in (lines[1].split() if len(lines) > 1 else []) if part.count("=") == 1)
    values = {key.lower(): value for key, value in comment.items()}
    out: dict[str, Any] = {"name": name, "elements": tuple(elements), "geometry": tuple(geometry)}
    for key, default in (("charge", 0), ("multiplicity", None)):
        try:
            out[key] = int(values[key]) if key in values else default
        except ValueError:
            raise InputError(f"molecule {name}: line 2 says {key}={values[key]}, which is no whole number") from None
    return out


_JSON_KEYS = {"name", "units", "atoms", "charge", "multiplicity", "description", "source"}


def _parse_json(text: str, name: str) -> dict[str, Any]:
    """A JSON object: `atoms` ([[element, x, y, z], ...]), `units` (angstrom or bohr), `charge`, `multiplicity`."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"molecule {name}: not JSON ({error})") from None
    if not isinstance(given, dict):
        raise InputError(f"molecule {name}: must be a JSON object, not {type(given).__name__}")
    if unknown := sorted(set(given) - _JSON_KEYS):
        raise InputError(f"molecule {name}: unknown key {shown(unknown[0])} (allowed: {', '.join(sorted(_JSON_KEYS))})")
    units = given.get("units")
    if units not in ("angstrom", "bohr"):
        raise InputError(f"molecule {name}: units must be angstrom or bohr, not {shown(units)}")
    atoms = given.get("atoms")
    if not isinstance(atoms, list) or not atoms:
        raise InputError(f"molecule {name}: atoms must be a list of [element, x, y, z]")
    scale = BOHR if units == "bohr" else 1.0
    elements, geometry = [], []
    for number, atom in enumerate(atoms, start=1):
        if not isinstance(atom, list) or len(atom) != 4 or not isinstance(atom[0], str):
            raise InputError(f"molecule {name}: atom {number} must be [element, x, y, z], not {shown(atom)}")
        elements.append(atom[0])
        geometry.append(tuple(_coordinate(x, f"molecule {name}: atom {number}") * scale for x in atom[1:]))
    for key in ("name", "description", "source"):
        if not isinstance(given.get(key, ""), str):
            raise InputError(f"molecule {name}: {key} must be text, not {shown(given[key])}")
    return {
        "name": given.get("name") or name, "elements": tuple(elements), "geometry": tuple(geometry),
        "charge": given.get("charge", 0), "multiplicity": given.get("multiplicity"),
        "description": given.get("description", ""), "source": given.get("source", ""),
    }  # fmt: skip


def _lowest_multiplicity(given: dict[str, Any]) -> int:
    if isinstance(given["charge"], bool) or not isinstance(given["charge"], int):
        return 1  # Molecule refuses the charge
    numbers = [ATOMIC_NUMBERS.get(str(e).strip().capitalize(), 0) for e in given["elements"]]
    return 1 + (sum(numbers) - given["charge"]) % 2


def _element(symbol: Any, position: int, where: str) -> str:
    name = str(symbol).strip().capitalize()
    if name not in ATOMIC_NUMBERS:
        near = difflib.get_close_matches(name, SYMBOLS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else " (use symbols, e.g. H, He, Li)"
        raise InputError(f"{where}: atom {position} is of unknown element {shown(symbol)}{hint}")
    return name


def _coordinate(value: Any, where: str) -> float:
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(value)
    except (TypeError, ValueError):
        raise InputError(f"{where}: coordinate {shown(value)} is not a number") from None
    except OverflowError:
        raise InputError(f"{where}: coordinate is too large") from None
    if not math.isfinite(number):
        raise InputError(f"{where}: coordinate {value!r} is not a finite number")
    return number


def _position(position: Any, number: int, where: str) -> tuple[float, float, float]:
    if not isinstance(position, tuple | list) or len(position) != 3:
        raise InputError(f"{where}: atom {number} must have three coordinates, not {position!r}")
    x, y, z = (_coordinate(value, f"{where}: atom {number}") for value in position)
    if max(abs(x), abs(y), abs(z)) > MAX_COORDINATE:
        raise InputError(f"{where}: atom {number} is further than {MAX_COORDINATE:g} angstrom from the origin")
    return (x, y, z)
