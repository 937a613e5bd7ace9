"""Airflow with its metadata in Postgres, for tests: scheduler, dag-processor and api-server as processes of its own venv."""

from __future__ import annotations

import json
import os
import pathlib
import secrets
import signal
import subprocess
import time
import urllib.error
import urllib.request
from typing import Any

from .artifacts import CHECKOUT
from .lake import Lake, Mailbox, Place
from .stack import HOST, ServiceError, _die_with_parent, _free_ports

PARTS = {
    "api-server": ["api-server", "--host", HOST],
    "scheduler": ["scheduler"],
    "dag-processor": ["dag-processor"],
}


class Airflow:
    """Runs the product's DAGs as a deployment does: LocalExecutor, settings and connections from the environment."""

    def __init__(self, lake: Lake, place: Place, mailbox: Mailbox, **environment: str):
        self.home = lake.directory / f"airflow-{secrets.token_hex(3)}"
        self.home.mkdir(parents=True)
        self.bin = lake.artifacts.airflow_python.parent
        self.port, health, logs, triggers = _free_ports(4)
        self.password = secrets.token_urlsafe(12)
        passwords = self.home / "passwords.json"
        passwords.write_text(json.dumps({"admin": self.password}))
        venv = lake.artifacts.spark_python.parent
        spark = {
            "conn_type": "spark",
            "host": "local[2]",
            "extra": {"spark-binary": "spark-submit", "deploy-mode": "client"},
        }
        smtp = {
            "conn_type": "smtp",
            "host": HOST,
            "port": mailbox.port,
            "extra": {"disable_ssl": True, "disable_tls": True},
        }
        settings = {
            "CORE__DAGS_FOLDER": str(CHECKOUT / "dags"),
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__EXECUTOR": "LocalExecutor",
            "CORE__PARALLELISM": "2",
            "CORE__EXECUTION_API_SERVER_URL": f"http://{HOST}:{self.port}/execution/",
            "CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
            "CORE__FERNET_KEY": "",
            "DATABASE__SQL_ALCHEMY_CONN": lake.postgres.create(self.home.name.replace("-", "_")),
            "API_AUTH__JWT_SECRET": secrets.token_urlsafe(24),
            "API__PORT": str(self.port),
            "API__WORKERS": "1",
            "API__SECRET_KEY": secrets.token_urlsafe(16),
            "SCHEDULER__ENABLE_HEALTH_CHECK": "False",
            "SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT": str(health),
            "LOGGING__WORKER_LOG_SERVER_PORT": str(logs),
            "LOGGING__TRIGGER_LOG_SERVER_PORT": str(triggers),
            "DAG_PROCESSOR__REFRESH_INTERVAL": "600",
        }
        spark_environment = lake.python_environment(place.environment)
        self.environment = {
            **{k: v for k, v in spark_environment.items() if not k.startswith("VQE_SPARK_MASTER")},
            **{f"AIRFLOW__{k}": v for k, v in settings.items()},
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps(spark),
            "AIRFLOW_CONN_SMTP_DEFAULT": json.dumps(smtp),
            "PATH": f"{self.bin}:{venv}:{os.environ['PATH']}",
            "PYTHONPATH": str(CHECKOUT),
            "VQE_MAIL_FROM": "lake@example.org",
            "VQE_MAIL_TO": "ops@example.org",
            "VQE_JOBS_DIR": str(CHECKOUT / "spark_jobs" / "jobs"),
            "VQE_SPARK_CONF": json.dumps(
                {"spark.ui.enabled": "false", "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1"}
            ),
            "no_proxy": "*",
            **environment,
        }
        self._processes: dict[str, subprocess.Popen] = {}

    def command(self, *arguments: str, timeout: float = 240) -> str:
        done = subprocess.run(
            [self.bin / "airflow", *arguments], env=self.environment, capture_output=True, text=True, timeout=timeout,
            cwd=self.home,
        )  # fmt: skip
        if done.returncode:
            raise ServiceError(f"airflow {' '.join(arguments)}: {done.stdout[-3000:]}{done.stderr[-3000:]}")
        return done.stdout

    def start(self) -> Airflow:
        self.command("db", "migrate")
        for name, arguments in PARTS.items():
            with (self.home / f"{name}.log").open("ab") as log:
                self._processes[name] = subprocess.Popen(
                    [str(self.bin / "airflow"), *arguments], env=self.environment, stdin=subprocess.DEVNULL, stdout=log,
                    stderr=log, cwd=self.home, start_new_session=True, preexec_fn=_die_with_parent,
                )  # fmt: skip
        end = time.monotonic() + 180
        while True:
            try:
                self._token = self._call("POST", "/auth/token", {"username": "admin", "password": self.password})[
                    "access_token"
                ]
                found = self._call("GET", "/api/v2/dags")
                if found["total_entries"] >= 3:
                    return self
            except OSError:
                pass
            dead = [name for name, p in self._processes.items() if p.poll() is not None]
            if dead or time.monotonic() > end:
                told = "\n".join((self.home / f"{n}.log").read_text()[-2000:] for n in (dead or PARTS))
                raise ServiceError(f"airflow did not start ({', '.join(dead)}):\n{told}")
            time.sleep(1)

    _token = ""

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            f"http://{HOST}:{self.port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as answer:
            return json.load(answer)

    def unpause(self, dag: str) -> None:
        self._call("PATCH", f"/api/v2/dags/{dag}", {"is_paused": False})

    def trigger(self, dag: str, **conf: Any) -> str:
        """Starts a run; returns its id."""
        return self._call("POST", f"/api/v2/dags/{dag}/dagRuns", {"logical_date": None, "conf": conf})["dag_run_id"]

    def runs(self, dag: str) -> list[str]:
        """Ids of a DAG's runs."""
        return [run["dag_run_id"] for run in self._call("GET", f"/api/v2/dags/{dag}/dagRuns")["dag_runs"]]

    def wait(self, dag: str, run: str, limit: float = 300) -> str:
        """The state in which a run ended."""
        end = time.monotonic() + limit
        while True:
            state = self._call("GET", f"/api/v2/dags/{dag}/dagRuns/{run}")["state"]
            if state in ("success", "failed"):
                return state
            if time.monotonic() > end:
                raise AssertionError(f"{dag} {run} is {state} after {limit} s\n{self.logs()}")
            time.sleep(1)

    def tries(self, dag: str, run: str) -> dict[str, list[dict[str, Any]]]:
        """Every try of every task of a run, oldest first."""
        found = self._call("GET", f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances")["task_instances"]
        return {
            t["task_id"]: self._call("GET", f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{t['task_id']}/tries")[
                "task_instances"
            ]
            for t in found
        }

    def logs(self) -> str:
        """The ends of the tasks' logs."""
        found = sorted((self.home / "logs").rglob("attempt=*.log"), key=lambda p: p.stat().st_mtime)
        return "\n".join(f"== {p.relative_to(self.home)}\n{p.read_text()[-4000:]}" for p in found[-3:])

    def stop(self) -> None:
        for process in self._processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._processes.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def dags_of(lake: Lake, folder: pathlib.Path = CHECKOUT / "dags") -> dict[str, Any]:
    """The DAGs as Airflow imports them: errors, and each DAG's structure."""
    return _in_airflow(lake, _IMPORT, str(folder))


def calls(lake: Lake, cases: list[dict[str, Any]], folder: pathlib.Path = CHECKOUT / "dags") -> list[dict[str, Any]]:
    """What Python tasks answer when they are called, without Airflow around them.

    Each case has dag, task, arguments and environment; each answer has `answer`, or `error` with its text.
    """
    return _in_airflow(lake, _CALL, str(folder), json.dumps(cases))


def _in_airflow(lake: Lake, script: str, *arguments: str) -> Any:
    """The JSON that a script tells in Airflow's environment."""
    done = subprocess.run(
        [lake.artifacts.airflow_python, "-c", script, *arguments],
        env={**os.environ, "AIRFLOW_HOME": str(lake.directory / "airflow-import"), "VQE_MAIL_TO": "ops@example.org",
             "VQE_MAIL_FROM": "lake@example.org", "AIRFLOW__CORE__LOAD_EXAMPLES": "False", "no_proxy": "*"},
        capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    if done.returncode:
        raise AssertionError(done.stderr[-4000:])
    return json.loads(done.stdout.splitlines()[-1])


_CALL = """
import json, os, sys
sys.path.append(sys.argv[1])
from airflow.dag_processing.dagbag import DagBag
bag, told, before = DagBag(sys.argv[1]), [], dict(os.environ)
for case in json.loads(sys.argv[2]):
    os.environ.clear()
    os.environ.update(before | case["environment"])
    try:
        task = bag.dags[case["dag"]].get_task(case["task"])
        told.append({"answer": task.python_callable(**case["arguments"])})
    except Exception as e:
        told.append({"error": f"{type(e).__name__}: {e}"})
print("\\n" + json.dumps(told))
"""

_IMPORT = """
import json, sys
sys.path.append(sys.argv[1])  # as the dag-processor does
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
print(json.dumps({"errors": {k: str(v) for k, v in bag.import_errors.items()}, "dags": {
    name: {
        "schedule": str(dag.schedule), "max_active_runs": dag.max_active_runs, "catchup": dag.catchup,
        "mails": [len(dag.on_success_callback or []), len(dag.on_failure_callback or [])],
        "tasks": {t.task_id: {
            "type": type(t).__name__, "after": sorted(t.upstream_task_ids), "retries": t.retries,
            "backoff": bool(t.retry_exponential_backoff), "arguments": str(getattr(t, "application_args", None)),
            "application": str(getattr(t, "application", "")).rsplit("/", 1)[-1],
        } for t in dag.tasks},
    } for name, dag in bag.dags.items()}}))
"""
