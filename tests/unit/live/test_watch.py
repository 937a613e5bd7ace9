"""Watching: what is known of a run, from files that are complete and from those being written."""

import contextlib
import os
import time

from samples import a_result, an_iteration

from simulator.events.records import to_record
from simulator.live.watch import FileSource, Watch, sparkline
from simulator.sinks.file import FileSink


def records(source: FileSource) -> list:
    return list(source.read())


def test_local_files_are_followed_while_they_are_written_and_nothing_is_read_twice(tmp_path):
    source = FileSource(tmp_path, since_seconds=3600)
    sink = FileSink(tmp_path)
    for i in range(3):
        sink.emit(an_iteration(i))
    sink.flush()
    assert [r["iteration"] for _, r in records(source)] == [0, 1, 2]
    assert records(source) == []
    sink.emit(an_iteration(3))
    sink.close()
    assert [r["iteration"] for _, r in records(source)] == [3], "renamed meanwhile, and still known"
    assert records(source) == []


def test_old_files_are_left_out(tmp_path):
    sink = FileSink(tmp_path)
    sink.emit(an_iteration(0))
    sink.close()
    assert records(FileSource(tmp_path, since_seconds=-10)) == []


def test_events_may_come_late_or_twice():
    watch, result = Watch(), a_result(run_id="r", energy=-1.5, error_mha=0.2)
    watch.take([("vqe_result", to_record(result))])
    late = [("vqe_iteration", to_record(an_iteration(i))) for i in (1, 0, 1, 2)]
    watch.take(late)
    run = watch.runs["r"]
    assert run.iteration == 2
    assert len(run.points) == 2
    assert run.status == "completed"
    assert run.molecule == "h2"


def test_runs_are_chosen_by_id_or_molecule():
    watch = Watch(("h2",))
    watch.take([("vqe_result", to_record(a_result(run_id="aaa")))])
    watch.take([("vqe_result", to_record(a_result(run_id="bbb", molecule_name="lih")))])
    assert [run.run_id for run in watch.shown()] == ["aaa"]
    watch.wanted = ("bb",)
    assert [run.run_id for run in watch.shown()] == ["bbb"]


def test_a_sparkline_falls_with_the_error():
    assert sparkline([]) == ""
    assert sparkline([100.0, 10.0, 1.0, 0.1]) == "█▆▃▁"
    assert len(sparkline([1.0 / (i + 1) for i in range(1000)])) <= 24
    assert sparkline([-1.0, -1.0]) == "▁▁"


def test_what_is_written_while_the_clock_has_stepped_back_is_seen(tmp_path):
    source = FileSource(tmp_path / "raw", since_seconds=60)

    def emit(*events, days_ago=0.0):
        before = set(tmp_path.glob("raw/*/*/*.avro"))
        with contextlib.closing(FileSink(tmp_path / "raw")) as sink:
            for event in events:
                sink.emit(event)
        for path in set(tmp_path.glob("raw/*/*/*.avro")) - before:
            os.utime(path, (time.time() - days_ago * 86_400,) * 2)

    emit(an_iteration(0), days_ago=1)
    assert list(source.read()) == [], "before it was asked"
    emit(an_iteration(1), days_ago=3)
    assert [record["iteration"] for _, record in source.read()] == [1]
    assert list(source.read()) == []
    emit(an_iteration(2), days_ago=-3)
    assert [record["iteration"] for _, record in source.read()] == [2]
