"""Kafka 4.3 (KRaft, one node), Apicurio Registry, MinIO and Kafka Connect as processes on the loopback interface."""

from __future__ import annotations

import ctypes
import json
import os
import pathlib
import secrets
import shutil
import signal
import socket
import subprocess
import time
import urllib.request

from .artifacts import CHECKOUT, HERE, Artifacts
from .security import Security

HOST = "127.0.0.1"
NAMES = ("kafka", "minio", "registry", "connect")
PORTS = (
    "kafka",
    "controller",
    "sasl",
    "mtls",
    "minio",
    "registry",
    "registry-management",
    "connect",
    "connect-metrics",
    "kafka-metrics",
)
CLUSTER_ID = "4L6g3nShT-eMCtK--X86sw"
PR_SET_PDEATHSIG = 1

# Small heaps, and the quick compiler only: tests start these often and load them little.
QUICK_JAVA = ["java", "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]


class ServiceError(Exception):
    """A service did not do what it was told to; the message ends with its log."""


class Stack:
    """One set of services with its own data, ports and credentials.

    ``directory`` holds data, logs and ports; what was fetched is shared (``VQE_SERVICES_DIR``). Free ports are chosen once and
    kept in the directory, so that a restarted service has its old address. ``security`` adds listeners for SASL_SSL and mTLS.
    Processes die with the thread that started them, unless ``detached``: start them from the main thread.
    ``monitored`` has the broker and MinIO show their metrics (Connect and the registry always do).
    ``fast_java`` gives the services the optimizing compiler and larger heaps, for measurements.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        *,
        security: bool = False,
        detached: bool = False,
        fast_java: bool = False,
        connect_environment: dict[str, str] | None = None,
        monitored: bool = False,
    ):
        self.directory = pathlib.Path(directory).resolve()
        self.artifacts = Artifacts()
        self.data, self.logs, self.run = (self.directory / name for name in ("data", "logs", "run"))
        for folder in (self.data, self.logs, self.run):
            folder.mkdir(parents=True, exist_ok=True)
        self.detached = detached
        self.connect_environment = dict(connect_environment or {})
        self.monitored = monitored
        self.java = QUICK_JAVA if not fast_java else ["java", "-Xms256m"]
        self.heap = "512m" if not fast_java else "1g"
        self._children: dict[str, subprocess.Popen] = {}
        self._settings = self._load()
        self.security = Security(self.data / "tls") if security or (self.data / "tls").exists() else None

    def _load(self) -> dict:
        file = self.run / "stack.json"
        if file.exists():
            return json.loads(file.read_text())
        settings = {
            "ports": dict(zip(PORTS, _free_ports(len(PORTS)), strict=True)),
            "access_key": "test-" + secrets.token_hex(6),
            "secret_key": secrets.token_urlsafe(24),
        }
        file.touch(mode=0o600)
        file.write_text(json.dumps(settings))
        return settings

    # Addresses

    def _address(self, name: str) -> str:
        return f"{HOST}:{self._settings['ports'][name]}"

    @property
    def bootstrap(self) -> str:
        return self._address("kafka")

    @property
    def sasl_bootstrap(self) -> str:
        return self._address("sasl")

    @property
    def mtls_bootstrap(self) -> str:
        return self._address("mtls")

    @property
    def registry_url(self) -> str:
        """The Confluent-compatible API."""
        return f"http://{self._address('registry')}/apis/ccompat/v7"

    @property
    def connect_url(self) -> str:
        return f"http://{self._address('connect')}"

    @property
    def connect_metrics_url(self) -> str:
        """Connect's JMX metrics in Prometheus' format."""
        return f"http://{self._address('connect-metrics')}/metrics"

    @property
    def kafka_metrics_url(self) -> str:
        """The broker's JMX metrics, of a monitored stack."""
        return f"http://{self._address('kafka-metrics')}/metrics"

    @property
    def registry_metrics_url(self) -> str:
        return f"http://{self._address('registry')}/metrics"

    @property
    def minio_metrics_url(self) -> str:
        """The cluster's metrics, of a monitored stack."""
        return f"{self.s3_endpoint}/minio/v2/metrics/cluster"

    @property
    def s3_endpoint(self) -> str:
        return f"http://{self._address('minio')}"

    @property
    def s3_access_key(self) -> str:
        return self._settings["access_key"]

    @property
    def s3_secret_key(self) -> str:
        return self._settings["secret_key"]

    @property
    def aws_environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": self.s3_access_key,
            "AWS_SECRET_ACCESS_KEY": self.s3_secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL_S3": self.s3_endpoint,
        }

    def client_settings(self, how: str = "plaintext") -> dict[str, str]:
        """librdkafka settings for a client: ``plaintext``, ``scram``, ``plain`` or ``mtls``."""
        if how == "plaintext":
            return {"bootstrap.servers": self.bootstrap}
        if self.security is None:
            raise ServiceError("this stack has no security: Stack(..., security=True)")
        tls = {"ssl.ca.location": str(self.security.ca)}
        if how == "mtls":
            return tls | {
                "bootstrap.servers": self.mtls_bootstrap,
                "security.protocol": "SSL",
                "ssl.certificate.location": str(self.security.client_cert),
                "ssl.key.location": str(self.security.client_key),
            }
        return tls | {
            "bootstrap.servers": self.sasl_bootstrap,
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": {"scram": "SCRAM-SHA-512", "plain": "PLAIN"}[how],
            "sasl.username": self.security.user,
            "sasl.password": self.security.password,
        }

    def s3(self):
        """A boto3 client for MinIO."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.s3_endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.s3_access_key,
            aws_secret_access_key=self.s3_secret_key,
            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 2}, proxies={}),
        )

    # Life

    def fetch(self, *names: str) -> Stack:
        self.artifacts.fetch(names or NAMES)
        return self

    def start(self, *names: str, limit: float = 180) -> Stack:
        """Starts these services (all, if none is named) and waits, at most ``limit`` seconds, until each answers."""
        wanted = self._known(names)
        for step in (("kafka", "minio"), ("registry", "connect")):  # the latter two need Kafka
            started = [name for name in step if name in wanted]
            for name in started:
                if self.pid(name) is None:
                    getattr(self, f"_start_{name}")()
            for name in started:
                self.wait(name, limit)
        return self

    def stop(self, *names: str, limit: float = 30) -> None:
        """SIGTERM, and SIGKILL for what has not gone after ``limit`` seconds."""
        for name in reversed(self._known(names)):
            self._end(name, signal.SIGTERM, limit)

    def kill(self, *names: str) -> None:
        """SIGKILL: no chance to tidy up."""
        if not names:
            raise ValueError("kill needs a name")
        for name in self._known(names):
            self._end(name, signal.SIGKILL, 30)

    def restart(self, *names: str) -> None:
        self.stop(*names)
        self.start(*names)

    def pause(self, name: str) -> None:
        """SIGSTOP: the process is there and does not answer."""
        os.kill(self._require(name), signal.SIGSTOP)

    def resume(self, name: str) -> None:
        os.kill(self._require(name), signal.SIGCONT)

    def wipe(self) -> None:
        """Deletes data, logs, ports and credentials; everything must be stopped."""
        if any(self.pid(name) for name in NAMES):
            raise ServiceError("stop first")
        shutil.rmtree(self.directory, ignore_errors=True)

    def pid(self, name: str) -> int | None:
        """The process id while that process lives, else None."""
        child = self._children.get(name)
        if child is not None:
            return child.pid if child.poll() is None else None
        try:
            number = int((self.run / f"{name}.pid").read_text())
            # The number may be another program's by now: ours carries this directory in its environment.
            if f"VQE_STACK={self.directory}".encode() in pathlib.Path(f"/proc/{number}/environ").read_bytes().split(
                b"\0"
            ):
                return number
        except (OSError, ValueError):
            pass
        return None

    def answers(self, name: str) -> bool:
        url = {
            "minio": f"{self.s3_endpoint}/minio/health/ready",
            "registry": f"{self.registry_url}/subjects",
            "connect": f"{self.connect_url}/connectors",
        }.get(name)
        try:
            if url is None:
                socket.create_connection((HOST, self._settings["ports"]["kafka"]), 1).close()
            else:
                urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=2).close()
            return True
        except OSError:
            return False

    def wait(self, name: str, limit: float = 180) -> None:
        began = time.monotonic()
        while not self.answers(name):
            gone = (
                self.pid(name) is None and time.monotonic() - began > 3
            )  # a child that has not exec'ed yet looks gone
            if gone or time.monotonic() - began > limit:
                raise ServiceError(f"{name} did not start; {self.logs / name}.log ends:\n{self.log(name)[-3000:]}")
            time.sleep(0.1)

    def log(self, name: str) -> str:
        file = self.logs / f"{name}.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def __enter__(self) -> Stack:
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    @staticmethod
    def _known(names: tuple[str, ...]) -> list[str]:
        if unknown := set(names) - set(NAMES):
            raise ValueError(f"no such service: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
        return [name for name in NAMES if name in names or not names]

    def _require(self, name: str) -> int:
        pid = self.pid(name)
        if pid is None:
            raise ServiceError(f"{name} does not run")
        return pid

    def _end(self, name: str, how: signal.Signals, limit: float) -> None:
        pid = self.pid(name)
        if pid is not None:
            os.kill(pid, how)
            os.kill(pid, signal.SIGCONT)  # a paused one, too
            end = time.monotonic() + limit
            while self.pid(name) is not None:
                if time.monotonic() > end:
                    os.kill(pid, signal.SIGKILL)
                    end = time.monotonic() + 30
                time.sleep(0.05)
        self._children.pop(name, None)
        (self.run / f"{name}.pid").unlink(missing_ok=True)

    # What runs

    def _spawn(self, name: str, command: list, **environment: str) -> None:
        with open(self.logs / f"{name}.log", "ab") as log:
            child = subprocess.Popen(
                list(map(str, command)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.run,
                env={**os.environ, "VQE_STACK": str(self.directory), **environment},
                start_new_session=True,
                preexec_fn=None if self.detached else _die_with_parent,
            )
        if not self.detached:
            self._children[name] = child
        (self.run / f"{name}.pid").write_text(str(child.pid))

    def _kafka_java(self, *options: str) -> list[str]:
        log4j = f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}"
        return [*self.java, f"-Xmx{self.heap}", *options, log4j, "-cp", f"{self.artifacts.kafka}/*"]

    def _start_kafka(self) -> None:
        listeners = {"PLAINTEXT": self.bootstrap, "CONTROLLER": self._address("controller")}
        protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT"}
        if self.security:
            listeners |= {"SASL": self.sasl_bootstrap, "MTLS": self.mtls_bootstrap}
            protocols |= {"SASL": "SASL_SSL", "MTLS": "SSL"}
        properties = self.data / "server.properties"
        properties.write_text(f"""\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{self._address("controller")}
listeners={",".join(f"{name}://{address}" for name, address in listeners.items())}
listener.security.protocol.map={",".join(f"{name}:{protocol}" for name, protocol in protocols.items())}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={self.data / "kafka"}
auto.create.topics.enable=false
num.partitions=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.segment.delete.delay.ms=1000
{self.security.server_properties() if self.security else ""}""")
        java = self._kafka_java()
        if not (self.data / "kafka" / "meta.properties").exists():
            scram = ["--add-scram", self.security.scram_user()] if self.security else []
            done = subprocess.run(
                [*java, "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(properties), *scram],
                capture_output=True,
                text=True,
            )
            if done.returncode:
                raise ServiceError(f"kafka storage: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        if self.monitored:
            java = self._kafka_java(self._agent("kafka-metrics", CHECKOUT / "monitoring" / "jmx" / "kafka.yml"))
        self._spawn("kafka", [*java, "kafka.Kafka", properties])

    def _agent(self, port: str, rules: pathlib.Path) -> str:
        """Java's option for the JMX exporter."""
        return f"-javaagent:{self.artifacts.jmx_exporter}={self._address(port)}:{rules}"

    def _start_minio(self) -> None:
        command = [self.artifacts.minio, "server", "--quiet", "--address", self._address("minio"), self.data / "minio"]
        self._spawn("minio", command, MINIO_ROOT_USER=self.s3_access_key, MINIO_ROOT_PASSWORD=self.s3_secret_key,
                    MINIO_BROWSER="off", **({"MINIO_PROMETHEUS_AUTH_TYPE": "public"} if self.monitored else {}))  # fmt: skip

    def _start_registry(self) -> None:
        ports = self._settings["ports"]
        self._spawn(
            "registry",
            [*self.java, "-Xmx384m", "-jar", self.artifacts.registry_jar],
            QUARKUS_HTTP_HOST=HOST,
            QUARKUS_HTTP_PORT=str(ports["registry"]),
            QUARKUS_MANAGEMENT_HOST=HOST,  # the default is every interface
            QUARKUS_MANAGEMENT_PORT=str(ports["registry-management"]),
            APICURIO_STORAGE_KIND="kafkasql",  # the default is memory: a restart would forget all
            APICURIO_KAFKASQL_BOOTSTRAP_SERVERS=self.bootstrap,
        )

    def _start_connect(self) -> None:
        properties = self.data / "connect.properties"
        product = (CHECKOUT / "connect" / "worker.properties").read_text()
        properties.write_text(f"""{product}
bootstrap.servers={self.bootstrap}
listeners={self.connect_url}
plugin.path={self.artifacts.plugins}
config.providers.file.param.allowed.paths={self.run}
config.storage.replication.factor=1
offset.storage.replication.factor=1
status.storage.replication.factor=1
offset.flush.interval.ms=3000
""")
        agent = self._agent("connect-metrics", CHECKOUT / "connect" / "jmx-exporter.yaml")
        command = [*self._kafka_java(agent), "org.apache.kafka.connect.cli.ConnectDistributed", properties]
        environment = {
            "AWS_ACCESS_KEY_ID": self.s3_access_key,
            "AWS_SECRET_ACCESS_KEY": self.s3_secret_key,
            "VQE_KAFKA_BOOTSTRAP_SERVERS": self.bootstrap,
            "VQE_REGISTRY_URL": self.registry_url,
            "VQE_S3_ENDPOINT": self.s3_endpoint,
        }
        self._spawn("connect", command, **environment | self.connect_environment)


def _die_with_parent() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


_given: set[int] = set()
"""Ports that somebody of this process has and may not have opened yet."""


def _free_ports(count: int) -> list[int]:
    """Ports that are free now, each given once. From below the range that the system gives to outgoing connections,
    which would take a stopped service's port before it starts again."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        first_ephemeral = int(file.read().split()[0])
    low, high = 10_000, max(first_ephemeral, 20_000)
    found: list[int] = []
    while len(found) < count:
        port = low + secrets.randbelow(high - low)
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        if port not in _given:
            _given.add(port)
            found.append(port)
    return found
