"""The tables, declared once: columns, keys, partition, sort order, and where in an event each value stands.

Two builders read these declarations, one on Arrow (`arrow/builder.py`) and one on Spark (`spark/builder.py`). They need no more than this:
a value is a path in the event, a path in the exploded element, a position or a constant, cast to the column's type.
What needs computing is computed where the event is made, or in SQL (`spark_jobs/sql`).

Names of types are Iceberg's, as Spark's DDL spells them but for `array`: string, boolean, int, long, double,
timestamptz, list<...>, map<string, ...>.

A column that is added later goes to the end of its table: Iceberg field ids are given in order.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from simulator.events import schemas

if TYPE_CHECKING:
    from pyiceberg.partitioning import PartitionSpec
    from pyiceberg.schema import Schema
    from pyiceberg.table.sorting import SortOrder
    from pyiceberg.types import IcebergType

NAMESPACE = "vqe"
LEDGER = "processing_metadata"
QUALITY_ISSUES = "quality_issues"


@dataclass(frozen=True)
class Path:
    """A value in the event, e.g. `spec.basis`; null where a record on the way is null."""

    at: str


@dataclass(frozen=True)
class Item:
    """A value in the element that the row was exploded from, e.g. `label` of `parameters`."""

    at: str


@dataclass(frozen=True)
class Position:
    """The element's position in the exploded list, from 0."""


@dataclass(frozen=True)
class Constant:
    """The same value in every row; `Constant(None)` where an event does not have what a column holds."""

    value: str | int | float | bool | None


Expression = Path | Item | Position | Constant


@dataclass(frozen=True)
class Column:
    """A column. Its value stands at `value` in events of the first major version; docs default to the event's."""

    name: str
    type: str
    value: Expression | None = None  # None: Path(name)
    required: bool = False
    doc: str = ""


@dataclass(frozen=True)
class Source:
    """A topic that gives a table rows: one a record, or one an element of the list at `explode`."""

    stream: str
    major: int = 1
    explode: str | None = None
    paths: Mapping[str, Expression] = field(default_factory=dict, hash=False)
    """Where this major version differs from the columns' own values."""

    @property
    def topic(self) -> str:
        return f"{self.stream}_v{self.major}"


@dataclass(frozen=True)
class Table:
    """A table: its name, what a row is, its key, and how it lies on disk."""

    name: str
    doc: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    sources: tuple[Source, ...]
    partition: str | None  # a timestamp column, by month
    partition_reason: str
    sort: tuple[str, ...]
    same: tuple[str, ...] | None = None
    """Columns that must be equal when a key comes again; None: all but the key and recorded_at."""

    def __post_init__(self) -> None:
        names = [c.name for c in self.columns]
        for name in (*self.key, *self.sort, *(self.same or ()), *([self.partition] if self.partition else [])):
            if name not in names:
                raise ValueError(f"table {self.name}: {name} is none of its columns")
        if len(set(names)) < len(names):
            raise ValueError(f"table {self.name}: a column is declared twice")

    @property
    def identifier(self) -> str:
        return f"{NAMESPACE}.{self.name}"

    @property
    def by_run(self) -> bool:
        """Whether the key begins with the run, whose ids are ordered by time: look-ups are then bounded by a range."""
        return self.key[0] == "run_id"

    def column(self, name: str) -> Column:
        return next(c for c in self.columns if c.name == name)

    def expression(self, source: Source, column: Column) -> Expression:
        """Where a column's value stands in the events of a source."""
        return source.paths.get(column.name) or column.value or Path(column.name)

    def doc_of(self, column: Column) -> str:
        """A column's doc: its own, else that of the event's field."""
        return column.doc or _event_doc(self, column)

    def comparable(self) -> list[str]:
        """Columns that are compared when a key comes again."""
        if self.same is not None:
            return list(self.same)
        return [c.name for c in self.columns if c.name not in (*self.key, "recorded_at")]


def _key(name: str, type_: str = "string", value: Expression | None = None) -> Column:
    return Column(name, type_, value, required=True)


RECORDED_AT = Column("recorded_at", "timestamptz", required=True)
_BY_MONTH = (
    "By month of recorded_at: a batch adds what is new, so it touches one or two months, and small files of a month are "
    "merged with each other; a partition a day would leave 365 small files a year, which every commit has to list. Within "
    "a month a question about a period, or look-up by run, is pruned by the minimum and maximum of recorded_at and run_id "
    "in each file, which are narrow because both are ordered by time."
)
_RUN_IDS = (Column("spec_id", "string"), Column("molecule_id", "string"), Column("hamiltonian_id", "string"))


MOLECULES = Table(
    name="molecules",
    doc="A molecule that a run began with: elements, geometry, charge and multiplicity; or, of an FCIDUMP, its integrals alone.",
    key=("molecule_id",),
    columns=(
        _key("molecule_id"),
        RECORDED_AT,
        Column("name", "string", Path("molecule_name"), doc="What the user called it when it was first seen."),
        Column(
            "formula",
            "string",
            Path("molecule.formula"),
            doc="Hill formula with charge, e.g. H2O; of integrals (FCIDUMP) their electrons and orbitals, e.g. 10e7o.",
        ),
        Column(
            "elements",
            "list<string>",
            Path("molecule.elements"),
            doc="Element symbols, one an atom; empty of integrals (FCIDUMP), of which no atoms are known.",
        ),
        Column("geometry", "list<list<double>>", Path("molecule.geometry")),
        Column(
            "charge", "int", Path("molecule.charge"), doc="Total charge; 0 where elements is empty: it is not known."
        ),
        Column("multiplicity", "int", Path("molecule.multiplicity")),
        Column("n_electrons", "int", Path("molecule.n_electrons")),
        Column(
            "nuclear_repulsion",
            "double",
            Path("molecule.nuclear_repulsion"),
            doc="Coulomb energy of the nuclei in hartree; 0 where elements is empty: an unknown part of the integrals' core energy.",
        ),
    ),
    sources=(Source("vqe_run"),),
    partition=None,
    partition_reason="None: a row a molecule, thousands at most, found by id from runs of any time.",
    sort=("molecule_id",),
    # geometries that agree to 1e-8 angstrom share an id: numbers that follow from them differ in their last bits
    same=("charge", "multiplicity", "n_electrons"),
)

VQE_RESULTS = Table(
    name="vqe_results",
    doc="A run that ended, however it ended: what was asked for, what came out and why it stopped.",
    key=("run_id",),
    columns=(
        _key("run_id"),
        RECORDED_AT,
        Column("started_at", "timestamptz"),
        Column("finished_at", "timestamptz"),
        Column("total_seconds", "double"),
        Column("spec_id", "string"),
        Column("molecule_id", "string"),
        Column("problem_id", "string"),
        Column("hamiltonian_id", "string"),
        Column("sweep_id", "string"),
        Column("attempt", "int"),
        Column("molecule_name", "string"),
        Column("formula", "string"),
        Column("status", "string", doc="How the run ended: completed, failed or interrupted."),
        Column("error", "string"),
        Column("physical", "boolean"),
        Column("physical_reason", "string"),
        Column("converged", "boolean"),
        Column("convergence_reason", "string"),
        Column("energy", "double"),
        Column("standard_error", "double"),
        Column("hf_energy", "double"),
        Column("reference_name", "string"),
        Column("reference_energy", "double"),
        Column("error_mha", "double"),
        Column("chemical_accuracy", "boolean"),
        Column("aer_energy", "double"),
        Column("aer_reason", "string"),
        Column("electron_number", "double"),
        Column("s_squared", "double"),
        Column("s_squared_expected", "double"),
        Column("energy_offset", "double"),
        Column("nuclear_repulsion", "double"),
        Column("n_active_electrons", "int"),
        Column("n_orbitals", "int"),
        Column("n_qubits", "int"),
        Column("n_terms", "int"),
        Column("n_parameters", "int"),
        Column("circuit_depth", "int"),
        Column("two_qubit_gates", "int"),
        Column("iterations", "int"),
        Column("evaluations", "long"),
        Column("gradient_evaluations", "long"),
        Column("spec_version", "int", Path("spec.spec_version")),
        Column("charge", "int", Path("spec.charge")),
        Column("multiplicity", "int", Path("spec.multiplicity")),
        Column(
            "basis", "string", Path("spec.basis"), doc="Basis set, by PySCF's name; fcidump where integrals were given."
        ),
        Column("active_electrons", "int", Path("spec.active_electrons")),
        Column("active_orbitals", "int", Path("spec.active_orbitals")),
        Column("freeze_core", "boolean", Path("spec.freeze_core")),
        Column("mapper", "string", Path("spec.mapper")),
        Column("ansatz", "string", Path("spec.ansatz")),
        Column("reps", "int", Path("spec.reps")),
        Column("optimizer", "string", Path("spec.optimizer")),
        Column("optimizer_options", "map<string, string>", Path("spec.optimizer_options")),
        Column("max_iterations", "int", Path("spec.max_iterations")),
        Column("tolerance", "double", Path("spec.tolerance")),
        Column("initial_point", "string", Path("spec.initial_point")),
        Column("seed", "long", Path("spec.seed")),
        Column("engine", "string", Path("spec.engine")),
        Column("aer_method", "string", Path("spec.aer_method")),
        Column("device", "string", Path("spec.device")),
        Column("precision", "string", Path("spec.precision")),
        Column("shots", "int", Path("spec.shots")),
        Column("noise_one_qubit", "double", Path("spec.noise.one_qubit")),
        Column("noise_two_qubit", "double", Path("spec.noise.two_qubit")),
        Column("noise_readout", "double", Path("spec.noise.readout")),
        Column("spec_json", "string"),
        Column("promised_iterations", "long", Path("counts.iterations")),
        Column("promised_system_metrics", "long", Path("counts.system_metrics")),
        Column("promised_hamiltonian_chunks", "long", Path("counts.hamiltonian_chunks")),
        Column("promised_hamiltonian_terms", "long", Path("counts.hamiltonian_terms")),
        Column("notes", "list<string>"),
        Column("host", "string"),
        Column("versions", "map<string, string>"),
        Column("ecp", "string"),
        Column("ecp_electrons", "int"),
        Column("orbitals", "list<string>"),
        Column("natural_orbitals", "int"),
        Column("orbital_numbers", "list<int>"),
        Column("resumed_from", "string"),
    ),
    sources=(Source("vqe_result"),),
    partition="recorded_at",
    partition_reason=_BY_MONTH,
    sort=("run_id",),
)

VQE_ITERATIONS = Table(
    name="vqe_iterations",
    doc="An optimizer iteration of a run; iteration 0 is the initial point.",
    key=("run_id", "iteration"),
    columns=(
        _key("run_id"),
        _key("iteration", "int"),
        RECORDED_AT,
        Column("energy", "double"),
        Column("error_mha", "double"),
        Column("standard_error", "double"),
        Column("gradient_norm", "double"),
        Column("evaluations", "long"),
        Column("gradient_evaluations", "long"),
        Column("elapsed_seconds", "double"),
        Column("parameters", "list<double>"),
    ),
    sources=(Source("vqe_iteration"),),
    partition="recorded_at",
    partition_reason=_BY_MONTH,
    sort=("run_id", "iteration"),
)

VQE_PARAMETERS = Table(
    name="vqe_parameters",
    doc="A parameter of a run's ansatz: what it turns, where it began and where it ended.",
    key=("run_id", "parameter_index"),
    columns=(
        _key("run_id"),
        _key("parameter_index", "int", Item("parameter_index")),
        RECORDED_AT,
        Column("label", "string", Item("label")),
        Column("initial", "double", Item("initial")),
        Column("optimal", "double", Item("optimal")),
        *_RUN_IDS,
    ),
    sources=(Source("vqe_result", explode="parameters"),),
    partition="recorded_at",
    partition_reason=_BY_MONTH,
    sort=("run_id", "parameter_index"),
)

HAMILTONIANS = Table(
    name="hamiltonians",
    doc="A term of a qubit Hamiltonian: a Pauli string and its coefficient.",
    key=("hamiltonian_id", "term_index"),
    columns=(
        _key("hamiltonian_id"),
        _key("term_index", "int", Item("term_index")),
        RECORDED_AT,
        Column("pauli", "string", Item("pauli")),
        Column("coefficient", "double", Item("coefficient")),
        Column("problem_id", "string"),
        Column("mapper", "string"),
        Column("n_qubits", "int"),
        Column("n_terms", "int"),
        Column("energy_offset", "double"),
    ),
    sources=(Source("vqe_hamiltonian", explode="terms"),),
    partition=None,
    partition_reason="None: an operator is found by its id, whenever it was first seen; rows lie sorted by id.",
    sort=("hamiltonian_id", "term_index"),
    # two problems can have one operator; coefficients that agree to 1e-10 share an id
    same=("pauli", "coefficient", "n_qubits", "n_terms", "energy_offset"),
)

TIMING_METRICS = Table(
    name="timing_metrics",
    doc="Time that a run spent in a stage.",
    key=("run_id", "stage"),
    columns=(
        _key("run_id"),
        _key("stage", "string", Item("stage")),
        RECORDED_AT,
        Column("stage_index", "int", Position(), doc="Position among the run's stages, from 0."),
        Column("seconds", "double", Item("seconds")),
        Column("calls", "long", Item("calls")),
        *_RUN_IDS,
    ),
    sources=(Source("vqe_result", explode="timings"),),
    partition="recorded_at",
    partition_reason=_BY_MONTH,
    sort=("run_id", "stage"),
)

ACCURACY_METRICS = Table(
    name="accuracy_metrics",
    doc="A run's energy against a reference; a reference that is missing is a row with the reason.",
    key=("run_id", "reference"),
    columns=(
        _key("run_id"),
        _key("reference", "string", Item("name")),
        RECORDED_AT,
        Column("reference_energy", "double", Item("energy")),
        Column("energy", "double"),
        Column("error_mha", "double", Item("error_mha")),
        Column("chemical_accuracy", "boolean", Item("chemical_accuracy")),
        Column("correlation_share", "double", Item("correlation_share")),
        Column("s_squared", "double", Item("s_squared")),
        Column("source", "string", Item("source")),
        Column("reason", "string", Item("reason")),
        *_RUN_IDS,
    ),
    sources=(Source("vqe_result", explode="references"),),
    partition="recorded_at",
    partition_reason=_BY_MONTH,
    sort=("run_id", "reference"),
)

SYSTEM_METRICS = Table(
    name="system_metrics",
    doc="A sample of a run's use of the machine.",
    key=("run_id", "sample_index"),
    columns=(
        _key("run_id"),
        _key("sample_index", "int"),
        RECORDED_AT,
        Column("elapsed_seconds", "double"),
        Column("interval_seconds", "double"),
        Column("process_cpu_percent", "double"),
        Column("system_cpu_percent", "double"),
        Column("memory_rss_bytes", "long"),
        Column("memory_available_bytes", "long"),
        Column("threads", "int"),
        Column("disk_read_bytes", "long"),
        Column("disk_write_bytes", "long"),
        Column("gpu_names", "list<string>"),
        Column("gpu_utilization_percent", "list<double>"),
        Column("gpu_memory_used_bytes", "list<long>"),
        Column("gpu_power_watts", "list<double>"),
        Column("gpu_temperature_celsius", "list<double>"),
    ),
    sources=(Source("vqe_system_metrics"),),
    partition="recorded_at",
    partition_reason=_BY_MONTH,
    sort=("run_id", "sample_index"),
)

PROCESSING_METADATA = Table(
    name=LEDGER,
    doc="The ledger: a raw object that a batch loaded or rejected.",
    key=("source_path", "etag"),
    columns=(
        Column("source_path", "string", required=True, doc="Path from the store's root, e.g. raw/vqe_run_v1/..."),
        Column(
            "etag", "string", required=True, doc="MD5 of the content, in hex, as S3 gives it for an object in one part."
        ),
        Column("batch_id", "string", required=True, doc="The batch: a UUIDv7, above those of all batches before."),
        Column("status", "string", required=True, doc="loaded, or rejected: no row of the object was taken."),
        Column("error", "string", doc="Why the object was rejected."),
        Column("topic", "string", required=True, doc="Topic of the object's records."),
        Column("raw_partition", "string", required=True, doc="Kafka partition, or `local`."),
        Column("size_bytes", "long", required=True, doc="Size of the object."),
        Column("records", "long", doc="Records in the object; null where it was rejected."),
        Column("first_event_at", "timestamptz", doc="Earliest recorded_at in the object."),
        Column("last_event_at", "timestamptz", doc="Latest recorded_at in the object."),
        Column("code_version", "string", required=True, doc="Version of the package that read it."),
        Column("processed_at", "timestamptz", required=True, doc="When the batch read it, UTC."),
        Column(
            "run_ids",
            "list<string>",
            doc="Runs that the object's records are of, sorted; null where its records are of none, or it was rejected.",
        ),
    ),
    sources=(),
    partition=None,
    partition_reason="None: a row an object; what a batch asks of it stands in a property of the table, and `reconcile` reads it whole.",
    sort=("source_path",),
)

ISSUES = Table(
    name=QUALITY_ISSUES,
    doc="What the checks found: a promise of the data that does not hold.",
    key=("issue_id",),
    columns=(
        Column(
            "issue_id",
            "string",
            required=True,
            doc="SHA-256 of check, table and key, in hex: found again, it is one row.",
        ),
        Column("found_at", "timestamptz", required=True, doc="When it was first found, UTC."),
        Column("batch_id", "string", required=True, doc="The batch that found it."),
        Column(
            "check_name", "string", required=True, doc="missing_records, run_without_result, key_with_other_values."
        ),
        Column("table_name", "string", required=True, doc="The table that the issue is about."),
        Column("row_key", "string", required=True, doc="Key of the row or run, as JSON."),
        Column("detail", "string", required=True, doc="What was expected and what was found."),
        Column("source_path", "string", doc="The raw object, where one is to blame."),
    ),
    sources=(),
    partition=None,
    partition_reason="None: issues are few.",
    sort=("issue_id",),
)

DATA_TABLES = (
    MOLECULES,
    VQE_RESULTS,
    VQE_ITERATIONS,
    VQE_PARAMETERS,
    HAMILTONIANS,
    TIMING_METRICS,
    ACCURACY_METRICS,
    SYSTEM_METRICS,
)
"""The eight tables that events give, in the order in which a batch commits them."""

TABLES = (*DATA_TABLES, ISSUES, PROCESSING_METADATA)
"""All tables, in the order in which a batch commits them: the ledger last."""


def by_name(name: str, tables: tuple[Table, ...] = TABLES) -> Table:
    """The table of that name.

    Raises:
        KeyError: there is none.
    """
    for table in tables:
        if table.name == name:
            return table
    raise KeyError(name)


def fed_by(topic: str, tables: tuple[Table, ...] = DATA_TABLES) -> list[tuple[Table, Source]]:
    """Tables that a topic gives rows, each with the source that says how."""
    return [(table, source) for table in tables for source in table.sources if source.topic == topic]


def streams_of(tables: Iterable[Table] = DATA_TABLES) -> frozenset[str]:
    """Streams whose topics give these tables rows, of whatever major version."""
    return frozenset(source.stream for table in tables for source in table.sources)


def result_tables(tables: Iterable[Table] = DATA_TABLES) -> tuple[Table, ...]:
    """Tables with one row for each run that ended: their key is the run alone."""
    return tuple(table for table in tables if table.sources and table.key == ("run_id",))


def with_source(table: Table, source: Source) -> Table:
    """The table with one more topic, e.g. the next major version of its stream."""
    return replace(table, sources=(*table.sources, source))


# --- what the declarations mean to Iceberg -------------------------------------------------------------------------


@cache
def iceberg_schema(table: Table) -> "Schema":
    """The Iceberg schema: top-level ids in declared order from 1, then ids of elements, as Iceberg gives fresh ids."""
    from itertools import count

    from pyiceberg.schema import Schema
    from pyiceberg.types import NestedField

    nested = count(len(table.columns) + 1)
    fields = [
        NestedField(i, c.name, iceberg_type(c.type, nested), required=c.required, doc=table.doc_of(c))
        for i, c in enumerate(table.columns, start=1)
    ]
    return Schema(*fields)


def iceberg_type(name: str, ids: Iterator[int]) -> "IcebergType":
    """The Iceberg type of a declared one; `ids` gives field ids of elements, keys and values."""
    from pyiceberg import types

    name = name.strip()
    if inner := re.fullmatch(r"list<(.+)>", name):
        element_id = next(ids)
        return types.ListType(element_id, iceberg_type(inner[1], ids), element_required=False)
    if inner := re.fullmatch(r"map<string, *(.+)>", name):
        key_id, value_id = next(ids), next(ids)
        return types.MapType(key_id, types.StringType(), value_id, iceberg_type(inner[1], ids), value_required=False)
    scalars = {
        "string": types.StringType(),
        "boolean": types.BooleanType(),
        "int": types.IntegerType(),
        "long": types.LongType(),
        "double": types.DoubleType(),
        "timestamptz": types.TimestamptzType(),
    }
    if name not in scalars:
        raise ValueError(f"unknown type {name!r} (known: {', '.join(scalars)}, list<...>, map<string, ...>)")
    return scalars[name]


def iceberg_partition(table: Table) -> "PartitionSpec":
    """The partition: the month of a timestamp, or none."""
    from pyiceberg.partitioning import (
        PARTITION_FIELD_ID_START,
        UNPARTITIONED_PARTITION_SPEC,
        PartitionField,
        PartitionSpec,
    )
    from pyiceberg.transforms import MonthTransform

    if table.partition is None:
        return UNPARTITIONED_PARTITION_SPEC
    source_id = iceberg_schema(table).find_field(table.partition).field_id
    month = PartitionField(source_id, PARTITION_FIELD_ID_START, MonthTransform(), f"{table.partition}_month")
    return PartitionSpec(month)


def iceberg_sort(table: Table) -> "SortOrder":
    """The sort order, ascending."""
    from pyiceberg.table.sorting import SortField, SortOrder
    from pyiceberg.transforms import IdentityTransform

    schema = iceberg_schema(table)
    return SortOrder(
        *(SortField(schema.find_field(name).field_id, transform=IdentityTransform()) for name in table.sort)
    )


# --- what the declarations mean to a reader ------------------------------------------------------------------------


def event_field(schema: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The Avro field at a path of an event's schema.

    Raises:
        KeyError: a name on the path is no field.
    """
    record: Any = schema
    found: dict[str, Any] = {}
    for name in path.split("."):
        record = _plain(record)
        if record.get("type") == "array":
            record = _plain(record["items"])
        fields = {f["name"]: f for f in record.get("fields", ())}
        if name not in fields:
            raise KeyError(f"{schema['name']} v{schema['version']} has no field {path}")
        found = fields[name]
        record = found["type"]
    return found


def _plain(avro_type: Any) -> Any:
    """An Avro type without its null branch."""
    if isinstance(avro_type, list):
        avro_type = next(t for t in avro_type if t != "null")
    return avro_type if isinstance(avro_type, dict) else {"type": avro_type}


@cache
def _event_doc(table: Table, column: Column) -> str:
    for source in table.sources:
        expression = table.expression(source, column)
        if isinstance(expression, Path | Item) and source.topic in schemas.released():
            prefix = f"{source.explode}." if isinstance(expression, Item) else ""
            return str(event_field(schemas.newest(source.topic), prefix + expression.at).get("doc", ""))
    return ""


def markdown(tables: tuple[Table, ...] = TABLES) -> str:
    """The reference page of all tables, `docs/tables.md`."""
    lines = [
        "# Tables",
        "",
        "Generated from `spark_jobs/tables.py` by `python -m spark_jobs.tables`; a test checks that it is up to date.",
        "Energies are total energies in hartree unless the name says otherwise. Field ids are Iceberg's.",
        "",
        "| table | a row is | key |",
        "|---|---|---|",
        *(f"| [{t.name}](#{t.name}) | {t.doc} | {', '.join(t.key)} |" for t in tables),
    ]
    for table in tables:
        topics = ", ".join(f"`{s.topic}`" + (f" (exploded: `{s.explode}`)" if s.explode else "") for s in table.sources)
        lines += [
            "",
            f"## {table.name}",
            "",
            table.doc,
            "",
            f"- Key: {', '.join(f'`{k}`' for k in table.key)}",
            f"- From: {topics or 'the build itself'}",
            f"- Partition: {table.partition_reason}",
            f"- Sorted by: {', '.join(f'`{s}`' for s in table.sort)}",
            "",
            "| id | column | type | required | what it is | where in the event |",
            "|---|---|---|---|---|---|",
        ]
        for i, column in enumerate(table.columns, start=1):
            where = "; ".join(dict.fromkeys(_where(table, source, column) for source in table.sources))
            required = "yes" if column.required else ""
            doc = table.doc_of(column).replace("|", "\\|")
            lines.append(f"| {i} | `{column.name}` | {column.type} | {required} | {doc} | {where} |")
    return "\n".join(lines) + "\n"


def _where(table: Table, source: Source, column: Column) -> str:
    match table.expression(source, column):
        case Path(at):
            return f"`{at}`"
        case Item(at):
            return f"`{source.explode}[].{at}`"
        case Position():
            return f"position in `{source.explode}`"
        case Constant(value):
            return f"constant {value!r}"


if __name__ == "__main__":
    from pathlib import Path as FilePath

    (FilePath(__file__).resolve().parent.parent / "docs" / "tables.md").write_text(markdown(), encoding="utf-8")
