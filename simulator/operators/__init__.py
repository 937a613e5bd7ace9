"""Sums of Pauli strings, Hamiltonians and their mappings, excitations, and circuits as gates."""
