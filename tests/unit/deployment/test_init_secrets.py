"""The platform's secrets: drawn once, one's own win, and what services could not read is refused in one line."""

import importlib.util
import stat
from pathlib import Path

import pytest

INIT = Path(__file__).parents[3] / "docker" / "init" / "init.py"


@pytest.fixture
def init(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("vqe_init", INIT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.ROOT, module.OWN = tmp_path / "secrets", tmp_path / "own"
    module.OWN.mkdir()
    for reader in (
        "all",
        "postgres",
        "minio",
        "connect",
        "connect-client",
        "lake",
        "exporter",
        "airflow",
        "grafana",
        "kafka",
        "client",
        "monitoring",
    ):
        (module.ROOT / reader).mkdir(parents=True)
    monkeypatch.setattr("sys.argv", ["init.py"])
    return module


def everything(init):
    return {p.relative_to(init.ROOT): p.read_text() for p in init.ROOT.rglob("*") if p.is_file()}


def test_secrets_are_drawn_once_and_no_two_are_equal(init, capsys):
    assert init.main() == 0
    first = everything(init)
    assert init.main() == 0
    assert everything(init) == first
    drawn = [
        (init.ROOT / "all" / n).read_text()
        for n in ("postgres_password", "s3_secret_key", "airflow_password", "kafka_password")
    ]
    assert len(set(drawn)) == 4
    assert all(secret not in capsys.readouterr().out for secret in drawn)


def test_files_are_read_only_and_for_their_group(init):
    init.main()
    modes = {stat.S_IMODE(p.stat().st_mode) for p in init.ROOT.rglob("*") if p.is_file()}
    assert modes == {0o440}


def test_a_reader_gets_only_its_own(init):
    init.main()
    root = (init.ROOT / "all" / "minio_root_password").read_text()
    holders = {path.parts[0] for path, content in everything(init).items() if root in content}
    assert holders == {"all", "minio"}


def test_one_s_own_secret_wins_file_before_variable(init, monkeypatch):
    init.main()
    monkeypatch.setenv("CATALOG_DB_PASSWORD", "from-the-environment")
    init.main()
    assert "from-the-environment@" in (init.ROOT / "lake" / "VQE_CATALOG_URI").read_text()
    (init.OWN / "catalog_db_password").write_text("from/a@file\n")
    init.main()
    assert "vqe:from%2Fa%40file@postgres" in (init.ROOT / "lake" / "VQE_CATALOG_URI").read_text()
    assert (init.ROOT / "postgres" / "CATALOG_DB_PASSWORD").read_text() == "from/a@file"


@pytest.mark.parametrize("bad", ["short", "has a space in it", 'quo"ted-secret', "dollar$ecret"])
def test_what_services_could_not_read_is_refused(init, monkeypatch, capsys, bad):
    monkeypatch.setenv("S3_SECRET_KEY", bad)
    assert init.main() == 2
    told = capsys.readouterr().err
    assert told.startswith("init: s3_secret_key: ")
    assert bad not in told
    assert told.count("\n") == 1


def test_the_brokers_certificate_is_signed_by_the_authority_and_names_its_hosts(init):
    from cryptography import x509

    init.main()
    ca = x509.load_pem_x509_certificate((init.ROOT / "client" / "ca.pem").read_bytes())
    chain = x509.load_pem_x509_certificates((init.ROOT / "kafka" / "broker.pem").read_bytes())
    chain[0].verify_directly_issued_by(ca)
    names = chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"kafka", "localhost"} <= set(names.get_values_for_type(x509.DNSName))
