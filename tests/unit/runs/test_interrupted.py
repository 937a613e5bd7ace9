"""Asked to stop, a run is interrupted, whatever it was doing: at every stage, with every optimizer and engine."""

import itertools

import pytest
from samples import ListSink

import simulator.vqe.loop
import simulator.vqe.search
from simulator.chemistry.molecules import load_molecule
from simulator.errors import Interrupted
from simulator.events.records import Iteration, Result
from simulator.runs.session import Session
from simulator.settings import Settings
from simulator.tasks.vqe.summary import exit_code
from simulator.tasks.vqe.task import VqeTask
from simulator.vqe.optimizers import OPTIMIZERS
from simulator.vqe.spec import make_spec

STAGES = ("run", "integrals", "references", "mapping", "optimization", "start", "step", "verification", "checked")
BEFORE_AN_ENERGY = STAGES[:5]
ENGINES = {
    "sector": {},
    "statevector": {"engine": "statevector"},
    "aer": {"engine": "aer"},
    "shots": {"engine": "aer", "shots": 100},
}


class StopAt:
    """Asks for a stop at a stage: by the flag, as a child's parent does, or as a signal handler does."""

    def __init__(self, session, where: str, how: str, monkeypatch) -> None:
        self.session, self.where, self.how = session, where, how
        verify = simulator.vqe.loop.verify

        def verifying(*given):
            self.reached("verification")
            verdict = verify(*given)
            self.reached("checked")
            return verdict

        monkeypatch.setattr(simulator.vqe.loop, "verify", verifying)
        self.reached("run")

    def reached(self, where: str) -> None:
        if where != self.where:
            return
        if self.how == "flag":
            self.session.stop_requested = True
        else:
            self.session.request_stop()

    def stage(self, name: str) -> None:
        self.reached(name)

    def iteration(self, event: Iteration) -> None:
        self.reached("start" if event.iteration == 0 else "step")


def stopped_run(tmp_path, monkeypatch, stage: str, how: str, **given):
    monkeypatch.chdir(tmp_path)
    session = Session(ListSink(), Settings(data_dir=tmp_path))
    spec = make_spec(load_molecule("h2"), max_iterations=5, tolerance=1e-9, **given)
    result = session.execute(VqeTask(spec), "h2", observer=StopAt(session, stage, how, monkeypatch))
    return session, result


def stops():
    """Every optimizer, stage and way of asking; each way at each stage with one optimizer, and each optimizer in its own stages."""
    for optimizer, stage, how in itertools.product(OPTIMIZERS, STAGES, ("flag", "signal")):
        one_of_its_kind = optimizer == "l-bfgs-b" or (how == "flag" and stage in ("optimization", "start", "step"))
        yield pytest.param(optimizer, how, stage, marks=() if one_of_its_kind else pytest.mark.broad)


@pytest.mark.parametrize(("optimizer", "how", "stage"), list(stops()))
def test_every_optimizer_is_interrupted_at_every_stage(tmp_path, monkeypatch, optimizer, stage, how):
    session, result = stopped_run(tmp_path, monkeypatch, stage, how, optimizer=optimizer, initial_point="random")
    assert (result.status, result.error, exit_code(result)) == ("interrupted", None, 130)
    events = session.sink.events
    assert events[-1] is result
    assert len([e for e in events if isinstance(e, Result)]) == 1
    iterations = [e for e in events if isinstance(e, Iteration)]
    assert result.counts["iterations"] == len(iterations)
    if stage in BEFORE_AN_ENERGY:
        assert result.energy is None
        assert not iterations
    else:
        assert result.energy == pytest.approx(min(e.energy for e in iterations), abs=0.2)
        assert len(result.parameters) == 1
    if stage in ("verification", "checked") and how == "flag":
        assert result.physical is True, "what was checked is kept"
    elif result.energy is not None:
        assert result.physical is None
        assert "interrupted" in result.physical_reason


@pytest.mark.parametrize("stage", ["references", "optimization", "start", "verification"])
@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_is_interrupted(tmp_path, monkeypatch, engine, stage):
    _, result = stopped_run(tmp_path, monkeypatch, stage, "signal", optimizer="l-bfgs-b", **ENGINES[engine])
    assert (result.status, result.error) == ("interrupted", None)
    assert (result.energy is None) == (stage in BEFORE_AN_ENERGY)


def test_a_stopped_optimization_keeps_its_best_point_without_another_evaluation(tmp_path, monkeypatch):
    """An evaluation may take minutes: who asked to stop waits for the one under way only."""
    from simulator.engines.sector import SectorEngine

    calls = []
    evaluate = SectorEngine.energy_and_gradient
    monkeypatch.setattr(SectorEngine, "energy_and_gradient", lambda *a: calls.append("gradient") or evaluate(*a))
    monkeypatch.setattr(SectorEngine, "energy", lambda *a: calls.append("energy"))
    monkeypatch.setattr(SectorEngine, "n_electrons_and_spin", lambda *a: calls.append("checks"))
    monkeypatch.setattr(simulator.vqe.search, "REMEMBERED_POINTS", 1)
    _, result = stopped_run(tmp_path, monkeypatch, "start", "flag", optimizer="l-bfgs-b", initial_point="random")
    assert result.status == "interrupted"
    assert calls == ["gradient"]


def test_a_stop_that_a_library_passes_on_as_its_own_error_is_no_failure(tmp_path, monkeypatch):
    import simulator.chemistry.integrals

    def wrapping(*_):
        try:
            raise Interrupted
        except KeyboardInterrupt as stop:
            raise RuntimeError("callback failed") from stop

    monkeypatch.setattr(simulator.chemistry.integrals, "build_problem", wrapping)
    _, result = stopped_run(tmp_path, monkeypatch, "nowhere", "flag")
    assert (result.status, result.error) == ("interrupted", None)


def test_a_plain_keyboard_interrupt_in_the_checks_keeps_the_minimum(tmp_path, monkeypatch):
    """As a program meets it that calls the package and handles no signal."""

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(simulator.vqe.loop, "verify", interrupted)
    monkeypatch.chdir(tmp_path)
    session = Session(ListSink(), Settings(data_dir=tmp_path))
    result = session.execute(VqeTask(make_spec(load_molecule("h2"))), "h2")
    assert (result.status, result.converged, result.physical) == ("interrupted", True, None)
    assert result.energy == pytest.approx(-1.137306, abs=1e-6)
    assert session.stop_requested, "and no other run begins"
