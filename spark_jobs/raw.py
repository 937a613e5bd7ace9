"""Raw objects: Avro containers at `raw/<topic>/partition=<p>/<topic>+<p>+<offset or UUIDv7>.avro`, local or in S3.

A path is always relative to the store's root, so that a data dir can be moved and both stores name an object alike.
"""

import hashlib
import os
import re
import stat
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from simulator.errors import InputError, StorageError, one_line
from simulator.events.schemas import major_of, stream_of
from simulator.settings import load_object_store_settings, load_table_settings
from spark_jobs.faults import CONNECT_SECONDS
from spark_jobs.tables import TABLES, Table, streams_of

PREFIX = "raw/"
LOCAL = "local"
"""The partition of objects that did not come through Kafka."""
STREAMS = streams_of(TABLES)
"""Streams whose objects become rows of the tables."""
_OBJECT = re.compile(r"raw/(?P<topic>[^/]+)/partition=(?P<partition>[^/]+)/(?P<name>[^/]+\.avro)")
_TOPIC = re.compile(r"[A-Za-z0-9_]+_v[0-9]+")

After = Mapping[tuple[str, str], str]
"""Last known path of each (topic, partition)."""


@dataclass(frozen=True)
class RawObject:
    """A finished raw object."""

    path: str  # from the store's root: raw/...
    topic: str
    partition: str
    size: int  # bytes
    etag: str | None = None  # where listing tells it (S3)
    stored_at: datetime | None = None  # where listing tells it (S3)
    changed_at: datetime | None = (
        None  # when the content of a local file last changed, where another file may get its name
    )

    @property
    def major(self) -> int:
        return major_of(self.topic)


class RawStore(Protocol):
    """Where raw objects lie."""

    def objects(self, after: After | None = None) -> Iterator[RawObject]:
        """Finished objects of the streams that tables read; with `after`, a store that can skips what lies before those paths."""

    def read(self, path: str) -> bytes:
        """An object's content."""


def parse(
    path: str,
    size: int,
    etag: str | None = None,
    stored_at: datetime | None = None,
    streams: Collection[str] = STREAMS,
) -> RawObject | None:
    """The object at a path, or None: hidden, unfinished, of another stream, or not of the raw layout."""
    match = _OBJECT.fullmatch(path)
    if match is None or not _is_read(match["topic"], streams):
        return None
    if not match["name"].startswith(f"{match['topic']}+{match['partition']}+"):
        return None
    return RawObject(path, match["topic"], match["partition"], size, etag, stored_at)


def _is_read(topic: str, streams: Collection[str]) -> bool:
    """Whether a topic is of one of these streams, in whatever major version."""
    return _TOPIC.fullmatch(topic) is not None and stream_of(topic) in streams


def content_etag(content: bytes) -> str:
    """MD5 in hex: the ETag that S3 gives an object that was put in one part."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def partition_of(path: str) -> tuple[str, str]:
    """Topic and partition of a raw object's path."""
    _, topic, partition, _ = path.split("/", 3)
    return topic, partition.removeprefix("partition=")


@dataclass(frozen=True)
class Names:
    """A summary of a set of paths in one topic and partition: the last path, their number, and a checksum of 128 bits.

    The checksum does not depend on their order, and the checksums of two disjoint sets add up. Sets with equal numbers and
    checksums are taken as equal.
    """

    last: str = ""
    count: int = 0
    checksum: int = 0
    last_etags: frozenset[str] = frozenset()
    """ETags under which the ledger holds the last path: another object may have got the same name since."""

    @classmethod
    def of(cls, paths: Sequence[str]) -> "Names":
        return cls(max(paths), len(paths), _checksum(paths)) if paths else cls()

    def __add__(self, more: "Names") -> "Names":
        summed = [((a + b) & _MASK) << shift for a, b, shift in zip(*map(_halves, (self, more)), (0, 64), strict=True)]
        last = max(self.last, more.last)
        etags = [names.last_etags for names in (self, more) if names.last == last]
        return Names(last, self.count + more.count, sum(summed), frozenset().union(*etags))

    def are_those_of(self, other: "Names") -> bool:
        """Whether both are of the same paths."""
        return (self.count, self.checksum) == (other.count, other.checksum)


_MASK = (1 << 64) - 1


def _halves(names: Names) -> tuple[int, int]:
    return names.checksum & _MASK, names.checksum >> 64


def _checksum(paths: Sequence[str]) -> int:
    """Two sums, modulo 2^64, of a hash of each path. In numpy: a million paths take some tenths of a second."""
    by_length: dict[int, list[bytes]] = {}
    if len(lengths := set(map(len, paths))) == 1 and "".join(paths).isascii():
        by_length[lengths.pop()] = ["".join(paths).encode()]
    else:
        for encoded in map(str.encode, paths):
            by_length.setdefault(len(encoded), []).append(encoded)
    sums = [0, 0]
    for length, parts in by_length.items():
        joined = np.frombuffer(b"".join(parts), np.uint8).reshape(-1, length)
        words = np.zeros((len(joined), -(-length // 8) * 8), np.uint8)
        words[:, :length] = joined
        for i, seed in enumerate((0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F)):
            hashed = np.full(len(joined), seed, np.uint64)
            for word in words.view(np.uint64).T:  # each word is mixed into the whole, as splitmix64 does it
                hashed = (hashed ^ word) * np.uint64(0xBF58476D1CE4E5B9)
                hashed ^= hashed >> np.uint64(29)
            hashed *= np.uint64(0x94D049BB133111EB)
            sums[i] = (sums[i] + int((hashed ^ (hashed >> np.uint64(32))).sum(dtype=np.uint64))) & _MASK
    return sums[0] | sums[1] << 64


def listed_beyond(
    store: RawStore, names: Mapping[tuple[str, str], Names], known: Callable[[], Container[str]]
) -> tuple[list[RawObject], dict[tuple[str, str], Names]]:
    """Objects that the ledger may not hold, and the names that it holds of what is there.

    In the partition `local` of a folder it holds none of the objects. In S3 the last one that it holds is among them.

    Args:
        names: the names that it holds, by topic and partition.
        known: gives all paths that it holds; costly, and called only where a folder's names are others than these.
    """
    if isinstance(store, StoredWithin):
        found, held = listed_beyond(store.store, names, known)
        return [raw for raw in found if store.holds(raw)], held
    if isinstance(store, LocalStore):
        return store.beyond(names, known)
    return list(store.objects({key: held.last for key, held in names.items()})), dict(names)


class LocalStore:
    """Raw objects under a data dir, of some streams."""

    def __init__(self, root: Path, streams: Collection[str] = STREAMS) -> None:
        self.root = root
        self.streams = streams

    def objects(self, after: After | None = None) -> Iterator[RawObject]:
        """All objects: a name tells when a file was complete by a clock that may step back, and the file may appear
        later, so that a name can appear before one that is known."""
        for topic, partition, folder in self._partitions():
            yield from self._objects_in(topic, partition, folder)

    def _objects_in(self, topic: str, partition: str, folder: str) -> Iterator[RawObject]:
        for entry in sorted(os.scandir(folder), key=lambda e: e.name):
            path = f"{PREFIX}{topic}/partition={partition}/{entry.name}"
            if entry.is_file() and (found := parse(path, entry.stat().st_size, streams=self.streams)) is not None:
                if found.partition == LOCAL:  # named by UUIDs, which are never used twice
                    yield found
                else:
                    yield replace(found, changed_at=datetime.fromtimestamp(entry.stat().st_mtime, UTC))

    def _partitions(self) -> Iterator[tuple[str, str, str]]:
        """Topic, partition and folder of each partition."""
        raw = self.root / PREFIX
        if not raw.is_dir():
            return
        for topic in sorted(os.scandir(raw), key=lambda e: e.name):
            if not topic.is_dir() or not _is_read(topic.name, self.streams):
                continue
            for partition in sorted(os.scandir(topic.path), key=lambda e: e.name):
                if partition.is_dir() and partition.name.startswith("partition="):
                    yield topic.name, partition.name.removeprefix("partition="), partition.path

    def beyond(
        self, names: Mapping[tuple[str, str], Names], known: Callable[[], Container[str]]
    ) -> tuple[list[RawObject], dict[tuple[str, str], Names]]:
        """As `listed_beyond`. Of the partition `local` names alone are listed: what its folder says of a known file is
        not asked for. Names of other partitions may be given again: these have all their objects listed."""
        found: list[RawObject] = []
        held = dict(names)
        for topic, partition, folder in self._partitions():
            if partition != LOCAL:
                found += self._objects_in(topic, partition, folder)
                continue
            begin = f"{PREFIX}{topic}/partition={partition}/"
            name_begins = f"{topic}+{partition}+"
            paths = [
                begin + name for name in os.listdir(folder) if name.startswith(name_begins) and name.endswith(".avro")
            ]
            there = held.get((topic, partition), Names())
            earlier = [path for path in paths if path <= there.last]
            if Names.of(earlier).are_those_of(there):
                unknown = [path for path in paths if path > there.last] if len(paths) > len(earlier) else []
            else:
                unknown = [path for path in paths if path not in known()]
                new = set(unknown)
                listed = Names.of([path for path in earlier if path not in new])
                held[topic, partition] = replace(there, count=listed.count, checksum=listed.checksum)
            for path in sorted(unknown):
                status = (self.root / path).stat()
                raw = parse(path, status.st_size, streams=self.streams)
                if raw is not None and stat.S_ISREG(status.st_mode):
                    found.append(raw)
        return found, held

    def read(self, path: str) -> bytes:
        return (self.root / path).read_bytes()


_NAMES_IN_BOTO = {
    "endpoint_url": "endpoint_url",
    "region": "region_name",
    "access_key_id": "aws_access_key_id",
    "secret_access_key": "aws_secret_access_key",
    "session_token": "aws_session_token",
}


class S3Store:
    """Raw objects in a bucket, of some streams. Endpoint and keys are those of `ObjectStoreSettings`."""

    def __init__(self, bucket: str, client: Any = None, streams: Collection[str] = STREAMS) -> None:
        if client is None:
            try:
                import boto3
                from botocore.config import Config
                from botocore.exceptions import BotoCoreError
            except ModuleNotFoundError as e:
                raise InputError("raw objects in S3 need boto3: pip install 'vqe-pipeline[s3]'") from e
            limits = Config(connect_timeout=CONNECT_SECONDS, retries={"mode": "standard", "total_max_attempts": 3})
            try:
                client = boto3.client("s3", config=limits, **load_object_store_settings().named(_NAMES_IN_BOTO))
            except (BotoCoreError, ValueError) as e:  # the address or the region is malformed
                raise InputError(f"raw objects in S3: {one_line(e)}") from e
        self.bucket = bucket
        self.streams = streams
        self.client = client

    def objects(self, after: After | None = None) -> Iterator[RawObject]:
        """Objects by topic and partition, each from its last known path on, that one included where names may
        be given again: its etag tells."""
        after = after or {}
        for topic_prefix in self._folders(PREFIX):
            topic = topic_prefix.removeprefix(PREFIX).rstrip("/")
            if not _is_read(topic, self.streams):
                continue
            for prefix in self._folders(topic_prefix):
                partition = prefix.rstrip("/").rsplit("partition=", 1)[-1]
                last = after.get((topic, partition), "")
                # names end in .avro: nothing but the last known one begins with all of it but the last letter
                yield from self._listed(prefix, last if partition == LOCAL else last[:-1])

    def read(self, path: str) -> bytes:
        with self._one_line_errors(path):
            content: bytes = self.client.get_object(Bucket=self.bucket, Key=path)["Body"].read()
        return content

    def _folders(self, prefix: str) -> list[str]:
        pages = self._pages(Prefix=prefix, Delimiter="/")
        return [common["Prefix"] for page in pages for common in page.get("CommonPrefixes", ())]

    def _listed(self, prefix: str, start_after: str) -> Iterator[RawObject]:
        for page in self._pages(Prefix=prefix, StartAfter=start_after):
            for entry in page.get("Contents", ()):
                etag = entry["ETag"].strip('"')
                found = parse(entry["Key"], entry["Size"], etag, entry["LastModified"], self.streams)
                if found is not None:
                    yield found

    def _pages(self, **options: str) -> Iterator[Any]:
        pages = iter(self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, **options))
        while True:
            with self._one_line_errors(options["Prefix"]):
                page = next(pages, None)
            if page is None:
                return
            yield page

    @contextmanager
    def _one_line_errors(self, path: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError) as e:
            raise StorageError(f"cannot read s3://{self.bucket}/{path}: {one_line(e)}") from e


class StoredWithin:
    """Objects of another store that were stored in a time: from `since` on and before `until` (None: no bound)."""

    def __init__(self, store: RawStore, since: datetime | None, until: datetime | None) -> None:
        self.store, self.since, self.until = store, since, until

    def objects(self, after: After | None = None) -> Iterator[RawObject]:
        """Those of the time; a store that does not tell when an object was stored has all of them listed."""
        for raw in self.store.objects(after):
            if self.holds(raw):
                yield raw

    def holds(self, raw: RawObject) -> bool:
        """Whether an object is of the time, or its store does not tell."""
        at = raw.stored_at
        return at is None or ((self.since is None or at >= self.since) and (self.until is None or at < self.until))

    def read(self, path: str) -> bytes:
        return self.store.read(path)


def store_of(root: str | Path, tables: Iterable[Table] = TABLES) -> RawStore:
    """The store of a data dir, or of a bucket given as `s3://bucket`, with the objects that these tables read."""
    streams = streams_of(tables)
    if str(root).startswith("s3://"):
        return S3Store(str(root).removeprefix("s3://").strip("/"), streams=streams)
    return LocalStore(Path(root).expanduser(), streams)


def named_store(data_dir: str | Path | None = None, tables: Iterable[Table] = TABLES) -> RawStore:
    """The store that `VQE_RAW_STORE` names, a bucket or a folder with `raw/` in it; else the data dir's.

    Raises:
        InputError: there is neither.
    """
    named = load_table_settings().raw_store or data_dir
    if not named:
        raise InputError("VQE_RAW_STORE is not set: name the bucket of raw objects, e.g. s3://local-vqe-results")
    return store_of(named, tables)
