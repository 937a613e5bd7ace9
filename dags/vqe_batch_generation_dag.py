"""On demand: puts a sweep into the work queue and waits until its runs have ended.

Run it with `{"sweep": "/sweeps/h2.yaml"}`. It ends well when every run is completed, and fails as soon as one cannot be: its job failed,
was cancelled, or took its worker with it three times. It resumes: a retry submits what is not completed, and nothing else.
"""

import json
import os
import subprocess

from airflow.sdk import Param, dag, task
from airflow.sdk.exceptions import AirflowFailException
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
        """Puts the runs of the sweep that are not completed into the queue."""
        assert params is not None
        if not params["sweep"]:
            raise ValueError('name the sweep: run with {"sweep": "/path/experiment.yaml"}')
        return _vqe("sweep", params["sweep"], "--submit").strip()

    @task.sensor(
        poke_interval=float(os.environ.get("VQE_POKE_SECONDS", "60")), timeout=7 * 24 * 3600, mode="reschedule"
    )
    def wait_for_results(params: dict | None = None) -> bool:
        """Whether every run of the sweep is completed; fails where one cannot be."""
        assert params is not None
        plan = json.loads(_vqe("sweep", params["sweep"], "--dry-run", "--json"))
        print(plan)
        if plan["errors"]:
            raise AirflowFailException(f"sweep {plan['sweep_id']}: {'; '.join(plan['errors'])} (see vqe jobs list)")
        return plan["to_run"] == 0

    submit() >> wait_for_results()


def _vqe(*arguments: str) -> str:
    """What the `vqe` command says."""
    done = subprocess.run(
        [vqe_command(), *arguments], env={**os.environ, "VQE_SINK": "kafka"}, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"vqe {' '.join(arguments)}: exit {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


vqe_batch_generation()
