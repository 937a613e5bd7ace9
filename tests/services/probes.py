"""What tests use beside the fixtures: waiting, and the product's connector set-up."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable

from .artifacts import CHECKOUT

BUCKET = "local-vqe-results"


def _load_setup_connector():
    path = CHECKOUT / "connect" / "setup_connector.py"
    spec = importlib.util.spec_from_file_location("setup_connector", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


setup_connector = _load_setup_connector()


def eventually(check: Callable[[], object], seconds: float, what: str = "", pause: float = 0.3):
    """What ``check`` returns as soon as that is true. Fails after ``seconds``; exceptions of ``check`` count as not yet."""
    end = time.monotonic() + seconds
    last: object = None
    while True:
        try:
            last = check()
            if last:
                return last
        except Exception as error:
            last = error
        if time.monotonic() > end:
            raise AssertionError(f"{what or check} not within {seconds} s; last: {last!r}")
        time.sleep(pause)
