"""The twelve questions of docs/queries.md: each is answered, and rightly, of a study whose answers are known."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import study

from spark_jobs.arrow import batch
from spark_jobs.query import query

ERRORS = {(ansatz, reps): error / 2 ** (reps - 1) for ansatz, error in study.ERRORS.items() for reps in (1, 2, 3)}
STAGES = ("scf", "integrals", "mapping", "reference", "optimization", "verification")

ANSWERS: dict[int, list[tuple[Any, ...]]] = {
    1: [
        ("efficient_su2", "l-bfgs-b", 6, 6, 4, 10, (6.4 + 3.2 + 1.6) / 3),
        ("uccsd", "cobyla", 3, 3, 7, 16, 0.7),
        ("uccsd", "l-bfgs-b", 6, 6, 4, 10, (0.4 + 0.2 + 0.1) / 3),
        ("uccsd", "spsa", 3, 3, 11, 24, 0.7),
    ],
    2: [
        (ansatz, reps, 10 * reps * (3 if ansatz == "uccsd" else 1), 4 * reps, 2, error, error)
        for (ansatz, reps), error in sorted(ERRORS.items())
    ],
    3: [
        ("efficient_su2", "l-bfgs-b", 6, 0, None, None),  # 1.6 mHa is not below 1.6
        ("uccsd", "cobyla", 3, 3, 15, 15),
        ("uccsd", "l-bfgs-b", 6, 6, 7, (7 + 7 + 9) / 3),
        ("uccsd", "spsa", 3, 3, 23, 23),
    ],
    4: [("H2", ansatz, reps, "h2_0", "h2_1", 2, 0.01) for ansatz in sorted(study.ERRORS) for reps in (1, 2, 3)],
    5: [
        (0.001, 1000, 1, 1.0, 1000.0),
        (0.001, 4000, 1, 1.2, 1200.0),
        (0.01, 1000, 1, 10.0, 1000.0),
        (0.01, 4000, 1, 12.0, 1200.0),
    ],
    6: [(stage, 23, 2.3 * (i + 1), (i + 1) / 21) for i, stage in reversed(list(enumerate(STAGES)))],
    7: [("h2_0", "uccsd", 1, optimizer, "zeros", 3, 3, -1.1366, 0.1) for optimizer in ("cobyla", "spsa")],
    8: [
        # the first error is four times the last one for each iteration between them
        ("mp2", 12, sum(e * 4 ** (2 + reps) for (_, reps), e in ERRORS.items()) / 6, sum(ERRORS.values()) / 6, 4),
        ("zeros", 6, 0.7 * (4**7 + 4**11) / 2, 0.7, 9),
    ],
    9: [("completed", "electron number is 1.9", 1, "h2_0"), ("failed", "SCF did not converge", 1, "h2_0")],
    10: [
        (id_, 8, 5, 0.5 * (1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5), 2)
        for id_ in sorted({run.hamiltonian_id for run in study.runs()})
    ],
    11: [(4, "aer", 4, 200.0, 99.0), (4, "sector", 19, 200.0, 99.0)],
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("study")
    study.write(root)
    batch.build(root)
    return root


def test_there_are_twelve_questions() -> None:
    assert [int(heading.split(".")[0]) for heading in study.questions()] == list(range(1, 13))


@pytest.mark.parametrize("heading", list(study.questions()))
def test_a_question_is_answered_rightly(data_dir: Path, heading: str) -> None:
    found = [tuple(row.values()) for row in query(data_dir, study.questions()[heading]).rows.to_pylist()]
    number = int(heading.split(".")[0])
    if number == 12:
        assert [(row[0], row[1]) for row in found] == [("cobyla", 3), ("l-bfgs-b", 16), ("spsa", 3)]
        assert found[0][3] == pytest.approx(1)  # three seeds whose first errors are in proportion to the last
        return
    assert len(found) == len(ANSWERS[number])
    for row, expected in zip(found, ANSWERS[number], strict=True):
        assert list(row) == [pytest.approx(v) if isinstance(v, float) else v for v in expected], heading


def test_features_know_nothing_of_later_than_the_fourth_iteration(tmp_path: Path) -> None:
    """What comes after iteration 4 changes targets only, whatever the result says of it."""
    ended = study.Studied(1).began + timedelta(hours=1)
    afterwards = {
        "recorded_at": ended, "finished_at": ended, "total_seconds": 3600.0, "energy": -1.0, "error_mha": 137.3,
        "converged": False, "chemical_accuracy": False, "iterations": 11, "evaluations": 99, "gradient_evaluations": 9,
        "physical": False, "physical_reason": "electron number is 1.9", "electron_number": 1.9, "s_squared": 0.4,
        "aer_energy": -1.0, "convergence_reason": "iterations used up", "notes": ["slow"],
    }  # fmt: skip
    early, late = tmp_path / "early", tmp_path / "late"
    for root, iterations in ((early, 8), (late, 12)):
        run = study.Studied(1, iterations=iterations, overrides=afterwards if root == late else {})
        for event in (events := run.iteration_events()):
            event["energy"] = -1.0 - 0.01 * min(event["iteration"], 4) - (0.05 if event["iteration"] > 4 else 0)
        run.iteration_events = lambda events=events: events  # type: ignore[method-assign]
        study.write_runs(root, [run])
        batch.build(root)
    rows = [query(root, "select * from vqe_features").rows.to_pylist()[0] for root in (early, late)]
    differing = {name for name in rows[0] if rows[0][name] != rows[1][name]}
    assert differing == {"target_converged", "target_iterations", "target_error_mha"}
    assert rows[0]["energy_gained"] == pytest.approx(0.04)


def test_each_feature_tells_what_it_is(data_dir: Path) -> None:
    described = query(data_dir, "describe vqe_features").rows.to_pylist()
    assert [row["column"] for row in described if not row["what it is"].endswith(".")] == []
    targets = {row["column"] for row in described if row["what it is"].startswith("To be foretold")}
    assert targets == {row["column"] for row in described if row["column"].startswith("target_")} != set()
