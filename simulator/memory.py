"""Will it fit? Sizes in bytes, checked before anything is allocated."""

from math import comb
from pathlib import Path
from typing import TYPE_CHECKING

from simulator.errors import InputError
from simulator.vqe.spec import MAX_PARAMETERS

if TYPE_CHECKING:
    from simulator.vqe.spec import RunSpec

MAX_QUBITS = 64
"""A Pauli string is two unsigned 64-bit masks."""

MAX_FCI_DETERMINANTS = 1_000_000
"""Largest determinant space in which FCI is run as a reference: about a minute on one core, 8 MB a vector."""

MAX_AER_CHECK_QUBITS = 16
"""Largest register on which a run's final parameters are evaluated on Aer as a check."""


def available_bytes() -> int:
    """Memory that this process may still take, in bytes: the lesser of the host's and the control group's."""
    limits = [_host_available()]
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            limits.append(max(0, int(Path(limit).read_text()) - int(Path(used).read_text())))
        except (OSError, ValueError):
            continue  # no such control group, or "max"
    return min(limits)


def _host_available() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import psutil

    return int(psutil.virtual_memory().available)


def check_memory(what: str, needed: int, remedy: str) -> None:
    """Refuse what would not fit.

    Args:
        what: the thing to allocate, e.g. `statevector of 40 qubits`.
        needed: bytes.
        remedy: what the user can do instead.

    Raises:
        InputError: more is needed than available; names both numbers.
    """
    available = available_bytes()
    if needed > available:
        raise InputError(f"{what} needs {readable(needed)} of memory, {readable(available)} are available ({remedy})")


def check_run(spec: "RunSpec", norb: int, nelec: tuple[int, int]) -> None:
    """Refuse a run whose Hamiltonian or states would not fit, before its SCF is begun.

    Raises:
        InputError: more qubits than masks hold, or more memory than there is.
    """
    n_qubits = 2 * norb
    if n_qubits > MAX_QUBITS:
        raise InputError(
            f"{n_qubits} qubits are more than the {MAX_QUBITS} that qubit Hamiltonians may have"
            " (use a smaller basis or an active space)"
        )
    if spec.mapper == "parity" and norb > 1:
        n_qubits -= 2
    if spec.engine == "sector":
        check_sector(norb, nelec)
    elif spec.engine == "statevector":
        check_statevector(n_qubits)
    else:
        check_aer(spec, n_qubits)


def check_sector(norb: int, nelec: tuple[int, int]) -> None:
    """Raises InputError when the sector engine's vectors would not fit: the state, H times it, and their work space."""
    size = n_determinants(norb, nelec)
    check_memory(f"sector engine over {size} determinants", 6 * 8 * size, "use a smaller active space")


def check_statevector(n_qubits: int) -> None:
    """Raises InputError when the statevector engine's four complex vectors would not fit."""
    check_memory(f"statevector engine of {n_qubits} qubits", 4 * 16 * 2**n_qubits, "use a smaller active space")


def check_aer(spec: "RunSpec", n_qubits: int) -> None:
    """Raises InputError when Aer's state would not fit; that of matrix_product_state depends on its entanglement."""
    if spec.aer_method == "matrix_product_state":
        return
    amplitude = 8 if spec.precision == "single" else 16  # bytes
    exact_noise = spec.aer_method == "automatic" and spec.noise is not None and spec.shots is None
    density = spec.aer_method == "density_matrix" or exact_noise
    what = "density matrix" if density else "statevector"
    size = amplitude * 2 ** (2 * n_qubits if density else n_qubits)
    check_memory(f"Aer {what} of {n_qubits} qubits", 2 * size, "use a smaller active space or another aer method")


def check_parameters(n_parameters: int, ansatz: str) -> None:
    """Raises InputError when an ansatz has more than MAX_PARAMETERS parameters."""
    if n_parameters > MAX_PARAMETERS:
        raise InputError(
            f"ansatz {ansatz} has {n_parameters} parameters here, at most {MAX_PARAMETERS} are allowed"
            " (use a smaller active space or fewer reps)"
        )


def n_determinants(norb: int, nelec: tuple[int, int]) -> int:
    """Determinants with the given numbers of alpha and beta electrons in `norb` orbitals."""
    return comb(norb, nelec[0]) * comb(norb, nelec[1])


def readable(size: int) -> str:
    """Bytes for people, e.g. 16.0 GiB."""
    value = float(size)
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if value < 1024 or unit == "PiB":
            break
        value /= 1024
    return f"{value:.0f} bytes" if unit == "bytes" else f"{value:.1f} {unit}"
