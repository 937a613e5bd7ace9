import numpy as np
import pytest

from simulator.errors import InputError
from simulator.vqe.optimizers import OPTIMIZERS, Objective, check_options, run_optimizer

START = np.array([0.9, -0.7, 0.4])
MINIMUM = np.array([0.1, 0.2, -0.3])


def energy(x):
    d = np.asarray(x) - MINIMUM
    return float(d @ np.diag([1.0, 2.0, 4.0]) @ d + 0.3 * np.sum(d**4) - 1.0)


def rosenbrock(x):
    return float(np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2))


def gradient(function, x):
    steps = np.eye(3) * 1e-6
    return np.array([(function(x + s) - function(x - s)) / 2e-6 for s in steps])


def run(name, *, max_iterations=400, tolerance=1e-6, seed=1, function=energy, **options):
    """The minimum and every point at which the energy was asked for."""
    asked, steps = [], []

    def told(x):
        asked.append(tuple(np.round(x, 12)))
        return function(x)

    objective = Objective(told, lambda x: (told(x), gradient(function, x)), lambda x, _: steps.append(x.copy()))
    options = check_options(name, options)
    end = run_optimizer(name, options, objective, START, max_iterations=max_iterations, tolerance=tolerance, seed=seed)
    return end, asked, steps


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_finds_the_minimum_and_tells_its_iterations(name):
    end, asked, steps = run(name, tolerance=1e-3 if name == "spsa" else 1e-6)
    assert energy(end.parameters) < -1 + (1e-2 if name == "spsa" else 1e-4)
    assert end.converged
    assert end.reason.startswith("converged")
    assert 0 < len(steps) <= len(asked)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_stops_at_max_iterations(name):
    end, _, steps = run(name, max_iterations=3, tolerance=1e-12)
    assert not end.converged
    assert end.reason == "max_iterations"
    assert len(steps) <= 4


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_tolerance_is_used(name):
    others = {"xatol": 10.0} if name == "nelder-mead" else {}  # it stops when points and energies are close
    loose, tight = run(name, tolerance=0.05, **others)[1], run(name, tolerance=1e-7, **others)[1]
    assert len(loose) < len(tight)


CHANGED = {
    "l-bfgs-b": {"maxcor": 1, "ftol": 0.5, "maxls": 1},
    "slsqp": {},
    "cobyla": {"rhobeg": 1.0},
    "spsa": {
        "learning_rate": 0.3, "first_step": 0.3, "calibration_steps": 3, "perturbation": 0.01, "alpha": 0.9, "gamma": 0.5,
        "stability": 50.0, "resamplings": 3, "blocking": True, "allowed_increase": 100.0, "window": 5,
    },
    "nelder-mead": {"xatol": 0.5, "initial_step": 0.5, "adaptive": False},
    "powell": {"xtol": 0.5, "initial_step": 0.5},
}  # fmt: skip


@pytest.mark.parametrize(("name", "option"), [(n, o.name) for n, i in OPTIMIZERS.items() for o in i.options])
def test_every_option_changes_what_is_done(name, option):
    base = {"allowed_increase": {"blocking": True, "learning_rate": 2.0}}.get(option, {})
    tolerance = 1e-2 if option in ("xatol", "window", "ftol") else 1e-6
    given = {"max_iterations": 60, "tolerance": tolerance, **base}
    if option == "maxls":
        given["function"] = rosenbrock  # line searches in a bent valley take more than one evaluation
    plain, changed = run(name, **given)[1], run(name, **given, **{option: CHANGED[name][option]})[1]
    assert plain != changed


def test_spsa_follows_its_seed():
    assert run("spsa", seed=3)[1] == run("spsa", seed=3)[1] != run("spsa", seed=4)[1]


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("bfgs", {}, "unknown optimizer 'bfgs', did you mean l-bfgs-b?"),
        ("cobyla", {"rhobek": 1}, "optimizer cobyla: unknown option 'rhobek', did you mean rhobeg? (allowed: rhobeg)"),
        ("slsqp", {"ftol": 1}, "unknown option 'ftol' (allowed: none)"),
        ("spsa", {"blocking": 1}, "option blocking must be true or false, not 1"),
        ("spsa", {"resamplings": 1.5}, "option resamplings must be a whole number, not 1.5"),
        ("spsa", {"alpha": "fast"}, "option alpha must be a number, not 'fast'"),
        ("powell", {"xtol": 0}, "option xtol must be from 1e-12 to 1, not 0"),
        ("powell", {"xtol": float("nan")}, "option xtol must be a number"),
    ],
)
def test_bad_options_are_refused(name, options, says):
    with pytest.raises(InputError) as error:
        check_options(name, options)
    assert says in str(error.value)


def test_options_come_as_text_and_with_defaults():
    found = check_options("spsa", {"resamplings": "3", "blocking": "true", "alpha": "0.7"})
    assert (found["resamplings"], found["blocking"], found["alpha"], found["gamma"]) == (3, True, 0.7, 0.101)


@pytest.mark.parametrize("name", ["l-bfgs-b", "slsqp"])
def test_a_search_in_the_energys_own_units_is_short_and_ends_at_the_same_tolerance(name):
    curvature = np.geomspace(0.3, 300.0, 12)
    start, lowest = np.full(12, 0.2), np.linspace(-0.1, 0.3, 12)
    found = {}
    for units in (None, 1 / np.sqrt(curvature)):
        asked, told = [], []

        def energy_and_gradient(x, asked=asked):
            asked.append(x.tobytes())
            d = x - lowest
            return float(0.5 * d @ (curvature * d) + np.sum(d**4)), curvature * d + 4 * d**3

        objective = Objective(
            lambda x: energy_and_gradient(x)[0], energy_and_gradient, lambda x, _, told=told: told.append(x.tobytes())
        )
        end = run_optimizer(
            name, check_options(name, {}), objective, start, max_iterations=500, tolerance=1e-6, seed=0, steps=units
        )
        assert end.converged
        assert asked[0] == start.tobytes(), "the start itself, to the last bit"
        assert set(told) <= set(asked), "an iteration is a point that was evaluated"
        largest = np.max(np.abs(energy_and_gradient(end.parameters)[1]))
        assert name == "slsqp" or largest <= 1e-6, "by the parameters in radian, whatever the units"
        np.testing.assert_allclose(end.parameters, lowest, atol=1e-3)
        found[units is None] = len(asked)
    assert found[False] < 0.5 * found[True]
