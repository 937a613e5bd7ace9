"""`spark-submit quality.py`: the published tables against their promises, and the issues that are open.

Prints one JSON line. Exit codes: 0 every fact holds (late records are issues, not failures); 1 a key stands twice, a
number is not finite, or a table lacks a tag.
"""

import argparse
import json
import sys

from simulator.errors import VqeError
from spark_jobs.spark import quality as spark_quality
from spark_jobs.spark.session import spark_session
from spark_jobs.warehouse import Location


def main(arguments: list[str] | None = None) -> int:
    argparse.ArgumentParser(description=__doc__).parse_args(arguments)
    try:
        report = spark_quality.check(spark_session(Location.of("."), "vqe quality"), ".")
    except VqeError as e:
        print(f"quality: {e}", file=sys.stderr)
        return 1
    print(json.dumps(report.as_dict(), default=str))
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main())
