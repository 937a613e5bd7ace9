"""The one reader of Avro containers: event files, spool files and raw objects, whoever wrote or damaged them.

What a container's bytes promise is held against what is there before anything is built from it: an integer has ten bytes
at most, a block lies inside the file, a block has no more records than bytes, unpacked bytes are bounded, and a schema may
neither contain itself nor have items without a size (both decode without end). A container is read whole or refused with
a reason. Apache Avro 1.12, "Object Container Files".
"""

import hashlib
import io
import json
import mmap
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

MAGIC = b"Obj\x01"
SYNC_BYTES = 16
MAX_HEADER_BYTES = 1 << 20
MAX_HEADER_ENTRIES = 1_000
MAX_SCHEMA_BYTES = 1 << 18
"""Our largest schema has 20 kB; parsing one of 256 kB takes a tenth of a second."""
MAX_SCHEMA_DEPTH = 64
MAX_SCHEMA_VALUES = 10_000
"""A dozen records that each hold the next one twice take no byte and as many values as this."""
MAX_BLOCK_BYTES = 64 << 20
"""Unpacked. Writers of ours end a block at 1 MB; a single record has 1 MB at most on its way through Kafka."""
MAX_RATIO = 64
"""Unpacked bytes of a file for each byte of it, above `MAX_BLOCK_BYTES`. Event text packs to a tenth at best."""
CODECS = ("null", "deflate", "zstandard")
_LONG_BYTES = 10
Bytes = mmap.mmap | bytes


class DamagedContainer(ValueError):
    """The bytes are no whole Avro container, or cannot be read within the bounds; the message is the reason."""


class CutContainer(DamagedContainer):
    """The bytes end too early: a container whose writer died, or that was copied in part."""


@dataclass(frozen=True)
class Header:
    """What a container says of itself before its first block."""

    schema_json: str
    codec: str
    metadata: Mapping[str, bytes]
    sync: bytes
    end: int  # offset of the first block

    def schema(self) -> Any:
        """The schema as JSON says it, safe to decode with.

        Raises:
            DamagedContainer: it is no JSON, too deep, contains itself, or has items without a size.
        """
        try:
            schema = json.loads(self.schema_json)
        except (ValueError, RecursionError):
            raise DamagedContainer("the file's schema is no JSON") from None
        _check_schema(schema, (), {})
        return schema


class Block(NamedTuple):
    """A block of a container, by its offsets."""

    records: int
    begin: int  # of the records
    end: int  # behind the sync marker


@dataclass(frozen=True)
class Container:
    """What a whole container's bytes say."""

    records: int
    etag: str  # MD5, in hex


def read_long(view: Bytes, position: int) -> tuple[int, int]:
    """A zigzag variable-length integer of 64 bits, and the offset behind it.

    Raises:
        IndexError: the bytes end before it does.
        DamagedContainer: it has more than ten bytes or 64 bits.
    """
    value = shift = 0
    for at in range(position, position + _LONG_BYTES):
        byte = view[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                break
            return (value >> 1) ^ -(value & 1), at + 1
        shift += 7
    raise DamagedContainer("an integer of more than 64 bits")


def zigzag(value: int) -> bytes:
    """A non-negative integer as Avro's variable-length long."""
    value <<= 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def make_header(schema_json: str, sync: bytes, metadata: Mapping[str, str] | None = None) -> bytes:
    """The header of a container without compression.

    Args:
        schema_json: the schema of its records.
        sync: its marker, 16 random bytes.
        metadata: more entries; their names must not begin with `avro.`.
    """
    entries = {"avro.codec": "null", "avro.schema": schema_json, **(metadata or {})}
    parts = [MAGIC, zigzag(len(entries))]
    for name, value in entries.items():
        for text in (name.encode(), value.encode()):
            parts += [zigzag(len(text)), text]
    return b"".join([*parts, b"\0", sync])


def read_header(view: Bytes) -> Header:
    """The header of the container that begins with these bytes.

    Raises:
        CutContainer: the bytes end inside the header.
        DamagedContainer: this is no header.
    """
    head = bytes(view[:MAX_HEADER_BYTES])
    if not head:
        raise CutContainer("the file is empty")
    if head[: len(MAGIC)] != MAGIC:
        if MAGIC.startswith(head):
            raise CutContainer("the file is cut: it ends inside the Avro header")
        raise DamagedContainer("not an Avro container")
    try:
        metadata, position = _read_metadata(head, len(MAGIC))
    except IndexError:
        if len(head) == MAX_HEADER_BYTES:
            raise DamagedContainer(f"the Avro header is larger than {MAX_HEADER_BYTES:,} bytes") from None
        raise CutContainer("the file is cut: it ends inside the Avro header") from None
    end = position + SYNC_BYTES
    if end > len(head):
        raise CutContainer("the file is cut: it ends inside the Avro header")
    try:
        schema_json = metadata["avro.schema"].decode()
        codec = metadata.get("avro.codec", b"null").decode()
    except KeyError:
        raise DamagedContainer("the Avro header has no schema") from None
    except UnicodeDecodeError:
        raise DamagedContainer("the Avro header is no text") from None
    if len(schema_json) > MAX_SCHEMA_BYTES:
        raise DamagedContainer(f"the file's schema is larger than {MAX_SCHEMA_BYTES:,} bytes")
    if codec not in CODECS:
        raise DamagedContainer(f"codec {codec[:40]!r} is unknown (read: {', '.join(CODECS)})")
    return Header(schema_json, codec, metadata, head[position:end], end)


def _read_metadata(head: bytes, position: int) -> tuple[dict[str, bytes], int]:
    found: dict[str, bytes] = {}
    while True:
        count, position = read_long(head, position)
        if count == 0:
            return found, position
        if count < 0:  # then the size of the entries follows
            _, position = read_long(head, position)
        if abs(count) > MAX_HEADER_ENTRIES:
            raise DamagedContainer(f"more than {MAX_HEADER_ENTRIES:,} entries in the Avro header")
        for _ in range(abs(count)):
            pair = []
            for _ in range(2):
                length, position = read_long(head, position)
                if length < 0:
                    raise DamagedContainer("a negative length in the Avro header")
                if position + length > len(head):
                    raise IndexError
                pair.append(head[position : position + length])
                position += length
            found[pair[0].decode("utf-8", "replace")] = pair[1]


def whole_blocks(content: Bytes, sync: bytes, start: int = 0) -> Iterator[Block]:
    """The blocks from `start` on, up to the first that is not whole or does not end in the sync marker."""
    try:
        yield from blocks(content, sync, start)
    except DamagedContainer:
        return


def blocks(content: Bytes, sync: bytes, start: int) -> Iterator[Block]:
    """The blocks from `start` to the end.

    Raises:
        CutContainer: the bytes end inside a block.
        DamagedContainer: a block is not whole, or does not end in the sync marker.
    """
    position, size = start, len(content)
    while position < size:
        try:
            count, begin = read_long(content, position)
            length, begin = read_long(content, begin)
        except IndexError:
            raise CutContainer("the file is cut: it ends inside a block's header") from None
        except DamagedContainer:
            raise DamagedContainer("the file is damaged: a block begins with an integer of more than 64 bits") from None
        if count < 0 or length < 0:
            raise DamagedContainer("the file is damaged: a block of negative size")
        end = begin + length + SYNC_BYTES
        if end > size:
            wanted, there = (length, size - begin) if begin + length > size else (SYNC_BYTES, size - begin - length)
            raise CutContainer(f"the file is cut: Expected {wanted} bytes, read {there}")
        if content[end - SYNC_BYTES : end] != sync:
            raise DamagedContainer("the file is damaged: expected sync marker not found")
        yield Block(count, begin, end)
        position = end


def payloads(content: bytes, header: Header) -> Iterator[tuple[int, bytes]]:
    """Each block's number of records and its unpacked bytes.

    Raises:
        DamagedContainer: a block is not whole, or does not unpack within the bounds.
    """
    left = MAX_BLOCK_BYTES + MAX_RATIO * len(content)
    for block in blocks(content, header.sync, header.end):
        payload = _unpacked(content[block.begin : block.end - SYNC_BYTES], header.codec, min(left, MAX_BLOCK_BYTES))
        left -= len(payload)
        if block.records > len(payload):
            raise DamagedContainer(
                f"the file is damaged: a block of {block.records:,} records in {len(payload):,} bytes"
            )
        yield block.records, payload


def records(content: bytes, reader_schema: Any = None) -> Iterator[Any]:
    """A container's records, one after the other.

    Args:
        content: the whole file.
        reader_schema: a schema parsed by fastavro that they are resolved to; None: as they were written.

    Raises:
        DamagedContainer: the file is damaged; what came before is not to be used.
        fastavro.schema.SchemaParseException, fastavro.read.SchemaResolutionError: the schema is none, or does not go
            together with the reader's.
    """
    from fastavro import parse_schema, schemaless_reader
    from fastavro.read import SchemaResolutionError

    header = read_header(content)
    schema = parse_schema(header.schema())
    for count, payload in payloads(content, header):
        stream = io.BytesIO(payload)
        for _ in range(count):
            try:
                record = schemaless_reader(stream, schema, reader_schema)
            except (MemoryError, SchemaResolutionError):
                raise
            except EOFError:
                raise DamagedContainer("the file is damaged: a record is longer than its block") from None
            except (
                Exception
            ) as e:  # what a damaged record makes fastavro raise is not bounded: IndexError, OverflowError
                told = " ".join(str(e).split())
                raise DamagedContainer(
                    f"the file is damaged: a record cannot be read ({type(e).__name__} {told})"[:300]
                ) from e
            yield record
        if stream.tell() != len(payload):
            raise DamagedContainer("the file is damaged: a block has bytes behind its last record")


def examine(content: bytes) -> Container:
    """Holds a container's header and blocks against its bytes, and decodes no record.

    Readers differ in what they take for the end of a cut file: Java's takes a cut inside a block for the end, and reads
    what is before it.

    Raises:
        DamagedContainer: it is no Avro container, or it is cut or damaged between records.
    """
    header = read_header(content)
    header.schema()
    found = sum(count for count, _ in payloads(content, header))
    return Container(found, hashlib.md5(content, usedforsecurity=False).hexdigest())


def _unpacked(packed: bytes, codec: str, limit: int) -> bytes:
    if codec == "null":
        return packed
    if codec == "deflate":
        inflater: Any = zlib.decompressobj(-15)
        failed: type[Exception] = zlib.error
    else:
        zstd = _zstd()
        inflater, failed = zstd.ZstdDecompressor(), zstd.ZstdError
    try:
        out: bytes = inflater.decompress(packed, limit + 1)
    except failed as e:
        raise DamagedContainer(f"the file is damaged: a block does not unpack ({e})") from None
    if len(out) > limit:
        raise DamagedContainer(f"a block of {len(packed):,} bytes unpacks to more than {limit:,}")
    if not inflater.eof or len(inflater.unused_data) > 4:  # fastavro leaves part of zlib's checksum behind the data
        raise DamagedContainer("the file is damaged: a block does not unpack to its end")
    return out


def _zstd() -> Any:
    import importlib

    for name in ("compression.zstd", "backports.zstd"):  # of Python 3.14 on, and before
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise DamagedContainer("codec 'zstandard' needs the package backports.zstd here")


class _Size(NamedTuple):
    """What a value of a type takes at least."""

    bytes: int
    values: int  # the type's fields, expanded


_ONE = _Size(1, 1)


def _check_schema(schema: Any, inside: tuple[str, ...], names: dict[str, _Size]) -> _Size:
    """Refuse what decodes without end.

    Args:
        schema: a part of a schema.
        inside: what is around it: the names of records, or a kind.
        names: named types so far.
    """
    if len(inside) > MAX_SCHEMA_DEPTH:
        raise DamagedContainer(f"the file's schema is deeper than {MAX_SCHEMA_DEPTH}")
    if isinstance(schema, list):
        sizes = [_check_schema(branch, (*inside, "union"), names) for branch in schema]
        return _Size(1, 1 + max((size.values for size in sizes), default=0))
    if isinstance(schema, str):
        name = _bare_name(schema)
        if f"record {name}" in inside:
            raise DamagedContainer(f"the file's schema contains itself ({name[:80]})")
        return _Size(0, 1) if name == "null" else names.get(name, _ONE)
    if not isinstance(schema, dict):
        raise DamagedContainer("the file's schema is none of Avro's")
    kind = schema.get("type")
    match kind:
        case "record" | "error":
            return _check_record(schema, inside, names)
        case "array":
            if not _check_schema(schema.get("items"), (*inside, "array"), names).bytes:
                raise DamagedContainer("the file's schema has an array of items without a size")
            return _ONE
        case "map":
            _check_schema(schema.get("values"), (*inside, "map"), names)
            return _ONE
        case "enum":
            return _ONE
        case "fixed":
            size = schema.get("size")
            names[_bare_name(schema.get("name"))] = found = _Size(int(isinstance(size, int) and size > 0), 1)
            return found
        case _:
            return _check_schema(kind, (*inside, "type"), names)


def _check_record(schema: dict[str, Any], inside: tuple[str, ...], names: dict[str, _Size]) -> _Size:
    fields, name = schema.get("fields"), _bare_name(schema.get("name"))
    if not isinstance(fields, list) or not all(isinstance(field, dict) for field in fields):
        raise DamagedContainer("the file's schema has a record without fields")
    sizes = [_check_schema(field.get("type"), (*inside, f"record {name}"), names) for field in fields]
    names[name] = found = _Size(sum(s.bytes for s in sizes), 1 + sum(s.values for s in sizes))
    if found.values > MAX_SCHEMA_VALUES:
        raise DamagedContainer(f"a record of the file's schema has more than {MAX_SCHEMA_VALUES:,} values")
    return found


def _bare_name(name: Any) -> str:
    return str(name).rsplit(".", 1)[-1]
