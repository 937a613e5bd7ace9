"""What a file says about a molecule, before it is known to be one."""

from dataclasses import dataclass, field
from fractions import Fraction

from simulator.chemistry.given_integrals import GivenIntegrals


@dataclass
class Given:
    """Atoms (or integrals in their place) and what was said about them.

    `unclear` holds, for `charge` and `multiplicity`, why what the file says cannot be obeyed; it is raised unless the user
    gives that number.
    """

    name: str
    elements: tuple[str, ...]  # shape: (n_atoms,)
    geometry: tuple[tuple[float, float, float], ...]  # in `units`, shape: (n_atoms, 3)
    units: str = "angstrom"  # or bohr
    charge: int | None = None
    multiplicity: int | None = None
    spin: Fraction | None = None  # a number called spin, which may be S, 2 S or 2 S + 1
    unclear: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    description: str = ""
    source: str = ""
    integrals: GivenIntegrals | None = None  # then there are no atoms
