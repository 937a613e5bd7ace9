"""Another kind of task is one file: a specification, what is done, a schema and a table. Session, child, sink and tables do not change."""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from built_tables import rows_of

from simulator.errors import InputError
from simulator.events import schemas
from simulator.events.records import Event, now_micros
from simulator.observability.metrics import LastSeen, exposed, run_families
from simulator.queue import JobQueue, NewJob
from simulator.runs import child
from simulator.runs.pool import Pool, PoolLimits
from simulator.runs.session import Session
from simulator.settings import Settings
from simulator.sinks.file import FileSink
from simulator.tasks import registry
from simulator.tasks.base import Ended, TaskRun
from spark_jobs.arrow import batch
from spark_jobs.tables import DATA_TABLES, ISSUES, PROCESSING_METADATA, Column, Source, Table

DICE_RESULT = {
    "type": "record", "name": "dice_result", "namespace": "vqe", "version": "1.0", "doc": "Dice that were thrown.",
    "fields": [
        {"name": "run_id", "type": "string", "doc": "The run."},
        {"name": "spec_id", "type": "string", "doc": "The specification."},
        {"name": "recorded_at", "type": {"type": "long", "logicalType": "timestamp-micros"}, "doc": "When."},
        {"name": "status", "type": "string", "doc": "How it ended."},
        {"name": "eyes", "type": ["null", "int"], "doc": "Sum of the eyes.", "default": None},
        {"name": "seconds", "type": "double", "doc": "How long it took, in seconds."},
    ],
}  # fmt: skip
DICE_TABLE = Table(
    name="dice_results", doc="A throw of dice.", key=("run_id",),
    columns=(
        Column("run_id", "string"), Column("spec_id", "string"), Column("recorded_at", "timestamptz"), Column("status", "string"),
        Column("eyes", "int"), Column("seconds", "double"),
    ),
    sources=(Source("dice_result"),), partition="recorded_at", partition_reason="as results are", sort=("run_id",),
)  # fmt: skip


@dataclass(frozen=True)
class DiceBegan(Event):
    stream: ClassVar[str] = "dice_begin"
    begins_run: ClassVar[bool] = True
    run_id: str
    recorded_at: int

    def metric_labels(self) -> dict[str, str]:
        return {"kind": "dice"}


@dataclass(frozen=True)
class DiceResult(Event):
    stream: ClassVar[str] = "dice_result"
    ends_run: ClassVar[bool] = True
    run_id: str
    spec_id: str
    recorded_at: int
    status: str
    eyes: int | None
    seconds: float


@dataclass(frozen=True)
class Dice:
    """A number of dice, thrown with a seed. There is no molecule in sight."""

    number: int
    seed: int
    kind: ClassVar[str] = "dice"
    result_stream: ClassVar[str] = "dice_result"
    keeps_in: ClassVar[frozenset[str]] = frozenset()
    device: ClassVar[str] = "cpu"

    @classmethod
    def from_json(cls, text: str) -> "Dice":
        return cls(**json.loads(text))

    def canonical_json(self) -> str:
        return json.dumps({"number": self.number, "seed": self.seed}, separators=(",", ":"))

    @property
    def spec_id(self) -> str:
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()

    @property
    def title(self) -> str:
        return f"{self.number} dice"

    def check_size(self) -> None:
        if self.number > 10:
            raise InputError(f"{self.number} dice are more than a hand holds (10)")

    def execution(self, run: TaskRun) -> "Thrown":
        return Thrown(self, run)

    @staticmethod
    def summary(result: DiceResult) -> dict[str, Any]:
        return {
            "run_id": result.run_id,
            "spec_id": result.spec_id,
            "status": result.status,
            "error": None,
            "eyes": result.eyes,
        }

    @staticmethod
    def exit_code(result: DiceResult) -> int:
        return 0 if result.status == "completed" else 1


class Thrown:
    def __init__(self, dice: Dice, run: TaskRun) -> None:
        self.dice, self.run = dice, run
        self.eyes: int | None = None

    def began(self) -> Event:
        return DiceBegan(self.run.run_id, now_micros())

    def execute(self) -> bool:
        import random

        with self.run.stages("throwing"):
            rng = random.Random(self.dice.seed)
            self.eyes = sum(rng.randint(1, 6) for _ in range(self.dice.number))
        return True

    def ended(self, how: Ended) -> Event:
        return DiceResult(self.run.run_id, self.dice.spec_id, now_micros(), how.status, self.eyes, how.seconds)


@pytest.fixture
def dice(monkeypatch):
    """The kind, known to this process until the test ends."""
    monkeypatch.setattr(registry, "_REGISTERED", {})
    monkeypatch.setattr(schemas, "_registered", [])
    registry.register(Dice)
    begin = {**DICE_RESULT, "name": "dice_begin", "fields": DICE_RESULT["fields"][:1] + DICE_RESULT["fields"][2:3]}
    schemas.register(DICE_RESULT)
    schemas.register(begin)
    yield
    schemas.released.cache_clear()


TABLES = (*DATA_TABLES, DICE_TABLE, ISSUES, PROCESSING_METADATA)


def test_another_kind_goes_through_session_sink_and_tables(dice, tmp_path):
    settings = Settings(data_dir=tmp_path)
    sink = FileSink(settings.raw_dir)
    result = Session(sink, settings).execute(Dice(3, seed=1), "three dice")
    sink.close()
    assert (result.status, 3 <= result.eyes <= 18) == ("completed", True)
    batch.build(tmp_path, tables=TABLES, now=datetime.now(UTC) + timedelta(hours=1))
    (row,) = rows_of(tmp_path, "dice_results", TABLES)
    assert (row["run_id"], row["eyes"], row["status"]) == (result.run_id, result.eyes, "completed")
    assert len(rows_of(tmp_path, "system_metrics", TABLES)) >= 1, "the monitor samples every kind"


def test_what_does_not_fit_is_refused_and_its_result_says_failed(dice, tmp_path):
    settings = Settings(data_dir=tmp_path)
    events: list[Event] = []

    class Kept:
        emit = staticmethod(events.append)

    with pytest.raises(InputError, match="more than a hand holds"):
        Session(Kept(), settings).execute(Dice(11, seed=1), "too many")
    assert events[-1].status == "failed"


def test_another_kind_is_a_job_like_any_other(dice, tmp_path, monkeypatch):
    """The pool's child is a fresh process that does not know this test's kind; so the job is answered here by the child's own code."""
    settings = Settings(data_dir=tmp_path)
    task = Dice(2, seed=5)

    class InThisProcess:
        def __init__(self, settings, *, threads=1):
            self._sink = FileSink(settings.raw_dir)
            self._session = Session(self._sink, settings)
            self.run_id, self.checkpoint, self._answer = None, None, None
            self.delivery: dict[str, int] = {}

        def submit(self, job):
            class Pipe:
                send = staticmethod(lambda told: setattr(self, "run_id", told.run_id))

            self._answer = child._run_job(self._session, job, Pipe())

        def answer(self):
            return self._answer

        def interrupt(self): ...

        def close(self, seconds):
            self._sink.close()

    monkeypatch.setattr("simulator.runs.pool.Child", InThisProcess)
    monkeypatch.setattr(Pool, "_wait", lambda self, busy: busy)
    with JobQueue.open(settings) as queue:
        (job_id,) = queue.submit([NewJob("dice", task.spec_id, task.canonical_json(), "two dice")]).job_ids
        counts = Pool(settings, queue).run(PoolLimits(idle_seconds=0))
        job = queue.job(job_id)
    assert (counts.done, job.state, job.summary["status"]) == (1, "completed", "completed")
    assert job.run_id == job.summary["run_id"]


def test_metrics_of_another_kind_have_its_own_labels(dice):
    seen = LastSeen()
    seen.take(DiceBegan("a-run", now_micros()))
    assert b'vqe_run_started_timestamp_seconds{kind="dice"}' in exposed(run_families(seen))


def test_a_kind_is_taken_once(dice):
    registry.register(Dice)
    with pytest.raises(ValueError, match="task kind vqe is taken"):
        registry.register(type("Impostor", (Dice,), {"kind": "vqe"}))
    assert registry.task_class("vqe").__name__ == "VqeTask"
    assert registry.kinds() == ("vqe", "dice")
    with pytest.raises(InputError, match="there is no task of kind 'sorcery' \\(use one of vqe, dice\\)"):
        registry.task_class("sorcery")
