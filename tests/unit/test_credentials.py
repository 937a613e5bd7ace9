"""No credential is shown: not in a message, a log line or a traceback, whoever wrote the text."""

import io
import json
import pickle

import pytest

from simulator import log
from simulator.credentials import mask, remember
from simulator.errors import InputError, StorageError, explained, one_line

SECRET = "canary-5b1f"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"http://u:{SECRET}@h:8081/subjects", "http://u:***@h:8081/subjects"),
        (f"https://{SECRET}@h", "https://***@h"),
        (f"postgresql+psycopg2://vqe:{SECRET}@h/db?sslmode=require", "postgresql+psycopg2://vqe:***@h/db?sslmode=require"),
        (f"'http://u:p@ss/{SECRET}@h'", "'http://u:***@h'"),
        (f"http://a:{SECRET}@h:1,http://b:{SECRET}@i:2", "http://a:***@h:1,http://b:***@i:2"),
        (f"GET http://h/x?a=1&token={SECRET}&b=2", "GET http://h/x?a=1&token=***&b=2"),
        (f"http://h/?X-Amz-Signature={SECRET}&X-Amz-Security-Token={SECRET}", "http://h/?X-Amz-Signature=***&X-Amz-Security-Token=***"),
        (f"host=h password={SECRET} dbname=d", "host=h password=*** dbname=d"),
        (f"sasl.password={SECRET}", "sasl.password=***"),
        (f"{{'Authorization': 'Basic {SECRET}'}}", "{'Authorization': 'Basic ***'}"),
        ("lih@0.9: basis sto-3g", "lih@0.9: basis sto-3g"),
        ("http://localhost:8081 does not answer", "http://localhost:8081 does not answer"),
    ],
)  # fmt: skip
def test_credentials_are_masked_and_the_rest_is_not(text, shown):
    assert mask(text) == shown


@pytest.mark.parametrize("error", [InputError, StorageError])
def test_no_error_holds_a_credential_wherever_it_goes(error):
    raised = error(f"registry http://u:{SECRET}@h")
    assert SECRET not in str(raised) + repr(raised) + one_line(raised)
    assert str(pickle.loads(pickle.dumps(raised))) == "registry http://u:***@h"
    assert SECRET not in explained(RuntimeError(f"http://u:{SECRET}@h"))[0]


def test_what_the_process_knows_as_a_secret_is_masked_wherever_it_stands(monkeypatch):
    monkeypatch.setenv("VQE_KAFKA_PASSWORD", "canary-1111")
    monkeypatch.setenv("VQE_CATALOG_URI", "postgresql://vqe:quoted%2Fcanary-2222@h/db")
    remember("canary-3333")
    assert mask("cannot log in with canary-1111 or quoted/canary-2222 or canary-3333") == (
        "cannot log in with *** or *** or ***"
    )


def test_a_part_of_a_password_that_a_library_takes_for_a_host_is_masked(monkeypatch):
    monkeypatch.setenv("VQE_CATALOG_URI", f"postgresql://vqe:first@{SECRET}@h/db")
    assert mask(f'could not translate host name "{SECRET}@h"') == 'could not translate host name "***@h"'


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("level", ["warning", "debug"])
def test_log_lines_and_tracebacks_are_masked(monkeypatch, log_format, level):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    log.configure(level, log_format)
    try:
        try:
            raise ValueError(f"http://u:{SECRET}@h")
        except ValueError:
            log.get_logger().error(f"at http://u:{SECRET}@h", tries=[f"http://u:{SECRET}@h"], exc_info=True)
    finally:
        monkeypatch.undo()
        log.configure()
    assert SECRET not in stream.getvalue()
    lines = stream.getvalue().strip().splitlines()
    if (log_format, level) != ("text", "debug"):
        assert len(lines) == 1
    if log_format == "json":
        assert json.loads(lines[0])["tries"] == ["http://u:***@h"]
