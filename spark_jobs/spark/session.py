"""The one place that makes a Spark session: the catalog `vqe` on its database, tables on S3, raw Avro through S3A.

The same environment as pyiceberg's side (`warehouse.Location`), so that both open the same tables:

| variable | what it names |
|---|---|
| VQE_CATALOG_URI | the catalog's database, SQLAlchemy's form: postgresql+psycopg2://user:password@host:5432/vqe |
| VQE_WAREHOUSE | s3://bucket/warehouse, or a folder |
| SPARK_DIST_CLASSPATH | <folder>/* with the jars of spark_jobs/jars/pom.xml, unless Spark's own jars folder has them |
| VQE_SPARK_MASTER | where no spark-submit says it: local[2], spark://host:7077, k8s://... |
| AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY | the object store, if it is not AWS, and its keys |

spark-submit's own settings win over these, but for the catalog's.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from typing import Any

from sqlalchemy.engine import make_url

from simulator.errors import InputError
from simulator.settings import environment, load_object_store_settings, load_table_settings
from spark_jobs.query import VIEWS, view_sql
from spark_jobs.tables import NAMESPACE
from spark_jobs.warehouse import CATALOG_NAME, Location

PARTITION_BYTES = 16 << 20
"""Avro bytes to a shuffle partition: tens of megabytes once they are rows."""

CATALOG = f"spark.sql.catalog.{CATALOG_NAME}"


def spark_session(location: Location, app_name: str = "vqe") -> Any:
    """A session on a warehouse; the process's session if it has one."""
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName(app_name)
    if master := load_table_settings().spark_master:
        builder = builder.master(master)
    for name, value in {**defaults(), **catalog_conf(location)}.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    fit_partitions(spark)
    return spark


def fit_partitions(spark: Any, size_bytes: int = 0) -> None:
    """Shuffles of a session in two partitions for each core that it has now (on a cluster two at least: executors come
    as they are needed), or in more where so many Avro bytes need them. A setting of `spark.sql.shuffle.partitions`
    wins. Spark's own 200 were half of a small batch's CPU time."""
    name = "spark.sql.shuffle.partitions"
    context = spark.sparkContext
    if not context.getConf().contains(name):
        spark.conf.set(name, str(max(2 * context.defaultParallelism, -(-size_bytes // PARTITION_BYTES))))


def defaults() -> dict[str, str]:
    """Settings of every session. What is tuned for larger data is said in docs/scaling.md."""
    return {
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.ansi.enabled": "true",  # a value that does not fit its column fails the batch
        "spark.sql.adaptive.coalescePartitions.parallelismFirst": "false",  # tasks of 64 MB, not of 1 MB
        "spark.sql.files.ignoreCorruptFiles": "false",  # would drop the rest of a damaged file in silence
        "spark.sql.files.ignoreMissingFiles": "false",
        "spark.sql.autoBroadcastJoinThreshold": "32m",
        "spark.ui.showConsoleProgress": "false",
        "spark.serializer": "org.apache.spark.serializer.KryoSerializer",
        # a job that waits for the warehouse lock, and an idle shell, give their cores back: the lock's holder may need them
        "spark.dynamicAllocation.enabled": "true",
        "spark.dynamicAllocation.shuffleTracking.enabled": "true",
        "spark.dynamicAllocation.shuffleTracking.timeout": "30s",
        "spark.dynamicAllocation.executorIdleTimeout": "15s",
        "spark.dynamicAllocation.cachedExecutorIdleTimeout": "60s",
    }


def catalog_conf(location: Location) -> dict[str, str]:
    """Where tables, their catalog and raw objects are, in Spark's words."""
    location.check()
    url = make_url(location.catalog_uri)
    conf = {
        CATALOG: "org.apache.iceberg.spark.SparkCatalog",
        f"{CATALOG}.type": "jdbc",
        f"{CATALOG}.jdbc.schema-version": "V1",
        f"{CATALOG}.warehouse": location.warehouse,
        f"{CATALOG}.cache-enabled": "false",  # pyiceberg commits to the same tables
        "spark.sql.defaultCatalog": CATALOG_NAME,
        # tables are found by their bare names: `vqe.vqe_results` would be a table of the catalog's root
        f"{CATALOG}.default-namespace": NAMESPACE,
    }
    if url.get_backend_name() == "sqlite":
        conf[f"{CATALOG}.uri"] = f"jdbc:sqlite:{url.database}"
    elif url.get_backend_name() == "postgresql":
        conf[f"{CATALOG}.uri"] = f"jdbc:postgresql://{url.host}:{url.port or 5432}/{url.database}"
        conf[f"{CATALOG}.jdbc.user"] = url.username or ""
        conf[f"{CATALOG}.jdbc.password"] = url.password or ""
    else:
        raise InputError(f"catalog {url.render_as_string()}: Spark opens one in postgresql or sqlite")
    if location.warehouse.startswith("s3://"):
        conf[f"{CATALOG}.io-impl"] = "org.apache.iceberg.aws.s3.S3FileIO"
    store = load_object_store_settings()
    if endpoint := store.endpoint_url:
        conf |= {
            f"{CATALOG}.s3.endpoint": endpoint,
            f"{CATALOG}.s3.path-style-access": "true",
            "spark.hadoop.fs.s3a.endpoint": endpoint,
            "spark.hadoop.fs.s3a.path.style.access": "true",
        }
    if region := store.region:
        conf[f"{CATALOG}.client.region"] = region
        conf["spark.hadoop.fs.s3a.endpoint.region"] = region
    return conf


def create_views(spark: Any, replace: bool = False) -> list[str]:
    """Makes the views of spark_jobs/sql in the catalog, for every session: those that are missing, or all anew."""
    namespace = f"{CATALOG_NAME}.{NAMESPACE}"
    there = set() if replace else {row["viewName"] for row in spark.sql(f"SHOW VIEWS IN {namespace}").collect()}
    made = [name for name in VIEWS if name not in there]
    for name in made:
        # the catalog is named as the namespace: Spark takes the first of two names for the catalog
        select = re.sub(rf"\b{NAMESPACE}\.(?=\w)", f"{namespace}.", view_sql(name))
        spark.sql(f"CREATE OR REPLACE VIEW {namespace}.{name} AS {select}")
    return made


def main() -> None:
    """`python -m spark_jobs.spark.session sql|notebook`: Spark's own shell on the tables, set up from the environment."""
    what = sys.argv[1] if len(sys.argv) > 1 else ""
    if what not in ("sql", "notebook"):
        raise SystemExit("usage: python -m spark_jobs.spark.session sql|notebook [ARGUMENT...]")
    conf = {**defaults(), **catalog_conf(Location.of("."))}
    conf["spark.sql.catalogImplementation"] = "in-memory"  # else spark-sql makes a Hive metastore in the working folder
    if master := load_table_settings().spark_master:
        conf["spark.master"] = master
    variables = {"PYSPARK_PYTHON": sys.executable, **environment()}
    if what == "notebook":
        variables |= {"PYSPARK_DRIVER_PYTHON": "jupyter", "PYSPARK_DRIVER_PYTHON_OPTS": "lab"}
    # a file, not arguments: these are seen by every user of the machine
    with tempfile.NamedTemporaryFile("w", prefix="vqe-", suffix=".conf") as file:
        file.writelines(f"{name} {value}\n".replace("\\", r"\\") for name, value in conf.items())
        file.flush()
        command = [_shell("spark-sql" if what == "sql" else "pyspark"), "--properties-file", file.name]
        raise SystemExit(subprocess.run([*command, *sys.argv[2:]], env=variables).returncode)


def _shell(name: str) -> str:
    """A program of Spark's: of SPARK_HOME, of this interpreter's environment, or on the path."""
    home = os.environ.get("SPARK_HOME")
    folders = [*([f"{home}/bin"] if home else []), os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)]
    found = shutil.which(name, path=os.pathsep.join(folders))
    if found is None:
        raise SystemExit(f"{name} is not here: install pyspark in this environment, or set SPARK_HOME")
    return found


if __name__ == "__main__":
    main()
