"""vqe sql on a warehouse in S3: a query reads the files, row groups and columns that it needs, and answers as if it read all."""

import dataclasses
import random
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from counting_files import CountingFiles, count_reads
from raw_events import BEGIN, Run, random_iterations, write_runs

from simulator.errors import StorageError
from spark_jobs import query
from spark_jobs.arrow import batch
from spark_jobs.lock import lock_of
from spark_jobs.tables import TABLES, VQE_RESULTS, by_name
from spark_jobs.warehouse import Location, Warehouse

DAYS = 4


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four batches on four days, each with runs that completed, failed or repeat, and one that has no result."""
    root = tmp_path_factory.mktemp("pushdown")
    for day in range(DAYS):
        at = BEGIN + timedelta(days=day)
        runs = [
            Run(100 * day + i, at=at, molecule=i % 3, iterations=2 + i, references=i, n_parameters=i % 4)
            for i in range(5)
        ]
        runs[1].status = "failed"
        runs[2].overrides = {"spec_id": runs[0].ids["spec_id"], "energy": -1.1363, "notes": ["a", "b"]}
        write_runs(root, runs, number=day)
        batch.build(root)
    return root


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> CountingFiles:
    """Has every table read as one in S3 is, and counts what is read."""
    monkeypatch.setattr(query, "local_path", lambda location: None)
    return count_reads(monkeypatch)


def size_of(data_dir: Path, table: str) -> int:
    return sum(p.stat().st_size for p in (data_dir / "warehouse" / "vqe" / table / "data").rglob("*.parquet"))


# --- what is read --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "files"),
    [
        ("run_id = '{run}'", 1),
        ("run_id IN ('{run}', 'no such run')", 1),
        ("run_id LIKE '{run}%'", 1),
        ("recorded_at >= TIMESTAMP '2026-01-12 00:00:00' AND energy < 0", 2),
        ("recorded_at BETWEEN TIMESTAMP '2026-01-11 00:00:00' AND TIMESTAMP '2026-01-11 23:59:59.999999'", 1),
        ("run_id > 'ffff'", 0),
        ("seed >= 200 AND status = 'completed'", 2),
        ("seed < 100 OR seed > 1000", 1),
        ("run_id = '{run}' OR status = 'failed'", DAYS),
        ("UPPER(run_id) = UPPER('{run}')", DAYS),
    ],
)
def test_a_filter_leaves_out_files_by_what_the_manifests_say_of_them(
    data_dir: Path, counted: CountingFiles, where: str, files: int
) -> None:
    run = Run(200, at=BEGIN + timedelta(days=2)).run_id
    query.query(data_dir, f"SELECT energy FROM vqe_results WHERE {where.format(run=run)}")
    assert counted.files == files


@pytest.mark.parametrize(
    "text",
    [
        "WITH r AS (SELECT * FROM vqe_results) SELECT x.energy FROM r AS x WHERE x.run_id = '{run}'",
        "SELECT energy FROM (SELECT *, seed + 1 AS s FROM vqe.vqe_results) WHERE run_id = '{run}' AND s > 0",
        "SELECT r.energy FROM (SELECT '{run}' AS run_id) AS w JOIN vqe_results AS r USING (run_id)",
    ],
)
def test_a_filter_reaches_the_files_through_aliases_subqueries_and_joins(
    data_dir: Path, counted: CountingFiles, text: str
) -> None:
    run = Run(200, at=BEGIN + timedelta(days=2)).run_id
    assert query.query(data_dir, text.format(run=run)).rows.num_rows == 1
    assert counted.files == 1


def test_of_a_large_table_only_the_columns_and_rows_asked_for_are_read(tmp_path: Path, counted: CountingFiles) -> None:
    """20 MB of parameters in 4 files: an aggregate of a column, then one run."""
    table = by_name("vqe_iterations")
    location = Location.of(tmp_path)
    with lock_of(location) as lock, Warehouse(location, lock=lock) as warehouse:
        warehouse.prepare()
        for number in range(4):
            warehouse.append(
                table, warehouse.write(table, random_iterations(number, runs=10, of_each=400, n_parameters=160))
            )
        for each in warehouse.tables:  # the ledger is last
            warehouse.tag(each, "batch_1")
    whole = size_of(tmp_path, "vqe_iterations")
    assert whole > 18e6
    aggregate = query.query(tmp_path, "SELECT COUNT(*) AS n, MIN(energy) AS e FROM vqe_iterations")
    assert aggregate.rows["n"].to_pylist() == [16_000]
    assert 0 < counted.total < whole / 50
    counted.bytes_read.clear()
    one = query.query(tmp_path, f"SELECT parameters FROM vqe_iterations WHERE run_id = '{Run(2005).run_id}'")
    assert one.rows.num_rows == 400
    assert counted.files == 1
    assert whole / 50 < counted.total < whole / 3
    counted.bytes_read.clear()
    query.query(tmp_path, "SELECT MAX(parameters[0]) FROM vqe_iterations")
    assert counted.total > whole / 2, "what is read is not counted"


# --- the answers are those of a full read ---------------------------------------------------------------------------

Ask = Callable[[str], pa.Table]


@pytest.fixture(scope="module")
def both(data_dir: Path) -> Iterator[tuple[Ask, Ask]]:
    """Two ways to ask: of data files as they lie in S3, and of tables that were read whole into memory before."""
    everything = {c.name for t in TABLES for c in t.columns}
    with Warehouse.read(data_dir) as warehouse, duckdb.connect() as pushed, duckdb.connect() as whole:
        names = [*(t.name for t in warehouse.tables), *query.VIEWS]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(query, "local_path", lambda location: None)
            query._register(pushed, warehouse, warehouse.published()[-1], names, everything)
            patch.setattr(query, "_register_table", materialize)
            query._register(whole, warehouse, None, names, everything)

        def ask(connection: duckdb.DuckDBPyConnection) -> Ask:
            connection.execute("SET TimeZone = 'UTC'")
            return lambda text: query._rows(connection, query.parse(text).sql(dialect="duckdb"))

        yield ask(pushed), ask(whole)


def materialize(connection: duckdb.DuckDBPyConnection, warehouse: Warehouse, table, *_: object) -> None:
    connection.register("rows_of_table", warehouse.load(table).scan().to_arrow())
    connection.execute(f"CREATE TABLE vqe.{table.name} AS SELECT * FROM rows_of_table")
    connection.unregister("rows_of_table")


def hold_equal(both: tuple[Ask, Ask], text: str) -> int:
    pushed, whole = (ask(text) for ask in both)
    assert pushed.schema == whole.schema, text
    # sums of floats depend in their last digit on the order in which threads deliver rows
    rows = [
        sorted(repr({k: float(f"{v:.12g}") if isinstance(v, float) else v for k, v in row.items()}) for row in found)
        for found in (pushed.to_pylist(), whole.to_pylist())
    ]
    assert rows[0] == rows[1], text
    return whole.num_rows


RUN = Run(101, at=BEGIN + timedelta(days=1)).run_id  # failed: its energy is null

HANDWRITTEN = [
    *(f"SELECT * FROM {name}" for name in (*(t.name for t in TABLES), *query.VIEWS)),
    *(f"SELECT * FROM {name} WHERE run_id = '{RUN}'" for name in ("run_summary", "convergence", "vqe_features")),
    "SELECT COUNT(*) FROM vqe_results",
    "SELECT 1 AS one FROM vqe_iterations",
    # above the null-producing side of an outer join
    "SELECT r.run_id, i.energy FROM vqe_results r LEFT JOIN vqe_iterations i ON i.run_id = r.run_id AND i.iteration > 3 WHERE i.energy IS NULL",
    f"SELECT r.run_id, i.energy FROM vqe_results r LEFT JOIN vqe_iterations i ON i.run_id = r.run_id WHERE COALESCE(i.run_id, '') <> '{RUN}'",
    f"SELECT r.run_id, i.run_id FROM vqe_results r LEFT JOIN (SELECT * FROM vqe_iterations WHERE run_id = '{RUN}') i USING (run_id)",
    f"SELECT r.run_id, i.iteration FROM vqe_results r FULL JOIN vqe_iterations i ON r.run_id = i.run_id AND r.run_id = '{RUN}'",
    f"SELECT r.run_id, i.iteration FROM vqe_results r RIGHT JOIN vqe_iterations i ON r.run_id = i.run_id AND i.run_id > '{RUN}' WHERE r.run_id IS NULL OR r.energy IS NULL",
    "SELECT m.name, r.status FROM molecules m LEFT JOIN vqe_results r ON r.molecule_id = m.molecule_id AND r.status = 'failed' WHERE r.status IS NULL OR r.status = 'failed'",
    # existence and absence
    "SELECT run_id FROM vqe_results r WHERE NOT EXISTS (SELECT 1 FROM accuracy_metrics a WHERE a.run_id = r.run_id)",
    "SELECT run_id FROM vqe_results WHERE run_id NOT IN (SELECT run_id FROM accuracy_metrics WHERE energy IS NULL)",
    "SELECT run_id FROM vqe_results WHERE error NOT IN ('x', NULL)",
    "SELECT run_id FROM vqe_results r WHERE energy = (SELECT MIN(energy) FROM vqe_results q WHERE q.molecule_id = r.molecule_id)",
    "SELECT run_id FROM vqe_results LEFT ANTI JOIN accuracy_metrics USING (run_id)",
    # nulls, casts, times, lists, maps
    "SELECT run_id FROM vqe_results WHERE NOT (energy > -1.137)",
    "SELECT run_id FROM vqe_results WHERE energy IS DISTINCT FROM -1.1373",
    "SELECT run_id FROM vqe_results WHERE energy <=> NULL",
    # comparisons that Arrow does not have: their filters stay above the scans
    f"SELECT r.run_id FROM vqe_results r JOIN vqe_iterations i ON r.run_id = i.run_id WHERE r.run_id <=> '{RUN}'",
    "SELECT run_id FROM vqe_results WHERE recorded_at IN (TIMESTAMP '2026-01-10 12:00:02', TIMESTAMP '2026-01-11 12:01:42')",
    "SELECT run_id FROM vqe_results WHERE (energy = -1.1363) IS NOT TRUE",
    "SELECT run_id FROM vqe_results WHERE CAST(seed AS STRING) LIKE '10%'",
    "SELECT run_id FROM vqe_results WHERE seed = '101'",
    "SELECT run_id FROM vqe_results WHERE seed > 100.5",
    "SELECT run_id FROM vqe_results WHERE seed BETWEEN 100 AND 102.0",
    "SELECT run_id FROM vqe_results WHERE recorded_at = CAST('2026-01-11 12:01:42' AS TIMESTAMP)",
    "SELECT run_id FROM vqe_results WHERE recorded_at < TIMESTAMP '2026-01-12 14:00:00+02:00'",
    "SELECT run_id FROM vqe_results WHERE CAST(recorded_at AS DATE) = DATE '2026-01-12'",
    "SELECT run_id FROM vqe_results WHERE recorded_at > DATE '2026-01-12'",
    "SELECT run_id, parameters[0] AS p FROM vqe_iterations WHERE parameters[0] > 0",
    "SELECT run_id FROM vqe_iterations WHERE SIZE(parameters) = 0",
    "SELECT run_id, p FROM vqe_iterations LATERAL VIEW EXPLODE(parameters) t AS p WHERE p < 0",
    "SELECT run_id FROM vqe_results WHERE versions['numpy'] = '2.4.6' AND optimizer_options['ftol'] IS NOT NULL",
    "SELECT run_id FROM vqe_results WHERE notes = ARRAY('a', 'b')",
    "SELECT name FROM molecules WHERE elements[1] = 'H' AND geometry[1][2] > 0.705",
    "SELECT run_id FROM vqe_results WHERE notes IS NULL",
    # window, groups, sets, order and limit
    "SELECT run_id, ROW_NUMBER() OVER (PARTITION BY molecule_id ORDER BY run_id) AS n FROM vqe_results QUALIFY n = 1",
    f"SELECT * FROM (SELECT run_id, SUM(energy) OVER (ORDER BY run_id) AS s FROM vqe_results) WHERE run_id = '{RUN}'",
    "SELECT status, COUNT(*) AS n FROM vqe_results GROUP BY status HAVING COUNT(*) > 3 AND status <> 'x'",
    "SELECT run_id FROM vqe_results WHERE status = 'failed' UNION SELECT run_id FROM vqe_iterations WHERE iteration = 5",
    "SELECT run_id FROM vqe_results EXCEPT SELECT run_id FROM vqe_iterations WHERE iteration = 5",
    "SELECT run_id, iteration FROM vqe_iterations ORDER BY run_id DESC, iteration LIMIT 7 OFFSET 3",
    "SELECT DISTINCT molecule_id FROM vqe_results WHERE run_id >= ''",
    "SELECT a.run_id FROM vqe_results a, vqe_results b WHERE a.seed = b.seed + 100 AND b.status = 'failed'",
    "SELECT COUNT(DISTINCT run_id) FILTER (WHERE iteration > 2) AS n FROM vqe_iterations",
    "WITH a AS (SELECT * FROM vqe_results WHERE energy < 0), b AS (SELECT * FROM a WHERE seed > 200) SELECT b.run_id FROM b LEFT JOIN a USING (run_id)",
    "SELECT VQE_RESULTS.Run_Id FROM vqe.vqe_results WHERE STATUS = 'failed'",
    "SELECT run_id FROM vqe_results WHERE FALSE",
    "SELECT run_id FROM vqe_results WHERE NULL",
    "SELECT path.source_path FROM processing_metadata path WHERE source_path LIKE 'raw/vqe_result_v1/%' AND status = 'loaded'",
]  # fmt: skip


@pytest.mark.parametrize("text", HANDWRITTEN)
def test_an_answer_is_that_of_a_full_read(both: tuple[Ask, Ask], text: str) -> None:
    hold_equal(both, text)


def test_generated_queries_answer_as_a_full_read_does(both: tuple[Ask, Ask]) -> None:
    """300 queries with filters of all kinds, over one table, its join with another, or a subquery."""
    drawn = random.Random(7)
    with_rows = sum(hold_equal(both, generated(drawn, both[1])) > 0 for _ in range(300))
    assert with_rows > 100  # filters that nothing passes show little


def test_a_limit_without_order_gives_so_many_of_the_rows(both: tuple[Ask, Ask]) -> None:
    pushed, whole = both
    every = {repr(row) for row in whole("SELECT run_id, energy FROM vqe_results").to_pylist()}
    found = [repr(row) for row in pushed("SELECT run_id, energy FROM vqe_results LIMIT 7").to_pylist()]
    assert len(set(found)) == len(found) == 7
    assert set(found) <= every


def test_an_older_batch_is_read_as_of_its_tag(data_dir: Path, counted: CountingFiles) -> None:
    with Warehouse.read(data_dir) as warehouse:
        first = warehouse.published()[0]
    answer = query.query(data_dir, "SELECT COUNT(*) AS n FROM vqe_results WHERE energy < 0", as_of=first)
    assert (answer.rows["n"].to_pylist(), counted.files) == ([4], 1)


def test_a_column_that_files_do_not_have_yet_is_null(tmp_path: Path, counted: CountingFiles) -> None:
    earlier = dataclasses.replace(VQE_RESULTS, columns=tuple(c for c in VQE_RESULTS.columns if c.name != "host"))
    write_runs(tmp_path, [Run(0)])
    batch.build(tmp_path, tables=[earlier if t.name == "vqe_results" else t for t in TABLES])
    write_runs(tmp_path, [Run(1, at=BEGIN + timedelta(days=1))], number=1)
    batch.build(tmp_path)
    for where, hosts in (("TRUE", [None, "laptop"]), ("host IS NULL", [None]), ("host = 'laptop'", ["laptop"])):
        found = query.query(tmp_path, f"SELECT host FROM vqe_results WHERE {where} ORDER BY run_id").rows
        assert found["host"].to_pylist() == hosts


def test_a_file_that_is_gone_is_told_in_one_line_and_is_not_the_users_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query, "local_path", lambda location: None)
    write_runs(tmp_path, [Run(0)])
    batch.build(tmp_path)
    (gone,) = (tmp_path / "warehouse" / "vqe" / "vqe_results" / "data").rglob("*.parquet")
    gone.unlink()
    with pytest.raises(StorageError, match=gone.name) as error:
        query.query(tmp_path, "SELECT energy FROM vqe_results WHERE energy < 0")
    assert "\n" not in str(error.value)


def generated(drawn: random.Random, ask: Ask) -> str:
    """A query whose literals are values that stand in the tables."""
    table = by_name(drawn.choice(["vqe_results", "vqe_iterations", "accuracy_metrics", "timing_metrics"]))

    def value(column: str) -> str:
        if (table.name, column) not in VALUES:
            found = ask(f"SELECT DISTINCT CAST({column} AS STRING) AS v FROM {table.name} WHERE {column} IS NOT NULL")
            VALUES[table.name, column] = sorted(found["v"].to_pylist()) or ["0"]
        text = drawn.choice(VALUES[table.name, column])
        type_ = table.column(column).type
        if type_ in ("string", "timestamptz"):
            return ("TIMESTAMP " if type_ == "timestamptz" else "") + f"'{text}'"
        return text

    def predicate(alias: str, depth: int = 0) -> str:
        simple = [
            c.name for c in table.columns if c.type in ("string", "int", "long", "double", "timestamptz", "boolean")
        ]
        column = drawn.choice(simple if drawn.random() < 0.6 else ["run_id", "recorded_at"])
        name, type_ = f"{alias}.{column}", table.column(column).type
        kinds = ["null", "not null", "in", "not", "and", "or", "compare", "compare", "compare", "between", "distinct"]
        match drawn.choice([*kinds, *(["like"] if type_ == "string" else [])]):
            case "null":
                return f"{name} IS NULL"
            case "not null":
                return f"{name} IS NOT NULL"
            case "in":
                inside = [value(column) for _ in range(drawn.randint(1, 4))]
                return (
                    f"{name} {drawn.choice(['IN', 'NOT IN'])} ({', '.join([*inside, *drawn.choice([[], ['NULL']])])})"
                )
            case "between":
                return f"{name} BETWEEN {value(column)} AND {value(column)}"
            case "distinct":
                return f"{name} IS {drawn.choice(['', 'NOT '])}DISTINCT FROM {value(column)}"
            case "like":
                part = value(column).strip("'")[: drawn.randint(0, 12)]
                return f"{name} {drawn.choice(['LIKE', 'NOT LIKE'])} '{drawn.choice(['', '%'])}{part}%'"
            case "compare":
                return f"{name} {drawn.choice(['=', '<', '<=', '>', '>=', '<>'])} {value(column)}"
            case "not" if depth < 3:
                return f"NOT ({predicate(alias, depth + 1)})"
            case joint if depth < 3:
                return f"({predicate(alias, depth + 1)} {joint if joint != 'not' else 'and'} {predicate(alias, depth + 1)})"
            case _:
                return f"{name} IS NOT NULL"

    columns = ", ".join(f"t.{c}" for c in drawn.sample([c.name for c in table.columns], 3))
    match drawn.choice(["one", "one", "join", "nested", "group"]):
        case "one":
            return f"SELECT {columns} FROM {table.name} AS t WHERE {predicate('t')} AND {predicate('t')}"
        case "join":
            kind = drawn.choice(["INNER", "LEFT", "RIGHT", "FULL", "LEFT SEMI", "LEFT ANTI"])
            on = f"t.run_id = o.run_id AND {predicate('t')}"
            if kind in ("LEFT SEMI", "LEFT ANTI"):
                return f"SELECT {columns} FROM {table.name} AS t {kind} JOIN vqe_results AS o ON {on} WHERE {predicate('t')}"
            return (
                f"SELECT {columns}, o.energy AS other FROM {table.name} AS t {kind} JOIN vqe_results AS o ON {on} "
                f"WHERE {predicate('t')} OR o.status = 'failed'"
            )
        case "nested":
            return f"WITH c AS (SELECT * FROM {table.name} t WHERE {predicate('t')}) SELECT {columns} FROM c AS t WHERE {predicate('t')}"
        case _:
            return f"SELECT t.run_id, COUNT(*) AS n FROM {table.name} t WHERE {predicate('t')} GROUP BY t.run_id HAVING {predicate_of_group(drawn)}"


def predicate_of_group(drawn: random.Random) -> str:
    return drawn.choice(["COUNT(*) > 1", f"t.run_id > '{RUN}'", f"t.run_id = '{RUN}' OR COUNT(*) = 3"])


VALUES: dict[tuple[str, str], list[str]] = {}
