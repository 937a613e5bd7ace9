"""The warehouse lock: one writer at a time, maintenance included.

The embedded catalog is a file, and so is its lock (flock: a dead process holds nothing). It works between processes of
one machine, and on network file systems that support flock. A catalog in Postgres has its lock there: see `postgres_lock`.

A second lock, the turn, makes the order fair. Every process takes the turn first and holds it while it waits for the lock. So a
process that gives the lock back and wants it again, as maintenance does between its steps, comes after one that waits.
"""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

from simulator.errors import StorageError

if TYPE_CHECKING:
    from spark_jobs.location import Location

WAIT_SECONDS = 600.0
_POLL_SECONDS = 0.05


class Lock(Protocol):
    """A warehouse's lock that this process holds. A `Warehouse` that commits is given one."""

    def check(self) -> None:
        """Makes sure that the lock is still held.

        Raises:
            StorageError: it was lost, so that another writer may have it.
        """


class FileLock:
    """A lock on an open file, which nobody can lose but by closing it."""

    def check(self) -> None:
        """The operating system keeps the lock for as long as the file is open."""


def lock_of(location: "Location", wait_seconds: float = WAIT_SECONDS) -> AbstractContextManager[Lock]:
    """Holds the lock of a warehouse, where its catalog is."""
    if location.catalog_uri.startswith("postgresql"):
        from spark_jobs.postgres_lock import postgres_lock

        return postgres_lock(location.catalog_uri, wait_seconds)
    return warehouse_lock(location.local, wait_seconds)


@contextmanager
def warehouse_lock(warehouse: Path, wait_seconds: float = WAIT_SECONDS) -> Iterator[Lock]:
    """Holds the lock of a local warehouse; waits for whoever holds it.

    Raises:
        StorageError: it is still held after `wait_seconds`; names the holder.
    """
    try:
        warehouse.mkdir(parents=True, exist_ok=True)
        handle = (warehouse / ".lock").open("a+", encoding="utf-8")
    except OSError as e:
        raise StorageError(f"warehouse {warehouse} is not writable: {e.strerror}") from e
    with handle, (warehouse / ".lock.next").open("a") as turn:
        deadline = time.monotonic() + wait_seconds
        for wanted in (turn, handle):
            while not _lock_at_once(wanted):
                if time.monotonic() > deadline:
                    handle.seek(0)
                    raise StorageError(
                        f"warehouse {warehouse} is in use by {_holder(handle.read())}; gave up after {wait_seconds:g} s"
                    )
                time.sleep(_POLL_SECONDS)
        fcntl.flock(turn, fcntl.LOCK_UN)
        handle.seek(0)
        handle.truncate()
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        handle.write(json.dumps(holder))
        handle.flush()
        yield FileLock()


def _lock_at_once(handle: IO[str]) -> bool:
    """Whether the file was free; it is locked then."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(text: str) -> str:
    try:
        holder = json.loads(text)
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
