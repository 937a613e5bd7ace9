"""No secret passes into a log line, an error, an event or a metric: every one is a canary here."""

from pathlib import Path

import pytest

from simulator import log
from simulator.cli.main import _run
from simulator.kafka import follower
from simulator.observability.exporter import groups

CANARIES = {
    "VQE_KAFKA_USERNAME": "someone",
    "VQE_KAFKA_PASSWORD": "canary-kafka",
    "VQE_KAFKA_SSL_KEY_PASSWORD": "canary-key",
    "VQE_REGISTRY_USERNAME": "someone",
    "VQE_REGISTRY_PASSWORD": "canary-registry",
    "AWS_ACCESS_KEY_ID": "canary-s3-id",
    "AWS_SECRET_ACCESS_KEY": "canary-s3-secret",
    "VQE_CATALOG_URI": "postgresql+psycopg2://vqe:canary-catalog@127.0.0.1:1/vqe",
    "VQE_QUEUE_URI": "postgresql+psycopg2://vqe:canary-queue@127.0.0.1:1/vqe",
}
AWAY = {
    "VQE_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "VQE_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
    "VQE_KAFKA_SASL_MECHANISM": "PLAIN", "VQE_REGISTRY_URL": "http://127.0.0.1:1", "VQE_CONNECT_URL": "http://127.0.0.1:1",
    "VQE_PUSHGATEWAY_URL": "http://127.0.0.1:1", "AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_REGION": "us-east-1",
    "VQE_WAREHOUSE": "s3://bucket/warehouse", "VQE_RAW_STORE": "s3://bucket", "VQE_DELIVERY_SECONDS": "1",
    "VQE_LOG_LEVEL": "debug", "VQE_PUSH_INTERVAL": "1",
}  # fmt: skip


@pytest.fixture
def vqe(monkeypatch, tmp_path, capfd):
    """Run a command in which every service is away and every secret a canary; what it, its libraries and its threads said and wrote."""
    for module in (follower, groups):
        monkeypatch.setattr(module, "ADMIN_SECONDS", 0.5)
    for name, value in {**CANARIES, **AWAY, "VQE_DATA_DIR": str(tmp_path / "data")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, log_format: str) -> str:
        monkeypatch.setenv("VQE_LOG_FORMAT", log_format)
        capfd.readouterr()
        try:
            _run(arguments)
        finally:
            log.configure()
        said = capfd.readouterr()
        files = [p.read_bytes().decode("latin-1") for p in Path(tmp_path).rglob("*") if p.is_file()]
        return said.out + said.err + "".join(files)

    return run


@pytest.mark.filterwarnings("default")  # shown as the command shows them when it debugs
@pytest.mark.parametrize(
    ("arguments", "log_format"),
    [(("run", "h2", "--sink", "kafka"), "json"), (("exporter", "--once"), "text"), (("sql", "select 1"), "json"),
     (("worker", "--sink", "kafka", "--idle-exit", "0"), "json"), (("doctor",), "text"),
     *(pytest.param(*case, marks=pytest.mark.broad) for case in (
         (("run", "h2", "--sink", "kafka"), "text"), (("run", "h2", "--sink", "file"), "json"), (("tables", "list"), "text"),
         (("schemas", "register"), "json"), (("replay", "--seconds", "1"), "json")))],
    ids=lambda a: a if isinstance(a, str) else " ".join(a),
)  # fmt: skip
def test_no_secret_is_shown_or_kept(vqe, arguments, log_format):
    said = vqe(*arguments, log_format=log_format)
    assert said
    assert "canary" not in said


def test_the_catalogs_password_is_not_in_an_exporters_line(vqe):
    said = vqe("exporter", "--once", log_format="json")
    assert 'vqe_exporter_source_up{source="catalog"} 0.0' in said
    assert '"source": "catalog"' in said


def test_a_bad_setting_does_not_show_another(monkeypatch, tmp_path):
    from simulator.errors import InputError
    from simulator.settings import load_settings

    monkeypatch.chdir(tmp_path)
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("VQE_METRICS_PORT", "many")
    with pytest.raises(InputError) as caught:
        load_settings()
    assert "VQE_METRICS_PORT" in str(caught.value)
    assert "canary" not in str(caught.value)
