"""Measures the sink end to end: Kafka, Connect and MinIO on this machine, a filled topic, until the last object is stored.

    python -m connect.benchmarks.sink_throughput [--megabytes 600] [--parameters 200] [--codec deflate]

Prints megabytes (1e6 bytes of Kafka record values) a second, counted from the PUT of the connector's configuration.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import pathlib
import random
import struct
import tempfile
import time
import urllib.request

import fastavro
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tests.services.probes import BUCKET, setup_connector
from tests.services.stack import Stack

TOPIC = "vqe_iteration_v1"
SCHEMA = {
    "type": "record",
    "name": "Iteration",
    "fields": [
        {"name": "run_id", "type": "string"},
        {"name": "recorded_at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "iteration", "type": "int"},
        {"name": "energy", "type": "double"},
        {"name": "parameters", "type": {"type": "array", "items": "double"}},
    ],
}


def fill(stack: Stack, megabytes: float, parameters: int) -> tuple[int, int]:
    """Produces drifting parameters, as an optimizer does; returns records and bytes."""
    request = urllib.request.Request(
        f"{stack.registry_url}/subjects/{TOPIC}-value/versions",
        data=json.dumps({"schema": json.dumps(SCHEMA)}).encode(),
        headers={"Content-Type": "application/vnd.schemaregistry.v1+json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        schema_id = json.load(answer)["id"]
    rng = random.Random(1)
    theta = [rng.gauss(0, 0.1) for _ in range(parameters)]
    parsed = fastavro.parse_schema(SCHEMA)
    values = []
    for i in range(2000):
        theta = [t + rng.gauss(0, 1e-3) for t in theta]
        out = io.BytesIO(struct.pack(">bI", 0, schema_id))
        out.seek(5)
        record = {
            "run_id": "0190b5a2-7c1e-7abc-8def-0123456789ab",
            "recorded_at": i,
            "iteration": i,
            "energy": -1.1 - i * 1e-7,
        }
        fastavro.schemaless_writer(out, parsed, record | {"parameters": theta})
        values.append(out.getvalue())
    producer = Producer({"bootstrap.servers": stack.bootstrap, "linger.ms": 20, "queue.buffering.max.kbytes": 200_000})
    records = size = 0
    while size < megabytes * 1e6:
        value = values[records % len(values)]
        while True:
            try:
                producer.produce(TOPIC, value, partition=records % 2)
                break
            except BufferError:
                producer.poll(0.1)
        records += 1
        size += len(value)
    if producer.flush(120):
        raise SystemExit("the topic could not be filled")
    return records, size


def stored(s3, seen: dict[str, tuple[int, int]]) -> tuple[int, int]:
    """Records and bytes stored; ``seen`` keeps what is known of each object, so that none is asked twice."""
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="raw/"):
        for item in page.get("Contents", []):
            if item["Key"] not in seen:
                metadata = s3.head_object(Bucket=BUCKET, Key=item["Key"])["Metadata"]
                seen[item["Key"]] = int(metadata["records"]), item["Size"]
    return sum(records for records, _ in seen.values()), sum(size for _, size in seen.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=600)
    parser.add_argument("--parameters", type=int, default=200)
    parser.add_argument("--codec", default="deflate")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Stack(folder, fast_java=True).fetch() as stack:
        stack.start()
        s3 = stack.s3()
        s3.create_bucket(Bucket=BUCKET)
        admin = AdminClient({"bootstrap.servers": stack.bootstrap})
        admin.create_topics([NewTopic(TOPIC, 2, 1)])[TOPIC].result(30)
        records, size = fill(stack, options.megabytes, options.parameters)
        config = json.loads(setup_connector.DEFAULT_CONFIG.read_text()) | {
            "avro.codec": options.codec,
            "flush.ms": "2000",
        }
        ticks = os.sysconf("SC_CLK_TCK")

        def cpu() -> float:
            fields = pathlib.Path(f"/proc/{stack.pid('connect')}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / ticks

        seen: dict[str, tuple[int, int]] = {}
        busy, began = cpu(), time.time()
        setup_connector.call(stack.connect_url, "PUT", "/connectors/bench/config", config)
        while True:
            done, packed = stored(s3, seen)
            if done >= records:
                break
            time.sleep(0.5)
        seconds, busy = time.time() - began, cpu() - busy
        print(f"{records} records of {size // records} bytes, codec {options.codec}: {seconds:.1f} s from the PUT of the connector, "
              f"{size / 1e6 / seconds:.0f} MB/s; the worker used {busy:.1f} CPU s, {size / 1e6 / busy:.0f} MB per CPU s; "
              f"packed to {packed / size:.2f}; {os.cpu_count()} cores for all services")  # fmt: skip


if __name__ == "__main__":
    main()
