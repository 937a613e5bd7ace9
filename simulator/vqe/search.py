"""The search for the lowest energy: an optimizer over an engine, every iteration told, and whether it only got stuck."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from simulator.checkpoint import Checkpoint
from simulator.chemistry.references import Reference, exact_energy
from simulator.engines.base import Engine
from simulator.errors import Interrupted, RunFailed
from simulator.trust import CHEMICAL_ACCURACY, ENERGY_TOLERANCE
from simulator.vqe.initial_point import MOVABLE_POINTS, perturbed
from simulator.vqe.optimizers import OPTIMIZERS, Minimum, Objective, check_options, run_optimizer
from simulator.vqe.spec import RunSpec

STATIONARY = 1e-7
"""Gradient norm, hartree per radian, below which a start is a stationary point, which no gradient leaves."""

HARTREE_FOCK_TOLERANCE = 1e-5
"""Hartree: a run that ends this close to the Hartree-Fock energy has found no correlation."""

PROBE_ITERATIONS = 20
"""Iterations of the descent that tells a saddle point from a minimum."""

REMEMBERED_POINTS = 256
"""Last points whose energies are kept, so that telling an iteration does not evaluate its point again."""


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
    optimizer_state: dict[str, Any] | None = (
        None  # JSON values from which the optimizer goes on; None: it has no state of its own
    )


@dataclass(frozen=True)
class Optimum:
    """Where a search began and ended."""

    start: np.ndarray  # radian, shape: (n_parameters,)
    parameters: np.ndarray  # radian, shape: (n_parameters,)
    energy: float  # total, hartree
    standard_error: float | None  # hartree, shots only
    converged: bool
    reason: str  # why the search ended
    notes: tuple[str, ...]  # what the result should say about the search
    interrupted: bool = False  # asked to stop: this is the best point so far


@dataclass(frozen=True)
class _Evaluated:
    """What is known of a point."""

    energy: float  # total, hartree
    standard_error: float | None  # hartree
    gradient_norm: float | None  # hartree per radian


class _Stop(Exception):
    """Control flow: takes the optimizer's stack down when the run was asked to stop."""


class Search:
    """The optimizer's view of an engine: it counts, remembers the last points, tells iterations, and stops when asked.

    Args:
        spec: names the optimizer, its options and limits, the initial point and the seed.
        engine: evaluates energies and gradients.
        observe: called once an iteration, the start included.
        should_stop: asked at every evaluation; True ends the search with the best point so far.
        resumed: where an earlier search of this specification was; this one goes on from there.
        steps: units of the parameters in which the energy is nearly a sphere, radian, shape: (n_parameters,); None: all one.
    """

    def __init__(
        self,
        spec: RunSpec,
        engine: Engine,
        observe: Callable[[IterationRecord], None],
        should_stop: Callable[[], bool],
        resumed: Checkpoint | None = None,
        steps: np.ndarray | None = None,
    ) -> None:
        self._steps = np.ones(engine.n_parameters) if steps is None else steps
        self.resumed = resumed
        self.spec, self.engine, self.observe, self.should_stop = spec, engine, observe, should_stop
        self.evaluations = self.gradient_evaluations = self.iterations = 0
        self.exact = spec.shots is None
        self._points: OrderedDict[bytes, _Evaluated] = OrderedDict()
        self._best: tuple[np.ndarray, _Evaluated] | None = None
        self._began = time.perf_counter()

    def run(self, start: np.ndarray) -> Optimum:
        """Search from `start`, shape (n_parameters,), in radian.

        A start on a stationary point, which no gradient leaves, is perturbed; a note says so.

        Raises:
            Interrupted: asked to stop before the first evaluation.
            RunFailed: the energy is not a number, or the optimizer broke down.
        """
        notes: tuple[str, ...] = ()
        try:
            self._check_stop()
            if self.resumed is not None:
                start = self._resumed_start(len(start))
                notes = (f"resumed from run {self.resumed.run_id} at its iteration {self.resumed.iteration}",)
            elif self._is_stationary(start) and self.spec.initial_point in MOVABLE_POINTS:
                start = perturbed(start, self.spec.seed)
                notes = (f"start perturbed: initial point {self.spec.initial_point} is a stationary point",)
            self._tell(start, "start")
            minimum = self._optimized(start)
        except _Stop:
            if self._best is None:
                raise Interrupted("stopped before the first evaluation") from None
            # The best point is not evaluated again: that may take minutes, and who asked to stop would wait for it.
            best, known = self._best
            if not self.exact:
                notes += ("interrupted: the energy is the last iteration's sample, it was not measured again",)
            return Optimum(
                start, best, known.energy, known.standard_error, False, "interrupted", notes, interrupted=True
            )
        except (ArithmeticError, ValueError, np.linalg.LinAlgError) as error:
            raise RunFailed(
                f"optimizer {self.spec.optimizer} broke down after {self.iterations} iterations: {error}"
            ) from error
        energy, standard_error = self._measured(minimum.parameters)
        return Optimum(start, minimum.parameters, energy, standard_error, minimum.converged, minimum.reason, notes)

    def energy(self, x: np.ndarray) -> float:
        """Total energy in hartree at a point in radian, shape: (n_parameters,)."""
        self._check_stop()
        x = np.asarray(x, dtype=float)
        energy, error = self.engine.energy(x)
        self.evaluations += 1
        self._remember(x, _Evaluated(energy, error, None))
        return energy

    def energy_and_gradient(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """Total energy in hartree and its derivatives in hartree per radian, shape: (n_parameters,)."""
        self._check_stop()
        x = np.asarray(x, dtype=float)
        energy, gradient = self.engine.energy_and_gradient(x)
        self.evaluations += 1
        self.gradient_evaluations += 1
        norm = float(np.linalg.norm(gradient))
        if not np.isfinite(norm):
            raise RunFailed(f"the gradient is not a number after {self.evaluations} evaluations")
        self._remember(x, _Evaluated(energy, getattr(self.engine, "last_standard_error", None), norm))
        return energy, gradient

    def fall_near(self, x: np.ndarray) -> float | None:
        """By how many hartree a short descent from a point moved a little ends lower; None where that cannot be told."""
        if not OPTIMIZERS[self.spec.optimizer].uses_gradient:
            return None
        objective = Objective(self.energy, self.energy_and_gradient, self._only_check_stop)
        options = check_options("l-bfgs-b", {})
        try:
            end = run_optimizer(
                "l-bfgs-b", options, objective, perturbed(x, self.spec.seed), max_iterations=PROBE_ITERATIONS,
                tolerance=self.spec.tolerance, seed=self.spec.seed, steps=self._steps,
            )  # fmt: skip
            return self._at(x).energy - self._at(end.parameters).energy
        except _Stop:
            return None

    def _resumed_start(self, n_parameters: int) -> np.ndarray:
        """The checkpoint's point.

        Raises:
            RunFailed: it has another number of parameters: another release builds another ansatz.
        """
        assert self.resumed is not None
        point = np.array(self.resumed.parameters, dtype=float)
        if len(point) != n_parameters:
            raise RunFailed(
                f"the checkpoint of run {self.resumed.run_id} has {len(point)} parameters and the ansatz has {n_parameters}:"
                " it cannot be resumed"
            )
        return point

    def _is_stationary(self, x: np.ndarray) -> bool:
        """Whether a gradient that the optimizer relies on vanishes; sampled gradients never do."""
        if not (OPTIMIZERS[self.spec.optimizer].uses_gradient and self.exact and len(x)):
            return False
        return float(np.linalg.norm(self.energy_and_gradient(x)[1])) < STATIONARY

    def _optimized(self, start: np.ndarray) -> Minimum:
        if not len(start):
            return Minimum(start, True, "converged: the ansatz has no parameters")
        objective = Objective(self.energy, self.energy_and_gradient, self._step)
        done = 0 if self.resumed is None else self.resumed.iteration
        return run_optimizer(
            self.spec.optimizer, self.spec.options, objective, start, max_iterations=max(self.spec.max_iterations - done, 0),
            tolerance=self.spec.tolerance, seed=self.spec.seed, state=None if self.resumed is None else self.resumed.optimizer_state,
            steps=self._steps,
        )  # fmt: skip

    def _measured(self, x: np.ndarray) -> tuple[float, float | None]:
        """Energy (hartree) and standard error of the result.

        With shots the point is measured again: of many samples the optimizer took the luckiest, which for H2 at 1,024 shots was
        11 mHa too low on average.
        """
        if self.exact:
            known = self._at(x)
            return known.energy, known.standard_error
        energy, error = self.engine.energy(x)
        self.evaluations += 1
        self._check_energy(energy)
        return energy, error

    def _at(self, x: np.ndarray) -> _Evaluated:
        """What is known of a point, which is evaluated where it is not remembered."""
        if x.tobytes() not in self._points:
            energy, error = self.engine.energy(x)
            self.evaluations += 1
            self._remember(x, _Evaluated(energy, error, None))
        return self._points[x.tobytes()]

    def _step(self, x: np.ndarray, state: dict[str, Any] | None = None) -> None:
        self.iterations += 1
        self._tell(x, "step", state)
        self._check_stop()

    def _tell(self, x: np.ndarray, kind: str, state: dict[str, Any] | None = None) -> None:
        known = self._at(x)
        # Of exact energies the lowest is best. Of samples the lowest is the luckiest, so there the last is taken.
        if self._best is None or not self.exact or known.energy < self._best[1].energy:
            self._best = (x.copy(), known)
        self.observe(
            IterationRecord(
                self.iterations, known.energy, known.standard_error, known.gradient_norm, self.evaluations,
                self.gradient_evaluations, time.perf_counter() - self._began, x.copy(), kind, state,
            )
        )  # fmt: skip

    def _remember(self, x: np.ndarray, known: _Evaluated) -> None:
        self._check_energy(known.energy)
        self._points[x.tobytes()] = known
        if len(self._points) > REMEMBERED_POINTS:
            self._points.popitem(last=False)

    def _check_energy(self, energy: float) -> None:
        if not np.isfinite(energy):
            raise RunFailed(f"the energy is not a number after {self.evaluations} evaluations")

    def _only_check_stop(self, _x: np.ndarray, _state: dict[str, Any] | None) -> None:
        self._check_stop()

    def _check_stop(self) -> None:
        if self.should_stop():
            raise _Stop


def told_if_stuck(optimum: Optimum, search: Search, hf_energy: float, references: tuple[Reference, ...]) -> Optimum:
    """The optimum, not converged and with a note where the search did not leave Hartree-Fock or a stationary start.

    All gradients vanish on a saddle point as on a minimum, and hardware-efficient circuits have a minimum of their own at the
    Hartree-Fock determinant: the optimizer is content with both. Estimated energies are not judged.

    Args:
        optimum: where the search ended.
        search: looks for lower energies near a stationary start.
        hf_energy: total, hartree.
        references: with the exact energy, where there is one.
    """
    spec = search.spec
    if optimum.interrupted or spec.estimated_by:
        return optimum
    exact = exact_energy(references)
    error = None if exact is None else optimum.energy - exact[1]  # hartree
    above = "" if exact is None or error is None else f", {1e3 * error:.3f} mHa above {exact[0]}"
    elsewhere = "another seed" if spec.initial_point == "random" else "initial point random"
    if not len(optimum.start):
        if error is None or error <= HARTREE_FOCK_TOLERANCE:
            return optimum
        return _noted(
            optimum, f"ansatz {spec.ansatz} has no parameters here, the energy is that of its fixed state{above}:"
            " try a larger active space or another ansatz",
        )  # fmt: skip
    if abs(optimum.energy - hf_energy) < HARTREE_FOCK_TOLERANCE:
        if error is not None and error < HARTREE_FOCK_TOLERANCE:
            return optimum  # there is no correlation to be found
        return _noted(
            optimum, f"stuck: the run ended at the Hartree-Fock energy{above}: try {elsewhere}, another ansatz or another optimizer",
            stuck="at the Hartree-Fock energy",
        )  # fmt: skip
    has_moved = not np.allclose(optimum.parameters, optimum.start, rtol=0, atol=1e-9)
    if has_moved or not optimum.converged or (error is not None and error < CHEMICAL_ACCURACY):
        return optimum
    fall = search.fall_near(optimum.parameters)
    if fall is not None and fall > ENERGY_TOLERANCE:
        return _noted(
            optimum, f"stuck: the run ended where it started, on a saddle point{above}; near it the energy falls by"
            f" {1e3 * fall:.3f} mHa: try {elsewhere}", stuck="at its start, a saddle point",
        )  # fmt: skip
    return _noted(
        optimum, f"the run ended where it started, a stationary point{above}: try {elsewhere} if it is not the minimum you meant"
    )  # fmt: skip


def _noted(optimum: Optimum, note: str, *, stuck: str | None = None) -> Optimum:
    """The optimum with a note, and not converged where it is stuck somewhere."""
    optimum = replace(optimum, notes=(*optimum.notes, note))
    return optimum if stuck is None else replace(optimum, converged=False, reason=f"stuck {stuck} ({optimum.reason})")
