"""Plain twins of the fast kernels, for the tests to compare them with."""
