"""What is watched: dashboards are what their script makes, alerts have a test either way and a section of the runbook."""

import importlib.util
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
MONITORING = ROOT / "monitoring"
RULES = MONITORING / "prometheus" / "rules"


def alerts() -> dict[str, dict]:
    groups = yaml.safe_load((RULES / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


@pytest.fixture(scope="module")
def made():
    spec = importlib.util.spec_from_file_location("make_dashboards", MONITORING / "grafana" / "make_dashboards.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_dashboards_are_what_their_script_makes(made):
    files = {p.stem: p.read_text() for p in (MONITORING / "grafana" / "dashboards").glob("*.json")}
    assert files.keys() == made.DASHBOARDS.keys()
    for name, text in files.items():
        assert text == made.text_of(name), f"{name}.json: run monitoring/grafana/make_dashboards.py"


def test_panels_have_a_description_a_unit_and_their_place(made):
    count = 0
    for name in made.DASHBOARDS:
        dashboard = made.dashboard(name)
        taken: set[tuple[int, int]] = set()
        assert len(dashboard["links"]) == len(made.DASHBOARDS) - 1
        for panel in dashboard["panels"]:
            count += 1
            where = f"{name}: {panel['title']}"
            assert panel["description"].endswith("."), where
            assert panel["fieldConfig"]["defaults"]["unit"], where
            assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"], where
            assert panel["type"] in {"stat", "timeseries", "trend", "table", "bargauge"}, where
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])
            }  # fmt: skip
            assert place["x"] + place["w"] <= 24, where
            assert not cells & taken, f"{where} lies over another"
            taken |= cells
    assert count >= 30


def test_variables_are_used_where_they_are_shown(made):
    for name in made.DASHBOARDS:
        text = json.dumps(made.dashboard(name))
        for variable in made.dashboard(name)["templating"]["list"]:
            equals = "=~" if variable["multi"] else "="
            assert f'{equals}\\"${variable["name"]}\\"' in text, f"{name}: {variable['name']}"


@pytest.mark.parametrize("name", sorted(alerts()))
def test_an_alert_tells_what_it_is_and_what_to_do(name):
    rule = alerts()[name]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"].keys() == {"summary", "description", "runbook"}
    assert rule["annotations"]["runbook"] == f"docs/runbook.md#{name.lower()}"
    section = re.search(rf"^## {name}\n(.+?)(?=^## |\Z)", (ROOT / "docs/runbook.md").read_text(), re.M | re.S)
    assert section is not None, f"docs/runbook.md has no section {name}"
    assert len(section[1].split()) > 25


def test_every_alert_has_a_test_that_makes_it_fire_and_one_that_keeps_it_silent():
    tests = yaml.safe_load((MONITORING / "prometheus" / "tests" / "alerts.yml").read_text())["tests"]
    fires, silent = set(), set()
    for test in tests:
        match = re.fullmatch(r"(\w+) (fires|is silent): .+", test["name"])
        assert match is not None, test["name"]
        (check,) = test["promql_expr_test"]
        assert f'alertname="{match[1]}"' in check["expr"], test["name"]
        assert bool(check["exp_samples"]) == (match[2] == "fires"), test["name"]
        (fires if match[2] == "fires" else silent).add(match[1])
    assert fires == silent == alerts().keys()


def test_the_runbook_has_no_section_of_an_alert_that_is_gone():
    assert set(re.findall(r"^## (Vqe\w+)$", (ROOT / "docs/runbook.md").read_text(), re.M)) == alerts().keys()


def test_inhibitions_name_alerts_that_there_are():
    text = (MONITORING / "alertmanager" / "alertmanager.yml.in").read_text()
    named = {name for group in re.findall(r'alertname=~?"([\w|]+)"', text) for name in group.split("|")}
    assert named <= alerts().keys()


def test_no_query_asks_for_a_run(made):
    texts = [json.dumps(made.dashboard(name)) for name in made.DASHBOARDS]
    assert not any("run_id" in text for text in [*texts, *(p.read_text() for p in RULES.glob("*.yml"))])


def render(tmp_path: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    script = MONITORING / "alertmanager" / "render.sh"
    return subprocess.run(
        ["sh", str(script), str(tmp_path / "out.yml"), *command], env={"PATH": os.environ["PATH"], **environment},
        capture_output=True, text=True,
    )  # fmt: skip


def test_alertmanager_without_settings_tells_nobody(tmp_path):
    assert render(tmp_path).returncode == 0
    config = yaml.safe_load((tmp_path / "out.yml").read_text())
    assert [list(r) for r in config["receivers"]] == [["name"]] * 3
    assert config["global"] == {"resolve_timeout": "5m"}


def test_alertmanager_sends_mail_and_calls_by_severity_and_its_secrets_stay_in_files(tmp_path):
    (tmp_path / "password").write_text("canary-file")
    done = render(
        tmp_path, "echo", "started", VQE_ALERT_MAIL_TO="o'neil@example.org", VQE_SMTP_HOST="mail:587", VQE_SMTP_USER="u",
        VQE_SMTP_PASSWORD_FILE=str(tmp_path / "password"), VQE_ALERT_WEBHOOK_URL="https://hooks/canary-url?a=1&b='2'",
    )  # fmt: skip
    assert done.stdout == "started\n", done.stderr
    text = (tmp_path / "out.yml").read_text()
    assert "canary" not in text + done.stdout + done.stderr
    config = yaml.safe_load(text)
    assert config["global"]["smtp_auth_password_file"] == str(tmp_path / "password")
    assert config["global"]["smtp_require_tls"] is True
    for receiver in config["receivers"][1:]:
        assert receiver["email_configs"][0]["to"] == "o'neil@example.org"
        file = Path(receiver["webhook_configs"][0]["url_file"])
        assert file.read_text() == "https://hooks/canary-url?a=1&b='2'"
        assert file.stat().st_mode & 0o077 == 0
    routes = {route["matchers"][0]: route["receiver"] for route in config["route"]["routes"]}
    assert routes == {'severity="critical"': "critical", 'severity="warning"': "warning"}


@pytest.mark.parametrize(
    ("environment", "told"),
    [({"VQE_ALERT_MAIL_TO": "a@b"}, "VQE_SMTP_HOST"),
     ({"VQE_ALERT_MAIL_TO": "a@b", "VQE_SMTP_HOST": "m:25", "VQE_SMTP_USER": "u"}, "VQE_SMTP_PASSWORD"),
     ({"VQE_SMTP_PASSWORD": "canary", "VQE_SMTP_PASSWORD_FILE": "/x"}, "either"),
     ({"VQE_ALERT_WEBHOOK_URL_FILE": "/dev/null/nowhere"}, "/dev/null/nowhere"), ({"VQE_SMTP_TLS": "perhaps"}, "VQE_SMTP_TLS"),
     ({"VQE_ALERT_GROUP_WAIT": "1s\n  x: y"}, "no time")],
)  # fmt: skip
def test_settings_that_cannot_be_are_told_and_nothing_starts(tmp_path, environment, told):
    done = render(tmp_path, "echo", "started", **environment)
    assert done.returncode == 2
    assert told in done.stderr
    assert "started" not in done.stdout
    assert "canary" not in done.stderr


def test_an_empty_secret_file_is_no_webhook(tmp_path):
    (tmp_path / "url").write_text("")
    assert render(tmp_path, VQE_ALERT_WEBHOOK_URL_FILE=str(tmp_path / "url")).returncode == 0
    assert "webhook" not in (tmp_path / "out.yml").read_text()


@pytest.mark.parametrize(
    ("line", "level"),
    [('{"event": "INFO in it", "n": 1, "level": "warning"}', "warn"), ('{"level": 30, "event": "x"}', "unknown"),
     ('{"event": "x", "level": "no level"}', "unknown"), ("vqe: unknown basis 'x' for H", "unknown"), ("an error happened", "unknown"),
     ("[2026-11-21 22:07:05,492] INFO [QuorumController id=1] no error", "info"),
     ('2026-11-21 22:04:15 UTC [82] ERROR:  relation "information" does not exist', "error"),
     ("2026-11-21T22:04:14Z [error    ] Could not configure [loc] INFO", "error"),
     ('time=2026-11-21 level=warn msg="ERROR"', "warn"), ("26/11/21 22:07:34 WARN SparkContext: stopped", "warn")],
)  # fmt: skip
def test_a_lines_level_is_read(line, level):
    """Promtail's own expressions, in its order: JSON's key, else the first word that looks like a level."""
    (scrape,) = yaml.safe_load((MONITORING / "loki" / "promtail.yaml").read_text())["scrape_configs"]
    known, words = (stage["regex"] for stage in scrape["pipeline_stages"] if "regex" in stage)
    try:
        told = re.search(known["expression"], str(json.loads(line)["level"]))
    except ValueError:
        told = None
    first = re.search(words["expression"], line)
    found = told["known"] if told else (first["upper"] or first["lower"]) if first else "unknown"
    assert found.lower().replace("warning", "warn") == level


def test_only_bounded_names_are_labels_of_loki():
    (scrape,) = yaml.safe_load((MONITORING / "loki" / "promtail.yaml").read_text())["scrape_configs"]
    stages = scrape["pipeline_stages"]
    assert scrape["gelf"]["labels"].keys() | {name for s in stages for name in s.get("labels", {})} == {
        "job",
        "service",
    }
    (kept,) = (s["structured_metadata"] for s in stages if "structured_metadata" in s)
    assert kept.keys() == {"level", "run_id", "spec_id", "batch_id", "sweep_id", "container"}


def test_the_runbooks_questions_have_answers(tmp_path):
    import study

    from spark_jobs.arrow.batch import build
    from spark_jobs.query import query

    study.write(tmp_path)
    build(tmp_path)
    questions = re.findall(r'vqe sql "(.+?)"', (ROOT / "docs" / "runbook.md").read_text())
    assert len(questions) >= 5
    for question in questions:
        query(tmp_path, question)
