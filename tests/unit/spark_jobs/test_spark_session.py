"""Spark's sessions and shells: shuffles fit the batch; shells get the catalog's settings, and show no password."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from spark_jobs.spark.session import PARTITION_BYTES, fit_partitions

ENVIRONMENT = {
    "VQE_CATALOG_URI": "postgresql+psycopg2://vqe:pass%5Cword@db:5432/lake",
    "VQE_WAREHOUSE": "s3://bucket/warehouse",
    "VQE_SPARK_MASTER": "local[3]",
    "AWS_ENDPOINT_URL": "http://minio:9000",
    "AWS_REGION": "us-east-1",
}

SHELL = """#!{python}
import json, os, pathlib, sys
at = sys.argv.index("--properties-file") + 1
told = {{"arguments": sys.argv[1:], "conf": pathlib.Path(sys.argv[at]).read_text(),
        "mode": os.stat(sys.argv[at]).st_mode & 0o777,
        "environment": {{k: v for k, v in os.environ.items() if k.startswith("PYSPARK_")}}}}
pathlib.Path(sys.argv[0]).with_suffix(".json").write_text(json.dumps(told))
raise SystemExit(7)
"""


def call(tmp_path: Path, name: str, *arguments: str) -> dict:
    """Runs the module with a program `name` in SPARK_HOME that tells how it was called."""
    program = tmp_path / "bin" / name
    program.parent.mkdir()
    program.write_text(SHELL.format(python=sys.executable))
    program.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-m", "spark_jobs.spark.session", *arguments],
        env={"PATH": "/usr/bin:/bin", "SPARK_HOME": str(tmp_path), **ENVIRONMENT},
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 7, done.stderr
    told = json.loads(program.with_suffix(".json").read_text())
    told["conf"] = dict(line.split(" ", 1) for line in told["conf"].splitlines())
    return told


def test_the_sql_shell_gets_the_catalog_and_the_arguments(tmp_path: Path) -> None:
    told = call(tmp_path, "spark-sql", "sql", "-e", "select 1")
    assert told["arguments"][2:] == ["-e", "select 1"]
    assert "word" not in str(told["arguments"])
    assert told["mode"] == 0o600
    conf = told["conf"]
    assert conf["spark.master"] == "local[3]"
    assert conf["spark.sql.defaultCatalog"] == "vqe"
    assert conf["spark.sql.catalog.vqe.uri"] == "jdbc:postgresql://db:5432/lake"
    assert conf["spark.sql.catalog.vqe.jdbc.password"] == r"pass\\word"  # a properties file reads it as one backslash
    assert conf["spark.sql.catalogImplementation"] == "in-memory"
    assert told["environment"] == {"PYSPARK_PYTHON": sys.executable}


def test_the_notebook_is_jupyter_with_a_session_of_the_same_settings(tmp_path: Path) -> None:
    told = call(tmp_path, "pyspark", "notebook", "--driver-memory", "2g")
    assert told["arguments"][2:] == ["--driver-memory", "2g"]
    assert told["conf"]["spark.sql.catalog.vqe.warehouse"] == "s3://bucket/warehouse"
    assert told["environment"]["PYSPARK_DRIVER_PYTHON"] == "jupyter"
    assert told["environment"]["PYSPARK_DRIVER_PYTHON_OPTS"] == "lab"


@pytest.mark.parametrize("arguments", [[], ["shell"]])
def test_another_word_is_refused_with_the_usage(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "spark_jobs.spark.session", *arguments], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "sql|notebook" in done.stderr


class Session:
    """What `fit_partitions` needs of a session: its settings, its context's settings, and cores."""

    def __init__(self, cores: int, **given: str) -> None:
        self.defaultParallelism = cores
        self.given = {"spark.sql." + name.replace("_", "."): value for name, value in given.items()}
        self.told: dict[str, str] = {}
        self.sparkContext = self.conf = self

    def getConf(self) -> "Session":
        return self

    def contains(self, name: str) -> bool:
        return name in self.given

    def set(self, name: str, value: str) -> None:
        self.told[name] = value


@pytest.mark.parametrize(
    ("cores", "size", "partitions"),
    [(2, 0, "4"), (2, 1000, "4"), (2, 10 * PARTITION_BYTES + 1, "11"), (32, 10 * PARTITION_BYTES, "64")],
)
def test_shuffles_have_two_partitions_a_core_or_what_the_batch_needs(cores: int, size: int, partitions: str) -> None:
    session = Session(cores)
    fit_partitions(session, size)
    assert session.told == {"spark.sql.shuffle.partitions": partitions}


def test_a_setting_of_the_partitions_wins() -> None:
    session = Session(2, shuffle_partitions="200")
    fit_partitions(session, 1)
    assert session.told == {}
