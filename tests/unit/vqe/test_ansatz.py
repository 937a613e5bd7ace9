"""A run's ansatz is built once, and whether symmetry chooses its excitations is a value with a note made from it."""

import dataclasses

import numpy as np
import pytest

from simulator.chemistry.integrals import build_problem
from simulator.chemistry.molecules import load_molecule
from simulator.chemistry.references import Reference
from simulator.engines.aer import AerEngine
from simulator.engines.sector import SectorEngine
from simulator.engines.statevector import StatevectorEngine
from simulator.operators.hamiltonian import qubit_hamiltonian
from simulator.stages import Stages
from simulator.vqe.ansatz import Screening, build_ansatz, choose_screening, screening_note
from simulator.vqe.loop import minimize
from simulator.vqe.spec import make_spec

IN_HF_IRREP = Reference("FCI", -8.0, hf_irrep_weight=1.0)
IN_ANOTHER = Reference("FCI", -8.0, hf_irrep_weight=0.0)


@pytest.fixture(scope="module")
def lih():
    return build_problem(make_spec(load_molecule("lih")), Stages())


def ansatz_of(problem, *references, **given):
    spec = make_spec(load_molecule("lih"), **given)
    return build_ansatz(spec, problem, qubit_hamiltonian(problem, spec.mapper, Stages()), references)


@pytest.mark.parametrize(
    ("changed", "reference", "expected"),
    [
        ({}, IN_HF_IRREP, Screening.ON),
        ({}, IN_ANOTHER, Screening.OTHER_IRREP),
        ({}, Reference("FCI", None, "too many determinants"), Screening.UNVERIFIED),
        ({"group": "C1"}, Reference("FCI", None, "too many determinants"), Screening.ON),
        ({"orbsym": None}, IN_HF_IRREP, Screening.NO_SYMMETRY),
    ],
)
def test_symmetry_screens_where_the_exact_state_may_have_hartree_focks_irrep(lih, changed, reference, expected):
    problem = dataclasses.replace(lih, **changed)
    assert choose_screening(make_spec(load_molecule("lih")), problem, (reference,)) is expected
    assert choose_screening(make_spec(load_molecule("lih"), ansatz="efficient_su2"), problem, (reference,)) is None


@pytest.mark.parametrize(
    ("screening", "is_on", "note", "note_of_a_moved_start"),
    [
        (Screening.ON, True, None, None),
        (
            Screening.UNVERIFIED, True, "symmetry screening on, without an exact state to compare irreps with",
            "symmetry screening on, without an exact state to compare irreps with",
        ),
        (
            Screening.NO_SYMMETRY, False, "symmetry screening off: the SCF converged without symmetry only",
            "symmetry screening off: the SCF converged without symmetry only",
        ),
        (
            Screening.OTHER_IRREP, False, "symmetry screening off: HF and FCI irreps differ",
            "symmetry screening off: HF and FCI irreps differ, start perturbed",
        ),
    ],
)  # fmt: skip
def test_the_note_follows_from_the_screening(screening, is_on, note, note_of_a_moved_start):
    assert screening.is_on is is_on
    assert screening_note(screening, start_moved=False) == note
    assert screening_note(screening, start_moved=True) == note_of_a_moved_start


def test_screening_off_keeps_every_excitation_and_moves_a_start_that_no_user_and_no_seed_chose(lih):
    screened, unscreened = ansatz_of(lih, IN_HF_IRREP), ansatz_of(lih, IN_ANOTHER)
    assert (screened.screening, screened.notes) == (Screening.ON, ())
    assert unscreened.screening is Screening.OTHER_IRREP
    assert unscreened.n_excitations > screened.n_excitations
    for point in ("hf", "zeros", "mp2"):
        assert np.count_nonzero(ansatz_of(lih, IN_ANOTHER, initial_point=point).start) == len(unscreened.start)
    vector = tuple(np.linspace(-0.1, 0.1, len(unscreened.start)).tolist())
    kept = ansatz_of(lih, IN_ANOTHER, initial_point="vector", initial_vector=vector)
    np.testing.assert_array_equal(kept.start, vector)
    assert kept.notes == ("symmetry screening off: HF and FCI irreps differ",)


def test_the_sector_engine_needs_no_circuit_until_it_is_asked_for(lih):
    ansatz = ansatz_of(lih, IN_HF_IRREP)
    assert ansatz.gates is None
    assert ansatz.circuit().n_parameters == len(ansatz.start)
    other = ansatz_of(lih, IN_HF_IRREP, engine="statevector")
    assert other.circuit() is other.gates


@pytest.mark.parametrize(
    ("given", "built"),
    [
        ({}, ["SectorEngine"]),
        ({"engine": "statevector"}, ["StatevectorEngine"]),
        ({"engine": "aer"}, ["AerEngine", "StatevectorEngine"]),  # the second checks the first
        ({"ansatz": "efficient_su2"}, ["StatevectorEngine"]),
    ],
)
def test_a_run_builds_its_engine_once(given, built, monkeypatch):
    made = []
    for kind in (SectorEngine, StatevectorEngine, AerEngine):

        def building(self, *arguments, kind=kind, plain=kind.__init__):
            made.append(kind.__name__)
            plain(self, *arguments)

        monkeypatch.setattr(kind, "__init__", building)
    spec = make_spec(load_molecule("h2"), max_iterations=2, **given)
    problem = build_problem(spec, Stages())
    hamiltonian = qubit_hamiltonian(problem, spec.mapper, Stages())
    minimize(spec, problem, hamiltonian, (), observe=lambda _: None, should_stop=lambda: False, stages=Stages())
    assert made == built
