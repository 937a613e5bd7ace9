"""What chemistry reads of a specification: the molecule, its basis and which orbitals are active."""

from typing import Protocol

from simulator.chemistry.given_integrals import GivenIntegrals
from simulator.chemistry.molecules import Molecule


class ProblemSpec(Protocol):
    """The part of a specification that decides the problem (`vqe.spec.RunSpec` has it all)."""

    @property
    def molecule(self) -> Molecule: ...
    @property
    def integrals(self) -> GivenIntegrals | None:
        """Given in place of atoms and basis."""

    @property
    def elements(self) -> tuple[str, ...]: ...
    @property
    def multiplicity(self) -> int: ...
    @property
    def basis(self) -> str: ...
    @property
    def nelec(self) -> tuple[int, int]:
        """Alpha and beta electrons outside the effective core potentials."""

    @property
    def active_electrons(self) -> int | None: ...
    @property
    def active_orbitals(self) -> int | None: ...
    @property
    def orbitals(self) -> tuple[str, ...] | None: ...
    @property
    def natural_orbitals(self) -> int | None: ...
    @property
    def freeze_core(self) -> bool: ...
    @property
    def problem_id(self) -> str: ...
    @property
    def spec_version(self) -> int:
        """From 2 on the lowest SCF solution is looked for (`vqe.spec.RunSpec.spec_version`)."""
