"""`vqe hamiltonian` writes what a run has, and whatever takes a molecule takes the file that it wrote."""

import itertools
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from qiskit.quantum_info import SparsePauliOp

from simulator import load_molecule, make_spec, run_vqe
from simulator.cli.main import _run
from simulator.operators.hamiltonian_files import write_lines

PAULIS = {"I": np.eye(2), "X": np.array([[0, 1], [1, 0]]), "Y": np.array([[0, -1j], [1j, 0]]), "Z": np.diag([1, -1])}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [n for n in os.environ if n.startswith("VQE_")]:
        monkeypatch.delenv(name)


def call(capsys, *arguments):
    capsys.readouterr()
    code = _run(arguments)
    out, err = capsys.readouterr()
    return code, out, err


def written(capsys, *arguments):
    code, out, err = call(capsys, "hamiltonian", *arguments)
    assert code == 0, err
    return out


def test_a_written_hamiltonian_runs_to_the_same_energy_and_is_in_the_tables(capsys):
    written(capsys, "lih", "--freeze-core", "--out", "lih.fcidump")
    energies = {}
    for arguments in (["lih", "--freeze-core"], ["lih.fcidump"]):
        code, out, _ = call(capsys, "run", *arguments, "--json")
        assert code == 0
        energies[arguments[0]] = json.loads(out)
    assert energies["lih.fcidump"]["energy"] == pytest.approx(energies["lih"]["energy"], abs=1e-10)
    assert energies["lih.fcidump"]["formula"] == "2e5o"
    assert energies["lih.fcidump"]["physical"] is True
    told = "select m.elements, m.charge, r.basis, r.nuclear_repulsion, r.notes from molecules m join vqe_results r"
    _, out, _ = call(
        capsys, "sql", "--format", "json", f"{told} on m.molecule_id = r.molecule_id where m.formula = '2e5o'"
    )
    (row,) = [json.loads(line) for line in out.splitlines()] if out.lstrip()[0] == "{" else json.loads(out)
    assert (row["elements"], row["charge"], row["basis"], row["nuclear_repulsion"]) == ([], 0, "fcidump", None)
    assert row["notes"][0].startswith("nuclear repulsion is an unknown part")
    code, out, _ = call(capsys, "report", "lih.fcidump", "--output", "report.html")
    assert code == 0
    assert "2e5o" in Path("report.html").read_text()


def test_a_summary_tells_what_a_run_would_have(capsys):
    told = json.loads(written(capsys, "h2o", "--active-space", "4e,4o", "--mapper", "parity", "--json"))
    run = run_vqe(make_spec(load_molecule("h2o"), active_electrons=4, active_orbitals=4, mapper="parity")).record
    for name in (
        "hamiltonian_id",
        "problem_id",
        "n_qubits",
        "n_terms",
        "n_orbitals",
        "orbital_numbers",
        "energy_offset",
    ):
        assert told[name] == getattr(run, name), name
    assert (told["n_alpha"], told["n_beta"], told["n_frozen_orbitals"], told["out"]) == (2, 2, 3, None)
    text = written(capsys, "h2o", "--active-space", "4e,4o", "--mapper", "parity")
    assert re.search(r"^orbitals +4 \(4, 5, 6, 7\), 3 frozen$", text, re.MULTILINE)
    assert re.search(rf"^terms +{run.n_terms}$", text, re.MULTILINE)


def test_a_file_is_overwritten_only_by_force(capsys):
    Path("h2.fcidump").write_text("precious")
    code, out, err = call(capsys, "hamiltonian", "h2", "--out", "h2.fcidump")
    assert (code, out, err) == (2, "", "vqe: out h2.fcidump: is there already (--force overwrites it)\n")
    assert Path("h2.fcidump").read_text() == "precious"
    written(capsys, "h2", "--out", "h2.fcidump", "--force")
    assert Path("h2.fcidump").read_text().startswith(" &FCI NORB=2,NELEC=2,MS2=0,\n")
    assert os.listdir() == ["h2.fcidump"]


@pytest.mark.parametrize(
    ("out", "says"),
    [
        ("h2.xyz", "unknown format .xyz (use .fcidump; .json for Qiskit or .txt for OpenFermion)"),
        ("h2", "unknown format (no suffix)"),
        ("none/h2.fcidump", "cannot be written (No such file or directory)"),
        ("folder.txt", "is there and is no regular file"),
    ],
)
def test_what_cannot_be_written_is_refused_in_one_line(capsys, out, says):
    os.mkdir("folder.txt")
    code, printed, err = call(capsys, "hamiltonian", "h2", "--out", out, "--force")
    assert (code, printed) == (2, "")
    assert err.startswith(f"vqe: out {out}: ")
    assert says in err
    assert err.count("\n") == 1


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    def lines():
        yield "begun"
        raise MemoryError

    Path("h2.txt").write_text("precious")
    with pytest.raises(MemoryError):
        write_lines(tmp_path / "h2.txt", lines())
    assert os.listdir() == ["h2.txt"]
    assert Path("h2.txt").read_text() == "precious"


def matrix(terms, n_qubits):
    """Sum of coefficient times Pauli letters by qubit, qubit 0 the lowest bit, shape (2^n, 2^n)."""
    total = np.zeros((2**n_qubits, 2**n_qubits), complex)
    for coefficient, letters in terms:
        factor = np.eye(1)
        for qubit in reversed(range(n_qubits)):
            factor = np.kron(factor, PAULIS[letters.get(qubit, "I")])
        total += coefficient * factor
    return total


@pytest.mark.parametrize("mapper", ["jordan_wigner", "parity", "bravyi_kitaev"])
def test_pauli_strings_are_the_operator_for_qiskit_and_for_openfermion(capsys, mapper):
    for suffix in ("json", "txt"):
        written(capsys, "heh+", "--mapper", mapper, "--out", f"h.{suffix}")
    found = json.loads(Path("h.json").read_text())
    qiskit = SparsePauliOp.from_list(found["terms"]).to_matrix() + found["energy_offset"] * np.eye(
        2 ** found["n_qubits"]
    )
    terms = []
    for line in Path("h.txt").read_text().splitlines():
        coefficient, factors = re.fullmatch(r"(\S+) \[(.*)\](?: \+)?", line).groups()
        terms.append((float(coefficient), {int(f[1:]): f[0] for f in factors.split()}))
    assert sum(not letters for _, letters in terms) == 1
    assert matrix(terms, found["n_qubits"]) == pytest.approx(qiskit, abs=1e-12)
    exact = run_vqe(make_spec(load_molecule("heh+"), mapper=mapper)).references["FCI"]
    assert np.abs(np.linalg.eigvalsh(qiskit) - exact).min() < 1e-9


def test_more_orbitals_than_a_run_can_have_are_written_all_the_same(capsys):
    Path("chain.xyz").write_text("34\nmultiplicity=1\n" + "".join(f"H 0 0 {0.9 * i}\n" for i in range(34)))
    told = json.loads(written(capsys, "chain.xyz", "--out", "chain.fcidump", "--json"))
    assert (told["n_orbitals"], told["n_qubits"], told["n_terms"]) == (34, None, None)
    assert told["notes"][-1].startswith("no qubit Hamiltonian: 68 qubits are more than the 64")
    code, _, err = call(capsys, "run", "chain.fcidump")
    assert code == 2
    assert "line 1: 34 orbitals are more than the 22 whose integrals a specification can hold" in err
    code, _, err = call(capsys, "hamiltonian", "chain.xyz", "--out", "chain.txt")
    assert code == 2
    assert "(use a smaller active space, or write .fcidump)" in err
    assert not os.path.exists("chain.txt")


def test_vqe_orbitals_lists_those_of_a_file(capsys):
    written(capsys, "h2o", "--out", "FCIDUMP")
    code, out, _ = call(capsys, "orbitals", "FCIDUMP", "--orbitals", "3,5,6", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [row["number"] for row in rows] == list(range(1, 8))
    assert [row["number"] for row in rows if row["active"]] == [3, 5, 6]
    assert [row["occupation"] for row in rows] == [2] * 5 + [0] * 2
    assert [row["name"] for row in rows] == ["1.1", "2.1", "1.3", "3.1", "1.2", "4.1", "2.3"]
    _, molecule, _ = call(capsys, "orbitals", "h2o", "--json")
    energies = [json.loads(line)["energy"] for line in molecule.splitlines()]
    assert [row["energy"] for row in rows] == pytest.approx(energies, abs=1e-8)
    code, out, _ = call(capsys, "orbitals", "FCIDUMP")
    assert code == 0
    assert "Choose active ones by number: vqe run" in out


def test_a_run_in_python_takes_integrals_and_has_a_state(capsys):
    written(capsys, "h2", "--out", "h2.fcidump")
    found = run_vqe(make_spec(load_molecule("h2.fcidump")))
    assert found.energy == pytest.approx(run_vqe(make_spec(load_molecule("h2"))).energy, abs=1e-10)
    assert np.linalg.norm(found.state_vector()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("command", "given"),
    [
        *itertools.product(
            ("run", "hamiltonian", "orbitals"),
            (
                ["--basis", "sto-3g"],
                ["--charge", "0"],
                ["--freeze-core"],
                ["--symmetrize"],
                ["--active-space", "auto:2"],
            ),
        )
    ],
)
def test_what_needs_atoms_is_one_line_and_exit_code_2(capsys, command, given):
    written(capsys, "h2", "--out", "h2.fcidump")
    code, out, err = call(capsys, command, "h2.fcidump", *given)
    assert (code, out) == (2, "")
    assert err.startswith("vqe: ")
    assert err.count("\n") == 1
    assert "atoms" in err
