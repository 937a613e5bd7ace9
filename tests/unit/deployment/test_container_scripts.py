"""The scripts of the images: no secret in arguments, none in a file that others can read meanwhile, and every command with its secrets."""

import json
import os
import re
import stat
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
DOCKER = ROOT / "docker"
SECRET = "canary-5c1e"


def program(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def sh(script: Path, *arguments: str, path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A script with a folder of stand-ins before the system's programs, and the umask that most systems have."""
    given = {"PATH": f"{path}:/usr/bin:/bin", **environment}
    return subprocess.run(
        ["sh", str(script), *arguments], env=given, capture_output=True, text=True, timeout=30, umask=0o022
    )


# ---------------------------------------------------------------- with-secrets


@pytest.fixture
def secrets(tmp_path):
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "VQE_KAFKA_PASSWORD").write_text(SECRET)
    (folder / "ca.pem").write_text("no variable")
    return folder


def test_a_command_called_by_its_own_name_has_its_secrets(tmp_path, secrets):
    links = tmp_path / "links"
    links.mkdir()
    (links / "airflow").symlink_to(DOCKER / "with-secrets")
    program(tmp_path / "bin", "airflow", 'echo "$VQE_KAFKA_PASSWORD|$#|$2|$PATH"')
    path = f"{links}:{tmp_path / 'bin'}:/usr/bin:/bin"
    done = subprocess.run(
        ["sh", "-c", "airflow dags 'a b'"],
        env={"PATH": path, "SECRETS_DIR": str(secrets)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"{SECRET}|2|a b|{tmp_path / 'bin'}:/usr/bin:/bin\n", done.stderr


def test_a_variable_that_is_set_wins_over_its_file(tmp_path, secrets):
    done = sh(DOCKER / "with-secrets", "printenv", "VQE_KAFKA_PASSWORD", path=tmp_path, SECRETS_DIR=str(secrets), VQE_KAFKA_PASSWORD="own")  # fmt: skip
    assert done.stdout == "own\n"


def test_every_link_of_an_image_is_first_on_its_path():
    for name in ("Dockerfile.cpu", "Dockerfile.gpu", "spark_jobs/Dockerfile"):
        text = (ROOT / name).read_text()
        assert "/opt/with-secrets" in text
        assert re.search(r"PATH=/opt/with-secrets:", text), name


# ---------------------------------------------------------------- secrets in arguments and files


def test_kafka_setup_gives_the_password_in_a_file_of_its_own_and_removes_it(tmp_path):
    told = tmp_path / "told"
    text = f'echo "$*" > {told}; for last; do :; done; stat -c %a "$last" >> {told}; cat "$last" >> {told}'
    script = tmp_path / "kafka-setup"
    script.write_text((DOCKER / "kafka-setup").read_text().replace("/opt/kafka/bin/", f"{tmp_path}/bin/"))
    program(tmp_path / "bin", "kafka-configs.sh", text)
    (tmp_path / "tmp").mkdir()
    done = sh(script, path=tmp_path / "bin", VQE_KAFKA_USERNAME="vqe", VQE_KAFKA_PASSWORD=SECRET, TMPDIR=str(tmp_path / "tmp"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    arguments, mode, content = told.read_text().splitlines()
    assert SECRET not in arguments
    assert "--entity-name vqe --add-config-file" in arguments
    assert mode == "600"
    assert content == f"SCRAM-SHA-512=password={SECRET}"
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_backup_is_its_owners_alone_from_the_first_byte(tmp_path):
    """`docker` is a stand-in that runs the container's command here; `tar` tells the mode of its archive while it writes."""
    bin_, volume, told = tmp_path / "bin", tmp_path / "volume", tmp_path / "modes"
    volume.mkdir()
    (volume / "key").write_text(SECRET)
    program(bin_, "compose", 'case $1 in config) [ $2 = --images ] && echo image || echo \'  "name": "p",\' ;; esac')
    program(
        bin_,
        "docker",
        f"""[ "$1" = run ] || exit 0
for last; do :; done
umask 022
sh -c "$(printf '%s' "$last" | sed -e 's#/volume#{volume}#g' -e "s#/backup#$FOLDER#g")" """,
    )
    program(bin_, "tar", f'/bin/tar "$@"; stat -c %a "$4" >> {told}')
    folder = tmp_path / "backup"
    done = sh(DOCKER / "backup", "save", str(folder), path=bin_, COMPOSE="compose", FOLDER=str(folder))
    assert done.returncode == 0, done.stderr
    assert set(told.read_text().split()) == {"600"}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {stat.S_IMODE(p.stat().st_mode) for p in folder.iterdir()}
    assert modes == {0o600}
    assert len(list(folder.iterdir())) == 8


def test_connect_worker_asks_for_a_login_reads_only_secrets_and_shows_none_in_its_arguments(tmp_path):
    users = tmp_path / "users.properties"
    users.write_text(f"vqe={SECRET}\n")
    script = tmp_path / "connect-worker"
    text = (DOCKER / "connect-worker").read_text()
    script.write_text(text.replace("/opt/kafka/bin/", f"{tmp_path}/bin/").replace("/opt/connect/", f"{ROOT}/connect/"))
    told = tmp_path / "told"
    program(tmp_path / "bin", "connect-distributed.sh", f'{{ echo "$*"; echo "$KAFKA_OPTS"; cat "$1"; }} > {told}; stat -c %a "$1" "${{1%/*}}/rest.jaas" >> {told}; cat "${{1%/*}}/rest.jaas" >> {told}')  # fmt: skip
    given = {"VQE_KAFKA_BOOTSTRAP_SERVERS": "kafka:9092", "CONNECT_REST_USERS": str(users), "TMPDIR": str(tmp_path)}
    done = sh(script, path=tmp_path / "bin", **given)
    assert done.returncode == 0, done.stderr
    said = told.read_text()
    assert SECRET not in said
    assert f'file="{users}"' in said
    assert said.count("\n600") == 2
    assert (
        "rest.extension.classes=org.apache.kafka.connect.rest.basic.auth.extension.BasicAuthSecurityRestExtension"
        in said
    )
    assert "\nconfig.providers.file.param.allowed.paths=/run/secrets\n" in said
    refused = sh(script, path=tmp_path / "bin", **given | {"CONNECT_REST_USERS": "/dev/null/nowhere"})
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1


SECRET_VARIABLE = re.compile(r"(PASSWORD|SECRET|_KEY|TOKEN|CONN|URI)\b")
NO_SECRET = {"AIRFLOW_CONN_SPARK_DEFAULT", "POSTGRES_PASSWORD_FILE"}


def test_no_service_has_a_secret_in_its_environment_or_arguments():
    """`docker inspect` shows both to every user of Docker. The first service takes them from .env, and passes them on as files."""
    for name in sorted(p.name for p in ROOT.glob("docker-compose*.yml")):
        for service, of in yaml.safe_load((ROOT / name).read_text())["services"].items():
            if service == "init":
                continue
            environment = of.get("environment") or {}
            found = {k for k in environment if SECRET_VARIABLE.search(k) and not k.endswith(("_FILE", "__FILE"))}
            assert found <= NO_SECRET, f"{name}: {service}: {found - NO_SECRET}"
            words = f"{of.get('command', '')} {of.get('entrypoint', '')} {of.get('healthcheck', '')}"
            # ${env:NAME} is a placeholder that Connect fills in
            assert not re.search(r"\$\$?\{(?!env:)\w*(PASSWORD|SECRET|TOKEN)", words), f"{name}: {service}"


EXPANDED = re.compile(r"\$\{?(?!SECRETS_DIR)\w*(PASSWORD|SECRET)|\$\(read_secret (?!S3_ACCESS_KEY)")


def test_no_script_of_an_image_expands_a_secret_into_arguments():
    """Only what a shell does itself may have one: `ps` shows the arguments of every other program."""
    for path in (p for p in DOCKER.iterdir() if p.is_file() and p.read_text().startswith("#!/bin/sh")):
        for line in path.read_text().splitlines():
            if EXPANDED.search(line) and not line.lstrip().startswith("#"):
                assert re.match(r"\s*(echo|printf|export)\b", line), f"{path.name}: {line}"


# ---------------------------------------------------------------- run-batch


@pytest.fixture
def airflow(tmp_path):
    """An Airflow whose run goes through `states`; its address, and what it was asked."""
    states: list[tuple[str, list[dict]]] = []
    asked: list[tuple[str, str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            asked.append((self.command, self.path, body or None))
            found: dict = {}
            if self.path == "/auth/token":
                found = {"access_token": "t"}
            elif self.command == "POST":
                found = {"dag_run_id": "manual__1"}
            elif self.path.endswith("/dagRuns?state=running"):
                found = {"dag_runs": [{"dag_run_id": "scheduled__1"}]}
            elif self.path.endswith("/dagRuns/manual__1"):
                found = {"state": states[0][0]}
            elif "/taskInstances" in self.path:
                found = {"task_instances": states[0][1]}
                if len(states) > 1:
                    states.pop(0)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        do_GET = do_POST = answer

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    (tmp_path / "passwords.json").write_text(json.dumps({"admin": SECRET}))
    environment = {
        **os.environ,
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{server.server_port}/execution/",
        "SECRETS_DIR": str(tmp_path),
    }
    script = tmp_path / "run-batch"
    script.write_text((DOCKER / "run-batch").read_text().replace("POLL_SECONDS = 2", "POLL_SECONDS = 0.01"))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(script), *arguments], env=environment, capture_output=True, text=True
        )

    yield states, asked, run
    server.shutdown()
    thread.join()
    server.server_close()


def task(name: str, state: str | None, tries: int = 1) -> dict:
    return {"dag_id": "d", "task_id": name, "state": state, "try_number": tries, "max_tries": 4}


def test_a_batch_is_told_step_by_step_and_its_end_is_the_exit_code(airflow):
    states, asked, run = airflow
    states += [
        ("queued", []),
        ("running", [task("ingest", "running"), task("audit", None)]),
        ("running", [task("ingest", "up_for_retry"), task("audit", None)]),
        ("running", [task("ingest", "success", 2), task("audit", "running")]),
        ("success", [task("ingest", "success", 2), task("audit", "success")]),
    ]
    done = run('{"reconcile": true}')
    assert done.returncode == 0, done.stderr
    told = [re.sub(r"^ *\d+ s  ", "", line) for line in done.stdout.splitlines()]
    assert told == ["run manual__1 is queued; scheduled__1 runs before it", "run manual__1 is running", "ingest: running", "ingest: up_for_retry",
                    "ingest: success, try 2 of 5", "audit: running", "audit: success", "batch manual__1: success"]  # fmt: skip
    assert json.loads(asked[1][2])["conf"] == {"reconcile": True}
    assert SECRET not in done.stdout + done.stderr


def test_a_batch_that_fails_names_the_task_and_its_log(airflow):
    states, _, run = airflow
    states += [("failed", [task("ingest", "failed", 5), task("audit", "upstream_failed")])]
    done = run()
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert (
        "ingest failed; its log is /opt/airflow/logs/dag_id=d/run_id=manual__1/task_id=ingest/attempt=5.log"
        in done.stderr
    )


def test_a_configuration_that_is_no_object_is_refused_before_anything_is_asked(airflow):
    _, asked, run = airflow
    for bad in ("[1]", "{reconcile", "1"):
        done = run(bad)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert bad in done.stderr
    assert asked == []


def test_an_airflow_that_is_away_is_one_line(tmp_path):
    (tmp_path / "passwords.json").write_text('{"admin": "x"}')
    environment = {**os.environ, "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": "http://127.0.0.1:1/x", "SECRETS_DIR": str(tmp_path)}  # fmt: skip
    done = subprocess.run([sys.executable, str(DOCKER / "run-batch")], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "http://127.0.0.1:1" in done.stderr
