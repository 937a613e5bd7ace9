"""Versions of the packages that decide numbers, as every event that begins or ends a run tells them."""

import contextlib
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from simulator import __version__

_VERSIONED = ("numpy", "scipy", "numba", "pyscf", "qiskit", "qiskit-aer", "qiskit-nature")


@cache
def versions() -> dict[str, str]:
    """Versions of the packages that decide numbers."""
    found = {"vqe-pipeline": __version__, "python": platform.python_version()}
    for name in _VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # qiskit-aer is called qiskit-aer-gpu where Aer runs on GPUs
    if "qiskit-aer" not in found:
        with contextlib.suppress(PackageNotFoundError):
            found["qiskit-aer-gpu"] = version("qiskit-aer-gpu")
    return found
