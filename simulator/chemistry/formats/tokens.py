"""Words of molecule files: elements, labels, isotopes and numbers as programs write them."""

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from simulator.chemistry.elements import ATOMIC_NUMBERS, SYMBOLS
from simulator.errors import InputError
from simulator.input_files import shown

_HYDROGENS = {"D": "deuterium", "T": "tritium"}
_DUMMIES = {"x", "xx", "q", "bq", "du", "gh", "ghost", "lp", "tv", "*", "-", "e"}
_LABEL = re.compile(r"([A-Za-z]{1,2})_?[0-9]{1,6}'*", re.ASCII)
_MASS = re.compile(r"([0-9]{1,3})([A-Za-z]{1,2})", re.ASCII)
_AMBIGUOUS_CAPITALS = {
    symbol.upper() for symbol in SYMBOLS if len(symbol) == 2 and symbol[0] in "CHNOSP" and symbol[1] in "abgdezho"
}
"""CA, HE, ND, ...: elements to some programs, the alpha carbon or a hydrogen at epsilon to others."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(([eEdDqQ]|\*\^)[+-]?\d+)?", re.ASCII)
_MINUS = str.maketrans({"\N{MINUS SIGN}": "-", "\N{EN DASH}": "-", "\N{SMALL HYPHEN-MINUS}": "-", "\N{FULLWIDTH HYPHEN-MINUS}": "-"})  # fmt: skip


@dataclass(frozen=True)
class Element:
    """An atom's element as read: the symbol, what is told about the isotope, and whether it was given as a number."""

    symbol: str
    isotope: str = ""
    is_number: bool = False


def element_of(token: Any, position: int, where: str, nuclear_charge: float | None = None) -> Element:
    """The element that a symbol, a label (H1), an isotope (D, 13C) or an atomic number means.

    Args:
        token: what stands in the file.
        position: of the atom, from 1.
        where: how errors name the file.
        nuclear_charge: a second word on the element, which decides about capital letters (CA).

    Raises:
        InputError: an unknown element, a dummy or ghost atom, or a text that may mean two elements.
    """
    text = str(token).strip()
    place = f"{where}: atom {position}"
    if re.fullmatch(r"\d{1,3}(\.0*)?", text, re.ASCII):
        number = int(float(text))
        if not 1 <= number <= len(SYMBOLS):
            raise InputError(f"{place} has atomic number {text} (1 to {len(SYMBOLS)}; dummy atoms are not read)")
        return Element(SYMBOLS[number - 1], is_number=True)
    low = text.lower()
    if low in _DUMMIES or low.startswith(("ghost", "x-", "gh(", "@")) or low.endswith(("-bq", "-gh", "_bq")):
        raise InputError(f"{place} is of unknown element {shown(token)} (dummy and ghost atoms are not read)")
    if match := _MASS.fullmatch(text):
        symbol = match[2].capitalize()
        mass, lightest = int(match[1]), ATOMIC_NUMBERS.get(symbol, 0)
        if lightest and lightest <= mass <= 3 * lightest + 4:
            return Element(symbol, f"{match[1]}{symbol}")
    match = _LABEL.fullmatch(text) or re.fullmatch(r"([A-Za-z]{1,2})@\w{1,9}", text, re.ASCII)
    letters = match[1] if match else text
    if letters.upper() in _HYDROGENS and len(letters) == 1:
        return Element("H", _HYDROGENS[letters.upper()])
    name = letters.capitalize()
    if letters in _AMBIGUOUS_CAPITALS:
        first = letters[0]
        if nuclear_charge is not None and nuclear_charge == ATOMIC_NUMBERS[first]:
            return Element(first)
        if nuclear_charge is None:
            raise InputError(f"{place}: {text} may mean {name} or a label of {first}; write {name} or {first}")
    if name not in ATOMIC_NUMBERS:
        near = difflib.get_close_matches(name, SYMBOLS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else " (use symbols, e.g. H, He, Li)"
        raise InputError(f"{place} is of unknown element {shown(token)}{hint}")
    return Element(name)


def elements_of(atoms: Sequence[Element], where: str) -> tuple[list[str], tuple[str, ...]]:
    """The symbols, and a note that tells isotopes.

    Raises:
        InputError: atomic numbers that count 1, 2, 3, ...: those number atoms.
    """
    numbers = [ATOMIC_NUMBERS[a.symbol] for a in atoms]
    if len(atoms) > 1 and all(a.is_number for a in atoms) and numbers == list(range(1, len(atoms) + 1)):
        raise InputError(
            f"{where}: 1, 2, ... in the first column may number the atoms or mean H, He, ...; write symbols"
        )
    told = [f"atom {i} ({a.isotope}) is read as {a.symbol}" for i, a in enumerate(atoms, start=1) if a.isotope]
    more = f" and {len(told) - 3} more" if len(told) > 3 else ""
    notes = (f"{', '.join(told[:3])}{more}: electronic energies do not depend on masses",) if told else ()
    return [a.symbol for a in atoms], notes


def row_fields(row: str) -> list[str]:
    """The fields of an atom's line. Commas part fields only where no decimal comma can be meant: `H, 0, 0, 0.7`, `H 0,0,0.7`.

    A line with other commas is returned with them, so that its numbers are refused.
    """
    if "," not in row:
        return row.split()
    parts = [part.strip() for part in row.split(",")]
    if len(parts) == 3 and len(parts[0].split()) == 2:
        parts = [*parts[0].split(), *parts[1:]]
    return parts if len(parts) == 4 and not any(" " in p or "\t" in p for p in parts) else row.split()


def number_of(text: str) -> float | None:
    """A number as Python, Fortran (7.35D-01) or Mathematica (7.35*^-1) writes it, with any minus sign; None if it is none."""
    plain = text.strip().translate(_MINUS)
    if not _NUMBER.fullmatch(plain):
        return None
    return float(re.sub(r"[dDqQ]|\*\^", "e", plain))


def whole_number_of(text: str) -> int | None:
    """A whole number such as 1, +1, -1, 1+, 2-, 1.0; None if it is none."""
    plain = text.strip().translate(_MINUS)
    if match := re.fullmatch(r"(\d{1,6})([+-])", plain, re.ASCII):
        plain = match[2] + match[1]
    return int(float(plain)) if re.fullmatch(r"[+-]?\d{1,6}(\.0*)?", plain, re.ASCII) else None


def numbers_of(texts: Sequence[str], where: str) -> tuple[float, float, float]:
    """Three coordinates.

    Raises:
        InputError: one is no finite number.
    """
    found = [number_of(text) for text in texts]
    x, y, z = (coordinate(text if value is None else value, where) for text, value in zip(texts, found, strict=True))
    return x, y, z


def coordinate(value: Any, where: str) -> float:
    """A finite number.

    Raises:
        InputError: it is not.
    """
    try:
        if isinstance(value, bool) or (isinstance(value, str) and "_" in value):
            raise ValueError
        number = float(value.translate(_MINUS) if isinstance(value, str) else value)
    except (TypeError, ValueError):
        raise InputError(f"{where}: coordinate {shown(value)} is not a number") from None
    except OverflowError:
        raise InputError(f"{where}: coordinate is too large") from None
    if not math.isfinite(number):
        raise InputError(f"{where}: coordinate {shown(value)} is not a finite number")
    return number
