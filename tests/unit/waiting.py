"""Waiting for what another thread or process does, and signals that come meanwhile."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.waiting import eventually as eventually


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
