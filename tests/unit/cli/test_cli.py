"""The command line: exit codes, one line for each mistake, JSON alone on stdout, a quick start."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from waiting import signalled

from simulator.cli.main import _run
from simulator.garbage import NEW_OBJECTS

HEAVY = ("qiskit", "pyscf", "numba", "scipy", "numpy", "pyarrow", "pyiceberg", "duckdb", "matplotlib", "pydantic_settings")  # fmt: skip


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [n for n in os.environ if n.startswith("VQE_")]:
        monkeypatch.delenv(name)


def call(capsys, *arguments: str) -> tuple[int, str, str]:
    code = _run(arguments)
    out, err = capsys.readouterr()
    return code, out, err


def test_help_and_version_load_nothing_heavy():
    script = (
        "import sys; from simulator.cli.main import _run; _run(['--version']); _run(['--help'])\n"
        f"print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "Usage" in done.stdout


def test_planning_the_first_sweep_of_a_data_dir_loads_nothing_of_the_tables(tmp_path):
    (tmp_path / "curve.yaml").write_text("molecules: [h2]")
    script = (
        "import sys; from simulator.cli.main import _run; assert _run(['sweep', 'curve.yaml', '--dry-run', '--json']) == 0\n"
        "print([m for m in ('pyiceberg', 'pyarrow', 'duckdb', 'sqlglot', 'alembic', 'pyscf') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert json.loads(done.stdout)["to_run"] == 1


def test_what_only_raw_files_or_only_tables_know_is_not_run_again(tmp_path, capsys):
    (tmp_path / "curve.yaml").write_text("molecules: [h2]")
    plan = ("sweep", "curve.yaml", "--dry-run", "--json")
    assert call(capsys, "run", "h2", "--no-tables")[0] == 0
    assert json.loads(call(capsys, *plan)[1])["completed"] == 1
    shutil.rmtree(tmp_path / "vqe-data" / "raw")
    assert json.loads(call(capsys, *plan)[1])["completed"] == 1


@pytest.mark.parametrize(("before", "after"), [(700, NEW_OBJECTS), (10**6, 10**6), (0, 0)])
def test_the_command_looks_for_cycles_seldom_unless_told_otherwise(before, after):
    script = (
        f"import atexit, gc, sys; gc.set_threshold({before})\n"
        "atexit.register(lambda: print(gc.get_threshold()[0], file=sys.stderr))\n"
        "from simulator.cli.main import main; main(['--version'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == str(after)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["run"], "Missing argument"),
        (["run", "h2", "--repeat", "0"], "--repeat"),
        (["run", "h2", "--shots", "many"], "--shots"),
        (["run", "water"], "unknown molecule 'water'"),
        (["run", "nowhere.xyz"], "nowhere.xyz"),
        (["run", "bad.xyz"], "bad.xyz"),
        (["run", "element.xyz"], "Xx"),
        (["run", "close.xyz"], "close.xyz"),
        (["run", "nan.json"], "nan.json"),
        (["run", "bad.json"], "bad.json"),
        (["run", "h2", "--multiplicity", "2"], "multiplicity 2 is impossible with 2 electrons"),
        (["run", "h2", "--charge", "2"], "electron"),
        (["run", "h2", "--basis", "sto-33g"], "sto-33g"),
        (["run", "h2", "--active-space", "4e,9o"], "larger than the molecule"),
        (["run", "h2", "--active-space", "2e,9o"], "larger than the molecule"),
        (["run", "h2", "--active-space", "four"], "4e,4o"),
        (["run", "h2", "--optimizer", "adam"], "unknown optimizer 'adam'"),
        (["run", "h2", "--optimizer-option", "speed=1"], "speed"),
        (["run", "h2", "--optimizer-option", "maxcor"], "NAME=VALUE"),
        (["run", "h2", "--ansatz", "ucc"], "uccsd"),
        (["run", "h2", "--ansatz", "nowhere.qasm"], "circuit nowhere.qasm: No such file"),
        (["run", "h2", "--ansatz", "circuit"], "has no circuit"),
        (["run", "h2", "--engine", "sector", "--shots", "100"], "shots"),
        (["run", "h2", "--device", "gpu"], "gpu"),
        (["run", "h2", "--noise", "heavy"], "one_qubit=P"),
        (["run", "h2", "--initial-point", "nowhere.json"], "no such file"),
        (["run", "h2", "--initial-point", "long.json"], "3 values"),
        (["run", "h2", "--tolerance", "0"], "tolerance"),
        (["run", "h2", "--sink", "pigeon"], "VQE_SINK"),
        (["run", "h2", "--record-parameters", "some"], "every:N"),
        (["run", "h2", "--data-dir", "a-file/data"], "a-file"),
        (["sql", "select * from nowhere"], "no tables"),
        (["sql", "drop table vqe_results"], "select|only|read"),
        (["sweep", "nowhere.yaml"], "nowhere.yaml"),
        (["report", "no-such-run"], "no-such-run|no"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else None,
)
def test_a_mistake_is_one_line_and_exit_code_2(capsys, tmp_path, arguments, says):
    import re

    (tmp_path / "bad.xyz").write_text("2\n\nH 0 0\nH 0 0 1\n")
    (tmp_path / "element.xyz").write_text("1\n\nXx 0 0 0\n")
    (tmp_path / "close.xyz").write_text("2\n\nH 0 0 0\nH 0 0 0.01\n")
    (tmp_path / "nan.json").write_text(
        '{"elements": ["H", "H"], "geometry": [[0, 0, 0], [0, 0, NaN]], "units": "angstrom"}'
    )
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "long.json").write_text("[0.1, 0.2, 0.3]")
    (tmp_path / "a-file").write_text("")
    code, out, err = call(capsys, *arguments)
    expected = 1 if "a-file/data" in arguments else 2
    assert code == expected, err
    assert re.search(says, err, re.IGNORECASE), err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1
    assert out == ""


def test_too_many_qubits_are_refused_with_the_number_before_anything_is_allocated(capsys):
    code, _, err = call(capsys, "run", "n2", "--basis", "cc-pvtz")
    assert code == 2
    assert "qubits" in err or "determinants" in err or "parameters" in err
    assert any(character.isdigit() for character in err)


def test_json_is_alone_on_stdout_and_has_what_was_promised(capsys):
    code, out, _ = call(capsys, "run", "h2", "--repeat", "2", "--json")
    assert code == 0
    found = [json.loads(line) for line in out.splitlines()]
    assert len(found) == 2
    promised = {"run_id", "spec_id", "status", "physical", "energy", "reference", "reference_energy", "error_mha", "iterations", "evaluations", "seconds"}  # fmt: skip
    assert all(promised <= set(run) for run in found)
    assert found[0]["spec_id"] != found[1]["spec_id"], "a repeat is another seed"
    assert abs(found[0]["energy"] - -1.137306035753) < 1e-8
    assert found[0]["physical"] is True


def test_runs_are_in_the_tables_when_the_command_ends(capsys):
    code, out, _ = call(capsys, "run", "h2", "--mapper", "parity")
    assert code == 0, out
    assert "converged" in out
    code, out, _ = call(capsys, "sql", "select mapper, n_qubits, status from vqe_results", "--format", "json")
    assert code == 0
    assert json.loads(out)[0] == {"mapper": "parity", "n_qubits": 2, "status": "completed"}


def test_tables_can_be_asked_before_the_first_run(capsys):
    assert call(capsys, "tables", "init")[0] == 0
    assert call(capsys, "tables", "init")[1].strip() == "10 tables are there."
    code, out, _ = call(capsys, "sql", "select count(*) n from vqe_results", "--format", "json")
    assert (code, json.loads(out)) == (0, [{"n": 0}])


def test_a_flag_is_an_environment_variable_too(capsys, monkeypatch):
    monkeypatch.setenv("VQE_OPTIMIZER", "cobyla")
    monkeypatch.setenv("VQE_JSON", "1")
    monkeypatch.setenv("VQE_TABLES", "0")
    _, out, _ = call(capsys, "run", "h2")
    assert json.loads(out)["run_id"]
    monkeypatch.setenv("VQE_OPTIMIZER", "adam")
    code, _, err = call(capsys, "run", "h2")
    assert code == 2
    assert "adam" in err


def test_a_run_that_does_not_converge_exits_1_and_is_kept(capsys):
    code, out, _ = call(capsys, "run", "lih", "--max-iterations", "2", "--json")
    assert code == 1
    run = json.loads(out)
    assert run["status"] == "completed"
    assert run["converged"] is False


def test_a_run_starts_from_an_earlier_ones_parameters_or_a_file(capsys, tmp_path):
    _, out, _ = call(capsys, "run", "lih", "--json")
    first = json.loads(out)
    code, out, _ = call(capsys, "run", "lih", "--initial-point", first["run_id"], "--json")
    assert code == 0
    again = json.loads(out)
    assert again["iterations"] <= 2 < first["iterations"]
    assert abs(again["energy"] - first["energy"]) < 1e-7
    (tmp_path / "start.json").write_text("[0.0]")
    code, out, _ = call(capsys, "run", "h2", "--initial-point", "start.json", "--json")
    assert code == 0


def test_an_ansatz_from_a_file_runs_into_the_tables(capsys, tmp_path):
    (tmp_path / "pair.qasm").write_text(
        'OPENQASM 3;\ninclude "stdgates.inc";\ninput float pair;\nqubit[4] q;\nx q[0]; x q[2];\n'
        "ry(pair) q[1];\ncx q[1], q[0];\ncx q[1], q[3];\ncx q[3], q[2];\n"
    )
    code, out, err = call(capsys, "run", "h2", "--ansatz", "pair.qasm", "--json")
    assert code == 0, err
    assert abs(json.loads(out)["error_mha"]) < 1e-3
    code, out, err = call(
        capsys,
        "sql",
        "select r.ansatz, p.label from vqe_results r join vqe_parameters p using (run_id) limit 1",
        "--format",
        "json",
    )
    assert json.loads(out) == [{"ansatz": "circuit", "label": "pair"}], err


def test_record_parameters_keeps_what_was_asked_and_nothing_else(capsys):
    call(capsys, "run", "lih", "--record-parameters", "every:3")
    query = "select iteration, parameters is not null as kept from vqe_iterations order by iteration"
    _, out, _ = call(capsys, "sql", query, "--format", "json")
    rows = json.loads(out)
    assert all(row["kept"] == (row["iteration"] % 3 == 0) for row in rows)
    assert len(rows) > 6


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_what_ran_and_exits_130(capsys, tmp_path, number):
    def iterating() -> bool:
        parts = tmp_path.glob("vqe-data/raw/vqe_iteration_v1/partition=local/.*.part")
        return any(p.stat().st_size > 9_000 for p in parts)

    endless = ["--optimizer", "cobyla", "--max-iterations", "100000", "--tolerance", "1e-9"]
    with signalled(number, when=iterating):
        code, out, err = call(capsys, "run", "h2", "n2", *endless, "--json")
    assert code == 130, err
    assert "Traceback" not in err
    runs = [json.loads(line) for line in out.splitlines()]
    assert [r["status"] for r in runs] == ["completed", "interrupted"]
    assert runs[1]["energy"] is not None
    query = "select status, count(i.iteration) as n from vqe_results r join vqe_iterations i on i.run_id = r.run_id group by r.run_id, status order by n"
    _, out, _ = call(capsys, "sql", query, "--format", "json")
    assert {row["status"] for row in json.loads(out)} == {"completed", "interrupted"}


def test_two_processes_in_one_data_dir_lose_and_double_nothing(capsys, tmp_path):
    command = [sys.executable, "-m", "simulator.cli.main", "run", "h2", "--repeat", "2", "--json"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outs = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outs
    ids = {json.loads(line)["run_id"] for out, _ in outs for line in out.splitlines()}
    _, out, _ = call(capsys, "sql", "select run_id from vqe_results", "--format", "json")
    found = [row["run_id"] for row in json.loads(out)]
    assert sorted(found) == sorted(ids)
    assert len(found) == 4
