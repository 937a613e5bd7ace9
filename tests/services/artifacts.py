"""Fetches the services from Maven Central and the Go module proxy, once, and builds the Connect plugin when it changed."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import tarfile

HERE = pathlib.Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
PLUGIN_SOURCE = CHECKOUT / "connect" / "avro-s3-sink"

REGISTRY_VERSION = "3.0.9"  # the newest that runs on Java 17
REGISTRY = f"io.apicurio:apicurio-registry-app:{REGISTRY_VERSION}:tar.gz:all"
JMX_EXPORTER_VERSION = "1.0.1"
JMX_EXPORTER = f"io.prometheus.jmx:jmx_prometheus_javaagent:{JMX_EXPORTER_VERSION}"
MINIO_MODULE = "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c"
# "get" of this version takes a file name to write to, and wants no parent POM.
GET = "org.apache.maven.plugins:maven-dependency-plugin:2.10:get"
MVN = ["mvn", "-B", "-q", "-Dstyle.color=never"]


class Artifacts:
    """Where the fetched files lie: ``VQE_SERVICES_DIR``, or ``.services`` in the checkout."""

    def __init__(self, root: pathlib.Path | None = None):
        self.root = pathlib.Path(root or os.environ.get("VQE_SERVICES_DIR") or CHECKOUT / ".services").resolve()
        self.lib = self.root / "lib"
        # by its contents: a checkout with other versions leaves the files of running brokers alone
        self.kafka = self.lib / f"kafka-{_digest([HERE / 'pom.xml'])[:12]}"
        self.registry_jar = self.lib / "registry" / f"apicurio-registry-app-{REGISTRY_VERSION}-runner.jar"
        self.jmx_exporter = self.lib / f"jmx_prometheus_javaagent-{JMX_EXPORTER_VERSION}.jar"
        self.plugins = self.lib / "plugins"
        self.minio = pathlib.Path(os.environ.get("MINIO_BIN") or self.root / "bin" / "minio")

    def fetch(self, names: tuple[str, ...] = ("kafka", "minio", "registry", "connect")) -> None:
        """Fetches what these services need and is not there yet. Well under a second when all is."""
        self.lib.mkdir(parents=True, exist_ok=True)
        if {"kafka", "connect"} & set(names):
            with self._lock("kafka"):
                self._fetch_kafka()
        if "registry" in names:
            with self._lock("registry"):
                if not self.registry_jar.is_file():
                    self._fetch_registry()
        if "connect" in names:
            with self._lock("connect"):
                if not self.jmx_exporter.is_file():
                    self._get(JMX_EXPORTER, self.jmx_exporter)
                self._build_plugin()
        if "minio" in names:
            with self._lock("minio"):
                if not self.minio.exists():
                    self._fetch_minio()

    @contextlib.contextmanager
    def _lock(self, name: str):
        """One process at a time fetches `name`; others wait and find it there."""
        with open(self.root / f"fetch-{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _maven(self, *arguments: object, **options) -> None:
        """Maven's repository in the home directory bears one process at a time."""
        with self._lock("maven"):
            _run([*MVN, *arguments], **options)

    def _fetch_minio(self) -> None:
        """The program of the platform's image where Docker has it, which takes seconds; else it is built, in five to eight minutes."""
        self.minio.parent.mkdir(parents=True, exist_ok=True)
        image = os.environ.get("MINIO_IMAGE") or _default_minio_image()
        with contextlib.suppress(OSError, RuntimeError):  # no Docker, or without this image
            _run(["docker", "image", "inspect", image])
            container = f"vqe-minio-{os.getpid()}"
            _run(["docker", "create", "--name", container, image])
            try:
                fresh = self.minio.with_suffix(".part")
                _run(["docker", "cp", f"{container}:/usr/bin/minio", fresh])
                fresh.rename(self.minio)
            finally:
                _run(["docker", "rm", container])
            return
        _run(["go", "install", "-trimpath", MINIO_MODULE], env={**os.environ, "GOBIN": str(self.minio.parent)})

    def _fetch_kafka(self) -> None:
        stamp = self.kafka / ".stamp"
        if stamp.is_file():
            return
        shutil.rmtree(self.kafka, ignore_errors=True)
        self._maven("-f", HERE / "pom.xml", "dependency:copy-dependencies", "-DincludeScope=runtime",
                    f"-DoutputDirectory={self.kafka}")  # fmt: skip
        stamp.touch()

    def _fetch_registry(self) -> None:
        archive = self.root / "registry.tar.gz"
        self._get(REGISTRY, archive)
        with tarfile.open(archive) as tar:
            tar.extractall(self.registry_jar.parent, filter="data")
        archive.unlink()

    def _get(self, artifact: str, target: pathlib.Path) -> None:
        # In a folder without a POM: there, Maven would take it for this goal's project.
        self._maven(GET, f"-Dartifact={artifact}", "-Dtransitive=false", f"-Ddest={target}", cwd=self.root)

    def _build_plugin(self) -> None:
        target = self.plugins / "avro-s3-sink"
        stamp = target / ".stamp"
        sources = [PLUGIN_SOURCE / "pom.xml", *sorted((PLUGIN_SOURCE / "src" / "main").rglob("*"))]
        wanted = _digest([path for path in sources if path.is_file()])
        if stamp.is_file() and stamp.read_text() == wanted:
            return
        build = self.root / "build" / "avro-s3-sink"
        fresh = self.root / "build" / "plugin"
        for folder in (build, fresh):
            shutil.rmtree(folder, ignore_errors=True)
        self._maven("-f", PLUGIN_SOURCE, "package", "dependency:copy-dependencies", "-Dmaven.test.skip=true",
                    "-DincludeScope=runtime", f"-Dsink.build={build}", f"-DoutputDirectory={fresh}")  # fmt: skip
        for jar in build.glob("*.jar"):
            shutil.copy(jar, fresh)
        (fresh / ".stamp").write_text(wanted)
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh.rename(target)


def _default_minio_image() -> str:
    """What docker-compose.yml runs."""
    found = re.search(r"\$\{MINIO_IMAGE:-([^}]+)\}", (CHECKOUT / "docker-compose.yml").read_text())
    assert found is not None
    return found[1]


def _digest(paths: list[pathlib.Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _run(command: list, **options) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} failed:\n{(done.stdout + done.stderr)[-4000:]}")
