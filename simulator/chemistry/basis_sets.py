"""Basis sets: which names are allowed, and the effective core potential (ECP) that belongs to a set.

A set that was made for an ECP describes valence electrons only. Run without it, iodine's lanl2dz gives an energy that is
thousands of hartree off. PySCF leaves the pairing to its caller, so it stands here, as data: a specification must know its
number of valence electrons before PySCF is loaded. A test holds the table to what PySCF has.
"""

import difflib
import re
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from simulator.chemistry.elements import ATOMIC_NUMBERS
from simulator.errors import InputError

# fmt: off
_FAMILIES: tuple[tuple[str, str, str], ...] = (
    # names (without - and _), the ECP's name, electrons that it replaces
    (r"(ma)?def2\w+", "def2svp", "Rb-Xe:28 Cs-La:46 Hf-Rn:60"),
    (r"(aug)?ccp(w?c)?v(?P<size>[dtq5])zpp", "ccpv{size}zpp", "Cu-Kr:10 Y-Xe:28 Hf-Rn:60"),
    (r"(?P<self>lanl2dz)", "{self}", "Na-Cu:10 Zn:18 Ga-Ag:28 Cd:36 In-La:46 Hf-Au:60 Hg-Tl:68 Pb-Bi:78 U-Pu:78"),
    (r"(?P<self>lanl2tz)", "{self}", "Sc-Cu:10 Zn:18 Y-Ag:28 Cd:36 La:46 Hf-Au:60 Hg:68"),
    (r"(?P<self>lanl08)", "{self}", "Na-Cu:10 Zn:18 Ga-Ag:28 Cd:36 In-La:46 Hf-Au:60 Hg-Tl:68 Pb-Bi:78"),
    (r"(?P<self>crenbl)", "{self}", ("Li-Mg:2 Al-Zn:10 Ga-Kr:18 Rb-Cd:28 In-Xe:36 Cs-La:46 Ce-Lu:54 Hf-Hg:60 Tl-Rn:68"
                                    " Fr-Lr:78")),
    (r"(?P<self>crenbs)", "{self}", "Sc-Zn:18 Y-Cd:36 La:54 Hf-Hg:68 Tl-Rn:78"),
    (r"(?P<self>sbkjc)", "{self}", ("Li-Ne:2 Na-Ar:10 K-Ca:18 Sc-Ga:10 Ge-Kr:28 Rb-Sr:36 Y-In:28 Sn-Xe:46 Cs-Ba:54"
                                   " La-Ce:46 Hf-Tl:60 Pb-Rn:78")),
    (r"stuttgart(dz|rlc)?", "stuttgart", ("Li-Ne:2 Na-Ar:10 K-Ca:18 Zn-Kr:28 Rb-Sr:36 In-Xe:46 Cs-Ba:54 Hg-Rn:78"
                                         " Ac-Lr:78")),
    (r"stuttgartrsc", "stuttgartrsc", "K-Zn:10 Rb-Cd:28 Cs-Ba:46 Ce-Yb:28 Hf-Hg:60 Ac-Lr:60"),
    (r"bfdv[dtq5]z", "bfd", "H-He:0 Li-Ne:2 Na-Ar:10 K-Ca:18 Sc-Cu:10 Ga-Kr:28 Rb-Sr:36 In-Xe:46 Cs-Ba:54 Tl-At:78"),
    (r"ccecp(aug)?ccpv[dtq56]z", "ccecp", ("H-He:0 Li-Ne:2 Na-Zn:10 Ga-Mo:28 Ru-Cd:28 In-I:46 Cs-Ce:46 Eu-Tb:46"
                                          " Ta-Re:60 Ir-Au:60 Pb-Bi:78")),
    (r"ccecphe(aug)?ccpv[dtq56]z", "ccecphe", "Na-Ar:2"),
    (r"ccecpreg(aug)?ccpv[dtq56]z", "ccecpreg", "Li-Be:0"),
    (r"ccecp28(aug)?ccpv[dtq56]z", "ccecp28", "Sr:28 In:28"),
    (r"ccecp36(aug)?ccpv[dtq56]z", "ccecp36", "Sr:36"),
)
# fmt: on

_REFUSED = (
    (
        r".*(fit|ri)|weigend.*|demon.*|ahlrichs.*|dgaussa[12].*|sap.*",
        "is a fitting set, not one for orbitals (use e.g. def2-svp or cc-pvdz)",
    ),
    (
        r".*gth.*",
        (
            "is made for GTH pseudopotentials, which differ by density functional: none belongs to it here"
            " (use e.g. def2-svp, or ccecp-ccpvdz with its ECP)"
        ),
    ),
    (r".*ppnr", "is made for non-relativistic pseudopotentials that PySCF does not have (use e.g. cc-pvdz-pp)"),
    (r"qavgvszps|ecpqvszp", "is made for pseudopotentials that PySCF does not have (use e.g. def2-svp)"),
)

ALL_ELECTRON_RATIO = 0.96
"""A set that can describe an atom's core holds a one-electron 1s state near -Z^2/2 hartree. From lithium on, PySCF's
all-electron sets reach 0.98 of it or more; sets for pseudopotentials reach 0.9 at most, and sets that are contracted for a
relativistic Hamiltonian less than 0.96 from the fifth period on."""


@dataclass(frozen=True)
class Ecp:
    """The effective core potential of an element in a basis."""

    name: str  # PySCF's
    electrons: int  # that it replaces


def normalized(basis: str) -> str:
    """A basis' name as PySCF compares it: lower case, without -, _ and blanks, its prefix `unc` and its truncation (@2s1p)."""
    name = re.sub(r"[-_ ]", "", basis.lower()).partition("@")[0]
    return name.removeprefix("unc")


def check_basis_name(basis: str) -> None:
    """Refuse what is no name, and sets that are not for orbitals or whose pseudopotential PySCF lacks.

    Raises:
        InputError: names the basis and what can be used instead.
    """
    if not basis:
        raise InputError("basis is empty (use e.g. sto-3g)")
    if not re.fullmatch(r"[a-z0-9+*(),@_ -]{1,64}", basis):
        raise InputError(f"basis {basis[:64]!r} is not a name (use one that PySCF has, e.g. sto-3g, 6-31g, cc-pvdz)")
    for names, why in _REFUSED:
        if re.fullmatch(names, normalized(basis)):
            raise InputError(f"basis {basis} {why}")


@cache
def ecp_of(basis: str, element: str) -> Ecp | None:
    """The ECP that belongs to a basis for an element, None where the basis holds all electrons."""
    name = normalized(basis)
    for names, ecp, electrons in _FAMILIES:
        if match := re.fullmatch(names, name):
            replaced = _expanded(electrons).get(element)
            return None if replaced is None else Ecp(ecp.format(**match.groupdict()), replaced)
    return None


def ecp_electrons(basis: str, elements: tuple[str, ...]) -> int:
    """Electrons of a molecule that the basis' ECPs replace."""
    return sum(found.electrons for e in elements if (found := ecp_of(basis, e)) is not None)


@cache
def _expanded(text: str) -> dict[str, int]:
    """Electrons by element, from e.g. `Na-Ar:10 Zn:18`."""
    symbols = list(ATOMIC_NUMBERS)
    found: dict[str, int] = {}
    for part in text.split():
        elements, _, electrons = part.partition(":")
        first, _, last = elements.partition("-")
        begin, end = ATOMIC_NUMBERS[first], ATOMIC_NUMBERS[last or first]
        found |= dict.fromkeys(symbols[begin - 1 : end], int(electrons))
    return found


@cache
def load_basis(basis: str, element: str) -> tuple[Any, Any]:
    """The functions of an element, and its ECP (None without one), as PySCF's internal lists.

    Raises:
        InputError: PySCF has no such basis, has none for the element, or has it without the ECP that it needs.
    """
    from pyscf import gto

    check_basis_name(basis)
    found = _loaded(gto.basis.load, basis.removeprefix("unc").lstrip("-_ "), element) if _is_known(basis) else None
    if not found:
        raise InputError(
            f"unknown basis {basis!r} for {element} ({_nearest(basis)}use one that PySCF has, e.g. sto-3g, 6-31g, cc-pvdz)"
        )
    if basis.startswith("unc"):
        found = gto.uncontract(found)
    if (wanted := ecp_of(basis, element)) is not None:
        ecp = _loaded(gto.basis.load_ecp, wanted.name, element)
        if not ecp or ecp[0] != wanted.electrons:
            raise InputError(
                f"basis {basis} for {element}: PySCF lacks its ECP {wanted.name} of {wanted.electrons} electrons"
            )
        return found, ecp
    _check_all_electron(basis, element, found)
    return found, None


def _is_known(basis: str) -> bool:
    """Whether PySCF itself has a set of that name; what an installed basis-set-exchange would add depends on the machine."""
    from pyscf.gto.basis import ALIAS

    name = normalized(basis)
    return name in ALIAS or name.startswith(("631", "321", "431"))


def _nearest(basis: str) -> str:
    from pyscf.gto.basis import ALIAS

    near = difflib.get_close_matches(normalized(basis), ALIAS, n=1)
    return f"did you mean {near[0]}? " if near and not _is_known(basis) else ""


def _loaded(load: Any, name: str, element: str) -> Any:
    """What PySCF loads by that name, None where it has nothing.

    PySCF reads a file of that name where there is one. It ignores blanks in names, so blanks are added until no file has it.
    """
    from pyscf.lib.exceptions import BasisNotFoundError

    name, at, truncation = name.partition("@")
    while Path(name).exists():
        name += " "
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PySCF recommends packages for bases that it lacks
        try:
            return load(name + at + truncation, element)
        except (BasisNotFoundError, KeyError, ValueError, RuntimeError, AssertionError, IndexError, TypeError, OSError):
            return None


def _check_all_electron(basis: str, element: str, functions: Any) -> None:
    """Refuse a set without an ECP that cannot describe the atom's core."""
    charge = ATOMIC_NUMBERS[element]
    if charge < 3:
        return  # no core
    import numpy as np
    from pyscf import gto

    mol = gto.Mole()
    mol.build(
        dump_input=False, parse_arg=False, verbose=0, atom=[(element, (0.0, 0.0, 0.0))], spin=None,
        basis={element: [shell for shell in functions if shell[0] == 0]},
    )  # fmt: skip
    values, vectors = np.linalg.eigh(mol.intor_symmetric("int1e_ovlp"))
    keep = values > 1e-8 * values.max()
    orthogonal = vectors[:, keep] / np.sqrt(values[keep])
    core = mol.intor_symmetric("int1e_kin") + mol.intor_symmetric("int1e_nuc")
    ratio = float(np.linalg.eigvalsh(orthogonal.T @ core @ orthogonal)[0]) / (-(charge**2) / 2)
    if ratio < ALL_ELECTRON_RATIO:
        raise InputError(
            f"basis {basis} for {element} cannot describe its core electrons ({100 * ratio:.0f} % of the 1s energy) and has no"
            " ECP here: it is made for a pseudopotential or a relativistic Hamiltonian (use e.g. def2-svp)"
        )
