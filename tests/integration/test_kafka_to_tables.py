"""From Kafka through Connect and S3 to the tables: the same rows as the file sink gives, whatever is killed on the way."""

import copy
import json
import threading
import time
from collections import defaultdict
from pathlib import Path

import fastavro
import pytest

from simulator.events import schemas
from simulator.kafka.spool import SpoolWriter
from spark_jobs.arrow.batch import build
from spark_jobs.maintenance import verify
from spark_jobs.query import query
from spark_jobs.raw import S3Store
from spark_jobs.tables import DATA_TABLES, TABLES
from tests.services.probes import BUCKET, eventually

from .platform import Platform

pytest_plugins = ["tests.services.fixtures"]


@pytest.fixture
def bucket(stack):
    """The bucket without raw objects of earlier tests."""
    client = stack.s3()
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="raw/"):
        if keys := [{"Key": item["Key"]} for item in page.get("Contents", [])]:
            client.delete_objects(Bucket=BUCKET, Delete={"Objects": keys})
    return client


def stored_records(client) -> int:
    """Records in the bucket, from the objects' metadata."""
    total = 0
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="raw/"):
        for item in page.get("Contents", []):
            total += int(client.head_object(Bucket=BUCKET, Key=item["Key"])["Metadata"]["records"])
    return total


def sent_records(platform: Platform) -> int:
    return len([m for where, m in platform.messages("vqe_") if schemas.SUNK_TOPICS.fullmatch(where[0])])


def spool_again(raw: Path, platform: Platform) -> int:
    """Put the records of raw files into the spool, as the Kafka sink would have; returns how many."""
    count = 0
    for path in sorted(raw.glob("*/partition=local/*.avro")):
        with open(path, "rb") as file:
            reader = fastavro.reader(file)
            writer = SpoolWriter(platform.settings().spool_dir, schemas.newest(path.parent.parent.name))
            for record in reader:
                writer.write(record)
                count += 1
            writer.finish().close()
    return count


def rows(data_dir: Path, table) -> list[tuple]:
    found = query(data_dir, f"select * from {table.name}", views=False).rows
    keys = [found.column_names.index(name) for name in table.key]
    plain = [tuple(repr(v) for v in row.values()) for row in found.to_pylist()]
    return sorted(plain, key=lambda row: tuple(row[i] for i in keys))


def ledger_totals(data_dir: Path) -> dict:
    totals: dict = defaultdict(lambda: [0, None, None])
    statement = "select topic, records, first_event_at, last_event_at from processing_metadata"
    for row in query(data_dir, statement).rows.to_pylist():
        entry = totals[row["topic"]]
        entry[0] += row["records"]
        entry[1] = min(filter(None, (entry[1], row["first_event_at"])), default=None)
        entry[2] = max(filter(None, (entry[2], row["last_event_at"])), default=None)
    return dict(totals)


def test_raw_objects_in_s3_give_the_same_rows_as_the_file_sink(platform, connector, bucket, tmp_path):
    local = tmp_path / "local"
    platform.vqe("run", "h2", "lih", "oh", "--repeat", "2", "--data-dir", str(local))
    platform.vqe("run", "h2", "--basis", "no-such-basis", "--data-dir", str(local), check=2)
    platform.vqe("run", "heh+", "--shots", "200", "--optimizer", "spsa", "--max-iterations", "5", "--data-dir", str(local), check=None)  # fmt: skip
    expected = spool_again(local / "raw", platform)
    platform.vqe("replay")
    connector("equal", settings={"flush.ms": "1000"})
    eventually(lambda: stored_records(bucket) == expected, 120, f"{expected} records in the bucket")
    from_s3 = tmp_path / "from-s3"
    report = build(from_s3, store=S3Store(BUCKET, bucket))
    assert report.rejected == ()
    for table in DATA_TABLES:
        assert rows(from_s3, table) == rows(local, table), table.name
        assert rows(local, table), f"{table.name} is empty: nothing was compared"
    assert ledger_totals(from_s3) == ledger_totals(local)


@pytest.mark.parametrize("victim", ["connect", "minio", "kafka", "registry"])
def test_promised_counts_equal_rows_whatever_is_killed_on_the_way(platform, stack, connector, bucket, tmp_path, victim):
    connector(f"killed-{victim}", settings={"flush.ms": "500", "flush.records": "20"})
    with platform.started("run", "lih", "h2o", "nh3", "--repeat", "3", "--sink", "kafka", "--json") as process:
        drained = threading.Thread(target=process.communicate, kwargs={"timeout": 240})
        drained.start()
        eventually(lambda: platform.messages("vqe_result_v"), 120, "a first result")
        stack.kill(victim)
        time.sleep(2)
        stack.start(victim)
        drained.join()
    assert process.returncode == 0
    platform.vqe("replay", check=None)
    assert len(platform.check_promises()) == 9
    wanted = sent_records(platform)
    eventually(lambda: stored_records(bucket) == wanted, 180, f"{wanted} records in the bucket")
    data_dir = tmp_path / "tables"
    build(data_dir, store=S3Store(BUCKET, bucket))
    assert verify(data_dir) == []
    promised = "select sum(promised_iterations) as promised from vqe_results"
    held = "select count(*) as held, count(distinct run_id, iteration) as keys from vqe_iterations"
    (totals,) = query(data_dir, promised).rows.to_pylist()
    (found,) = query(data_dir, held).rows.to_pylist()
    assert found["held"] == found["keys"] == totals["promised"]


def test_a_second_major_version_flows_beside_the_first(platform, connector, bucket, tmp_path, monkeypatch):
    """v2 of vqe_iteration renames the energy: registry, topics.regex, sink, transforms and tables take both."""
    from confluent_kafka.admin import NewTopic
    from confluent_kafka.schema_registry import Schema

    from simulator.kafka.clients import make_admin, make_registry

    v2 = copy.deepcopy(schemas.newest("vqe_iteration_v1"))
    v2["version"] = "2.0"
    for field in v2["fields"]:
        if field["name"] == "energy":
            field["name"] = "total_energy"
    with make_registry(platform.settings()) as client:
        client.register_schema("vqe_iteration_v2-value", Schema(json.dumps(v2), "AVRO"))
    admin = make_admin(platform.settings())
    admin.create_topics([NewTopic("vqe_iteration_v2", 2, 1)])["vqe_iteration_v2"].result(30)
    connector("two-majors", settings={"flush.ms": "500"})
    platform.vqe("run", "h2", "--sink", "kafka")
    writer = SpoolWriter(platform.settings().spool_dir, v2)
    for i in range(3):
        writer.write(
            {"run_id": "v2-run", "recorded_at": 1_800_000_000_000_000, "iteration": i, "total_energy": -2.5, "error_mha": None,
             "standard_error": None, "gradient_norm": None, "evaluations": i, "gradient_evaluations": 0,
             "elapsed_seconds": 0.1, "parameters": [0.5]}
        )  # fmt: skip
    writer.finish().close()
    platform.vqe("replay")
    wanted = sent_records(platform)
    eventually(lambda: stored_records(bucket) == wanted, 120, f"{wanted} records in the bucket")

    released = {**schemas.released(), "vqe_iteration_v2": [v2]}
    monkeypatch.setattr(schemas, "released", lambda: released)
    tables = tuple(_with_v2(table) for table in TABLES)
    data_dir = tmp_path / "tables"
    build(data_dir, store=S3Store(BUCKET, bucket), tables=tables)
    found = query(data_dir, "select run_id, iteration, energy from vqe_iterations", tables=tables).rows.to_pylist()
    assert sorted((r["iteration"], r["energy"]) for r in found if r["run_id"] == "v2-run") == [
        (0, -2.5),
        (1, -2.5),
        (2, -2.5),
    ]
    assert len(found) > 3, "the first version's rows are there as well"


def _with_v2(table):
    from spark_jobs.tables import Path as EventPath
    from spark_jobs.tables import Source, with_source

    if table.name != "vqe_iterations":
        return table
    return with_source(table, Source("vqe_iteration", major=2, paths={"energy": EventPath("total_energy")}))
