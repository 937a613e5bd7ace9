"""Hamiltonians as files of other programs: integrals as FCIDUMP, Pauli strings for Qiskit and for OpenFermion."""

import json
import os
from collections.abc import Iterator
from functools import reduce
from operator import xor
from pathlib import Path

from simulator.chemistry.formats.fcidump import is_fcidump
from simulator.chemistry.problem import Problem
from simulator.errors import InputError
from simulator.operators.hamiltonian import QubitHamiltonian

SMALLEST_WRITTEN = 1e-15
"""Hartree. Smaller integrals are rounding, most of them zero by symmetry, and are not written."""

QUBIT_SUFFIXES = (".json", ".txt")

_D2H, _C2V = (1, 4, 6, 7, 8, 5, 3, 2), (1, 4, 2, 3)
_MOLPRO = {
    "D2h": _D2H, "Dooh": _D2H, "SO3": _D2H, "C2v": _C2V, "Coov": _C2V, "C2h": (1, 4, 2, 3), "D2": (1, 4, 3, 2),
    "Cs": (1, 2), "C2": (1, 2), "Ci": (1, 2), "C1": (1,), "unknown": tuple(range(1, 9)),
}  # fmt: skip
"""Molpro's number of each of PySCF's irreps (Molpro's manual, "Symmetry"). Groups with higher symmetry have the irreps of D2h or C2v;
where a file gave the irreps they are Molpro's less one."""


def check_out(path: Path, *, force: bool) -> None:
    """Refuse a file of no known format, or one that would be overwritten, before anything is computed for it.

    Raises:
        InputError: it is there and `force` is not given, or its name does not say what to write.
    """
    if not is_fcidump(path) and path.suffix.lower() not in QUBIT_SUFFIXES:
        raise InputError(
            f"out {path}: unknown format {path.suffix or '(no suffix)'} (use .fcidump; .json for Qiskit or .txt for OpenFermion)"
        )
    if os.path.lexists(path):
        if not path.is_file():
            raise InputError(f"out {path}: is there and is no regular file")
        if not force:
            raise InputError(f"out {path}: is there already (--force overwrites it)")


def write_lines(path: Path, lines: Iterator[str]) -> None:
    """Write a file whole or not at all.

    Raises:
        InputError: it cannot be written there.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            with open(part, "w") as file:
                file.writelines(line + "\n" for line in lines)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"out {path}: cannot be written ({error.strerror})") from None


def molpro_irreps(problem: Problem) -> tuple[int, ...]:
    """Irrep of each active orbital in Molpro's numbering, shape: (norb,); all 1 without symmetry."""
    if problem.orbsym is None:
        return (1,) * problem.norb
    return tuple(_MOLPRO[problem.group][int(label)] for label in problem.orbsym)


def fcidump_lines(problem: Problem) -> Iterator[str]:
    """The active space's Hamiltonian as an FCIDUMP: occupied orbitals first, numbers with all their digits.

    ISYM is the irrep of the reference determinant, the core energy all that does not depend on the active electrons.
    """
    from pyscf import ao2mo

    norb, (n_alpha, n_beta) = problem.norb, problem.nelec
    irreps = molpro_irreps(problem)
    isym = 1 + reduce(xor, (label - 1 for label in irreps[n_beta:n_alpha]), 0)
    yield f" &FCI NORB={norb},NELEC={n_alpha + n_beta},MS2={n_alpha - n_beta},"
    yield f"  ORBSYM={','.join(map(str, irreps))},"
    yield f"  ISYM={isym},"
    yield " &END"
    row = lambda value, *at: f"{value:24.16E}" + "".join(f" {i:4d}" for i in at)  # noqa: E731
    pairs = [(p, q) for p in range(1, norb + 1) for q in range(1, p + 1)]  # the order of packed integrals
    packed = ao2mo.restore(8, problem.eri, norb)
    begin = 0
    for place, first in enumerate(pairs):
        for second, value in zip(pairs, packed[begin : begin + place + 1].tolist(), strict=False):
            if abs(value) >= SMALLEST_WRITTEN:
                yield row(value, *first, *second)
        begin += place + 1
    for p, q in pairs:
        value = float(problem.h1[p - 1, q - 1])
        if abs(value) >= SMALLEST_WRITTEN or p == q == 1:  # a file without any would count as cut short
            yield row(value, p, q, 0, 0)
    yield row(problem.energy_offset, 0, 0, 0, 0)


def qiskit_lines(hamiltonian: QubitHamiltonian) -> Iterator[str]:
    """A JSON object whose `terms` are what SparsePauliOp.from_list takes: labels (qubit 0 rightmost) and coefficients in hartree.

    `energy_offset` (hartree) stands beside them; total energies are expectation values and it.
    """
    terms = [[label, float(c)] for label, c in zip(hamiltonian.labels, hamiltonian.coefficients, strict=True)]
    values = {
        "mapper": hamiltonian.mapper, "n_qubits": hamiltonian.n_qubits, "energy_offset": hamiltonian.energy_offset,
        "hamiltonian_id": hamiltonian.hamiltonian_id,
    }  # fmt: skip
    yield json.dumps(values)[:-1] + ', "terms": ['
    for i, term in enumerate(terms):
        yield json.dumps(term) + ("," if i + 1 < len(terms) else "")
    yield "]}"


def openfermion_lines(hamiltonian: QubitHamiltonian) -> Iterator[str]:
    """Text of OpenFermion's QubitOperator, `c [X0 Y1] +` a line; expectation values are total energies in hartree."""
    constant = hamiltonian.energy_offset
    terms = []
    for label, coefficient in zip(hamiltonian.labels, hamiltonian.coefficients, strict=True):
        factors = " ".join(f"{pauli}{qubit}" for qubit, pauli in enumerate(reversed(label)) if pauli != "I")
        if factors:
            terms.append(f"{float(coefficient)!r} [{factors}]")
        else:
            constant += float(coefficient)
    terms.insert(0, f"{constant!r} []")
    for i, term in enumerate(terms):
        yield term + (" +" if i + 1 < len(terms) else "")
