"""The platform's secrets: made once, each where only its readers see it, and shown to their owner.

    init.py make          make what is missing (the first service of `docker compose up`)
    init.py credentials   how to log in, for people
    init.py env           the same for a shell on the host: export lines for `vqe`, spark and the AWS tools
    init.py ca            the authority of Kafka's certificates, PEM (TLS profile)

A secret of one's own comes from a file of its name in the folder VQE_SECRETS (./secrets by default), else from a variable of its name
in capitals (.env), else it is drawn. A file's name in /secrets/<reader> is the environment variable that its reader sees.
"""

import base64
import datetime
import ipaddress
import json
import os
import secrets
import sys
from pathlib import Path
from urllib.parse import quote

ROOT = Path("/secrets")
OWN = Path("/own-secrets")
POSTGRES = "postgres:5432"


class Missing(Exception):
    """A volume of secrets is not mounted."""


class Refused(Exception):
    """A secret that the owner supplied and that services could not use."""


def value(name: str, draw: str | None = None) -> str:
    """A secret by name: its owner's, else the one made before, else a new one."""
    kept = ROOT / "all" / name
    own = OWN / name
    if own.is_file():
        found = own.read_text().strip()
    elif os.environ.get(name.upper()):
        found = os.environ[name.upper()]
    elif kept.is_file():
        return kept.read_text()
    else:
        # letters and digits only: it stands in URLs, YAML and JAAS
        found = draw if draw is not None else secrets.token_hex(24)
    if len(found) < 8 or any(c.isspace() or c in "\"'\\$" for c in found):
        raise Refused(
            f"{name}: at least 8 characters, without spaces, quotes, backslashes and dollar signs (these files are read by shells)"
        )
    write(kept, found)
    return found


def write(path: Path, content: str) -> None:
    """Write a secret that its group may read; whoever reads meanwhile sees the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}")
    new.unlink(missing_ok=True)  # an interrupted start left it, read-only
    # Created with its final mode: a file that gets its mode afterwards is readable by everybody for a moment.
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o440), "w", encoding="utf-8") as file:
        file.write(content)
    new.chmod(0o440)  # whatever the umask took away
    new.rename(path)


def make() -> None:
    postgres, airflow_db, catalog, queue_db = (
        value(f"{who}_password") for who in ("postgres", "airflow_db", "catalog_db", "queue_db")
    )
    root_user, root = value("minio_root_user", "vqe-root"), value("minio_root_password")
    s3_key, s3_secret = value("s3_access_key", "vqe-platform"), value("s3_secret_key")
    grafana, admin = value("grafana_password"), value("airflow_password")
    ca, broker = certificates()
    s3 = {"AWS_ACCESS_KEY_ID": s3_key, "AWS_SECRET_ACCESS_KEY": s3_secret}
    tables = {"VQE_CATALOG_URI": f"postgresql+psycopg2://vqe:{quote(catalog, safe='')}@{POSTGRES}/vqe"}
    queue = {"VQE_QUEUE_URI": f"postgresql+psycopg2://vqe_queue:{quote(queue_db, safe='')}@{POSTGRES}/vqe_queue"}
    kafka = {"VQE_KAFKA_PASSWORD": value("kafka_password"), "ca.pem": ca}
    connect = value("connect_password")
    rest = {"VQE_CONNECT_PASSWORD": connect}
    files = {
        "postgres": {
            "POSTGRES_PASSWORD": postgres,
            "AIRFLOW_DB_PASSWORD": airflow_db,
            "CATALOG_DB_PASSWORD": catalog,
            "QUEUE_DB_PASSWORD": queue_db,
        },
        "minio": {
            "config.env": f"MINIO_ROOT_USER={root_user}\nMINIO_ROOT_PASSWORD={root}\n",
            "MINIO_ROOT_USER": root_user,
            "MINIO_ROOT_PASSWORD": root,
            "S3_ACCESS_KEY": s3_key,
            "S3_SECRET_KEY": s3_secret,
        },
        # the worker's users, and a client's login for its health check, which has no place for a password in its arguments
        "connect": s3
        | kafka
        | {
            "rest-users.properties": f"vqe={connect}\n",
            "rest.netrc": f"machine localhost login vqe password {connect}\n",
        },
        "connect-client": rest,
        "lake": s3 | kafka | tables,
        "exporter": s3 | kafka | tables | rest | queue,
        "airflow": {
            **(s3 | kafka | tables | rest | queue),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://airflow:{quote(airflow_db, safe='')}@{POSTGRES}/airflow",
            "AIRFLOW__CORE__FERNET_KEY": value("airflow_fernet_key", base64.urlsafe_b64encode(os.urandom(32)).decode()),
            "AIRFLOW__API_AUTH__JWT_SECRET": value("airflow_jwt_secret"),
            "AIRFLOW__API__SECRET_KEY": value("airflow_secret_key"),
            "passwords.json": json.dumps({"admin": admin}),
        },
        "grafana": {"admin_password": grafana},
        "client": {**(kafka | queue), "registry.properties": registry_properties(kafka["VQE_KAFKA_PASSWORD"])},
        "kafka": {**kafka, "broker.pem": broker},
        "monitoring": {
            "smtp_password": os.environ.get("VQE_SMTP_PASSWORD", ""),
            "webhook_url": os.environ.get("VQE_ALERT_WEBHOOK_URL", ""),
        },
    }
    if smtp := smtp_connection():
        files["airflow"]["AIRFLOW_CONN_SMTP_DEFAULT"] = smtp
    for reader, named in files.items():
        folder = ROOT / reader
        if not folder.is_dir():
            raise Missing(f"{folder} is not mounted")
        for name, content in named.items():
            if not (folder / name).is_file() or (folder / name).read_text() != content:
                write(folder / name, content)
    print(f"secrets of {len(files)} readers are there")


def registry_properties(password: str) -> str:
    """What the registry needs to reach Kafka over SASL_SSL; read with docker-compose.tls.yml only."""
    module = "org.apache.kafka.common.security.scram.ScramLoginModule"
    settings = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.jaas.config": f'{module} required username="vqe" password="{password}";',
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": "/run/secrets/ca.pem",
    }
    return "".join(f"apicurio.kafka.common.{name}={content}\n" for name, content in settings.items())


def smtp_connection() -> str:
    """Airflow's connection to the mail server, from the settings of .env; empty without a server."""
    if not (server := os.environ.get("VQE_SMTP_HOST")):
        return ""
    host, _, number = server.partition(":")
    plain = os.environ.get("VQE_SMTP_TLS", "true").lower() in ("false", "no", "0")
    return json.dumps(
        {
            "conn_type": "smtp",
            "host": host,
            "port": int(number or 587),
            "login": os.environ.get("VQE_SMTP_USER") or None,
            "password": os.environ.get("VQE_SMTP_PASSWORD") or None,
            "extra": {"disable_ssl": True, "disable_tls": plain},
        }
    )


def certificates() -> tuple[str, str]:
    """An authority's certificate and the broker's key with its chain, PEM; made once, good for ten years and for two."""
    kept = ROOT / "all"
    names = ("tls_ca", "tls_ca_key", "tls_broker")
    own = [OWN / f"{n}.pem" for n in ("tls_ca", "tls_broker")]
    if all(p.is_file() for p in own):
        return own[0].read_text(), own[1].read_text()
    if all((kept / n).is_file() for n in names):
        return (kept / "tls_ca").read_text(), (kept / "tls_broker").read_text()
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import NameOID

    now = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)

    def named(common: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])

    def pem(key: rsa.RSAPrivateKey) -> str:
        form = serialization.PrivateFormat.PKCS8
        return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()

    def signed(
        subject: str, key: rsa.RSAPrivateKey, by: str, with_key: rsa.RSAPrivateKey, years: int, authority: bool
    ) -> str:
        hosts: list[x509.GeneralName] = [x509.DNSName("kafka"), x509.DNSName("localhost")]
        hosts.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        hosts += [x509.DNSName(name) for name in os.environ.get("KAFKA_TLS_HOSTS", "").split(",") if name]
        builder = (
            x509.CertificateBuilder()
            .subject_name(named(subject))
            .issuer_name(named(by))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + datetime.timedelta(days=365 * years))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True)
        )
        if not authority:
            builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        made = builder.sign(with_key, hashes.SHA256())
        return made.public_bytes(serialization.Encoding.PEM).decode()

    ca_key, broker_key = (rsa.generate_private_key(public_exponent=65537, key_size=3072) for _ in range(2))
    ca = signed("vqe authority", ca_key, "vqe authority", ca_key, 10, True)
    broker = pem(broker_key) + signed("kafka", broker_key, "vqe authority", ca_key, 2, False) + ca
    for name, content in zip(names, (ca, pem(ca_key), broker), strict=True):
        write(kept / name, content)
    return ca, broker


def port(name: str, default: int) -> str:
    return f"127.0.0.1:{os.environ.get(name) or default}"


def show_credentials() -> None:
    rows = [
        ("Airflow", f"http://{port('AIRFLOW_PORT', 8080)}", "admin", "airflow_password"),
        ("Grafana", f"http://{port('GRAFANA_PORT', 3000)}", "admin", "grafana_password"),
        ("MinIO console", f"http://{port('MINIO_CONSOLE_PORT', 9001)}", "minio_root_user", "minio_root_password"),
        ("S3", f"http://{port('MINIO_PORT', 9000)}", "s3_access_key", "s3_secret_key"),
        ("Postgres, tables", f"{port('POSTGRES_PORT', 5432)}/vqe", "vqe", "catalog_db_password"),
        ("Postgres, queue", f"{port('POSTGRES_PORT', 5432)}/vqe_queue", "vqe_queue", "queue_db_password"),
        ("Postgres, owner", f"{port('POSTGRES_PORT', 5432)}/postgres", "postgres", "postgres_password"),
        ("Kafka (TLS)", port("KAFKA_PORT", 29092), "vqe", "kafka_password"),
        ("Connect", f"http://{port('CONNECT_PORT', 8083)}", "vqe", "connect_password"),
    ]
    kept = ROOT / "all"
    for what, where, user, secret in rows:
        shown = (kept / user).read_text() if (kept / user).is_file() else user
        print(f"{what:<18}{where:<28}{shown:<14}{(kept / secret).read_text()}")


def show_environment() -> None:
    kept = ROOT / "all"
    names = ("s3_access_key", "s3_secret_key", "catalog_db_password", "queue_db_password", "connect_password")
    read = {name: (kept / name).read_text() for name in names}
    lines = {
        "VQE_KAFKA_BOOTSTRAP_SERVERS": port("KAFKA_PORT", 29092),
        "VQE_REGISTRY_URL": f"http://{port('REGISTRY_PORT', 8081)}/apis/ccompat/v7",
        "VQE_CONNECT_URL": f"http://{port('CONNECT_PORT', 8083)}",
        "VQE_CONNECT_PASSWORD": read["connect_password"],
        "VQE_CATALOG_URI": f"postgresql+psycopg2://vqe:{quote(read['catalog_db_password'], safe='')}@{port('POSTGRES_PORT', 5432)}/vqe",
        "VQE_QUEUE_URI": f"postgresql+psycopg2://vqe_queue:{quote(read['queue_db_password'], safe='')}@{port('POSTGRES_PORT', 5432)}/vqe_queue",
        "VQE_WAREHOUSE": "s3://local-vqe-results/warehouse",
        "VQE_RAW_STORE": "s3://local-vqe-results",
        "AWS_ENDPOINT_URL": f"http://{port('MINIO_PORT', 9000)}",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": read["s3_access_key"],
        "AWS_SECRET_ACCESS_KEY": read["s3_secret_key"],
    }
    for name, content in lines.items():
        print(f"export {name}='{content}'")


def main() -> int:
    commands = {
        "make": make,
        "credentials": show_credentials,
        "env": show_environment,
        "ca": lambda: print(certificates()[0]),
    }
    command = sys.argv[1] if len(sys.argv) > 1 else "make"
    if command not in commands:
        print(f"init: no command {command!r}: want one of {', '.join(commands)}", file=sys.stderr)
        return 2
    try:
        commands[command]()
    except Refused as error:
        print(f"init: {error}", file=sys.stderr)
        return 2
    except (OSError, Missing) as error:
        print(f"init: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
