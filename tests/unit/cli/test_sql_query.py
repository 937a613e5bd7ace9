"""vqe sql: Spark's SQL over the tables, which only reads, and says in one line what is wrong."""

import csv
import io
import json
from pathlib import Path

import pytest
from raw_events import Run, write_runs

from simulator.cli.sql import Format, sql
from simulator.errors import InputError
from spark_jobs.arrow import batch
from spark_jobs.query import VIEWS, query


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sql")
    runs = [
        Run(i, molecule=i % 2, iterations=3, references=3, status="failed" if i == 4 else "completed") for i in range(5)
    ]
    runs[2].overrides = {"spec_id": runs[0].ids["spec_id"], "energy": -1.1363}  # a repeat, 1 mHa apart
    write_runs(root, runs)
    batch.build(root)
    return root


def rows(data_dir: Path, text: str) -> list[tuple[object, ...]]:
    return [tuple(r.values()) for r in query(data_dir, text).rows.to_pylist()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("select count(*) from vqe_results", [(5,)]),
        ("SELECT COUNT(*) FROM vqe.vqe_results WHERE status = 'failed'", [(1,)]),
        ("select size(parameters), parameters[0] is not null from vqe_iterations limit 1", [(2, True)]),
        ("select count(*) from (select explode(parameters) as p from vqe_iterations)", [(30,)]),
        (
            "with r as (select run_id from vqe_results) select count(*) from r join vqe_iterations using (run_id)",
            [(15,)],
        ),
        ("select date_format(started_at, 'yyyy-MM-dd') from vqe_results order by run_id limit 1", [("2026-01-10",)]),
        ("select sum(iterations) from vqe_results", [(10,)]),
        ("select versions['numpy'] from vqe_results limit 1", [("2.4.6",)]),
        ("select count(*) from quality_issues", [(0,)]),
        ("select upper(molecule_name) from vqe_results union select 'x' order by 1", [("H2_0",), ("H2_1",), ("x",)]),
    ],
)
def test_spark_sql_is_answered(data_dir: Path, text: str, expected: list[tuple[object, ...]]) -> None:
    assert rows(data_dir, text) == expected


def test_results_without_a_name_are_named_as_they_were_written(data_dir: Path) -> None:
    answer = query(data_dir, "select count(*), max(energy) from vqe_results")
    assert answer.rows.column_names == ["COUNT(*)", "MAX(energy)"]
    assert str(answer.rows.schema.field(0).type) == "int64"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("select * from vqe_result", "no table vqe_result: did you mean vqe_results?"),
        ("select * from nowhere.vqe_results", "no table nowhere.vqe_results"),
        ("select enrgy from vqe_results", '"energy"'),
        ("select from where", "SQL error"),
        ("selec 1", "SQL error"),
        ("", "one statement at a time, not 0"),
        ("select 1; select 2", "one statement at a time, not 2"),
        ("drop table vqe_results", "only reads"),
        ("insert into vqe_results select * from vqe_results", "only reads"),
        ("create table t as select 1", "only reads"),
        ("delete from vqe_results", "only reads"),
        ("set memory_limit = '1GB'", "only reads"),
        ("select * from read_csv('/etc/passwd')", "SQL error: Permission Error"),
        ("select * from '/etc/passwd'", "no table"),
        ("select * from read_text('/etc/passwd')", "SQL error: Permission Error"),
        ("copy vqe_results to '/tmp/x.csv'", "only reads"),
        ("select sum(molecule_name) from vqe_results", "SQL error"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(data_dir: Path, text: str, told: str) -> None:
    with pytest.raises(InputError) as error:
        query(data_dir, text)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_show_tables_and_describe_tell_what_there_is(data_dir: Path) -> None:
    shown = query(data_dir, "SHOW TABLES;").rows
    assert {"molecules", "processing_metadata", "run_summary"} <= set(shown["name"].to_pylist())
    assert all(shown["what it is"].to_pylist())
    described = query(data_dir, "describe vqe.molecules").rows.to_pylist()
    assert described[0] == {
        "column": "molecule_id",
        "type": "varchar",
        "what it is": "SHA-256 of elements, geometry, charge and multiplicity, in hex.",
    }


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_answers_and_says_what_it_is(data_dir: Path, view: str) -> None:
    assert query(data_dir, f"select * from {view}").rows.num_rows > 0
    shown = {r["name"]: r["what it is"] for r in query(data_dir, "show tables").rows.to_pylist()}
    assert len(shown[view]) > 20


def test_views_answer_what_their_tables_hold(data_dir: Path) -> None:
    assert rows(data_dir, "select runs, spread_mha from repeats")[0][0] == 2
    assert rows(data_dir, "select spread_mha from repeats")[0][0] == pytest.approx(1.0)
    assert rows(data_dir, "select sum(runs) from accuracy_by_ansatz") == [(4,)]
    summary = "select optimization_seconds, optimization_share from run_summary limit 1"
    assert rows(data_dir, summary)[0] == pytest.approx((0.5, 0.25))
    changes = rows(
        data_dir, "select energy_change, best_energy, energy from convergence order by run_id, iteration limit 2"
    )
    assert changes[0][0] is None
    assert changes[1][0] == pytest.approx(-0.05)
    assert changes[1][1] == changes[1][2]
    assert rows(data_dir, "select sum(runs) from vqe.stage_times where stage = 'scf'") == [(5,)]


def test_a_data_dir_without_tables_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no tables: make a run in it"):
        query(tmp_path, "select 1")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_batch_is_told_with_those_that_are_kept(data_dir: Path) -> None:
    with pytest.raises(InputError, match=r"no batch ffff \(kept: 1, newest batch_0"):
        query(data_dir, "select 1", as_of="ffff")


def test_csv_and_json_print_nothing_but_rows(
    data_dir: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = "select run_id, energy, parameters, recorded_at from vqe_iterations order by run_id, iteration limit 2"
    sql(text, None, None, Format.csv, data_dir)
    out = capsys.readouterr()
    header, first, _ = list(csv.reader(io.StringIO(out.out)))
    assert (header, out.err) == (["run_id", "energy", "parameters", "recorded_at"], "")
    assert len(json.loads(first[2])) == 2
    file = tmp_path / "q.sql"
    file.write_text(f"{text};\n")
    sql(None, file, None, Format.json, data_dir)
    found = json.loads(capsys.readouterr().out)
    assert found[0]["recorded_at"] == "2026-01-10T12:00:00.001000+00:00"
    assert str(found[0]["energy"]) == first[1]


def test_a_table_shortens_ids_and_marks_nulls(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sql("select spec_id, sweep_id, energy from vqe_results order by run_id limit 1", None, None, Format.table, data_dir)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["spec_id", "sweep_id", "energy"]
    spec_id, sweep_id, energy = lines[1].split()
    assert (len(spec_id), spec_id[-1], sweep_id, energy) == (13, "…", "-", "-1.1373")


def test_sql_comes_from_the_argument_or_a_file_not_both(data_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="as an argument or with --file"):
        sql(None, None, None, Format.table, data_dir)
    with pytest.raises(InputError, match=r"cannot read .*missing\.sql: No such file"):
        sql(None, tmp_path / "missing.sql", None, Format.table, data_dir)
