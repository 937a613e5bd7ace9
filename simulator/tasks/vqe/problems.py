"""What the VQE runs of one session share: integrals, references and qubit Hamiltonians of the last problems."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from simulator.events.records import Event, hamiltonian_events
from simulator.stages import Stages
from simulator.vqe.spec import RunSpec

if TYPE_CHECKING:
    from simulator.chemistry.problem import Problem
    from simulator.chemistry.references import Reference
    from simulator.operators.hamiltonian import QubitHamiltonian

_CACHED_PROBLEMS = 4


@dataclass(frozen=True)
class Prepared:
    """What the runs of one problem share."""

    problem: "Problem"
    references: "tuple[Reference, ...]"
    hamiltonian: "QubitHamiltonian"


@dataclass
class SharedProblems:
    """The last problems of a session, as repeats over seeds or optimizers share them, and which operators were sent."""

    _problems: "OrderedDict[str, Prepared]" = field(default_factory=OrderedDict)
    _sent: dict[str, int] = field(default_factory=dict)  # records that hold an operator, by hamiltonian_id

    @classmethod
    def of(cls, memory: dict[str, Any]) -> "SharedProblems":
        """Those of a session, whose memory of VQE this is."""
        found: SharedProblems = memory.setdefault("problems", cls())
        return found

    def known(self, spec: RunSpec) -> Prepared | None:
        """What a run has built for the specification's problem; None where it came to nothing or is forgotten."""
        return self._problems.get(spec.problem_id)

    def prepare(self, spec: RunSpec, stages: Stages, tell: Callable[[str], None]) -> Prepared:
        """Integrals, references and Hamiltonian of a specification, built where they are not known.

        Raises:
            InputError: it cannot be had, e.g. an unknown basis, or does not fit in memory.
            RunFailed: no SCF came near a stationary point.
        """
        if (known := self.known(spec)) is not None:
            self._problems.move_to_end(spec.problem_id)
            return known
        from simulator.chemistry.integrals import build_problem
        from simulator.chemistry.references import compute_references
        from simulator.engines.limits import check_run
        from simulator.operators.hamiltonian import qubit_hamiltonian

        tell("integrals")
        problem = build_problem(spec, stages, partial(check_run, spec))
        tell("references")
        references = compute_references(problem, spec, stages)
        tell("mapping")
        prepared = Prepared(problem, references, qubit_hamiltonian(problem, spec.mapper, stages))
        self._problems[spec.problem_id] = prepared
        if len(self._problems) > _CACHED_PROBLEMS:
            self._problems.popitem(last=False)
        return prepared

    def send_hamiltonian(self, spec: RunSpec, hamiltonian: "QubitHamiltonian", emit: Callable[[Event], None]) -> int:
        """Records that hold the operator; sent unless this session has sent them."""
        known = self._sent.get(hamiltonian.hamiltonian_id)
        if known is not None:
            return known
        events = hamiltonian_events(
            hamiltonian_id=hamiltonian.hamiltonian_id, problem_id=spec.problem_id, mapper=spec.mapper,
            n_qubits=hamiltonian.n_qubits, energy_offset=hamiltonian.energy_offset, labels=list(hamiltonian.labels),
            coefficients=hamiltonian.coefficients.tolist(),
        )  # fmt: skip
        for event in events:
            emit(event)
        self._sent[hamiltonian.hamiltonian_id] = len(events)
        return len(events)
