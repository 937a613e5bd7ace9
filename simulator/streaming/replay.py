"""Delivering what dead processes left in the spool."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from simulator.settings import Settings
from simulator.sinks.spool import spool_bytes

if TYPE_CHECKING:
    from simulator.streaming.forwarder import Delivery


@dataclass(frozen=True)
class Replayed:
    """What a replay did."""

    delivery: "Delivery"
    left_bytes: int  # in files that could not be delivered, or that a living process holds


def replay(settings: Settings, *, seconds: float) -> Replayed:
    """Deliver every spool file that no living process holds, waiting at most `seconds` for progress to end."""
    from simulator.streaming.forwarder import Delivery, Forwarder

    spool = settings.spool_dir
    if not spool_bytes(spool):
        return Replayed(Delivery(), 0)
    forwarder = Forwarder(spool, settings)
    try:
        forwarder.drain(seconds)
    finally:
        forwarder.close()
    return Replayed(forwarder.delivery, spool_bytes(spool))
