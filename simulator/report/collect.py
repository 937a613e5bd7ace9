"""What a report shows, read from the tables."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simulator.errors import InputError

MAX_TABLE = 200
MAX_LINES = 10
MAX_FAINT = 150
MAX_DETAILS = 25
MAX_STAGE_BARS = 20

Row = dict[str, Any]

_COLUMNS = (
    "run_id, started_at, total_seconds, molecule_name, formula, status, error, physical, physical_reason, converged, "
    "convergence_reason, energy, standard_error, hf_energy, reference_name, reference_energy, error_mha, "
    "chemical_accuracy, aer_energy, electron_number, s_squared, s_squared_expected, n_active_electrons, n_orbitals, "
    "n_qubits, n_terms, n_parameters, circuit_depth, two_qubit_gates, iterations, evaluations, gradient_evaluations, "
    "charge, multiplicity, basis, active_electrons, active_orbitals, freeze_core, mapper, ansatz, reps, optimizer, "
    "tolerance, initial_point, seed, engine, device, precision, shots, notes, host"
)


@dataclass(frozen=True)
class Collected:
    """A report's content. Lists say by their length what is shown, `n_*` how much there was."""

    runs: list[Row]  # newest first; every run that was asked for
    labels: dict[str, str]  # run_id -> what tells it from the others
    convergence: dict[str, list[tuple[int, float]]]  # run_id -> (iteration, error in mHa)
    shown_lines: list[str]  # run_ids that are drawn with a label
    references: dict[str, list[Row]]  # run_id -> rows of accuracy_metrics
    timings: dict[str, list[Row]]  # run_id -> rows of timing_metrics
    batch: str | None
    left_out: list[str] = field(default_factory=list)

    @property
    def ended_well(self) -> list[Row]:
        return [r for r in self.runs if r["status"] == "completed"]

    @property
    def failed(self) -> list[Row]:
        return [r for r in self.runs if r["status"] != "completed"]


def collect(data_dir: Path, wanted: Sequence[str] = ()) -> Collected:
    """Reads what a report shows.

    Args:
        data_dir: the data dir.
        wanted: run ids, beginnings of run ids, or molecule names; empty: every run.

    Raises:
        InputError: nothing is of that name, or there is no run.
    """
    from spark_jobs.query import query

    answer = query(data_dir, f"SELECT {_COLUMNS} FROM vqe_results ORDER BY started_at DESC, run_id DESC")
    runs = _choose(answer.rows.to_pylist(), wanted)
    drawn = [r["run_id"] for r in _representative(runs, MAX_LINES)]
    others = [r["run_id"] for r in runs if r["status"] == "completed" and r["run_id"] not in set(drawn)]
    faint = others[:MAX_FAINT]
    listed = [r["run_id"] for r in runs[:MAX_TABLE]]

    def rows(table: str, columns: str, ids: Sequence[str], order: str, more: str = "") -> dict[str, list[Row]]:
        found: dict[str, list[Row]] = {}
        if ids:
            quoted = ", ".join(f"'{i}'" for i in ids)  # ids come from the table
            sql = f"SELECT run_id, {columns} FROM {table} WHERE run_id IN ({quoted}) {more} ORDER BY run_id, {order}"
            for row in query(data_dir, sql).rows.to_pylist():
                found.setdefault(row["run_id"], []).append(row)
        return found

    iterations = rows(
        "vqe_iterations", "iteration, error_mha", [*drawn, *faint], "iteration", "AND error_mha IS NOT NULL"
    )
    left_out = []
    if len(runs) > MAX_TABLE:
        left_out.append(f"the summary lists the newest {MAX_TABLE} of {len(runs)} runs")
    if len(others) > len(faint):
        left_out.append(f"the convergence plot draws {len(drawn) + len(faint)} of {len(drawn) + len(others)} runs")
    if len(runs) > MAX_DETAILS:
        left_out.append(f"details are given for the newest {MAX_DETAILS} of {len(runs)} runs")
    return Collected(
        runs=runs,
        labels=labels(runs),
        convergence={i: [(p["iteration"], p["error_mha"]) for p in points] for i, points in iterations.items()},
        shown_lines=[i for i in drawn if i in iterations],
        references=rows(
            "accuracy_metrics",
            "reference, reference_energy, error_mha, correlation_share, source, reason",
            listed,
            "reference",
        ),
        timings=rows("timing_metrics", "stage, stage_index, seconds, calls", listed, "stage_index"),
        batch=answer.as_of,
        left_out=left_out,
    )


def _choose(runs: list[Row], wanted: Sequence[str]) -> list[Row]:
    if not wanted:
        if not runs:
            raise InputError("no run has ended yet: there is nothing to report")
        return runs
    chosen: dict[str, Row] = {}
    for name in wanted:
        found = [r for r in runs if r["run_id"].startswith(name.lower()) or r["molecule_name"].lower() == name.lower()]
        if not found:
            newest = ", ".join(f"{r['run_id']} ({r['molecule_name']})" for r in runs[:3]) or "none"
            raise InputError(f"no run {name}: give a run id, how one begins, or a molecule's name (newest: {newest})")
        chosen |= {r["run_id"]: r for r in found}
    return [r for r in runs if r["run_id"] in chosen]


def _representative(runs: list[Row], most: int) -> list[Row]:
    """Completed runs to draw with a label: the newest of each molecule in turn."""
    by_molecule: dict[str, list[Row]] = {}
    for run in runs:
        if run["status"] == "completed":
            by_molecule.setdefault(run["molecule_name"], []).append(run)
    chosen: list[Row] = []
    while len(chosen) < most and any(by_molecule.values()):
        for group in by_molecule.values():
            if group and len(chosen) < most:
                chosen.append(group.pop(0))
    return sorted(chosen, key=lambda r: (r["molecule_name"], r["started_at"]))


def labels(runs: list[Row]) -> dict[str, str]:
    """A short name of each run: its molecule, and those settings that are not the same in all runs of it."""
    settings = ("basis", "ansatz", "reps", "mapper", "optimizer", "engine", "device", "shots", "initial_point", "seed")
    by_molecule: dict[str, list[Row]] = {}
    for run in runs:
        by_molecule.setdefault(run["molecule_name"], []).append(run)
    found: dict[str, str] = {}
    for molecule, group in by_molecule.items():
        differing = [s for s in settings if len({r[s] for r in group}) > 1]
        for run in group:
            parts = [_setting(s, run[s]) for s in differing[:3]]
            found[run["run_id"]] = " · ".join([molecule, *parts])
        names = [found[r["run_id"]] for r in group]
        for i, run in enumerate(reversed(group)):
            if names.count(found[run["run_id"]]) > 1:
                found[run["run_id"]] += f" #{i + 1}"
    return found


def _setting(name: str, value: Any) -> str:
    if name in ("reps", "seed"):
        return f"{name} {value}"
    if name == "shots":
        return "exact" if value is None else f"{value:,} shots"
    return str(value)
