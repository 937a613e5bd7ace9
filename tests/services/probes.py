"""What tests use beside the fixtures: waiting, and the product's connector set-up."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

from tests import waiting

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
    """What ``check`` returns as soon as that is true; its exceptions count as not yet, for a service that starts answers with any."""
    return waiting.eventually(check, seconds, what, pause, not_yet=Exception)
