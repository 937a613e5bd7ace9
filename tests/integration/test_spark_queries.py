"""The questions of docs/queries.md and the views, through Spark and through `vqe sql`: equal rows."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import study
from counting_files import count_reads
from raw_events import Run, random_iterations, write_runs

from spark_jobs.lock import lock_of
from spark_jobs.query import VIEWS, query
from spark_jobs.tables import by_name
from spark_jobs.warehouse import Location, Warehouse
from tests.services.lake import Driver, Lake, Place

pytest_plugins = ["tests.services.lake_fixtures"]
pytestmark = pytest.mark.timeout(600)


def test_questions_and_views_give_equal_rows_in_spark_and_in_vqe_sql(
    driver: Driver,
    place: Place,
    tmp_path: Path,
) -> None:
    study.write(tmp_path)
    first = study.runs()[0]
    again = study.Studied(100, settings=first.settings, error_mha=0.5)  # the same specification: a repeat
    assert again.spec_json == first.spec_json
    write_runs(tmp_path, [again], 1)
    place.put_folder(tmp_path)
    driver.run(place, "build")
    assert driver.run(place, "views")["made"] == list(VIEWS)
    assert driver.run(place, "views")["made"] == []
    views = {f"view {v}": f"SELECT * FROM {v}" for v in VIEWS}
    asked = {**study.questions(), **views}
    spark = driver.run(place, "queries", queries=asked)
    for heading, sql in asked.items():
        mine = [[_plain(v) for v in row.values()] for row in query(".", sql).rows.to_pylist()]
        theirs = [[_plain(v) for v in row] for row in spark[heading]]
        if heading.startswith("view"):
            mine, theirs = sorted(mine, key=repr), sorted(theirs, key=repr)
        assert len(mine) == len(theirs) > 0, heading
        for a, b in zip(mine, theirs, strict=True):
            assert a == [pytest.approx(v, rel=1e-9) if isinstance(v, float) else v for v in b], heading


def test_the_command_on_a_host_reads_the_tables_on_s3(place: Place, driver: Driver, tmp_path: Path) -> None:
    study.write(tmp_path)
    place.put_folder(tmp_path)
    driver.run(place, "build")

    def vqe(*arguments: str) -> str:
        command = [sys.executable, "-m", "simulator.cli.main", *arguments]
        done = subprocess.run(
            command, env={**os.environ, **place.environment}, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert '"rows": 23' in vqe("tables", "list", "--json", "--data-dir", str(tmp_path))
    assert "23" in vqe("sql", "select count(*) as n from vqe_results", "--data-dir", str(tmp_path))


def test_of_a_large_table_on_s3_a_query_reads_what_it_needs(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """32 MB of parameters in four objects: an aggregate reads one column of them, a run's iterations one object."""
    counted = count_reads(monkeypatch)
    location = Location.of(".")
    table = by_name("vqe_iterations")
    with lock_of(location) as lock, Warehouse(location, lock=lock) as warehouse:
        warehouse.prepare()
        for number in range(4):
            warehouse.append(table, warehouse.write(table, random_iterations(number, 10, 400, n_parameters=250)))
        for each in warehouse.tables:  # the ledger is last
            warehouse.tag(each, "batch_1")
    listed = place.s3.list_objects_v2(Bucket=place.bucket, Prefix="warehouse/vqe/vqe_iterations/data/")["Contents"]
    whole = sum(entry["Size"] for entry in listed)
    assert (len(listed), whole > 30e6) == (4, True)
    totals = query(".", "SELECT COUNT(*) AS n, MIN(energy) AS e FROM vqe_iterations WHERE iteration >= 0").rows
    assert totals["n"].to_pylist() == [16_000]
    assert (counted.files, counted.total < whole / 50) == (4, True), counted.bytes_read
    counted.bytes_read.clear()
    one = query(".", f"SELECT parameters FROM vqe_iterations WHERE run_id = '{Run(2005).run_id}'").rows
    assert one.num_rows == 400
    assert (counted.files, counted.total < whole / 3) == (1, True), counted.bytes_read


def test_sparks_own_shell_reaches_tables_and_views_and_leaves_nothing_behind(
    lake: Lake, place: Place, driver: Driver, tmp_path: Path
) -> None:
    study.write(tmp_path / "data")
    place.put_folder(tmp_path / "data")
    driver.run(place, "build")
    driver.run(place, "views")
    environment = lake.python_environment(place.environment)
    del environment["SPARK_HOME"]  # found beside the interpreter
    work = tmp_path / "work"
    work.mkdir()
    asked = "select count(*) n, 'runs' from vqe_results; select count(*) n, 'features' from vqe.vqe.vqe_features"
    done = subprocess.run(
        [lake.artifacts.spark_python, "-m", "spark_jobs.spark.session", "sql", "-e", asked],
        env=environment, cwd=work, capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert [line.split("\t") for line in done.stdout.splitlines()] == [["23", "runs"], ["22", "features"]]
    assert list(work.iterdir()) == []


def _plain(value: Any) -> Any:
    """Values alike in both: times as text to the microsecond, whole numbers as numbers."""
    if hasattr(value, "isoformat"):
        return value.isoformat(sep=" ").removesuffix("+00:00")
    if isinstance(value, str) and value[:2] == "20" and value[4:5] == "-" and value[10:11] == " ":
        return value.removesuffix("+00:00")
    return value
