"""Data dirs that were copied, moved, linked to, or named oddly: nothing goes where it does not belong, and nothing is lost."""

import json
import os
import shutil
import sqlite3
from pathlib import Path

import pytest
import raw_events
from built_tables import everything, tags, two_runs
from dying import die_at, killed_when
from raw_events import Run, write_runs

from simulator.cli.main import _run as vqe
from simulator.errors import InputError
from spark_jobs import maintenance, relocate
from spark_jobs.arrow import batch
from spark_jobs.location import Location, MisplacedTables, check_table
from spark_jobs.query import _fences, query
from spark_jobs.tables import LEDGER, TABLES
from spark_jobs.warehouse import Warehouse

NOW = raw_events.BEGIN + raw_events.timedelta(hours=1)
COUNT = "select count(*) as n from vqe_results"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data dir with three batches, as a tar that keeps its path would bring it: never used itself."""
    data_dir = tmp_path_factory.mktemp("made") / "original"
    for number in range(3):
        write_runs(data_dir, [Run(number, molecule=number)], number=number)
        batch.build(data_dir, now=NOW)
    return data_dir


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VQE_CATALOG_URI", "VQE_WAREHOUSE", "VQE_RAW_STORE", "VQE_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


def copy_of(original: Path, to: Path) -> Path:
    shutil.copytree(original, to)
    return to


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file's bytes and time of its last change; folders' times, too."""
    found = {}
    for path in sorted([folder, *folder.rglob("*")]):
        found[str(path)] = (path.read_bytes() if path.is_file() else b"", path.stat().st_mtime_ns)
    return found


def at_each_tag(data_dir: Path) -> dict[str, int]:
    with Warehouse.read(data_dir) as found:
        published = found.published()
    return {tag: query(data_dir, COUNT, as_of=tag).rows["n"][0].as_py() for tag in published}


# --- refused ---------------------------------------------------------------------------------------------------------


def test_a_copy_is_neither_read_nor_written_and_its_original_stays(made: Path, tmp_path: Path) -> None:
    copy = copy_of(made, tmp_path / "copy")
    write_runs(copy, [Run(7, molecule=7)], number=7)
    before, own = state(made), state(copy / "warehouse" / "vqe")
    for ask in (
        lambda: batch.build(copy, now=NOW),
        lambda: batch.reconcile(copy, now=NOW),
        lambda: maintenance.maintain(copy),
        lambda: maintenance.verify(copy, now=NOW),
        lambda: maintenance.summaries(copy),
        lambda: query(copy, COUNT),
        lambda: Warehouse(Location.of(copy)),
    ):
        with pytest.raises(MisplacedTables, match=r"vqe tables relocate --data-dir .*copy") as told:
            ask()
        assert "\n" not in str(told.value)
        assert told.value.exit_code == 2
    assert state(made) == before
    assert state(copy / "warehouse" / "vqe") == own


@pytest.mark.parametrize(
    "command",
    [["sql", COUNT], ["tables", "build"], ["tables", "maintain"], ["run", "h2"], ["exporter", "--once"],
     *(pytest.param(command, marks=pytest.mark.broad) for command in (
         ["sql", "show tables"], ["tables", "init"], ["tables", "reconcile"], ["tables", "list"], ["tables", "verify"],
         ["report"], ["sweep", "x.yaml"]))],
    ids=" ".join,
)  # fmt: skip
def test_every_command_refuses_a_copy_in_one_line(
    made: Path, tmp_path: Path, command: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run is refused before it runs: raw/ stays as it is."""
    copy = copy_of(made, tmp_path / "copy")
    (tmp_path / "cwd" / "x.yaml").write_text("molecules: [h2]\nseeds: [0]\n")
    monkeypatch.setenv("VQE_DATA_DIR", str(copy))
    before, raw = state(made), state(copy / "raw")
    assert vqe(command) == 2
    told = capfd.readouterr()
    assert told.err.count("\n") == 1
    assert "vqe tables relocate --data-dir" in told.err
    assert state(made) == before
    assert state(copy / "raw") == raw


def test_a_table_whose_metadata_alone_names_another_folder_is_refused(made: Path, tmp_path: Path) -> None:
    """The catalog and the location are right, but a file of the log is another one's: a commit would delete it."""
    copy = copy_of(made, tmp_path / "copy")
    relocate.relocate(copy, batch.build)
    with Warehouse.read(copy) as found:
        path = Path(found.load(TABLES[0]).metadata_location.removeprefix("file://"))
    metadata = json.loads(path.read_text())
    metadata["metadata-log"] = [{"metadata-file": f"file://{made}/warehouse/vqe/{TABLES[0].name}/metadata/0.json",
                                 "timestamp-ms": metadata["last-updated-ms"]}]  # fmt: skip
    path.write_text(json.dumps(metadata))
    with pytest.raises(MisplacedTables, match="relocate"):
        query(copy, COUNT)
    assert relocate.relocate(copy, batch.build).moved_from == f"file://{made}/warehouse"
    assert query(copy, COUNT).rows["n"][0].as_py() == 3


def test_a_link_to_a_data_dir_is_that_data_dir(made: Path, tmp_path: Path) -> None:
    moved = copy_of(made, tmp_path / "moved")
    relocate.relocate(moved, batch.build)
    link = tmp_path / "link"
    link.symlink_to(moved)
    write_runs(link, [Run(7, molecule=7)], number=7)
    assert batch.build(link, now=NOW).loaded == 5
    assert relocate.relocate(link, batch.build).moved_from is None
    assert query(moved, COUNT).rows["n"][0].as_py() == 4


def test_moved_with_a_link_left_behind_it_is_the_same(made: Path, tmp_path: Path) -> None:
    """Paths name the link; what they name is here."""
    before = copy_of(made, tmp_path / "before")
    relocate.relocate(before, batch.build)
    before.rename(tmp_path / "after")
    before.symlink_to(tmp_path / "after")
    write_runs(tmp_path / "after", [Run(7, molecule=7)], number=7)
    batch.build(tmp_path / "after", now=NOW)
    assert query(tmp_path / "after", COUNT).rows["n"][0].as_py() == 4
    assert maintenance.verify(tmp_path / "after", now=NOW) == []
    with Warehouse.read(tmp_path / "after") as found:  # a mount, unlike a link, does not say where it leads
        allowed = _fences(found)[0]
    assert f"'{tmp_path}/before/warehouse/vqe/molecules/'" in allowed


# --- relocated -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("original", ["there", "gone"])
def test_relocated_it_is_whole_with_its_history_and_the_original_untouched(
    made: Path, tmp_path: Path, original: str
) -> None:
    home = made
    if original == "gone":
        home = copy_of(made, tmp_path / "home")
        relocate.relocate(home, batch.build)
    rows, tagged, counts = everything(home), tags(home), at_each_tag(home)
    new = tmp_path / "ne w[1]'é"
    if original == "gone":
        home.rename(new)
    else:
        copy_of(home, new)
    before = state(home) if home.exists() else None

    done = relocate.relocate(new, batch.build)
    assert (done.moved_from, done.tables, done.rebuilt) == (f"file://{home}/warehouse", len(TABLES), None)
    assert everything(new) == rows
    assert tags(new) == tagged
    assert at_each_tag(new) == counts
    assert sorted(counts.values()) == [1, 2, 3]
    assert maintenance.verify(new, now=NOW) == []
    again = state(new / "warehouse" / "vqe")
    assert relocate.relocate(new, batch.build).moved_from is None
    assert state(new / "warehouse" / "vqe") == again

    for number in range(7, 10):  # more commits than the log of metadata files keeps
        write_runs(new, [Run(number, molecule=number)], number=number)
        batch.build(new, now=NOW)
    maintenance.maintain(new, orphan_age=raw_events.timedelta(0))
    assert maintenance.verify(new, now=NOW) == []
    assert query(new, COUNT).rows["n"][0].as_py() == 6
    assert query(new, COUNT, as_of=min(counts)).rows["n"][0].as_py() == 1
    with Warehouse.read(new) as found:
        used = {path for t in TABLES for path in maintenance.files_in_use(found.load(t))}
    assert {path for path in used if not path.startswith(f"file://{new}/warehouse/vqe/")} == set()
    assert before is None or state(home) == before


def test_a_copy_by_hard_links_gets_a_catalog_of_its_own(made: Path, tmp_path: Path) -> None:
    home = copy_of(made, tmp_path / "home")
    relocate.relocate(home, batch.build)
    before = {p: v[0] for p, v in state(home).items() if ".lock" not in p}
    copy = tmp_path / "copy"
    shutil.copytree(home, copy, copy_function=os.link)
    relocate.relocate(copy, batch.build)
    write_runs(copy, [Run(7, molecule=7)], number=7)
    batch.build(copy, now=NOW)
    assert {p: v[0] for p, v in state(home).items() if ".lock" not in p} == before
    assert maintenance.verify(home, now=NOW) == maintenance.verify(copy, now=NOW) == []


def test_killed_at_any_step_it_is_refused_or_whole_and_the_next_one_ends_it(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(relocate, "on_step", steps.append)
        relocate.relocate(copy_of(made, tmp_path / "counted"), batch.build)
    assert steps[-2:] == ["catalog, before its commit", "catalog"]
    copy = copy_of(made, tmp_path / "copy")
    before = state(made)
    for after in (1, len(steps) // 2, len(steps) - 2, len(steps) - 1, len(steps)):
        die_at(after, "spark_jobs.relocate.on_step", relocate.relocate, copy, batch.build)
        if after < len(steps):
            with pytest.raises(MisplacedTables):
                query(copy, COUNT)
    assert relocate.relocate(copy, batch.build).moved_from is None  # the last was killed after the catalog's commit
    assert sorted(at_each_tag(copy).values()) == [1, 2, 3]
    assert maintenance.verify(copy, now=NOW) == []
    assert state(made) == before


# --- built anew ------------------------------------------------------------------------------------------------------


def _without_a_manifest(copy: Path) -> None:
    next((copy / "warehouse" / "vqe" / LEDGER / "metadata").glob("snap-*.avro")).unlink()


def _without_a_data_file(copy: Path) -> None:
    next((copy / "warehouse" / "vqe" / "vqe_results" / "data").rglob("*.parquet")).unlink()


def _with_damaged_metadata(copy: Path) -> None:
    for path in (copy / "warehouse" / "vqe" / "molecules" / "metadata").glob("*.json"):
        path.write_text("{")


def _written_into_its_original(copy: Path) -> None:
    """As earlier releases left it: the catalog names a file that was only ever written into the original."""
    with sqlite3.connect(copy / "warehouse" / "catalog.db") as catalog:
        catalog.execute("update iceberg_tables set metadata_location = replace(metadata_location, '-', '9-')")
    catalog.close()


@pytest.mark.parametrize(
    "damage",
    [_without_a_data_file, _with_damaged_metadata,
     *(pytest.param(damage, marks=pytest.mark.broad) for damage in (_without_a_manifest, _written_into_its_original))],
)  # fmt: skip
def test_without_all_files_it_is_built_anew_and_the_old_is_kept(made: Path, tmp_path: Path, damage, capfd) -> None:
    copy = copy_of(made, tmp_path / "copy")
    damage(copy)
    before = state(made)
    old = {p.name for p in (copy / "warehouse" / "vqe").rglob("*.parquet")}
    assert vqe(["tables", "relocate", "--data-dir", str(copy)]) == 0
    told = "".join(capfd.readouterr().out.split())  # a narrow console breaks lines anywhere
    assert "builtanewfromraw/" in told
    [aside] = copy.glob("warehouse.*.old")
    assert str(aside) in told
    assert old <= {p.name for p in aside.rglob("*.parquet")}
    assert (aside / "catalog.db").is_file()
    assert query(copy, COUNT).rows["n"][0].as_py() == 3
    assert maintenance.verify(copy, now=NOW) == []
    assert state(made) == before


def test_killed_while_the_old_is_set_aside_nothing_is_lost(made: Path, tmp_path: Path) -> None:
    copy = copy_of(made, tmp_path / "copy")
    _without_a_data_file(copy)
    old = {p.name for p in (copy / "warehouse" / "vqe").rglob("*.parquet")}

    with killed_when("set aside vqe", relocate, "on_step"):
        relocate.relocate(copy, batch.build)
    with pytest.raises(MisplacedTables):
        batch.build(copy, now=NOW)
    assert relocate.relocate(copy, batch.build).rebuilt is not None
    assert old <= {p.name for a in copy.glob("warehouse.*.old") for p in a.rglob("*.parquet")}
    assert query(copy, COUNT).rows["n"][0].as_py() == 3


def test_with_neither_files_nor_raw_it_is_refused_and_left_as_it_is(made: Path, tmp_path: Path) -> None:
    copy = copy_of(made, tmp_path / "copy")
    shutil.rmtree(copy / "raw")
    relocated = copy_of(copy, tmp_path / "relocated")
    relocate.relocate(relocated, batch.build)
    assert query(relocated, COUNT).rows["n"][0].as_py() == 3  # what raw/ no longer has is kept
    _without_a_data_file(copy)
    before = sorted(p.name for p in copy.rglob("*.parquet"))
    with pytest.raises(InputError, match="no raw object"):
        relocate.relocate(copy, batch.build)
    assert sorted(p.name for p in copy.rglob("*.parquet")) == before


def test_a_catalog_that_the_original_uses_is_not_taken_from_it(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`VQE_CATALOG_URI` names one catalog for both: it is refused while the original is there, and goes with a move."""
    home = copy_of(made, tmp_path / "home")
    relocate.relocate(home, batch.build)
    (home / "warehouse" / "catalog.db").rename(tmp_path / "shared.db")
    monkeypatch.setenv("VQE_CATALOG_URI", f"sqlite:///{tmp_path}/shared.db")
    copy = copy_of(home, tmp_path / "copy")
    before = state(home)
    with pytest.raises(MisplacedTables):
        batch.build(copy, now=NOW)
    with pytest.raises(InputError, match="still there"):
        relocate.relocate(copy, batch.build)
    assert state(home) == before
    shutil.rmtree(home)
    assert relocate.relocate(copy, batch.build).tables == len(TABLES)
    assert query(copy, COUNT).rows["n"][0].as_py() == 3


def test_tables_in_s3_are_compared_with_the_warehouse_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Location(Path("/d"), "sqlite:////d/catalog.db", "s3://bucket/warehouse/", warehouse_is_named=True)
    check_table(here, "vqe", "molecules", ["s3://bucket/warehouse/vqe/molecules/metadata/1.json"])
    with pytest.raises(MisplacedTables, match="VQE_WAREHOUSE=s3://other/warehouse"):
        check_table(here, "vqe", "molecules", ["s3://other/warehouse/vqe/molecules/metadata/1.json"])
    monkeypatch.setenv("VQE_WAREHOUSE", "s3://bucket/warehouse")
    with pytest.raises(InputError, match="only the tables of a folder"):
        relocate.relocate("/d", batch.build)


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a#b", "a?b", "a%20b", "a\nb", "a\tb"])
def test_a_name_that_iceberg_cannot_write_to_is_refused_before_a_run(name: str, tmp_path: Path, capfd) -> None:
    assert vqe(["run", "h2", "--data-dir", str(tmp_path / name)]) == 2
    told = capfd.readouterr()
    assert told.err.count("\n") == 1
    assert "data dir" in told.err
    assert not (tmp_path / name).exists()


def test_brackets_and_stars_in_a_name_are_no_pattern(made: Path, tmp_path: Path) -> None:
    """Beside each is a copy that its name matches as a pattern, with files of the same names."""
    for name in ("a1", "a[1]", "axb", "a*b", "it's"):
        relocate.relocate(copy_of(made, tmp_path / name), batch.build)
    for name in ("a[1]", "a*b", "it's"):
        assert query(tmp_path / name, COUNT).rows["n"][0].as_py() == 3, name


def test_a_tilde_is_home_in_every_path_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write_runs(tmp_path / "home" / "data", two_runs())
    assert vqe(["tables", "build", "--data-dir=~/data"]) == 0
    assert vqe(["report", "--data-dir=~/data", "--output=~/page.html"]) == 0
    assert (tmp_path / "home" / "page.html").is_file()
    monkeypatch.setenv("VQE_DATA_DIR", "~/data")
    assert vqe(["sql", COUNT, "--format", "csv"]) == 0
    assert capfd.readouterr().out.endswith("n\n2\n")
    monkeypatch.setenv("VQE_RAW_STORE", "~/data")
    monkeypatch.setenv("VQE_WAREHOUSE", "~/tables")
    monkeypatch.setenv("VQE_CATALOG_URI", "sqlite:///~/catalog.db")
    monkeypatch.setenv("VQE_DATA_DIR", "~/other")
    assert vqe(["tables", "build"]) == 0
    assert (tmp_path / "home" / "tables" / "vqe" / "molecules" / "data").is_dir()
    assert (tmp_path / "home" / "catalog.db").is_file()
    assert vqe(["sql", COUNT, "--format", "csv"]) == 0
    assert capfd.readouterr().out.endswith("n\n2\n")
    assert not list((tmp_path / "cwd").iterdir())


def test_a_tilde_of_nobody_is_one_line(capfd) -> None:
    assert vqe(["sql", COUNT, "--data-dir=~nobody-of-that-name/x"]) == 2
    assert "~nobody-of-that-name/x" in capfd.readouterr().err


def test_dotenv_holds_for_every_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    for name in ("AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    write_runs(tmp_path / "objects", two_runs())
    (tmp_path / "cwd" / ".env").write_text(
        f"VQE_DATA_DIR={tmp_path}/data\nVQE_WAREHOUSE={tmp_path}/tables\nVQE_CATALOG_URI=sqlite:///{tmp_path}/c.db\n"
        f"VQE_RAW_STORE={tmp_path}/objects\nAWS_REGION=mars-1\nPATH=/nowhere\n"
    )
    with monkeypatch.context() as patch:
        environment = dict(os.environ)
        patch.setattr(os, "environ", os.environ)
        try:
            assert vqe(["tables", "build"]) == 0
            assert vqe(["sql", COUNT, "--format", "csv"]) == 0
            assert capfd.readouterr().out.endswith("n\n2\n")
            assert (os.environ["AWS_REGION"], os.environ["PATH"]) == ("mars-1", environment["PATH"])
        finally:
            os.environ.clear()
            os.environ.update(environment)
    assert (tmp_path / "c.db").is_file()
    assert (tmp_path / "tables" / "vqe").is_dir()
    # a program that imports the library has them, too
    location = Location.of(tmp_path / "data")
    assert (location.warehouse, location.catalog_uri) == (f"{tmp_path}/tables", f"sqlite:///{tmp_path}/c.db")
    monkeypatch.setenv("VQE_WAREHOUSE", str(tmp_path / "set"))
    assert Location.of(tmp_path / "data").warehouse == str(tmp_path / "set")
