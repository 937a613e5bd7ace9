"""`spark-submit maintenance.py`: compaction, manifests, snapshot expiry and orphan files; no row changes.

Gives the warehouse lock back after each step of seconds, to an ingest that waits for it. Prints one JSON line.
"""

import argparse
import json
import sys
from dataclasses import asdict
from datetime import timedelta

from simulator import log
from simulator.errors import VqeError
from spark_jobs.spark import maintenance as spark_maintenance
from spark_jobs.spark.session import create_views, spark_session
from spark_jobs.warehouse import Location


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep-days", type=float, default=30, help="batches younger than this keep their tags")
    parser.add_argument(
        "--orphan-hours",
        type=float,
        default=72,
        help="age from which a file of no snapshot is deleted; so long readers may go on",
    )
    parser.add_argument("--target-mib", type=int, default=256, help="size that data files are compacted to")
    parser.add_argument("--wait-seconds", type=float, default=600.0, help="how long to wait for another writer")
    options = parser.parse_args(arguments)
    log.configure("info")
    try:
        spark = spark_session(Location.of("."), "vqe maintenance")
        report = spark_maintenance.maintain(
            spark,
            ".",
            keep=timedelta(days=options.keep_days),
            orphan_age=timedelta(hours=options.orphan_hours),
            target_bytes=options.target_mib << 20,
            wait_seconds=options.wait_seconds,
        )
        create_views(spark, replace=True)  # of this release
    except VqeError as e:
        print(f"maintenance: {e}", file=sys.stderr)
        return 1
    print(json.dumps(asdict(report), default=str))
    return 0


if __name__ == "__main__":
    sys.exit(main())
