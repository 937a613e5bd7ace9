"""Checkpoints: the point from which a run that was interrupted or killed is gone on with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Checkpoint:
    """The best point that an attempt has reached, from which another may go on."""

    run_id: str  # of the run that reached it
    iteration: int  # of the optimizer, counted over all attempts
    energy: float  # what is minimized, at these parameters; hartree in VQE
    parameters: tuple[float, ...]  # radian, shape: (n_parameters,)
    optimizer_state: dict[str, Any] | None = (
        None  # JSON values; None where the optimizer starts anew from the parameters
    )

    def to_dict(self) -> dict[str, Any]:
        """The checkpoint as JSON values."""
        return {
            "run_id": self.run_id, "iteration": self.iteration, "energy": self.energy, "parameters": list(self.parameters),
            "optimizer_state": self.optimizer_state,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> "Checkpoint":
        """The checkpoint that `to_dict` wrote."""
        return cls(**{**found, "parameters": tuple(found["parameters"])})
