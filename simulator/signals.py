"""Being asked to stop: Ctrl-C, SIGTERM (service managers, `docker stop`) and SIGHUP (the terminal is gone) mean the same."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def on_stop(handler: Callable[[], None]) -> Iterator[None]:
    """Call `handler` for each signal that asks this process to stop, until the block ends.

    Python delivers signals to the main thread only, so in another thread this changes nothing. A SIGHUP that the
    process was started to ignore stays ignored: `nohup vqe run ...` outlives its terminal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def called(_number: int, _frame: object) -> None:
        handler()

    taken = [n for n in STOP_SIGNALS if not (n == signal.SIGHUP and signal.getsignal(n) == signal.SIG_IGN)]
    previous = {number: signal.signal(number, called) for number in taken}
    try:
        yield
    finally:
        for number, before in previous.items():
            # None stands for a handler that was not set from Python, which cannot be put back from here
            signal.signal(number, signal.SIG_DFL if before is None else before)


def raise_interrupt() -> None:
    """The handler of code that may be left anywhere: what has been written so far is whole without its end."""
    raise KeyboardInterrupt
