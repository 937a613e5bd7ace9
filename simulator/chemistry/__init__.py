"""Molecules and what chemistry computes before any qubit: orbitals, integrals, active spaces, references."""
