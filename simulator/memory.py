"""Will it fit? Sizes in bytes, checked before anything is allocated."""

from math import comb
from pathlib import Path

from simulator.errors import DoesNotFit

MAX_QUBITS = 64
"""A Pauli string is two unsigned 64-bit masks."""


def too_many_qubits(n_qubits: int) -> str | None:
    """Why a qubit Hamiltonian may not be so large; None where it may."""
    if n_qubits <= MAX_QUBITS:
        return None
    return f"{n_qubits} qubits are more than the {MAX_QUBITS} that qubit Hamiltonians may have"


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
        DoesNotFit: more is needed than available; names both numbers.
    """
    available = available_bytes()
    if needed > available:
        raise DoesNotFit(f"{what} needs {readable(needed)} of memory, {readable(available)} are available ({remedy})")


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
