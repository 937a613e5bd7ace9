"""Hamiltonians that go out come in again as they were, to the last bit, and what is no Hamiltonian is refused in one line."""

import json
from pathlib import Path

import numpy as np
import pytest
from qiskit.circuit import Parameter
from qiskit.quantum_info import SparsePauliOp

from simulator import QubitHamiltonian, load_hamiltonian, load_molecule, make_spec
from simulator.chemistry.integrals import build_problem
from simulator.engines._slow.paulis import sum_matrix
from simulator.errors import InputError
from simulator.operators.hamiltonian import GIVEN, qubit_hamiltonian
from simulator.operators.hamiltonian_files import openfermion_lines, qiskit_lines, write_lines
from simulator.operators.hamiltonian_input import from_openfermion
from simulator.operators.paulis import PauliSum
from simulator.stages import Stages

MAPPERS = ("jordan_wigner", "parity", "bravyi_kitaev")


@pytest.fixture(scope="module", params=MAPPERS)
def hamiltonian(request) -> QubitHamiltonian:
    return qubit_hamiltonian(build_problem(make_spec(load_molecule("heh+")), Stages()), request.param, Stages())


def same_terms(a: QubitHamiltonian, b: QubitHamiltonian) -> bool:
    """Whether two operators are equal in every bit."""
    return a.n_qubits == b.n_qubits and all(
        getattr(a.operator, name).tobytes() == getattr(b.operator, name).tobytes()
        for name in ("x", "z", "coefficients")
    )


def test_qiskits_file_comes_back_to_the_last_bit(hamiltonian, tmp_path):
    path = tmp_path / "h.json"
    write_lines(path, qiskit_lines(hamiltonian))
    found = load_hamiltonian(path)
    assert same_terms(found, hamiltonian)
    assert (found.energy_offset, found.mapper) == (hamiltonian.energy_offset, hamiltonian.mapper)
    assert found.hamiltonian_id == hamiltonian.hamiltonian_id


def test_openfermions_file_comes_back_to_the_last_bit_with_the_offset_in_its_constant(hamiltonian, tmp_path):
    path = tmp_path / "h.txt"
    write_lines(path, openfermion_lines(hamiltonian))
    found = load_hamiltonian(path)
    assert (found.energy_offset, found.mapper) == (0.0, GIVEN)
    total = lambda h: sum_matrix(h.operator) + h.energy_offset * np.eye(2**h.n_qubits)  # noqa: E731
    np.testing.assert_allclose(total(found), total(hamiltonian), atol=1e-14)
    assert list(openfermion_lines(found)) == path.read_text().splitlines()
    assert same_terms(from_openfermion(path.read_text().replace("\n", " ")), found)


def test_qiskits_operator_comes_back_to_the_last_bit(hamiltonian):
    found = QubitHamiltonian.from_sparse_pauli_op(hamiltonian.to_sparse_pauli_op(), hamiltonian.energy_offset)
    assert same_terms(found, hamiltonian)
    assert found.energy_offset == hamiltonian.energy_offset
    assert found.hamiltonian_id == hamiltonian.hamiltonian_id


def test_terms_of_one_string_are_summed_and_the_matrix_is_qiskits():
    operator = SparsePauliOp(["XY", "ZI", "XY", "IZ"], [0.5, 1.0, 0.25, 0.0])
    found = QubitHamiltonian.from_sparse_pauli_op(operator)
    assert dict(zip(found.labels, found.coefficients.tolist(), strict=True)) == {"XY": 0.75, "ZI": 1.0}
    np.testing.assert_array_equal(sum_matrix(found.operator), operator.to_matrix())


def test_labels_are_read_as_they_are_written():
    rng = np.random.default_rng(5)
    labels = ["".join(row) for row in rng.choice(list("IXYZ"), (50, 64))]
    assert PauliSum.from_labels(labels, np.ones(50)).labels() == labels


def test_openfermions_own_text_is_read():
    text = "(-0.5+0j) [] +\n0.25 [X0 Y2] +\n-1e-3 [Z1]"
    found = from_openfermion(text)
    terms = dict(zip(found.labels, found.coefficients.tolist(), strict=True))
    assert terms == {"III": -0.5, "YIX": 0.25, "IZI": -0.001}
    assert from_openfermion("1.0 [Z0]", n_qubits=3).labels == ["IIZ"]


@pytest.mark.parametrize(
    ("operator", "says"),
    [
        (SparsePauliOp(["XY"], [1j]), "the coefficient of XY is 1j: a Hamiltonian's are real"),
        (SparsePauliOp(["XY"], [np.nan]), "not a finite number of hartree"),
        (SparsePauliOp(["XY"], [0.0]), "every coefficient is zero"),
        (SparsePauliOp(["X"], [Parameter("t")]), "bind it first"),
        (SparsePauliOp(["X" * 65], [1.0]), "65 qubits are more than the 64"),
    ],
)
def test_an_operator_that_is_no_hamiltonian_is_refused(operator, says):
    with pytest.raises(InputError, match=says):
        QubitHamiltonian.from_sparse_pauli_op(operator)


GOOD = {"terms": [["XY", 0.5], ["ZI", 1]], "n_qubits": 2}
BAD = [
    ("h.json", "{", "not JSON"),
    ("h.json", "[1]", "not a JSON object with a list of terms"),
    ("h.json", "[" * 100_000, "not JSON"),
    ("h.json", json.dumps(GOOD | {"terms": []}), "there is no term"),
    ("h.json", json.dumps(GOOD | {"terms": [["XA", 1.0]]}), "term 1: label 'XA' is not 2 letters of I, X, Y, Z"),
    ("h.json", json.dumps(GOOD | {"terms": [["XY", 1.0], ["X", 1.0]]}), "term 2: label 'X' is not 2 letters"),
    ("h.json", json.dumps(GOOD | {"terms": [["XY", "1"]]}), "term 1: ['XY', '1'] is no pair"),
    ("h.json", json.dumps(GOOD | {"terms": [["XY", True]]}), "is no pair"),
    ("h.json", json.dumps(GOOD | {"terms": [["XY", float("nan")]]}), "not a finite number"),
    ("h.json", json.dumps(GOOD | {"terms": [["", 1.0]]}), "term 1: label ''"),
    ("h.json", json.dumps(GOOD | {"n_qubits": 3}), "n_qubits is 3, and its labels have 2 letters"),
    ("h.json", json.dumps(GOOD | {"energy_offset": "much"}), "energy_offset 'much' is not a number"),
    ("h.json", json.dumps(GOOD | {"energy_offset": float("inf")}), "not a finite number"),
    ("h.json", json.dumps(GOOD | {"mapper": "ternary_tree"}), "mapper 'ternary_tree' is unknown (known: jordan_wigner"),
    ("h.json", json.dumps(GOOD | {"mapper": ["parity"]}), "mapper ['parity'] is unknown"),
    ("h.json", json.dumps(GOOD | {"hamiltonian_id": "0"}), "hamiltonian_id is another operator's"),
    ("h.json", json.dumps(GOOD | {"offset": 1.0}), "unknown field offset"),
    ("h.json", json.dumps({"terms": [["X" * 65, 1.0]]}), "65 qubits are more than the 64"),
    ("h.json", json.dumps({"terms": [["X", 10**400]]}), "not a finite number"),
    ("h.txt", "", "there is no term"),
    ("h.txt", "0.5 [X0", "term 1, '0.5 [X0': not of the form c [X0 Y1] +"),
    ("h.txt", "0.5 [X0] 0.5 [Y0]", "term 2"),
    ("h.txt", "0.5 [X0] +", "term 1 is followed by + and by no further term"),
    ("h.txt", "half [X0]", "term 1: coefficient 'half' is not a number"),
    ("h.txt", "nan [X0]", "not a finite number"),
    ("h.txt", "0.5j [X0]", "a Hamiltonian's are real"),
    ("h.txt", "0.5 [A0]", "term 1: 'A0' is no factor such as X0"),
    ("h.txt", "0.5 [X0 Y0]", "term 1: qubit 0 stands twice in it"),
    ("h.txt", "0.5 [X64]", "65 qubits are more than the 64"),
    ("h.xyz", "", "unknown format .xyz (use .json of Qiskit or .txt of OpenFermion)"),
    ("h.fcidump", "", "an FCIDUMP holds integrals, not Pauli strings (load_molecule reads it)"),
]


@pytest.mark.parametrize(("name", "content", "says"), BAD, ids=range(len(BAD)))
def test_a_bad_file_is_refused_in_one_line_that_names_it(tmp_path: Path, name: str, content: str, says: str):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        load_hamiltonian(path)
    assert str(caught.value).startswith(f"hamiltonian {path}: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(InputError, match=r"hamiltonian .*h\.json: No such file"):
        load_hamiltonian(tmp_path / "h.json")
