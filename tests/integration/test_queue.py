"""The queue's promises on a real Postgres, and what happens when it is killed."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.register_assert_rewrite("queue_promises")

from queue_promises import *  # noqa: E402, F403
from queue_promises import Place, claimed, eventually, job  # noqa: E402

from simulator.cli.main import _run  # noqa: E402
from simulator.queue import Checkpoint, JobQueue, QueueAway  # noqa: E402

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def place(postgres, request, tmp_path, monkeypatch) -> Place:
    """A database that is new."""
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path / "data", postgres.create(f"t{abs(hash(request.node.nodeid)) % 10**9}"))


def test_a_database_without_tables_is_one_line_until_it_is_migrated(place, capsys, monkeypatch):
    monkeypatch.setenv("VQE_QUEUE_URI", place.uri or "")
    with pytest.raises(QueueAway, match=r"has no tables yet: run `vqe jobs migrate` once") as caught:
        JobQueue.open(place.settings())
    assert "vqe:***@" in str(caught.value)
    assert _run(["jobs", "migrate"]) == 0
    assert "vqe:***@" in capsys.readouterr().out
    JobQueue.open(place.settings()).close()


def test_a_password_that_is_wrong_is_one_line(place):
    wrong = (place.uri or "").replace("vqe:", "vqe:canary-5b1f-", 1)
    with pytest.raises(QueueAway, match="password authentication failed") as caught:
        Place(place.data_dir, wrong).open(retry_seconds=0.1)
    assert "canary" not in str(caught.value)


def test_a_server_that_is_killed_and_restarted_has_lost_nothing(place, postgres):
    with place.open(retry_seconds=0.3) as queue:
        ids = queue.submit([job(i) for i in range(4)]).job_ids
        done, held = claimed(queue, lease_seconds=300), claimed(queue, lease_seconds=300)
        kept = Checkpoint("r", 3, -1.1, (0.5,))
        queue.complete(done, run_id="r", summary=None)
        queue.save_checkpoint(held, kept)
        postgres.kill()
        try:
            for call in (
                lambda: queue.claim("w2"),
                lambda: queue.renew(held),
                lambda: queue.submit([job(9)]),
                queue.counts,
            ):
                with pytest.raises(QueueAway):
                    call()
        finally:
            postgres.start_again()
        assert queue.renew(held)
        assert [queue.job(i).state for i in ids] == ["completed", "running", "waiting", "waiting"]
        assert queue.job(held.job.job_id).checkpoint == kept
        assert claimed(queue, "w2").job.job_id == ids[2]
        queue.complete(held, run_id="r", summary=None)


def test_calls_go_on_through_a_restart_that_is_short(place, postgres):
    """The worker's thread renews, claims and ends jobs all the while and sees no error."""
    with place.open(retry_seconds=60) as queue:
        queue.submit([job(i) for i in range(200)])
        done: list[str] = []
        stop = threading.Event()

        def work() -> None:
            while not stop.is_set() and (claim := queue.claim("w", lease_seconds=300)) is not None:
                queue.renew(claim, 300)
                queue.complete(claim, run_id="r", summary=None)
                done.append(claim.job.job_id)

        with ThreadPoolExecutor(2) as threads:
            working = [threads.submit(work) for _ in range(2)]
            eventually(lambda: len(done) > 5)
            postgres.kill()
            postgres.start_again()
            n = len(done)
            eventually(lambda: len(done) > min(n + 5, 199))
            stop.set()
            for thread in working:
                thread.result(60)
        assert len(done) == len(set(done)) == len(queue.completed_specs("vqe"))
        assert max(j.attempt for j in queue.jobs()) == 1


def test_the_exporter_makes_no_tables_and_looks_when_they_are_there(place):
    from simulator.observability.exporter.queue import QueueSource

    source = QueueSource(place.settings())
    for _ in range(2):
        with pytest.raises(QueueAway, match="has no tables yet"):
            source.look()
    with place.open() as queue:
        queue.submit([job(1)])
        source.look()
    waiting = [
        s.value for family in source.families(True) for s in family.samples if s.labels.get("state") == "waiting"
    ]
    source.close()
    assert sum(waiting) == 1
