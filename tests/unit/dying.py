"""Processes that are gone in the middle of their work, as by kill -9."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest


class Killed(BaseException):
    """The process is gone."""


@contextmanager
def killed_when(what: str, owner: ModuleType, hook: str) -> Iterator[None]:
    """The block dies, in this process, where it tells a hook of the step `what`; after it the hook is as it was.

    Raises:
        AssertionError: the block ended otherwise.
    """

    def die(step: str) -> None:
        if step == what:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, hook, die)
        with pytest.raises(Killed):
            yield


def die_at(step: int, hook: str, work: Callable[..., Any], *arguments: Any, **named: Any) -> None:
    """Does `work` in a process of its own that is gone at a step, counted from 1 by the calls of `hook`.

    Args:
        step: which call of the hook is the last.
        hook: where the work calls it, e.g. `spark_jobs.warehouse.on_commit`.
        work: a function of a module; its arguments must be picklable.

    Raises:
        AssertionError: the work ended otherwise.
    """
    # A process that has imported what a build needs, and has no thread, forks one for each death
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["raw_events", "spark_jobs.relocate", "spark_jobs.arrow.batch", "pyiceberg.io.pyarrow", "pyiceberg.catalog.sql"]
    )
    process = context.Process(target=_work, args=(step, hook, work, arguments, named))
    process.start()
    process.join(timeout=240)
    assert process.exitcode == 9


def _work(step: int, hook: str, work: Callable[..., Any], arguments: Any, named: Any) -> None:
    done = 0

    def count(_what: str) -> None:
        nonlocal done
        done += 1
        if done == step:
            os._exit(9)

    module, name = hook.rsplit(".", 1)
    setattr(import_module(module), name, count)
    work(*arguments, **named)
