"""VQE on a molecule as a task: which steps a run takes and which events tell of them."""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from simulator.checkpoint import Checkpoint
from simulator.events.records import Event, Iteration, Run, now_micros
from simulator.settings import parse_recording
from simulator.tasks.base import Ended, TaskRun
from simulator.tasks.vqe.problems import Prepared, SharedProblems
from simulator.tasks.vqe.result import Reached, compared_with, error_to, result_event
from simulator.tasks.vqe.summary import exit_code, summary_record
from simulator.versions import versions
from simulator.vqe.records import molecule_record, spec_record
from simulator.vqe.spec import RunSpec

if TYPE_CHECKING:
    from simulator.vqe.search import IterationRecord


@dataclass(frozen=True)
class VqeTask:
    """A VQE specification as something that can be asked for."""

    spec: RunSpec
    kind: ClassVar[str] = "vqe"
    result_stream: ClassVar[str] = "vqe_result"
    keeps_in: ClassVar[frozenset[str]] = frozenset({"optimization"})

    @classmethod
    def from_json(cls, text: str) -> "VqeTask":
        """The task of a specification's canonical JSON.

        Raises:
            InputError: the text is not that of a specification.
        """
        return cls(RunSpec.from_json(text))

    def canonical_json(self) -> str:
        """The specification as canonical JSON (RFC 8785)."""
        return self.spec.canonical_json()

    @property
    def spec_id(self) -> str:
        return self.spec.spec_id

    @property
    def device(self) -> str:
        return self.spec.device

    @property
    def title(self) -> str:
        """The molecule's formula."""
        return self.spec.molecule.formula

    def check_size(self) -> None:
        """Refuse an active space or given integrals that would not fit; of all others the basis decides, when a run loads it.

        Raises:
            InputError: more qubits than masks hold, or more memory than there is.
        """
        from simulator.engines.limits import check_run

        spec = self.spec
        if spec.active_orbitals is not None and spec.active_electrons is not None:
            unpaired = spec.multiplicity - 1
            n_alpha = (spec.active_electrons + unpaired) // 2
            check_run(spec, spec.active_orbitals, (n_alpha, spec.active_electrons - n_alpha))

    def execution(self, run: TaskRun) -> "VqeExecution":
        """The task as one run of it."""
        return VqeExecution(self.spec, run)

    @staticmethod
    def summary(result: Any) -> dict[str, Any]:
        """The run as `--json` prints it; energies in hartree."""
        return summary_record(result)

    @staticmethod
    def exit_code(result: Any) -> int:
        """0 done; 1 failed, unphysical or not converged; 130 interrupted."""
        return exit_code(result)


class VqeExecution:
    """One VQE run: it keeps what it has reached, so that a failed or interrupted one tells it."""

    def __init__(self, spec: RunSpec, run: TaskRun) -> None:
        self.spec, self.run = spec, run
        self._shared = SharedProblems.of(run.memory)
        self.reached = Reached()

    def began(self) -> Event:
        """The `vqe_run` event."""
        run, spec = self.run, self.spec
        return Run(
            run_id=run.run_id,
            recorded_at=now_micros(),
            spec_id=spec.spec_id,
            molecule_id=spec.molecule_id,
            problem_id=spec.problem_id,
            sweep_id=run.sweep_id,
            attempt=run.attempt,
            molecule_name=run.name,
            molecule=molecule_record(spec.molecule),
            spec=spec_record(spec),
            spec_json=spec.canonical_json(),
            host=socket.gethostname(),
            process_id=os.getpid(),
            versions=versions(),
            resumed_from=None if run.resumed is None else run.resumed.run_id,
        )

    def execute(self) -> bool:
        """Build the problem, send its Hamiltonian, and look for the lowest energy."""
        from simulator.vqe.loop import minimize

        run = self.run
        with run.may_be_left():
            self.reached.prepared = prepared = self._shared.prepare(self.spec, run.stages, run.tell_stage)
        self.reached.chunks = self._shared.send_hamiltonian(self.spec, prepared.hamiltonian, run.emit)
        run.tell_stage("optimization")
        solution = self.reached.solution = minimize(
            self.spec, prepared.problem, prepared.hamiltonian, prepared.references, observe=self._observer(prepared),
            should_stop=run.stop_requested, stages=run.stages, resumed=run.resumed,
        )  # fmt: skip
        return not solution.interrupted

    def _observer(self, prepared: Prepared) -> "Callable[[IterationRecord], None]":
        _, reference = compared_with(prepared.references)
        every = parse_recording(self.run.settings.record_parameters)
        before = 0 if self.run.resumed is None else self.run.resumed.iteration
        exact = self.spec.shots is None
        best = float("inf")

        def observe(record: "IterationRecord") -> None:
            nonlocal best
            parameters = record.parameters.tolist()
            reached = self.reached
            if reached.initial is None:
                reached.initial = parameters
            reached.last, reached.iterations = record, reached.iterations + 1
            event = Iteration(
                run_id=self.run.run_id, recorded_at=now_micros(), iteration=record.iteration, energy=record.energy,
                error_mha=error_to(record.energy, reference)[0],
                standard_error=record.standard_error, gradient_norm=record.gradient_norm,
                evaluations=record.evaluations, gradient_evaluations=record.gradient_evaluations,
                elapsed_seconds=record.elapsed_seconds,
                parameters=parameters if every and record.iteration % every == 0 else None,
            )  # fmt: skip
            self.run.emit(event)
            if self.run.observer is not None:
                self.run.observer.iteration(event)
            state = record.optimizer_state
            # An optimizer with a state goes on where it is. The others begin anew, and do that best from the lowest exact
            # energy; of samples the lowest is only the luckiest.
            if self.run.keep is not None and (state is not None or not exact or record.energy < best):
                best = record.energy
                self.run.keep(
                    Checkpoint(self.run.run_id, before + record.iteration, record.energy, tuple(parameters), state)
                )

        return observe

    def ended(self, how: Ended) -> Event:
        """The `vqe_result` event."""
        return result_event(self.spec, self.run, self.reached, how)
