"""A small study: two geometries, two ansatzes, three depths, two optimizers, three seeds, noise. What questions are asked of."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raw_events import Event, Run, sha, write_runs

from simulator.trust import CHEMICAL_ACCURACY_MHA

ERRORS = {"uccsd": 0.4, "efficient_su2": 6.4}
"""Error in millihartree at one repetition; each further repetition halves it."""


@dataclass
class Studied(Run):
    """A run whose specification and course differ from the others' in what questions ask."""

    settings: dict[str, Any] = field(default_factory=dict)  # of the specification
    error_mha: float = 0.4
    seconds: float = 2.0

    @property
    def spec(self) -> Event:
        return {**super().spec, "noise": None, **self.settings}

    def iteration_events(self) -> list[Event]:
        events = super().iteration_events()
        for i, event in enumerate(events):
            left = len(events) - 1 - i
            event["error_mha"] = self.error_mha * 4**left
            event["energy"] = -1.1373 + event["error_mha"] / 1000
        return events

    def result_event(self) -> Event:
        event = super().result_event()
        if event["status"] != "completed":
            return event
        spec = self.spec
        energy = -1.1373 + self.error_mha / 1000
        event |= {
            "energy": energy,
            "error_mha": self.error_mha,
            "chemical_accuracy": self.error_mha < CHEMICAL_ACCURACY_MHA,
            "circuit_depth": 10 * spec["reps"] * (3 if spec["ansatz"] == "uccsd" else 1),
            "two_qubit_gates": 4 * spec["reps"],
            "total_seconds": self.seconds,
        }
        for i, parameter in enumerate(event["parameters"]):
            parameter["optimal"] = 0.1 * (i + 1) + 0.01 * self.molecule
        return event | self.overrides


def runs() -> list[Studied]:
    """23 runs."""
    found: list[Studied] = []

    def add(error: float, molecule: int = 0, status: str = "completed", iterations: int = 4, **settings: Any) -> None:
        number = len(found)
        run = Studied(
            number, molecule=molecule, settings={"seed": number, **settings}, error_mha=error, status=status,
            iterations=iterations,
        )  # fmt: skip
        found.append(run)

    for molecule in (0, 1):
        for ansatz, error in ERRORS.items():
            for reps in (1, 2, 3):
                add(error / 2 ** (reps - 1), molecule, ansatz=ansatz, reps=reps, iterations=3 + reps)
    for optimizer, iterations in (("cobyla", 8), ("spsa", 12)):
        for seed in (1, 2, 3):
            add(0.5 + 0.1 * seed, optimizer=optimizer, seed=seed, iterations=iterations, initial_point="zeros")
    for two_qubit in (0.001, 0.01):
        noise = {"one_qubit": 0.0001, "two_qubit": two_qubit, "readout": 0.0}
        add(1000 * two_qubit, engine="aer", noise=noise, shots=1000)
        add(1200 * two_qubit, engine="aer", noise=noise, shots=4000)
    add(0.0, status="failed", iterations=1)
    found[0].overrides = {"physical": False, "physical_reason": "electron number is 1.9"}
    assert len({sha(r.run_id) for r in found}) == len(found)
    return found


def write(data_dir: Path) -> None:
    """Writes the study's raw files."""
    write_runs(data_dir, runs())


def questions() -> dict[str, str]:
    """The SQL of docs/queries.md by its heading."""
    text = (Path(__file__).resolve().parents[2] / "docs" / "queries.md").read_text(encoding="utf-8")
    found = re.findall(r"^## (\d+\. .+?)$.*?^```sql\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return dict(found)
