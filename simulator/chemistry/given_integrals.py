"""A Hamiltonian given by its integrals instead of atoms, as an FCIDUMP holds it, and what then cannot be asked for.

It is small enough to be part of a specification: the integrals travel by value wherever a specification goes.
"""

import base64
import binascii
import hashlib
import math
import sys
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import rfc8785

from simulator.errors import InputError
from simulator.input_files import check_whole, shown

if TYPE_CHECKING:
    import numpy as np

MAX_ORBITALS = 22
"""A specification stands in every record of a run's begin and end, and no record may have more than 500 kB. The integrals of
22 orbitals have 345 kB as base64, which leaves room for 1,345 parameters; those of 23 would leave it for 693, of 24 for none."""

MAX_INTEGRAL = 1e7
"""Hartree. The largest one-electron integral of an atom is Z^2 / 2, some 5,000."""

BASIS = "fcidump"
"""What stands in the place of a basis' name where the integrals were given."""


def n_pairs(norb: int) -> int:
    """Pairs p >= q of orbitals."""
    return norb * (norb + 1) // 2


def n_packed(norb: int) -> int:
    """Two-electron integrals that differ by more than a permutation of their indices."""
    return n_pairs(n_pairs(norb))


def pair_index(p: int, q: int) -> int:
    """Place of the pair of two numbers from 0 in a packed triangle, whichever is larger."""
    return p * (p + 1) // 2 + q if p >= q else q * (q + 1) // 2 + p


def packed(values: Iterable[float]) -> bytes:
    """Numbers as little-endian float64; a zero has no sign."""
    numbers = array("d", (value + 0.0 for value in values))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


@dataclass(frozen=True)
class GivenIntegrals:
    """Integrals over real orthonormal orbitals, in hartree.

    H = core_energy + sum_pq h_pq E_pq + 1/2 sum_pqrs (pq|rs) (E_pq E_rs - delta_qr E_ps).

    Raises:
        InputError: a size, number or label that cannot be.
    """

    norb: int
    n_electrons: int
    core_energy: float  # hartree: nuclear repulsion and whatever is frozen
    one_body: bytes = field(repr=False)  # h_pq, p >= q, little-endian float64, shape: (n_pairs,)
    two_body: bytes = field(
        repr=False
    )  # (pq|rs), 8-fold packed, little-endian float64, shape: (n_pairs (n_pairs + 1) / 2,)
    orbsym: tuple[int, ...] | None = None  # irrep of each orbital in Molpro's numbering, 1 to 8, shape: (norb,)
    isym: int = 1  # irrep of the wanted state in the same numbering; 0: none is wanted

    def __post_init__(self) -> None:
        for name, low, high in (("norb", 1, MAX_ORBITALS), ("n_electrons", 1, 2 * MAX_ORBITALS), ("isym", 0, 8)):
            check_whole(f"integrals: {name}", getattr(self, name), low, high)
        if self.n_electrons > 2 * self.norb:
            raise InputError(f"integrals: {self.norb} orbitals hold at most {2 * self.norb} electrons")
        _check_value("core_energy", self.core_energy)
        object.__setattr__(self, "core_energy", float(self.core_energy) + 0.0)
        for name, count in (("one_body", n_pairs(self.norb)), ("two_body", n_packed(self.norb))):
            content = getattr(self, name)
            if not isinstance(content, bytes) or len(content) != 8 * count:
                got = f"{len(content)} bytes" if isinstance(content, bytes) else shown(content)
                raise InputError(f"integrals: {name} must be {count} numbers in {8 * count} bytes, not {got}")
            numbers = _numbers(content)
            for value in numbers:
                _check_value(name, value)
            object.__setattr__(self, name, packed(numbers))
        if self.orbsym is not None:
            if len(self.orbsym) != self.norb:
                raise InputError(f"integrals: {len(self.orbsym)} irreps for {self.norb} orbitals")
            for label in self.orbsym:
                check_whole("integrals: orbsym", label, 1, 8)

    @property
    def formula(self) -> str:
        """Electrons and orbitals, e.g. 10e7o: what stands in the place of a formula."""
        return f"{self.n_electrons}e{self.norb}o"

    @cached_property
    def sha256(self) -> str:
        """Of all that is here, in hex."""
        return hashlib.sha256(rfc8785.dumps(self.to_dict())).hexdigest()

    @property
    def n_bytes(self) -> int:
        """Bytes of the packed numbers in a record, as base64."""
        return 4 * (len(self.one_body) + len(self.two_body)) // 3

    def one_body_matrix(self) -> "np.ndarray":
        """h_pq in hartree, shape: (norb, norb)."""
        import numpy as np

        out = np.zeros((self.norb, self.norb))
        out[np.tril_indices(self.norb)] = np.frombuffer(self.one_body, "<f8")
        return np.where(np.tri(self.norb, dtype=bool), out, out.T)

    def two_body_packed(self) -> "np.ndarray":
        """(pq|rs) in hartree, 8-fold packed as PySCF packs them, shape: (n_pairs (n_pairs + 1) / 2,)."""
        import numpy as np

        return np.frombuffer(self.two_body, "<f8").astype(float)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, from which `from_dict` makes the integrals again; packed numbers are base64."""
        text = lambda content: base64.b64encode(content).decode()  # noqa: E731
        out = {
            "norb": self.norb, "n_electrons": self.n_electrons, "core_energy": self.core_energy, "isym": self.isym,
            "one_body": text(self.one_body), "two_body": text(self.two_body),
        }  # fmt: skip
        return out if self.orbsym is None else {**out, "orbsym": list(self.orbsym)}

    @classmethod
    def from_dict(cls, values: Any) -> "GivenIntegrals":
        """The integrals that `to_dict` wrote.

        Raises:
            InputError: a key is unknown or missing, or a value is not allowed.
        """
        if not isinstance(values, Mapping):
            raise InputError(f"integrals must be a JSON object, not {shown(values)}")
        known = set(cls.__dataclass_fields__)
        if unknown := sorted(set(values) - known):
            raise InputError(f"integrals have unknown keys: {', '.join(unknown)}")
        if missing := sorted(known - {"orbsym", "isym"} - set(values)):
            raise InputError(f"integrals lack {', '.join(missing)}")
        given = dict(values)
        for name in ("one_body", "two_body"):
            given[name] = _from_base64(name, given[name])
        if given.get("orbsym") is not None:
            if not isinstance(given["orbsym"], list):
                raise InputError(f"integrals: orbsym must be a list, not {shown(given['orbsym'])}")
            given["orbsym"] = tuple(given["orbsym"])
        return cls(**given)


def check_needs_no_atoms(given: Mapping[str, Any], where: str) -> None:
    """Refuse fields of a specification that mean nothing without atoms.

    Args:
        given: fields as they were asked for, None where they were not.
        where: how errors name the source.

    Raises:
        InputError: one of them was asked for.
    """
    for name, what in (("basis", "basis"), ("charge", "charge"), ("freeze_core", "freeze core")):
        value = given.get(name)
        if value is None or value is False or (name == "basis" and value == BASIS):
            continue
        told = what if value is True else f"{what} {value}"
        instead = " (use an active space)" if name == "freeze_core" else ""
        raise InputError(f"{where}{told} needs atoms, and integrals are all that an FCIDUMP holds{instead}")
    if given.get("natural_orbitals") is not None:
        raise InputError(
            f"{where}active space auto:{given['natural_orbitals']}: natural orbitals are made from atoms, and integrals are all"
            " that an FCIDUMP holds (use e.g. 4e,4o, or orbitals by number)"
        )


def check_multiplicity(integrals: GivenIntegrals, multiplicity: Any, where: str) -> None:
    """Refuse a multiplicity that the electrons cannot have in the orbitals.

    Raises:
        InputError: names those that are allowed.
    """
    n, norb = integrals.n_electrons, integrals.norb
    allowed = range(1 + n % 2, min(n, 2 * norb - n) + 2, 2)
    if isinstance(multiplicity, bool) or not isinstance(multiplicity, int) or multiplicity not in allowed:
        listed = ", ".join(map(str, allowed[:3])) + (", ..." if len(allowed) > 3 else "")
        raise InputError(
            f"{where}: multiplicity {shown(multiplicity)} is impossible with {n} electron{'s' if n > 1 else ''} in {norb}"
            f" orbital{'s' if norb > 1 else ''} (use {listed})"
        )


def _numbers(content: bytes) -> array:
    numbers = array("d")
    numbers.frombytes(content)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _check_value(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"integrals: {name} must hold finite numbers, not {shown(value)}")
    if abs(value) > MAX_INTEGRAL:
        raise InputError(f"integrals: {name} holds {value:g}, which is no energy in hartree (at most {MAX_INTEGRAL:g})")


def _from_base64(name: str, text: Any) -> bytes:
    try:
        if not isinstance(text, str):
            raise TypeError
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise InputError(f"integrals: {name} is not base64") from None
