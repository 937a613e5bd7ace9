"""A run from specification to events: every promise in the result is kept by the records, whatever happens."""

import math

import pytest
from samples import ListSink

from simulator.chemistry.molecules import load_molecule
from simulator.errors import InputError, RunFailed, StorageError
from simulator.events.records import Hamiltonian, Iteration, Result, Run, SystemMetrics
from simulator.runs.session import Session
from simulator.settings import Settings
from simulator.tasks.vqe.summary import exit_code
from simulator.tasks.vqe.task import VqeTask
from simulator.vqe.spec import make_spec


@pytest.fixture
def session(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Session(ListSink(), Settings(data_dir=tmp_path))


def run(session, **given):
    return session.execute(VqeTask(make_spec(load_molecule("h2"), **given)), "h2")


def test_a_result_promises_what_the_streams_hold(session):
    result = run(session)
    sink = session.sink
    assert result.status == "completed"
    assert result.counts == {
        "iterations": len(sink.of(Iteration)),
        "system_metrics": len(sink.of(SystemMetrics)),
        "hamiltonian_chunks": len(sink.of(Hamiltonian)),
        "hamiltonian_terms": sum(len(e.terms) for e in sink.of(Hamiltonian)),
    }
    assert sink.of(Run)[0].run_id == result.run_id
    assert sink.events[-1] is result
    assert [e.iteration for e in sink.of(Iteration)] == list(range(result.iterations + 1))


def test_energies_are_total_and_coefficients_leave_the_offset_out(session):
    result = run(session)
    terms = {t["pauli"]: t["coefficient"] for e in session.sink.of(Hamiltonian) for t in e.terms}
    assert result.nuclear_repulsion == pytest.approx(0.719968994, abs=1e-8)
    assert result.energy == pytest.approx(-1.137306036, abs=1e-8)
    assert result.energy_offset == pytest.approx(result.nuclear_repulsion, abs=1e-10)
    import numpy as np
    from qiskit.quantum_info import SparsePauliOp

    operator = SparsePauliOp(list(terms), list(terms.values())).to_matrix()
    assert np.linalg.eigvalsh(operator)[0] + result.energy_offset == pytest.approx(result.energy, abs=1e-8)


def test_a_hamiltonian_is_sent_once_a_session(session):
    first, second = run(session), run(session, seed=1)
    assert len(session.sink.of(Hamiltonian)) == first.counts["hamiltonian_chunks"]
    assert second.counts["hamiltonian_terms"] == first.counts["hamiltonian_terms"]


def test_bad_input_found_late_is_raised_and_has_a_failed_result(session):
    with pytest.raises(InputError, match="no-basis"):
        run(session, basis="no-basis")
    (result,) = session.sink.of(Result)
    assert result.status == "failed"
    assert "no-basis" in result.error
    assert result.hamiltonian_id is None
    assert result.counts["hamiltonian_terms"] == 0


def test_a_run_that_fails_in_mid_optimization_keeps_what_ran(session, monkeypatch):
    import simulator.vqe.loop

    minimize = simulator.vqe.loop.minimize

    def broken(*arguments, observe, **given):
        def observing(record):
            observe(record)
            if record.iteration == 2:
                raise RunFailed("the energy is not a number")

        return minimize(*arguments, observe=observing, **given)

    monkeypatch.setattr(simulator.vqe.loop, "minimize", broken)
    result = run(session, initial_point="zeros")
    assert result.status == "failed"
    assert result.error == "the energy is not a number"
    assert result.counts["iterations"] == 3 == len(session.sink.of(Iteration))
    assert result.energy is not None
    assert len(result.parameters) == 1
    assert exit_code(result) == 1


def test_an_unforeseen_error_is_one_line_in_a_failed_result(session, monkeypatch, capsys):
    import simulator.chemistry.integrals

    def broken(*_):
        raise ZeroDivisionError("several\nlines")

    monkeypatch.setattr(simulator.chemistry.integrals, "build_problem", broken)
    result = run(session)
    assert result.status == "failed"
    assert result.error == "ZeroDivisionError: several lines"


def test_a_stop_request_ends_the_run_as_interrupted(session):
    class StopAtFirst:
        def stage(self, name): ...

        def iteration(self, event):
            session.stop_requested = True

    spec = make_spec(load_molecule("lih"))
    result = session.execute(VqeTask(spec), "lih", observer=StopAtFirst())
    assert result.status == "interrupted"
    assert result.counts["iterations"] == len(session.sink.of(Iteration))
    assert exit_code(result) == 130


def test_events_that_cannot_be_kept_end_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    session = Session(ListSink(fails_after=5), Settings(data_dir=tmp_path))
    with pytest.raises(StorageError, match="full"):
        run(session)


def test_a_run_without_a_yardstick_has_no_error_and_says_why(session, monkeypatch):
    from simulator.chemistry import references

    monkeypatch.setattr(references, "MAX_FCI_DETERMINANTS", 1)
    monkeypatch.setattr(references, "MAX_DOUBLE", 0.01)
    result = run(session)
    assert (result.reference_name, result.reference_energy, result.error_mha, result.chemical_accuracy) == (None,) * 4
    assert all(e.error_mha is None for e in session.sink.of(Iteration))
    assert result.notes[-1].startswith("no error is told")
    assert "4 determinants exceed the bound of 1" in result.notes[-1]
    assert exit_code(result) == 0


def test_an_unphysical_result_exits_1(session):
    import dataclasses

    result = run(session)
    assert exit_code(result) == 0
    assert exit_code(dataclasses.replace(result, physical=False, physical_reason="<N> is 1.2")) == 1


def test_no_event_holds_a_number_that_is_not_finite(session):
    def check(value):
        if isinstance(value, float):
            assert math.isfinite(value)
        elif isinstance(value, dict):
            for item in value.values():
                check(item)
        elif isinstance(value, list):
            for item in value:
                check(item)

    from simulator.events.records import to_record

    run(session)
    for event in session.sink.events:
        check(to_record(event))


def test_what_a_run_records_of_parameters_can_be_thinned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    session = Session(ListSink(), Settings(data_dir=tmp_path, record_parameters="none"))
    run(session)
    assert all(e.parameters is None for e in session.sink.of(Iteration))
