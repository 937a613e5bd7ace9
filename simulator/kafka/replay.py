"""Delivering what dead processes left in the spool."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from simulator.errors import StorageError
from simulator.kafka.rejected import FOLDER, offer_again, set_aside
from simulator.kafka.spool import spool_bytes
from simulator.settings import Settings

if TYPE_CHECKING:
    from simulator.kafka.forwarder import Delivery


@dataclass(frozen=True)
class Replayed:
    """What a replay did."""

    delivery: "Delivery"
    left_bytes: int  # in files that could not be delivered, or that a living process holds
    set_aside: int  # records that were refused for good and are kept


def replay(settings: Settings, *, seconds: float, rejected: bool = False) -> Replayed:
    """Deliver every spool file that no living process holds, waiting at most `seconds` for progress to end.

    Args:
        settings: where the spool is, where Kafka and the registry are.
        seconds: longest wait.
        rejected: offer what was refused for good again, too.

    Raises:
        StorageError: what was set aside cannot be moved.
    """
    from simulator.kafka.forwarder import Delivery, Forwarder

    spool = settings.spool_dir
    if rejected:
        try:
            offer_again(spool)
        except OSError as error:
            raise StorageError(f"{spool / FOLDER} cannot be emptied: {error.strerror}") from None
    if not spool_bytes(spool):
        return Replayed(Delivery(), 0, set_aside(spool).total())
    forwarder = Forwarder(spool, settings)
    try:
        forwarder.drain(seconds)
    finally:
        forwarder.close()
    return Replayed(forwarder.delivery, spool_bytes(spool), set_aside(spool).total())
