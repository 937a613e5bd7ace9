"""Events: one dataclass a stream, each as its schema says, none larger than the limit."""

import dataclasses
import io
import json

import fastavro
import pytest
from samples import a_result

from simulator.chemistry.molecules import load_molecule
from simulator.events import schemas
from simulator.events.records import (
    MAX_RECORD_BYTES,
    STREAM_CLASSES,
    Iteration,
    Run,
    hamiltonian_events,
    new_id,
    now_micros,
    to_record,
)
from simulator.vqe.records import molecule_record, spec_record
from simulator.vqe.spec import MAX_PARAMETERS, make_spec


def encoded(event) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, schemas.current(event.stream), to_record(event), strict=True)
    return buffer.getvalue()


@pytest.mark.parametrize("cls", STREAM_CLASSES, ids=lambda c: c.stream)
def test_a_dataclass_has_exactly_the_fields_of_its_schema(cls):
    schema = schemas.current(cls.stream)
    assert {f.name for f in dataclasses.fields(cls)} == {f["name"] for f in schema["fields"]}


@pytest.mark.parametrize("topic", sorted(schemas.released()))
def test_every_schema_and_field_is_documented(topic):
    def check(node, where):
        if isinstance(node, list):
            for branch in node:
                check(branch, where)
        elif isinstance(node, dict):
            if node.get("type") == "record":
                assert node.get("doc"), where
                for field in node["fields"]:
                    assert field.get("doc"), f"{where}.{field['name']}"
                    check(field["type"], f"{where}.{field['name']}")
            for part in ("items", "values"):
                check(node.get(part), where)

    for schema in schemas.released()[topic]:
        check(schema, topic)


def test_topics_are_named_after_record_and_major_version():
    assert set(schemas.released()) == {
        "vqe_run_v1", "vqe_iteration_v1", "vqe_hamiltonian_v1", "vqe_system_metrics_v1", "vqe_result_v1",
    }  # fmt: skip
    assert all(schemas.SUNK_TOPICS.fullmatch(t) for t in schemas.released())
    assert not schemas.SUNK_TOPICS.fullmatch("vqe_connect_v1")


def test_the_specification_record_is_the_same_in_every_stream():
    def record_of(stream):
        return next(f["type"] for f in schemas.current(stream)["fields"] if f["name"] == "spec")

    assert record_of("vqe_run") == record_of("vqe_result")
    spec = make_spec(load_molecule("h2"))
    assert set(spec_record(spec)) == {f["name"] for f in record_of("vqe_run")["fields"]}


def test_events_fit_their_schemas_and_come_back_as_they_were():
    spec = make_spec(load_molecule("h2o"), optimizer_options={"maxcor": 12})
    run = Run(
        run_id=new_id(), recorded_at=now_micros(), spec_id=spec.spec_id, molecule_id=spec.molecule_id,
        problem_id=spec.problem_id, sweep_id=None, attempt=1, molecule_name="h2o",
        molecule=molecule_record(spec.molecule), spec=spec_record(spec), spec_json=spec.canonical_json(),
        host="host", process_id=1, versions={"python": "3"},
    )  # fmt: skip
    back = fastavro.schemaless_reader(io.BytesIO(encoded(run)), schemas.current("vqe_run"), None)
    assert back["spec"]["optimizer_options"]["maxcor"] == "12"
    assert sorted(back["molecule"]["elements"]) == ["H", "H", "O"]
    assert json.loads(back["spec_json"]) == spec.to_dict()


def test_no_record_is_larger_than_the_limit_at_the_most_parameters_allowed():
    assert len(encoded(a_result(MAX_PARAMETERS))) < MAX_RECORD_BYTES
    iteration = Iteration(new_id(), now_micros(), 1, -1.0, 0.1, None, 0.1, 1, 1, 0.1, [0.1] * MAX_PARAMETERS)
    assert len(encoded(iteration)) < MAX_RECORD_BYTES


def test_a_large_hamiltonian_is_sent_in_small_records_that_hold_every_term_once():
    labels = ["XYZI" * 10] * 4_001
    events = hamiltonian_events(
        hamiltonian_id="id", problem_id="p", mapper="jordan_wigner", n_qubits=40, energy_offset=0.5, labels=labels,
        coefficients=[0.1] * len(labels),
    )  # fmt: skip
    assert [len(e.terms) for e in events] == [2000, 2000, 1]
    assert [t["term_index"] for e in events for t in e.terms] == list(range(4_001))
    assert all(e.n_chunks == 3 and len(encoded(e)) < MAX_RECORD_BYTES for e in events)


def test_run_ids_are_ordered_by_time():
    ids = [new_id() for _ in range(2_000)]
    assert ids == sorted(ids)
    assert all(i[14] == "7" for i in ids)
