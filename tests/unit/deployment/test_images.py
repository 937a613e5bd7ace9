"""The images' lock files hold what pyproject.toml asks for, and never both builds of Aer; the compose files fit each other."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def locked(name: str) -> dict[str, Version]:
    text = (ROOT / "docker" / "requirements" / f"{name}.txt").read_text()
    return {m[1]: Version(m[2]) for m in re.finditer(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE)}


def asked(*extras: str) -> list[Requirement]:
    lists = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in extras)]
    return [Requirement(line) for lines in lists for line in lines if not line.startswith("vqe-pipeline")]


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_a_lock_file_holds_every_requirement_in_its_range(name):
    found = locked(name)
    for requirement in asked("kafka", "lake", "s3"):
        wanted = requirement.name
        if name == "gpu" and wanted == "qiskit-aer":
            wanted = "qiskit-aer-gpu"
        assert wanted in found, f"{wanted}: run docker/requirements/compile.sh"
        assert found[wanted] in requirement.specifier, f"{wanted} {found[wanted]}: run docker/requirements/compile.sh"


def test_the_gpu_image_has_one_build_of_aer():
    assert "qiskit-aer" not in locked("gpu")
    assert "qiskit-aer-gpu" not in locked("cpu")


def test_driver_and_executors_have_the_same_versions():
    cpu, spark = locked("cpu"), locked("spark")
    assert {n: v for n, v in spark.items() if n in cpu} == {n: cpu[n] for n in spark if n in cpu}


def test_every_variable_of_the_compose_files_is_documented():
    used = set()
    for path in ROOT.glob("docker-compose*.yml"):
        used |= set(re.findall(r"(?<!\$)\$\{([A-Z0-9_]+)", path.read_text()))
    documented = set(re.findall(r"^#?([A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert used == documented


def compose(name: str) -> dict[str, dict[str, Any]]:
    """The services of a compose file."""
    services: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / name).read_text())["services"]
    return services


@pytest.mark.parametrize("name", sorted(p.name for p in ROOT.glob("docker-compose*.yml")))
def test_ports_are_open_to_this_host_only(name):
    ports = [(service, port) for service, of in compose(name).items() for port in of.get("ports", [])]
    assert not [(service, port) for service, port in ports if not port.startswith("127.0.0.1:")]


def test_with_the_logs_overlay_every_service_sends_its_lines_to_promtail():
    base, overlay = compose("docker-compose.yml"), compose("docker-compose.logs.yml")
    assert overlay.keys() - base.keys() == {"loki", "promtail"}
    published = overlay["promtail"]["ports"][0]
    for name in base:
        logging = overlay.get(name, {}).get("logging", {"driver": "that of docker-compose.yml"})
        assert logging["driver"] == "gelf", name
        address = logging["options"]["gelf-address"].removeprefix("udp://")
        assert published == f"{address}:12201/udp", name
        assert logging["options"]["labels"] == "com.docker.compose.service", name


def test_with_the_logs_overlay_nothing_starts_before_promtail():
    overlay = compose("docker-compose.logs.yml")
    for name, service in compose("docker-compose.yml").items():
        waits = service.get("depends_on") or overlay[name].get("depends_on", {}).get("promtail")
        assert waits, f"{name} starts before Promtail: *logs-first"


def test_the_logs_overlay_mounts_nothing_into_a_folder_of_the_repository():
    mounts = [
        m for name in ("docker-compose.yml", "docker-compose.logs.yml") for m in compose(name)["grafana"]["volumes"]
    ]
    targets = {m.split(":")[1] for m in mounts}
    assert not [(a, b) for a in targets for b in targets if b.startswith(a + "/")], "Docker would make a file there"
