"""Tolerances stand in one module; what cannot import it (SQL, dashboards, schemas, text) gives the same numbers."""

import re
import runpy
from pathlib import Path

import pytest

from simulator.trust import (
    CHEMICAL_ACCURACY,
    CHEMICAL_ACCURACY_MHA,
    ELECTRON_TOLERANCE,
    ENERGY_TOLERANCE,
    ENGINE_TOLERANCE,
    SPIN_TOLERANCE,
)

ROOT = Path(__file__).parents[2]
STATED = r"(?:chemical accuracy, |within |exact energy is within\s|below |ABS\(error_mha\) < )(\d\.\d+)(?= mHa|\.\"|\n)"
"""Chemical accuracy in millihartree, as texts and queries state it."""


def files(*patterns):
    return [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]


def test_chemical_accuracy_is_one_number_in_both_units():
    assert 1e3 * CHEMICAL_ACCURACY == CHEMICAL_ACCURACY_MHA


@pytest.mark.parametrize(
    ("path", "times"),
    [
        *((path, 2) for path in files("schemas/vqe_result_v1.*.avsc")),
        (ROOT / "docs" / "queries.md", 2),
        (ROOT / "docs" / "chemistry.md", 1),
        (ROOT / "monitoring" / "grafana" / "make_dashboards.py", 3),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_texts_queries_and_dashboards_state_chemical_accuracy_as_it_is(path, times):
    found = re.findall(STATED, path.read_text())
    assert len(found) == times, found
    assert {float(value) for value in found} == {CHEMICAL_ACCURACY_MHA}


def test_dashboards_draw_chemical_accuracy_where_it_is():
    made = runpy.run_path(str(ROOT / "monitoring" / "grafana" / "make_dashboards.py"))
    assert made["CHEMICAL_ACCURACY_MHA"] == CHEMICAL_ACCURACY_MHA


@pytest.mark.parametrize("name", ["architecture.md", "chemistry.md", "runbook.md"])
def test_the_documentation_states_the_tolerances_of_the_checks(name):
    text = (ROOT / "docs" / name).read_text()
    (passage,) = re.findall(r"electron number\s[^|]*?1e-8", text)
    stated = [float(value) for value in re.findall(r"1e-\d|0\.\d+", passage)]
    assert stated == [ELECTRON_TOLERANCE, SPIN_TOLERANCE, ENERGY_TOLERANCE, ENGINE_TOLERANCE]
