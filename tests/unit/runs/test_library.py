"""The library: what a script imports, runs and reads, without a word of the command line."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import simulator
from simulator import RunSpec, load_molecule, make_spec, open_tables, run_vqe
from simulator.errors import InputError, RunFailed
from simulator.runs.library import RunInterrupted

README = Path(__file__).parents[3] / "README.md"


@pytest.fixture(scope="module")
def result():
    return run_vqe(make_spec(load_molecule("h2")))


def test_a_run_in_memory_holds_energy_parameters_history_and_references(result):
    assert result.energy == pytest.approx(-1.1373060, abs=1e-7)
    assert result.converged
    assert result.physical
    assert result.error_mha == pytest.approx(0, abs=1e-3)
    assert result.parameters.shape == (len(result.labels),)
    assert result.references["FCI"] == pytest.approx(result.energy, abs=1e-8)
    assert result.references["HF"] > result.energy
    assert isinstance(result.spec, RunSpec)


def test_the_history_has_every_iteration_in_the_columns_of_the_table(result):
    history = result.history
    assert history.column_names == [f for f in result.iterations[0].__dataclass_fields__ if f != "stream"]
    assert history["iteration"].to_pylist() == list(range(len(history)))
    assert history["energy"].to_pylist()[-1] == pytest.approx(result.energy, abs=1e-9)
    assert history["parameters"].to_pylist()[-1] == pytest.approx(result.parameters.tolist())


@pytest.mark.parametrize(
    "given", [{}, {"mapper": "parity"}, {"ansatz": "efficient_su2", "initial_point": "random", "seed": 3}]
)
def test_the_state_vector_has_the_energy_of_the_run(given):
    from qiskit.quantum_info import SparsePauliOp

    from simulator.chemistry.integrals import build_problem
    from simulator.operators.hamiltonian import qubit_hamiltonian
    from simulator.stages import Stages

    spec = make_spec(load_molecule("h2"), max_iterations=5, **given)
    found = run_vqe(spec)
    psi = found.state_vector()
    hamiltonian = qubit_hamiltonian(build_problem(spec, Stages()), spec.mapper, Stages())
    operator = SparsePauliOp(list(hamiltonian.labels), hamiltonian.coefficients).to_matrix()
    assert np.linalg.norm(psi) == pytest.approx(1)
    assert np.vdot(psi, operator @ psi).real + hamiltonian.energy_offset == pytest.approx(found.energy, abs=1e-9)


def test_with_a_data_dir_the_tables_hold_the_run(tmp_path):
    found = run_vqe(make_spec(load_molecule("h2"), seed=5), name="mine", data_dir=tmp_path)
    tables = open_tables(tmp_path)
    (row,) = tables.sql("select run_id, energy, molecule_name from vqe_results").to_pylist()
    assert row == {"run_id": found.record.run_id, "energy": found.energy, "molecule_name": "mine"}
    assert len(tables["vqe_iterations"]) == len(found.iterations)
    assert "vqe_results" in tables.names
    with pytest.raises(KeyError, match="no table 'nonsense'"):
        tables["nonsense"]


def test_with_a_data_dir_the_settings_hold_and_in_memory_all_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("VQE_RECORD_PARAMETERS", "none")
    spec = make_spec(load_molecule("h2"))
    count = len(run_vqe(spec, data_dir=tmp_path).iterations)
    assert open_tables(tmp_path)["vqe_iterations"]["parameters"].to_pylist() == [None] * count
    assert all(iteration.parameters is not None for iteration in run_vqe(spec).iterations)


def test_a_sink_gets_every_event_and_stays_open():
    class Kept:
        def __init__(self):
            self.events, self.closed = [], False

        def emit(self, event):
            self.events.append(event)

        def flush(self): ...

        def close(self):
            self.closed = True

    sink = Kept()
    found = run_vqe(make_spec(load_molecule("h2")), sink=sink)
    assert next(e.stream for e in sink.events if e.stream != "vqe_system_metrics") == "vqe_run"
    assert sink.events[-1] == found.record
    assert not sink.closed
    with pytest.raises(ValueError, match="not both"):
        run_vqe(found.spec, sink=sink, data_dir="somewhere")


def test_what_goes_wrong_is_an_exception_of_its_kind(monkeypatch):
    with pytest.raises(InputError, match="unknown basis"):
        run_vqe(make_spec(load_molecule("h2"), basis="no-such-basis"))
    import simulator.vqe.loop

    def broken(*_, **__):
        raise RunFailed("nothing works")

    monkeypatch.setattr(simulator.vqe.loop, "minimize", broken)
    with pytest.raises(RunFailed, match="nothing works"):
        run_vqe(make_spec(load_molecule("h2")))


def test_ctrl_c_keeps_what_the_run_had_reached():
    class Stops:
        def stage(self, name): ...

        def iteration(self, event):
            if event.iteration == 2:
                raise KeyboardInterrupt

    with pytest.raises(RunInterrupted) as stopped:
        run_vqe(make_spec(load_molecule("lih")), observer=Stops())
    assert stopped.value.result.record.status == "interrupted"
    assert len(stopped.value.result.iterations) == 3


def test_there_is_no_tables_folder_is_said(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        open_tables(tmp_path / "nowhere")


def test_every_public_name_is_found_and_no_other():
    assert set(simulator.__all__) <= set(dir(simulator))
    for name in simulator.__all__:
        assert getattr(simulator, name)
    with pytest.raises(AttributeError, match="no attribute 'run_vqa'"):
        simulator.run_vqa  # noqa: B018


def test_importing_and_running_changes_nothing_global_and_loads_nothing_early():
    code = (
        "import gc, sys, signal, logging\n"
        "seen = lambda: (sys.getswitchinterval(), gc.get_threshold(), signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))\n"
        "before = seen()\n"
        "import simulator\n"
        "heavy = {'numpy', 'scipy', 'pyscf', 'qiskit', 'numba', 'pyarrow', 'structlog'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "simulator.run_vqe(simulator.make_spec(simulator.load_molecule('h2')))\n"
        "after = seen()\n"
        "assert before == after, (before, after)\n"
        "assert not logging.getLogger().handlers\n"
        # a second of every `vqe run h2`: numba is for larger states, the others only seem to be needed
        "unneeded = {'numba', 'qiskit_nature', 'qiskit_algorithms', 'scipy.stats', 'pyscf.tdscf', 'pyscf.pbc'} & set(sys.modules)\n"
        "assert not unneeded, unneeded\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_the_readme_s_example_runs_and_says_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = README.read_text()
    example = text.split("<!-- library example, run by a test -->\n```python\n")[1].split("\n```")[0]
    exec(compile(example, "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    promised = [line.split("# ", 1)[1] for line in example.splitlines() if line.startswith("print(")]
    assert printed == promised
