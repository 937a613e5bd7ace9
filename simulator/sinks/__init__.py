"""Where events go. Every sink takes events without making the optimizer wait."""

from typing import Protocol

from simulator.events.records import Event


class Sink(Protocol):
    """Takes events in the order they happen and keeps them."""

    def emit(self, event: Event) -> None:
        """Queue an event; never waits for a disk or a network.

        Raises:
            StorageError: an earlier event could not be kept.
        """

    def flush(self) -> None:
        """Wait until all that was emitted is on disk.

        Raises:
            StorageError: it could not be.
        """

    def deliver(self, seconds: float) -> bool:
        """Wait, at most so many seconds, until every emitted event is at its destination; False where it is not.

        Raises:
            StorageError: it could not be kept.
        """

    def close(self) -> None:
        """Flush and finish; emitted events are complete files then. Closing twice is allowed."""
