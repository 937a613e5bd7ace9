"""Where the checkpoints of runs are kept, and how often: a run that was stopped or killed is gone on with from the last one."""

import contextlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulator.checkpoint import Checkpoint
from simulator.errors import InputError, StorageError
from simulator.input_files import read_text
from simulator.settings import Settings
from simulator.tasks.base import Task
from simulator.tasks.registry import task_from_json

MAX_BYTES = 4 << 20
"""Bytes of a checkpoint's file: 5,000 parameters and an optimizer's state take 0.3 MB."""


class Keeper:
    """Stores the last checkpoint it was given, at most once in `seconds` and when it is told to.

    Args:
        store: keeps a checkpoint; what it raises ends the run.
        seconds: shortest time between two of them.
    """

    def __init__(self, store: Callable[[Checkpoint], None], seconds: float) -> None:
        self._store, self._seconds = store, seconds
        self._waiting: Checkpoint | None = None
        self._due = time.monotonic() + seconds

    def __call__(self, checkpoint: Checkpoint) -> None:
        """Take the best point so far."""
        self._waiting = checkpoint
        if time.monotonic() >= self._due:
            self.flush()

    def flush(self) -> None:
        """Store what waits."""
        waiting, self._waiting = self._waiting, None
        self._due = time.monotonic() + self._seconds
        if waiting is not None:
            self._store(waiting)


@dataclass(frozen=True)
class SavedRun:
    """What `vqe run --resume` needs of a run that did not come to its end."""

    task: Task
    name: str
    checkpoint: Checkpoint


class CheckpointFiles:
    """One file a run below `checkpoints/` of the data dir; it is removed when the run is completed."""

    def __init__(self, settings: Settings) -> None:
        self.folder = settings.data_dir / "checkpoints"

    def save(self, run: SavedRun) -> None:
        """Write a run's checkpoint in the place of its last one.

        Raises:
            StorageError: the folder cannot be written.
        """
        path = self._path(run.checkpoint.run_id)
        found = {
            "kind": run.task.kind, "spec": json.loads(run.task.canonical_json()), "name": run.name,
            "checkpoint": run.checkpoint.to_dict(),
        }  # fmt: skip
        part = path.with_suffix(".part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with part.open("w", encoding="utf-8") as file:
                json.dump(found, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except OSError as error:
            raise StorageError(f"checkpoint {path} cannot be written: {error.strerror}") from None

    def load(self, run_id: str) -> SavedRun:
        """The checkpoint of the run whose id is, or begins or ends with, the one given; `last` is the newest.

        Raises:
            InputError: there is none, there are several, or the file is not one.
        """
        known = sorted(p.stem for p in self.folder.glob("*.json")) if self.folder.is_dir() else []
        fitting = (
            known[-1:]
            if run_id == "last"
            else [k for k in known if k == run_id] or [k for k in known if k.startswith(run_id) or k.endswith(run_id)]
        )
        if not run_id or len(fitting) != 1:
            what = "several checkpoints" if run_id and fitting else "no checkpoint"
            there = f"there are {', '.join(known[-5:])}" if known else "a run leaves one when it is stopped or killed"
            raise InputError(f"run {run_id[:80]}: {what} of it in {self.folder} ({there})")
        path = self._path(fitting[0])
        text = read_text(path, f"checkpoint {path}", MAX_BYTES)
        try:
            found: dict[str, Any] = json.loads(text)
            checkpoint = Checkpoint.from_dict(found["checkpoint"])
            kind, spec, name = str(found["kind"]), json.dumps(found["spec"]), str(found["name"])
        except (ValueError, KeyError, TypeError):
            raise InputError(f"checkpoint {path}: not a checkpoint that vqe run wrote") from None
        return SavedRun(task_from_json(kind, spec), name, checkpoint)

    def has(self, run_id: str) -> bool:
        """Whether a run has a checkpoint."""
        return self._path(run_id).is_file()

    def remove(self, run_id: str) -> None:
        """Forget a run."""
        with contextlib.suppress(OSError):
            self._path(run_id).unlink(missing_ok=True)

    def _path(self, run_id: str) -> Path:
        return self.folder / f"{run_id}.json"
