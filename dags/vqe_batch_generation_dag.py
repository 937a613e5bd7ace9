"""On demand: sends a sweep to the workers and waits for its results.

Run it with `{"sweep": "/sweeps/h2.yaml"}`. It resumes: a retry, or a run after a worker was lost, sends the sweep again, and
workers skip what is completed.
"""

import os
import re
import subprocess

from airflow.sdk import Param, dag, task
from vqe_settings import dag_arguments, vqe_command


@dag(
    dag_id="vqe_batch_generation_dag",
    schedule=None,
    doc_md=__doc__,
    params={"sweep": Param("", type="string", description="Path of the experiment's YAML file")},
    **dag_arguments(),
)
def vqe_batch_generation() -> None:
    @task
    def submit(params: dict | None = None) -> str:
        """Sends the runs of the sweep; workers skip those that are completed."""
        assert params is not None
        if not params["sweep"]:
            raise ValueError('name the sweep: run with {"sweep": "/path/experiment.yaml"}')
        return _vqe("sweep", params["sweep"], "--submit").strip()

    @task.sensor(
        poke_interval=float(os.environ.get("VQE_POKE_SECONDS", "60")), timeout=7 * 24 * 3600, mode="reschedule"
    )
    def wait_for_results(params: dict | None = None) -> bool:
        """Whether every run of the sweep has a completed result."""
        assert params is not None
        plan = _vqe("sweep", params["sweep"], "--dry-run")
        found = re.search(r"(\d+) runs, (\d+) completed, (\d+) to run", plan)
        if found is None:
            raise RuntimeError(f"vqe sweep --dry-run told no plan: {plan}")
        print(found[0])
        return found[3] == "0"

    submit() >> wait_for_results()


def _vqe(*arguments: str) -> str:
    """The output of a `vqe` command. It uses the kafka sink, because workers and results are on Kafka."""
    done = subprocess.run(
        [vqe_command(), *arguments],
        env={**os.environ, "VQE_SINK": "kafka", "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"vqe {' '.join(arguments)}: exit {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


vqe_batch_generation()
