"""FCIDUMP: a Hamiltonian as integrals over orbitals (Knowles and Handy, Comput. Phys. Commun. 54, 75, 1989).

A Fortran namelist (&FCI NORB=..., NELEC=..., MS2=..., ORBSYM=..., ISYM=... &END) is followed by lines of a value and four indices
from 1: (ij|kl) in chemists' order; i j 0 0 is h_ij, i 0 0 0 the energy of an orbital, 0 0 0 0 the core energy.
"""

import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from simulator.chemistry.formats.given import Given
from simulator.chemistry.formats.tokens import number_of
from simulator.chemistry.given_integrals import (
    MAX_INTEGRAL,
    MAX_ORBITALS,
    GivenIntegrals,
    n_packed,
    n_pairs,
    packed,
    pair_index,
)
from simulator.errors import InputError
from simulator.input_files import MAX_BYTES, read_text, shown

SAME_INTEGRAL = 1e-8
"""Hartree. How far entries may be apart that permutations of real orbitals make equal; programs write 8 digits or more."""

_OBEYED = ("NORB", "NELEC", "MS2", "ORBSYM", "ISYM")
_REFUSED = {
    **dict.fromkeys(("IUHF", "UHF"), "spin-unrestricted integrals are not read, one set of orbitals is needed for both spins"),
    **dict.fromkeys(("KREL", "TREL", "IREL", "REL"), "relativistic integrals over spinors are not read"),
    **dict.fromkeys(("COMPLEX", "ICOMPLEX"), "complex integrals are not read"),
    **dict.fromkeys(("NPROP", "SYML", "SYMLZ"), "orbitals of momentum are complex, and their integrals are not read"),
}  # fmt: skip
"""Keys that change what the integrals mean, and why they are refused unless they say no."""
_OF_PROGRAMS = ("NROOT", "INT", "MEMORY", "CORE", "MAXIT", "THR", "THRRES", "IPRTIM", "IRREST", "IPRINT", "PROPBITLEN")
"""Settings of the programs that first read such files; they say nothing about the Hamiltonian."""

_BEGIN = re.compile(r"\s*[&$]FCI(?![A-Za-z0-9_])", re.IGNORECASE)
_END = re.compile(r"[&$]END\b|/|[&$](?=\s|$)", re.IGNORECASE)
_KEY = re.compile(r"([A-Za-z_]\w*)\s*(\([^)=]*\))?\s*=", re.ASCII)
_NO = re.compile(r"0*|\.?F(ALSE)?\.?", re.IGNORECASE)
_PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(E[+-]?\d{1,4})?", re.ASCII | re.IGNORECASE)
_BARE_EXPONENT = re.compile(r"([+-]?\d*\.\d+|[+-]?\d+\.)([+-]\d{3})", re.ASCII)


def is_fcidump(path: Path) -> bool:
    """Whether a file's name says that it is one: any name with the suffix .fcidump, or FCIDUMP itself, in any case."""
    return path.suffix.lower() == ".fcidump" or path.name.lower() == "fcidump"


def read_fcidump(path: Path, what: str) -> Given:
    """The integrals of a file, real and of one set of orbitals for both spins.

    Args:
        path: the file.
        what: how errors name it.

    Raises:
        InputError: it cannot be read, holds something else or more than is taken, or anything in it is malformed,
            contradictory or of unknown meaning; names the line.
    """
    if os.path.isfile(path) and os.path.getsize(path) > MAX_BYTES:  # say how many orbitals, not how many bytes
        with open(path, "rb") as file:
            _Namelist.read(file.read(1 << 16).decode(errors="replace"), what)
    return parse_fcidump(read_text(path, what, MAX_BYTES), what)


def parse_fcidump(text: str, what: str) -> Given:
    """As `read_fcidump`, from the file's text."""
    head = _Namelist.read(text, what)
    rows = _Rows(head, what)
    for number, line in enumerate(text.splitlines()[head.n_lines :], start=head.n_lines + 1):
        if line.strip():
            rows.take(line, number)
    rows.check_complete()
    notes = list(head.notes)
    if rows.core_line is None:
        notes.append("the file holds no core energy: it is taken as 0")
    integrals = GivenIntegrals(
        norb=head.norb, n_electrons=head.n_electrons, core_energy=rows.core, one_body=packed(rows.one_body),
        two_body=packed(rows.two_body), orbsym=head.orbsym, isym=head.isym,
    )  # fmt: skip
    return Given("", (), (), integrals=integrals, multiplicity=head.multiplicity, notes=tuple(notes))


# --- the namelist ----------------------------------------------------------------------------------------------------


@dataclass
class _Namelist:
    """What stands before the integrals."""

    norb: int
    n_electrons: int
    multiplicity: int
    orbsym: tuple[int, ...] | None
    isym: int
    n_lines: int  # lines of the file up to the namelist's end
    notes: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, text: str, what: str) -> "_Namelist":
        body, starts, n_lines = _body(text, what)
        found: dict[str, tuple[list[str], str]] = {}  # values, and how errors name the place
        keys = list(_KEY.finditer(body))
        line_of = lambda at: next(n for begin, n in reversed(starts) if begin <= at)  # noqa: E731
        before = body[: keys[0].start()] if keys else body
        if before.strip(" ,\t\n"):
            raise InputError(f"{what}: line {line_of(0)}: {shown(before.strip())} is no KEY=VALUE of the &FCI namelist")
        ends = [*(m.start() for m in keys), len(body)][1:]
        for match, following in zip(keys, ends, strict=True):
            key, where = match[1].upper(), f"{what}: line {line_of(match.start())}"
            if match[2]:
                raise InputError(f"{where}: {match[0]} gives a single element (give {key} as a whole list)")
            if key in found:
                raise InputError(f"{where}: {key} is given twice")
            found[key] = (_values(body[match.end() : following], key, where), where)
        for key, (values, where) in found.items():
            if key in _REFUSED and not all(_NO.fullmatch(v) for v in values):
                raise InputError(f"{where}: {key}={','.join(values[:3])}: {_REFUSED[key]}")
            if key not in (*_OBEYED, *_REFUSED, *_OF_PROGRAMS):
                raise InputError(f"{where}: unknown key {key[:40]} (known are {', '.join(_OBEYED)})")
        return cls._checked(found, what, n_lines)

    @classmethod
    def _checked(cls, found: dict[str, tuple[list[str], str]], what: str, n_lines: int) -> "_Namelist":
        for key in ("NORB", "NELEC"):
            if key not in found:
                raise InputError(f"{what}: the &FCI namelist lacks {key}")
        norb, where = _whole(found, "NORB", 1, 1_000_000)
        if norb > MAX_ORBITALS:
            raise InputError(
                f"{where}: {norb} orbitals are more than the {MAX_ORBITALS} whose integrals a specification can hold (records have"
                " at most 500 kB; write the file for an active space)"
            )
        n_electrons, where = _whole(found, "NELEC", 1, 2 * norb)
        notes = []
        multiplicity = 1 + n_electrons % 2
        if "MS2" in found:
            ms2, where = _whole(found, "MS2", -2 * norb, 2 * norb)
            if ms2 < 0:
                notes.append(f"MS2={ms2} is read as {-ms2}: alpha and beta are interchangeable")
            multiplicity = abs(ms2) + 1
            most = min(n_electrons, 2 * norb - n_electrons)
            if (ms2 - n_electrons) % 2 or abs(ms2) > most:
                raise InputError(
                    f"{where}: MS2={ms2} is impossible with {n_electrons} electrons in {norb} orbitals"
                    f" ({n_electrons % 2} to {most} in steps of 2)"
                )
        isym = _whole(found, "ISYM", 0, 8)[0] if "ISYM" in found else 1
        orbsym, told = _orbsym(found, norb)
        return cls(norb, n_electrons, multiplicity, orbsym, isym, n_lines, notes + told)


def _body(text: str, what: str) -> tuple[str, list[tuple[int, int]], int]:
    """What stands between &FCI and its end; where in it each line begins, and that line's number; lines up to the end."""
    parts: list[str] = []
    starts: list[tuple[int, int]] = []
    length = 0
    for number, line in enumerate(text.splitlines(), start=1):
        if not starts:
            if not line.strip():
                continue
            begin = _BEGIN.match(line)
            if begin is None:
                raise InputError(f"{what}: line {number}: an FCIDUMP begins with &FCI, not with {shown(line.strip())}")
            line = line[begin.end() :]
        line = line.partition("!")[0]
        starts.append((length, number))
        if (end := _END.search(line)) is not None:
            if line[end.end() :].strip(" ,\t\r"):
                raise InputError(
                    f"{what}: line {number}: {shown(line[end.end() :].strip())} stands behind the namelist's end"
                )
            return "".join(parts) + line[: end.start()], starts, number
        parts.append(line + "\n")
        length += len(line) + 1
    if not starts:
        raise InputError(f"{what}: empty: an FCIDUMP begins with &FCI")
    raise InputError(f"{what}: line {starts[0][1]}: the &FCI namelist has no end (&END or /)")


def _values(text: str, key: str, where: str) -> list[str]:
    """The values of a key; `3*1` stands for 1,1,1."""
    out: list[str] = []
    for token in text.replace(",", " ").split():
        count, star, value = token.partition("*")
        if star and (not re.fullmatch(r"\d{1,6}", count, re.ASCII) or not value or int(count) > 10_000):
            raise InputError(f"{where}: {key} has {shown(token)}, which is no COUNT*VALUE")
        out += [value] * int(count) if star else [token]
    return out


def _whole(found: dict[str, tuple[list[str], str]], key: str, low: int, high: int) -> tuple[int, str]:
    """The one whole number of a key, and the place for errors about it."""
    values, where = found[key]
    if len(values) != 1 or not re.fullmatch(r"[+-]?\d{1,9}", values[0], re.ASCII) or not low <= int(values[0]) <= high:
        given = shown(" ".join(values)) if values else "nothing"
        raise InputError(f"{where}: {key} must be a whole number from {low} to {high}, not {given}")
    return int(values[0]), where


def _orbsym(found: dict[str, tuple[list[str], str]], norb: int) -> tuple[tuple[int, ...] | None, list[str]]:
    """Irreps in Molpro's numbering, and notes on how they were read.

    Molpro's numbers less one multiply by XOR. So do PySCF's own numbers, which it writes unless it is told otherwise: those
    begin with 0, for the totally symmetric irrep, which Molpro's never do.
    """
    if "ORBSYM" not in found:
        return None, []
    values, where = found["ORBSYM"]
    if len(values) != norb:
        raise InputError(f"{where}: ORBSYM has {len(values)} numbers for {norb} orbitals")
    labels = []
    for position, value in enumerate(values, start=1):
        if not re.fullmatch(r"[+-]?\d{1,9}", value, re.ASCII):
            raise InputError(f"{where}: ORBSYM of orbital {position} must be a whole number, not {shown(value)}")
        labels.append(int(value))
    if min(labels) == max(labels):
        return None, []
    if min(labels) < 0 or max(labels) > (8 if min(labels) else 7):
        return None, ["ORBSYM is not used: its numbers are none of Molpro's (1 to 8)"]
    if min(labels) == 0:
        return tuple(label + 1 for label in labels), ["ORBSYM counts from 0 and is read as PySCF's numbering"]
    return tuple(labels), []


# --- the integrals ---------------------------------------------------------------------------------------------------


class _Rows:
    """The lines of integrals, each index once, and all permutations of it equal."""

    def __init__(self, head: _Namelist, what: str) -> None:
        self.norb, self.what = head.norb, what
        self.core = 0.0
        self.core_line: int | None = None
        self.one_body = [0.0] * n_pairs(head.norb)
        self.two_body = [0.0] * n_packed(head.norb)
        self._lines: dict[tuple[int, ...], int] = {}  # of the very indices
        self._one_lines, self._two_lines = [0] * len(self.one_body), [0] * len(self.two_body)
        self._any_one_body = False

    def take(self, line: str, number: int) -> None:
        parts = line.replace(",", " ").split()
        if len(parts) != 5:
            self._refuse_fields(line, parts, number)
        value = self._value(parts[0], number)
        indices = tuple(self._index(part, number) for part in parts[1:])
        if (before := self._lines.setdefault(indices, number)) != number:
            hint = (
                " (spin-unrestricted files, which hold each set of integrals three times, are not read)"
                if not any(indices)
                else ""
            )
            raise self._error(number, f"{' '.join(parts[1:])} stands in line {before} already{hint}")
        i, j, k, m = (index - 1 for index in indices)
        if min(i, j, k, m) >= 0:
            place = pair_index(pair_index(i, j), pair_index(k, m))
            self._put(self.two_body, self._two_lines, place, value, number)
        elif min(i, j) >= 0 and k == m == -1:
            self._any_one_body = True
            self._put(self.one_body, self._one_lines, pair_index(i, j), value, number)
        elif i == j == k == m == -1:
            self.core, self.core_line = value, number
        elif not (i >= 0 and j == k == m == -1):  # the energy of an orbital follows from the integrals
            raise self._error(
                number, f"indices {' '.join(parts[1:])} mean nothing (i j k l, i j 0 0, i 0 0 0 or 0 0 0 0 do)"
            )

    def check_complete(self) -> None:
        """Raise InputError where the one-electron integrals, which stand behind the others, are missing."""
        if not self._lines:
            raise InputError(f"{self.what}: holds no integrals")
        if not self._any_one_body:
            raise InputError(f"{self.what}: holds no one-electron integrals (is it cut short?)")

    def _put(self, values: list[float], lines: list[int], place: int, value: float, number: int) -> None:
        if lines[place] and abs(values[place] - value) > SAME_INTEGRAL:
            raise self._error(
                number,
                f"{value:.10g} differs from line {lines[place]}'s {values[place]:.10g}, which over real orbitals is the same integral",
            )
        if not lines[place]:
            values[place], lines[place] = value, number

    def _value(self, text: str, number: int) -> float:
        if _PLAIN.fullmatch(text):
            value = float(text)
        else:
            bare = _BARE_EXPONENT.fullmatch(text)  # Fortran drops the letter before an exponent of three digits
            read = float(f"{bare[1]}e{bare[2]}") if bare else number_of(text)
            if read is None:
                raise self._error(number, f"{shown(text)} is not a finite number")
            value = read
        if not math.isfinite(value) or abs(value) > MAX_INTEGRAL:
            raise self._error(number, f"{text[:40]} is no integral in hartree (at most {MAX_INTEGRAL:g})")
        return value

    def _index(self, text: str, number: int) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise self._error(number, f"index {shown(text)} is not a whole number from 0 to {self.norb}")
        if int(text) > self.norb:
            raise self._error(number, f"index {int(text)} is more than NORB={self.norb}")
        return int(text)

    def _refuse_fields(self, line: str, parts: list[str], number: int) -> None:
        if "(" in line or len(parts) == 6:
            raise self._error(number, f"{shown(line.strip())}: complex integrals are not read")
        raise self._error(number, f"{shown(line.strip())} is not a value and four indices")

    def _error(self, number: int, message: str) -> InputError:
        return InputError(f"{self.what}: line {number}: {message}")
