"""Which kinds of task there are. Another kind is one line here, its folder beside this file, a schema and a table declaration."""

from importlib import import_module

from simulator.errors import InputError
from simulator.tasks.base import Task

_FOUND_IN = {"vqe": ("simulator.tasks.vqe.task", "VqeTask")}
"""The kinds and the classes that they are; a class is loaded when its kind is first asked for."""

_REGISTERED: dict[str, type[Task]] = {}


def register(task: type[Task]) -> type[Task]:
    """Add a kind of task to those of this process; usable as a decorator.

    Raises:
        ValueError: another class has that kind.
    """
    here = (task.__module__, task.__qualname__)
    known = _REGISTERED.get(task.kind)
    taken_by = (known.__module__, known.__qualname__) if known is not None else _FOUND_IN.get(task.kind, here)
    if taken_by != here:
        raise ValueError(f"task kind {task.kind} is taken by {'.'.join(taken_by)}")
    _REGISTERED[task.kind] = task
    return task


def kinds() -> tuple[str, ...]:
    """The kinds that can be asked for."""
    return tuple(dict.fromkeys((*_FOUND_IN, *_REGISTERED)))


def task_class(kind: str) -> type[Task]:
    """The class of a kind.

    Raises:
        InputError: there is no such kind.
    """
    if kind in _REGISTERED:
        return _REGISTERED[kind]
    if kind not in _FOUND_IN:
        raise InputError(f"there is no task of kind {kind!r} (use one of {', '.join(kinds())})")
    module, name = _FOUND_IN[kind]
    found: type[Task] = getattr(import_module(module), name)
    return found


def task_from_json(kind: str, text: str) -> Task:
    """A task from its kind and canonical JSON.

    Raises:
        InputError: there is no such kind, or the text is not a specification of it.
    """
    return task_class(kind).from_json(text)
