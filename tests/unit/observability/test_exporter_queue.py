"""The exporter's look at the work queue: every series is there from the start, and a queue that is away is one line."""

import json
import re
import time
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from simulator.errors import InputError
from simulator.observability.exporter import queue as watched
from simulator.observability.exporter.queue import QueueSource
from simulator.observability.exporter.serve import make_exporter
from simulator.observability.exporter.sources import Watcher
from simulator.observability.metrics import exposed
from simulator.queue import STATES, JobQueue, NewJob
from simulator.settings import Settings, load_settings

MONITORING = Path(__file__).resolve().parents[3] / "monitoring"
AWAY = "postgresql+psycopg2://vqe:canary-queue@127.0.0.1:1/vqe_queue"


@pytest.fixture
def settings(tmp_path) -> Settings:
    return load_settings(data_dir=tmp_path)


@pytest.fixture
def queue(settings):
    with JobQueue.open(settings) as opened:
        yield opened


def shown(source: QueueSource, up: bool = True) -> dict[tuple[str, ...], float]:
    """Values by metric name and labels in the order of their names: device, kind, state."""
    text = exposed(iter(list(source.families(up)))).decode()
    return {
        (s.name, *(value for _, value in sorted(s.labels.items()))): s.value
        for family in text_string_to_metric_families(text) for s in family.samples
    }  # fmt: skip


def looked(settings: Settings) -> dict[tuple[str, ...], float]:
    source = QueueSource(settings)
    source.look()
    found = shown(source)
    source.close()
    return found


def submit(queue: JobQueue, n: int, device: str = "cpu", kind: str = "vqe") -> None:
    queue.submit([NewJob(kind, f"{device}-{kind}-{i}", "{}", "h2", device=device) for i in range(n)])


def beat(queue: JobQueue, worker: str, *devices: str, problem: str | None = None) -> None:
    queue.beat(worker, host="h", pid=1, devices=devices, problem=problem)


def test_an_empty_queue_shows_every_series_at_zero(settings, queue):
    found = looked(settings)
    assert found.pop(("vqe_queue_late_after_seconds",)) == 21_600
    assert set(found.values()) == {0}
    assert {key[1:] for key in found if key[0] == "vqe_queue_jobs"} == {
        (device, "vqe", state) for device in ("cpu", "gpu") for state in STATES
    }
    for name in ("oldest_waiting_seconds", "expired_leases", "workers"):
        assert {key[1:] for key in found if key[0] == f"vqe_queue_{name}"} == {("cpu",), ("gpu",)}
    assert {key[1] for key in found if key[0] == "vqe_queue_recent_jobs"} == {"failed", "cancelled", "dead"}


def test_jobs_are_shown_by_state_device_and_kind_and_waits_by_device(settings, queue):
    submit(queue, 3)
    submit(queue, 1, "gpu", "qaoa")
    queue.complete(queue.claim("w"), run_id=None, summary=None)
    queue.claim("w")
    time.sleep(0.01)
    found = looked(settings)
    assert found["vqe_queue_jobs", "cpu", "vqe", "waiting"] == 1
    assert found["vqe_queue_jobs", "cpu", "vqe", "running"] == 1
    assert found["vqe_queue_jobs", "cpu", "vqe", "completed"] == 1
    assert found["vqe_queue_jobs", "gpu", "qaoa", "waiting"] == 1
    assert found["vqe_queue_jobs", "gpu", "vqe", "waiting"] == 0
    assert found["vqe_queue_oldest_waiting_seconds", "gpu"] > 0


def test_a_worker_counts_for_its_devices_while_it_is_well_and_was_seen(settings, queue, monkeypatch):
    beat(queue, "a", "cpu", "gpu")
    beat(queue, "b", "cpu")
    beat(queue, "c", "gpu", problem="the disk is full")
    found = looked(settings)
    assert (found["vqe_queue_workers", "cpu"], found["vqe_queue_workers", "gpu"]) == (2, 1)
    assert found["vqe_queue_workers_with_problem",] == 1
    time.sleep(0.02)
    monkeypatch.setattr(watched, "SEEN_SECONDS", 0.01)
    found = looked(settings)
    assert (found["vqe_queue_workers", "cpu"], found["vqe_queue_workers_with_problem",]) == (0, 0)


def test_a_job_whose_worker_is_gone_and_one_that_is_dead_are_shown(settings, queue):
    submit(queue, 2)
    for _ in range(3):
        queue.give_back(queue.claim("w"), "killed by signal 9", counts=True)
    queue.claim("w", lease_seconds=0.01)
    time.sleep(0.02)
    found = looked(settings)
    assert found["vqe_queue_recent_jobs", "dead"] == 1
    assert found["vqe_queue_expired_leases", "cpu"] == 1


def test_a_queue_that_is_away_is_one_line_without_its_password_and_shows_no_old_numbers(settings, tmp_path, capsys):
    source = QueueSource(load_settings(data_dir=tmp_path, queue_uri=AWAY))
    watcher = Watcher(source)
    watcher.look()
    watcher.look()
    assert not watcher.up
    told = capsys.readouterr().err
    assert told.count("source is away") == 1
    assert "the queue's database" in told
    assert "canary" not in told
    assert {key[0] for key in shown(source, up=False)} == {"vqe_queue_late_after_seconds"}
    watcher.close()


def test_the_queue_is_looked_at_where_there_is_one(tmp_path, monkeypatch):
    def sources(**given) -> set[str]:
        exporter = make_exporter(load_settings(data_dir=tmp_path, **given))
        names = {watcher.source.name for watcher in exporter.watchers}
        exporter.close()
        return names

    assert "queue" not in sources()
    assert not (tmp_path / "queue.db").exists()
    assert "queue" in sources(queue_uri=AWAY)
    JobQueue.open(load_settings(data_dir=tmp_path)).close()
    assert "queue" in sources()
    with pytest.raises(InputError, match="VQE_QUEUE_URI"):
        sources(queue_uri="mysql://db/queue")


def test_what_rules_and_dashboards_ask_of_the_queue_and_its_workers_is_exposed(settings, queue):
    from simulator.runs.pool import Pool
    from simulator.runs.pool_metrics import PoolMetrics

    pool = Pool(settings, queue, workers=1, threads=1, devices=("cpu",))
    metrics = PoolMetrics(pool, {})
    families = list(metrics.collect())
    metrics.close()
    workers = {
        s.name for f in text_string_to_metric_families(exposed(iter(families)).decode()) for s in f.samples
    }  # fmt: skip
    there = {key[0] for key in looked(settings)} | workers
    texts = [rule["expr"] for rule in _rules()]
    for file in (MONITORING / "grafana" / "dashboards").glob("*.json"):
        texts += [t["expr"] for panel in json.loads(file.read_text())["panels"] for t in panel["targets"]]
    asked = {name for text in texts for name in re.findall(r"\bvqe_(?:queue|worker)_\w+", text)}
    assert len(asked) >= 9
    assert asked <= there


def test_outcomes_that_rules_and_dashboards_name_are_those_of_workers():
    from simulator.runs.pool_metrics import OUTCOMES

    named = {found for rule in _rules() for found in re.findall(r'outcome="(\w+)"', rule["expr"])}
    assert named == {"leases_lost"}
    assert named <= set(OUTCOMES)


def _rules() -> list[dict]:
    groups = yaml.safe_load((MONITORING / "prometheus" / "rules" / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]
