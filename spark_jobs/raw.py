"""Raw objects: Avro containers at `raw/<topic>/partition=<p>/<topic>+<p>+<offset or UUIDv7>.avro`, local or in S3.

A path is always relative to the store's root, so that a data dir can be moved and both stores name an object alike.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from simulator.errors import InputError, StorageError
from simulator.schemas import SUNK_TOPICS, major_of

PREFIX = "raw/"
LOCAL = "local"
"""The partition of objects that did not come through Kafka."""
_OBJECT = re.compile(r"raw/(?P<topic>[^/]+)/partition=(?P<partition>[^/]+)/(?P<name>[^/]+\.avro)")

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
    stored_at: datetime | None = None  # likewise
    changed_at: datetime | None = None  # of a local file whose name may be given again: when its content last changed

    @property
    def major(self) -> int:
        return major_of(self.topic)


class RawStore(Protocol):
    """Where raw objects lie."""

    def objects(self, after: After | None = None) -> Iterator[RawObject]:
        """Finished objects of sunk topics; with `after`, a store that can skips what lies before those paths."""

    def read(self, path: str) -> bytes:
        """An object's content."""


def parse(path: str, size: int, etag: str | None = None, stored_at: datetime | None = None) -> RawObject | None:
    """The object at a path, or None: hidden, unfinished, of another topic, or not of the raw layout."""
    match = _OBJECT.fullmatch(path)
    if match is None or SUNK_TOPICS.fullmatch(match["topic"]) is None:
        return None
    if not match["name"].startswith(f"{match['topic']}+{match['partition']}+"):
        return None
    return RawObject(path, match["topic"], match["partition"], size, etag, stored_at)


def content_etag(content: bytes) -> str:
    """MD5 in hex: the ETag that S3 gives an object that was put in one part."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


class LocalStore:
    """Raw objects under a data dir."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def objects(self, after: After | None = None) -> Iterator[RawObject]:
        """All objects: names within a partition are ordered by the time of the rename, not of their making,
        so that a name can appear before one that is known. Listing a local folder is cheap."""
        raw = self.root / PREFIX
        if not raw.is_dir():
            return
        for topic in sorted(os.scandir(raw), key=lambda e: e.name):
            if not topic.is_dir() or SUNK_TOPICS.fullmatch(topic.name) is None:
                continue
            for partition in sorted(os.scandir(topic.path), key=lambda e: e.name):
                if not partition.is_dir():
                    continue
                for entry in sorted(os.scandir(partition.path), key=lambda e: e.name):
                    path = f"{PREFIX}{topic.name}/{partition.name}/{entry.name}"
                    if entry.is_file() and (found := parse(path, entry.stat().st_size)) is not None:
                        if found.partition == LOCAL:  # named by UUIDs, which never return
                            yield found
                        else:
                            changed_at = datetime.fromtimestamp(entry.stat().st_mtime, UTC)
                            yield replace(found, changed_at=changed_at)

    def read(self, path: str) -> bytes:
        return (self.root / path).read_bytes()


class S3Store:
    """Raw objects in a bucket. Endpoint and keys come from the environment: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ..."""

    def __init__(self, bucket: str, client: Any = None) -> None:
        if client is None:
            try:
                import boto3
            except ModuleNotFoundError as e:
                raise InputError("raw objects in S3 need boto3: pip install 'vqe-pipeline[s3]'") from e
            client = boto3.client("s3")
        self.bucket = bucket
        self.client = client

    def objects(self, after: After | None = None) -> Iterator[RawObject]:
        """Objects by topic and partition, each from its last known path on, that one included: it tells whether its
        name has been given again."""
        after = after or {}
        for topic_prefix in self._folders(PREFIX):
            topic = topic_prefix.removeprefix(PREFIX).rstrip("/")
            if SUNK_TOPICS.fullmatch(topic) is None:
                continue
            for prefix in self._folders(topic_prefix):
                partition = prefix.rstrip("/").rsplit("partition=", 1)[-1]
                # names end in .avro: nothing but the last known one begins with all of it but the last letter
                yield from self._listed(prefix, after.get((topic, partition), "")[:-1])

    def read(self, path: str) -> bytes:
        with self._told(path):
            content: bytes = self.client.get_object(Bucket=self.bucket, Key=path)["Body"].read()
        return content

    def _folders(self, prefix: str) -> list[str]:
        pages = self._pages(Prefix=prefix, Delimiter="/")
        return [common["Prefix"] for page in pages for common in page.get("CommonPrefixes", ())]

    def _listed(self, prefix: str, start_after: str) -> Iterator[RawObject]:
        for page in self._pages(Prefix=prefix, StartAfter=start_after):
            for entry in page.get("Contents", ()):
                found = parse(entry["Key"], entry["Size"], entry["ETag"].strip('"'), entry["LastModified"])
                if found is not None:
                    yield found

    def _pages(self, **options: str) -> Iterator[Any]:
        pages = iter(self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, **options))
        while True:
            with self._told(options["Prefix"]):
                page = next(pages, None)
            if page is None:
                return
            yield page

    @contextmanager
    def _told(self, path: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError) as e:
            raise StorageError(f"cannot read s3://{self.bucket}/{path}: {e}") from e


class Stored:
    """Objects of another store that were stored in a time: from `since` on and before `until` (None: no bound)."""

    def __init__(self, store: RawStore, since: datetime | None, until: datetime | None) -> None:
        self.store, self.since, self.until = store, since, until

    def objects(self, after: After | None = None) -> Iterator[RawObject]:
        """Those of the time; a store that does not tell when an object was stored has all of them listed."""
        for raw in self.store.objects(after):
            at = raw.stored_at
            if at is None or ((self.since is None or at >= self.since) and (self.until is None or at < self.until)):
                yield raw

    def read(self, path: str) -> bytes:
        return self.store.read(path)


def store_of(root: str | Path) -> RawStore:
    """The store of a data dir, or of a bucket given as `s3://bucket`."""
    if str(root).startswith("s3://"):
        return S3Store(str(root).removeprefix("s3://").strip("/"))
    return LocalStore(Path(root))


def named_store(data_dir: str | Path | None = None) -> RawStore:
    """The store that `VQE_RAW_STORE` names, a bucket or a folder with `raw/` in it; else the data dir's.

    Raises:
        InputError: there is neither.
    """
    named = os.environ.get("VQE_RAW_STORE") or data_dir
    if not named:
        raise InputError("VQE_RAW_STORE is not set: name the bucket of raw objects, e.g. s3://local-vqe-results")
    return store_of(named)
