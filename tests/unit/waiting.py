"""Waiting for what another thread or process does."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def signalled(number: int, when: Callable[[], Any]) -> Iterator[None]:
    """Sends this process a signal once `when` is true, as a terminal or a service manager does to a command that runs here.

    Raises:
        AssertionError: no handler of the command took it.
    """
    unhandled, over = [], threading.Event()
    before = signal.signal(number, lambda *_: unhandled.append(number))

    def send() -> None:
        eventually(lambda: over.is_set() or when())
        if not over.is_set():
            os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        over.set()
        sender.join()
        signal.signal(number, before)
    assert not unhandled, f"signal {number} was not handled"
