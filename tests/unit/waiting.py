"""Waiting for what another thread or process does."""

import time
from collections.abc import Callable
from typing import Any


def eventually(look: Callable[[], Any], seconds: float = 120.0, pause: float = 0.02) -> Any:
    """What `look` answers as soon as that is true or full.

    Raises:
        AssertionError: it was not within so many seconds: a limit for a test that hangs, far above what a busy machine needs.
    """
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, f"it did not come within {seconds:g} s"
        time.sleep(pause)
    return found
