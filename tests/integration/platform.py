"""The product's commands against the real services, as a user calls them."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simulator.kafka.clients import make_admin, make_consumer
from simulator.kafka.follower import Decoder
from simulator.settings import Settings, load_settings

RUN_SECONDS = 240


@dataclass
class Platform:
    """The environment in which `vqe` finds the services, and what the topics hold."""

    environment: dict[str, str]
    data_dir: Path
    _processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def settings(self, **more: Any) -> Settings:
        """The settings that the commands see."""
        given = {k.removeprefix("VQE_").lower(): v for k, v in self.environment.items()}
        return load_settings(**{**given, "sink": "kafka", "data_dir": self.data_dir, **more})

    def vqe(self, *arguments: str, check: int | None = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; `check` is the exit code it must have."""
        done = subprocess.run(
            command(*arguments), env=self._env(environment), capture_output=True, text=True, timeout=RUN_SECONDS
        )
        if check is not None and done.returncode != check:
            raise AssertionError(f"vqe {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    @contextmanager
    def started(self, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """A command that goes on; killed at the end of the block if it has not ended."""
        process = subprocess.Popen(
            command(*arguments), env=self._env(environment), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()

    def _env(self, more: dict[str, str]) -> dict[str, str]:
        base = {k: v for k, v in os.environ.items() if not k.startswith("VQE_")}
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        queue = {"VQE_QUEUE_URI": f"sqlite:///{self.data_dir}-queue.db"}  # one for all workers, whatever their spools
        return {**base, **threads, **queue, **self.environment, "VQE_DATA_DIR": str(self.data_dir), **more}

    def records(self, topic_prefix: str) -> list[dict[str, Any]]:
        """Every record of a stream's topics, decoded, in partition order."""
        return [record for _, record in self.positions(topic_prefix)]

    def positions(self, topic_prefix: str) -> list[tuple[tuple[str, int, int], dict[str, Any]]]:
        """Every record of a stream's topics with its topic, partition and offset."""
        decode = Decoder(self.settings())
        return [(where, decode(message.value())) for where, message in self.messages(topic_prefix)]

    def messages(self, topic_prefix: str) -> list[tuple[tuple[str, int, int], Any]]:
        """Every message of the topics whose name begins so."""
        from confluent_kafka import OFFSET_BEGINNING, TopicPartition
        from confluent_kafka.admin import OffsetSpec

        settings = self.settings()
        admin = make_admin(settings)
        found = [
            TopicPartition(name, p)
            for name, topic in admin.list_topics(timeout=30).topics.items()
            if name.startswith(topic_prefix)
            for p in topic.partitions
        ]
        futures = admin.list_offsets({tp: OffsetSpec.latest() for tp in found})
        left = {(tp.topic, tp.partition): f.result(timeout=30).offset for tp, f in futures.items()}
        left = {key: end for key, end in left.items() if end > 0}
        consumer = make_consumer(settings, f"test-{time.time_ns()}", **{"fetch.wait.max.ms": 100})
        consumer.assign([TopicPartition(t, p, OFFSET_BEGINNING) for t, p in left])
        out, end = [], time.monotonic() + 60
        while left and time.monotonic() < end:
            for message in consumer.consume(1000, timeout=0.2):
                assert message.error() is None, message.error()
                key = (message.topic(), message.partition())
                out.append(((*key, message.offset()), message))
                if message.offset() + 1 >= left.get(key, 0):
                    left.pop(key, None)
        consumer.close()
        assert not left, f"not read to the end: {left}"
        return out

    def check_promises(self) -> dict[str, dict[str, Any]]:
        """Hold what every result promises against the records in the topics, each key counted once; returns the results."""
        results = {str(r["run_id"]): r for r in self.records("vqe_result_v")}
        iterations = Counter(
            run for run, _ in {(str(r["run_id"]), r["iteration"]) for r in self.records("vqe_iteration_v")}
        )
        samples = Counter(
            run for run, _ in {(str(r["run_id"]), r["sample_index"]) for r in self.records("vqe_system_metrics_v")}
        )
        terms = Counter(
            key
            for key, _ in {
                (r["hamiltonian_id"], t["term_index"]) for r in self.records("vqe_hamiltonian_v") for t in r["terms"]
            }
        )
        runs = {str(r["run_id"]) for r in self.records("vqe_run_v")}
        for run_id, result in results.items():
            counts = result["counts"]
            assert run_id in runs, f"{run_id} has a result and no beginning"
            assert iterations[run_id] == counts["iterations"], f"iterations of {run_id}"
            assert samples[run_id] == counts["system_metrics"], f"samples of {run_id}"
            assert terms[result["hamiltonian_id"]] == counts["hamiltonian_terms"], f"terms of {run_id}"
        return results


def command(*arguments: str) -> list[str]:
    """The `vqe` command of this environment."""
    return [sys.executable, "-m", "simulator.cli.main", *arguments]


def json_lines(text: str) -> list[dict[str, Any]]:
    """One object a line."""
    return [json.loads(line) for line in text.splitlines()]


def spool_files(data_dir: Path) -> list[Path]:
    """What waits in the spool."""
    return sorted((data_dir / "spool").glob("vqe_*/*.avro"))
