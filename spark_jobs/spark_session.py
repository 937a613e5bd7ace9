"""The one place that makes a Spark session: the catalog `vqe` on its database, tables on S3, raw Avro through S3A.

The same environment as pyiceberg's side (`warehouse.Location`), so that both open the same tables:

| variable | what it names |
|---|---|
| VQE_CATALOG_URI | the catalog's database, SQLAlchemy's form: postgresql+psycopg2://user:password@host:5432/vqe |
| VQE_WAREHOUSE | s3://bucket/warehouse, or a folder |
| VQE_SPARK_JARS | folder with the jars of spark_jobs/jars/pom.xml; not needed where Spark's own jars folder has them |
| VQE_SPARK_MASTER | where no spark-submit says it: local[2], spark://host:7077, k8s://... |
| AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY | the object store, if it is not AWS, and its keys |

spark-submit's own settings win over these, but for the catalog's.
"""

import os
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url

from simulator.errors import InputError
from spark_jobs.warehouse import CATALOG_NAME, Location

CATALOG = f"spark.sql.catalog.{CATALOG_NAME}"


def spark_session(location: Location, app_name: str = "vqe") -> Any:
    """A session on a warehouse; the process's session if it has one."""
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName(app_name)
    if master := os.environ.get("VQE_SPARK_MASTER"):
        builder = builder.master(master)
    for name, value in {**defaults(), **catalog_conf(location)}.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


def defaults() -> dict[str, str]:
    """Settings of every session. What is tuned for larger data is said in docs/scaling.md."""
    conf = {
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.ansi.enabled": "true",  # a value that does not fit its column fails the batch
        "spark.sql.adaptive.coalescePartitions.parallelismFirst": "false",  # tasks of 64 MB, not of 1 MB
        "spark.sql.files.ignoreCorruptFiles": "false",  # would drop the rest of a damaged file in silence
        "spark.sql.files.ignoreMissingFiles": "false",
        "spark.sql.autoBroadcastJoinThreshold": "32m",
        "spark.ui.showConsoleProgress": "false",
        "spark.serializer": "org.apache.spark.serializer.KryoSerializer",
        # Python workers decode Arrow; none is needed but for judging objects
        "spark.sql.execution.arrow.pyspark.enabled": "true",
    }
    if jars := os.environ.get("VQE_SPARK_JARS"):
        found = sorted(str(jar) for jar in Path(jars).glob("*.jar"))
        if not found:
            raise InputError(f"VQE_SPARK_JARS {jars} has no jars: fetch them with spark_jobs/jars/pom.xml")
        conf["spark.driver.extraClassPath"] = f"{jars}/*"
        conf["spark.executor.extraClassPath"] = f"{jars}/*"
    return conf


def catalog_conf(location: Location) -> dict[str, str]:
    """Where tables, their catalog and raw objects are, in Spark's words."""
    url = make_url(location.catalog_uri)
    conf = {
        CATALOG: "org.apache.iceberg.spark.SparkCatalog",
        f"{CATALOG}.type": "jdbc",
        f"{CATALOG}.jdbc.schema-version": "V1",
        f"{CATALOG}.warehouse": location.warehouse,
        f"{CATALOG}.cache-enabled": "false",  # pyiceberg commits to the same tables
        "spark.sql.defaultCatalog": CATALOG_NAME,
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
    if endpoint := os.environ.get("AWS_ENDPOINT_URL"):
        conf |= {
            f"{CATALOG}.s3.endpoint": endpoint,
            f"{CATALOG}.s3.path-style-access": "true",
            "spark.hadoop.fs.s3a.endpoint": endpoint,
            "spark.hadoop.fs.s3a.path.style.access": "true",
        }
    if region := os.environ.get("AWS_REGION"):
        conf[f"{CATALOG}.client.region"] = region
        conf["spark.hadoop.fs.s3a.endpoint.region"] = region
    return conf
