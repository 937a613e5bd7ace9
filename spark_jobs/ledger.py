"""What the ledger holds, and which raw objects it does not.

A batch must find what is new without reading all that is known: the ledger has a row for each object ever loaded. So each
commit of the ledger notes, in a property of the table, for every topic and partition the last name that the ledger holds,
how many names, and a checksum of them (see `raw.Names`). In S3 a listing begins behind the last name. In a folder, where
a name can appear before a known one, the listed names are held against the checksum; only where it differs is the
ledger itself read.

The note also holds the number of the ledger's rows. Where that differs from the real number, because an older release has
written rows since, the note is ignored and made anew from all rows.
"""

import json
from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import Any

from spark_jobs import tables as declared
from spark_jobs.raw import Names, RawObject, RawStore, content_etag, listed_beyond, partition_of
from spark_jobs.tables import LEDGER
from spark_jobs.warehouse import Warehouse, summary_of

NAMES = "vqe.ledgered-names"
"""Property of the ledger table in which each commit notes a summary of the object names that the ledger holds."""


class Ledger:
    """The ledger of a warehouse; its rows are read where a question needs them."""

    def __init__(self, warehouse: Warehouse) -> None:
        self.warehouse = warehouse
        self.table = declared.by_name(LEDGER, warehouse.tables)
        self.newest_batch = warehouse.newest_batch()
        self._names: dict[tuple[str, str], Names] | None = None
        self._is_read = False

    @cached_property
    def _all(self) -> tuple[dict[str, dict[str, str]], dict[str, tuple[int, datetime]]]:
        self._is_read = True
        columns = ("source_path", "etag", "status", "size_bytes", "processed_at")
        rows = self.warehouse.scan(self.table, columns)
        known: dict[str, dict[str, str]] = {}
        read: dict[str, tuple[int, datetime]] = {}
        for path, etag, status, size, at in zip(*(rows[c].to_pylist() for c in columns), strict=True):
            known.setdefault(path, {})[etag] = status
            if path not in read or at > read[path][1]:
                read[path] = size, at
        return known, read

    @property
    def known(self) -> dict[str, dict[str, str]]:
        """Every row: source_path -> etag -> status. Reads the ledger whole."""
        return self._all[0]

    @property
    def names(self) -> dict[tuple[str, str], Names]:
        """What the ledger holds of each topic and partition."""
        if self._names is None:
            noted = json.loads(self.warehouse.load(self.table).properties.get(NAMES, "{}"))
            if noted.get("rows") == self._rows():
                self._names = {
                    partition_of(path): Names(path, count, int(checksum, 16), frozenset(etags))
                    for path, count, checksum, etags in noted["names"]
                }
            else:
                rows = self.warehouse.scan(self.table, ("source_path", "etag"))
                etags: dict[str, set[str]] = {}
                for path, etag in zip(*(rows[name].to_pylist() for name in rows.column_names), strict=True):
                    etags.setdefault(path, set()).add(etag)
                self._names = _with_more_paths({}, etags)
        return self._names

    def _rows(self) -> int:
        snapshot = self.warehouse.load(self.table).current_snapshot()
        return 0 if snapshot is None else int(summary_of(snapshot).get("total-records", "0"))

    def unknown(self, store: RawStore) -> list[RawObject]:
        """Objects that the ledger does not hold, or holds with another content as far as the listing tells; in S3 from
        the last name on that it holds."""
        found, self._names = listed_beyond(store, self.names, lambda: self.known)
        return _ordered(raw for raw in found if not self._holds(raw, store))

    def _holds(self, raw: RawObject, store: RawStore) -> bool:
        """Whether an object was read. A name alone does not decide: another object may have got it after the first was
        moved away."""
        names = self.names.get((raw.topic, raw.partition), Names())
        if raw.path > names.last:
            return False
        if raw.path == names.last and raw.etag is not None:
            return raw.etag in names.last_etags
        return self._has_row_of(raw, store)

    def _has_row_of(self, raw: RawObject, store: RawStore) -> bool:
        etags = self.known.get(raw.path)
        if etags is None:
            return False
        if raw.etag is not None:
            return raw.etag in etags
        if raw.changed_at is None:
            return True
        size, at = self._all[1][raw.path]
        if raw.size == size and raw.changed_at <= at:
            return True
        return content_etag(store.read(raw.path)) in etags

    def missing(self, store: RawStore) -> list[RawObject]:
        """Objects that the ledger does not hold, or holds with another content as far as the listing tells, wherever
        they are listed."""
        return _ordered(raw for raw in store.objects() if not self._has_row_of(raw, store))

    def changed(self, store: RawStore) -> list[RawObject]:
        """Objects whose path and content the ledger does not hold as loaded."""
        found = []
        for raw in store.objects():
            etag = raw.etag or content_etag(store.read(raw.path))
            if self.known.get(raw.path, {}).get(etag) != "loaded":
                found.append(raw)
        return _ordered(found)

    def has_rejected(self, path: str, etag: str) -> bool:
        """Whether an object of this batch is one that was rejected before: only `changed` gives such objects."""
        return self._is_read and self.known.get(path, {}).get(etag) == "rejected"

    def note_of(self, entries: Iterable[Mapping[str, Any]], retried: Collection[str]) -> dict[str, str]:
        """The property to set with a commit that adds these entries and removes the rejected rows of `retried`."""
        etags: dict[str, set[str]] = {}
        for entry in entries:
            etags.setdefault(entry["source_path"], set()).add(entry["etag"])
        names = _with_more_paths(self.names, etags, self.known if self._is_read else ())
        replaced = sum(list(self.known[path].values()).count("rejected") for path in set(retried))
        told = [(n.last, n.count, f"{n.checksum:x}", sorted(n.last_etags)) for n in names.values()]
        rows = self._rows() + sum(map(len, etags.values())) - replaced
        return {NAMES: json.dumps({"rows": rows, "names": sorted(told)})}


def _with_more_paths(
    names: dict[tuple[str, str], Names], etags: Mapping[str, set[str]], known: Container[str] = ()
) -> dict[tuple[str, str], Names]:
    """The summaries with more paths added, some of which the ledger may hold already."""
    more: dict[tuple[str, str], list[str]] = {}
    result = dict(names)
    for path, found in etags.items():
        key = partition_of(path)
        held = result.get(key, Names())
        if path == held.last:
            result[key] = replace(held, last_etags=held.last_etags | found)
        elif path not in known:
            more.setdefault(key, []).append(path)
    for key, paths in more.items():
        added = Names.of(paths)
        result[key] = result.get(key, Names()) + replace(added, last_etags=frozenset(etags[added.last]))
    return result


def _ordered(objects: Iterable[RawObject]) -> list[RawObject]:
    """Highest major version first: its rows come before those of an older one in files that are written first."""
    return sorted(objects, key=lambda o: (-o.major, o.path))
