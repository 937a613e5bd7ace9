"""Metrics, rules and dashboards against the real services: every name that is asked for is exposed, and every query has data."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.services.lake import LakeArtifacts
from tests.services.monitoring import MONITORING, Tools, Watch, get
from tests.services.probes import BUCKET, eventually, setup_connector
from tests.services.stack import CHECKOUT, HOST, Stack, _die_with_parent, _free_ports

from .conftest import service_environment
from .platform import Platform

SWEEP = """
name: watched
molecules: [h2, lih, h2o]
matrix: {optimizer: [l-bfgs-b, cobyla]}
seeds: 1
"""
SPARK_METRICS = """*.sink.prometheusServlet.class=org.apache.spark.metrics.sink.PrometheusServlet
*.sink.prometheusServlet.path=/metrics/prometheus
master.sink.prometheusServlet.path=/metrics/master/prometheus
applications.sink.prometheusServlet.path=/metrics/applications/prometheus
"""
AIRFLOW = """airflow.scheduler_heartbeat:1|c
airflow.dag_processor_heartbeat:1|c
airflow.dag_processing.import_errors:0|g
airflow.dagrun.duration.success,dag_id=quantum_processing_dag,run_type=scheduled:61000|ms
airflow.dagrun.duration.failed,dag_id=quantum_processing_dag,run_type=manual:1000|ms"""
"""As Airflow 3.3 sends them with statsd_influxdb_enabled."""


@pytest.fixture(scope="session")
def tools() -> Tools:
    return Tools().fetch()


def promtool(tools: Tools, *arguments: str | Path) -> str:
    done = subprocess.run([str(tools.promtool), *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_prometheus_takes_its_configuration_and_rules(tools):
    promtool(tools, "check", "config", MONITORING / "prometheus" / "prometheus.yml")
    promtool(tools, "check", "rules", *sorted((MONITORING / "prometheus" / "rules").glob("*.yml")))


def test_alerts_fire_and_stay_silent(tools):
    promtool(tools, "test", "rules", *sorted((MONITORING / "prometheus" / "tests").glob("*.yml")))


def test_a_test_fails_where_an_alert_is_wrong(tools, tmp_path):
    for folder in ("rules", "tests"):
        (tmp_path / folder).mkdir()
        for file in (MONITORING / "prometheus" / folder).glob("*.yml"):
            (tmp_path / folder / file.name).write_text(file.read_text().replace("> 85", "> 95"))
    with pytest.raises(AssertionError, match="VqeGpuHot"):
        promtool(tools, "test", "rules", tmp_path / "tests" / "alerts.yml")


@pytest.mark.parametrize("channels", ["none", "mail", "webhook", "both"])
def test_alertmanager_takes_what_is_rendered(tools, tmp_path, channels):
    environment = {"PATH": os.environ["PATH"]}
    if channels in ("mail", "both"):
        environment |= {"VQE_ALERT_MAIL_TO": "a@example.org, b@example.org", "VQE_SMTP_HOST": "mail:25", "VQE_SMTP_USER": "u",
                        "VQE_SMTP_PASSWORD": "p"}  # fmt: skip
    if channels in ("webhook", "both"):
        environment["VQE_ALERT_WEBHOOK_URL"] = "http://receiver:8000/alerts"
    out = tmp_path / "alertmanager.yml"
    subprocess.run(["sh", str(MONITORING / "alertmanager" / "render.sh"), str(out)], env=environment, check=True)
    done = subprocess.run([str(tools.amtool), "check-config", str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


class Watched:
    """The platform with everything that watches it."""

    def __init__(self, watch: Watch, platform: Platform, stack: Stack, exporter: str, statsd: int) -> None:
        self.watch, self.platform, self.stack, self.exporter, self.statsd = watch, platform, stack, exporter, statsd

    def ask(self, path: str, **given: str):
        from urllib.parse import urlencode

        return json.loads(get(f"{self.watch.url}/api/v1/{path}?{urlencode(given)}"))["data"]

    def value(self, expr: str) -> float | None:
        found = self.ask("query", query=expr)["result"]
        return float(found[0]["value"][1]) if found else None

    def hear_airflow(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(AIRFLOW.encode(), (HOST, self.statsd))


@pytest.fixture(scope="module")
def watched(tools, tmp_path_factory):
    """Kafka, registry, Connect, MinIO and Spark, a worker, the exporter, a PushGateway and a Prometheus that scrapes them."""
    folder = tmp_path_factory.mktemp("watched")
    stack = Stack(folder / "stack", monitored=True).fetch()
    watch = Watch(folder / "watch", tools)
    processes: list[subprocess.Popen] = []
    worker, exporter, statsd, *spark = _free_ports(6)
    platform = Platform(
        service_environment(stack) | stack.aws_environment
        | {"AWS_ENDPOINT_URL": stack.s3_endpoint, "VQE_PUSHGATEWAY_URL": watch.gateway_url, "VQE_PUSH_INTERVAL": "1",
           "VQE_CONNECT_URL": stack.connect_url, "VQE_EXPORTER_INTERVAL": "1", "VQE_EXPORTER_CATALOG_INTERVAL": "1",
           "VQE_EXPORTER_PORT": str(exporter), "VQE_METRICS_PORT": str(worker), "VQE_STATSD_PORT": str(statsd),
           "VQE_QUEUE_URI": f"sqlite:///{folder / 'queue.db'}", "VQE_SINK": "kafka", "NO_PROXY": HOST, "no_proxy": HOST},
        folder / "data",
    )  # fmt: skip
    try:
        stack.start()
        stack.s3().create_bucket(Bucket=BUCKET)
        watch.start_gateway()
        platform.vqe("topics")
        platform.vqe("schemas", "register")
        config = json.loads((CHECKOUT / "connect" / "connector.json").read_text()) | {"flush.ms": "1000"}
        setup_connector.setup(stack.connect_url, "vqe-s3-sink", config)
        processes += _start_spark(folder, spark)
        platform.vqe("run", "h2")
        _build_tables(platform)
        for name in ("worker", "exporter"):
            processes.append(_start(platform, folder, name))
        watch.start_prometheus({
            "vqe-exporter": f"{HOST}:{exporter}", "vqe-worker": f"{HOST}:{worker}", "registry": stack.registry_metrics_url[7:-8],
            "kafka": stack.kafka_metrics_url[7:-8], "connect": stack.connect_metrics_url[7:-8],
            "minio": stack.s3_endpoint[7:], "spark-master": f"{HOST}:{spark[1]}", "spark-worker": f"{HOST}:{spark[2]}",
        })  # fmt: skip
        yield Watched(watch, platform, stack, f"http://{HOST}:{exporter}/metrics", statsd)
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        watch.stop()
        stack.stop()


def _start(platform: Platform, folder: Path, name: str) -> subprocess.Popen:
    with open(folder / f"{name}.log", "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "simulator.cli.main", name], env=platform._env({}), stdout=log, stderr=log,
            preexec_fn=_die_with_parent,
        )  # fmt: skip


def _start_spark(folder: Path, ports: list[int]) -> list[subprocess.Popen]:
    artifacts = LakeArtifacts()
    artifacts.fetch(("spark",))
    home = subprocess.run(
        [str(artifacts.spark_python), "-c", "import pyspark, os; print(os.path.dirname(pyspark.__file__))"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    conf = folder / "spark"
    conf.mkdir()
    (conf / "metrics.properties").write_text(SPARK_METRICS)
    environment = {**os.environ, "SPARK_HOME": home, "SPARK_CONF_DIR": str(conf), "SPARK_LOCAL_IP": HOST}
    port, master, worker = map(str, ports)
    commands = [
        ["master.Master", "--host", HOST, "--port", port, "--webui-port", master],
        [
            "worker.Worker",
            "--host",
            HOST,
            "--webui-port",
            worker,
            "-c",
            "1",
            "-m",
            "512m",
            "-d",
            str(conf),
            f"spark://{HOST}:{port}",
        ],
    ]
    started = []
    for command in commands:
        with open(conf / "spark.log", "ab") as log:
            started.append(subprocess.Popen(
                [f"{home}/bin/spark-class", f"org.apache.spark.deploy.{command[0]}", *command[1:]], env=environment,
                stdout=log, stderr=log, preexec_fn=_die_with_parent,
            ))  # fmt: skip
    return started


def _build_tables(platform: Platform) -> None:
    """A batch of what the sink has stored, into tables in the data directory."""
    code = (
        "import sys; from spark_jobs.arrow.batch import build; from spark_jobs.raw import S3Store\n"
        f"report = build(sys.argv[1], store=S3Store({BUCKET!r}))\n"
        "sys.exit(0 if report.rows.get('vqe_results') else 3)"
    )
    eventually(
        lambda: subprocess.run([sys.executable, "-c", code, str(platform.data_dir)], env=platform._env({})).returncode == 0,
        60, "a batch with a result",
    )  # fmt: skip


@pytest.fixture(scope="module")
def journey(watched, tmp_path_factory):
    """Runs by hand and by a worker, a batch, a DAG run, and time for Prometheus to see rates."""
    path = tmp_path_factory.mktemp("sweep") / "experiment.yaml"
    path.write_text(SWEEP)
    watched.hear_airflow()
    watched.platform.vqe("sweep", str(path), "--submit", "--force")  # H2 is in the tables already
    watched.platform.vqe("run", "lih", "--optimizer", "cobyla", "--max-iterations", "20", check=1)
    eventually(
        lambda: watched.value('sum(vqe_worker_jobs_total{outcome=~"done|failed|skipped"})') == 6, 120, "six jobs"
    )
    # last, for a process shows its newest run only, and these have gradients; six, and the last has a usual error
    watched.platform.vqe("run", "h2", "--repeat", "6")
    _build_tables(watched.platform)
    watched.hear_airflow()
    eventually(lambda: watched.value("vqe_accuracy_usual_error_hartree") is not None, 90, "a usual error")
    eventually(lambda: watched.value("vqe:result_duration_seconds:mean") is not None, 90, "recorded rules")
    return watched


def names_in(expr: str) -> set[str]:
    """Names of metrics in an expression."""
    bare = re.sub(r'"[^"]*"', '""', expr)
    bare = re.sub(r"\{[^}]*\}", "{}", bare)
    bare = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    words = re.findall(r"(?<![\w:.])([a-zA-Z_:][\w:]*)(?!\s*\()(?![\w:])", re.sub(r"\[[^\]]*\]", "", bare))
    keywords = {"by", "without", "on", "ignoring", "group_left", "group_right", "and", "or", "unless", "bool", "offset"}
    return {word for word in words if word not in keywords}


def test_names_are_found_in_expressions():
    expr = 'sum by (a) (rate(x_total{b=~"c"}[5m])) / on (a) group_left () (vqe:y:z > 0) or label_replace(w, "d", "$1", "e", "")'
    assert names_in(expr) == {"x_total", "vqe:y:z", "w"}


def asked() -> dict[str, set[str]]:
    """Every name that rules and dashboards ask for, and where."""
    out: dict[str, set[str]] = {}
    for file in (MONITORING / "prometheus" / "rules").glob("*.yml"):
        for group in yaml.safe_load(file.read_text())["groups"]:
            for rule in group["rules"]:
                for name in names_in(rule["expr"]):
                    out.setdefault(name, set()).add(rule.get("alert") or rule["record"])
    for file in (MONITORING / "grafana" / "dashboards").glob("*.json"):
        dashboard = json.loads(file.read_text())
        queries = [(p["title"], t["expr"]) for p in dashboard["panels"] for t in p["targets"]]
        queries += [(v["name"], v["definition"].split("(")[1].split(",")[0]) for v in dashboard["templating"]["list"]]
        for where, expr in queries:
            for name in names_in(expr):
                out.setdefault(name, set()).add(f"{file.stem}: {where}")
    return out


def test_every_metric_that_is_asked_for_is_exposed(journey):
    from samples import a_run, a_sample

    from simulator.observability.metrics import LastSeen, exposed, run_families

    seen = LastSeen()
    for event in (a_run(), a_sample(gpu_names=["A100"], gpu_utilization_percent=[1.0], gpu_memory_used_bytes=[1],
                                    gpu_power_watts=[1.0], gpu_temperature_celsius=[1.0])):  # fmt: skip
        seen.take(event)
    gpu = set(re.findall(r"^(vqe_run_gpu_\w+){", exposed(run_families(seen)).decode(), re.M))
    assert len(gpu) == 4

    def all_there() -> bool:
        there = {"ALERTS"} | gpu | set(journey.ask("label/__name__/values"))
        missing = {name: sorted(places) for name, places in asked().items() if name not in there}
        assert missing == {}
        return True

    assert len(asked()) > 60
    eventually(all_there, 60, "every metric")  # the exporter's rounds, then a scrape


def test_every_target_of_the_configuration_is_scraped(journey):
    jobs = {
        job["job_name"]
        for job in yaml.safe_load((MONITORING / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    }
    down = {t["labels"]["job"]: t["lastError"] for t in journey.ask("targets")["activeTargets"] if t["health"] != "up"}
    assert down == {}
    assert {t["labels"]["job"] for t in journey.ask("targets")["activeTargets"]} == jobs - {"alertmanager"}


def test_every_rule_is_evaluated(journey):
    rules = [rule for group in journey.ask("rules")["groups"] for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}


def test_every_panel_has_data_and_is_drawn(journey, tmp_path):
    draw = [
        sys.executable,
        str(MONITORING / "draw_dashboards.py"),
        "--prometheus",
        journey.watch.url,
        "--out",
        str(tmp_path),
    ]

    def drawn() -> bool:
        done = subprocess.run([*draw, "--minutes", "10"], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return True

    eventually(drawn, 60, "data in every panel")  # rates need two scrapes
    assert {p.stem for p in tmp_path.glob("*.png")} == {
        json.loads(f.read_text())["uid"] for f in (MONITORING / "grafana" / "dashboards").glob("*.json")
    }


def test_what_is_exposed_has_bounded_labels(journey):
    text = get(journey.exporter)
    assert "run_id" not in text
    for result in journey.platform.records("vqe_result_v"):
        assert str(result["run_id"]) not in text + get(f"{journey.watch.gateway_url}/metrics")


def test_a_restarted_exporter_never_shows_a_counter_that_still_grows(journey):
    before = journey.value("sum(vqe_runs_total)")
    done = journey.platform.vqe("exporter", "--once", check=None)
    found = re.findall(r"^vqe_runs_total{.*} (\d+)", done.stdout, re.M)
    assert sum(map(float, found)) == before
    assert 'source="topics"} 1.0' in done.stdout


def test_the_exporter_tells_that_connect_is_down_and_goes_on(journey):
    """Last: Connect is not started again."""
    journey.stack.kill("connect")
    eventually(lambda: journey.value("min(vqe_connector_running)") == 0, 30, "the connector to be down")
    assert journey.value('vqe_exporter_source_up{source="connect"}') == 0
    assert journey.value('vqe_exporter_source_up{source="groups"}') == 1
    journey.platform.vqe("run", "h2", "--seed", "9")
    eventually(
        lambda: (journey.value("sum(vqe_consumer_group_lag_records{group='connect-vqe-s3-sink'})") or 0) > 0, 30, "lag"
    )
    alerts = eventually(
        lambda: [a for a in journey.ask("alerts")["alerts"] if a["labels"]["alertname"] == "VqeConnectorNotRunning"],
        30,
        "alert",
    )
    assert alerts is None or alerts[0]["state"] in ("pending", "firing")
