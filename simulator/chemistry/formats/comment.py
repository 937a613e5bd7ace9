"""What a comment line says about units, charge and spin: obeyed where it is plain, else kept as unclear or refused.

Free text stays free: only what names units, charge, spin or columns has to be understood.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from simulator.chemistry.elements import ATOMIC_NUMBERS
from simulator.chemistry.formats.tokens import whole_number_of
from simulator.errors import InputError
from simulator.input_files import shown

UNITS = {
    "angstrom": "angstrom", "angstroms": "angstrom", "ang": "angstrom", "a": "angstrom", "å": "angstrom",
    "ångström": "angstrom", "angström": "angstrom", "ångstrom": "angstrom", "angs": "angstrom",
    "bohr": "bohr", "bohrs": "bohr", "bohr radius": "bohr", "au": "bohr", "a.u.": "bohr", "a.u": "bohr", "a0": "bohr",
    "atomic": "bohr", "atomic units": "bohr", "atomic unit": "bohr",
}  # fmt: skip
"""Names of the two units of length that files may be in, in lower case."""

MULTIPLICITIES = {
    "singlet": 1, "doublet": 2, "triplet": 3, "quartet": 4, "quintet": 5, "sextet": 6, "septet": 7,
}  # fmt: skip

_INT = r"[+\-\u2212\u2013]?\d+(?:\.0*)?[+-]?"
_IS = r"\s*(?:[=:]\s*|\s(?:is|of)\s+|\s)\s*[\"']?"
_END = r"[\"']?(?![\w.+/-]|,\d)"
_NOT_A_PAIR = r"(?!\s+[+-]?\d+(?:\s|$))"  # "charge 0 1" may be a charge and a multiplicity
_KEY = r"(?<![\w./-])"
_CHARGE = re.compile(
    rf"{_KEY}(?:(?:total|net|molecular|formal|overall)[ _-]?)?(?:charge|chg){_IS}({_INT}){_END}{_NOT_A_PAIR}", re.I
)
_MULTIPLICITY = re.compile(
    rf"{_KEY}(?:(?:spin|molecular)[ _-]?)?(?:multiplicity|multipl|mult|2\s?s\s?\+\s?1){_IS}({_INT}){_END}{_NOT_A_PAIR}",
    re.I,
)
_UNPAIRED = re.compile(
    rf"{_KEY}(?:(?:n|num|number of)?[ _-]?unpaired(?:[ _-]electrons?)?|uhf|nopen)\s*[=:]\s*[\"']?({_INT}){_END}", re.I
)
_SPIN = re.compile(rf"{_KEY}(spin|total[ _-]spin|[sS])\s*[=:]\s*[\"']?(\d+/2|\d+(?:\.\d*)?){_END}", re.I)
_UNIT_NAMES = "|".join(sorted(map(re.escape, UNITS), key=len, reverse=True))
_UNITS = re.compile(
    rf"{_KEY}(?:(?:length|distance|coordinates?|coords?|positions?|pos|geometry|xyz)[ _-]?)?units?"
    rf"(?:\s*[=:]\s*|\s+(?:are|is)\s+|\s+)(?:in\s+)?[\"']?({_UNIT_NAMES}|[^\s,;\"']+)(?![\w.])[\"']?",
    re.I,
)
_IN_UNITS = re.compile(
    r"(?P<before>.*?)(?:^|[,;:(\[]|(?=\s+in\s))\s*"
    r"(?:(?:all|xyz|cartesians?|cartesian coordinates|coordinates|coords|positions|geometry)\s*(?:(?:are|is|given|all)\s+)*)?"
    rf"(?:in\s+)?[(\[]?\s*(?:in\s+)?({_UNIT_NAMES})\s*[)\]]?\s*[.;,]?\s*",
    re.I,
)
"""The whole of a line that ends in the unit of its coordinates: `bohr`, `water (bohr)`, `coordinates are in bohr`."""
_OF_SOMETHING_ELSE = re.compile(
    r"(?<![A-Za-z])(?:not|no|from|to|energ\w*|dipole\w*|forces?|gradients?|lengths?|distances?|bonds?|radi\w*|e|r)(?![A-Za-z])"
    r"|\d\.\d|=", re.I
)  # fmt: skip
_PAIR = re.compile(rf"\s*({_INT})[\s,]+({_INT})\s*")
_LEADING_PAIR = re.compile(rf"\s*({_INT})\s+(\+?\d+)\s+\D")

_HARMLESS = re.compile(
    r"\b(?:nuclear|partial|atomic|mulliken|l[oö]wdin|hirshfeld|esp|resp|nbo|npa|bader|gasteiger)[ _-]charges?\b"
    r"|\b\w*(?:energy|force|stress|dipole|time|temperature|mass|freq\w*)s?_units?\s*=\s*\S+"
    r"|\b\d{1,2}:\d\d(?::\d\d)?\s?[ap]m\b"
    r"|\b(?:energy|energies|e|scf|hf|rhf|uhf|total)\s*[=:]?\s*[+-]?\d+\.\d+\s*(?:a\.u\.?|au)(?![\w.])",
    re.I,
)
"""What has such a word in it and says nothing about the molecule's charge or the unit of its coordinates."""

_NAMES_CHARGE = re.compile(
    r"(?<![A-Za-z])(?:un)?charge|(?<![A-Za-z])chg|(?<![A-Za-z])(?:di|tri|poly)?(?:cat|an)ion(?:s|ic)?(?![A-Za-z])"
    r"|(?<![A-Za-z])(?:ions?|ioni[sz]ed)(?![A-Za-z])|(?<![\w])q\s*[=:]\s*[+-]?\d", re.I
)  # fmt: skip
_NAMES_SPIN = re.compile(
    r"(?<![A-Za-z])spins?(?![A-Za-z])|(?<![A-Za-z])mult(?:ipl|iplets?)?(?![A-Za-z])|multiplicit|unpaired|(?<![A-Za-z])(?:di|bi)?radicals?(?![A-Za-z])"
    r"|open[ -]?shell|magmom|magneti[sc]|(?<![\w])(?:s|ms|m|2s|nopen|nalpha|nbeta)\s*[=:]\s*[+-]?\d"
    r"|2\s?s\s?\+\s?1|(?<![A-Za-z])(?:singlet|doublet|triplet|quartet|quintet|sextet|septet|octet)s?(?![A-Za-z])", re.I
)  # fmt: skip
_NAMES_UNITS = re.compile(
    r"(?<![A-Za-z])bohrs?(?![A-Za-z])|bohr_|_bohr|(?<![A-Za-z])units?(?![A-Za-z])|(?<![\w.])(?:a\.u\.?|AU|au|a0|nm|pm)(?![\w.])"
    r"|atomic units|(?i:nanomet|picomet|fractional|crystal coord|scaled coord|z-?matrix|internal coord)", re.I
)  # fmt: skip
_NOT_ANGSTROM = re.compile(r"\bfrom\s+(?:angstroms?|å)\b|\bnot\s+(?:in\s+)?angstroms?\b", re.I)
_COLUMNS = re.compile(r"(?<![A-Za-z])(?:columns?|fields)(?![A-Za-z])|\bproperties\s*[=:]|\bspecies\s*:", re.I)
_XYZ_WORDS = re.compile(r"(?:\b(?:atom|element|symbol|species|label|type|el|name)s?\b[\s,]+)?\bx[\s,]+y[\s,]+z\b", re.I)


@dataclass
class Stated:
    """What lines of text said."""

    units: str | None = None
    charge: int | None = None
    multiplicity: int | None = None
    spin: Fraction | None = None
    unclear: dict[str, str] = field(default_factory=dict)  # charge or multiplicity: why it cannot be obeyed


def read_comment(text: str, where: str, elements: Sequence[str] = (), *, bare_numbers: bool = True) -> Stated:
    """What a comment line states.

    Args:
        text: the line.
        where: how errors name it, e.g. `molecule water.xyz: line 2`.
        elements: the atoms' symbols, by which a formula such as H3O+ is known.
        bare_numbers: whether `0 1` is a charge and a multiplicity.

    Raises:
        InputError: units or columns are named and not understood, two statements differ, or a number is none.
    """
    out = Stated()
    if bare_numbers and (pair := _PAIR.fullmatch(text)):
        out.charge, out.multiplicity = whole_number_of(pair[1]), whole_number_of(pair[2])
        return out
    rest = text
    rest = _take(rest, _UNITS, lambda m: _set(out, "units", _unit(m[1], where), where))
    rest = _take(rest, _CHARGE, lambda m: _set(out, "charge", whole_number_of(m[1]), where))
    rest = _take(rest, _MULTIPLICITY, lambda m: _set(out, "multiplicity", whole_number_of(m[1]), where))
    rest = _take(rest, _UNPAIRED, lambda m: _set(out, "multiplicity", _plus_one(whole_number_of(m[1])), where))
    rest = _take(rest, _SPIN, lambda m: _set(out, "spin", Fraction(m[2].rstrip(".")), where))
    for key in ("charge", "multiplicity"):
        if match := re.search(rf"(?<![\w./-]){key}\s*=\s*([^\s,;]+)", rest, re.I):
            raise InputError(f"{where} says {key}={match[1]}, which is no whole number, or not alone")
    rest = _HARMLESS.sub(" ", rest)
    if out.units is None and (match := _IN_UNITS.fullmatch(rest)) and _NAMES_UNITS.search(_without_gold(match[2])):
        is_gold = match[2].lower() == "au" and "Au" in elements
        if not is_gold and not _OF_SOMETHING_ELSE.search(match["before"]):
            out.units = UNITS[match[2].lower()]
            rest = match["before"]
    _words(rest, out, where)
    _leftovers(rest, out, where, text)
    _formula(rest, out, where, elements)
    if bare_numbers and (pair := _LEADING_PAIR.match(rest)):
        charge, multiplicity = whole_number_of(pair[1]), whole_number_of(pair[2])
        default = 1 + sum(ATOMIC_NUMBERS[e] for e in elements) % 2
        if charge != 0 or multiplicity != default:
            reason = f"begins with {pair[1]} {pair[2]}, which may be charge and multiplicity"
            _unclear(out, "charge", where, text, reason)
            _unclear(out, "multiplicity", where, text, reason)
    if bare_numbers and re.fullmatch(r"\s*(?:[+\-\u2212]\d+|\d+[+-])\s*", text):
        _unclear(out, "charge", where, text, "is a number with a sign, which may be the charge")
    return out


def merge(into: Stated, other: Stated, where: str) -> Stated:
    """Both statements.

    Raises:
        InputError: they differ.
    """
    for key in ("units", "charge", "multiplicity", "spin"):
        if (value := getattr(other, key)) is not None:
            _set(into, key, value, where)
    into.unclear |= {k: v for k, v in other.unclear.items() if k not in into.unclear}
    return into


def multiplicity_of_spin(spin: Fraction, n_electrons: int, what: str) -> int:
    """The multiplicity 2S+1 that a number called spin means, where only one is possible with so many electrons.

    Programs call S, 2S and 2S+1 spin.

    Raises:
        InputError: several are possible, or none.
    """

    def possible(multiplicity: Fraction) -> bool:
        m = int(multiplicity)
        return multiplicity == m and 1 <= m <= n_electrons + 1 and (m - 1 - n_electrons) % 2 == 0

    readings = {"2S": spin + 1, "S": 2 * spin + 1, "the multiplicity": spin}
    found = {int(m) for m in readings.values() if possible(m)}
    if len(found) == 1 and spin not in found:
        return found.pop()
    listed = ", ".join(f"{name} (multiplicity {m})" for name, m in readings.items() if m >= 1 and m.denominator == 1)
    raise InputError(
        f"{what}: spin={spin} may mean {listed}; with {n_electrons} electrons that is not plain:"
        " write multiplicity=, which is 2S+1"
    )


def _take(text: str, pattern: re.Pattern[str], use: Callable[[re.Match[str]], None]) -> str:
    for match in pattern.finditer(text):
        use(match)
    return pattern.sub(" ; ", text)


def _set(out: Stated, key: str, value: object, where: str) -> None:
    before = getattr(out, key)
    if before is not None and before != value:
        raise InputError(f"{where} says {key} {before} and {key} {value}")
    setattr(out, key, value)


def _unit(text: str, where: str) -> str:
    name = text.lower().rstrip(".") if text.lower() not in UNITS else text.lower()
    if name not in UNITS:
        raise InputError(f"{where} says units {shown(text)} (use angstrom or bohr)")
    return UNITS[name]


def _plus_one(number: int | None) -> int | None:
    return None if number is None else number + 1


def _words(rest: str, out: Stated, where: str) -> None:
    """Obey what is said in words: singlet, triplet, neutral."""
    named = {MULTIPLICITIES[w.lower()] for w in re.findall(r"(?<![A-Za-z-])[A-Za-z]+(?![A-Za-z-])", rest) if w.lower() in MULTIPLICITIES}  # fmt: skip
    if len(named) == 1:
        _set(out, "multiplicity", named.pop(), where)
    if re.search(r"(?<![A-Za-z-])(?:neutral|uncharged)(?![A-Za-z])", rest, re.I):
        _set(out, "charge", 0, where)


def _leftovers(rest: str, out: Stated, where: str, text: str) -> None:
    """Refuse, or keep as unclear, what names units, columns, charge or spin and was not understood."""
    if out.units is None and (match := _NAMES_UNITS.search(_without_gold(rest))):
        raise InputError(
            f"{where}: {shown(text)} names {match[0].strip()!r}, but not plainly as the unit of the coordinates"
            " (write units=angstrom or units=bohr)"
        )
    if out.units is None and _NOT_ANGSTROM.search(rest):
        raise InputError(f"{where}: {shown(text)}: are the coordinates in angstrom? (write units=angstrom or bohr)")
    if match := _COLUMNS.search(rest):
        raise InputError(
            f"{where}: {shown(text)} names columns ({match[0].strip()!r}); they are read as in extended XYZ:"
            " Properties=species:S:1:pos:R:3:forces:R:3"
        )
    words = re.findall(r"[A-Za-z]+", rest.lower())
    if {"x", "y", "z"} <= set(words) and not _XYZ_WORDS.search(rest):
        raise InputError(f"{where}: {shown(text)} names columns in another order than x y z")
    if out.charge is None and (match := _NAMES_CHARGE.search(rest)):
        _unclear(out, "charge", where, text, f"names a charge ({match[0].strip()!r})")
    elif out.charge == 0 and (match := re.search(r"(?<![A-Za-z])(?:cat|an)ions?(?![A-Za-z])", rest, re.I)):
        raise InputError(f"{where}: {shown(text)} says charge 0 and {match[0]}")
    if out.multiplicity is None and out.spin is None and (match := _NAMES_SPIN.search(rest)):
        _unclear(out, "multiplicity", where, text, f"names a spin ({match[0].strip()!r})")


def _without_gold(text: str) -> str:
    return re.sub(r"(?<![A-Za-z])Au(?![A-Za-z])", " ", text)


def _formula(rest: str, out: Stated, where: str, elements: Sequence[str]) -> None:
    """A formula of these atoms that ends in a charge, such as H3O+ or OH-, names a charge."""
    if out.charge is not None or "charge" in out.unclear or not elements:
        return
    atoms = Counter(elements)
    for token in re.findall(r"(?<![\w+-])([A-Z][A-Za-z0-9]*)\^?(?:\d?[+\-\u2212]+|[+-]\d|\(\d?[+-]\))(?![\w])", rest):
        for formula in (token, token.rstrip("0123456789")):
            parts = re.findall(r"([A-Z][a-z]?)(\d*)", formula)
            if "".join(e + n for e, n in parts) != formula:
                continue
            counts: Counter[str] = Counter()
            for element, number in parts:
                counts[element] += int(number or 1)
            if counts == atoms:
                _unclear(out, "charge", where, rest.strip(), f"names an ion of {formula}")
                return


def _unclear(out: Stated, key: str, where: str, text: str, why: str) -> None:
    option = f"--{key}"
    out.unclear.setdefault(
        key, f"{where}: {shown(text.strip())} {why}, which is not plain: write {key}= there, or give {option}"
    )
