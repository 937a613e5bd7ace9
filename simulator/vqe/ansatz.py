"""What a run builds once before it searches: the ansatz' circuit, the engine that evaluates it, and the start."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from simulator.chemistry.problem import Problem
from simulator.chemistry.references import Reference
from simulator.engines.base import Engine
from simulator.operators.circuits import Gates, given_gates, library_gates, uccsd_gates
from simulator.operators.excitations import ExcitationSet, n_excitations, uccsd
from simulator.operators.hamiltonian import Mapping, QubitHamiltonian
from simulator.vqe.initial_point import MOVABLE_POINTS, initial_parameters, mp2_parameters, natural_steps, perturbed
from simulator.vqe.spec import MAX_PARAMETERS, RunSpec, check_parameters

SAME_IRREP = 0.5
"""Share of the exact state in the Hartree-Fock irrep from which on screening leaves the exact state within reach."""

MAX_TO_ONE_PARAMETER = 64
"""More excitations than ever are behind one parameter: D2h's irreps and spin ties leave a sixteenth. An ansatz with more than this
times the allowed parameters is refused by their count, before they are made."""


class Screening(StrEnum):
    """Whether UCCSD leaves out the excitations that are not totally symmetric, and why it does not.

    With screening the state keeps the Hartree-Fock determinant's irrep, which must be the exact state's.
    """

    ON = "on"
    UNVERIFIED = "on, without an exact state to compare irreps with"
    NO_SYMMETRY = "off: the SCF converged without symmetry only"
    OTHER_IRREP = "off: HF and FCI irreps differ"

    @property
    def is_on(self) -> bool:
        return self in (Screening.ON, Screening.UNVERIFIED)


def choose_screening(spec: RunSpec, problem: Problem, references: tuple[Reference, ...]) -> Screening | None:
    """Whether the symmetry of the orbitals chooses the excitations; None for an ansatz that has none."""
    if spec.ansatz != "uccsd":
        return None
    if problem.orbsym is None:
        return Screening.NO_SYMMETRY
    weight = next((r.hf_irrep_weight for r in references if r.hf_irrep_weight is not None), None)
    if weight is not None:
        return Screening.ON if weight >= SAME_IRREP else Screening.OTHER_IRREP
    return Screening.ON if problem.group == "C1" else Screening.UNVERIFIED


def screening_note(screening: Screening | None, start_moved: bool) -> str | None:
    """What a result says about its screening; None where all is as usual."""
    if screening is None or screening is Screening.ON:
        return None
    moved = ", start perturbed" if screening is Screening.OTHER_IRREP and start_moved else ""
    return f"symmetry screening {screening}{moved}"


def choose_excitations(spec: RunSpec, problem: Problem, screening: Screening | None) -> ExcitationSet | None:
    """UCCSD's excitations; None for an ansatz that has none.

    Raises:
        InputError: they have more parameters than are allowed.
    """
    if screening is None:
        return None
    unscreened = n_excitations(problem.norb, problem.nelec)
    if unscreened > MAX_TO_ONE_PARAMETER * MAX_PARAMETERS:
        check_parameters(unscreened, spec)
    found = uccsd(
        problem.norb, problem.nelec, orbsym=problem.orbsym if screening.is_on else None,
        spin_tied=problem.is_closed_shell, reps=spec.reps,
    )  # fmt: skip
    check_parameters(found.n_parameters, spec)
    return found


def ansatz_gates(spec: RunSpec, excitations: ExcitationSet | None, mapping: Mapping) -> Gates:
    """The circuit: UCCSD's where there are excitations, else the given one or the one of Qiskit's library that the ansatz names.

    Raises:
        InputError: it has more parameters than are allowed.
    """
    if excitations is not None:
        return uccsd_gates(excitations, mapping)
    if spec.circuit is not None:
        return given_gates(spec.circuit)
    gates = library_gates(spec.ansatz, spec.reps, mapping)
    check_parameters(gates.n_parameters, spec)
    return gates


@dataclass(frozen=True)
class Ansatz:
    """A specification's ansatz for one problem, on its engine, and the point at which the search starts."""

    problem: Problem
    hamiltonian: QubitHamiltonian
    mapping: Mapping
    screening: Screening | None  # None unless the ansatz is UCCSD
    excitations: ExcitationSet | None  # None unless the ansatz is UCCSD
    gates: Gates | None  # None with the sector engine, which rotates determinants and needs no circuit
    engine: Engine
    start: np.ndarray  # radian, shape: (n_parameters,)
    steps: np.ndarray  # the search's units, radian, shape: (n_parameters,)
    notes: tuple[str, ...]  # what the result should say about all this

    @property
    def n_excitations(self) -> int | None:
        return None if self.excitations is None else len(self.excitations.excitations)

    def circuit(self) -> Gates:
        """The gates, made now where the engine had no use for them."""
        if self.gates is not None:
            return self.gates
        assert self.excitations is not None  # the sector engine is for UCCSD
        return uccsd_gates(self.excitations, self.mapping)


def build_ansatz(
    spec: RunSpec, problem: Problem, hamiltonian: QubitHamiltonian, references: tuple[Reference, ...]
) -> Ansatz:
    """Build what `spec` asks for.

    Args:
        spec: the run's specification.
        problem: the active space's integrals.
        hamiltonian: on qubits, with the mapping of `spec.mapper`.
        references: the exact one decides whether symmetry screening is safe.

    Raises:
        InputError: what was asked does not fit (memory, number of parameters, initial vector, no GPU).
    """
    mapping = Mapping(spec.mapper, problem.norb, problem.nelec)
    screening = choose_screening(spec, problem, references)
    excitations = choose_excitations(spec, problem, screening)
    gates = None if spec.engine == "sector" else ansatz_gates(spec, excitations, mapping)
    engine = (
        _sector_engine(problem, excitations) if gates is None else _circuit_engine(spec, gates, hamiltonian, mapping)
    )
    hf_point = np.zeros(engine.n_parameters) if gates is None else gates.hf_parameters
    mp2_point = None
    if spec.initial_point == "mp2" and excitations is not None:
        mp2_point = mp2_parameters(problem, excitations)
    start = initial_parameters(spec, engine.labels, hf_point, mp2_point)
    # A start of the Hartree-Fock irrep has no gradient out of it: without screening, it has to be pushed out.
    moved = screening is not None and not screening.is_on and spec.initial_point in MOVABLE_POINTS
    if moved:
        start = perturbed(start, spec.seed)
    steps = np.ones(engine.n_parameters) if excitations is None else natural_steps(problem, excitations)
    note = screening_note(screening, moved)
    notes = () if note is None else (note,)
    return Ansatz(problem, hamiltonian, mapping, screening, excitations, gates, engine, start, steps, notes)


def _sector_engine(problem: Problem, excitations: ExcitationSet | None) -> Engine:
    from simulator.engines.sector import SectorEngine

    assert excitations is not None  # a specification of the sector engine with another ansatz is refused
    return SectorEngine(problem, excitations)


def _circuit_engine(spec: RunSpec, gates: Gates, hamiltonian: QubitHamiltonian, mapping: Mapping) -> Engine:
    if spec.engine == "statevector":
        from simulator.engines.statevector import StatevectorEngine

        return StatevectorEngine(gates, hamiltonian, mapping)
    from simulator.engines.aer import AerEngine

    return AerEngine(spec, gates, hamiltonian, mapping)
