"""Runs in the `spark` virtual environment. `serve`: a JVM with a Spark context that stays until stdin ends.
`job NAME OPTIONS`: attaches to it as a driver of its own, with its own session, catalog and lock, does a job, answers in JSON."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
from datetime import datetime, timedelta
from typing import Any


def serve(memory: str) -> None:
    os.environ["PYSPARK_SUBMIT_ARGS"] = f"--driver-memory {memory} pyspark-shell"
    from pyspark.sql import SparkSession

    from spark_jobs.spark import session as spark_session

    builder = SparkSession.builder.master(os.environ["VQE_SPARK_MASTER"]).appName("vqe tests")
    for name, value in spark_session.defaults().items():
        builder = builder.config(name, value)
    # what the UI would show of each query costs megabytes, for as long as the JVM lives
    for retained in ("ui.retainedJobs", "ui.retainedStages", "sql.ui.retainedExecutions"):
        builder = builder.config(f"spark.{retained}", "10")
    # the quick compiler only: these drivers start often and compute little
    builder = builder.config("spark.driver.extraJavaOptions", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
    spark = builder.config("spark.ui.enabled", "false").config("spark.sql.shuffle.partitions", "4").getOrCreate()
    gateway = spark.sparkContext._gateway.gateway_parameters
    print(json.dumps({"PYSPARK_GATEWAY_PORT": gateway.port, "PYSPARK_GATEWAY_SECRET": gateway.auth_token}), flush=True)
    sys.stdin.read()
    spark.stop()


def attached() -> Any:
    """A new session in the served JVM."""
    from pyspark import SparkConf, SparkContext
    from pyspark.java_gateway import launch_gateway
    from pyspark.sql import SparkSession

    from spark_jobs.spark import session as spark_session
    from spark_jobs.warehouse import Location

    gateway = launch_gateway()
    jvm = gateway.jvm
    jsc = jvm.org.apache.spark.api.java.JavaSparkContext(jvm.org.apache.spark.SparkContext.getOrCreate())
    context = SparkContext(gateway=gateway, jsc=jsc, conf=SparkConf(_jconf=jsc.getConf()))
    spark = SparkSession(context).newSession()
    static = {"spark.sql.extensions", "spark.serializer", "spark.ui.showConsoleProgress"}
    for name, value in spark_session.catalog_conf(Location.of(".")).items():
        if name not in static:
            spark.conf.set(name, value)
    return spark


def job(name: str, options: dict[str, Any]) -> Any:
    from dataclasses import asdict

    from spark_jobs import warehouse as commits
    from spark_jobs.raw import named_store
    from spark_jobs.spark import batch as spark_batch
    from spark_jobs.spark import session as spark_session
    from spark_jobs.tables import TABLES

    if version := options.pop("release", None):
        from simulator.events import schemas
        from tests.services import evolved

        known = evolved.released(version)
        schemas.released = lambda: known  # type: ignore[assignment]
        options["tables"] = evolved.tables(version)
    die_after = options.pop("die_after", None)
    pause_after = options.pop("pause_after", None)  # (commit, seconds)
    made: list[str] = []
    times: list[float] = []
    began = time.time()

    def on_commit(what: str) -> None:
        made.append(what)
        times.append(round(time.time() - began, 1))
        if die_after == what:
            print(f"died after {what}", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if pause_after is not None and pause_after[0] == what:
            print(f"paused after {what}", flush=True)
            time.sleep(pause_after[1])

    commits.on_commit = on_commit
    spark = attached()
    started = time.time()
    if name in ("build", "reconcile"):
        if "now" in options:
            options["now"] = datetime.fromisoformat(options["now"])
        store = Counting(named_store(tables=options.get("tables", TABLES)))
        report = spark_batch.build(spark, ".", store=store.store, reconcile=name == "reconcile", **options)
        return {
            **asdict(report),
            "commits": made,
            "times": times,
            "listed": store.listed,
            "began": started,
            "ended": time.time(),
        }
    if name == "views":
        return {"made": spark_session.create_views(spark, **options)}
    if name == "queries":
        return {k: [list(r) for r in spark.sql(q).collect()] for k, q in options["queries"].items()}
    if name == "sql":
        return {"rows": [r.asDict(recursive=True) for r in spark.sql(options["sql"]).collect()]}
    if name == "maintain":
        from spark_jobs.spark import maintenance as spark_maintenance

        seconds = options.pop("orphan_seconds", None)
        if seconds is not None:
            options["orphan_age"] = timedelta(seconds=seconds)
        report = spark_maintenance.maintain(spark, ".", **options)
        return {**asdict(report), "commits": made, "began": started, "ended": time.time()}
    raise ValueError(name)


class Counting:
    """A store that counts the objects that it lists."""

    def __init__(self, store: Any) -> None:
        self.store, self.listed = store, 0
        listed = store.objects

        def objects(after: Any = None) -> Any:
            for raw in listed(after):
                self.listed += 1
                yield raw

        store.objects = objects


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        try:
            answer: Any = {"answer": job(sys.argv[2], json.loads(sys.argv[3]))}
        except Exception as e:
            import traceback

            traceback.print_exc()
            answer = {"error": f"{type(e).__name__}: {e}"}
        gc.collect()  # gives back what the JVM keeps for this process
        print(json.dumps(answer, default=str), flush=True)
        os._exit(0)
