"""The file sink: raw layout, atomic names, nothing lost by a crash but what was not flushed."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import fastavro
import pytest
from samples import a_result, an_iteration

from simulator.errors import StorageError
from simulator.sinks.container import recover
from simulator.sinks.file import FileSink

NAME = re.compile(r"(?P<topic>vqe_[a-z_]+_v1)\+local\+[0-9a-f-]{36}\.avro")


def rows(raw: Path, topic: str = "vqe_iteration_v1") -> list[dict]:
    found = []
    for path in sorted((raw / topic / "partition=local").glob("[!.]*.avro")):
        with open(path, "rb") as file:
            found += list(fastavro.reader(file))
    return found


def test_files_have_the_raw_layout_and_only_complete_ones_are_visible(tmp_path):
    sink = FileSink(tmp_path)
    for i in range(10):
        sink.emit(an_iteration(i))
    sink.emit(a_result())
    sink.flush()
    folder = tmp_path / "vqe_iteration_v1" / "partition=local"
    assert [p.name[0] for p in folder.iterdir()] == ["."], "a file being written has a hidden name"
    sink.close()
    names = [p.name for p in folder.iterdir()]
    assert len(names) == 1
    assert NAME.fullmatch(names[0])["topic"] == "vqe_iteration_v1"
    assert [r["iteration"] for r in rows(tmp_path)] == list(range(10))
    assert len(rows(tmp_path, "vqe_result_v1")) == 1


def test_a_file_that_is_large_enough_is_completed_and_another_begun(tmp_path):
    sink = FileSink(tmp_path, roll_bytes=50_000)
    for i in range(1_000):
        sink.emit(an_iteration(i))
        if i % 50 == 0:
            sink.flush()
    sink.close()
    assert len(sink.completed) > 2
    assert [r["iteration"] for r in rows(tmp_path)] == list(range(1_000)), "names sort by completion"


KILLED = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from samples import an_iteration
    from simulator.sinks.file import FileSink
    sink = FileSink(Path(sys.argv[1]))
    for i in range(500):
        sink.emit(an_iteration(i))
    sink.flush()
    print("flushed", flush=True)
    for i in range(500, 10_000_000):
        sink.emit(an_iteration(i))
        time.sleep(0.0001)
    """
)


def test_kill_9_loses_nothing_that_was_flushed_and_the_file_is_recovered(tmp_path):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, env=env, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "flushed\n"
        assert recover(tmp_path).recovered == [], "a file whose writer lives is left alone"
        time.sleep(1.5)
        process.send_signal(signal.SIGKILL)
    assert rows(tmp_path) == []
    recovered = recover(tmp_path)
    assert len(recovered.recovered) == 1
    found = [r["iteration"] for r in rows(tmp_path)]
    assert len(found) > 500, "what a second of flushing wrote is there as well"
    assert found == list(range(len(found)))
    assert list(tmp_path.glob("*/*/.*")) == []


@pytest.mark.parametrize("cut", [1, 7, 17, 400, 5_000])
def test_a_file_cut_anywhere_is_recovered_up_to_its_last_whole_block(tmp_path, cut):
    sink = FileSink(tmp_path)
    for i in range(100):
        sink.emit(an_iteration(i))
        if i % 10 == 9:
            sink.flush()
    sink.close()
    (complete,) = sink.completed
    content = complete.read_bytes()
    part = complete.with_name(f".{complete.name}.part")
    part.write_bytes(content[:-cut])
    complete.unlink()
    recovered = recover(tmp_path)
    found = [r["iteration"] for r in rows(tmp_path)]
    assert found == list(range(len(found)))
    assert len(found) % 10 == 0
    assert 100 - len(found) <= 10 * (1 + cut // 3_000)
    assert recovered.dropped_bytes > 0


@pytest.mark.parametrize("content", [b"", b"Ob", b"Obj\x01", b"Obj\x01\xff\xff\xff", b"not avro at all" * 100])
def test_a_part_file_without_a_whole_block_is_removed(tmp_path, content):
    folder = tmp_path / "vqe_iteration_v1" / "partition=local"
    folder.mkdir(parents=True)
    (folder / ".vqe_iteration_v1+local+x.avro.part").write_bytes(content)
    recover(tmp_path)
    assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "raw").write_text("a file, not a folder")
    with pytest.raises(StorageError, match="raw cannot be written"):
        FileSink(tmp_path / "raw")


def test_a_full_disk_fails_the_run_with_a_clear_line_and_keeps_what_was_flushed(tmp_path, monkeypatch):
    from simulator.sinks.container import ContainerFile

    sink = FileSink(tmp_path)
    sink.emit(an_iteration(0))
    sink.flush()

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ContainerFile, "flush", full)
    sink.emit(an_iteration(1))
    with pytest.raises(StorageError, match="No space left on device"):
        sink.flush()
    with pytest.raises(StorageError):
        sink.emit(an_iteration(2))
    monkeypatch.undo()
    with pytest.raises(StorageError):
        sink.close()
    recover(tmp_path)
    assert [r["iteration"] for r in rows(tmp_path)] == [0]


def test_emitting_never_waits_for_the_disk(tmp_path, monkeypatch):
    from simulator.sinks.container import ContainerFile

    write = ContainerFile.write

    def slow(self, record):
        time.sleep(0.05)
        write(self, record)

    monkeypatch.setattr(ContainerFile, "write", slow)
    sink = FileSink(tmp_path)
    began = time.monotonic()
    for i in range(20):
        sink.emit(an_iteration(i))
    assert time.monotonic() - began < 0.5, "twenty writes take a second"
    sink.close()
    assert len(rows(tmp_path)) == 20
