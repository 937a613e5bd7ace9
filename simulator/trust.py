"""How far off a number may be before it is not believed, and the checks that a final state passes. It loads nothing else."""

from enum import StrEnum

CHEMICAL_ACCURACY = 1.6e-3
"""Hartree, 1 kcal/mol: the error that chemistry can live with."""

CHEMICAL_ACCURACY_MHA = 1.6
"""The same in millihartree, in which errors are told."""


class Check(StrEnum):
    """The checks that decide whether a final state is physical."""

    ENGINES = "engines"  # our engine and Aer give one energy
    ELECTRON_NUMBER = "electron number"
    SPIN = "spin"
    ENERGY = "energy"  # it is not below the exact energy of its sector or spin


ELECTRON_TOLERANCE = 1e-3
"""Electrons: how far <N> may be from the number that was asked for."""

SPIN_TOLERANCE = 0.05
"""How far <S^2> may be from S(S+1) of the multiplicity that was asked for."""

ENERGY_TOLERANCE = 1e-6
"""Hartree: how far below an exact energy a variational energy may be by rounding, and what counts as a fall of the energy."""

ENGINE_TOLERANCE = 1e-8
"""Hartree: how far apart two engines may be at the same parameters."""
