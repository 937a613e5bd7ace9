"""The compose stack as its users meet it, in a project of its own with ports of its own."""

import base64
import json
import os
import secrets
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from tests.services.probes import eventually
from tests.services.stack import _free_ports

ROOT = Path(__file__).parents[2]
PORTS = (
    "KAFKA_PORT", "REGISTRY_PORT", "CONNECT_PORT", "MINIO_PORT", "MINIO_CONSOLE_PORT", "POSTGRES_PORT", "SPARK_PORT",
    "AIRFLOW_PORT", "PROMETHEUS_PORT", "PUSHGATEWAY_PORT", "ALERTMANAGER_PORT", "GRAFANA_PORT",
    "LOKI_PORT", "LOGS_PORT",
)  # fmt: skip


class Stack:
    """`docker compose` on one project.

    Args:
        overlays: compose files beside docker-compose.yml.
        environment: settings of .env.
        grafana: whether its server is started, too.
        keep: file that names a project which is left running, to go on with it.
    """

    def __init__(self, *overlays: str, grafana: bool = False, keep: Path | None = None, **environment: str) -> None:
        self.project = os.environ.get("VQE_E2E_PROJECT") or f"vqe-e2e-{secrets.token_hex(3)}"
        self.files = ["docker-compose.yml", *([] if grafana else ["docker-compose.headless.yml"]), *overlays]
        self.ports = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))
        if keep is not None and keep.is_file():
            self.project, self.ports = json.loads(keep.read_text())
        elif keep is not None:
            keep.write_text(json.dumps([self.project, self.ports]))
        self._told: str | None = None
        self._secrets: dict[str, str] = {}
        self.has_grafana = grafana
        self.scales: dict[str, int] = {}
        self._environment = {
            **os.environ,
            "COMPOSE_PROJECT_NAME": self.project,
            **{name: str(port) for name, port in self.ports.items()},
            **environment,
        }

    @property
    def environment(self) -> dict[str, str]:
        """In which `docker compose`, and scripts that call it, mean this stack."""
        return {**self._environment, "COMPOSE_FILE": ":".join(self.files)}

    def compose(self, *arguments: str, timeout: float = 600, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command of docker compose."""
        done = subprocess.run(
            ["docker", "compose", *arguments],
            cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(
                f"docker compose {' '.join(arguments)}: exit {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
                f"\n{self.sick()}"
            )
        return done

    def up(self, *services: str, timeout: float = 900) -> None:
        """Start and wait until everything is healthy."""
        scales = [part for name, n in self.scales.items() for part in ("--scale", f"{name}={n}")]
        self.compose(
            "up", "-d", "--wait", "--wait-timeout", str(int(timeout)), *scales, *services, timeout=timeout + 60
        )

    def sick(self) -> str:
        """The last lines of containers that are not well."""
        told = []
        for container in self.containers():
            well = container["State"] == "running" and container["Health"] in ("", "healthy")
            if not well and not (container["State"] == "exited" and container["ExitCode"] == 0):
                logs = subprocess.run(
                    ["docker", "logs", "--tail", "15", container["Name"]], capture_output=True, text=True
                )
                told.append(f"== {container['Name']} {container['Status']}\n{logs.stdout}{logs.stderr}")
        return "\n".join(told)

    def containers(self, service: str | None = None) -> list[dict[str, Any]]:
        """The project's containers as `docker compose ps` tells them."""
        out = self.compose("ps", "--all", "--format", "json", *([service] if service else []), check=False).stdout
        lines = [json.loads(line) for line in out.splitlines() if line.strip()]
        return lines[0] if lines and isinstance(lines[0], list) else lines

    def crash(self, service: str) -> None:
        """Kill the main process of a service's first container, as a crash would: the restart policy is what brings it back."""
        name = self.containers(service)[0]["Name"]
        before = self._inspect(name, "{{.State.StartedAt}}")
        os.kill(int(self._inspect(name, "{{.State.Pid}}")), signal.SIGKILL)
        eventually(
            lambda: (
                self._inspect(name, "{{.State.Running}} {{.State.StartedAt}}")
                not in (f"true {before}", f"false {before}")
            ),
            120,
        )

    def _inspect(self, name: str, form: str) -> str:
        return subprocess.run(
            ["docker", "inspect", "-f", form, name], capture_output=True, text=True, check=True
        ).stdout.strip()

    def url(self, port: str, path: str = "") -> str:
        return f"http://127.0.0.1:{self.ports[port]}{path}"

    def get(self, port: str, path: str, **query: str) -> Any:
        """A JSON answer of a service."""
        return call("GET", f"{self.url(port, path)}{'?' + urllib.parse.urlencode(query) if query else ''}")

    def prometheus(self, expression: str) -> list[dict[str, Any]]:
        """What an instant query gives."""
        return self.get("PROMETHEUS_PORT", "/api/v1/query", query=expression)["data"]["result"]

    def grafana(self, method: str, path: str, body: Any = None) -> Any:
        """A call of Grafana's API."""
        login = base64.b64encode(f"admin:{self.secret('grafana_password')}".encode()).decode()
        return call(method, self.url("GRAFANA_PORT", path), body, Authorization=f"Basic {login}")

    def host_environment(self) -> dict[str, str]:
        """What `init env` tells a shell of the host, without its own VQE_ and AWS_ variables."""
        if self._told is None:
            self._told = self.compose("run", "--rm", "--no-deps", "-T", "init", "env").stdout
        lines = self._told.splitlines()
        pairs = [line.removeprefix("export ").split("=", 1) for line in lines if line.startswith("export ")]
        own = {k: v for k, v in os.environ.items() if not k.startswith(("VQE_", "AWS_"))}
        return {**own, **{name: value.strip("'") for name, value in pairs}}

    def secret(self, name: str) -> str:
        """A secret as its owner sees it."""
        if name not in self._secrets:
            self._secrets[name] = self.compose(
                "run", "--rm", "--no-deps", "-T", "--entrypoint", "cat", "init", f"/secrets/all/{name}"
            ).stdout.strip()  # fmt: skip
        return self._secrets[name]

    def vqe(
        self, *arguments: str, check: bool = True, timeout: float = 600, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """The `vqe` command on the host, against the stack."""
        done = subprocess.run(
            [sys.executable, "-m", "simulator.cli.main", *arguments],
            env={**self.host_environment(), **environment}, capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip
        assert not check or done.returncode == 0, (
            f"vqe {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        return done

    def sql(self, question: str) -> list[dict[str, Any]]:
        """Rows that `vqe sql` gives on the host."""
        rows: list[dict[str, Any]] = json.loads(self.vqe("sql", question, "--format", "json").stdout)
        return rows

    def run(self, *arguments: str) -> list[dict[str, Any]]:
        """`docker compose run --rm simulator run ... --json`: one object a run."""
        out = self.compose("run", "--rm", "-T", "simulator", "run", *arguments, "--json", timeout=900).stdout
        return [json.loads(line) for line in out.splitlines() if line.startswith("{")]

    def spark_sql(self, statement: str) -> str:
        """Spark SQL on the cluster."""
        return self.compose(
            "exec", "-T", "-e", "VQE_SPARK_MASTER=spark://spark-master:7077", "airflow-scheduler", "with-secrets",
            "/opt/vqe/bin/python", "-m", "spark_jobs.spark.session", "sql", "-S", "-e", statement, timeout=600,
        ).stdout  # fmt: skip

    def airflow(self, method: str, path: str, body: Any = None) -> Any:
        """A call of Airflow's REST API."""
        login = {"username": "admin", "password": self.secret("airflow_password")}
        token = call("POST", self.url("AIRFLOW_PORT", "/auth/token"), login)["access_token"]
        return call(method, self.url("AIRFLOW_PORT", f"/api/v2{path}"), body, Authorization=f"Bearer {token}")

    def commands(self) -> dict[str, str]:
        """The command lines of all processes in running containers, as `ps` shows them on the host; by container."""
        found = {}
        for container in self.containers():
            if container["State"] == "running":
                top = subprocess.run(
                    ["docker", "top", container["Name"], "-eo", "pid,args", "-ww"], capture_output=True, text=True
                )
                found[container["Name"]] = top.stdout
        return found

    def batch(self, limit: float = 900, **conf: Any) -> str:
        """Trigger quantum_processing_dag and wait; the state in which it ended."""
        dag = "/dags/quantum_processing_dag"
        eventually(lambda: self.airflow("GET", dag), 180)
        run = self.airflow("POST", f"{dag}/dagRuns", {"logical_date": None, "conf": conf})["dag_run_id"]
        run = urllib.parse.quote(run)
        eventually(
            lambda: self.airflow("GET", f"{dag}/dagRuns/{run}")["state"] in ("success", "failed"), limit, pause=5
        )
        return self.airflow("GET", f"{dag}/dagRuns/{run}")["state"]

    def down(self, *, data: bool) -> None:
        """Stop and remove the containers; with `data` the volumes, too, and then nothing is worth a long farewell."""
        how = ["-t", "2", "--volumes"] if data else ["-t", "20"]
        self.compose("down", "--remove-orphans", *how, timeout=300)


def call(method: str, url: str, body: Any = None, **headers: str) -> Any:
    request = urllib.request.Request(
        url,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json", **headers},
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
        return json.load(answer)
