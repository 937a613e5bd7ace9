"""What is installed: the wheel carries all that the command needs, and folders import only what they may."""

import ast
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FORBIDDEN = {
    "simulator": {"pyspark", "airflow"},
    "spark_jobs": {"qiskit", "qiskit_aer", "qiskit_nature", "pyscf", "airflow"},
}


@pytest.mark.parametrize("folder", sorted(FORBIDDEN))
def test_a_folder_imports_only_what_it_may(folder):
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.append(node.module)
            bad = {n.split(".")[0] for n in names} & FORBIDDEN[folder]
            assert not bad, f"{path.relative_to(ROOT)} imports {', '.join(bad)}"


def test_the_wheel_works_outside_the_checkout(tmp_path):
    """The wheel is unpacked next to nothing; the dependencies come from this environment."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        check=True, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("vqe_pipeline-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert sum(name.startswith("simulator/_schemas/") for name in names) == len(list((ROOT / "schemas").glob("*.avsc")))
    migrations = {f"simulator/queue/migrations/{name}" for name in ("env.py", "versions/v0001_jobs.py")}
    assert migrations <= set(names)
    assert any(name.endswith("entry_points.txt") for name in names)
    assert not any(name.startswith(("tests/", "benchmarks/")) for name in names)
    script = (
        "import simulator; assert '/site/' in simulator.__file__, simulator.__file__\n"
        "from simulator.events import schemas; assert len(schemas.released()) == 5\n"
        "from simulator.cli.main import _run, main; assert _run(['jobs', 'migrate']) == 0\n"
        "main(['run', 'h2', '--json'])"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '"status": "completed"' in done.stdout
    assert (tmp_path / "vqe-data" / "warehouse" / "catalog.db").exists()


def test_versions_stand_in_one_place():
    import simulator

    assert f"## {simulator.__version__}" in (ROOT / "CHANGELOG.md").read_text()
