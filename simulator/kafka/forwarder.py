"""The forwarder: delivers spooled events to Kafka in order, and removes what is acknowledged.

It reads what is on disk, never the optimizer's memory, so that a live run, `vqe replay` and a restarting worker go the
same way. Each topic has a lane: a chunk of its oldest file is sent, all of it acknowledged, and only then noted; a crash in
between sends the chunk again, and the tables drop what they have by key. Lanes do not wait for each other. What is refused
for good is set aside with the reason, and its lane goes on behind it.
"""

import contextlib
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.errors import one_line
from simulator.kafka.clients import make_producer
from simulator.kafka.lane import MAX_RECORDS, Attempt, BrokenFile, Lane, Run, Sent
from simulator.kafka.refusals import Verdict, verdict
from simulator.kafka.registry import frame, lookup_id
from simulator.kafka.rejected import RejectedEvents
from simulator.kafka.spool import CHUNK_BYTES, SpooledRecord, SpoolReader, files
from simulator.log import get_logger
from simulator.settings import Settings

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Producer

POLL_SECONDS = 0.1
ORPHAN_SECONDS = 30.0
RETRY_SECONDS = 2.0
SUSPECT_SECONDS = 5.0
"""Seconds without an acknowledgement of what was sent after which Kafka counts as away, even if the client reports no error."""
OPEN_FILES = 24
"""How many files of dead processes are open at a time, over all topics; each takes three descriptors."""
UNKNOWN_SECONDS = 30.0
"""Seconds before the registry is asked again for a schema that it did not know."""
UNKNOWN_SCHEMA = "the registry does not know the schema of {} (vqe schemas register)"


@dataclass
class Delivery:
    """What the forwarder has done so far."""

    delivered: int = 0
    delivered_bytes: int = 0
    failed: int = 0  # deliveries that were tried again
    rejected: int = 0  # records that were set aside, and damaged files that were kept
    away_since: float | None = None  # monotonic seconds; None: Kafka takes events


class Forwarder:
    """Delivers the files it is given and those that dead processes left, until it is closed.

    Args:
        spool: the spool's folder.
        settings: connection settings.
    """

    def __init__(self, spool: Path, settings: Settings) -> None:
        self.spool, self.delivery = spool, Delivery()
        self._settings = settings
        self._lanes: dict[str, Lane] = {}
        self._new: list[SpoolReader] = []
        self._lock = threading.Lock()
        self._closing, self._away_told, self._idle = threading.Event(), False, threading.Event()
        self._wake = threading.Event()
        self._ids: dict[tuple[str, str], bytes] = {}
        self._unknown: dict[
            tuple[str, str], tuple[float, str]
        ] = {}  # (topic, schema) -> (when to ask the registry again in monotonic seconds, why)
        self._registry_at = 0.0  # monotonic seconds; the registry is not asked before
        self._next_orphans = 0.0
        self._heard = time.monotonic()  # when Kafka last accepted something
        self._lost_producers = 0  # how many in a row, without a delivery in between
        self._rejected, self._told = RejectedEvents(spool), set[tuple[str, str]]()
        self._producer: Producer | None = None
        self._thread = threading.Thread(target=self._work, name="forwarder", daemon=True)
        self._thread.start()

    def follow(self, reader: SpoolReader) -> None:
        """Deliver a file of this process, also while it grows."""
        with self._lock:
            self._new.append(reader)
        self._wake.set()

    def drain(self, seconds: float) -> bool:
        """Wait until everything that was flushed is acknowledged or set aside; False when it is not."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._idle.clear()
            self._wake.set()
            if self._idle.wait(min(0.2, max(0.0, deadline - time.monotonic()))):
                if not self.pending_bytes:
                    return True
                time.sleep(0.05)  # asking again at once would keep a core busy
            if not self._thread.is_alive():
                break
        return not self.pending_bytes

    @property
    def pending_bytes(self) -> int:
        """Bytes on disk that Kafka has not acknowledged, of the files in hand."""
        with self._lock:
            new, lanes = list(self._new), list(self._lanes.values())
        total = sum(lane.pending_bytes for lane in lanes)
        for reader in new:
            with contextlib.suppress(OSError, ValueError):
                total += reader.pending_bytes
        return total

    @property
    def reasons(self) -> list[str]:
        """Why topics wait, for those that wait for more than Kafka's being away."""
        with self._lock:
            lanes = list(self._lanes.values())
        return [f"{lane.topic}: {lane.reason}" for lane in lanes if lane.reason]

    def close(self) -> None:
        """Stop; what is not delivered stays in the spool, and the next process finds it."""
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout=10)
        for reader in self._new:
            reader.close()
        for lane in self._lanes.values():
            lane.close()
        self._lanes, self._new = {}, []

    def _work(self) -> None:
        while not self._closing.is_set():
            try:
                busy = self._round()
            except Exception as error:  # delivery must outlive whatever the network does; the spool keeps the events
                self._recover(error)
                busy = False
            if not busy:
                self._idle.set()
                waited = RETRY_SECONDS if self.delivery.away_since is not None else POLL_SECONDS
                self._wake.wait(waited)
                self._wake.clear()
        self._drop_producer()

    def _recover(self, error: Exception) -> None:
        """After a round that failed: a producer that cannot go on is replaced, and every lane tries again."""
        from confluent_kafka import KafkaError, KafkaException

        reported = error.args[0] if isinstance(error, KafkaException) and error.args else None
        if isinstance(reported, KafkaError) and verdict(reported) is Verdict.PRODUCER:
            self._replace_producer(reported)
            return
        get_logger().debug("delivery round failed", exc_info=True)
        self._away(f"{type(error).__name__}: {one_line(error)}")
        time.sleep(0.05)  # a round that fails at once, woken again and again, leaves the processor to the run

    def _round(self) -> bool:
        """Hand to the producer what is due and take its outcomes. Returns whether anything is under way."""
        self._admit()
        busy = False
        for lane in self._lanes.values():
            if lane.attempt is None and time.monotonic() >= lane.retry_at:
                busy = self._begun(lane) or busy
        under_way = [lane for lane in self._lanes.values() if lane.attempt is not None]
        if not under_way:
            return busy
        assert self._producer is not None
        self._producer.poll(POLL_SECONDS / 2 if all(lane.attempt.left for lane in under_way if lane.attempt) else 0)
        for lane in under_way:
            if lane.attempt is not None and not lane.attempt.left:
                self._finish(lane, lane.attempt)
        waiting = [lane.attempt.began for lane in under_way if lane.attempt is not None]
        if waiting and time.monotonic() - max(self._heard, min(waiting)) > SUSPECT_SECONDS:
            self._away("no acknowledgement")
        return True

    def _admit(self) -> None:
        """Give new files to their lanes, and look for what dead processes left."""
        with self._lock:
            new, self._new = self._new, []
            for reader in new:
                self._lane(reader.topic).add_own(reader)
        if time.monotonic() >= self._next_orphans:
            self._next_orphans = time.monotonic() + ORPHAN_SECONDS
            found: dict[str, list[Path]] = {}
            for path in files(self.spool):
                found.setdefault(path.parent.name, []).append(path)
            with self._lock:
                for topic, paths in found.items():
                    self._lane(topic).add_found(paths)
        for lane in self._lanes.values():
            lane.park()

    def _lane(self, topic: str) -> Lane:
        return self._lanes.setdefault(topic, Lane(topic))

    def _begun(self, lane: Lane) -> bool:
        """Call `_begin` so that trouble with one topic's files does not stop other topics."""
        from confluent_kafka import KafkaException

        try:
            return self._begin(lane)
        except KafkaException:
            raise
        except Exception as error:
            get_logger().debug("topic put off", topic=lane.topic, exc_info=True)
            lane.wait(one_line(error))
            return False

    def _begin(self, lane: Lane) -> bool:
        """Begin an attempt, or finish a file that has nothing left. Returns whether there was anything to do."""
        try:
            readers = lane.readers(max(1, OPEN_FILES // len(self._lanes)))
        except BrokenFile as broken:
            self._keep_broken(broken)
            return True
        sent: list[Sent] = []
        size, did = 0, False
        for reader in readers:
            complete = reader.complete  # asked before what is left in it: its writer may complete it between the two
            if sent and not self._knows(reader):
                break
            try:
                records = lane.next_records(reader, len(sent))
            except OSError as error:
                lane.put_off(reader, one_line(error))
                break
            if not records:
                if complete and len(sent) < lane.limit:
                    did = self._end(lane, reader) or did
                    continue
                break
            header = self._frame(lane, reader, records)
            if header is None:
                return lane.retry_at <= time.monotonic()
            sent += [Sent(reader, record, header) for record in records]
            size += sum(len(record.payload) for record in records)
            if reader.pending_bytes > records[-1].end - reader.acknowledged or size > CHUNK_BYTES:
                break  # order: the next file comes only after the rest of this one
        if not sent:
            return did
        lane.attempt = Attempt(sent)
        self._send(lane.topic, lane.attempt)
        return True

    def _send(self, topic: str, attempt: Attempt) -> None:
        """Hand an attempt's records to the producer, as many as it can take."""
        from confluent_kafka import KafkaException

        producer = self._producer = self._producer or make_producer(self._settings, error_cb=self._on_error)
        for _, record, header in attempt.records:
            try:
                producer.produce(topic, header + record.payload, record.key, on_delivery=attempt.add())
            except BufferError:  # the producer's queue is full: send these first, the others in the next attempt
                attempt.take_back()
                return
            except KafkaException as error:
                attempt.take_back()
                found = verdict(error.args[0])
                if found is Verdict.PRODUCER:
                    raise
                attempt.refuse(error.args[0])
                if found is not Verdict.RECORD:
                    return

    def _finish(self, lane: Lane, attempt: Attempt) -> None:
        """End an attempt: note what Kafka has, set aside what it refuses for good, and retry or wait for the rest."""
        lane.attempt = None
        failure = self._note(lane, attempt)
        if failure is not None:
            self._try_again(lane, failure, len(attempt.outcomes))
            return
        lane.limit = min(2 * lane.limit, MAX_RECORDS)
        if not attempt.outcomes:  # the producer's queue is full of other topics' records
            lane.retry_at = time.monotonic() + POLL_SECONDS

    def _note(self, lane: Lane, attempt: Attempt) -> "KafkaError | None":
        """Acknowledge what Kafka has and set aside what it refuses for good. Returns the error of the first record that is left."""
        runs = list(attempt.runs())
        taken = [record for run in runs if run.error is None for record in run.records]
        if taken:
            self.delivery.delivered += len(taken)
            self.delivery.delivered_bytes += sum(len(record.payload) for record in taken)
            self._back(lane)
        failure: KafkaError | None = None
        for run in runs:
            if run.error is None and failure is None:
                run.reader.acknowledge(run.records[-1].end)
            elif run.error is None:  # Kafka has it, but an earlier record is left: remembered, and not acknowledged yet
                run.reader.ahead.update(record.end for record in run.records)
            elif failure is not None or not self._set_aside_if_for_good(lane, run):
                failure = failure or run.error
                self.delivery.failed += len(run.records)
        return failure

    def _set_aside_if_for_good(self, lane: Lane, run: Run) -> bool:
        """Set refused records aside. Returns whether they no longer block the file: a record that was refused together with others is first
        tried alone."""
        match verdict(run.error):
            case Verdict.RECORD:
                for_good = run.alone
            case Verdict.DOUBTFUL:
                for_good = run.alone and not lane.patient()
            case Verdict.TOPIC:
                for_good = not lane.patient()
            case _:
                for_good = False
        return for_good and self._set_aside(lane, run.reader, run.records, run.error.str(), run.error.name())

    def _try_again(self, lane: Lane, error: "KafkaError", sent: int) -> None:
        """Decide when and how the records that an attempt did not deliver are sent again."""
        found = verdict(error)
        if found is Verdict.PRODUCER:
            self._replace_producer(error)
        elif found is Verdict.RECORD and sent > 1:
            lane.limit = 1
        elif found is Verdict.WAIT:
            lane.wait(None)
            self._away(error.str())
        else:
            lane.limit = 1 if found is Verdict.DOUBTFUL else lane.limit
            lane.wait(error.str())

    def _end(self, lane: Lane, reader: SpoolReader) -> bool:
        """Finish a complete file that has no further whole record, or step over its damage. Returns whether its lane has more to do."""
        left = reader.pending_bytes
        if left and reader.skip_damage():
            return True
        if left:  # its writer died in the middle of a record
            get_logger().warning("spool file ended in the middle of a record", file=str(reader.path), bytes=left)
        lane.finished(reader)
        if reader.damaged:
            self.delivery.rejected += 1
            _tell(
                f"{reader.path} is damaged: its whole records are delivered, the file is kept in {self._rejected.folder}"
            )
        reader.remove(self._rejected.folder)
        return True

    def _keep_broken(self, broken: BrokenFile) -> None:
        """Move a file whose records cannot be read to the folder where an operator looks for it."""
        self._rejected.folder.mkdir(parents=True, exist_ok=True)
        broken.path.rename(self._rejected.folder / f"{broken.path.parent.name}+{broken.path.name}")
        broken.path.with_suffix(".ack").unlink(missing_ok=True)
        self.delivery.rejected += 1
        _tell(f"{broken.path} cannot be read ({broken.reason}): it is kept in {self._rejected.folder}")

    def _knows(self, reader: SpoolReader) -> bool:
        """Whether the id of the file's schema is known, so that `_frame` need not ask the registry."""
        return (reader.topic, reader.schema_json) in self._ids

    def _frame(self, lane: Lane, reader: SpoolReader, records: list[SpooledRecord]) -> bytes | None:
        """The wire-format header of the file's schema; None where the registry does not give the id; the records then wait or were set aside."""
        key = (reader.topic, reader.schema_json)
        if key in self._ids:
            return self._ids[key]
        until, reason = self._unknown.get(key, (0.0, ""))
        if time.monotonic() >= until:
            if time.monotonic() < self._registry_at:
                lane.retry_at = self._registry_at
                return None
            try:
                found, told = lookup_id(self._settings, *key), UNKNOWN_SCHEMA.format(reader.topic)
            except Exception as error:
                if not _refused(error):
                    self._registry_at = time.monotonic() + RETRY_SECONDS
                    lane.wait(None)
                    self._away(f"registry {self._settings.registry_url}: {one_line(error)}")
                    return None
                found, told = None, f"the registry refuses the schema of {reader.topic}: {one_line(error)}"
            if found is not None:
                self._unknown.pop(key, None)
                self._ids[key] = frame(found)
                return self._ids[key]
            if not reason and lane.patient():
                lane.wait(told)
                return None
            reason = told
            self._unknown[key] = (time.monotonic() + UNKNOWN_SECONDS, reason)
        self._set_aside(lane, reader, records, reason, "schema")
        return None

    def _set_aside(self, lane: Lane, reader: SpoolReader, records: list[SpooledRecord], reason: str, kind: str) -> bool:
        """Keep records that were refused for good where an operator finds them; False where the disk does not take them."""
        try:
            self._rejected.keep(reader.topic, reader.schema_json, records, reason)
        except OSError as error:
            lane.wait(f"{self._rejected.folder} cannot be written: {error.strerror}")
            return False
        reader.acknowledge(records[-1].end)
        self.delivery.rejected += len(records)
        lane.reason, lane.retry_at = None, 0.0
        if (lane.topic, kind) not in self._told:
            self._told.add((lane.topic, kind))
            _tell(
                f"a record of {lane.topic} is refused for good ({reason}); it is kept in {self._rejected.folder}, as will be "
                f"others that are refused so (vqe replay --rejected offers them again)"
            )
        return True

    def _replace_producer(self, error: "KafkaError") -> None:
        """A producer after a fatal error delivers nothing any more: what it had under way is sent again by a new one."""
        get_logger().info("producer replaced", reason=error.str())
        self._drop_producer()
        for lane in self._lanes.values():
            if lane.attempt is not None:
                attempt, lane.attempt = lane.attempt, None
                attempt.give_up(error)
                self._note(lane, attempt)
        self._lost_producers += 1
        if self._lost_producers > 2:  # the producer is not the cause
            self._away(error.str())
            for lane in self._lanes.values():
                lane.wait(None)

    def _drop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            with contextlib.suppress(Exception):
                producer.purge()
                producer.flush(0.2)

    def _on_error(self, error: Any) -> None:
        from confluent_kafka import KafkaError

        if error.code() in (KafkaError._ALL_BROKERS_DOWN, KafkaError._AUTHENTICATION, KafkaError._SSL):
            self._away(error.str())

    def _away(self, reason: str) -> None:
        delivery = self.delivery
        if delivery.away_since is None:
            delivery.away_since = time.monotonic()
        if not self._away_told:
            self._away_told = True
            _tell(
                f"Kafka at {self._settings.kafka_bootstrap_servers} does not take events ({reason}): "
                f"they are kept in {self.spool} and delivered later"
            )

    def _back(self, lane: Lane) -> None:
        """Kafka has taken something."""
        self._heard, self._lost_producers = time.monotonic(), 0
        lane.go_on()
        delivery = self.delivery
        if delivery.away_since is not None:
            get_logger().info("delivery goes on", seconds_away=round(time.monotonic() - delivery.away_since, 1))
            delivery.away_since = None


def _tell(line: str) -> None:
    """The one line that a user reads, whatever the log level."""
    print(f"vqe: {line}", file=sys.stderr)


def _refused(error: Exception) -> bool:
    """Whether the registry refused the schema or the client, rather than being away."""
    from confluent_kafka.schema_registry.error import SchemaRegistryError

    return isinstance(error, SchemaRegistryError) and error.http_status_code in (403, 409, 422)
