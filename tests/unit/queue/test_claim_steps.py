"""What a claim reads does not grow with the jobs that wait: counted in steps of SQLite's virtual machine, not in seconds."""

import sqlalchemy
from queue_promises import Place, job
from sqlalchemy import Engine

EACH = 10
"""Steps between two calls of the counter."""


def steps_of_claims(folder, waiting: int) -> float:
    """Steps of a claim beside so many waiting jobs of 20 owners and two kinds of priority, the mean of ten."""
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    def counted(connection, _record):
        connection.set_progress_handler(step, EACH)

    sqlalchemy.event.listen(Engine, "connect", counted)
    try:
        with Place(folder).open() as queue:
            queue.submit([job(i, owner=f"o{i % 20}", priority=i % 2) for i in range(waiting)])
            queue.claim("first")
            count = 0
            for _ in range(10):
                assert queue.claim("w") is not None
    finally:
        sqlalchemy.event.remove(Engine, "connect", counted)
    return EACH * count / 10


def test_a_claim_takes_as_many_steps_beside_a_hundred_jobs_as_beside_five_thousand(tmp_path):
    few, many = steps_of_claims(tmp_path / "few", 100), steps_of_claims(tmp_path / "many", 5_000)
    assert few > 100, "the counter counts"
    assert many < 1.5 * few
