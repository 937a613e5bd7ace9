"""The queue's promises on a real Postgres, and what happens when it is killed."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection, create_engine, text

pytest.register_assert_rewrite("queue_promises")

from queue_promises import *  # noqa: E402, F403
from queue_promises import Place, claimed, eventually, job  # noqa: E402

from simulator.cli.main import _run  # noqa: E402
from simulator.queue import Checkpoint, JobQueue, QueueAway  # noqa: E402
from simulator.queue.tables import jobs  # noqa: E402

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
            eventually(lambda: len(done) > min(n + 5, 199) or any(t.done() for t in working))
            stop.set()
            for thread in working:
                thread.result(60)
        assert len(done) == len(set(done)) == len(queue.completed_specs("vqe"))
        assert max(j.attempt for j in queue.jobs()) == 1


def test_many_jobs_are_submitted_once_through_a_restart_in_their_middle(place, postgres):
    with place.open(retry_seconds=60) as queue, ThreadPoolExecutor(1) as threads:
        wanted = [job(i) for i in range(20_000)]
        submitted = threads.submit(queue.submit, wanted)
        for _ in range(3):
            time.sleep(0.4)
            postgres.kill()
            postgres.start_again()
        found = submitted.result(120)
        assert (found.n_new, len(set(found.job_ids))) == (20_000, 20_000)
        assert queue.counts() == {("waiting", "cpu", "vqe"): 20_000}


def test_what_another_client_submits_in_the_same_moment_is_known(place):
    """Without any second try, which would find it: many thousand jobs take longer than a call tries again."""
    with place.open(retry_seconds=0) as queue, ThreadPoolExecutor(1) as threads, connected(place) as other:
        queue.submit([job("first")])
        with other.execution_options(isolation_level="READ COMMITTED").begin():
            columns = ", ".join(c.name for c in jobs.c if c.name not in ("position", "job_id", "spec_id"))
            other.execute(
                text(
                    f"INSERT INTO vqe_jobs (job_id, spec_id, {columns}) SELECT 'theirs', 'spec-7', {columns} FROM vqe_jobs"
                )
            )
            submitted = threads.submit(queue.submit, [job(i) for i in range(1000)])
            waits = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'COPY%'")
            with connected(place) as looking:
                eventually(lambda: looking.scalar(waits))
        found = submitted.result(60)
    assert (found.n_new, found.n_known, found.job_ids[7]) == (999, 1, "theirs")


def test_a_full_disk_of_the_server_is_one_line_and_a_moment_later_all_jobs_are_there(place):
    with place.open(retry_seconds=0) as queue, connected(place) as other:
        other.execute(
            text(
                "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN RAISE 'could not extend file' USING ERRCODE = 'disk_full'; END $$"
            )
        )
        other.execute(
            text("CREATE TRIGGER full_disk BEFORE INSERT ON vqe_jobs FOR EACH ROW EXECUTE FUNCTION full_disk()")
        )
        for n in (3, 1000):  # which travel in two ways
            with pytest.raises(QueueAway, match="could not extend file") as caught:
                queue.submit([job(i) for i in range(n)])
            assert "\n" not in str(caught.value)
        other.execute(text("DROP TRIGGER full_disk ON vqe_jobs"))
        assert queue.submit([job(i) for i in range(1000)]).n_new == 1000


@contextmanager
def connected(place: Place) -> Iterator[Connection]:
    """Another client of the same database; what it executes is committed at once, but for what it begins."""
    engine = create_engine(place.uri or "", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


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
