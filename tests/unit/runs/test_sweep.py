"""Sweeps: a matrix of specifications; each error names the line of the file."""

from pathlib import Path

import pytest

from simulator.errors import InputError
from simulator.runs.sweep import load_sweep


def write(folder: Path, text: str) -> Path:
    path = folder / "experiment.yaml"
    path.write_text(text)
    return path


def test_every_combination_is_planned_once_and_named_after_the_file(tmp_path):
    path = write(
        tmp_path,
        """
molecules:
  - h2
  - {molecule: lih, scale: [0.9, 1.0, 1.1]}
settings:
  basis: sto-3g
  tolerance: 1e-4
matrix:
  optimizer: [l-bfgs-b, slsqp]
  ansatz: [uccsd]
seeds: 2
""",
    )
    planned = load_sweep(path)
    assert planned.sweep_id == "experiment"
    assert len(planned.runs) == 4 * 2 * 2
    assert {run.name for run in planned.runs} == {"h2", "lih@0.9", "lih", "lih@1.1"}
    assert len({run.spec.spec_id for run in planned.runs}) == len(planned.runs)
    assert all(run.spec.tolerance == 1e-4 for run in planned.runs), "YAML 1.1 reads 1e-4 as text"
    assert {run.spec.seed for run in planned.runs} == {0, 1}


def test_the_same_specification_twice_is_one_run(tmp_path):
    planned = load_sweep(write(tmp_path, "molecules: [h2, h2]\nseeds: [3, 3]\n"))
    assert [run.spec.seed for run in planned.runs] == [3]


def test_planning_again_gives_the_same_ids(tmp_path):
    path = write(tmp_path, "name: again\nmolecules: [h2]\nmatrix: {mapper: [parity, bravyi_kitaev]}\n")
    first, second = load_sweep(path), load_sweep(path)
    assert [r.spec.spec_id for r in first.runs] == [r.spec.spec_id for r in second.runs]


def test_a_molecule_file_is_found_beside_the_experiment(tmp_path, monkeypatch):
    (tmp_path / "wide.xyz").write_text("2\nstretched\nH 0 0 0\nH 0 0 1.5\n")
    path = write(tmp_path, "molecules: [wide.xyz]\n")
    monkeypatch.chdir("/")
    assert load_sweep(path).runs[0].spec.geometry[1][2] == 1.5


def test_a_circuit_is_found_beside_the_experiment_and_read_once(tmp_path, monkeypatch):
    (tmp_path / "one.qasm").write_text(
        'OPENQASM 3; include "stdgates.inc"; input float a; qubit[4] q; x q[0]; x q[2]; ry(a) q[1];'
    )
    path = write(tmp_path, "molecules: [h2]\nmatrix:\n  ansatz: [uccsd, one.qasm]\nseeds: 2\n")
    monkeypatch.chdir("/")
    runs = load_sweep(path).runs
    assert [run.spec.ansatz for run in runs] == ["uccsd", "uccsd", "circuit", "circuit"]
    assert runs[2].spec.circuit is runs[3].spec.circuit
    (tmp_path / "one.qasm").write_text("OPENQASM 3;\nqubit[4] q;\nfoo q[0];")
    with pytest.raises(InputError, match=r"experiment.yaml:3: h2: circuit .*one.qasm: line 3:0 gate 'foo'"):
        load_sweep(path)


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", 1, "mapping"),
        ("- h2\n", 1, "mapping"),
        ("molecules: [h2\n", 2, "expected"),
        ("molecules: []\n", 1, "molecules"),
        ("molecules: [h2]\ncolour: red\n", 2, "unknown key colour"),
        ("molecules: [h2]\nmolecules: [lih]\n", 2, "given twice"),
        ("molecules:\n  - h2\n  - h22\n", 3, "h22"),
        ("molecules:\n  - h2\n  - {molecule: lih, charge: x}\n", 3, "charge"),
        ("molecules:\n  - {molecule: h2, scale: [1, 0]}\n", 1, "scale"),
        ("molecules: [h2]\nsettings:\n  basis: sto-3g\n  optimiser: spsa\n", 4, "unknown key optimiser"),
        ("molecules: [h2]\nsettings:\n  optimizer: spza\n", 3, "did you mean spsa"),
        ("molecules: [h2]\nmatrix:\n  ansatz: [uccsd]\n  optimizer:\n    - slsqp\n    - adam\n", 6, "adam"),
        ("molecules: [h2]\nmatrix:\n  optimizer: slsqp\n", 3, "must be a list"),
        ("molecules: [h2]\nsettings: {basis: sto-3g}\nmatrix:\n  basis: [sto-3g]\n", 4, "in settings too"),
        ("molecules: [h2]\nsettings:\n  engine: sector\n  shots: 100\n", 4, "shots"),
        ("molecules: [h2]\nsettings:\n  active_space: 4e,4o\n", 3, "larger than the molecule"),
        ("molecules: [h2]\nsettings:\n  freeze_core: 1\n", 3, "true or false"),
        ("molecules: [h2]\nseeds: []\n", 2, "seeds"),
        ("molecules: [h2]\nseeds: 2000000\n", 1, "more than"),
    ],
)
def test_an_error_names_the_file_and_the_line(tmp_path, text, line, says):
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        load_sweep(path)
    message = str(caught.value)
    assert says in message
    if line > 1:
        assert f"experiment.yaml:{line}:" in message
    assert "\n" not in message


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.yaml: No such file"):
        load_sweep(tmp_path / "nowhere.yaml")
