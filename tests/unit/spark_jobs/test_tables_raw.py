"""Raw objects: the same names and contents from a folder and from a bucket."""

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import raw_events
from raw_events import Run, object_path, put, write_runs

from spark_jobs import raw
from spark_jobs.arrow import batch
from spark_jobs.raw import LocalStore, S3Store

NOW = raw_events.BEGIN + timedelta(hours=1)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bucket in moto's S3, in this process."""
    import boto3
    import moto

    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with moto.mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket="local-vqe-results")
        yield client


def _upload(client: Any, data_dir: Path) -> None:
    for path in sorted((data_dir / "raw").rglob("*.avro")):
        key = str(path.relative_to(data_dir)).replace(os.sep, "/")
        client.put_object(Bucket="local-vqe-results", Key=key, Body=path.read_bytes())


def test_a_folder_and_a_bucket_name_the_same_objects(tmp_path: Path, bucket: Any) -> None:
    write_runs(tmp_path, [Run(0)])
    put(tmp_path, object_path("vqe_run_v1", 1, partition="3"), b"x")
    put(tmp_path, "raw/vqe_other_v1/partition=0/vqe_other_v1+0+0.avro", b"x")
    _upload(bucket, tmp_path)
    local = list(LocalStore(tmp_path).objects())
    remote = list(S3Store("local-vqe-results", bucket).objects())
    assert len(local) == 6
    assert [(o.path, o.topic, o.partition, o.size) for o in local] == [
        (o.path, o.topic, o.partition, o.size) for o in remote
    ]
    assert [o.etag for o in remote] == [raw.content_etag(LocalStore(tmp_path).read(o.path)) for o in local]


def test_a_bucket_is_listed_from_the_last_known_object_of_each_partition_on(tmp_path: Path, bucket: Any) -> None:
    for partition in ("0", "1"):
        for number in range(3):
            put(tmp_path, object_path("vqe_run_v1", number, partition), b"x")
    _upload(bucket, tmp_path)
    after = {("vqe_run_v1", "0"): object_path("vqe_run_v1", 1, "0")}
    found = [o.path for o in S3Store("local-vqe-results", bucket).objects(after)]
    # the last known one, too: its etag tells whether its name was given again
    assert found == [
        *(object_path("vqe_run_v1", n, "0") for n in (1, 2)),
        *(object_path("vqe_run_v1", n, "1") for n in range(3)),
    ]


def test_tables_built_from_a_bucket_are_those_built_from_a_folder(
    tmp_path: Path, bucket: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    write_runs(tmp_path, [Run(0), Run(1)])
    _upload(bucket, tmp_path)
    store = S3Store("local-vqe-results", bucket)
    elsewhere = tmp_path_factory.mktemp("from-s3")
    batch.build(elsewhere, store=store, now=NOW)
    batch.build(tmp_path, now=NOW)
    assert batch.build(elsewhere, store=store, now=NOW).batch_id is None
    assert batch.reconcile(elsewhere, store=store, now=NOW).batch_id is None
    from spark_jobs.query import query

    for columns, table in (
        ("*", "vqe_iterations"),
        ("*", "hamiltonians"),
        ("source_path, etag, records", "processing_metadata"),
    ):
        text = f"select {columns} from {table} order by 1, 2"
        assert query(elsewhere, text).rows == query(tmp_path, text).rows


def test_commands_read_the_store_that_is_named_and_not_the_data_dirs(
    tmp_path: Path,
    bucket: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    from simulator.cli.main import _run

    write_runs(tmp_path, [Run(0)])
    _upload(bucket, tmp_path)
    data_dir = tmp_path_factory.mktemp("other-runs")
    write_runs(data_dir, [Run(1), Run(2)], 7)
    monkeypatch.setenv("VQE_RAW_STORE", "s3://local-vqe-results")
    monkeypatch.setenv("VQE_DATA_DIR", str(data_dir))
    assert _run(("tables", "build")) == 0
    assert "5 files loaded" in capsys.readouterr().out
    assert _run(("tables", "verify")) == 0, capsys.readouterr().out
    write_runs(tmp_path, [Run(3)], 1)
    _upload(bucket, tmp_path)
    capsys.readouterr()
    assert _run(("tables", "verify")) == 1
    assert capsys.readouterr().out.count("object_not_in_ledger") == 5
    assert _run(("tables", "reconcile")) == 0
    monkeypatch.delenv("VQE_RAW_STORE")
    assert capsys.readouterr().out.count("5 files loaded") == 1
    assert _run(("tables", "build")) == 0
    assert "5 files loaded" in capsys.readouterr().out


def test_a_bucket_that_cannot_be_read_is_one_line(
    tmp_path: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from simulator.cli.main import _run

    monkeypatch.setenv("VQE_RAW_STORE", "s3://no-such-bucket")
    assert _run(("tables", "build", "--data-dir", str(tmp_path))) == 1
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert "s3://no-such-bucket/raw/" in told[0]
