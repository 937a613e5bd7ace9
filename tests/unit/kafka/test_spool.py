"""The spool: a record's bytes as Kafka gets them, read while they are written, and what a dead process left."""

import io
import os

import fastavro
import pytest
from samples import an_iteration

from simulator.errors import InputError
from simulator.events import schemas
from simulator.events.avro import zigzag
from simulator.events.records import to_record
from simulator.kafka.clients import kafka_config
from simulator.kafka.spool import SpoolReader, SpoolWriter, orphans, spool_bytes
from simulator.settings import Settings

SCHEMA = schemas.current("vqe_iteration")


def written(spool, n: int, size: int = 4) -> SpoolWriter:
    writer = SpoolWriter(spool, SCHEMA)
    for i in range(n):
        writer.write(to_record(an_iteration(i, run_id=f"run-{i % 3}", n=size)))
    writer.flush()
    return writer


def test_a_spool_file_is_an_avro_container_that_anything_reads(tmp_path):
    writer = written(tmp_path, 7)
    writer.finish().close()
    with open(writer.path, "rb") as file:
        assert [r["iteration"] for r in fastavro.reader(file)] == list(range(7))


def test_a_reader_gives_each_record_as_kafka_gets_it(tmp_path):
    writer = written(tmp_path, 7)
    reader = SpoolReader(writer.path)
    records = list(reader.records())
    assert [r.key for r in records] == [f"run-{i % 3}".encode() for i in range(7)]
    decoded = [fastavro.schemaless_reader(io.BytesIO(r.payload), SCHEMA, None) for r in records]
    assert [r["iteration"] for r in decoded] == list(range(7))
    assert records[-1].end == writer.path.stat().st_size
    reader.close()
    writer.release()


def test_what_is_acknowledged_is_not_read_again_also_by_another_process(tmp_path):
    writer = written(tmp_path, 5)
    reader = SpoolReader(writer.path)
    reader.acknowledge(list(reader.records())[2].end)
    assert len(list(reader.records())) == 2
    reader.close()
    again = SpoolReader(writer.path)
    assert len(list(again.records())) == 2
    again.close()
    writer.release()


def test_a_file_is_read_while_it_grows_up_to_its_last_whole_record(tmp_path):
    writer = written(tmp_path, 2)
    reader = SpoolReader(writer.path)
    reader.acknowledge(list(reader.records())[-1].end)
    assert list(reader.records()) == []
    writer.write(to_record(an_iteration(2)))
    writer.flush()
    (record,) = reader.records()
    size = writer.path.stat().st_size
    for cut in range(1, size - reader.acknowledged):
        os.truncate(writer.path, size - cut)
        assert list(reader.records()) == [], "a record that is not whole is not sent"
        break
    assert record.end == size
    reader.close()
    writer.release()


def test_a_record_larger_than_a_chunk_is_read_whole(tmp_path):
    writer = written(tmp_path, 3, size=5_000)
    reader = SpoolReader(writer.path)
    assert len(list(reader.records(limit=1_000))) >= 1
    assert next(iter(reader.records(limit=1_000))).key == b"run-0"
    reader.close()
    writer.release()


def test_behind_damage_inside_a_file_the_next_whole_record_is_found(tmp_path):
    writer = written(tmp_path, 5)
    whole = SpoolReader(writer.path)
    ends = [r.end for r in whole.records()]
    whole.close()
    writer.release()
    content = bytearray(writer.path.read_bytes())
    content[ends[1] : ends[1] + 2] = b"\xff\xff"  # the third record's count and length
    writer.path.write_bytes(content)
    (reader,) = orphans(tmp_path)
    reader.acknowledge(list(reader.records())[-1].end)
    assert not list(reader.records())
    assert reader.skip_damage()
    rest = list(reader.records())
    assert [r.end for r in rest] == ends[3:]
    reader.acknowledge(rest[-1].end)
    assert not reader.skip_damage()
    reader.remove(tmp_path / "rejected")
    assert [p.read_bytes() for p in (tmp_path / "rejected").iterdir()] == [bytes(content)]
    assert not list(orphans(tmp_path))


def test_a_file_that_was_cut_at_its_end_is_not_damaged_inside(tmp_path):
    writer = written(tmp_path, 3)
    writer.release()
    writer.path.write_bytes(writer.path.read_bytes()[:-5])
    (reader,) = orphans(tmp_path)
    reader.acknowledge(list(reader.records())[-1].end)
    assert not reader.skip_damage()
    reader.remove(tmp_path / "rejected")
    assert not (tmp_path / "rejected").exists()


def test_orphans_are_what_no_living_process_holds_oldest_first(tmp_path):
    first, second = written(tmp_path, 1), written(tmp_path, 2)
    held = written(tmp_path, 3)
    first.release()
    second.release()
    found = list(orphans(tmp_path))
    assert [reader.path for reader in found] == [first.path, second.path]
    assert list(orphans(tmp_path)) == [], "they are locked by whoever found them"
    for reader in found:
        reader.remove()
    assert list((tmp_path / "vqe_iteration_v1").iterdir()) == [held.path]
    held.release()


@pytest.mark.parametrize("content", [b"", b"Obj\x01", b"Obj\x01\x04\x14avro.codec"])
def test_a_file_whose_header_is_not_whole_holds_nothing_and_goes(tmp_path, content):
    folder = tmp_path / "vqe_iteration_v1"
    folder.mkdir()
    (folder / "a.avro").write_bytes(content)
    assert list(orphans(tmp_path)) == []
    assert list(folder.iterdir()) == []


def test_the_spool_knows_its_size(tmp_path):
    assert spool_bytes(tmp_path) == 0
    writer = written(tmp_path, 100)
    assert spool_bytes(tmp_path) == writer.path.stat().st_size == writer.size
    writer.release()


@pytest.mark.parametrize("value", [0, 1, 63, 64, 127, 128, 8_191, 8_192, 10**6, 2**40])
def test_lengths_are_written_as_avro_writes_them(value):
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, "long", value)
    assert zigzag(value) == buffer.getvalue()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"kafka_security_protocol": "SASL_SSL"}, "VQE_KAFKA_USERNAME"),
        ({"kafka_username": "vqe"}, "not PLAINTEXT"),
        ({"kafka_ssl_ca": "/nowhere/ca.pem"}, "certificates go with SSL"),
        ({"kafka_security_protocol": "SSL", "kafka_ssl_ca": "/nowhere/ca.pem"}, "no such file"),
        ({"kafka_security_protocol": "SSL", "kafka_ssl_key": __file__}, "mTLS needs both"),
    ],
)
def test_connection_settings_that_cannot_work_are_refused_before_a_run(given, says):
    with pytest.raises(InputError, match=says):
        kafka_config(Settings(**given))


def test_every_connection_setting_reaches_the_client(tmp_path):
    for name in ("ca", "crt", "key"):
        (tmp_path / name).write_text("x")
    config = kafka_config(
        Settings(
            kafka_bootstrap_servers="a:1,b:2", kafka_security_protocol="SASL_SSL", kafka_sasl_mechanism="PLAIN",
            kafka_username="u", kafka_password="p", kafka_ssl_ca=tmp_path / "ca", kafka_ssl_certificate=tmp_path / "crt",
            kafka_ssl_key=tmp_path / "key", kafka_ssl_key_password="k",
        )
    )  # fmt: skip
    assert config["bootstrap.servers"] == "a:1,b:2"
    assert config["sasl.mechanism"] == "PLAIN"
    assert (config["sasl.username"], config["sasl.password"], config["ssl.key.password"]) == ("u", "p", "k")
    assert config["ssl.ca.location"].endswith("/ca")
    assert config["ssl.certificate.location"].endswith("/crt")
    assert config["ssl.key.location"].endswith("/key")


@pytest.mark.parametrize("values", [None, [], [0.0], [-0.0, 1e-300, 3.5], [float(i) / 7 for i in range(200)]])
def test_what_is_encoded_apart_has_the_bytes_that_fastavro_writes(tmp_path, values):
    record = {**to_record(an_iteration(3)), "parameters": values}
    writer = SpoolWriter(tmp_path, SCHEMA)
    writer.write(record)
    writer.flush()
    expected = io.BytesIO()
    fastavro.schemaless_writer(expected, SCHEMA, record)
    reader = SpoolReader(writer.path)
    assert [r.payload for r in reader.records()] == [expected.getvalue()]
    reader.close()
    writer.release()


def test_what_does_not_fit_the_schema_is_refused_and_the_file_is_as_before(tmp_path):
    writer = written(tmp_path, 2)
    for bad in ({"parameters": ["x"]}, {"energy": "low"}):
        with pytest.raises((TypeError, ValueError)):
            writer.write({**to_record(an_iteration(9)), **bad})
    writer.finish().close()
    with open(writer.path, "rb") as file:
        assert [r["iteration"] for r in fastavro.reader(file)] == [0, 1]


def test_what_kafka_has_is_not_sent_again_where_the_note_of_it_does_not_fit_on_the_disk(tmp_path, monkeypatch):
    writer = written(tmp_path, 3)
    reader = SpoolReader(writer.path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    reader.acknowledge(list(reader.records())[1].end)
    assert len(list(reader.records())) == 1
    monkeypatch.undo()
    reader.close()
    writer.release()
