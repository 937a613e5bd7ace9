"""Qubit Hamiltonians from files that `vqe hamiltonian --out` or another program wrote: Qiskit's terms, OpenFermion's text."""

import json
import re
from pathlib import Path

from simulator.chemistry.formats.fcidump import is_fcidump
from simulator.errors import InputError
from simulator.input_files import read_text, shown
from simulator.operators.hamiltonian import GIVEN, QubitHamiltonian, check_width

MAX_FILE_BYTES = 128 << 20
"""Two million terms of 40 qubits have 110 MB as text."""

MAPPERS = ("jordan_wigner", "parity", "bravyi_kitaev", GIVEN)

_FACTOR = re.compile(r"([XYZ])([0-9]{1,4})")
_TERM = re.compile(r"\s*([^\[\]]*?)\s*\[([^\[\]]*)\]\s*(\+?)")


def load_hamiltonian(path: str | Path) -> QubitHamiltonian:
    """A qubit Hamiltonian from a file: Qiskit's terms as JSON (.json), or the text of OpenFermion's QubitOperator (.txt).

    Args:
        path: a file as `vqe hamiltonian --out` writes it. Coefficients are in hartree. JSON is an object whose `terms` are pairs
            of label (qubit 0 rightmost) and coefficient, as SparsePauliOp.from_list takes them; `energy_offset` (hartree,
            default 0), `mapper`, `n_qubits` and `hamiltonian_id` may stand beside them, and must be those of the terms.

    Raises:
        InputError: the file cannot be read, or is no Hamiltonian.
    """
    path = Path(path)
    what = f"hamiltonian {path}"
    if is_fcidump(path):
        raise InputError(f"{what}: an FCIDUMP holds integrals, not Pauli strings (load_molecule reads it)")
    suffix = path.suffix.lower()
    if suffix not in (".json", ".txt"):
        raise InputError(
            f"{what}: unknown format {suffix or '(no suffix)'} (use .json of Qiskit or .txt of OpenFermion)"
        )
    text = read_text(path, what, MAX_FILE_BYTES)
    try:
        return _from_json(text) if suffix == ".json" else from_openfermion(text)
    except InputError as error:
        raise InputError(f"{what}: {error}") from None


def from_openfermion(text: str, n_qubits: int | None = None) -> QubitHamiltonian:
    """A qubit Hamiltonian from the text of OpenFermion's QubitOperator, e.g. `0.5 [X0 Y1] + -1.0 []`.

    Its constant stays the identity's coefficient: the energy offset is 0, and expectation values are total energies in hartree.

    Args:
        text: `str(operator)`, on one line or several.
        n_qubits: how many qubits there are; by default up to the highest that a term names.

    Raises:
        InputError: the text is of another form, or the operator is not Hermitian.
    """
    terms: list[tuple[dict[int, str], complex]] = []
    place, text = 0, text.strip()
    goes_on = True
    while place < len(text):
        match = _TERM.match(text, place)
        if match is None or not goes_on:
            raise InputError(
                f"term {len(terms) + 1}, {shown(text[place : place + 40].strip())}: not of the form c [X0 Y1] +"
            )
        number, factors, plus = match.groups()
        terms.append((_factors(factors, len(terms) + 1), _coefficient(number, len(terms) + 1)))
        place, goes_on = match.end(), bool(plus)
    if terms and goes_on:
        raise InputError(f"term {len(terms)} is followed by + and by no further term")
    highest = max((qubit for factors_of, _ in terms for qubit in factors_of), default=0)
    n_qubits = highest + 1 if n_qubits is None else n_qubits
    if highest >= n_qubits:
        raise InputError(f"a term acts on qubit {highest}, and there are {n_qubits} (from 0 on)")
    check_width(n_qubits)
    labels = ["".join(letters.get(q, "I") for q in reversed(range(n_qubits))) for letters, _ in terms]
    return QubitHamiltonian.from_labels(labels, [c for _, c in terms])


def _factors(text: str, number: int) -> dict[int, str]:
    """Letters by qubit of a term's `X0 Y1`."""
    letters: dict[int, str] = {}
    for factor in text.split():
        match = _FACTOR.fullmatch(factor)
        if match is None:
            raise InputError(f"term {number}: {shown(factor)} is no factor such as X0")
        if int(match[2]) in letters:
            raise InputError(f"term {number}: qubit {match[2]} stands twice in it")
        letters[int(match[2])] = match[1]
    return letters


def _coefficient(text: str, number: int) -> complex:
    try:
        return complex(text.replace(" ", ""))
    except ValueError:
        raise InputError(f"term {number}: coefficient {shown(text)} is not a number") from None


def _from_json(text: str) -> QubitHamiltonian:
    try:
        found = json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < 20 else float(digits))
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON ({error})") from None
    if not isinstance(found, dict) or not isinstance(found.get("terms"), list):
        raise InputError("not a JSON object with a list of terms")
    if unknown := sorted(found.keys() - {"mapper", "n_qubits", "energy_offset", "hamiltonian_id", "terms"}):
        raise InputError(f"unknown field {unknown[0]}")
    labels, coefficients = [], []
    for number, term in enumerate(found["terms"], start=1):
        if not (isinstance(term, list) and len(term) == 2 and isinstance(term[0], str) and _is_number(term[1])):
            raise InputError(f"term {number}: {shown(term)} is no pair of a label and a real coefficient")
        if len(term[0]) != len(found["terms"][0][0]) or re.fullmatch("[IXYZ]+", term[0]) is None:
            raise InputError(
                f"term {number}: label {shown(term[0])} is not {len(found['terms'][0][0])} letters of I, X, Y, Z"
            )
        labels.append(term[0])
        coefficients.append(float(term[1]))
    offset, mapper = found.get("energy_offset", 0.0), found.get("mapper", GIVEN)
    if not _is_number(offset):
        raise InputError(f"energy_offset {shown(offset)} is not a number of hartree")
    if mapper not in MAPPERS:
        raise InputError(f"mapper {shown(mapper)} is unknown (known: {', '.join(MAPPERS)})")
    if not labels:
        raise InputError("there is no term")
    n_qubits = len(labels[0])
    if found.get("n_qubits", n_qubits) != n_qubits:
        raise InputError(f"n_qubits is {shown(found['n_qubits'])}, and its labels have {n_qubits} letters")
    made = QubitHamiltonian.from_labels(labels, coefficients, float(offset), mapper)
    if found.get("hamiltonian_id", made.hamiltonian_id) != made.hamiltonian_id:
        raise InputError("hamiltonian_id is another operator's: terms or energy_offset were changed")
    return made


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
