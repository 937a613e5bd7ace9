"""Where the optimizer starts."""

from typing import TYPE_CHECKING

import numpy as np

from simulator.errors import InputError

if TYPE_CHECKING:
    from simulator.vqe.spec import RunSpec

RANDOM_RANGE = {"uccsd": 0.1}
"""Radians: largest random angle. Beyond a few tenths an amplitude of UCCSD is another state altogether."""

PERTURBATION = 0.1
"""Radians: how far a start on a stationary point is moved; at 0.01, L-BFGS-B leaves square H4's late or never."""


def initial_parameters(
    spec: "RunSpec", labels: tuple[str, ...], hf_parameters: np.ndarray, mp2_parameters: np.ndarray | None
) -> np.ndarray:
    """The start that the specification asks for, shape (n_parameters,), radian.

    Args:
        spec: initial_point mp2 (amplitudes), hf (the Hartree-Fock determinant), zeros, random (seeded; uniform, up to pi, up
            to 0.1 for uccsd) or vector (as given).
        labels: the ansatz's parameters.
        hf_parameters: where the ansatz is the Hartree-Fock determinant, shape: (n_parameters,).
        mp2_parameters: shape (n_parameters,), None where the ansatz has none.

    Raises:
        InputError: a vector of another length, or mp2 for an ansatz without amplitudes.
    """
    n = len(labels)
    if spec.initial_point == "zeros":
        return np.zeros(n)
    if spec.initial_point == "hf":
        return hf_parameters.copy()
    if spec.initial_point == "random":
        limit = RANDOM_RANGE.get(spec.ansatz, np.pi)
        return np.random.default_rng(spec.seed).uniform(-limit, limit, n)
    if spec.initial_point == "mp2":
        if mp2_parameters is None:
            raise InputError(f"initial point mp2 is for the uccsd ansatz, not {spec.ansatz} (use zeros, random or hf)")
        return mp2_parameters.copy()
    vector = np.array(spec.initial_vector or (), dtype=float)
    if len(vector) != n:
        raise InputError(f"initial vector has {len(vector)} values, ansatz {spec.ansatz} has {n} parameters here")
    return vector


def perturbed(start: np.ndarray, seed: int) -> np.ndarray:
    """The start moved by up to PERTURBATION in every parameter, seeded, shape: (n_parameters,)."""
    return start + np.random.default_rng([seed, 1]).uniform(-PERTURBATION, PERTURBATION, len(start))
