"""What streaming costs: producer throughput, framing, time in the optimizer's loop, delivery at the end.

    python -m tests.services start kafka registry      # or any Kafka and registry
    VQE_KAFKA_BOOTSTRAP_SERVERS=... VQE_REGISTRY_URL=... python benchmarks/streaming.py

Prints a Markdown table. One thread of Python; the broker shares the machine.
"""

import io
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from simulator.events import schemas
from simulator.events.records import Iteration, new_id, now_micros, to_record
from simulator.kafka.clients import make_registry
from simulator.kafka.registry import register_all
from simulator.kafka.sink import KafkaSink
from simulator.kafka.spool import SpoolWriter
from simulator.kafka.topics import create_topics
from simulator.runs.session import Session
from simulator.settings import load_settings

EVENTS = 40_000
PARAMETERS = 40
ROUNDS = 5
LOOP_ROUNDS = 60
LOOP_ITERATIONS = 40


def main() -> None:
    settings = load_settings(sink="kafka", data_dir=Path(tempfile.mkdtemp()))
    create_topics(settings)
    register_all(settings)
    parts = {"framing": framing, "throughput": throughput, "loop": loop}
    rows = [row for name in sys.argv[1:] or parts for row in parts[name](settings)]
    print("| what | median | min to max |\n| --- | --- | --- |")
    for what, values, unit in rows:
        shown = [f"{v:,.{0 if v >= 100 else 3}f}" for v in (statistics.median(values), min(values), max(values))]
        quarter = statistics.quantiles(values, n=4) if len(values) > 9 else None
        spread = f" (middle half {quarter[0]:.3f} to {quarter[2]:.3f})" if quarter else ""
        print(f"| {what} | {shown[0]} {unit}{spread} | {shown[1]} to {shown[2]} |")


Row = tuple[str, list[float], str]


def events(run_id: str, n: int) -> list[Iteration]:
    random = np.random.default_rng(7)
    drifting = np.cumsum(random.normal(scale=1e-3, size=(n, PARAMETERS)), axis=0)
    return [
        Iteration(run_id, now_micros(), i, -1.0 - 1e-6 * i, 0.1, None, 1e-3, i, i, 0.01 * i, drifting[i].tolist())
        for i in range(n)
    ]


def framing(settings: Any) -> list[Row]:
    """Serialization alone: our spool writer beside Confluent's AvroSerializer and bare fastavro."""
    from confluent_kafka.schema_registry.avro import AvroSerializer
    from confluent_kafka.serialization import MessageField, SerializationContext
    from fastavro import parse_schema, schemaless_writer

    schema = schemas.current("vqe_iteration")
    records = [to_record(e) for e in events(new_id(), 5_000)]
    parsed, out = parse_schema(schema), dict[str, list[float]](ours=[], bare=[], confluent=[])

    for _ in range(ROUNDS):
        writer = SpoolWriter(Path(tempfile.mkdtemp()), schema)
        began = time.perf_counter()
        for record in records:
            writer.write(record)
        writer.flush()
        out["ours"].append(len(records) / (time.perf_counter() - began))
        writer.release()
        began = time.perf_counter()
        for record in records:
            buffer = io.BytesIO(b"\0\0\0\0\1")
            buffer.seek(5)
            schemaless_writer(buffer, parsed, record)
            buffer.getvalue()
        out["bare"].append(len(records) / (time.perf_counter() - began))
        with make_registry(settings) as registry:
            serialize = AvroSerializer(registry, json.dumps(schema), conf={"auto.register.schemas": False})
            context = SerializationContext("vqe_iteration_v1", MessageField.VALUE)
            serialize(records[0], context)  # looks the schema up
            began = time.perf_counter()
            for record in records:
                serialize(record, context)
            out["confluent"].append(len(records) / (time.perf_counter() - began))
    return [
        ("spool writer (serialize and write to disk)", out["ours"], "events/s"),
        ("fastavro with the five-byte header", out["bare"], "events/s"),
        ("AvroSerializer", out["confluent"], "events/s"),
    ]


def throughput(settings: Any) -> list[Row]:
    """From emit to acknowledged by the broker, one producer; and how long emit holds its caller."""
    rates, per_cpu, blocked = [], [], []
    for _ in range(ROUNDS):
        sink = KafkaSink(settings)
        prepared = events(new_id(), EVENTS)
        began, used = time.perf_counter(), time.process_time()
        for event in prepared:
            before = time.perf_counter()
            sink.emit(event)
            blocked.append(time.perf_counter() - before)
        if not sink.deliver(120):
            raise SystemExit(f"not delivered: {sink.delivery}")
        rates.append(EVENTS / (time.perf_counter() - began))
        per_cpu.append(EVENTS / (time.process_time() - used))
        sink.close()
    blocked.sort()
    return [
        (f"emit to acknowledged, {PARAMETERS} parameters", rates, "events/s"),
        ("the same, a CPU second of the process", per_cpu, "events"),
        ("emit holds its caller, at full speed, p99", [1e3 * blocked[int(0.99 * len(blocked))]], "ms"),
    ]


class Discard:
    """A sink that keeps nothing: what a run costs without streaming."""

    def emit(self, event: Any) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


class Timed:
    """A sink whose emits are timed."""

    def __init__(self, sink: Any) -> None:
        self.sink, self.seconds = sink, list[float]()

    def emit(self, event: Any) -> None:
        before = time.perf_counter()
        self.sink.emit(event)
        if isinstance(event, Iteration):
            self.seconds.append(time.perf_counter() - before)


def loop(settings: Any) -> list[Row]:
    """The optimizer's loop of N2 with and without streaming; delivery at the end.

    A shared machine drifts by a third within seconds, so each round runs plain, streamed, streamed, plain: a drift
    cancels, and the median of many rounds is held against the same figure of plain runs alone (the control).
    """
    from simulator.chemistry.molecules import load_molecule
    from simulator.tasks.vqe.task import VqeTask
    from simulator.vqe.spec import make_spec

    spec = make_spec(load_molecule("n2"), max_iterations=LOOP_ITERATIONS, tolerance=1e-9)
    first_step = make_spec(load_molecule("n2"), max_iterations=1)
    ratios, control, ends, holds = [], [], [], list[float]()
    quiet = Session(Discard(), settings)  # type: ignore[arg-type]
    quiet.execute(VqeTask(spec), "n2")  # compiles, and fills the session's cache

    def plain() -> float:
        return _optimization(quiet.execute(VqeTask(spec), "n2"))

    def streamed(rounds: int) -> float:
        sink = KafkaSink(settings)
        timed = Timed(sink)
        session = Session(timed, settings)  # type: ignore[arg-type]
        session._problems = quiet._problems  # the same integrals for both
        session.execute(VqeTask(first_step), "n2")  # connects: once a process, whatever the run's length
        seconds = sum(_optimization(session.execute(VqeTask(spec), "n2")) for _ in range(rounds))
        began = time.perf_counter()
        sink.close()
        ends.append(time.perf_counter() - began)
        holds.extend(timed.seconds)
        return seconds

    for _ in range(LOOP_ROUNDS):
        first, with_events, last = plain(), streamed(2), plain()
        ratios.append(with_events / (first + last))
        first, between, last = plain(), plain() + plain(), plain()
        control.append(between / (first + last))
    holds.sort()
    return [
        (f"optimizer's loop of N2, with streaming / without, {LOOP_ROUNDS} rounds", ratios, ""),
        ("the same figure of plain runs alone (the machine's noise)", control, ""),
        ("emit holds the loop, p99", [1e3 * holds[int(0.99 * len(holds))]], "ms"),
        ("delivery at the end of a process", ends, "s"),
    ]


def _optimization(result: Any) -> float:
    return next(t["seconds"] for t in result.timings if t["stage"] == "optimization")


if __name__ == "__main__":
    main()
