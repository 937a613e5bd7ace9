"""Runs the stages of the check: each as soon as what it needs has passed, so that what waits and what computes share the machine.

Images are fetched and built beside the tests that need none; the journey through them comes last, alone. A stage's output goes to
build/ci/<stage>.log and is printed when the stage ends; a table of all stages with their seconds comes last. The first stage that fails
ends the run: its output's end is repeated, and what still runs is stopped. With VQE_CI_KEEP_GOING=1 the others run to their ends
first, so that one run shows all that is wrong; it fails all the same.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOGS = ROOT / "build" / "ci"
PROJECT = f"vqe-e2e-ci{os.getpid()}"
"""Compose's name of the journey's stack, by which it is removed even where its tests were killed."""
STOP_SECONDS = 150
"""A test session that is interrupted takes its stack down: so long it may take."""


@dataclass
class Stage:
    """A command and the stages that must have passed before it."""

    name: str
    command: str
    needs: tuple[str, ...] = ()
    process: "subprocess.Popen[bytes] | None" = None
    began: float = 0.0
    seconds: float = 0.0
    busy: float = 0.0  # cores that computed while it ran, for whomever
    ended: bool = False
    passed: bool = False
    _computed: float = 0.0

    @property
    def log(self) -> Path:
        return LOGS / f"{self.name}.log"

    def end(self) -> None:
        self.ended = True
        self.seconds = time.monotonic() - self.began
        self.busy = (computed_seconds() - self._computed) / self.seconds

    def start(self, environment: dict[str, str]) -> None:
        self.began = time.monotonic()
        self._computed = computed_seconds()
        with self.log.open("wb") as out:
            # a session of its own: an interrupt reaches the whole stage and nothing else
            self.process = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", self.command],
                cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip


STAGES = [
    # uv installs in a third of pip's time; without it everything works with pip
    Stage("environment", "python3 -m venv build/uv && build/uv/bin/pip install -q uv || rm -rf build/uv; make .venv/.installed-dev"),
    Stage("lint", "make lint", ("environment",)),
    Stage("unit", "make test", ("lint",)),
    Stage("demo", "make demo", ("unit",)),
    # What the tests with services run. Maven's repository bears one process at a time, so its part comes before the base images'.
    Stage("jars", ".venv/bin/python -m tests.services fetch kafka registry connect"
          " && .venv/bin/python -m tests.services.lake fetch postgres jars && make test-sink", ("environment",)),
    Stage("venvs", ".venv/bin/python -m tests.services.monitoring && .venv/bin/python -m tests.services.lake fetch spark airflow", ("jars",)),
    # Base images come one after another, ours as soon as their bases are there. MinIO is built once, for its image; the tests with
    # services copy the program out of it.
    Stage("bases-1", "../shared/images/up dockerfile python"),
    Stage("bases-2", "../shared/images/up minio", ("bases-1",)),
    Stage("minio", ".venv/bin/python -m tests.services fetch minio", ("environment", "bases-2")),
    Stage("bases-3", "../shared/images/up kafka spark airflow", ("bases-2", "jars")),
    Stage("bases-4", "../shared/images/up", ("bases-3",)),
    Stage("images-1", "docker compose build --quiet init simulator", ("bases-1",)),
    Stage("images-2", "docker compose build --quiet", ("bases-3", "images-1")),
    # It waits for scrapes, beside tests that compute.
    Stage("monitoring", "make test-monitoring", ("lint", "venvs", "minio")),
    # Two files at a time, each with services of its own: they wait more than they compute.
    Stage("services", "make test-services BESIDE='-n 2 --dist loadfile'", ("demo", "monitoring")),
    # The longest files come first, in the Makefile's order: what begins last decides when all is done.
    Stage("lake", "make test-lake BESIDE='-n 2 --dist loadfile --no-loadscope-reorder'", ("services",)),
    # Alone: it kills workers that are given 45 seconds to show that they live, and times what alerts do.
    Stage("journey", "make test-e2e", ("bases-4", "images-2", "lake")),
]  # fmt: skip


@dataclass
class Run:
    """All stages, and the clock that they share."""

    stages: list[Stage]
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        LOGS.mkdir(parents=True, exist_ok=True)
        self.environment = {
            # without compiled Python files each process of a test spends a second or more on compiling ours
            **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
            "PATH": f"{ROOT / 'build' / 'uv' / 'bin'}:{os.environ['PATH']}",
            "VQE_E2E_PROJECT": PROJECT,
            "PYTHONUNBUFFERED": "1",
        }

    def say(self, text: str) -> None:
        print(f"\n=== {text} ({time.monotonic() - self.began:.0f} s)", flush=True)

    def all_pass(self) -> bool:
        """Runs everything, until the first failure."""
        keep_going = os.environ.get("VQE_CI_KEEP_GOING") == "1"
        while any(not stage.ended for stage in self.stages):
            ended = {stage.name for stage in self.stages if stage.ended}
            for stage in self.stages:
                if stage.process is None and ended.issuperset(stage.needs):
                    self.say(f"{stage.name} begins")
                    stage.start(self.environment)
            for stage in self.stages:
                if stage.process is None or stage.ended or stage.process.poll() is None:
                    continue
                stage.end()
                output = stage.log.read_text(errors="replace")
                self.say(f"{stage.name}: {stage.seconds:.0f} s")
                print(output, flush=True)
                if stage.process.returncode:
                    self.say(f"{stage.name} FAILED with exit code {stage.process.returncode}; its output ends")
                    print("\n".join(output.splitlines()[-60:]), flush=True)
                    if not keep_going:
                        return False
                stage.passed = stage.process.returncode == 0
            time.sleep(0.5)
        return all(stage.passed for stage in self.stages)

    def stop(self) -> None:
        """Interrupts what still runs, as Ctrl-C would, and kills what does not end by that."""
        running = [s for s in self.stages if s.process is not None and s.process.poll() is None]
        for stage in running:
            self.say(f"{stage.name} is stopped")
            _signal(stage, signal.SIGINT)
        deadline = time.monotonic() + STOP_SECONDS
        for stage in running:
            assert stage.process is not None
            try:
                stage.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _signal(stage, signal.SIGKILL)
                stage.process.wait()
        for stage in (s for s in self.stages if s.process is not None and not s.passed):
            _signal(stage, signal.SIGKILL)  # what a stage left behind
        if any(stage.name == "journey" for stage in running):
            down = ["docker", "compose", "-p", PROJECT, "down", "--volumes", "--remove-orphans", "-t", "5"]
            subprocess.run(down, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True)

    def table(self) -> str:
        """Each stage's begin, its seconds, and how many cores the whole machine used meanwhile."""
        lines = [f"{'stage':<14}{'began at':>10}{'seconds':>10}{'cores':>10}"]
        for stage in sorted((s for s in self.stages if s.process is not None), key=lambda s: s.began):
            told = f"{stage.seconds:.0f}" if stage.seconds else "stopped"
            lines.append(f"{stage.name:<14}{stage.began - self.began:>10.0f}{told:>10}{stage.busy:>10.1f}")
        lines.append(f"{'all':<14}{'':>10}{time.monotonic() - self.began:>10.0f}")
        return "\n".join(lines)


def computed_seconds() -> float:
    """CPU seconds that all processes of the machine have used since it started; 0 where Linux does not tell."""
    try:
        user, nice, system = Path("/proc/stat").read_text().split()[1:4]
    except OSError:
        return 0.0
    return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")


def _signal(stage: Stage, number: int) -> None:
    assert stage.process is not None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(stage.process.pid, number)


def main() -> int:
    run = Run(STAGES)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupted)
    # a shell's background job ignores interrupts, and so would all that it starts
    signal.signal(signal.SIGINT, interrupted)
    passed = False
    try:
        passed = run.all_pass()
    except KeyboardInterrupt:
        run.say("interrupted")
    finally:
        run.stop()
    run.say("stages")
    print(run.table(), flush=True)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
