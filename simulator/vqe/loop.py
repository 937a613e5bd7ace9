"""The VQE loop: an ansatz on an engine, an optimizer over it, every iteration told, the end checked on Aer."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.chemistry.integrals import Problem
from simulator.chemistry.references import Reference
from simulator.engines.base import Engine
from simulator.engines.limits import MAX_AER_CHECK_QUBITS
from simulator.errors import Interrupted, RunFailed
from simulator.operators.circuits import Gates, library_gates, uccsd_gates
from simulator.operators.excitations import ExcitationSet, n_excitations, uccsd
from simulator.operators.hamiltonian import Mapping, QubitHamiltonian
from simulator.stages import Stages
from simulator.trust import CHEMICAL_ACCURACY, ELECTRON_TOLERANCE, ENERGY_TOLERANCE, ENGINE_TOLERANCE, SPIN_TOLERANCE
from simulator.vqe.initial_point import initial_parameters, perturbed
from simulator.vqe.optimizers import OPTIMIZERS, Minimum, Objective, check_options, run_optimizer
from simulator.vqe.spec import check_parameters

if TYPE_CHECKING:
    from simulator.vqe.spec import RunSpec

STATIONARY = 1e-7
"""Gradient norm, hartree per radian, below which a start is a stationary point, which no gradient leaves."""

HARTREE_FOCK_TOLERANCE = 1e-5
"""Hartree: a run that ends this close to the Hartree-Fock energy has found no correlation."""

_PROBE_ITERATIONS = 20

SAME_IRREP = 0.5
"""Share of the exact state in the Hartree-Fock irrep from which on symmetry screening keeps the exact state in reach."""

_REMEMBERED_POINTS = 256


@dataclass(frozen=True)
class IterationRecord:
    """One optimizer iteration; iteration 0 is the start."""

    iteration: int
    energy: float  # total, hartree
    standard_error: float | None  # hartree; None where the energy is exact
    gradient_norm: float | None  # hartree per radian; None for optimizers without gradients
    evaluations: int  # of the energy, so far
    gradient_evaluations: int  # so far
    elapsed_seconds: float  # since the optimization began
    parameters: np.ndarray  # radian, shape: (n_parameters,)
    kind: str = "step"  # start or step


@dataclass(frozen=True)
class Solution:
    """What an optimization found, and whether its state is believable."""

    energy: float  # total, hartree
    standard_error: float | None  # hartree, shots only
    parameters: np.ndarray  # radian, shape: (n_parameters,)
    initial_parameters: np.ndarray  # radian, shape: (n_parameters,)
    labels: tuple[str, ...]
    converged: bool
    reason: str
    iterations: int
    evaluations: int
    gradient_evaluations: int
    n_parameters: int
    n_excitations: int | None
    n_qubits: int
    circuit_depth: int | None
    two_qubit_gates: int | None
    notes: tuple[str, ...]
    aer_energy: float | None  # total, hartree, noiseless, at the final parameters
    aer_reason: str | None  # why there is none
    electron_number: float | None  # over the active space
    s_squared: float | None
    physical: bool | None
    physical_reason: str | None  # what is wrong, or why it was not checked
    interrupted: bool = False  # the run was asked to stop: the best point so far, or a minimum without its checks


class _Stop(Exception):
    """Control flow: takes the optimizer's stack down when the run was asked to stop."""


def minimize(
    spec: "RunSpec",
    problem: Problem,
    hamiltonian: QubitHamiltonian,
    references: tuple[Reference, ...],
    *,
    observe: Callable[[IterationRecord], None],
    should_stop: Callable[[], bool],
    stages: Stages,
) -> Solution:
    """Run the VQE that `spec` describes.

    Args:
        spec: the run's specification.
        problem: the active space's integrals.
        hamiltonian: on qubits, with the mapping of `spec.mapper`.
        references: the exact one decides whether symmetry screening is safe, the sector's minimum whether the energy is.
        observe: called once an iteration, the start included.
        should_stop: asked at every evaluation; True ends the run with the best point so far, interrupted and unchecked.
        stages: takes the times of ansatz, optimization and verification.

    Raises:
        InputError: what was asked does not fit (memory, number of parameters, initial vector, no GPU).
        RunFailed: the energy is not a number, or the optimizer broke down.
        Interrupted: asked to stop before there was an energy.
    """
    with stages("ansatz"):
        mapping = Mapping(spec.mapper, problem.norb, problem.nelec)
        excitations, notes = _excitations(spec, problem, references)
        gates = _gates(spec, problem, mapping, excitations)
        engine = _engine(spec, problem, hamiltonian, mapping, excitations, gates)
        hf_point = np.zeros(engine.n_parameters) if gates is None else gates.hf_parameters
        mp2_point = None if excitations is None or spec.initial_point != "mp2" else mp2_parameters(problem, excitations)
        start = initial_parameters(spec, engine.labels, hf_point, mp2_point)
        if any(note.startswith("symmetry screening off") for note in notes) and spec.initial_point in (
            "mp2",
            "hf",
            "zeros",
        ):
            start = perturbed(start, spec.seed)
    with stages("optimization"):
        search = _Search(spec, engine, observe, should_stop)
        minimum, start = search.run(start, notes)
        energy, standard_error = search.final(minimum, notes)
        minimum = _told_if_stuck(spec, problem, references, search, minimum, start, energy, notes)
    interrupted = search.stopped
    verdict = _unchecked()
    if not interrupted:
        try:
            with stages("verification"):
                verdict = _verify(
                    spec, problem, hamiltonian, references, mapping, excitations, gates, engine, minimum.parameters, energy
                )  # fmt: skip
        except KeyboardInterrupt:  # the minimum is found, and is kept without the checks
            interrupted = True
    return Solution(
        energy=energy, standard_error=standard_error, parameters=minimum.parameters, initial_parameters=start,
        labels=engine.labels, converged=minimum.converged, reason=minimum.reason, iterations=search.iterations,
        evaluations=search.evaluations, gradient_evaluations=search.gradient_evaluations,
        n_parameters=engine.n_parameters, n_excitations=None if excitations is None else len(excitations.excitations),
        n_qubits=hamiltonian.n_qubits, notes=tuple(notes), interrupted=interrupted, **verdict,
    )  # fmt: skip


def _excitations(
    spec: "RunSpec", problem: Problem, references: tuple[Reference, ...]
) -> tuple[ExcitationSet | None, list[str]]:
    """UCCSD's excitations (None for other ansatze), and what the result should say about them."""
    if spec.ansatz != "uccsd":
        return None, []
    notes: list[str] = []
    weight = next((r.hf_irrep_weight for r in references if r.hf_irrep_weight is not None), None)
    orbsym = problem.orbsym
    if orbsym is None:
        notes.append("symmetry screening off: the SCF converged without symmetry only")
    elif weight is not None and weight < SAME_IRREP:
        orbsym = None
        how = "" if spec.initial_point in ("random", "vector") else ", start perturbed"
        notes.append(f"symmetry screening off: HF and FCI irreps differ{how}")
    elif weight is None and problem.group != "C1":
        notes.append("symmetry screening on, without an exact state to compare irreps with")
    bound = 64 * 5_000  # symmetry in D2h and spin ties leave a sixteenth at best; beyond this, counting is enough
    if n_excitations(problem.norb, problem.nelec) > bound:
        check_parameters(n_excitations(problem.norb, problem.nelec), spec)
    found = uccsd(problem.norb, problem.nelec, orbsym=orbsym, spin_tied=problem.is_closed_shell, reps=spec.reps)
    check_parameters(found.n_parameters, spec)
    return found, notes


def _gates(spec: "RunSpec", problem: Problem, mapping: Mapping, excitations: ExcitationSet | None) -> Gates | None:
    """The circuit's gates, where something will run them."""
    if excitations is None:
        gates = library_gates(spec.ansatz, spec.reps, mapping)
        check_parameters(gates.n_parameters, spec)
        return gates
    if spec.engine == "sector":
        return None  # the check makes them once the optimization is done
    return uccsd_gates(excitations, mapping)


def _engine(
    spec: "RunSpec", problem: Problem, hamiltonian: QubitHamiltonian, mapping: Mapping,
    excitations: ExcitationSet | None, gates: Gates | None,
) -> Engine:  # fmt: skip
    if spec.engine == "sector":
        from simulator.engines.sector import SectorEngine

        assert excitations is not None  # check_engine: sector is for uccsd
        return SectorEngine(problem, excitations)
    assert gates is not None
    if spec.engine == "statevector":
        from simulator.engines.statevector import StatevectorEngine

        return StatevectorEngine(gates, hamiltonian, mapping)
    from simulator.engines.aer import AerEngine

    return AerEngine(spec, gates, hamiltonian, mapping)


def mp2_parameters(problem: Problem, excitations: ExcitationSet) -> np.ndarray:
    """UCCSD's second-order amplitudes, shape (n_parameters,), radian."""
    from simulator.engines.sector import SectorEngine

    return SectorEngine(problem, excitations).mp2_parameters()


def _told_if_stuck(
    spec: "RunSpec", problem: Problem, references: tuple[Reference, ...], search: "_Search", minimum: Minimum,
    start: np.ndarray, energy: float, notes: list[str],
) -> Minimum:  # fmt: skip
    """The minimum, not converged and with a note where the run did not leave Hartree-Fock or a stationary start.

    All gradients vanish on a saddle point as on a minimum, and hardware-efficient circuits have a minimum of their own at the
    Hartree-Fock determinant: the optimizer is content with both.
    """
    if minimum.reason == "interrupted" or _sampled(spec):
        return minimum
    exact = next(((r.name, r.energy) for r in references if r.name in ("FCI", "CASCI") and r.energy is not None), None)
    above = f", {1e3 * (energy - exact[1]):.3f} mHa above {exact[0]}" if exact else ""
    elsewhere = "another seed" if spec.initial_point == "random" else "initial point random"
    if not len(start):
        if exact is not None and energy - exact[1] > HARTREE_FOCK_TOLERANCE:
            notes.append(
                f"ansatz {spec.ansatz} has no parameters here, the energy is that of its fixed state{above}:"
                " try a larger active space or another ansatz"
            )
        return minimum
    if abs(energy - problem.hf_energy) < HARTREE_FOCK_TOLERANCE:
        if exact is not None and energy - exact[1] < HARTREE_FOCK_TOLERANCE:
            return minimum  # there is nothing to be found
        notes.append(
            f"stuck: the run ended at the Hartree-Fock energy{above}: try {elsewhere}, another ansatz or another optimizer"
        )
        return replace(minimum, converged=False, reason=f"stuck at the Hartree-Fock energy ({minimum.reason})")
    if np.allclose(minimum.parameters, start, rtol=0, atol=1e-9) and minimum.converged:
        if exact is not None and energy - exact[1] < CHEMICAL_ACCURACY:
            return minimum
        fall = search.fall_near(minimum.parameters)
        if fall is not None and fall > ENERGY_TOLERANCE:
            notes.append(
                f"stuck: the run ended where it started, on a saddle point{above}; near it the energy falls by"
                f" {1e3 * fall:.3f} mHa: try {elsewhere}"
            )
            return replace(minimum, converged=False, reason=f"stuck at its start, a saddle point ({minimum.reason})")
        notes.append(
            f"the run ended where it started, a stationary point{above}: try {elsewhere} if it is not the minimum you meant"
        )
    return minimum


class _Search:
    """The optimizer's view of an engine: counts, remembers the last points, tells iterations, stops when asked."""

    def __init__(
        self,
        spec: "RunSpec",
        engine: Engine,
        observe: Callable[[IterationRecord], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self.spec, self.engine, self.observe, self.should_stop = spec, engine, observe, should_stop
        self.evaluations = self.gradient_evaluations = self.iterations = 0
        self.exact = spec.shots is None
        self._points: OrderedDict[bytes, tuple[float, float | None, float | None]] = OrderedDict()
        self.stopped = False
        self._best: tuple[float, float | None, np.ndarray] | None = None
        self._began = time.perf_counter()

    def run(self, start: np.ndarray, notes: list[str]) -> tuple[Minimum, np.ndarray]:
        """The minimum, and the start (moved, with a note, where it was a stationary point that no gradient leaves).

        Raises:
            Interrupted: asked to stop before the first evaluation.
        """
        info = OPTIMIZERS[self.spec.optimizer]
        try:
            self._check_stop()
            if info.uses_gradient and self.exact and len(start):
                self.energy_and_gradient(start)
                norm = self._points[start.tobytes()][2]
                if norm is not None and norm < STATIONARY and self.spec.initial_point in ("mp2", "hf", "zeros"):
                    start = perturbed(start, self.spec.seed)
                    notes.append(f"start perturbed: initial point {self.spec.initial_point} is a stationary point")
            self._tell(start, "start")
            if not len(start):
                return Minimum(start, True, "converged: the ansatz has no parameters"), start
            objective = Objective(self.energy, self.energy_and_gradient, self._step)
            minimum = run_optimizer(
                self.spec.optimizer, self.spec.options, objective, start, max_iterations=self.spec.max_iterations,
                tolerance=self.spec.tolerance, seed=self.spec.seed,
            )  # fmt: skip
        except _Stop:
            if self._best is None:
                raise Interrupted("stopped before the first evaluation") from None
            self.stopped = True
            energy, error, best = self._best
            self._remember(best, energy, error, None)  # it may be long forgotten, and an evaluation may take minutes
            return Minimum(best, False, "interrupted"), start
        except (ArithmeticError, ValueError, np.linalg.LinAlgError) as error:
            raise RunFailed(
                f"optimizer {self.spec.optimizer} broke down after {self.iterations} iterations: {error}"
            ) from error
        return minimum, start

    def energy(self, x: np.ndarray) -> float:
        self._check_stop()
        x = np.asarray(x, dtype=float)
        energy, error = self.engine.energy(x)
        self.evaluations += 1
        self._remember(x, energy, error, None)
        return energy

    def energy_and_gradient(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        self._check_stop()
        x = np.asarray(x, dtype=float)
        energy, gradient = self.engine.energy_and_gradient(x)
        self.evaluations += 1
        self.gradient_evaluations += 1
        norm = float(np.linalg.norm(gradient))
        if not np.isfinite(norm):
            raise RunFailed(f"the gradient is not a number after {self.evaluations} evaluations")
        self._remember(x, energy, getattr(self.engine, "last_standard_error", None), norm)
        return energy, gradient

    def at(self, x: np.ndarray) -> tuple[float, float | None]:
        """Energy (hartree) and standard error at a point, remembered or evaluated."""
        if x.tobytes() not in self._points:
            energy, error = self.engine.energy(x)
            self.evaluations += 1
            self._remember(x, energy, error, None)
        return self._points[x.tobytes()][:2]

    def final(self, minimum: Minimum, notes: list[str]) -> tuple[float, float | None]:
        """Energy (hartree) and standard error of the result.

        With shots the point is measured again: of many samples the optimizer took the luckiest, which for H2 at 1,024 shots was
        11 mHa too low on average.
        """
        if self.exact or minimum.reason == "interrupted":
            if not self.exact:
                notes.append("interrupted: the energy is the last iteration's sample, it was not measured again")
            return self.at(minimum.parameters)
        energy, error = self.engine.energy(minimum.parameters)
        self.evaluations += 1
        if not np.isfinite(energy):
            raise RunFailed(f"the energy is not a number after {self.evaluations} evaluations")
        return energy, error

    def fall_near(self, x: np.ndarray) -> float | None:
        """By how many hartree a short descent from a point moved a little ends lower; None where that cannot be told."""
        if not OPTIMIZERS[self.spec.optimizer].uses_gradient:
            return None
        objective = Objective(self.energy, self.energy_and_gradient, lambda _: self._check_stop())
        options = check_options("l-bfgs-b", {})
        try:
            end = run_optimizer(
                "l-bfgs-b", options, objective, perturbed(x, self.spec.seed), max_iterations=_PROBE_ITERATIONS,
                tolerance=self.spec.tolerance, seed=self.spec.seed,
            )  # fmt: skip
            return self.at(x)[0] - self.at(end.parameters)[0]
        except _Stop:
            return None

    def _step(self, x: np.ndarray) -> None:
        self.iterations += 1
        self._tell(x, "step")
        self._check_stop()

    def _tell(self, x: np.ndarray, kind: str) -> None:
        energy, error = self.at(x)
        if self._best is None or not self.exact or energy < self._best[0]:
            self._best = (energy, error, x.copy())
        self.observe(
            IterationRecord(
                self.iterations,
                energy,
                error,
                self._points[x.tobytes()][2],
                self.evaluations,
                self.gradient_evaluations,
                time.perf_counter() - self._began,
                x.copy(),
                kind,
            )
        )

    def _remember(self, x: np.ndarray, energy: float, error: float | None, gradient_norm: float | None) -> None:
        if not np.isfinite(energy):
            raise RunFailed(f"the energy is not a number after {self.evaluations} evaluations")
        self._points[x.tobytes()] = (energy, error, gradient_norm)
        if len(self._points) > _REMEMBERED_POINTS:
            self._points.popitem(last=False)

    def _check_stop(self) -> None:
        if self.should_stop():
            raise _Stop


def _unchecked() -> dict[str, Any]:
    """What an interrupted run says of its state: nothing was checked."""
    found: dict[str, Any] = dict.fromkeys(
        ("aer_energy", "circuit_depth", "two_qubit_gates", "electron_number", "s_squared", "physical")
    )
    return found | {"aer_reason": "interrupted", "physical_reason": "interrupted before the checks"}


def _verify(
    spec: "RunSpec", problem: Problem, hamiltonian: QubitHamiltonian, references: tuple[Reference, ...], mapping: Mapping,
    excitations: ExcitationSet | None, gates: Gates | None, engine: Engine, parameters: np.ndarray, energy: float,
) -> dict[str, Any]:  # fmt: skip
    """The final state's electrons, spin and energy on Aer, and what they say about `physical`."""
    found: dict[str, Any] = dict.fromkeys(("aer_energy", "aer_reason", "circuit_depth", "two_qubit_gates"))
    wrong: list[str] = []
    unchecked: list[str] = []
    if hamiltonian.n_qubits > MAX_AER_CHECK_QUBITS:
        found["aer_reason"] = f"{hamiltonian.n_qubits} qubits, checked on Aer up to {MAX_AER_CHECK_QUBITS}"
        unchecked.append(str(found["aer_reason"]))
        n, spin = engine.n_electrons_and_spin(parameters)
    else:
        from simulator.engines.aer import evaluate

        if gates is None:
            assert excitations is not None
            gates = uccsd_gates(excitations, mapping)
        check = evaluate(gates, parameters, hamiltonian, mapping)
        found |= {"aer_energy": check.energy, "circuit_depth": check.depth, "two_qubit_gates": check.two_qubit_gates}
        if engine.name == "sector":
            n, spin = engine.n_electrons_and_spin(parameters)
        else:
            n, spin = check.n_electrons, check.s_squared
        ours = energy
        if engine.name == "aer":
            from simulator.engines.statevector import StatevectorEngine

            ours = StatevectorEngine(gates, hamiltonian, mapping).energy(parameters)[0]
        if abs(ours - check.energy) > ENGINE_TOLERANCE:
            wrong.append(f"our engine and Aer differ by {abs(ours - check.energy):.1e} hartree")
        exact_method = engine.name == "aer" and not _sampled(spec)
        if exact_method and abs(energy - check.energy) > ENGINE_TOLERANCE:
            wrong.append(f"Aer by method {spec.aer_method} differs by {abs(energy - check.energy):.1e} hartree")
    found |= {"electron_number": n, "s_squared": spin}
    if abs(n - sum(problem.nelec)) > ELECTRON_TOLERANCE:
        wrong.append(f"{n:.4f} electrons instead of {sum(problem.nelec)}")
    if abs(spin - problem.spin_squared) > SPIN_TOLERANCE:
        wrong.append(f"<S^2> is {spin:.4f} instead of {problem.spin_squared:g}")
    exact = next((r for r in references if r.name == "sector_minimum"), None)
    sampled = _sampled(spec)
    if sampled:
        unchecked.append(f"{' and '.join(sampled)}: the energy is an estimate")
    elif exact is None or exact.energy is None:
        unchecked.append("no exact energy: " + (exact.reason or "" if exact else "not computed"))
    elif energy < exact.energy - ENERGY_TOLERANCE:
        wrong.append(f"energy {exact.energy - energy:.1e} hartree below the exact energy of its sector")
    of_spin = next((r for r in references if r.name in ("FCI", "CASCI") and r.energy is not None), None)
    if (
        not sampled
        and of_spin is not None
        and of_spin.energy is not None
        and energy < of_spin.energy - ENERGY_TOLERANCE
    ):
        wrong.append(
            f"energy {of_spin.energy - energy:.1e} hartree below {of_spin.name}, the exact energy of its spin: the reference is"
            f" wrong or other spins are mixed in (<S^2> {spin:.4f})"
        )
    physical = None if sampled else False if wrong else None if unchecked else True
    found |= {"physical": physical, "physical_reason": "; ".join([] if physical else wrong + unchecked) or None}
    return found


def _sampled(spec: "RunSpec") -> list[str]:
    """What makes the run's energies estimates."""
    found = [name for name, value in (("shots", spec.shots), ("noise", spec.noise)) if value is not None]
    return found + (["single precision"] if spec.precision == "single" else [])
