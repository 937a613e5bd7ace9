"""`spark-submit ingest.py`: one batch of all tables, or with --reconcile everything that was missed or replaced.

Prints one JSON line with what it did. Exit codes: 0 done; 1 the batch failed or an audit blocked it, nothing is
published; 3 published, but objects were rejected (with --strict).
"""

import argparse
import json
import sys
from dataclasses import asdict
from datetime import UTC, date, datetime

from simulator import log
from simulator.errors import VqeError
from spark_jobs.raw import RawStore, StoredWithin, named_store
from spark_jobs.spark import batch as spark_batch
from spark_jobs.spark.session import create_views, spark_session
from spark_jobs.warehouse import Location


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reconcile", action="store_true", help="compare all objects' etags with the ledger")
    parser.add_argument("--since", type=_day, help="reconcile objects stored from this day on, YYYY-MM-DD, UTC")
    parser.add_argument("--until", type=_day, help="reconcile objects stored before this day")
    parser.add_argument("--strict", action="store_true", help="exit 3 where an object was rejected")
    parser.add_argument("--wait-seconds", type=float, default=600.0, help="how long to wait for another writer")
    options = parser.parse_args(arguments)
    log.configure("info")
    try:
        store: RawStore = named_store()
        if options.since or options.until:
            store = StoredWithin(store, options.since, options.until)
        spark = spark_session(Location.of("."), "vqe ingest")
        report = spark_batch.build(
            spark, ".", store=store, reconcile=options.reconcile, wait_seconds=options.wait_seconds
        )
        create_views(spark)
    except VqeError as e:
        print(f"ingest: {e}", file=sys.stderr)
        return 1
    print(json.dumps(asdict(report), default=str))
    if report.rejected and options.strict:
        for path, reason in report.rejected:
            print(f"rejected {path}: {reason}", file=sys.stderr)
        return 3
    return 0


def _day(text: str) -> datetime:
    return datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)


if __name__ == "__main__":
    sys.exit(main())
