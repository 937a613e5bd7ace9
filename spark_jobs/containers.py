"""Avro containers from outside: how many records a file's blocks promise, and whether it ends where it should.

Readers differ in what they take for the end of a cut file: Java's takes a cut inside a block for the end, and reads
what is before it. A walk over the blocks, which decodes none, tells.
"""

import hashlib
from dataclasses import dataclass

_MAGIC = b"Obj\x01"


@dataclass(frozen=True)
class Container:
    """What an object's bytes say."""

    records: int
    etag: str  # MD5, in hex


def examine(content: bytes) -> Container:
    """Walks over a container's blocks.

    Raises:
        ValueError: it is no Avro container, or it is cut or damaged between blocks.
    """
    if content[:4] != _MAGIC:
        raise ValueError("not an Avro container")
    try:
        at = _skip_map(content, 4)
        sync = content[at : at + 16]
        at += 16
        if at > len(content):
            raise ValueError("file ends inside the Avro header")
        records = 0
        while at < len(content):
            count, at = _long(content, at)
            size, at = _long(content, at)
            if count < 0 or size < 0:
                raise ValueError("a block of negative size")
            at += size + 16
            if content[at - 16 : at] != sync or at > len(content):
                raise ValueError("file ends inside a block, or a block is damaged")
            records += count
    except IndexError:
        raise ValueError("file ends inside its header or a block's") from None
    return Container(records, hashlib.md5(content, usedforsecurity=False).hexdigest())


def _long(content: bytes, at: int) -> tuple[int, int]:
    shift = result = 0
    while True:
        byte = content[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (result >> 1) ^ -(result & 1), at
        shift += 7


def _skip_map(content: bytes, at: int) -> int:
    while True:
        count, at = _long(content, at)
        if count == 0:
            return at
        if count < 0:
            count = -count
            _, at = _long(content, at)
        for _ in range(2 * count):
            length, at = _long(content, at)
            at += length
