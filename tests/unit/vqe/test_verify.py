"""The verdict names the checks that a state failed, and says why where it is no verdict."""

import dataclasses

import numpy as np
import pytest

from simulator.chemistry.integrals import build_problem
from simulator.chemistry.molecules import load_molecule
from simulator.chemistry.references import Reference
from simulator.engines import aer
from simulator.operators.hamiltonian import qubit_hamiltonian
from simulator.stages import Stages
from simulator.trust import (
    ELECTRON_TOLERANCE,
    ENERGY_TOLERANCE,
    ENGINE_TOLERANCE,
    SPIN_TOLERANCE,
    Check,
)
from simulator.vqe import verify as verify_module
from simulator.vqe.ansatz import build_ansatz
from simulator.vqe.spec import Noise, make_spec
from simulator.vqe.verify import INTERRUPTED, Verdict, verify

EXACT = -1.1373060357534
AT_MINIMUM = np.array([-0.11176849887])


class StateWith:
    """An engine named as the sector engine whose state has other electrons or another spin than H2's two and 0."""

    name = "sector"

    def __init__(self, n_electrons=2.0, s_squared=0.0):
        self.found = n_electrons, s_squared

    def n_electrons_and_spin(self, parameters):
        return self.found


@pytest.fixture(scope="module")
def h2():
    problem = build_problem(make_spec(load_molecule("h2")), Stages())
    return problem, qubit_hamiltonian(problem, "jordan_wigner", Stages())


def judged(h2, *, off=0.0, exact=EXACT, minimum=EXACT, engine=None, references=None, **given):
    """The verdict on H2's state at its minimum, told with an energy that is off by some hartree."""
    spec = make_spec(load_molecule("h2"), **given)
    known = (Reference("FCI", exact), Reference("sector_minimum", minimum)) if references is None else references
    ansatz = build_ansatz(spec, *h2, known)
    if engine is not None:
        ansatz = dataclasses.replace(ansatz, engine=engine)
    parameters = AT_MINIMUM
    energy = aer.evaluate(ansatz.circuit(), parameters, ansatz.hamiltonian, ansatz.mapping).energy
    assert energy == pytest.approx(EXACT, abs=1e-9)
    return verify(spec, ansatz, known, parameters, energy + off)


def failed(verdict):
    return [failure.check for failure in verdict.failures]


def test_a_good_state_passes_every_check_and_needs_no_reason(h2):
    verdict = judged(h2)
    assert (verdict.physical, verdict.reason, verdict.failures, verdict.aer_reason) == (True, None, (), None)
    assert verdict.electron_number == pytest.approx(2, abs=1e-10)
    assert verdict.s_squared == pytest.approx(0, abs=1e-10)
    assert verdict.aer_energy == pytest.approx(EXACT, abs=1e-9)
    assert verdict.two_qubit_gates > 0
    assert verdict.circuit_depth > 0


@pytest.mark.parametrize(("share", "fails"), [(0.9, []), (1.1, [Check.ELECTRON_NUMBER])])
def test_electrons_are_checked_to_their_tolerance(h2, share, fails):
    verdict = judged(h2, engine=StateWith(n_electrons=2 + share * ELECTRON_TOLERANCE))
    assert failed(verdict) == fails
    assert verdict.physical is not bool(fails)
    if fails:
        assert verdict.reason == "2.0011 electrons instead of 2"


@pytest.mark.parametrize(("share", "fails"), [(0.9, []), (1.1, [Check.SPIN])])
def test_spin_is_checked_to_its_tolerance(h2, share, fails):
    verdict = judged(h2, engine=StateWith(s_squared=share * SPIN_TOLERANCE))
    assert failed(verdict) == fails
    assert verdict.physical is not bool(fails)
    if fails:
        assert verdict.reason == "<S^2> is 0.0550 instead of 0"


@pytest.mark.parametrize(("share", "fails"), [(0.9, []), (1.1, [Check.ENGINES])])
def test_engines_are_compared_to_their_tolerance(h2, share, fails):
    verdict = judged(h2, off=share * ENGINE_TOLERANCE)
    assert failed(verdict) == fails
    assert verdict.physical is not bool(fails)
    if fails:
        assert verdict.reason == "our engine and Aer differ by 1.1e-08 hartree"


def test_a_run_on_aer_is_compared_with_our_statevector_and_with_aers_own(h2):
    spec = make_spec(load_molecule("h2"), engine="aer")
    known = (Reference("FCI", EXACT), Reference("sector_minimum", EXACT))
    ansatz = build_ansatz(spec, *h2, known)
    parameters = AT_MINIMUM
    energy = ansatz.engine.energy(parameters)[0]
    assert verify(spec, ansatz, known, parameters, energy).physical is True
    verdict = verify(spec, ansatz, known, parameters, energy + 1e-6)
    assert failed(verdict) == [Check.ENGINES]
    assert verdict.reason == "Aer by method statevector differs by 1.0e-06 hartree"


@pytest.mark.parametrize(("share", "fails"), [(0.5, []), (2, [Check.ENERGY])])
def test_energies_below_an_exact_one_are_checked_to_their_tolerance(h2, share, fails):
    below = share * ENERGY_TOLERANCE
    of_sector, of_spin = judged(h2, minimum=EXACT + below), judged(h2, exact=EXACT + below)
    assert failed(of_sector) == failed(of_spin) == fails
    if fails:
        assert of_sector.reason.endswith("hartree below the exact energy of its sector")
        assert "hartree below FCI, the exact energy of its spin" in of_spin.reason


@pytest.mark.parametrize(
    ("references", "says"),
    [
        ((), "no exact energy: not computed"),
        ((Reference("sector_minimum", None, "too many determinants"),), "no exact energy: too many determinants"),
    ],
)
def test_without_an_exact_energy_there_is_no_verdict_but_a_failure_is_one(h2, references, says):
    verdict = judged(h2, references=references)
    assert (verdict.physical, verdict.reason) == (None, says)
    wrong = judged(h2, references=references, off=1e-6)
    assert (wrong.physical, wrong.reason) == (False, f"our engine and Aer differ by 1.0e-06 hartree; {says}")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"shots": 100}, "shots: the energy is an estimate"),
        ({"shots": 100, "noise": Noise(0.1)}, "shots and noise: the energy is an estimate"),
        ({"precision": "single"}, "single precision: the energy is an estimate"),
    ],
)
def test_estimates_get_no_verdict_and_no_look_at_their_energy(h2, given, says):
    verdict = judged(h2, off=-0.1, **given)
    assert (verdict.physical, verdict.reason, verdict.failures) == (None, says, ())
    assert verdict.aer_energy == pytest.approx(EXACT, abs=1e-9)


def test_what_an_estimate_shows_wrong_is_told_without_a_verdict(h2):
    verdict = judged(h2, engine=StateWith(s_squared=2.0), precision="single")
    assert failed(verdict) == [Check.SPIN]
    assert verdict.physical is None
    assert verdict.reason == "<S^2> is 2.0000 instead of 0; single precision: the energy is an estimate"


def test_a_register_too_large_for_aer_is_judged_by_the_engine_alone_and_says_so(h2, monkeypatch):
    monkeypatch.setattr(verify_module, "MAX_AER_CHECK_QUBITS", 3)
    verdict = judged(h2)
    assert (verdict.physical, verdict.reason) == (None, "4 qubits, checked on Aer up to 3")
    assert verdict.aer_reason == verdict.reason
    assert (verdict.aer_energy, verdict.circuit_depth, verdict.two_qubit_gates) == (None, None, None)
    assert judged(h2, engine=StateWith(s_squared=2.0)).physical is False


def test_an_interrupted_run_has_a_verdict_that_says_nothing_was_looked_at():
    looked_at = {f.name for f in dataclasses.fields(Verdict)} - {"reason", "aer_reason", "failures"}
    assert {getattr(INTERRUPTED, name) for name in looked_at} == {None}
    assert (INTERRUPTED.reason, INTERRUPTED.aer_reason) == ("interrupted before the checks", "interrupted")
