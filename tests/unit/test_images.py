"""The images' lock files hold what pyproject.toml asks for, and never both builds of Aer."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
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
