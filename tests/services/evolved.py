"""Event schemas that a later release could bring, for tests in this process and in a Spark driver's."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from simulator.events import schemas
from spark_jobs.tables import DATA_TABLES, RECORDED_AT, TABLES, Column, Constant, Path, Source, Table, with_source

Schema = dict[str, Any]


def result_v2() -> Schema:
    """`vqe_result` v2 moves two energies into a record and drops Aer's reason."""
    v2 = copy.deepcopy(schemas.newest("vqe_result_v1"))
    v2["version"] = "2.0"
    v2["fields"] = [f for f in v2["fields"] if f["name"] not in ("energy", "hf_energy", "aer_reason")]
    names = ("final", "hartree_fock")
    fields = [{"name": n, "type": ["null", "double"], "default": None} for n in names]
    v2["fields"].append(
        {"name": "energies", "type": {"type": "record", "name": "Energies", "fields": fields}, "doc": ""}
    )
    return v2


def iteration_v1_1() -> Schema:
    """`vqe_iteration` v1.1 adds a field."""
    v1_1 = copy.deepcopy(schemas.released()["vqe_iteration_v1"][0])  # of v1.0, whatever a test has released since
    v1_1["version"] = "1.1"
    v1_1["fields"].append({"name": "trust_radius", "type": ["null", "double"], "default": None, "doc": "Radius."})
    return v1_1


def as_v2(event: dict[str, Any], final: float | None) -> dict[str, Any]:
    """A result of v1 as v2 says it."""
    kept = {k: v for k, v in event.items() if k not in ("energy", "hf_energy", "aer_reason")}
    return kept | {"energies": {"final": final, "hartree_fock": event["hf_energy"]}}


def _schema(name: str, *fields: tuple[str, Any]) -> Schema:
    micros = {"type": "long", "logicalType": "timestamp-micros"}
    declared = [{"name": n, "type": t, "doc": n} for n, t in (*fields, ("recorded_at", micros))]
    return {"type": "record", "name": name, "version": "1.0", "fields": declared}


def _table(name: str, key: str, *columns: Column, partition: str | None = None) -> Table:
    return Table(
        name=name,
        doc="Of a task that this release does not know.",
        key=(key,),
        columns=(Column(key, "string", required=True), RECORDED_AT, *columns),
        sources=(Source(name.removesuffix("s")),),
        partition=partition,
        partition_reason="A toy of the tests.",
        sort=(key,),
    )


TOY_RESULT = _schema("toy_result", ("run_id", "string"), ("energy", "double"))
"""Runs of another kind: they have results, and none of them in `vqe_results`."""
TOY_CIRCUIT = _schema("toy_circuit", ("task_id", "string"), ("shots", "int"))
"""Tasks that are no runs."""
TOYS = (
    _table("toy_results", "run_id", Column("energy", "double"), partition="recorded_at"),
    _table("toy_circuits", "task_id", Column("shots", "int")),
)


def tables(version: str) -> tuple[Table, ...]:
    """The declarations of that release: `v2`, `v1.1` or `toys`."""
    if version == "toys":
        return (*DATA_TABLES, *TOYS, *TABLES[len(DATA_TABLES) :])
    if version == "v1.1":
        return tuple(
            replace(t, columns=(*t.columns, Column("trust_radius", "double"))) if t.name == "vqe_iterations" else t
            for t in TABLES
        )
    paths = {"energy": Path("energies.final"), "hf_energy": Path("energies.hartree_fock"), "aer_reason": Constant(None)}
    found = []
    for table in TABLES:
        source = next((s for s in table.sources if s.stream == "vqe_result"), None)
        found.append(table if source is None else with_source(table, replace(source, major=2, paths=paths)))
    return tuple(found)


def released(version: str) -> dict[str, list[Schema]]:
    """What `schemas.released` says then."""
    known = {topic: list(versions) for topic, versions in schemas.released().items()}
    new = {"v2": [result_v2()], "v1.1": [iteration_v1_1()], "toys": [TOY_RESULT, TOY_CIRCUIT]}[version]
    for schema in new:
        known.setdefault(schemas.topic_of(schema), []).append(schema)
    return known
