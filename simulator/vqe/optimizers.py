"""The optimizers: what each accepts, and one way to run them all. SciPy is loaded when one runs."""

# NumPy's types are named below, NumPy is not loaded: the command line reads this table
from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from simulator.errors import InputError

if TYPE_CHECKING:
    import numpy as np

NO_LIMIT = 2**31 - 1
"""What SciPy's evaluation limits are set to: runs are limited by iterations."""


@dataclass(frozen=True)
class Option:
    """An option of an optimizer: its type, default, allowed range (both ends included) and meaning."""

    name: str
    type: type
    default: float | int | bool
    low: float
    high: float
    doc: str

    def checked(self, value: Any, optimizer: str) -> float | int | bool:
        """The value in the option's type.

        Raises:
            InputError: of another type or out of range.
        """
        where = f"optimizer {optimizer}: option {self.name}"
        if isinstance(value, str):
            value = _from_text(value)
        if self.type is bool:
            if not isinstance(value, bool):
                raise InputError(f"{where} must be true or false, not {value!r}")
            return value
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(f"{where} must be a number, not {value!r}")
        if self.type is int and value != int(value):
            raise InputError(f"{where} must be a whole number, not {value!r}")
        if not self.low <= value <= self.high:
            raise InputError(f"{where} must be from {self.low:g} to {self.high:g}, not {value!r}")
        number: float | int = self.type(value)
        return number


@dataclass(frozen=True)
class OptimizerInfo:
    """What an optimizer is and accepts."""

    name: str
    uses_gradient: bool
    doc: str
    tolerance: str  # what the run's tolerance means to it
    options: tuple[Option, ...] = ()
    iteration: str = "step"  # what one iteration is


OPTIMIZERS: dict[str, OptimizerInfo] = {
    info.name: info
    for info in (
        OptimizerInfo(
            "l-bfgs-b", True, "Limited-memory BFGS", "largest gradient component, hartree per radian",
            (
                Option("maxcor", int, 20, 1, 1000, "steps that the approximate Hessian remembers"),
                Option("ftol", float, 1e-14, 0.0, 1.0, "stops, converged, when a step lowers the energy by less than this share of it"),
                Option("maxls", int, 30, 1, 1000, "evaluations of one line search"),
            ),
        ),
        OptimizerInfo("slsqp", True, "Sequential least squares", "energy change between iterations, hartree"),
        OptimizerInfo(
            "cobyla", False, "Linear approximation in a trust region", "final radius of the trust region, radian",
            (Option("rhobeg", float, 0.1, 1e-6, 10.0, "first radius of the trust region, radian"),), "evaluation",
        ),
        OptimizerInfo(
            "spsa", False, "Simultaneous perturbation stochastic approximation (Spall)",
            "drift of the mean energy within the last `window` iterations, hartree",
            (
                Option("learning_rate", float, 0.0, 0.0, 100.0, "gain a of the first step; 0: such that the first steps are `first_step` long"),
                Option("first_step", float, 0.1, 1e-6, 10.0, "length per parameter of a calibrated first step, radian"),
                Option("calibration_steps", int, 10, 1, 10_000, "gradient samples of the calibration; unused with a learning rate"),
                Option("perturbation", float, 0.1, 1e-8, 10.0, "c: distance of the two evaluations from the point, radian"),
                Option("alpha", float, 0.602, 0.0, 2.0, "exponent by which steps shrink"),
                Option("gamma", float, 0.101, 0.0, 2.0, "exponent by which perturbations shrink"),
                Option("stability", float, 10.0, 0.0, 1e6, "A: iterations by which shrinking is delayed"),
                Option("resamplings", int, 1, 1, 1000, "gradient samples averaged in a step"),
                Option("blocking", bool, False, 0, 1, "refuse a step that raises the energy by more than `allowed_increase`"),
                Option("allowed_increase", float, 0.01, 0.0, 1e6, "hartree; unused without blocking"),
                Option("window", int, 25, 2, 100_000, "iterations within which the drift is taken"),
            ),
        ),
        OptimizerInfo(
            "nelder-mead", False, "Simplex search", "spread of the simplex's energies, hartree",
            (
                Option("xatol", float, 1e-4, 1e-12, 10.0, "spread of the simplex's points below which it may stop, radian"),
                Option("initial_step", float, 0.1, 1e-6, 10.0, "edge of the first simplex, radian"),
                Option("adaptive", bool, True, 0, 1, "coefficients that depend on the number of parameters (Gao and Han)"),
            ),
        ),
        OptimizerInfo(
            "powell", False, "Conjugate directions", "relative change of the energy between iterations",
            (
                Option("xtol", float, 1e-4, 1e-12, 1.0, "relative accuracy of each line search"),
                Option("initial_step", float, 0.1, 1e-6, 10.0, "length of the first directions, radian"),
            ),
        ),
    )
}  # fmt: skip


def check_options(optimizer: str, options: dict[str, Any]) -> dict[str, float | int | bool]:
    """The optimizer's options, checked, with defaults filled in.

    Raises:
        InputError: an unknown optimizer or option (names the nearest), or a value that is not allowed.
    """
    if optimizer not in OPTIMIZERS:
        raise InputError(
            f"unknown optimizer {optimizer!r}{_nearest(optimizer, OPTIMIZERS)} (use one of {', '.join(OPTIMIZERS)})"
        )
    known = {o.name: o for o in OPTIMIZERS[optimizer].options}
    for name in options:
        if name not in known:
            allowed = ", ".join(known) or "none"
            raise InputError(
                f"optimizer {optimizer}: unknown option {name!r}{_nearest(name, known)} (allowed: {allowed})"
            )
    return {name: option.checked(options.get(name, option.default), optimizer) for name, option in known.items()}


def _nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(str(name).lower(), list(known), n=1)
    return f", did you mean {near[0]}?" if near else ""


def _from_text(text: str) -> Any:
    """A number or truth value that came as text, e.g. from a command line; else the text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


@dataclass(frozen=True)
class Objective:
    """What is minimized.

    `energy(x)` and `energy_and_gradient(x)` are in hartree and hartree per radian; `step(x, state)` is called once an iteration
    and may raise to stop. `state` is what the optimizer needs, beside x, to go on from here; None where it has none.
    """

    energy: Callable[[np.ndarray], float]
    energy_and_gradient: Callable[[np.ndarray], tuple[float, np.ndarray]]
    step: Callable[[np.ndarray, dict[str, Any] | None], None]


@dataclass(frozen=True)
class Minimum:
    """Where an optimizer ended."""

    parameters: np.ndarray  # radian, shape: (n_parameters,)
    converged: bool
    reason: str


class _LimitReached(Exception):
    """Control flow: takes SciPy's stack down at the last iteration."""


def run_optimizer(
    name: str,
    options: dict[str, Any],
    objective: Objective,
    start: np.ndarray,
    *,
    max_iterations: int,
    tolerance: float,
    seed: int,
    state: dict[str, Any] | None = None,
    steps: np.ndarray | None = None,
) -> Minimum:
    """Minimize from `start`, shape (n_parameters,), in radian; what `tolerance` means is in OPTIMIZERS[name].tolerance.

    L-BFGS-B and SLSQP, which know nothing of the curvature when they start, search in units of `steps` (radian, shape:
    (n_parameters,); None: all one). `state` is what `objective.step` was told at `start` by an earlier call, which this one goes on with.
    """
    if name == "spsa":
        return _spsa(options, objective, start, max_iterations, tolerance, seed, state)
    if max_iterations < 1:
        return Minimum(start, False, "max_iterations")
    import numpy as np
    from scipy.optimize import minimize

    n, start, told = len(start), np.array(start, dtype=float), [np.array(start)]
    scaled = OPTIMIZERS[name].uses_gradient
    units = np.ones(n) if steps is None or not scaled else np.asarray(steps, dtype=float)

    def at(y: np.ndarray) -> np.ndarray:
        """The parameters; exactly the start at zero."""
        return start + units * y if scaled else np.array(y)

    def energy_and_gradient(y: np.ndarray) -> tuple[float, np.ndarray]:
        energy, gradient = objective.energy_and_gradient(at(y))
        return energy, units * gradient

    def step(y: np.ndarray) -> None:
        told.append(at(np.atleast_1d(y)))
        objective.step(told[-1].copy(), None)
        if name == "cobyla" and len(told) > max_iterations:
            raise _LimitReached

    given: dict[str, Any] = {"callback": lambda xk: step(xk)}
    if name == "l-bfgs-b":
        # no component of the gradient by the parameters themselves is larger than the tolerance then
        gtol = tolerance * float(np.min(units, initial=np.inf))
        given |= {"options": {"maxiter": max_iterations, "maxfun": NO_LIMIT, "gtol": gtol, **options}}
    elif name == "slsqp":
        given |= {"options": {"maxiter": max_iterations, "ftol": tolerance}}
    elif name == "cobyla":
        # SciPy refuses fewer than n + 2 evaluations, with a warning, and makes n + 2: the limit is held here
        given |= {"options": {"maxiter": max(max_iterations, n + 2), "rhobeg": options["rhobeg"], "tol": tolerance}}
    elif name == "nelder-mead":
        simplex = np.vstack([start, start + options["initial_step"] * np.eye(n)])
        kept = {k: options[k] for k in ("xatol", "adaptive")}
        given |= {
            "options": {
                "maxiter": max_iterations,
                "maxfev": NO_LIMIT,
                "fatol": tolerance,
                "initial_simplex": simplex,
                **kept,
            }
        }
    elif name == "powell":
        kept = {"xtol": options["xtol"], "direc": options["initial_step"] * np.eye(n)}
        given |= {"options": {"maxiter": max_iterations, "maxfev": NO_LIMIT, "ftol": tolerance, **kept}}
    else:
        raise InputError(f"unknown optimizer {name!r}")
    try:
        if scaled:
            result = minimize(energy_and_gradient, np.zeros(n), jac=True, method=name, **given)
        else:
            result = minimize(objective.energy, start, method=name, **given)
    except _LimitReached:
        return Minimum(told[-1], False, "max_iterations")
    message = " ".join(str(result.message).split())
    reached = getattr(result, "nit", None)
    limit = (reached if reached is not None else result.nfev) >= max_iterations
    if result.success:
        return Minimum(at(np.atleast_1d(result.x)), True, f"converged: {message}")
    return Minimum(at(np.atleast_1d(result.x)), False, "max_iterations" if limit else f"stopped: {message}")


def _spsa(
    options: dict[str, Any], objective: Objective, start: np.ndarray, max_iterations: int, tolerance: float, seed: int,
    state: dict[str, Any] | None,
) -> Minimum:  # fmt: skip
    """Spall's algorithm, IEEE Trans. Autom. Control 37, 332 (1992); gains as in his 1998 guide (doi:10.1109/7.705889).

    Converged: over the last `window` iterations the mean energy of the later half is within `tolerance` of the earlier's.
    """
    import numpy as np

    rng = np.random.default_rng([seed, 0x5B5A])
    x = np.array(start, dtype=float)
    stability, alpha, gamma = options["stability"], options["alpha"], options["gamma"]

    def gradient(point: np.ndarray, c: float) -> tuple[np.ndarray, float]:
        total, level = np.zeros(len(point)), 0.0
        for _ in range(options["resamplings"]):
            delta = rng.choice([-1.0, 1.0], size=len(point))
            up, down = objective.energy(point + c * delta), objective.energy(point - c * delta)
            total += (up - down) / (2 * c) * delta
            level += 0.5 * (up + down)
        return total / options["resamplings"], level / options["resamplings"]

    a, first = options["learning_rate"], 0
    levels: list[float] = []
    if state is not None:
        a, first, levels = state["gain"], state["iterations"], list(state["levels"])
        rng.bit_generator.state = state["random"]
    elif a == 0.0:
        sizes = [np.mean(np.abs(gradient(x, options["perturbation"])[0])) for _ in range(options["calibration_steps"])]
        a = options["first_step"] * (1 + stability) ** alpha / max(float(np.mean(sizes)), 1e-10)
    current = objective.energy(x) if options["blocking"] else math.inf
    window = options["window"]
    for k in range(first, first + max_iterations):
        g, level = gradient(x, options["perturbation"] / (k + 1) ** gamma)
        proposed = x - a / (k + 1 + stability) ** alpha * g
        if options["blocking"]:
            energy = objective.energy(proposed)
            if energy <= current + options["allowed_increase"]:
                x, current = proposed, energy
        else:
            x = proposed
        levels.append(level)
        reached = {"gain": a, "iterations": k + 1, "levels": levels[-window:], "random": rng.bit_generator.state}
        objective.step(x.copy(), reached)
        if len(levels) >= window:
            recent, half = levels[-window:], window // 2
            drift = abs(float(np.mean(recent[half:])) - float(np.mean(recent[:half])))
            if drift < tolerance:
                return Minimum(x, True, f"converged: mean energy moved by {drift:.1e} hartree in {window} iterations")
    return Minimum(x, False, "max_iterations")
