"""Waiting for what another thread, process or service does: the one loop of all tests."""

import time
from collections.abc import Callable
from typing import Any


def eventually(
    look: Callable[[], Any],
    seconds: float = 120.0,
    what: str = "",
    pause: float = 0.02,
    not_yet: type[Exception] | tuple[type[Exception], ...] = (),
) -> Any:
    """What `look` answers as soon as that is true or full.

    Args:
        look: asked again and again.
        seconds: a limit for a test that hangs, far above what a busy machine needs.
        what: what is waited for, as the failure names it.
        pause: seconds between two looks.
        not_yet: exceptions of `look` that count as no answer yet, e.g. of a service that is starting; others are raised.

    Raises:
        AssertionError: it did not come in time; tells the last answer.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            if last := look():
                return last
        except not_yet as error:
            last = error
        if time.monotonic() > end:
            raise AssertionError(f"{what or look} did not come within {seconds:g} s; last: {last!r}")
        time.sleep(pause)
