"""What each engine needs in memory, in bytes, checked before anything is allocated."""

from math import comb
from typing import TYPE_CHECKING

from simulator.engines.base import samples_states
from simulator.engines.threads import allowed_threads
from simulator.errors import InputError
from simulator.memory import check_memory, n_determinants, too_many_qubits

if TYPE_CHECKING:
    from simulator.engines.base import EngineSpec

MAX_AER_CHECK_QUBITS = 16
"""Largest register on which a run's final parameters are evaluated on Aer as a check."""

MAX_IRREPS = 8
"""Of D2h, the largest point group that is used."""


def check_run(spec: "EngineSpec", norb: int, nelec: tuple[int, int]) -> None:
    """Refuse a run whose Hamiltonian or states would not fit, before its SCF is begun.

    Raises:
        InputError: more qubits than masks hold, more memory than there is, or a given circuit has another number of qubits.
    """
    n_qubits = 2 * norb
    if (reason := too_many_qubits(n_qubits)) is not None:
        raise InputError(f"{reason} (use a smaller basis or an active space)")
    if spec.mapper == "parity" and norb > 1:
        n_qubits -= 2
    if spec.circuit is not None and spec.circuit.n_qubits != n_qubits:
        raise InputError(
            f"the ansatz circuit has {spec.circuit.n_qubits} qubits, and the Hamiltonian has {n_qubits}"
            f" ({norb} spatial orbitals, mapper {spec.mapper})"
        )
    if spec.engine == "sector":
        # The irreps are not known yet: refused is what would not fit even in as many as there can be. The engine looks again.
        check_sector(norb, nelec, MAX_IRREPS)
    elif spec.engine == "statevector":
        check_statevector(n_qubits)
    else:
        check_aer(spec, n_qubits)


def check_sector(norb: int, nelec: tuple[int, int], n_irreps: int = 1, *, n_threads: int = 1) -> None:
    """Raises InputError when the sector engine would not fit."""
    size = n_determinants(norb, nelec)
    shared = f" in {n_irreps} irreps" if n_irreps > 1 else ""
    check_memory(
        f"sector engine over {size} determinants{shared}", sector_bytes(norb, nelec, n_irreps, n_threads=n_threads),
        "use a smaller active space",
    )  # fmt: skip


def sector_bytes(norb: int, nelec: tuple[int, int], n_irreps: int = 1, *, n_threads: int = 1) -> int:
    """What the sector engine takes: vectors over the state's irrep, tables of each spin's strings, and integrals.

    Args:
        norb: spatial orbitals.
        nelec: alpha and beta electrons.
        n_irreps: that the determinants fall into, taken to be of one size.
        n_threads: each has a row's work space.
    """
    pairs = lambda n: n * (n - 1) // 2  # noqa: E731
    needed = 4 * 8 * n_determinants(norb, nelec) // n_irreps  # the state, H times it, and the transposes of both
    for spin in range(1 if nelec[0] == nelec[1] else 2):
        n, v, strings = nelec[spin], norb - nelec[spin], comb(norb, nelec[spin])
        same_spin = 1 + (n * v + pairs(n) * pairs(v)) // n_irreps  # elements of a row, an index and a number each
        needed += strings * (12 * same_spin + 12 * (n * v + n) + 64)  # links: three indices each
    for n in nelec:  # ladders: a source, a target and a sign each; as the excitations' runs have them
        doubles = pairs(n) * pairs(norb - n) * comb(norb - 4, n - 2) if 2 <= n <= norb - 2 else 0
        singles = n * (norb - n) * comb(norb - 2, n - 1) if 1 <= n < norb else 0
        needed += 16 * (singles + doubles // n_irreps)
    n_pairs = norb * (norb + 1) // 2
    return needed + n_threads * 8 * n_pairs * comb(norb, nelec[0]) // n_irreps + 2 * 8 * norb**4


def check_statevector(n_qubits: int) -> None:
    """Raises InputError when the statevector engine would not fit."""
    check_memory(f"statevector engine of {n_qubits} qubits", statevector_bytes(n_qubits), "use a smaller active space")


def statevector_bytes(n_qubits: int) -> int:
    """What the statevector engine takes: the state, H times it, and for the real or the imaginary parts of both what the sector
    engine has, four vectors of real numbers; so 64 bytes an amplitude."""
    return 64 * 2**n_qubits


def sampled_bytes(n_qubits: int) -> int:
    """What shots of a state vector take at most: the state, 16 bytes an amplitude, and for each amplitude of a piece (`engines.shots`)
    16 bytes of it and 17 of tables. A piece is as long as the state where each qubit is a pivot."""
    return (16 + 33) * 2**n_qubits


def check_aer(spec: "EngineSpec", n_qubits: int) -> None:
    """Raises InputError when the state of the Aer engine would not fit; that of matrix_product_state depends on its entanglement."""
    if spec.aer_method == "matrix_product_state":
        return
    if samples_states(spec):
        what = f"shots from a statevector of {n_qubits} qubits"
        check_memory(what, sampled_bytes(n_qubits), "use a smaller active space or aer method matrix_product_state")
        return
    amplitude = 8 if spec.precision == "single" else 16  # bytes
    exact_noise = spec.aer_method == "automatic" and spec.noise is not None and spec.shots is None
    density = spec.aer_method == "density_matrix" or exact_noise
    what = "density matrix" if density else "statevector"
    size = amplitude * 2 ** (2 * n_qubits if density else n_qubits)
    # Shots of a noisy circuit are trajectories, and each thread has the state of its own.
    states = allowed_threads() if spec.noise is not None and not density else 1
    check_memory(f"Aer {what} of {n_qubits} qubits", states * size, "use a smaller active space or another aer method")
