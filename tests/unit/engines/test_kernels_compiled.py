"""What installers and images compile is every kernel that there is."""

import importlib
import pkgutil
from typing import Any

from numba.core.dispatcher import Dispatcher

from simulator import engines
from simulator.engines.kernels import Kernel
from simulator.runs.compile_kernels import compile_kernels


def kernels() -> dict[str, Any]:
    """The engines' kernels by their names, those that only other kernels call left out."""
    found = {
        f"{info.name}.{name}": value
        for info in pkgutil.walk_packages(engines.__path__, engines.__name__ + ".")
        for name, value in vars(importlib.import_module(info.name)).items()
        if isinstance(value, Kernel | Dispatcher)
    }
    plain = [value.plain if isinstance(value, Kernel) else value.py_func for value in found.values()]
    called_by_kernels = {name for function in plain for name in function.__code__.co_names}
    return {name: value for name, value in found.items() if name.rsplit(".", 1)[1] not in called_by_kernels}


def test_every_kernel_is_compiled_by_the_runs_for_it():
    compile_kernels()
    found = kernels()
    assert len(found) >= 8
    compiled = {n: vars(k).get("compiled") if isinstance(k, Kernel) else k for n, k in found.items()}
    assert [name for name, kernel in compiled.items() if kernel is None or not kernel.signatures] == []
