"""Avro containers are told whole from cut by their blocks alone."""

import io

import fastavro
import pytest
from raw_events import Run

from simulator import schemas
from spark_jobs.containers import examine
from spark_jobs.raw import content_etag

SCHEMA = fastavro.parse_schema(schemas.current("vqe_iteration"))


def container(codec: str = "deflate", records: int = 20) -> bytes:
    """A container of many small blocks."""
    buffer = io.BytesIO()
    fastavro.writer(buffer, SCHEMA, Run(1, iterations=records).iteration_events(), codec=codec, sync_interval=200)
    return buffer.getvalue()


@pytest.mark.parametrize("codec", ["null", "deflate"])
def test_a_whole_container_tells_its_records_and_its_etag(codec: str) -> None:
    content = container(codec)
    found = examine(content)
    assert (found.records, found.etag) == (20, content_etag(content))


def test_a_container_without_records_is_whole() -> None:
    assert examine(container(records=0)).records == 0


def test_a_container_that_is_cut_anywhere_but_between_blocks_is_told() -> None:
    content = container()
    sync = content[-16:]
    ends = {i + 16 for i in range(len(content)) if content.startswith(sync, i)}
    for cut in range(len(content)):
        if cut in ends:  # nobody can tell: it is a container of fewer records
            assert examine(content[:cut]).records < 20
        else:
            with pytest.raises(ValueError, match=r"Avro|block"):
                examine(content[:cut])


def test_a_damaged_mark_between_blocks_is_told() -> None:
    content = bytearray(container())
    content[-1] ^= 1
    with pytest.raises(ValueError, match="damaged"):
        examine(bytes(content))
