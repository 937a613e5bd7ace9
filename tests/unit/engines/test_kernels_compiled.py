"""What installers and images compile is every kernel that there is."""

import importlib
import pkgutil
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

from numba.core.dispatcher import Dispatcher

from simulator import engines
from simulator.engines.kernels import Kernel
from simulator.runs.compile_kernels import compile_kernels


def names_in(code: CodeType) -> Iterator[str]:
    """The globals that a function and those inside it name."""
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from names_in(inner)


def kernels() -> dict[str, Any]:
    """The engines' kernels by their names; those that only other kernels call are left out."""
    found, called = {}, set()
    for info in pkgutil.walk_packages(engines.__path__, engines.__name__ + "."):
        module = importlib.import_module(info.name)
        found |= {n: v for n, v in vars(module).items() if isinstance(v, Kernel | Dispatcher)}
        for value in vars(module).values():
            for function in vars(value).values() if isinstance(value, type) else [value]:
                if isinstance(function, FunctionType) and function.__module__ == info.name:
                    called |= set(names_in(function.__code__))
    return {name: kernel for name, kernel in found.items() if name in called or isinstance(kernel, Kernel)}


def test_every_kernel_is_compiled_by_the_runs_for_it():
    compile_kernels()
    found = kernels()
    assert {"run_program", "transpose", "dot", "join", "rotate"} <= found.keys()
    compiled = {n: vars(k).get("compiled") if isinstance(k, Kernel) else k for n, k in found.items()}
    assert [name for name, kernel in compiled.items() if kernel is None or not kernel.signatures] == []
