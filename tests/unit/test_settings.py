"""Settings: from the environment, flags first; secrets from files, never shown."""

import pytest

from simulator.errors import InputError
from simulator.settings import Settings, load_settings, parse_recording


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


def test_every_setting_is_described():
    assert all(field.description for field in Settings.model_fields.values())
