"""The declarations: what they say holds in events, in Iceberg and in the docs."""

from pathlib import Path

import pytest

from simulator.events import schemas
from spark_jobs import tables
from spark_jobs.arrow import builder as arrow_builder
from spark_jobs.tables import DATA_TABLES, TABLES, Constant, Item, Position, Source, Table

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("table", DATA_TABLES, ids=lambda t: t.name)
def test_every_path_is_in_the_newest_schema_of_its_topic(table: Table) -> None:
    assert table.sources
    for source in table.sources:
        arrow_builder.check_paths(table, source)


@pytest.mark.parametrize("table", TABLES, ids=lambda t: t.name)
def test_every_column_says_what_it_is(table: Table) -> None:
    assert [c.name for c in table.columns if not table.doc_of(c).strip()] == []


@pytest.mark.parametrize("table", TABLES, ids=lambda t: t.name)
def test_key_columns_are_required_and_the_reason_of_the_partition_is_written(table: Table) -> None:
    assert all(table.column(name).required for name in table.key)
    assert len(table.partition_reason) > 20
    assert table.partition is None or table.column(table.partition).type == "timestamptz"


def test_every_sunk_stream_feeds_a_table() -> None:
    assert {s.stream for t in DATA_TABLES for s in t.sources} == set(schemas.STREAMS)


def test_the_nine_tables_have_the_keys_of_the_design() -> None:
    assert {t.name: t.key for t in TABLES if t.name != "quality_issues"} == {
        "molecules": ("molecule_id",),
        "vqe_results": ("run_id",),
        "vqe_iterations": ("run_id", "iteration"),
        "vqe_parameters": ("run_id", "parameter_index"),
        "hamiltonians": ("hamiltonian_id", "term_index"),
        "timing_metrics": ("run_id", "stage"),
        "accuracy_metrics": ("run_id", "reference"),
        "system_metrics": ("run_id", "sample_index"),
        "processing_metadata": ("source_path", "etag"),
    }


def test_the_docs_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "tables.md").read_text(encoding="utf-8")
    assert page == tables.markdown(), "run `python -m spark_jobs.tables`"


def test_a_constant_and_a_position_are_cast_to_the_column(tmp_path: Path) -> None:
    import pyarrow as pa

    table = Table(
        name="t",
        doc="",
        key=("stage",),
        columns=(
            tables.Column("stage", "string", Item("stage"), required=True, doc="s"),
            tables.Column("at", "double", Position(), doc="p"),
            tables.Column("one", "long", Constant(1), doc="c"),
            tables.Column("none", "string", Constant(None), doc="n"),
        ),
        sources=(),
        partition=None,
        partition_reason="none",
        sort=("stage",),
    )
    timing = pa.list_(pa.struct([("stage", pa.string())]))
    events = pa.table({"timings": pa.array([[{"stage": "a"}, {"stage": "b"}], None, [{"stage": "c"}]], timing)})
    rows = arrow_builder.rows_of(table, Source("x", explode="timings"), events)
    assert rows.to_pylist() == [
        {"stage": "a", "at": 0.0, "one": 1, "none": None},
        {"stage": "b", "at": 1.0, "one": 1, "none": None},
        {"stage": "c", "at": 0.0, "one": 1, "none": None},
    ]


def test_a_table_that_names_a_column_it_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="energi is none of its columns"):
        Table("t", "", ("energi",), (tables.Column("energy", "double"),), (), None, "none", ("energy",))
