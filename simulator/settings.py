"""Settings: where results go, what is logged, who may read them. Never what decides a number: that is `RunSpec`.

Every setting is a `VQE_` environment variable, also read from a `.env` file in the working directory. So are the `AWS_`
variables of an object store. A variable that is set wins over the file. `~` at the beginning of a path is the home folder.
"""

import io
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from simulator.credentials import remember
from simulator.errors import InputError
from simulator.input_files import read_text

DOTENV = Path(".env")
_EXPORTED = ("VQE_", "AWS_")
"""What the names of variables begin with that `.env` may set for a command, its libraries and its children."""


class TableSettings(BaseSettings):
    """Where the tables are: all that a job needs to know that has no business with Kafka and its secrets."""

    model_config = SettingsConfigDict(
        env_prefix="VQE_",
        env_file=".env",
        env_ignore_empty=True,  # compose files pass empty variables on
        extra="ignore",
        frozen=True,
    )

    catalog_uri: SecretStr | None = Field(
        None,
        description="Database of the Iceberg catalog, as SQLAlchemy names it, with its password; none: a file in the data dir.",
    )
    warehouse: str | None = Field(None, description="Folder or s3:// address of the tables; none: in the data dir.")
    raw_store: str | None = Field(
        None,
        description="Folder with raw/, or s3:// bucket, of the raw objects that become tables; none: the data dir.",
    )
    spark_master: str | None = Field(
        None, description="Spark's master where no spark-submit says it: local[2], spark://host:7077, k8s://..."
    )

    @field_validator("*", mode="before")
    @classmethod
    def _from_home(cls, value: Any, info: ValidationInfo) -> Any:
        name = info.field_name or ""
        is_path = name in ("warehouse", "raw_store") or cls.model_fields[name].annotation in (Path, Path | None)
        return from_home(value) if is_path and isinstance(value, Path | str) else value

    @field_validator("catalog_uri", "warehouse", mode="before")
    @classmethod
    def _url_from_home(cls, value: Any) -> Any:
        if (
            not isinstance(value, str)
            or (match := re.match(r"(sqlite[^:]*:///|file://)(~.*)", value, re.DOTALL)) is None
        ):
            return value
        return match[1] + from_home(match[2])

    @field_validator("catalog_uri")
    @classmethod
    def _masked_from_now_on(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            uri = value.get_secret_value()
            remember(uri if "://" in uri else "")  # of a URL its password is secret, and a word is none
        return value


class ObjectStoreSettings(BaseSettings):
    """An S3 object store, by the names of variables that the AWS tools use."""

    model_config = SettingsConfigDict(
        env_prefix="AWS_", env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True
    )

    endpoint_url: str | None = Field(None, description="The store's address; none: AWS.")
    region: str | None = Field(None, description="The store's region.")
    access_key_id: SecretStr | None = Field(None, description="Id of the access key.")
    secret_access_key: SecretStr | None = Field(None, description="The access key.")
    session_token: SecretStr | None = Field(None, description="Token of temporary keys.")

    @field_validator("access_key_id", "secret_access_key", "session_token")
    @classmethod
    def _masked_from_now_on(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            remember(value.get_secret_value())
        return value

    def named(self, names: Mapping[str, str]) -> dict[str, str]:
        """What is set, under the names that a library gives it.

        Args:
            names: the library's name of each setting that it takes, by ours.
        """
        found = {theirs: getattr(self, ours) for ours, theirs in names.items()}
        return {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value
            for name, value in found.items()
            if value is not None
        }


class Settings(TableSettings):
    """What a process needs to know beside the specification."""

    data_dir: Path = Field(Path("vqe-data"), description="Folder of raw files, tables and reports.")
    sink: Literal["file", "kafka"] = Field("file", description="Where events go.")
    record_parameters: str = Field("all", description="Which iterations keep their parameters: all, none or every:N.")
    monitor_interval: Annotated[float, Field(gt=0, le=3600)] = Field(
        1.0, description="Seconds between samples of CPU, memory, disk and GPU."
    )
    checkpoint_seconds: Annotated[float, Field(gt=0, le=3600)] = Field(
        10.0, description="Seconds between checkpoints of a run, from which a stopped or killed one is resumed."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "warning", description="Least severe log line shown."
    )
    log_format: Literal["auto", "text", "json"] = Field("auto", description="auto: text on a terminal, else JSON.")

    kafka_bootstrap_servers: str = Field("localhost:9092", description="Kafka brokers, host:port, comma-separated.")
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How clients talk to the brokers."
    )
    kafka_sasl_mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] = Field(
        "SCRAM-SHA-512", description="SASL mechanism of SASL_SSL and SASL_PLAINTEXT."
    )
    kafka_username: str | None = Field(None, description="SASL user.")
    kafka_password: SecretStr | None = Field(None, description="SASL password.")
    kafka_password_file: Path | None = Field(None, description="File with the SASL password.")
    kafka_ssl_ca: Path | None = Field(
        None, description="PEM file of the authority that signed the brokers' certificates."
    )
    kafka_ssl_certificate: Path | None = Field(None, description="PEM file of the client's certificate (mTLS).")
    kafka_ssl_key: Path | None = Field(None, description="PEM file of the client's key (mTLS).")
    kafka_ssl_key_password: SecretStr | None = Field(None, description="Password of the client's key.")
    kafka_ssl_key_password_file: Path | None = Field(None, description="File with the password of the client's key.")
    kafka_partitions: Annotated[int, Field(ge=1, le=1000)] = Field(
        6, description="Partitions of the topics that are made."
    )
    kafka_replication: Annotated[int, Field(ge=1, le=10)] = Field(
        1, description="Replicas of the topics that are made."
    )
    kafka_retention_hours: Annotated[int, Field(ge=1)] = Field(168, description="Hours that events stay in Kafka.")
    registry_url: str = Field("http://localhost:8081", description="Schema Registry, Confluent's interface.")
    registry_username: str | None = Field(None, description="User of the registry.")
    registry_password: SecretStr | None = Field(None, description="Password of the registry.")
    registry_password_file: Path | None = Field(None, description="File with the registry's password.")
    registry_ca: Path | None = Field(
        None, description="PEM file of the authority that signed the registry's certificate."
    )
    spool_max_bytes: Annotated[int, Field(ge=1_000_000)] = Field(
        10 * 2**30, description="Most bytes that undelivered events may take on disk; then runs fail."
    )
    delivery_seconds: Annotated[float, Field(ge=0)] = Field(
        10.0, description="Seconds that a process waits at its end for Kafka to take the last events."
    )

    queue_uri: SecretStr | None = Field(
        None, description="Database of the work queue, as SQLAlchemy names it; none: queue.db in the data dir."
    )
    queue_uri_file: Path | None = Field(None, description="File with the work queue's database, for its password.")

    pushgateway_url: str | None = Field(None, description="PushGateway that runs push their gauges to; none: no push.")
    push_interval: Annotated[float, Field(ge=1, le=300)] = Field(10.0, description="Seconds between pushes.")
    metrics_address: str = Field("127.0.0.1", description="Address on which worker and exporter serve /metrics.")
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        0, description="Port of a worker's /metrics; 0: it serves none."
    )
    exporter_port: Annotated[int, Field(ge=1, le=65535)] = Field(9108, description="Port of the exporter's /metrics.")
    exporter_interval: Annotated[float, Field(ge=1, le=3600)] = Field(
        15.0, description="Seconds between the exporter's looks at Kafka, Connect, the queue and the PushGateway."
    )
    exporter_catalog_interval: Annotated[float, Field(ge=1, le=86400)] = Field(
        60.0, description="Seconds between the exporter's looks at the tables."
    )
    lost_after_seconds: Annotated[float, Field(ge=1)] = Field(
        900.0, description="Seconds without a sign of life after which a run without a result counts as lost."
    )
    batch_late_seconds: Annotated[float, Field(ge=1)] = Field(
        93_600.0,
        description="Seconds that a result may wait for the tables before the batch is late (26 h: a daily one).",
    )
    jobs_late_seconds: Annotated[float, Field(ge=1)] = Field(
        21_600.0, description="Seconds that a job may wait for a worker before it is told (6 h)."
    )
    statsd_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        0, description="UDP port on which the exporter takes Airflow's StatsD packets; 0: none."
    )
    connect_url: str | None = Field(None, description="Kafka Connect's REST address; none: the exporter leaves it out.")
    connect_username: str = Field("vqe", description="User of Connect's REST interface.")
    connect_password: SecretStr | None = Field(
        None, description="Password of Connect's REST interface; none: it asks for none."
    )
    connect_password_file: Path | None = Field(None, description="File with the password of Connect's REST interface.")
    connector: str = Field("vqe-s3-sink", description="Name of the sink's connector.")

    @model_validator(mode="after")
    def _secrets_from_files(self) -> "Settings":
        for name in ("kafka_password", "kafka_ssl_key_password", "registry_password", "connect_password", "queue_uri"):
            path: Path | None = getattr(self, f"{name}_file")
            if path is None:
                continue
            if getattr(self, name) is not None:
                raise ValueError(f"give either {name} or {name}_file")
            try:
                # the model is frozen for its users, not for the reading of its own files
                object.__setattr__(self, name, SecretStr(path.read_text(encoding="utf-8").strip()))
            except OSError as error:
                raise ValueError(f"{name}_file {path}: {error.strerror}") from None
            except UnicodeDecodeError:
                raise ValueError(f"{name}_file {path}: not UTF-8 text") from None
        for name in ("kafka_password", "kafka_ssl_key_password", "registry_password"):
            if (secret := getattr(self, name)) is not None:
                remember(secret.get_secret_value())
        for url in (self.registry_url, self.queue_uri.get_secret_value() if self.queue_uri else ""):
            remember(url if "://" in url else "")  # of a URL its password is secret, and a word is none
        return self

    @field_validator("record_parameters")
    @classmethod
    def _known_recording(cls, value: str) -> str:
        parse_recording(value)
        return value

    @field_validator("pushgateway_url", "connect_url")
    @classmethod
    def _plain_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if re.fullmatch(r"https?://[^/@\s?#]+(/[^@\s?#]*)?", value) is None:
            raise ValueError("must be http(s)://host:port, without user, password or query")
        return value.rstrip("/")

    @property
    def raw_dir(self) -> Path:
        """Folder of raw Avro files."""
        return self.data_dir / "raw"

    @property
    def spool_dir(self) -> Path:
        """Folder of events on their way to Kafka."""
        return self.data_dir / "spool"


_Kind = TypeVar("_Kind", bound=BaseSettings)


def load_settings(**given: Any) -> Settings:
    """Settings from the environment, with what was given on the command line (None: not given) before them.

    Raises:
        InputError: a value is not allowed.
    """
    return _load(Settings, **given)


def load_table_settings() -> TableSettings:
    """Where the tables are, from the environment.

    Raises:
        InputError: a value is not allowed.
    """
    return _load(TableSettings)


def load_object_store_settings() -> ObjectStoreSettings:
    """Where the object store is and its keys, from the environment.

    Raises:
        InputError: a line of `.env` cannot be read.
    """
    return _load(ObjectStoreSettings)


def _load(kind: type[_Kind], **given: Any) -> _Kind:
    """Settings of a kind. Those of an environment that was seen before, without files that may have changed, are the same object:
    reading them takes 3 ms, and a scan in one process asks for them at each of its points."""
    _check_dotenv(DOTENV)
    wanted = tuple((name, value) for name, value in given.items() if value is not None)
    names_a_file = any(name.upper().startswith("VQE_") and name.upper().endswith("_FILE") for name in os.environ)
    if names_a_file or DOTENV.is_file():
        return _read(kind, wanted)
    return cast(_Kind, _read_before(kind, wanted, frozenset(os.environ.items())))


@lru_cache(maxsize=16)
def _read_before(kind: type[BaseSettings], given: tuple[tuple[str, Any], ...], _environment: frozenset[Any]) -> Any:
    return _read(kind, given)


def _read(kind: type[_Kind], given: tuple[tuple[str, Any], ...]) -> _Kind:
    try:
        return kind(**dict(given))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        if not name:
            raise InputError(f"settings: {reason}") from None
        is_secret = "password" in name or "SecretStr" in str(kind.model_fields[name].annotation)
        shown = "" if is_secret or name.endswith("_url") else f" {first.get('input')!r}"
        variable = f"{kind.model_config['env_prefix']}{name.upper()}"
        raise InputError(f"setting {name} ({variable}){shown}: {reason}") from None


def from_home(path: str | Path) -> str:
    """The path with `~` or `~user` at its beginning replaced by that home folder.

    Raises:
        ValueError: nobody has that name.
    """
    try:
        return str(Path(path).expanduser()) if str(path).startswith("~") else str(path)
    except RuntimeError:
        raise ValueError(f"{path}: there is no home folder of that name") from None


def environment() -> Mapping[str, str]:
    """The environment with what `.env` adds to it: `VQE_` and `AWS_` variables that are not set or empty.

    Raises:
        InputError: a line of `.env` cannot be read.
    """
    _check_dotenv(DOTENV)
    if not DOTENV.is_file():
        return os.environ
    from dotenv import dotenv_values

    merged = dict(os.environ)
    for name, value in dotenv_values(DOTENV, encoding="utf-8").items():
        name = name.upper() if name.upper().startswith("VQE_") else name  # the settings ignore the case
        if name.startswith(_EXPORTED) and value and not merged.get(name):
            merged[name] = value
    return merged


def export_dotenv() -> None:
    """Put what `.env` adds into this process's environment: options, libraries (boto3) and child processes read it there.

    Raises:
        InputError: a line of `.env` cannot be read.
    """
    found = environment()
    if found is not os.environ:
        os.environ.update(found)


def _check_dotenv(path: Path) -> None:
    """Raise InputError where a line of `.env` cannot be read: the library would leave it out with a warning."""
    from dotenv.parser import parse_stream

    if not path.is_file():
        return
    for binding in parse_stream(io.StringIO(read_text(path, f"settings {path}"))):
        if binding.error:
            raise InputError(f"settings {path}:{binding.original.line}: not of the form NAME=value")


def parse_recording(text: str) -> int:
    """Every how many iterations parameters are kept: 1 for `all`, 0 for `none`, N for `every:N`.

    Raises:
        ValueError: not of that form.
    """
    if text == "all":
        return 1
    if text == "none":
        return 0
    if (match := re.fullmatch(r"every:([1-9][0-9]{0,8})", text)) is None:
        raise ValueError("must be all, none or every:N")
    return int(match[1])
