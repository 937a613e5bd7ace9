"""What the DAGs share: retries, mails, and how they reach Spark and the `vqe` command. All of it from the environment.

| variable | what it says |
|---|---|
| AIRFLOW_CONN_SPARK_DEFAULT | the cluster: {"conn_type": "spark", "host": "spark://master", "port": 7077} |
| AIRFLOW_CONN_SMTP_DEFAULT | the mail server |
| VQE_MAIL_FROM, VQE_MAIL_TO | sender and receivers (comma-separated) of mails; without receivers none are sent |
| VQE_JOBS_DIR | folder of spark_jobs/jobs |
| VQE_COMMAND | the vqe command of its own environment, e.g. /opt/vqe/bin/vqe |
| VQE_CONNECT_URL | Kafka Connect; without it the connector is not checked (there is no Kafka then) |
| VQE_CONNECT_USERNAME, VQE_CONNECT_PASSWORD | who asks Connect (vqe); without a password it is asked without a login |
| VQE_CONNECTOR | name of the sink connector |
| VQE_RETRIES, VQE_RETRY_SECONDS, VQE_RETRY_MAX_SECONDS | how often, from which delay, to which delay it is tried again |
| VQE_MAINTENANCE_PAUSED | true: a new installation starts with table_maintenance_dag paused |
| VQE_POKE_SECONDS | how often a sweep's results are looked for |
| VQE_SPARK_CONF | more Spark settings, a JSON object |
"""

import base64
import json
import os
from datetime import datetime, timedelta
from typing import Any

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.providers.smtp.notifications.smtp import SmtpNotifier

START = datetime(2026, 1, 1)
DEFAULT_ARGS: dict[str, Any] = {
    "retries": int(os.environ.get("VQE_RETRIES", "4")),
    "retry_delay": timedelta(seconds=float(os.environ.get("VQE_RETRY_SECONDS", "60"))),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(seconds=float(os.environ.get("VQE_RETRY_MAX_SECONDS", "3600"))),
}


def mail(outcome: str) -> list[SmtpNotifier]:
    """The mail of a DAG run that succeeded or failed."""
    receivers = [name.strip() for name in os.environ.get("VQE_MAIL_TO", "").split(",") if name.strip()]
    if not receivers:
        return []
    return [
        SmtpNotifier(
            smtp_conn_id="smtp_default",
            from_email=os.environ["VQE_MAIL_FROM"],
            to=receivers,
            subject=f"{{{{ dag.dag_id }}}} {outcome}",
            html_content=f"<p>{{{{ dag.dag_id }}}} {outcome}: run {{{{ run_id }}}}.</p>",
        )
    ]


def dag_arguments() -> dict[str, Any]:
    """What every DAG has: one run at a time, retries, mails."""
    return {
        "start_date": START,
        "catchup": False,
        "max_active_runs": 1,
        "default_args": DEFAULT_ARGS,
        "on_success_callback": mail("succeeded"),
        "on_failure_callback": mail("failed"),
        "tags": ["vqe"],
    }


def spark_job(job: str, *, task_id: str, arguments: list[str] | None = None, **more: Any) -> SparkSubmitOperator:
    """A job of spark_jobs/jobs on the cluster."""
    conf = {"spark.ui.showConsoleProgress": "false", **json.loads(os.environ.get("VQE_SPARK_CONF", "{}"))}
    return SparkSubmitOperator(
        task_id=task_id,
        conn_id="spark_default",
        application=f"{os.environ.get('VQE_JOBS_DIR', '/opt/vqe/spark_jobs/jobs')}/{job}.py",
        name=f"vqe {job}",
        conf=conf,
        application_args=arguments or [],
        **more,
    )


def connect_login() -> dict[str, str]:
    """The HTTP header of requests to Kafka Connect; empty where it needs no login."""
    password = os.environ.get("VQE_CONNECT_PASSWORD")
    if not password:
        return {}
    login = f"{os.environ.get('VQE_CONNECT_USERNAME') or 'vqe'}:{password}"
    return {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}


def vqe_command() -> str:
    """The `vqe` command, of an environment that is not Airflow's: their requirements exclude each other."""
    return os.environ.get("VQE_COMMAND", "/opt/vqe/bin/vqe")
