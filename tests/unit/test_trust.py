"""Tolerances stand in one module; what cannot import it (SQL, dashboards, schemas, text) gives the same numbers."""

import json
import re
import runpy
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from simulator.observability.exporter.catalog import RECENT
from simulator.observability.exporter.runs import RECENT_SECONDS
from simulator.trust import (
    CHEMICAL_ACCURACY,
    CHEMICAL_ACCURACY_MHA,
    ELECTRON_TOLERANCE,
    ENERGY_TOLERANCE,
    ENGINE_TOLERANCE,
    SPIN_TOLERANCE,
    Check,
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
        (ROOT / "docs" / "chemistry.md", 2),
        (ROOT / "monitoring" / "grafana" / "dashboards" / "accuracy.json", 1),
        (ROOT / "monitoring" / "grafana" / "dashboards" / "convergence.json", 2),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_texts_queries_and_dashboards_state_chemical_accuracy_as_it_is(path, times):
    found = re.findall(STATED, path.read_text())
    assert len(found) == times, found
    assert {float(value) for value in found} == {CHEMICAL_ACCURACY_MHA}


def test_dashboards_draw_chemical_accuracy_where_it_is_and_their_script_has_no_number_of_its_own():
    script = ROOT / "monitoring" / "grafana" / "make_dashboards.py"
    assert runpy.run_path(str(script))["ACCURATE"][1][0] == CHEMICAL_ACCURACY_MHA
    assert not {f"{CHEMICAL_ACCURACY}", f"{CHEMICAL_ACCURACY_MHA}"} & set(re.findall(r"\d+\.\d+", script.read_text()))


def alert(name):
    groups = yaml.safe_load((ROOT / "monitoring" / "prometheus" / "rules" / "alerts.yml").read_text())["groups"]
    (rule,) = (rule for group in groups for rule in group["rules"] if rule["alert"] == name)
    return rule


def test_the_alert_on_unphysical_results_and_its_panel_name_every_check():
    dashboards = (ROOT / "monitoring" / "grafana" / "dashboards" / "accuracy.json").read_text()
    (panel,) = (p for p in json.loads(dashboards)["panels"] if p["title"] == "Unphysical results")
    for text in (alert("VqeUnphysicalResult")["annotations"]["description"], panel["description"]):
        assert [check for check in Check if check.value not in text] == []


@pytest.mark.parametrize("name", ["VqeRunFailed", "VqeRunNotConverged", "VqeUnphysicalResult", "VqeBatchFailed"])
def test_alerts_state_for_how_long_a_result_counts_as_recent(name):
    (minutes,) = re.findall(r"in the last (\d+) minutes", alert(name)["annotations"]["summary"])
    assert 60 * int(minutes) == RECENT_SECONDS


def test_the_alert_on_quality_issues_states_for_how_long_an_issue_counts_as_recent():
    (hours,) = re.findall(r"in the last (\d+) hours", alert("VqeQualityIssues")["annotations"]["summary"])
    assert timedelta(hours=int(hours)) == RECENT


def test_the_alert_on_accuracy_bears_less_than_chemical_accuracy_beyond_the_usual_error():
    (beyond,) = re.findall(r"usual_error_hartree \+ (\S+)$", alert("VqeAccuracyWorse")["expr"])
    assert float(beyond) < CHEMICAL_ACCURACY


@pytest.mark.parametrize("name", ["architecture.md", "chemistry.md", "runbook.md"])
def test_the_documentation_states_the_tolerances_of_the_checks(name):
    text = (ROOT / "docs" / name).read_text()
    (passage,) = re.findall(r"electron number\s[^|]*?1e-8", text)
    stated = [float(value) for value in re.findall(r"1e-\d|0\.\d+", passage)]
    assert stated == [ELECTRON_TOLERANCE, SPIN_TOLERANCE, ENERGY_TOLERANCE, ENGINE_TOLERANCE]
