"""The check's runner: stages wait for what they need, each is printed and timed, and a failure stops everything that runs."""

import importlib.util
import os
import signal
from pathlib import Path

import pytest
from waiting import eventually

STAGES = Path(__file__).parents[3] / ".ci" / "stages.py"


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Runs stages, (name, command, needs); the exit code."""
    spec = importlib.util.spec_from_file_location("vqe_check_stages", STAGES)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, spec.name, module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "LOGS", tmp_path / "logs")
    # As the runner's own handlers do, this one leaves stages the default: what a shell starts in the background ignores SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(module.signal, "signal", lambda *_: None)
    monkeypatch.setenv("FOLDER", str(tmp_path))
    monkeypatch.delenv("VQE_CI_KEEP_GOING", raising=False)  # a check that goes on after failures runs these tests, too

    def run(*stages: tuple[str, str, tuple[str, ...]]) -> int:
        monkeypatch.setattr(module, "STAGES", [module.Stage(*stage) for stage in stages])
        return module.main()

    run.module = module
    yield run
    monkeypatch.undo()
    signal.signal(signal.SIGINT, before)


def test_stages_wait_for_what_they_need_and_are_printed_whole_and_timed(check, capfd):
    code = check(
        ("first", "sleep 0.3; echo made > $FOLDER/file; echo '7 passed in 0.3s'", ()),
        ("second", "cat $FOLDER/file; echo told >&2", ("first",)),
    )
    said = capfd.readouterr().out
    assert code == 0
    assert "\n7 passed in 0.3s\n" in said
    assert "\nmade\ntold\n" in said
    table = [line.split() for line in said.splitlines()[-4:]]
    assert [row[0] for row in table] == ["stage", "first", "second", "all"]


def test_a_failure_is_named_with_the_end_of_its_output_and_stops_what_runs(check, capfd, tmp_path):
    code = check(
        ("long", "trap 'echo tidied up > $FOLDER/bye; exit 130' INT; sleep 300 & echo $! > $FOLDER/pid; wait", ()),
        ("broken", "until [ -s $FOLDER/pid ]; do sleep 0.1; done; echo the reason; exit 3", ()),
        ("never", "touch $FOLDER/never", ("broken",)),
    )
    said = capfd.readouterr().out
    assert code == 1
    assert "broken FAILED with exit code 3" in said
    assert said.count("the reason") == 2
    assert (tmp_path / "bye").exists(), "it had no time to tidy up"
    assert not (tmp_path / "never").exists()
    pid = int((tmp_path / "pid").read_text())
    eventually(lambda: gone(pid), 30)
    assert os.listdir(tmp_path / "logs")


def gone(pid: int) -> bool:
    """Whether a process has ended, or waits for nothing but its parent's look."""
    try:
        return "Z" in Path(f"/proc/{pid}/stat").read_text().split(")")[1][:3]
    except FileNotFoundError:
        return True


def test_every_stage_needs_stages_that_there_are_and_none_is_forgotten(check):
    stages = {stage.name: stage for stage in check.module.STAGES}
    assert {need for stage in stages.values() for need in stage.needs} <= stages.keys()
    commands = " ".join(stage.command for stage in stages.values())
    for target in ("lint", "test", "demo", "test-monitoring", "test-services", "test-sink", "test-lake", "test-e2e"):
        assert f"make {target}" in commands
