"""A broker and a registry in this process: librdkafka's mock cluster, and what of Confluent's interface is asked for."""

import contextlib
import ctypes
import http.server
import json
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import confluent_kafka

PRODUCE = 0  # the request's key in Kafka's protocol


def _library() -> Any:
    (path,) = (Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs").glob("librdkafka*.so*")
    found = ctypes.CDLL(str(path))
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    for name, result, arguments in (
        ("conf_new", pointer, []), ("conf_set", number, [pointer, text, text, text, ctypes.c_size_t]),
        ("new", pointer, [number, pointer, text, ctypes.c_size_t]), ("destroy", None, [pointer]),
        ("mock_cluster_new", pointer, [pointer, number]), ("mock_cluster_destroy", None, [pointer]),
        ("mock_cluster_bootstraps", text, [pointer]), ("mock_topic_create", number, [pointer, text, number, number]),
        ("mock_topic_set_error", None, [pointer, text, number]),
        ("mock_push_request_errors_array", None, [pointer, ctypes.c_int16, ctypes.c_size_t, ctypes.POINTER(number)]),
        ("mock_broker_set_down", number, [pointer, ctypes.c_int32]),
        ("mock_broker_set_up", number, [pointer, ctypes.c_int32]),
    ):  # fmt: skip
        function = getattr(found, f"rd_kafka_{name}")
        function.restype, function.argtypes = result, arguments
    return found


def gathered(step: Callable[[], object], enough: Callable[[], bool], seconds: float = 60.0) -> None:
    """Takes steps, each of which waits for a moment itself, until there is enough or the time is over."""
    end = time.monotonic() + seconds
    while not enough() and time.monotonic() < end:
        step()


class Broker:
    """One broker. Topics are made when they are written to."""

    def __init__(self) -> None:
        self._lib = _library()
        why = ctypes.create_string_buffer(512)
        conf = self._lib.rd_kafka_conf_new()
        self._lib.rd_kafka_conf_set(conf, b"log_level", b"0", why, 512)
        self._client = self._lib.rd_kafka_new(0, conf, why, 512)
        assert self._client, why.value
        self._cluster = self._lib.rd_kafka_mock_cluster_new(self._client, 1)
        self.address: str = self._lib.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def topic(self, name: str, partitions: int = 1) -> None:
        self._lib.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1)

    def answer(self, *codes: int, request: int = PRODUCE) -> None:
        """The answers to the next requests, whatever they ask."""
        array = (ctypes.c_int * len(codes))(*codes)
        self._lib.rd_kafka_mock_push_request_errors_array(self._cluster, request, len(codes), array)

    def refuse(self, topic: str, code: int) -> None:
        """The answer to every request about a topic; 0: none."""
        self._lib.rd_kafka_mock_topic_set_error(self._cluster, topic.encode(), code)

    def down(self) -> None:
        self._lib.rd_kafka_mock_broker_set_down(self._cluster, 1)

    def up(self) -> None:
        self._lib.rd_kafka_mock_broker_set_up(self._cluster, 1)

    def close(self) -> None:
        self._lib.rd_kafka_mock_cluster_destroy(self._cluster)
        self._lib.rd_kafka_destroy(self._client)

    def values(self, topic: str, at_least: int, seconds: float = 60.0) -> list[bytes]:
        """What a topic of one partition holds, in order; waits for so many records."""
        consumer = confluent_kafka.Consumer(
            {"bootstrap.servers": self.address, "group.id": "test", "log_level": 0, "fetch.wait.max.ms": 50}
        )
        consumer.list_topics(topic)  # else the first fetch waits half a second for the metadata
        consumer.assign([confluent_kafka.TopicPartition(topic, 0, confluent_kafka.OFFSET_BEGINNING)])
        found: list[bytes] = []

        def consume(wait: float) -> None:
            found.extend(m.value() for m in consumer.consume(1000, wait) if m.error() is None)

        with contextlib.closing(consumer):
            gathered(lambda: consume(0.05), lambda: len(found) >= at_least, seconds)
            consume(0.2)  # more than were asked for would be a record that came twice
        return found


class Registry:
    """Lookup by schema, schema by id."""

    def __init__(self) -> None:
        self.unknown: set[str] = set()  # subjects that nobody registered
        self.forgotten: set[int] = set()  # ids that the registry no longer tells
        self.status = 200  # another one: every answer is that
        self.asked = 0
        self._ids: dict[str, int] = {}
        self._texts: dict[int, str] = {}
        registry = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None: ...

            def answer(self, code: int, body: dict[str, Any] | list[str]) -> None:
                content = json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_POST(self) -> None:
                registry.asked += 1
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                match = re.match(r"/subjects/([^/?]+)", self.path)
                assert match is not None
                if registry.status != 200:
                    return self.answer(registry.status, {"error_code": registry.status, "message": "as told"})
                if match[1] in registry.unknown:
                    return self.answer(404, {"error_code": 40403, "message": "Schema not found"})
                found = registry.id_of(body["schema"])
                return self.answer(200, {"subject": match[1], "version": 1, "id": found, "schema": body["schema"]})

            def do_GET(self) -> None:
                registry.asked += 1
                match = re.match(r"/schemas/ids/(\d+)", self.path)
                if registry.status != 200:
                    return self.answer(registry.status, {"error_code": registry.status, "message": "as told"})
                if self.path.startswith("/subjects"):
                    return self.answer(
                        200, [f"s{known}-value" for known in registry._texts.keys() - registry.forgotten]
                    )
                if match is None or int(match[1]) not in registry._texts or int(match[1]) in registry.forgotten:
                    return self.answer(404, {"error_code": 40403, "message": "Schema not found"})
                return self.answer(200, {"schema": registry._texts[int(match[1])]})

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def id_of(self, schema: str) -> int:
        """The id of a schema, which it gets here."""
        found = self._ids.setdefault(json.dumps(json.loads(schema), sort_keys=True), len(self._ids) + 1)
        self._texts[found] = schema
        return found

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
