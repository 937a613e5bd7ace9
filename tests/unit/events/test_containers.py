"""Avro containers are told whole from cut by their blocks alone, and no damage costs more than a refusal."""

import contextlib
import io
import json
import re
import time
import zlib
from random import Random

import fastavro
import pytest
from raw_events import Run

from simulator.events import avro, schemas
from simulator.events.avro import DamagedContainer, examine, make_header, read_long, records, zigzag
from spark_jobs.arrow.builder import CorruptObject, decode
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
            with pytest.raises(ValueError, match=r"Avro|block|the file is (cut|empty)"):
                examine(content[:cut])


def test_a_damaged_mark_between_blocks_is_told() -> None:
    content = bytearray(container())
    content[-1] ^= 1
    with pytest.raises(ValueError, match="damaged"):
        examine(bytes(content))


def damage(random: Random, whole: bytes) -> bytes:
    """A container with one thing wrong with it, as disks, copies and strangers make it."""
    content = bytearray(whole)
    at = random.randrange(len(content))
    match random.randrange(8):
        case 0:
            return bytes(content[:at])
        case 1:
            content[at] ^= 1 << random.randrange(8)
        case 2:
            content[at : at + random.randrange(1, 200)] = random.randbytes(random.randrange(200))
        case 3:  # integers without end
            content[at:] = b"\xff" * 200_000
        case 4:
            content[at : at + 9] = b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"  # the largest integer there is
        case 5:
            content[at : at + 40] = bytes(40)
        case 6:
            del content[at : at + random.randrange(1, 100)]
        case 7:  # the head of one and the tail of another
            return bytes(content[:at]) + random.randbytes(64) + bytes(content[at:])
    return bytes(content)


def test_a_thousand_damaged_containers_are_each_read_whole_or_refused_with_a_reason_within_a_second() -> None:
    random = Random(7)
    wholes = [container(codec, records) for codec in ("null", "deflate") for records in (1, 20, 300)]
    read = slowest = 0.0
    told = []
    for _ in range(1_000):
        content = damage(random, random.choice(wholes))
        began = time.process_time()
        try:
            rows = decode(content, "vqe_iteration_v1").num_rows
        except CorruptObject as refused:
            told.append(str(refused))
        else:
            assert examine(content).records == rows, "what is read is read whole"
            read += 1
        with contextlib.suppress(DamagedContainer):  # no other error comes out of it
            examine(content)
        slowest = max(slowest, time.process_time() - began)
    assert slowest < 1
    assert read < 500
    assert all(reason and "\n" not in reason for reason in told)
    assert len({re.sub(r"\d+", "n", reason) for reason in told}) > 10


def of(schema: object, body: bytes, *, codec: str = "null", count: int = 1) -> bytes:
    """A container of one block."""
    sync = bytes(range(16))
    header = make_header(json.dumps(schema), sync).replace(b"\x08null", zigzag(len(codec)) + codec.encode())
    return header + zigzag(count) + zigzag(len(body)) + body + sync


def deflated(size: int) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(bytes(size)) + packer.flush()


def itself(name: str, inner: str) -> dict:
    return {"type": "record", "name": name, "fields": [{"name": "a", "type": ["null", inner]}]}


def doubled(depth: int) -> dict:
    """A record that holds another twice, which holds another twice, ...: 2^depth values that take no byte."""
    schema: dict = {"type": "record", "name": f"r{depth}", "fields": []}
    for level in range(depth - 1, -1, -1):
        fields = [{"name": "a", "type": schema}, {"name": "b", "type": f"r{level + 1}"}]
        schema = {"type": "record", "name": f"r{level}", "fields": fields}
    return schema


def deep(levels: int) -> object:
    schema: object = "string"
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (of("string", b"", count=2**60), "records in 0 bytes"),
        (of({"type": "array", "items": "null"}, zigzag(2**60)), "items without a size"),
        (of(doubled(30), b""), "more than 10,000 values"),
        (of(itself("node", "node"), b"\2" * 100_000), "contains itself"),
        (of(deep(500), b"\2" * 100_000), "deeper than"),
        (of("x" * 300_000, b""), "schema is larger"),
        (of("string", deflated(200 << 20), codec="deflate"), "unpacks to more than"),
        (of("string", b"\2a", codec="snappy"), "codec 'snappy' is unknown"),
        (of("string", b"\2ab"), "bytes behind its last record"),
        (of("string", b"\xff" * 100_000), "cannot be read"),
        (of("string", zigzag(2**40)), "longer than its block"),
        (of("string", b"\2a")[:-16] + b"\xff" * 160_000, "damaged"),
        (of("string", b"\2a") + b"\xff" * 160_000, "more than 64 bits"),
        (b"Obj\x01" + b"\xff" * 160_000, "more than 64 bits"),
        (b"Obj\x01" + zigzag(2**40) + b"\2a\2b" * 300_000, "more than 1,000 entries"),
        (b"Obj\x01" + zigzag(1) + zigzag(2**21) + bytes(2**21), "larger than"),
        (b"Obj\x01\0" + bytes(16), "has no schema"),
        (of({"type": 7}, b"x"), "none of Avro's"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_would_decode_without_end_or_bound_is_refused_at_once(content: bytes, says: str) -> None:
    began = time.process_time()
    with pytest.raises(ValueError, match=says):
        list(records(content))
    assert time.process_time() - began < 1


def test_many_small_blocks_may_not_unpack_to_more_than_a_multiple_of_the_file(monkeypatch) -> None:
    monkeypatch.setattr(avro, "MAX_BLOCK_BYTES", 1 << 20)
    body = deflated(1 << 20)
    block = zigzag(1) + zigzag(len(body)) + body + bytes(range(16))
    with pytest.raises(ValueError, match="unpacks to more"):
        examine(of("string", body, codec="deflate") + block * 20)


def test_an_integer_of_ten_bytes_is_read_and_one_of_eleven_is_not() -> None:
    assert read_long(zigzag(2**62), 0) == (2**62, 10)
    assert read_long(b"\xff" * 9 + b"\x01", 0) == (-(2**63), 10)
    for bad in (b"\xff" * 10 + b"\x01", b"\xff" * 9 + b"\x02"):
        with pytest.raises(ValueError, match="64 bits"):
            read_long(bad, 0)
