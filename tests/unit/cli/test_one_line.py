"""Whatever is broken, each command says so in one line, ends with the code that says whose fault it is, and shows no secret."""

import io
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from built_tables import Restored

from simulator.cli.main import _run

ROOT = Path(__file__).parents[3]
SECRET = "canary-5b1f"
POSTGRES = f"postgresql+psycopg2://vqe:{SECRET}@127.0.0.1:1/db"
VQE = [sys.executable, "-m", "simulator.cli.main"]

READERS = {
    "sql": ["sql", "select count(*) n from vqe_results"],
    "list": ["tables", "list"],
    "verify": ["tables", "verify"],
    "report": ["report", "--output", "report.html"],
    "initial point": ["run", "h2", "--initial-point", "019f9d3c-0000-7000-8000-000000000000"],
}
WRITERS = {
    "build": ["tables", "build"],
    "reconcile": ["tables", "reconcile"],
    "maintain": ["tables", "maintain"],
    "init": ["tables", "init"],
    "sweep": ["sweep", "one.yaml"],
    "run": ["run", "h2"],
}
OF_KAFKA = {
    "topics": ["topics"],
    "register": ["schemas", "register"],
    "watch": ["watch", "--sink", "kafka"],
}
OF_QUEUE = {
    "submit": ["submit", "one.yaml"],
    "sweep --submit": ["sweep", "one.yaml", "--submit"],
    "sweep --sink": ["sweep", "one.yaml", "--sink", "kafka"],
    "worker": ["worker", "--idle-exit", "0"],
    "jobs": ["jobs", "list"],
    "cancel": ["jobs", "cancel", "0123"],
}
OF_SETTINGS = {
    **OF_KAFKA, **OF_QUEUE,
    "run": ["run", "h2"], "sweep": ["sweep", "one.yaml"], "replay": ["replay"], "exporter": ["exporter", "--once"],
    "doctor": ["doctor"],
}  # fmt: skip


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [n for n in os.environ if n.startswith(("VQE_", "AWS_"))]:
        monkeypatch.delenv(name)
    Path("one.yaml").write_text("molecules: [h2]\n")


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Raw files of a run."""
    data = tmp_path_factory.mktemp("ran")
    assert _run(["run", "h2", "--no-tables", "--data-dir", str(data)]) == 0
    return data


@pytest.fixture(scope="module")
def built(ran, tmp_path_factory):
    """A data dir with that run's tables."""
    folder = tmp_path_factory.mktemp("built")
    (folder / "one.yaml").write_text("molecules: [h2]\n")
    shutil.copytree(ran / "raw", folder / "vqe-data" / "raw")
    assert _run(["tables", "build", "--data-dir", str(folder / "vqe-data")]) == 0
    return Restored(folder / "vqe-data")


@pytest.fixture
def data(built, monkeypatch):
    """The data dir in the current folder, whole again."""
    found = built.again()
    monkeypatch.chdir(found.parent)
    return found


def check(capsys, arguments, codes, says):
    """Runs a command in this process; it must fail in one line."""
    capsys.readouterr()
    code = _run(arguments)
    out, err = capsys.readouterr()
    shown = f"{arguments}: {err}"
    # the lines of a run that ended, and of a sweep's, are no complaint
    lines = [line for line in err.splitlines() if line.startswith("vqe:") or not re.match(r"\d+/\d+ ", line)]
    assert code in codes, shown
    assert len(lines) == 1, shown
    assert len(lines[0]) < 1_000, shown
    assert lines[0].startswith("vqe: "), shown
    assert re.search(says, lines[0], re.IGNORECASE), shown
    assert "unexpected" not in lines[0], shown
    assert SECRET not in out + err
    return out


def cases(*tables):
    return [pytest.param(a, id=n) for table in tables for n, a in table.items()]


# --- the catalog ---


@pytest.mark.parametrize(
    ("uri", "codes", "says"),
    [
        (POSTGRES, {1}, r"vqe:\*\*\*@127.0.0.1:1/db does not answer: .*refused"),
        ("nonsense", {2}, "VQE_CATALOG_URI nonsense"),
        (f"mysql+none://u:{SECRET}@h/db", {2}, "VQE_CATALOG_URI mysql"),
        (f"postgres://u:{SECRET}@h/db", {2}, "VQE_CATALOG_URI postgres://u"),
        (f"oracle://u:{SECRET}@h/db", {2}, "no module oracledb"),
        ("sqlite:////nowhere/at/all/catalog.db", {1, 2}, "unable to open|has no tables"),
    ],
    ids=["away", "no url", "no driver", "old name", "not installed", "no folder"],  # pytest shows ids to its children
)
def test_a_catalog_that_is_away_or_wrong(capsys, monkeypatch, data, uri, codes, says):
    monkeypatch.setenv("VQE_CATALOG_URI", uri)
    for arguments in [*READERS.values(), *(WRITERS[n] for n in ("build", "reconcile", "maintain", "init", "sweep"))]:
        check(capsys, arguments, codes, says)


def test_postgres_has_ten_seconds_to_answer():
    from spark_jobs.faults import with_timeout

    assert with_timeout(POSTGRES) == f"{POSTGRES}?connect_timeout=10"
    assert with_timeout(f"{POSTGRES}?connect_timeout=3") == f"{POSTGRES}?connect_timeout=3"
    assert with_timeout("sqlite:////x/catalog.db") == "sqlite:////x/catalog.db"


@pytest.mark.parametrize("how", ["noise", pytest.param("cut", marks=pytest.mark.broad), "page", "folder"])
def test_a_catalog_that_is_damaged_is_left_as_it_is(capsys, data, how):
    catalog = data / "warehouse" / "catalog.db"
    whole = catalog.read_bytes()
    damaged = {"noise": b"noise" * 2000, "cut": whole[:5000], "page": whole[:4096] + b"\xff" * 4096 + whole[8192:]}
    catalog.unlink()
    catalog.mkdir() if how == "folder" else catalog.write_bytes(damaged[how])
    for arguments in [*READERS.values(), *WRITERS.values()]:
        if how == "folder" and arguments in READERS.values():
            check(capsys, arguments, {2}, "has no tables")
        else:
            check(capsys, arguments, {1}, "catalog .*(damaged|unable to open)")
    if how != "folder":
        assert catalog.read_bytes() == damaged[how]


# --- the warehouse's files ---


@pytest.mark.parametrize(
    ("kind", "how"),
    [("*.parquet", "noise"), ("*.parquet", "cut"), ("*.parquet", "gone"), ("*.metadata.json", "noise"),
     ("*.metadata.json", "gone"), ("snap-*.avro", "cut"), ("*-m*.avro", "noise"),
     *(pytest.param(*case, marks=pytest.mark.broad) for case in (
         ("*.metadata.json", "cut"), ("snap-*.avro", "noise"), ("snap-*.avro", "gone"),
         ("*-m*.avro", "cut"), ("*-m*.avro", "gone")))],
)  # fmt: skip
def test_a_file_of_the_warehouse_that_is_damaged_or_gone(capsys, data, kind, how):
    files = list((data / "warehouse").rglob(kind))
    assert files
    for path in files:
        content = path.read_bytes()
        path.unlink() if how == "gone" else path.write_bytes(
            bytes(range(256)) * 8 if how == "noise" else content[: len(content) // 2]
        )
    # maintenance opens no data file where there is nothing to merge
    for name in ("sql", "report", "build", "reconcile", *(["maintain"] if kind != "*.parquet" else [])):
        arguments = {**READERS, **WRITERS}[name]
        check(capsys, arguments, {1}, "warehouse|its files are not where")


def test_a_raw_file_that_is_damaged_is_named_and_the_rest_is_loaded(capsys, ran, tmp_path):
    shutil.copytree(ran / "raw", tmp_path / "vqe-data" / "raw")
    (path,) = (tmp_path / "vqe-data").rglob("vqe_iteration_v1+*.avro")
    path.write_bytes(b"Obj\x01" + bytes(range(256)))
    assert _run(["tables", "build"]) == 0
    out, err = capsys.readouterr()
    assert "1 rejected" in out
    assert err == ""


# --- folders and disks ---


@pytest.mark.parametrize("folder", ["a-file", "a-file/data", "/proc/nowhere", "/dev/null"])
def test_a_data_dir_that_cannot_be_one(capsys, folder):
    Path("a-file").write_text("")
    for arguments in [*READERS.values(), *WRITERS.values()]:
        check(capsys, [*arguments, "--data-dir", folder], {1, 2}, re.escape(folder))


def limited(arguments, tmp_path, **env):
    """A command whose files may not grow beyond 30 kB: how a full disk looks without one."""
    return subprocess.run(
        [*VQE, *arguments], cwd=tmp_path, capture_output=True, text=True, env={**os.environ, **env},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000)),
    )  # fmt: skip


def test_a_disk_that_is_full_in_a_build_loses_nothing(ran, tmp_path):
    shutil.copytree(ran / "raw", tmp_path / "vqe-data" / "raw")
    done = limited(["tables", "build"], tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert re.search("too large|full|disk", done.stderr), done.stderr
    assert _run(["tables", "build"]) == 0
    assert _run(["tables", "verify"]) == 0


def test_runs_are_told_of_when_their_tables_cannot_be_built(capsys, data):
    (data / "warehouse" / "catalog.db").write_bytes(b"noise" * 2000)
    out = check(capsys, ["run", "h2"], {1}, "catalog .* is damaged")
    assert "converged" in out


# --- services ---


@pytest.mark.broad  # each waits ten seconds for an answer
@pytest.mark.parametrize("name", ["topics", "watch"])
def test_a_broker_that_is_away(capsys, monkeypatch, name):
    monkeypatch.setenv("VQE_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    check(capsys, OF_KAFKA[name], {1}, "127.0.0.1:1")


def test_a_run_goes_on_without_a_broker_and_keeps_its_events(capsys, monkeypatch):
    monkeypatch.setenv("VQE_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("VQE_REGISTRY_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("VQE_DELIVERY_SECONDS", "0.2")
    assert _run(["run", "h2", "--sink", "kafka", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "completed"
    assert list(Path("vqe-data/spool").rglob("*.avro")), "the events that could not be delivered are gone"


def test_a_postgres_that_takes_connections_and_never_answers(capsys, monkeypatch, data):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setenv("VQE_CATALOG_URI", f"postgresql+psycopg2://u:{SECRET}@127.0.0.1:{port}/db?connect_timeout=2")
        check(capsys, WRITERS["build"], {1}, r"u:\*\*\*@127.0.0.1:.* does not answer: .*timeout")


@pytest.mark.parametrize(
    ("url", "codes"),
    [
        (f"http://u:{SECRET}@127.0.0.1:1", {1}),
        (f"http://127.0.0.1:1/?token={SECRET}", {1}),
        (f"ftp://u:{SECRET}@h", {2}),
        ("nonsense", {2}),
        ("http://[::1", {2}),
    ],
)
def test_a_registry_that_is_away_or_wrong(capsys, monkeypatch, url, codes):
    monkeypatch.setenv("VQE_REGISTRY_URL", url)
    check(capsys, OF_KAFKA["register"], codes, "registry")


# --- the work queue ---


@pytest.mark.parametrize(
    ("uri", "codes", "says"),
    [
        (POSTGRES, {1}, r"vqe:\*\*\*@127.0.0.1:1/db.*refused"),
        ("nonsense", {2}, "queue"),
        (f"mysql://u:{SECRET}@h/db", {2}, "queue"),
    ],
    ids=["away", "no url", "no driver"],
)
def test_a_queue_that_is_away_or_wrong(capsys, monkeypatch, uri, codes, says):
    from simulator.queue import database

    monkeypatch.setattr(database, "RETRY_SECONDS", 0.1)
    monkeypatch.setenv("VQE_QUEUE_URI", uri)
    for arguments in OF_QUEUE.values():
        check(capsys, arguments, codes, says)


@pytest.mark.parametrize("how", ["noise", "folder"])
def test_a_queue_that_is_damaged(capsys, how):
    queue = Path("vqe-data/queue.db")
    queue.parent.mkdir()
    queue.mkdir() if how == "folder" else queue.write_bytes(b"noise" * 2000)
    for arguments in OF_QUEUE.values():
        check(capsys, arguments, {1}, "queue.db.*(not a database|unable to open)")


S3 = {
    "VQE_RAW_STORE": "s3://bucket", "AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "x",
    "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1",
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "codes", "says"),
    [
        ({}, {1}, "s3://bucket/raw/: could not connect"),
        ({"AWS_ENDPOINT_URL": "nonsense"}, {2}, "invalid endpoint"),
        ({"AWS_ENDPOINT_URL": f"http://u:{SECRET}@127.0.0.1:1"}, {1}, r"u:\*\*\*@127"),
    ],
)
def test_s3_that_is_away_or_wrong(capsys, monkeypatch, data, changed, codes, says):
    for name, value in {**S3, **changed}.items():
        monkeypatch.setenv(name, value)
    for name in ("build", "verify", "reconcile"):
        check(capsys, {**READERS, **WRITERS}[name], codes, says)


@pytest.mark.filterwarnings("ignore:No preferred file implementation")
def test_a_warehouse_of_no_known_kind(capsys, monkeypatch, ran, tmp_path):
    monkeypatch.setenv("VQE_WAREHOUSE", "nonsense://x")
    (tmp_path / "vqe-data").mkdir()
    check(capsys, ["tables", "init"], {2}, "VQE_WAREHOUSE nonsense://x")


# --- settings ---


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VQE_LOG_LEVEL", "loud"), ("VQE_SPOOL_MAX_BYTES", "many"), ("VQE_REGISTRY_PASSWORD_FILE", "/nowhere"),
        ("VQE_KAFKA_PASSWORD_FILE", sys.executable), ("VQE_PUSHGATEWAY_URL", f"http://u:{SECRET}@h"),
        ("VQE_CONNECT_URL", f"http://h/?token={SECRET}"), ("VQE_METRICS_PORT", "70000"),
        ("VQE_REGISTRY_CA", os.fsdecode(b"\xff")),
    ],
)  # fmt: skip
def test_a_setting_that_is_wrong(capsys, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    for arguments in OF_SETTINGS.values():
        check(capsys, arguments, {2}, f"settings?.*{name.removeprefix('VQE_')}")


@pytest.mark.parametrize("content", [b"VQE_SINK file\n", b"VQE_SINK='x\n", b"\xff\xfe", b"VQE_SINK=\0\n", b"=1\n"])
def test_a_dotenv_file_that_is_broken(capsys, content):
    Path(".env").write_bytes(content)
    for arguments in OF_SETTINGS.values():
        check(capsys, arguments, {2}, r"settings \.env")


# --- files and names that a user gives ---

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefghij", "bcdefghijk", strict=True)
)
EXPERIMENTS = {
    "empty": "", "text": "molecules", "list": "[h2]", "nul": "molecules: [h2]\n\0", "binary": bytes(range(256)),
    "utf-16": "molecules: [h2]\n".encode("utf-16"), "recursive": "molecules: &m [h2, *m]\n",
    "recursive mapping": "molecules: [h2]\nsettings: &s {optimizer_options: *s}\n",
    "deep": "molecules: " + "[" * 1000 + "]" * 1000, "deep blocks": "".join(f"{' ' * i}-\n" for i in range(100)),
    "bomb": BOMB, "many seeds": "molecules: [h2]\nseeds: 10000000000000\n",
    "a long number": f"molecules: [h2]\nseeds: {'9' * 5000}\n", "a long seed": f"molecules: [h2]\nseeds: [{'9' * 4000}]\n",
    "no seeds": "molecules: [h2]\nseeds: -3\n", "object": "molecules: !!python/object/apply:os.getcwd []\n",
    "bad tag": "molecules: [!!timestamp x]\n", "bad int": "molecules: [h2]\nseeds: !!int x\n",
    "no anchor": "molecules: *nowhere\n", "two": "molecules: [h2]\n---\nmolecules: [lih]\n",
    "surrogate": 'name: "\\ud800"\nmolecules: [h2]\n', "escape": 'name: "\\e[2J"\nmolecules: [h2]\n',
    "basis": 'molecules: [h2]\nsettings: {basis: "\\ud800"}\n', "basis map": "molecules: [h2]\nsettings: {basis: {a: 1}}\n",
    "noise": "molecules: [h2]\nsettings: {noise: 3}\n", "tab": "molecules:\n\t- h2\n", "large": "# " + "x" * (5 << 20),
}  # fmt: skip


@pytest.mark.parametrize("content", [pytest.param(v, id=k) for k, v in EXPERIMENTS.items()])
def test_an_experiment_that_is_none(capsys, content):
    Path("bad.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    for arguments in (["sweep", "bad.yaml"], ["submit", "bad.yaml"], ["sweep", "bad.yaml", "--submit"]):
        check(capsys, arguments, {2}, r"sweep bad\.yaml")


ATOMS = '"units": "angstrom", "atoms": [["H", 0, 0, 0], ["H", 0, 0, 0.7]]'
MOLECULES = {
    "empty.xyz": "", "binary.xyz": bytes(range(256)), "nul.xyz": "1\n\0\nH 0 0 0\n", "long.xyz": "9" * 5000,
    "utf16.xyz": "1\n\nH 0 0 0\n".encode("utf-16"), "element.xyz": f"1\n\n{'Q' * 5000} 0 0 0\n",
    "digits.xyz": f"2\n\nH 0 0 0\nH 0 0 {'1' * 100_000}\n", "charge.xyz": f"2\ncharge={'9' * 4000}\nH 0 0 0\nH 0 0 1\n",
    "empty.json": "", "deep.json": "[" * 200_000, "list.json": "[]", "key.json": json.dumps({"k" * 5000: 1}),
    "digits.json": f'{{"units": "angstrom", "atoms": [["H", {"9" * 5000}, 0, 0]]}}',
    "surrogate.json": f'{{"name": "\\ud800", {ATOMS}}}', "escape.json": f'{{"name": "a\\u001b[2J\\nb", {ATOMS}}}',
    "charge.json": f'{{"charge": 1e999, {ATOMS}}}', "name.json": f'{{"name": "{"n" * 5000}", {ATOMS}}}',
}  # fmt: skip


@pytest.mark.parametrize("name", MOLECULES)
def test_a_molecule_file_that_is_none(capsys, name):
    content = MOLECULES[name]
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    check(capsys, ["run", name], {2}, "molecule|specification")
    Path("bad.yaml").write_text(f"molecules: [{name}]\n")
    check(capsys, ["sweep", "bad.yaml"], {2}, r"sweep bad\.yaml:1")


@pytest.mark.parametrize(
    "content",
    [b"", b"[" * 100_000, b"[1e999]", b"[NaN]", b'["a"]', b"[" + b"9" * 4200 + b"]", b"{}", b"\xff", b"[null]"],
)
def test_an_initial_point_that_is_none(capsys, content):
    Path("start.json").write_bytes(content)
    check(capsys, ["run", "h2", "--initial-point", "start.json"], {2}, "initial (point|vector)")


@pytest.mark.parametrize(
    "arguments",
    cases({"run": ["run"], "sweep": ["sweep"], "sql": ["sql", "--file"], "start": ["run", "h2", "--initial-point"]}),
)
def test_a_file_that_is_a_folder_endless_or_not_there(capsys, arguments):
    Path("folder.xyz").mkdir()
    for name in ("folder.xyz", "/dev/zero", "nowhere.xyz", "x" * 300 + ".xyz"):
        check(capsys, [*arguments, name], {2}, "directory|no such file|too long|larger|NUL|unknown molecule")


@pytest.mark.parametrize("arguments", cases({**READERS, **WRITERS, **OF_SETTINGS}))
def test_an_argument_that_is_not_utf_8(capsys, arguments):
    name = os.fsdecode(b"m\xff")
    check(capsys, [*arguments, "--data-dir", name], {2}, r"argument \d+, 'm\\udcff', is not UTF-8")
    assert not Path(name).exists()


@pytest.mark.parametrize(
    "text",
    ["describe", "describe nowhere", "describe vqe_results energy nowhere", "explain select 1", "show columns from x",
     "select 'a", "", ";;", "select 1; select 2", "set x = 1", "select " + "(" * 3000 + "1" + ")" * 3000, "select ${x}",
     "select ?", "attach 'x' as y", "select * from '/etc/passwd'"],
)  # fmt: skip
def test_sql_that_cannot_be_answered(capsys, data, text):
    check(capsys, ["sql", text], {2}, "sql|statement|no table")


@pytest.mark.parametrize("text", ["describe select 1 as a", "describe (select 1 as a)"])
def test_a_query_can_be_described(capsys, data, text):
    capsys.readouterr()
    assert _run(["sql", text, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"column": "a", "type": "integer", "what it is": ""}]


# --- texts are not markup ---

NAMES = ("[/b]", "[red]", "[link=http://x]", "\\", ":smile:", "a[b")


def test_a_name_is_shown_as_it_is(capsys):
    for i, name in enumerate(NAMES):
        Path(f"{i}.json").write_text(f'{{"name": {json.dumps(name)}, {ATOMS}}}')
    files = [f"{i}.json" for i in range(len(NAMES))]
    code = _run(["run", *files])
    out, err = capsys.readouterr()
    assert code == 0, err
    Path("names.yaml").write_text(f"name: '[/b]'\nmolecules: [{', '.join(files)}]\n")
    assert _run(["sweep", "names.yaml", "--dry-run"]) == 0
    planned = capsys.readouterr().out
    assert _run(["sql", "select molecule_name from vqe_results"]) == 0
    listed = capsys.readouterr().out
    for name in NAMES:
        assert name in out
        assert name in listed
    assert "Sweep [/b]" in planned


def test_what_follows_live_shows_a_name_as_it_is(capsys):
    from rich.console import Console

    from simulator.cli.progress import RunProgress, SweepProgress
    from simulator.cli.watch import _table
    from simulator.live.watch import Watch, WatchedRun

    for progress in (RunProgress(1, quiet=False), SweepProgress("[/b]", 1, quiet=False)):
        progress._progress.update(progress._task, molecule="[/b]", state="[/b]")
        console = Console(file=open(os.devnull, "w"), record=True, force_terminal=True)  # noqa: SIM115
        console.print(progress._progress.make_tasks_table(progress._progress.tasks))
        assert "[/b]" in console.export_text()
        console.file.close()
    watched = Watch(runs={"r": WatchedRun("r", molecule="[/b]")})
    from simulator.cli.console import PlainConsole

    PlainConsole(width=200).print(_table(watched))
    assert "[/b]" in capsys.readouterr().out


def test_consoles_are_made_in_one_place():
    for path in (ROOT / "simulator").rglob("*.py"):
        text = path.read_text()
        if path.name != "console.py":
            assert not re.search(r"\bConsole\(|from_markup|import escape", text.replace("PlainConsole(", "")), path
        assert text.count("TextColumn(") == text.count("markup=False)"), path


# --- stdout and defects, as processes ---


def vqe(*arguments, **given):
    env = {**os.environ, **given.pop("env", {})}
    return subprocess.run([*VQE, *arguments], stderr=subprocess.PIPE, text=True, env=env, **given)


@pytest.mark.parametrize("arguments", [["molecules"], ["--help"]])
def test_a_stdout_of_any_kind(arguments):
    ascii_only = vqe(*arguments, stdout=subprocess.PIPE, env={"PYTHONIOENCODING": "ascii"})
    assert (ascii_only.returncode, ascii_only.stderr) == (0, "")
    with open("/dev/full", "w") as full:
        done = vqe(*arguments, stdout=full)
    assert (done.returncode, done.stderr) == (1, "vqe: standard output: No space left on device\n")
    read, write = os.pipe()
    os.close(read)  # `| head` that has read enough
    done = vqe(*arguments, stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_an_answer_goes_to_a_stdout_of_any_kind(capsys, data, monkeypatch):
    def answer_to(stdout) -> tuple[int, str]:
        capsys.readouterr()
        with monkeypatch.context() as patch, stdout:
            patch.setattr(sys, "stdout", stdout)
            code = _run(["sql", "select '⟨S²⟩' as spin"])
            if isinstance(stdout.buffer, io.BytesIO):
                stdout.flush()
                assert rb"\u27e8S\xb2\u27e9" in stdout.buffer.getvalue()
        return code, capsys.readouterr().err

    assert answer_to(io.TextIOWrapper(io.BytesIO(), encoding="ascii")) == (0, "")
    assert answer_to(open("/dev/full", "w")) == (1, "vqe: standard output: No space left on device\n")  # noqa: SIM115
    read, write = os.pipe()
    os.close(read)
    assert answer_to(open(write, "w")) == (128 + signal.SIGPIPE, "")  # noqa: SIM115


def test_a_broken_pipe_that_is_not_stdouts_is_told(capsys, monkeypatch):
    import simulator.chemistry.molecules

    def broken():
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(simulator.chemistry.molecules, "bundled_molecules", broken)
    assert _run(["molecules"]) == 1
    assert capsys.readouterr().err.startswith("vqe: Broken pipe")


def test_a_defect_is_one_line_too_and_says_how_to_see_where(capsys, monkeypatch):
    import simulator.chemistry.molecules

    def broken():
        raise ZeroDivisionError(f"several\nlines of http://u:{SECRET}@h")

    monkeypatch.setattr(simulator.chemistry.molecules, "bundled_molecules", broken)
    assert _run(["molecules"]) == 1
    err = capsys.readouterr().err
    assert err == (
        "vqe: unexpected ZeroDivisionError: several lines of http://u:***@h (VQE_LOG_LEVEL=debug shows where)\n"
    )
    monkeypatch.setenv("VQE_LOG_LEVEL", "debug")
    assert _run(["molecules"]) == 1
    err = capsys.readouterr().err
    assert "in broken" in err
    assert SECRET not in err
