"""The Kafka sink: events into the local spool, from where a forwarder delivers them."""

import sys
import time

from simulator.errors import StorageError
from simulator.events.records import Event, to_record
from simulator.events.schemas import current
from simulator.kafka.forwarder import Delivery, Forwarder
from simulator.kafka.rejected import FOLDER, rejected_bytes
from simulator.kafka.spool import SpoolReader, SpoolWriter, spool_bytes
from simulator.settings import Settings
from simulator.sinks.file import QueuedSink

ROLL_BYTES = 16 * 2**20
ROLL_SECONDS = 60.0
_MEASURE_SECONDS = 5.0


class KafkaSink(QueuedSink):
    """Spools every event and delivers it; Kafka or the registry being away never stops or slows a run.

    Args:
        settings: where the spool is, how large it may be, where Kafka and the registry are.

    Raises:
        StorageError: the spool cannot be written.
    """

    flush_seconds = 0.1

    def __init__(self, settings: Settings) -> None:
        self._settings, self._spool = settings, settings.spool_dir
        self._files: dict[str, tuple[SpoolWriter, SpoolReader, float]] = {}
        self._next_measure = 0.0
        try:
            self._spool.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"spool {self._spool} cannot be written: {error.strerror}") from None
        # Loaded here, not by the forwarder: half a second of imports would be taken from the optimizer's loop.
        import confluent_kafka.schema_registry  # noqa: F401

        self.forwarder = Forwarder(self._spool, settings)
        super().__init__(self._spool)

    @property
    def delivery(self) -> Delivery:
        """What was delivered so far."""
        return self.forwarder.delivery

    def deliver(self, seconds: float) -> bool:
        """Wait until Kafka has acknowledged everything emitted so far; False when it has not within `seconds`."""
        self.flush()
        return self.forwarder.drain(seconds)

    def close(self) -> None:
        """Spool what was emitted, wait at most `delivery_seconds` for Kafka, and say what stays behind."""
        if self.closed:
            return
        try:
            super().close()
            self._deliver_rest()
        finally:
            self.forwarder.close()

    def _deliver_rest(self) -> None:
        away = self.delivery.away_since
        patience = 0.2 if away is not None and time.monotonic() - away > 1 else self._settings.delivery_seconds
        if not self.forwarder.drain(patience):
            kept, why = self.forwarder.pending_bytes, "; ".join(self.forwarder.reasons)
            print(
                f"vqe: {kept:,} bytes of events stay in {self._spool}{f' ({why})' if why else ''}; vqe replay delivers them",
                file=sys.stderr,
            )
        if rejected := self.delivery.rejected:
            print(
                f"vqe: {rejected:,} events were refused for good and are set aside in {self._spool / FOLDER}; "
                f"vqe replay --rejected offers them again",
                file=sys.stderr,
            )

    def _write(self, event: Event) -> None:
        stream = event.stream
        entry = self._files.get(stream)
        if entry is not None and (entry[0].size > ROLL_BYTES or time.monotonic() - entry[2] > ROLL_SECONDS):
            self._complete(stream)
            entry = None
        if entry is None:
            self._check_room()
            writer = SpoolWriter(self._spool, current(stream))
            reader = SpoolReader(writer.path)
            entry = self._files[stream] = (writer, reader, time.monotonic())
            self.forwarder.follow(reader)
        elif time.monotonic() >= self._next_measure:
            self._check_room()
        entry[0].write(to_record(event))
        if event.ends_run:
            self._flush_all()
            entry[0].flush(sync=True)

    def _check_room(self) -> None:
        self._next_measure = time.monotonic() + _MEASURE_SECONDS
        waiting, aside = spool_bytes(self._spool), rejected_bytes(self._spool)
        size, limit = waiting + aside, self._settings.spool_max_bytes
        if size > limit:
            told = f", {aside:,} of them refused for good (vqe replay --rejected)" if aside else ""
            raise OSError(
                0,
                f"the spool is full: {size:,} of {limit:,} bytes wait for Kafka{told} "
                f"(deliver them with vqe replay, or raise VQE_SPOOL_MAX_BYTES)",
            )

    def _flush_all(self) -> None:
        for writer, _, _ in self._files.values():
            writer.flush()

    def _complete(self, stream: str) -> None:
        writer, reader, _ = self._files.pop(stream)
        reader.take_lock(writer.finish())

    def _complete_all(self) -> None:
        for stream in list(self._files):
            self._complete(stream)

    def _release_all(self) -> None:
        for writer, _, _ in self._files.values():
            writer.release()
        self._files.clear()
