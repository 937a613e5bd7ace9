"""What each engine needs in memory, in bytes, checked before anything is allocated."""

from typing import TYPE_CHECKING

from simulator.errors import InputError
from simulator.memory import check_memory, n_determinants, too_many_qubits

if TYPE_CHECKING:
    from simulator.engines.base import EngineSpec

MAX_AER_CHECK_QUBITS = 16
"""Largest register on which a run's final parameters are evaluated on Aer as a check."""


def check_run(spec: "EngineSpec", norb: int, nelec: tuple[int, int]) -> None:
    """Refuse a run whose Hamiltonian or states would not fit, before its SCF is begun.

    Raises:
        InputError: more qubits than masks hold, or more memory than there is.
    """
    n_qubits = 2 * norb
    if (reason := too_many_qubits(n_qubits)) is not None:
        raise InputError(f"{reason} (use a smaller basis or an active space)")
    if spec.mapper == "parity" and norb > 1:
        n_qubits -= 2
    if spec.engine == "sector":
        check_sector(norb, nelec)
    elif spec.engine == "statevector":
        check_statevector(n_qubits)
    else:
        check_aer(spec, n_qubits)


def check_sector(norb: int, nelec: tuple[int, int], size: int | None = None) -> None:
    """Raises InputError when the sector engine's vectors would not fit: the state, H times it, and their work space."""
    size = n_determinants(norb, nelec) if size is None else size
    check_memory(f"sector engine over {size} determinants", 6 * 8 * size, "use a smaller active space")


def check_statevector(n_qubits: int) -> None:
    """Raises InputError when the statevector engine's four complex vectors would not fit."""
    check_memory(f"statevector engine of {n_qubits} qubits", 4 * 16 * 2**n_qubits, "use a smaller active space")


def check_aer(spec: "EngineSpec", n_qubits: int) -> None:
    """Raises InputError when Aer's state would not fit; that of matrix_product_state depends on its entanglement."""
    if spec.aer_method == "matrix_product_state":
        return
    amplitude = 8 if spec.precision == "single" else 16  # bytes
    exact_noise = spec.aer_method == "automatic" and spec.noise is not None and spec.shots is None
    density = spec.aer_method == "density_matrix" or exact_noise
    what = "density matrix" if density else "statevector"
    size = amplitude * 2 ** (2 * n_qubits if density else n_qubits)
    check_memory(f"Aer {what} of {n_qubits} qubits", 2 * size, "use a smaller active space or another aer method")
