"""Molecules: bundled ones, those of files, and what makes a geometry believable."""

import difflib
import hashlib
import json
import math
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Any

from simulator.chemistry.elements import ATOMIC_NUMBERS, SYMBOLS
from simulator.chemistry.formats import FORMATS, is_molecule_file, read_atoms_text, read_molecule_file
from simulator.chemistry.formats.comment import multiplicity_of_spin
from simulator.chemistry.formats.given import Given
from simulator.chemistry.formats.json_molecules import read_json
from simulator.chemistry.formats.tokens import coordinate
from simulator.chemistry.given_integrals import GivenIntegrals, check_multiplicity, check_needs_no_atoms
from simulator.errors import InputError
from simulator.input_files import shown

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
    """Nuclei, charge and multiplicity; or the integrals of a Hamiltonian, where neither nuclei nor a charge are known.

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
    notes: tuple[str, ...] = field(default=(), compare=False)  # what a user should know of how it was read
    integrals: GivenIntegrals | None = None  # then there are no atoms, and the charge is 0

    def __post_init__(self) -> None:
        where = f"molecule {self.name}" if self.name else "molecule"
        if not self.name.isprintable() or len(self.name) > MAX_NAME:
            raise InputError(f"molecule {shown(self.name)}: a name is up to {MAX_NAME} printable characters")
        if self.integrals is not None:
            if not isinstance(self.integrals, GivenIntegrals):
                raise InputError(f"{where}: integrals must be given ones, not {shown(self.integrals)}")
            if self.elements or self.geometry or self.charge:
                raise InputError(f"{where}: integrals stand in the place of atoms and charge, both were given")
            check_multiplicity(self.integrals, self.multiplicity, where)
            return
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
        if self.integrals is not None:
            return self.integrals.n_electrons
        return sum(ATOMIC_NUMBERS[e] for e in self.elements) - self.charge

    @property
    def n_alpha(self) -> int:
        return (self.n_electrons + self.multiplicity - 1) // 2

    @property
    def n_beta(self) -> int:
        return (self.n_electrons - self.multiplicity + 1) // 2

    @property
    def formula(self) -> str:
        """Hill's formula (carbon, hydrogen, then the alphabet), with the charge: `H2O`, `HHe+`, `H3+`.

        Of integrals, their electrons and orbitals: `10e7o`.
        """
        if self.integrals is not None:
            return self.integrals.formula
        counts = Counter(self.elements)
        first = [e for e in ("C", "H") if e in counts] if "C" in counts else []
        order = first + sorted(e for e in counts if e not in first)
        text = "".join(e + (str(counts[e]) if counts[e] > 1 else "") for e in order)
        size = "" if abs(self.charge) <= 1 else str(abs(self.charge))
        return text + (size + ("+" if self.charge > 0 else "-") if self.charge else "")

    @property
    def nuclear_repulsion(self) -> float:
        """Coulomb energy of the nuclei, in hartree; 0 where there are none, but integrals."""
        charges = [ATOMIC_NUMBERS[e] for e in self.elements]
        return sum(
            charges[i] * charges[j] * BOHR / math.dist(self.geometry[i], self.geometry[j])
            for i in range(len(charges))
            for j in range(i)
        )

    @property
    def molecule_id(self) -> str:
        """SHA-256, in hex, of elements, geometry (angstrom, to 1e-8, without signed zeros), charge and multiplicity.

        Without atoms, of the integrals' own SHA-256 and the multiplicity.
        """
        if self.integrals is not None:
            return _digest({"integrals": self.integrals.sha256, "multiplicity": self.multiplicity})
        identity = {
            "charge": self.charge,
            "elements": list(self.elements),
            # as text with a fixed number of digits, so that no two JSON writers differ in how a float looks
            "geometry": [[f"{round(x, 8) + 0.0:.8f}" for x in position] for position in self.geometry],
            "multiplicity": self.multiplicity,
        }
        return _digest(identity)


def load_molecule(
    text: str, *, charge: int | None = None, multiplicity: int | None = None, where: str | None = None
) -> Molecule:
    """A molecule by bundled name, or from a file (`simulator/chemistry/formats`); `set.xyz#3` is the third of several.

    Args:
        text: bundled name (any case) or path.
        charge: replaces the file's or bundled charge.
        multiplicity: replaces the file's or bundled multiplicity. Where neither is given: the lowest, 1 or 2.
        where: how errors name the source; `text` if None.

    Raises:
        InputError: no such molecule (names the nearest), an unreadable or malformed file, one whose units, charge, spin or
            columns are not plain, or an impossible molecule.
    """
    if is_molecule_file(text):
        name = where or text
        given = read_molecule_file(text, name)
        given.name = given.name or name
    else:
        given = _bundled_named(text, where)
    return _molecule(given, charge, multiplicity)


def molecule_from_atoms(text: str, *, charge: int | None = None, multiplicity: int | None = None) -> Molecule:
    """A molecule from a geometry as PySCF and Qiskit write it, in angstrom: `H 0 0 0; H 0 0 0.735`. Its name is its formula.

    Raises:
        InputError: not such a text, or an impossible molecule.
    """
    molecule = _molecule(read_atoms_text(text), charge, multiplicity)
    return replace(molecule, name=molecule.formula)


def _molecule(given: Given, charge: int | None, multiplicity: int | None) -> Molecule:
    """The molecule that a file describes, with the charge and multiplicity of the user in place of the file's."""
    if given.integrals is not None:
        check_needs_no_atoms({"charge": charge}, f"molecule {given.name}: ")
        chosen = given.multiplicity if multiplicity is None else multiplicity
        return Molecule(given.name, (), (), 0, chosen or 1, notes=given.notes, integrals=given.integrals)
    stated = 0 if given.charge is None else given.charge
    spin, its_multiplicity = given.spin, given.multiplicity
    if charge is None and "charge" in given.unclear:
        raise InputError(given.unclear["charge"])
    if multiplicity is None and "multiplicity" in given.unclear:
        raise InputError(given.unclear["multiplicity"])
    if charge is not None:
        if charge != stated and multiplicity is None:
            its_multiplicity, spin = None, None  # those that came with the other charge may be impossible now
        stated = charge
    if multiplicity is None and spin is not None:
        from_spin = multiplicity_of_spin(spin, _n_electrons(given, stated), f"molecule {given.name}")
        if its_multiplicity not in (None, from_spin):
            raise InputError(f"molecule {given.name}: says multiplicity {its_multiplicity} and spin={spin}")
        its_multiplicity = from_spin
    if multiplicity is None:
        multiplicity = its_multiplicity
    if multiplicity is None:
        multiplicity = 1 + _n_electrons(given, stated) % 2
    scale = BOHR if given.units == "bohr" else 1.0
    geometry = tuple((x * scale, y * scale, z * scale) for x, y, z in given.geometry)
    return Molecule(
        given.name, given.elements, geometry, stated, multiplicity, given.description, given.source, given.notes
    )


def _digest(identity: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _n_electrons(given: Given, charge: Any) -> int:
    if isinstance(charge, bool) or not isinstance(charge, int):
        return 0  # Molecule refuses the charge
    return sum(ATOMIC_NUMBERS[e] for e in given.elements) - charge


def bundled_molecules() -> list[Molecule]:
    """The molecules that come with the package, smallest first."""
    return [_molecule(given, None, None) for given in _bundled().values()]


def published_energies() -> list[dict[str, Any]]:
    """The bundled table of published total energies: `molecule` (a bundled name), `basis`, `method`, `energy` (hartree), `source`."""
    entries: list[dict[str, Any]] = json.loads(
        files("simulator").joinpath("chemistry/bundled/published.json").read_text()
    )["energies"]
    return entries


@cache
def _bundled() -> dict[str, Given]:
    found = {}
    for entry in files("simulator").joinpath("chemistry/bundled").iterdir():
        if entry.name.endswith(".json") and entry.name != "published.json":
            given = read_json(entry.read_text(), f"molecule {entry.name}")[0]()
            found[given.name] = given
    return dict(sorted(found.items(), key=lambda item: (sum(ATOMIC_NUMBERS[e] for e in item[1].elements), item[0])))


def _bundled_named(text: str, where: str | None) -> Given:
    name = text.strip().lower()
    known = _bundled()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    hint = f"did you mean {near[0]}? " if near else ""
    place = f"{where}: " if where and where != text else ""
    raise InputError(
        f"{place}unknown molecule {text!r} ({hint}bundled: {', '.join(known)}; or a path to a file: {FORMATS})"
    )


def _element(symbol: Any, position: int, where: str) -> str:
    name = str(symbol).strip().capitalize()
    if name not in ATOMIC_NUMBERS:
        near = difflib.get_close_matches(name, SYMBOLS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else " (use symbols, e.g. H, He, Li)"
        raise InputError(f"{where}: atom {position} is of unknown element {shown(symbol)}{hint}")
    return name


def _position(position: Any, number: int, where: str) -> tuple[float, float, float]:
    if not isinstance(position, tuple | list) or len(position) != 3:
        raise InputError(f"{where}: atom {number} must have three coordinates, not {position!r}")
    x, y, z = (coordinate(value, f"{where}: atom {number}") for value in position)
    if max(abs(x), abs(y), abs(z)) > MAX_COORDINATE:
        raise InputError(f"{where}: atom {number} is further than {MAX_COORDINATE:g} angstrom from the origin")
    return (x, y, z)
