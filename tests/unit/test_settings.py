"""Settings: from the environment, flags first; secrets from files, never shown."""

from pathlib import Path

import pytest

from simulator.credentials import mask
from simulator.errors import InputError
from simulator.settings import (
    ObjectStoreSettings,
    Settings,
    load_object_store_settings,
    load_settings,
    load_table_settings,
    parse_recording,
)
from spark_jobs.location import Location


@pytest.fixture(autouse=True)
def _no_dotenv(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_flag_wins_over_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("VQE_DATA_DIR", "/from/environment")
    assert str(load_settings().data_dir) == "/from/environment"
    assert load_settings(data_dir=tmp_path).data_dir == tmp_path


def test_a_dotenv_file_is_read(tmp_path):
    (tmp_path / ".env").write_text("VQE_LOG_LEVEL=debug\nOTHER=1\n")
    assert load_settings().log_level == "debug"


@pytest.mark.parametrize(
    ("name", "value"),
    [("SINK", "pigeon"), ("MONITOR_INTERVAL", "0"), ("RECORD_PARAMETERS", "every:0"), ("LOG_LEVEL", "loud"),
     ("SPOOL_MAX_BYTES", "12"), ("KAFKA_SECURITY_PROTOCOL", "TLS"), ("KAFKA_PARTITIONS", "many")],
)  # fmt: skip
def test_a_bad_value_is_one_line_that_names_the_variable(monkeypatch, name, value):
    monkeypatch.setenv(f"VQE_{name}", value)
    with pytest.raises(InputError) as caught:
        load_settings()
    assert f"VQE_{name}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_secret_comes_from_a_file_and_is_never_shown(monkeypatch, tmp_path):
    path = tmp_path / "password"
    path.write_text("canary-5b1f\n")
    monkeypatch.setenv("VQE_KAFKA_PASSWORD_FILE", str(path))
    settings = load_settings()
    assert settings.kafka_password is not None
    assert settings.kafka_password.get_secret_value() == "canary-5b1f"
    assert "canary" not in repr(settings) + str(settings) + settings.model_dump_json()


def test_a_secret_given_twice_or_a_missing_file_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("VQE_REGISTRY_PASSWORD_FILE", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="nowhere"):
        load_settings()
    (tmp_path / "nowhere").write_text("canary-5b1f")
    monkeypatch.setenv("VQE_REGISTRY_PASSWORD", "canary-77aa")
    with pytest.raises(InputError) as caught:
        load_settings()
    assert "canary" not in str(caught.value)


def test_recording_texts():
    assert [parse_recording(t) for t in ("all", "none", "every:10")] == [1, 0, 10]


@pytest.mark.parametrize("kind", [Settings, ObjectStoreSettings])
def test_every_setting_is_described(kind):
    assert all(field.description for field in kind.model_fields.values())


@pytest.mark.parametrize("by", ["environment", "dotenv"])
def test_the_catalogs_password_and_the_stores_keys_are_settings_that_are_never_shown(monkeypatch, tmp_path, by):
    variables = {
        "VQE_CATALOG_URI": "postgresql+psycopg2://vqe:canary-catalog@db:5432/vqe",
        "AWS_ENDPOINT_URL": "http://minio:9000",
        "AWS_ACCESS_KEY_ID": "canary-id",
        "AWS_SECRET_ACCESS_KEY": "canary-secret",
        "AWS_SESSION_TOKEN": "canary-token",
    }
    for name in (*variables, "AWS_REGION"):
        monkeypatch.setenv(name, variables.get(name, "") if by == "environment" else "")
    if by == "dotenv":
        (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    tables, store = load_table_settings(), load_object_store_settings()
    location = Location.of(tmp_path)
    assert location.catalog_uri == variables["VQE_CATALOG_URI"]
    names = {"endpoint_url": "url", "region": "where", "secret_access_key": "secret", "session_token": "token"}
    assert store.named(names) == {"url": "http://minio:9000", "secret": "canary-secret", "token": "canary-token"}
    shown = f"{tables!r} {store!r} {location!r} {tables.model_dump_json()} {store.model_dump_json()}"
    assert "canary" not in shown
    assert "canary" not in mask("canary-catalog canary-id canary-secret canary-token")


def test_a_catalog_in_the_home_folder_is_found_there(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("VQE_CATALOG_URI", "sqlite:///~/catalog.db")
    assert Location.of(tmp_path).catalog_uri == f"sqlite:///{tmp_path}/catalog.db"


def test_a_catalog_in_the_home_of_nobody_is_refused_without_citing_it(monkeypatch):
    monkeypatch.setenv("VQE_CATALOG_URI", "sqlite:///~canary-nobody/c.db")
    with pytest.raises(InputError, match="VQE_CATALOG_URI") as caught:
        load_table_settings()
    assert "sqlite" not in str(caught.value)


def test_settings_of_the_same_environment_are_read_once_and_of_another_anew(tmp_path, monkeypatch):
    first = load_settings(data_dir=Path("a"))
    assert load_settings(data_dir=Path("a")) is first
    assert load_settings(data_dir=Path("b")).data_dir == Path("b")
    monkeypatch.setenv("VQE_RECORD_PARAMETERS", "none")
    assert load_settings(data_dir=Path("a")).record_parameters == "none"
    (tmp_path / ".env").write_text("VQE_MONITOR_INTERVAL=7")
    assert load_settings().monitor_interval == 7
    (tmp_path / ".env").write_text("VQE_MONITOR_INTERVAL=8")
    assert load_settings().monitor_interval == 8


def test_a_secret_s_file_is_read_each_time(tmp_path, monkeypatch):
    monkeypatch.setenv("VQE_KAFKA_PASSWORD_FILE", str(tmp_path / "secret"))
    for secret in ("one", "two"):
        (tmp_path / "secret").write_text(secret)
        password = load_settings().kafka_password
        assert password is not None
        assert password.get_secret_value() == secret
