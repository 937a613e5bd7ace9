"""What the work queue promises, on whichever database the module that takes these tests opens it.

A module of tests takes them by `from queue_promises import *` and has a fixture `place`: settings of a database without tables.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy.exc import OperationalError
from waiting import eventually

from simulator.errors import InputError
from simulator.queue import Checkpoint, Claim, JobFilter, JobQueue, LeaseLost, NewJob, QueueAway, submitting
from simulator.queue.database import Database
from simulator.settings import Settings, load_settings

LAPSED = 0.01
"""Seconds of a lease that ends before anybody looks."""


@dataclass(frozen=True)
class Place:
    """A queue's database, as another process is told of it."""

    data_dir: Path
    uri: str | None = None

    def settings(self) -> Settings:
        return load_settings(data_dir=self.data_dir, queue_uri=self.uri)

    def open(self, **options: Any) -> JobQueue:
        return JobQueue.open(self.settings(), migrate=True, **options)


@pytest.fixture
def queue(place: Place) -> Iterator[JobQueue]:
    with place.open() as opened:
        yield opened


def job(spec: object = 1, **fields: Any) -> NewJob:
    return NewJob("vqe", f"spec-{spec}", '{"a": "é\\u0000"}', "h2", **fields) if "kind" not in fields else NewJob(
        fields.pop("kind"), f"spec-{spec}", "{}", "h2", **fields
    )  # fmt: skip


def claimed(queue: JobQueue, worker: str = "w", **options: Any) -> Claim:
    found = queue.claim(worker, **options)
    assert found is not None
    return found


def lapsed(queue: JobQueue, worker: str = "w", **options: Any) -> Claim:
    """A claim whose lease has ended, unless somebody claims meanwhile."""
    found = claimed(queue, worker, lease_seconds=LAPSED, **options)
    time.sleep(2 * LAPSED)
    return found


def specs(queue: JobQueue, **options: Any) -> list[str]:
    """Specifications in the order in which one worker would take them."""
    taken = []
    while (found := queue.claim("w", **options)) is not None:
        taken.append(found.job.spec_id.removeprefix("spec-"))
    return taken


def in_processes(n: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `work(i, *arguments)` answers in each of n processes, which begin at the same moment."""
    context = _processes()
    answers, barrier = context.SimpleQueue(), context.Barrier(n)
    processes = [context.Process(target=_answer, args=(answers, barrier, work, i, arguments)) for i in range(n)]
    for process in processes:
        process.start()
    found = [answers.get() for _ in processes]
    for process in processes:
        process.join(60)
    assert all(ok for ok, _ in found), found
    return [answer for _, answer in found]


def _processes() -> Any:
    """Processes forked from one that has imported what they need; importing it in each takes a second."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["queue_promises", "simulator.queue.job_queue", "alembic.command"])
    with pytest.MonkeyPatch.context() as patch:  # this Python's fork server imports from its own path only
        patch.setenv("PYTHONPATH", os.pathsep.join(p for p in sys.path if p))
        forkserver.ensure_running()
    return context


def _answer(answers: Any, barrier: Any, work: Callable[..., Any], i: int, arguments: tuple[Any, ...]) -> None:
    barrier.wait(60)
    try:
        answers.put((True, work(i, *arguments)))
    except BaseException as error:
        answers.put((False, repr(error)))


def killed(work: Callable[..., Any], *arguments: Any) -> None:
    """Does the work in a process that ends itself by SIGKILL."""
    process = _processes().Process(target=work, args=arguments)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# --- submitting


def test_what_waits_runs_or_is_completed_is_known_and_what_failed_is_not(queue):
    first = queue.submit([job(1), job(1), job(2)])
    assert (first.n_new, first.n_known) == (2, 1)
    assert first.job_ids[0] == first.job_ids[1] != first.job_ids[2]
    claim = claimed(queue)
    assert queue.submit([job(1), job(2)]).job_ids == [first.job_ids[0], first.job_ids[2]]
    queue.complete(claim, run_id="r", summary={"energy": -1.5})
    assert queue.submit([job(1)]).job_ids == first.job_ids[:1]
    queue.fail(claimed(queue), "SCF does not converge")
    again = queue.submit([job(2)])
    assert again.n_new == 1
    assert again.job_ids[0] != first.job_ids[2]


def test_kinds_do_not_know_each_other(queue):
    assert queue.submit([job(1), job(1, kind="qaoa")]).n_new == 2


def test_force_runs_what_is_completed_and_nothing_twice_at_once(queue):
    queue.submit([job(1)])
    assert queue.submit([job(1, force=True)]).n_known == 1
    queue.complete(claimed(queue), run_id="r", summary=None)
    assert queue.submit([job(1, force=True), job(1, force=True)]).n_new == 1
    assert claimed(queue).job.force


def test_an_idempotency_key_gives_the_same_job_and_refuses_another(queue):
    first = queue.submit([job(1, idempotency_key="k", owner="ann"), job(1, idempotency_key="k", owner="ann")])
    assert first.n_new == 1
    queue.fail(claimed(queue), "no")
    assert queue.submit([job(1, idempotency_key="k", owner="ann")]).job_ids == first.job_ids[:1]
    for other in (job(2), replace(job(1), priority=6)):
        with pytest.raises(InputError, match="idempotency key 'k' was used before"):
            queue.submit([job(3), replace(other, idempotency_key="k", owner="ann")])
    assert len(queue.jobs()) == 1, "all or none"
    assert queue.submit([job(2, idempotency_key="k", owner="bob")]).n_new == 1


def test_a_submission_whose_answer_was_lost_is_made_once(queue, monkeypatch):
    with_answer_lost_once(monkeypatch)
    found = queue.submit([job(i) for i in range(3)])
    assert (found.n_new, len(queue.jobs())) == (3, 3)
    assert [queue.job(i).spec_id for i in found.job_ids] == ["spec-0", "spec-1", "spec-2"]


def test_many_jobs_at_once_are_stored_as_they_are_given(queue):
    """So many travel another way than a few do, with every character that means something on the way."""
    odd = ["\t", "\n", "\r", "\\", "\\N", "\\.", '"', "'", "{}", "é", "\U0001f600", ""]
    names = [f"{a}h2{b}" for a in odd for b in odd] * 5
    wanted = [
        NewJob(
            spec_id=f"spec-{i}", spec_json=f'{{"a": "{i}"}}' + name, name=name, owner=f"owner {i % 7}", priority=i % 3,
            sweep_id=None if i % 2 else "s", tags=(name,), force=i % 11 == 0, kind="vqe",
        )
        for i, name in enumerate(names)
    ]  # fmt: skip
    assert len(wanted) > submitting._COPY_FROM
    known = queue.submit([wanted[3]]).job_ids
    done = queue.submit(wanted)
    assert (done.n_new, done.n_known, done.job_ids[3:4]) == (len(wanted) - 1, 1, known)
    stored = {j.job_id: j for j in queue.jobs()}
    given = [field.name for field in fields(NewJob) if field.name != "idempotency_key"]
    for asked, job_id in zip(wanted, done.job_ids, strict=True):
        assert [getattr(stored[job_id], name) for name in given] == [getattr(asked, name) for name in given]
        assert (stored[job_id].state, stored[job_id].attempt) == ("waiting", 0)
    # in the order in which they were given; asked again they are the same jobs
    assert [j.job_id for j in reversed(queue.jobs())] == [known[0], *(i for i in done.job_ids if i != known[0])]
    assert queue.submit(wanted).job_ids == done.job_ids


def test_processes_that_submit_the_same_specifications_make_one_job_of_each(place, queue):
    found = in_processes(4, _submit, place)
    assert len(queue.jobs()) == 600
    assert len({tuple(ids) for ids, _ in found}) == 1
    assert sum(n for _, n in found) == 600


def _submit(i: int, place: Place) -> tuple[list[str], int]:
    with place.open() as queue:
        numbers = list(range(600))
        order = numbers[i * 140 :] + numbers[: i * 140]
        found = queue.submit([job(n, idempotency_key=f"k{n}") for n in order])
        by_number = dict(zip(order, found.job_ids, strict=True))
        return [by_number[n] for n in numbers], found.n_new


@pytest.mark.parametrize(
    ("fields", "says"),
    [({"priority": 10}, "priority 10"), ({"priority": True}, "priority"), ({"device": "GPU 0"}, "device"),
     ({"owner": "x" * 256}, "256 characters"), ({"tags": ("a\0",)}, "NUL")],
)  # fmt: skip
def test_a_job_that_cannot_be_is_refused(fields, says):
    with pytest.raises(InputError, match=says):
        job(1, **fields)


# --- claiming


def test_processes_never_hold_one_job_together(place, queue):
    queue.submit([job(i, owner=f"o{i % 3}", priority=i % 2) for i in range(200)])
    found = in_processes(4, _claim_all, place)
    taken = [job_id for ids in found for job_id in ids]
    assert len(taken) == len(set(taken)) == 200


def _claim_all(i: int, place: Place) -> list[str]:
    taken = []
    with place.open() as queue:
        while (claim := queue.claim(f"w{i}", lease_seconds=300)) is not None:
            taken.append(claim.job.job_id)
            if len(taken) % 2:
                queue.complete(claim, run_id=None, summary=None)
    return taken


def test_the_highest_priority_comes_first_and_then_the_oldest(queue):
    queue.submit([job("a"), job("b", priority=9), job("c", priority=0), job("d", priority=9), job("e")])
    assert specs(queue) == ["b", "d", "a", "e", "c"]


def test_owners_share_the_workers_evenly(queue):
    queue.submit([job(f"a{i}", owner="ann") for i in range(6)] + [job(f"b{i}", owner="bob") for i in range(3)])
    assert specs(queue) == ["a0", "b0", "a1", "b1", "a2", "b2", "a3", "a4", "a5"]


def test_a_share_is_what_runs_and_not_what_ran(queue):
    queue.submit([job(f"a{i}", owner="ann") for i in range(3)] + [job("b0", owner="bob"), job("b1", owner="bob")])
    first = claimed(queue)
    assert claimed(queue).job.owner == "bob"
    queue.complete(first, run_id=None, summary=None)
    assert claimed(queue).job.owner == "ann", "bob has one running, ann none"


def test_an_owner_with_a_higher_priority_goes_before_shares(queue):
    queue.submit([job(f"a{i}", owner="ann", priority=6) for i in range(3)] + [job("b", owner="bob")])
    assert specs(queue) == ["a0", "a1", "a2", "b"]


def test_a_worker_takes_jobs_of_its_devices_kinds_and_sweep(queue):
    queue.submit(
        [job("c"), job("g", device="gpu"), job("q", kind="qaoa"), job("s", sweep_id="s1"), job("t", sweep_id="s1", priority=7),
         job("u", sweep_id="s1", device="gpu", priority=9)]
    )  # fmt: skip
    assert queue.claim("w", ["tpu"]) is None
    assert specs(queue, devices=["cpu"], sweep_id="s1", kinds=["vqe"]) == ["t", "s"]
    assert specs(queue, devices=["gpu"], kinds=["qaoa"]) == []
    assert specs(queue, kinds=["qaoa", "circuit"]) == ["q"]
    assert specs(queue, devices=["gpu", "cpu"]) == ["u", "c", "g"]


def test_a_claim_whose_answer_was_lost_is_found_again(queue, monkeypatch):
    queue.submit([job(1), job(2)])
    with_answer_lost_once(monkeypatch)
    claim = claimed(queue)
    assert (claim.job.attempt, claim.token) == (1, 1)
    assert [j.state for j in queue.jobs()] == ["waiting", "running"]


def test_a_claim_that_failed_unanswered_is_the_next_one_of_its_worker(queue, monkeypatch):
    queue.submit([job(1), job(2)])
    monkeypatch.setattr(queue._database, "_retry_seconds", 0)
    with_answer_lost_once(monkeypatch)
    with pytest.raises(QueueAway):
        queue.claim("w")
    assert claimed(queue, "other").job.spec_id == "spec-2"
    claim = claimed(queue, "w")
    assert (claim.job.spec_id, claim.job.attempt) == ("spec-1", 1)


def test_threads_of_one_worker_hold_different_jobs(queue):
    queue.submit([job(i) for i in range(60)])
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: claimed(queue).job.job_id, range(60)))
    assert len(set(found)) == 60


@pytest.mark.parametrize("what", ["claim", "complete"])
def test_a_process_killed_before_its_commit_costs_no_job(place, queue, what):
    (job_id,) = queue.submit([job(1)]).job_ids
    killed(_die_at_commit, place, what)
    assert queue.job(job_id).state != "completed"
    claim = eventually(lambda: queue.claim("w"))
    assert claim.job.attempt <= 2
    queue.complete(claim, run_id="r", summary=None)


def _die_at_commit(place: Place, what: str) -> None:
    queue = place.open()
    claim = queue.claim("dying", lease_seconds=0.2) if what == "complete" else None
    for engine in {queue._database._engine, queue._database._steps}:
        sqlalchemy.event.listen(engine, "commit", die)
    if claim is None:
        queue.claim("dying", lease_seconds=0.2)
    else:
        queue.complete(claim, run_id="r", summary=None)


def test_a_process_killed_with_a_job_gives_it_to_the_next_when_its_lease_ends(place, queue):
    queue.submit([job(1)])
    killed(_die_with_job, place)
    found = eventually(lambda: queue.claim("w"))
    assert (found.job.attempt, found.token) == (2, 2)
    assert "lost in attempt 1: dying" in found.job.error


def _die_with_job(place: Place) -> None:
    place.open().claim("dying", lease_seconds=0.2)
    die()


# --- leases


def test_whoever_slept_past_its_lease_can_write_no_more(queue):
    queue.submit([job(1)])
    late = lapsed(queue, "late")
    current = claimed(queue, "next")
    assert (current.job.job_id, current.token) == (late.job.job_id, 2)
    for write in (
        lambda: queue.renew(late),
        lambda: queue.save_checkpoint(late, Checkpoint("r", 1, -1.0, (0.5,))),
        lambda: queue.complete(late, run_id="r", summary=None),
        lambda: queue.fail(late, "no"),
        lambda: queue.cancelled(late),
        lambda: queue.give_back(late, "stopped"),
        lambda: queue.give_back(late, "died", counts=True),
    ):
        with pytest.raises(LeaseLost, match="no longer held by late"):
            write()
    found = queue.job(late.job.job_id)
    assert (found.state, found.worker, found.checkpoint, found.run_id) == ("running", "next", None, None)
    assert queue.renew(current)


def test_whoever_ended_a_job_cannot_end_it_otherwise(queue):
    queue.submit([job(1)])
    claim = claimed(queue)
    queue.complete(claim, run_id="r", summary={"a": 1})
    queue.complete(claim, run_id="r", summary={"a": 1})  # the word said again, as after a lost answer
    for write in (lambda: queue.fail(claim, "no"), lambda: queue.give_back(claim, "no"), lambda: queue.renew(claim)):
        with pytest.raises(LeaseLost):
            write()
    found = queue.job(claim.job.job_id)
    assert (found.state, found.run_id, found.summary, found.error) == ("completed", "r", {"a": 1}, None)
    assert found.finished_at is not None


def test_a_renewed_lease_does_not_end(queue):
    queue.submit([job(1)])
    claim = claimed(queue, lease_seconds=LAPSED)
    assert queue.renew(claim, 300)
    time.sleep(2 * LAPSED)
    assert queue.claim("next") is None


def test_no_clock_but_the_databases_decides_a_lease(place, queue, monkeypatch):
    """An hour behind or ahead in this process: of its clocks, and of the ids that it makes."""
    ahead = datetime.now(UTC) + timedelta(hours=1)
    monkeypatch.setattr(time, "time", lambda: ahead.timestamp())
    monkeypatch.setattr(submitting, "new_id", lambda: "ffffffff-0000-7000-8000-000000000000")
    queue.submit([job("ahead")])
    monkeypatch.undo()
    queue.submit([job("later")])
    claim = claimed(queue)
    assert claim.job.spec_id == "spec-ahead", "the order is that of submission"
    assert queue.claim("next") is not None
    engine = sqlalchemy.create_engine(_uri(place))
    with engine.connect() as connection:
        sqlite = connection.dialect.name == "sqlite"
        left = connection.execute(
            sqlalchemy.text(
                "SELECT (julianday(lease_until) - julianday('now')) * 86400 FROM vqe_jobs WHERE job_id = :id"
                if sqlite
                else "SELECT extract(epoch FROM lease_until - now()) FROM vqe_jobs WHERE job_id = :id"
            ),
            {"id": claim.job.job_id},
        ).scalar()
    engine.dispose()
    assert 0 < float(left) < 30.1


def _uri(place: Place) -> str:
    from simulator.queue.database import queue_uri

    return queue_uri(place.settings())


def test_a_job_that_is_lost_with_three_workers_is_dead_until_it_is_retried(queue):
    (job_id,) = queue.submit([job(1)]).job_ids
    for attempt in (1, 2, 3):
        assert lapsed(queue, f"w{attempt}").job.attempt == attempt
    assert queue.claim("w4") is None
    found = queue.job(job_id)
    assert (found.state, found.attempt) == ("dead", 3)
    assert found.error == "started 3 times without a result; the last: its worker was lost in attempt 3: w3"
    assert found.finished_at is not None
    assert queue.retry([job_id]) == 1
    again = claimed(queue)
    assert (again.job.attempt, again.job.error, again.token) == (1, None, 4)


def test_a_job_that_is_given_back_waits_at_once_and_does_not_count(queue):
    queue.submit([job(1), job(2)])
    for _ in range(5):
        claim = claimed(queue)
        assert (claim.job.spec_id, claim.job.attempt) == ("spec-1", 1)
        queue.give_back(claim, "the worker stops")
    assert queue.job(claim.job.job_id).error == "the worker stops"


def test_a_job_whose_process_died_counts_and_is_dead_after_three(queue):
    queue.submit([job(1)])
    for _ in range(3):
        claim = claimed(queue)
        queue.give_back(claim, "killed by signal 9", counts=True)
    found = queue.job(claim.job.job_id)
    assert (found.state, found.error) == ("dead", "started 3 times without a result; the last: killed by signal 9")


# --- cancelling and retrying


def test_what_waits_is_cancelled_and_what_runs_is_asked_to_stop(queue):
    ids = queue.submit([job(i) for i in range(3)]).job_ids
    done, running = claimed(queue), claimed(queue)
    queue.complete(done, run_id=None, summary=None)
    found = queue.cancel(ids)
    assert (found.n_cancelled, found.n_requested) == (1, 1)
    assert not queue.renew(running)
    queue.cancelled(running, run_id="r")
    assert [queue.job(i).state for i in ids] == ["completed", "cancelled", "cancelled"]
    assert queue.claim("w") is None


def test_a_job_to_be_cancelled_does_not_wait_again(queue):
    ids = queue.submit([job(1), job(2)]).job_ids
    back, lost = claimed(queue), claimed(queue, lease_seconds=LAPSED)
    queue.cancel(JobFilter(states=("running",)))
    queue.give_back(back, "stopped")
    time.sleep(2 * LAPSED)
    assert queue.claim("w") is None
    assert lost.job.job_id == ids[1]
    assert [queue.job(i).state for i in ids] == ["cancelled", "cancelled"]


def test_retry_brings_back_what_failed_was_cancelled_or_is_dead(queue):
    ids = queue.submit([job(i) for i in range(4)]).job_ids
    queue.fail(claimed(queue), "no", run_id="r")
    queue.complete(claimed(queue), run_id="r", summary=None)
    queue.cancel(ids[2:3])
    assert queue.retry(ids) == 2
    assert [queue.job(i).state for i in ids] == ["waiting", "completed", "waiting", "waiting"]
    found = queue.job(ids[0])
    assert (found.attempt, found.error, found.run_id, found.finished_at) == (0, None, None, None)
    assert queue.retry(JobFilter()) == 0


def test_retry_leaves_what_another_job_has_taken_up(queue):
    queue.submit([job(1), job(2), job(3)])
    for _ in range(3):
        queue.fail(claimed(queue), "no")
    queue.submit([job(1), job(2), job(3)])
    queue.complete(claimed(queue), run_id=None, summary=None)
    queue.fail(claimed(queue), "again")
    assert queue.retry(JobFilter(states=("failed",))) == 1, "1 is completed, 3 waits; of the two of 2 the newest"
    assert [j.state for j in queue.jobs()] == ["waiting", "waiting", "completed", "failed", "failed", "failed"]


# --- checkpoints


def test_a_checkpoint_stays_with_the_job_until_it_completes(queue):
    (job_id,) = queue.submit([job(1)]).job_ids
    claim = claimed(queue)
    assert claim.job.checkpoint is None
    for i in (1, 2):
        kept = Checkpoint("r", i, -1.5 - i, (0.1 * i, 1e-17), {"trust": 0.5})
        queue.save_checkpoint(claim, kept)
    queue.give_back(claim, "stopped")
    claim = lapsed(queue)
    assert claim.job.checkpoint == kept
    queue.fail(claimed(queue), "no")
    queue.retry([job_id])
    claim = claimed(queue)
    assert claim.job.checkpoint == queue.job(job_id).checkpoint == kept
    (listed,) = queue.jobs()
    assert (listed.checkpoint_iteration, listed.checkpoint_energy, listed.checkpoint) == (2, -3.5, None)
    queue.complete(claim, run_id="r", summary=None)
    assert queue.job(job_id).checkpoint is None


def test_a_checkpoint_that_is_too_large_or_no_json_is_refused(queue):
    queue.submit([job(1)])
    claim = claimed(queue)
    noise = os.urandom(1 << 20).hex()
    with pytest.raises(InputError, match="at most 1048576"):
        queue.save_checkpoint(claim, Checkpoint("r", 1, -1.0, (), {"hessian": noise + noise}))
    with pytest.raises(InputError, match="not JSON"):
        queue.save_checkpoint(claim, Checkpoint("r", 1, -1.0, (float("nan"),)))
    queue.save_checkpoint(claim, Checkpoint("r", 1, -1.0, (), {"hessian": noise[: 3 << 19]}))


# --- looking


def test_jobs_are_found_by_what_they_are(queue):
    ids = queue.submit(
        [job(1, owner="ann", sweep_id="s"), job(2, owner="bob"), job(3, kind="qaoa", owner="bob")]
    ).job_ids
    claimed(queue)
    whole = lambda **f: [ids.index(j.job_id) + 1 for j in queue.jobs(**f)]  # noqa: E731
    assert whole() == [3, 2, 1]
    assert whole(owner="bob") == [3, 2]
    assert whole(states=["waiting"], kind="vqe") == [2]
    assert whole(states=["waiting", "running"]) == [3, 2, 1]
    assert whole(states=[]) == []
    assert whole(sweep_id="s") == [1]
    assert whole(name="h2", limit=2) == [3, 2]
    assert whole(after=ids[2], limit=1) == [2]
    assert whole(since=datetime.now(UTC) - timedelta(minutes=5)) == [3, 2, 1]
    assert whole(since=datetime.now(UTC) + timedelta(minutes=5)) == []
    with pytest.raises(InputError, match="state 'lost'"):
        queue.jobs(states=["lost"])
    with pytest.raises(InputError, match="no job nowhere"):
        queue.jobs(after="nowhere")
    with pytest.raises(InputError, match="no job nowhere"):
        queue.job("nowhere")


def test_an_id_may_be_shortened_to_what_no_other_has(queue):
    ids = queue.submit([job(1), job(2)]).job_ids
    assert queue.find([ids[0], ids[1][-6:], ids[1].upper()]) == [ids[0], ids[1], ids[1]]
    shared = ids[0][:8]  # of the time, which is the same for both
    assert queue.find([ids[0][:-1]]) == ids[:1]
    for wrong, says in ((shared, "several jobs"), ("fff0" * 4, "no job"), ("%", "no job id"), ("", "no job id")):
        with pytest.raises(InputError, match=says):
            queue.find([wrong])


def test_counts_and_the_longest_wait_are_told_by_device(queue):
    queue.submit([job(1), job(2), job(3, device="gpu"), job(4, kind="qaoa")])
    claimed(queue)
    assert queue.counts() == {
        ("running", "cpu", "vqe"): 1, ("waiting", "cpu", "vqe"): 1, ("waiting", "gpu", "vqe"): 1, ("waiting", "cpu", "qaoa"): 1,
    }  # fmt: skip
    waits = queue.oldest_waiting()
    assert set(waits) == {"cpu", "gpu"}
    assert all(0 <= seconds < 60 for seconds in waits.values())


def test_jobs_whose_lease_has_ended_are_told_until_a_claim_puts_them_back(queue):
    queue.submit([job(1), job(2), job(3, device="gpu")])
    claimed(queue, "well")
    lapsed(queue, "gone", devices=("gpu",))
    assert queue.expired_leases() == {"gpu": 1}
    assert claimed(queue, "next", devices=("gpu",)).job.spec_id == "spec-3"
    assert queue.expired_leases() == {}


def test_what_failed_was_cancelled_or_died_lately_is_told_by_state(queue):
    assert queue.recently_ended(900) == {"failed": 0, "cancelled": 0, "dead": 0}
    ids = queue.submit([job(i) for i in range(5)]).job_ids
    queue.complete(claimed(queue), run_id=None, summary=None)
    for _ in range(2):
        queue.fail(claimed(queue), "SCF does not converge")
    queue.cancel(ids[3:4])
    for _ in range(3):
        queue.give_back(claimed(queue), "killed by signal 9", counts=True)
    assert queue.recently_ended(900) == {"failed": 2, "cancelled": 1, "dead": 1}
    time.sleep(0.1)
    assert queue.recently_ended(0.05) == {"failed": 0, "cancelled": 0, "dead": 0}
    queue.retry(ids)
    assert queue.recently_ended(900) == {"failed": 0, "cancelled": 0, "dead": 0}


def test_completed_specifications_are_told_by_kind(queue):
    queue.submit([job(1), job(2), job(1, kind="qaoa")])
    for _ in range(2):
        queue.complete(claimed(queue, kinds=["vqe"]), run_id=None, summary=None)
    assert queue.completed_specs("vqe") == {"spec-1", "spec-2"}
    assert queue.completed_specs("vqe", ["spec-1", "spec-9"]) == {"spec-1"}
    assert queue.completed_specs("qaoa") == set()
    assert queue.completed_specs("vqe", []) == set()
    assert queue.completed_specs("circuit") == set()


def test_workers_say_that_they_live_and_what_keeps_them(queue):
    queue.beat("w1", host="here", pid=7, devices=["cpu", "gpu"])
    queue.beat("w2", host="here", pid=8, devices=["cpu"], problem="disk full")
    queue.beat("w1", host="here", pid=7, devices=["cpu", "gpu"], job_id="j")
    first, second = queue.workers(within_seconds=60)
    assert (first.worker, first.devices, first.job_id, first.problem) == ("w1", ("cpu", "gpu"), "j", None)
    assert (second.problem, second.pid) == ("disk full", 8)
    assert 0 <= first.silent_seconds < 60
    assert queue.workers(within_seconds=-1) == []
    queue.leave("w2")
    assert [w.worker for w in queue.workers()] == ["w1"]


# --- opening


def test_processes_that_open_a_new_queue_at_once_all_find_it(place):
    found = in_processes(10, _open_and_submit, place)
    assert sum(found) == 10
    with place.open() as queue:
        assert len(queue.jobs()) == 10


def _open_and_submit(i: int, place: Place) -> int:
    with place.open() as queue:
        return queue.submit([job(i)]).n_new


def test_migrations_make_the_tables_that_the_code_declares(place, queue):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    from simulator.queue import migrate
    from simulator.queue.tables import metadata

    scripts = ScriptDirectory(str(Path(migrate.__file__).parent / "migrations"))
    assert scripts.get_heads() == [migrate.HEAD]
    engine = sqlalchemy.create_engine(_uri(place))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": migrate.VERSION_TABLE})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_a_queue_of_a_newer_version_is_refused(place, queue):
    engine = sqlalchemy.create_engine(_uri(place))
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE vqe_queue_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(QueueAway, match="made by a newer version"):
        place.open()


def with_answer_lost_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next transaction is committed, and then its connection breaks before its user hears of it.

    No real server can be made to break at this very moment.
    """
    whole = Database._transaction

    def lose(self: Database, *arguments: Any) -> Any:
        monkeypatch.setattr(Database, "_transaction", whole)
        whole(self, *arguments)
        error = OperationalError("COMMIT", None, ConnectionResetError("connection reset"))
        error.connection_invalidated = True
        raise error

    monkeypatch.setattr(Database, "_transaction", lose)
