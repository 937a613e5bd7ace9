#!/usr/bin/env python3
"""Makes the dashboards: ``python monitoring/grafana/make_dashboards.py`` writes dashboards/*.json, which are committed.

Tolerances are those of ``simulator/trust.py``: run it where the package is installed, or from the checkout.
Only what Grafana 10.0 knows as well as today's releases: schema version 38 and the panels stat, timeseries, trend, table and bargauge.
"""

from __future__ import annotations

import json
import pathlib
import sys
from dataclasses import dataclass, field
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE.parents[1]))  # the checkout, where the package is not installed

from simulator.trust import CHEMICAL_ACCURACY_MHA, Check  # noqa: E402

DATASOURCE = {"type": "prometheus", "uid": "prometheus"}
ACCURACY = f"{CHEMICAL_ACCURACY_MHA} mHa"
UNPHYSICAL = {
    Check.ELECTRON_NUMBER: "a wrong electron number",
    Check.SPIN: "a wrong spin",
    Check.ENERGY: "an energy below the exact one",
    Check.ENGINES: "engines that differ",
}
"""What a result has that fails a check."""
GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"
OPTIONAL = {"GPU load", "GPU temperature", "GPU memory", "GPU power"}
"""Panels that have data only where a run has an NVIDIA GPU."""

WIDTH = 24
CURVES = ("timeseries", "trend")
FILTER = 'molecule=~"$molecule", ansatz=~"$ansatz", engine=~"$engine"'


def _any_of(told: dict[Check, str]) -> str:
    """What the checks tell, in their order: `a, b or c`."""
    *first, last = (told[check] for check in sorted(Check, key=list(told).index))
    return f"{', '.join(first)} or {last}"


@dataclass
class Query:
    """A PromQL expression and the legend of what it gives."""

    expr: str
    legend: str = ""
    instant: bool = False


@dataclass
class Panel:
    """A panel; position is worked out from the order and the sizes."""

    kind: str
    title: str
    description: str
    queries: list[Query]
    unit: str = "short"
    width: int = 8
    height: int = 8
    steps: list[tuple[float | None, str]] = field(default_factory=lambda: [(None, GREEN)])
    decimals: int | None = None
    log: bool = False
    stack: bool = False
    lines: bool = False  # draw the thresholds as lines
    mappings: dict[str, tuple[str, str]] = field(default_factory=dict)
    columns: dict[str, tuple[str, str]] = field(default_factory=dict)  # table: field -> (shown name, unit)
    minimum: float | None = None
    maximum: float | None = None
    no_value: str | None = None
    link: str | None = None  # uid of the dashboard that tells more


def stat(title: str, description: str, expr: str, unit: str = "short", **more: Any) -> Panel:
    return Panel("stat", title, description, [Query(expr, instant=True)], unit, **{"width": 4, "height": 4, **more})


def series(title: str, description: str, queries: list[Query], unit: str = "short", **more: Any) -> Panel:
    return Panel("timeseries", title, description, queries, unit, **more)


def against_iterations(title: str, description: str, metric: str, unit: str, shape: str = "{}", **more: Any) -> Panel:
    """A curve of the last run of $process with its iterations on the horizontal axis; `shape` is put around the metric."""
    curve = Query(shape.format(LAST_RUN.replace("METRIC", metric)), title.split()[0].lower())
    iterations = Query(LAST_RUN.replace("METRIC", "vqe_run_iterations"), "iteration")
    return Panel("trend", title, description, [iterations, curve], unit, width=12, height=10, **more)


def bars(title: str, description: str, queries: list[Query], unit: str = "short", **more: Any) -> Panel:
    for query in queries:
        query.instant = True
    return Panel("bargauge", title, description, queries, unit, **more)


def table(
    title: str, description: str, queries: list[Query], columns: dict[str, tuple[str, str]], **more: Any
) -> Panel:
    for query in queries:
        query.instant = True
    return Panel("table", title, description, queries, columns=columns, **more)


BAD_ABOVE_0: list[tuple[float | None, str]] = [(None, GREEN), (1, RED)]
GOOD_AT_1: list[tuple[float | None, str]] = [(None, RED), (1, GREEN)]
ACCURATE: list[tuple[float | None, str]] = [(None, GREEN), (CHEMICAL_ACCURACY_MHA, RED)]
LAST_RUN = (
    'METRIC{instance="$process"} and on (instance) (vqe_run_started_timestamp_seconds{instance="$process"} == on (instance) '
    'group_left () max by (instance) (max_over_time(vqe_run_started_timestamp_seconds{instance="$process"}[$__range] @ end())))'
)
"""Values of the run that $process began last in the shown time; earlier runs of the process have other start times."""

RUN = "{{molecule}} {{ansatz}} {{optimizer}} {{instance}}"


def overview() -> list[Panel]:
    return [
        stat("Alerts firing", "Alerts of any severity that fire now. Alertmanager and docs/runbook.md tell what to do.",
             'count(ALERTS{alertstate="firing"}) or vector(0)', steps=BAD_ABOVE_0),
        stat("Services down", "Scrape targets that do not answer, of all that Prometheus knows.",
             "count(up == 0) or vector(0)", steps=BAD_ABOVE_0, link="vqe-resources"),
        stat("Sink", "Whether the connector and all its tasks run. Down, events stay in Kafka and nothing reaches the tables.",
             "min(vqe_connector_running)", steps=GOOD_AT_1, mappings={"1": ("RUNNING", GREEN), "0": ("DOWN", RED)},
             link="vqe-pipeline"),
        stat("Failed or lost runs", "Runs that failed in the last 15 minutes, and runs that began and never ended.",
             'sum(vqe_recent_runs{status="failed"}) + sum(vqe_runs_lost)', steps=BAD_ABOVE_0, link="vqe-performance"),
        stat("Results waiting for the tables", "How long the oldest result that no batch has taken waits.",
             "max(vqe_batch_pending_seconds)", "s", steps=[(None, GREEN), (86_400, YELLOW), (93_600, RED)],
             link="vqe-pipeline"),
        stat("Events waiting on disks", "Bytes of events on workers' disks that Kafka has not acknowledged.",
             "sum(vqe_spool_bytes)", "bytes", steps=[(None, GREEN), (100e6, YELLOW), (8e9, RED)], link="vqe-pipeline"),
        series("Runs", "Runs at work, and results of the last 15 minutes by status.",
               [Query("sum(vqe_runs_running)", "running"),
                Query("sum by (status) (vqe_recent_runs)", "{{status}}, last 15 min")],
               minimum=0, link="vqe-convergence"),
        series("Events per second", "Records written to all event topics.",
               [Query('sum(vqe:topic_records:rate5m{topic!~"vqe_dlq_.+"})', "events")], "eps", minimum=0,
               link="vqe-pipeline"),
        bars("Services", "Each service's worst target: 1 up, 0 down.", [Query("min by (job) (up)", "{{job}}")],
             steps=GOOD_AT_1, minimum=0, maximum=1, mappings={"1": ("up", GREEN), "0": ("DOWN", RED)}),
        table("Results so far", "Runs in the topics since their retention began, with their accuracy.",
              [Query("sum by (molecule, ansatz, engine) (vqe_runs_total)"),
               Query('sum by (molecule, ansatz, engine) (vqe_runs_total{status="failed"})'),
               Query("sum by (molecule, ansatz, engine) (vqe_runs_not_converged_total)"),
               Query("avg by (molecule, ansatz, engine) (vqe:chemical_accuracy:ratio)"),
               Query("avg by (molecule, ansatz, engine) (vqe:result_duration_seconds:mean)")],
              {"molecule": ("molecule", ""), "ansatz": ("ansatz", ""), "engine": ("engine", ""), "Value #A": ("runs", "short"),
               "Value #B": ("failed", "short"), "Value #C": ("not converged", "short"),
               "Value #D": ("within chemical accuracy", "percentunit"), "Value #E": ("mean time", "s")}, width=24),
        series("Jobs", "Jobs of the queue that wait and run, and those that were given up in the last 15 minutes.",
               [Query('sum(vqe_queue_jobs{state="waiting"})', "waiting"), Query('sum(vqe_queue_jobs{state="running"})', "running"),
                Query('sum(vqe_queue_recent_jobs{state="dead"})', "dead, last 15 min")], width=12, minimum=0, link="vqe-pipeline"),
        series("Workers", "Workers that take jobs, by device, and those that take none because something is wrong.",
               [Query("sum by (device) (vqe_queue_workers)", "{{device}}"),
                Query("sum(vqe_queue_workers_with_problem)", "with a problem")], width=12, minimum=0, link="vqe-pipeline"),
    ]  # fmt: skip


def convergence() -> list[Panel]:
    return [
        against_iterations("Error against iterations", "Distance of the energy to the reference along the optimization that $process "
                           f"began last, in millihartree. The line is chemical accuracy, {ACCURACY}. A point each ten seconds; the tables "
                           "have every iteration.", "vqe_run_error_hartree", "suffix: mHa", "1000 * abs({})", log=True,
                           steps=ACCURATE, lines=True, decimals=4),
        against_iterations("Energy against iterations", "Total energy along the optimization that $process began last, hartree.",
                           "vqe_run_energy_hartree", "suffix: Ha", decimals=6),
        series("Error to the reference, live", "Distance of the running optimizations' energies to the reference, in millihartree. "
               f"The line is chemical accuracy, {ACCURACY}. Pushed every ten seconds: a run shorter than that shows its end only.",
               [Query(f"1000 * abs(vqe_run_error_hartree{{{FILTER}}})", RUN)], "suffix: mHa", width=12, height=10, log=True,
               steps=ACCURATE, lines=True, decimals=4),
        series("Energy, live", "Total energy of the last iteration, hartree.",
               [Query(f"vqe_run_energy_hartree{{{FILTER}}}", RUN)], "suffix: Ha", width=12, height=10, decimals=6),
        series("Gradient norm", "Norm of the energy's gradient, hartree per radian; optimizers without gradients have none.",
               [Query(f"vqe_run_gradient_norm_hartree{{{FILTER}}}", RUN)], "suffix: Ha", log=True),
        series("Iterations", "Iterations that the running optimizations have made: the horizontal axis of a convergence plot; "
               "a line that stops rising is a run that hangs or has ended.",
               [Query(f"vqe_run_iterations{{{FILTER}}}", RUN)], minimum=0),
        series("Evaluations per second", "Energy evaluations of the running optimizations.",
               [Query(f"clamp_min(deriv(vqe_run_evaluations{{{FILTER}}}[2m]), 0)", RUN)], "ops", minimum=0),
        table("Runs seen in the last ten minutes", "Last values that runs have pushed. `ended` is 1970 while a run goes on.",
              [Query(f"vqe_run_iterations{{{FILTER}}}"), Query(f"vqe_run_energy_hartree{{{FILTER}}}"),
               Query(f"1000 * vqe_run_error_hartree{{{FILTER}}}"), Query(f"vqe_run_evaluations{{{FILTER}}}"),
               Query(f"vqe_run_elapsed_seconds{{{FILTER}}}"), Query(f"1000 * vqe_run_ended_timestamp_seconds{{{FILTER}}}")],
              {"instance": ("process", ""), "molecule": ("molecule", ""), "ansatz": ("ansatz", ""),
               "optimizer": ("optimizer", ""), "engine": ("engine", ""), "device": ("device", ""),
               "Value #A": ("iterations", "short"), "Value #B": ("energy / Ha", "none"), "Value #C": ("error / mHa", "none"),
               "Value #D": ("evaluations", "short"), "Value #E": ("optimizing for", "s"),
               "Value #F": ("ended", "dateTimeAsIso")}, width=24),
        bars("Iterations to the end", "Iterations per ended run, mean.",
             [Query(f"sum by (molecule, ansatz, optimizer) (vqe_iterations_total{{{FILTER}}}) / "
                    f"sum by (molecule, ansatz, optimizer) (vqe_result_duration_seconds_count{{{FILTER}}})",
                    "{{molecule}} {{ansatz}} {{optimizer}}")], width=12, steps=[(None, BLUE)], minimum=0, decimals=1),
        bars("Runs that did not converge", "Completed runs that ended without converging, since the topics' retention began.",
             [Query(f"sum by (molecule, ansatz, optimizer) (vqe_runs_not_converged_total{{{FILTER}}})",
                    "{{molecule}} {{ansatz}} {{optimizer}}")], width=12, steps=BAD_ABOVE_0, minimum=0),
    ]  # fmt: skip


def accuracy() -> list[Panel]:
    return [
        stat("Within chemical accuracy", f"Share of results that have a reference and lie within {ACCURACY} of it.",
             f"sum(vqe_runs_chemically_accurate_total{{{FILTER}}}) / sum(vqe_runs_compared_total{{{FILTER}}})", "percentunit",
             width=6, steps=[(None, RED), (0.8, YELLOW), (0.95, GREEN)], decimals=1),
        stat("Largest error now", "Of the last converged runs of all molecules, in millihartree.",
             f"1000 * max(abs(vqe_accuracy_error_hartree{{{FILTER}}}))", "suffix: mHa", width=6, steps=ACCURATE, decimals=3),
        stat("Unphysical results", f"Results with {_any_of(UNPHYSICAL)}, since the topics' retention began.", f"sum(vqe_runs_unphysical_total{{{FILTER}}})", width=6,
             steps=BAD_ABOVE_0),
        stat("Results compared", "Results that have a reference energy, since the topics' retention began.",
             f"sum(vqe_runs_compared_total{{{FILTER}}})", width=6, steps=[(None, BLUE)]),
        table("Against the reference", "The last converged run without shots and noise of each problem, the reference energy (exact "
              "where it is feasible), and the median error of the runs before it.",
              [Query(f"vqe_accuracy_energy_hartree{{{FILTER}}}"), Query(f"vqe_accuracy_reference_hartree{{{FILTER}}}"),
               Query(f"1000 * vqe_accuracy_error_hartree{{{FILTER}}}"), Query(f"vqe_accuracy_correlation_ratio{{{FILTER}}}"),
               Query(f"1000 * vqe_accuracy_usual_error_hartree{{{FILTER}}}")],
              {"molecule": ("molecule", ""), "basis": ("basis", ""), "ansatz": ("ansatz", ""), "optimizer": ("optimizer", ""),
               "engine": ("engine", ""), "Value #A": ("energy / Ha", "none"), "Value #B": ("reference / Ha", "none"),
               "Value #C": ("error / mHa", "none"), "Value #D": ("correlation found", "percentunit"),
               "Value #E": ("usual error / mHa", "none")}, width=24, height=9),
        bars("Error by molecule", "The last converged runs' distance to the reference, in millihartree.",
             [Query(f"1000 * max by (molecule, ansatz, basis) (abs(vqe_accuracy_error_hartree{{{FILTER}}}))",
                    "{{molecule}} {{ansatz}} {{basis}}")], "suffix: mHa", steps=ACCURATE, minimum=0, decimals=4),
        bars("Correlation energy found", "Share of the difference between Hartree-Fock and the reference that the last run found.",
             [Query(f"min by (molecule, ansatz, basis) (vqe_accuracy_correlation_ratio{{{FILTER}}})",
                    "{{molecule}} {{ansatz}} {{basis}}")], "percentunit",
             steps=[(None, RED), (0.9, YELLOW), (0.99, GREEN)], minimum=0, maximum=1, decimals=2),
        series("95 % of errors lie below", "Estimated from a histogram of all completed runs, shots and noise among them, in millihartree.",
               [Query(f"1000 * vqe:result_error_hartree:p95{{{FILTER}}}", "{{molecule}} {{ansatz}} {{engine}}")], "suffix: mHa",
               log=True, steps=ACCURATE, lines=True),
    ]  # fmt: skip


def performance() -> list[Panel]:
    mean = f"vqe:result_duration_seconds:mean{{{FILTER}}}"
    return [
        stat("Runs ended", "Since the topics' retention began.", f"sum(vqe_runs_total{{{FILTER}}})", width=6, steps=[(None, BLUE)]),
        stat("Mean time of a run", "Over all ended runs.",
             f"sum(vqe_result_duration_seconds_sum{{{FILTER}}}) / sum(vqe_result_duration_seconds_count{{{FILTER}}})", "s",
             width=6, steps=[(None, BLUE)]),
        stat("Evaluations", "Energy evaluations of ended runs.", f"sum(vqe_evaluations_total{{{FILTER}}})", width=6,
             steps=[(None, BLUE)]),
        stat("Jobs waiting", "Jobs in the queue that no worker has begun.", 'sum(vqe_queue_jobs{state="waiting"})',
             width=6, steps=[(None, GREEN), (1000, YELLOW)]),
        bars("CPU against GPU", "Mean seconds of a run, by molecule, engine and device.",
             [Query(f"avg by (molecule, engine, device) ({mean})", "{{molecule}} {{engine}} {{device}}")], "s", width=12,
             steps=[(None, BLUE)], minimum=0),
        bars("Where the time goes", "Seconds per run by stage, mean over molecules.",
             [Query(f"avg by (stage, device) (vqe:stage_seconds:per_run{{{FILTER}}})", "{{stage}} ({{device}})")], "s",
             width=12, steps=[(None, BLUE)], minimum=0),
        series("Time of runs", "Half of the runs of the last hour were faster than the first, 95 % faster than the second line; "
               "estimated from a histogram. Without runs in the last hour: of all.",
               [Query(f"vqe:result_duration_seconds:p50{{{FILTER}}}", "{{molecule}} {{ansatz}} {{engine}} {{device}} half"),
                Query(f"vqe:result_duration_seconds:p95{{{FILTER}}}", "{{molecule}} {{ansatz}} {{engine}} {{device}} 95 %"),
                Query(f"max by (molecule) ({mean})", "{{molecule}} mean of all")], "s", width=12, minimum=0),
        series("Results in the last 15 minutes", "By engine and device.",
               [Query(f"sum by (engine, device) (vqe_recent_runs{{{FILTER}}})", "{{engine}} {{device}}")], width=12,
               stack=True, minimum=0),
        table("By problem", "Mean over all ended runs since the topics' retention began.",
              [Query(f"sum by (molecule, ansatz, optimizer, engine, device) (vqe_result_duration_seconds_count{{{FILTER}}})"),
               Query(f"sum by (molecule, ansatz, optimizer, engine, device) (vqe_result_duration_seconds_sum{{{FILTER}}}) / "
                     f"sum by (molecule, ansatz, optimizer, engine, device) (vqe_result_duration_seconds_count{{{FILTER}}})"),
               Query(f"sum by (molecule, ansatz, optimizer, engine, device) (vqe_evaluations_total{{{FILTER}}}) / "
                     f"sum by (molecule, ansatz, optimizer, engine, device) (vqe_result_duration_seconds_count{{{FILTER}}})")],
              {"molecule": ("molecule", ""), "ansatz": ("ansatz", ""), "optimizer": ("optimizer", ""), "engine": ("engine", ""),
               "device": ("device", ""), "Value #A": ("runs", "short"), "Value #B": ("mean time", "s"),
               "Value #C": ("evaluations a run", "short")}, width=24),
    ]  # fmt: skip


def pipeline() -> list[Panel]:
    return [
        stat("Connector", "Whether the connector and all its tasks run.", "min(vqe_connector_running)", steps=GOOD_AT_1,
             mappings={"1": ("RUNNING", GREEN), "0": ("DOWN", RED)}),
        stat("Workers", "Workers that answer Prometheus.", 'count(up{job="vqe-worker"} == 1) or vector(0)',
             steps=[(None, RED), (1, GREEN)]),
        stat("Dead letters", "Records on the dead letter topics that retention has not deleted.",
             'sum(vqe_topic_kept_records{topic=~"vqe_dlq_.+"})', steps=BAD_ABOVE_0),
        stat("Newest event in the tables", "Its age.", "time() - max(vqe_tables_newest_event_timestamp_seconds)", "s",
             steps=[(None, GREEN), (93_600, YELLOW)]),
        stat("Last batch took", "From its begin to the commit of its ledger.", "max(vqe_batch_last_seconds)", "s",
             steps=[(None, GREEN), (600, YELLOW)]),
        stat("Events set aside", "Refused for good by Kafka or the registry, kept on workers' disks.", "sum(vqe_rejected_events)",
             steps=BAD_ABOVE_0),
        stat("Objects rejected", "By the last batch; processing_metadata names them.", "max(vqe_batch_last_rejected_objects)",
             steps=BAD_ABOVE_0),
        series("Events per second by topic", "Records written to Kafka, mean of five minutes.",
               [Query('vqe:topic_records:rate5m{topic!~"vqe_dlq_.+"}', "{{topic}}")], "eps", minimum=0),
        series("Consumer lag", "Records that a group has not committed; the sink's is what is not stored.",
               [Query("vqe:consumer_lag:records", "{{group}}")], minimum=0),
        series("Sink: bytes stored per second", "Bytes of objects that the sink's tasks have written.",
               [Query("sum by (task) (rate(vqe_connect_sink_bytes_total[5m]))", "task {{task}}")], "Bps", minimum=0),
        series("Sink: age of what is not stored", "The oldest record that a task holds. It stays under flush.ms (10 s) unless storage "
               "is away.", [Query("max by (task) (vqe_connect_sink_oldest_unflushed_seconds)", "task {{task}}")], "s", minimum=0,
               steps=[(None, GREEN), (60, RED)], lines=True),
        series("Results waiting for the tables", "How long the oldest result that no batch has taken waits; the other line is when "
               "that is too long.", [Query("max(vqe_batch_pending_seconds)", "waiting"),
                                     Query("max(vqe_batch_late_after_seconds)", "late after")], "s", minimum=0),
        series("Events waiting on disks", "Bytes on workers' disks that Kafka has not acknowledged.",
               [Query("sum by (instance) (vqe_spool_bytes)", "{{instance}}")], "bytes", minimum=0),
        series("Table growth", "Rows by table.", [Query("vqe_table_rows", "{{table}}")], width=12, minimum=0),
        table("Tables", "Rows, data files and their bytes.",
              [Query("vqe_table_rows"), Query("vqe_table_files"), Query("vqe_table_bytes")],
              {"table": ("table", ""), "Value #A": ("rows", "short"), "Value #B": ("files", "short"), "Value #C": ("size", "bytes")},
              width=12),
        bars("Raw objects", "In the ledger, by status.", [Query("vqe_batch_objects_total", "{{status}}")], steps=[(None, BLUE)],
             minimum=0, height=6),
        bars("Quality issues", "Rows of quality_issues by check.", [Query("vqe_quality_issues", "{{check}}")], steps=BAD_ABOVE_0,
             minimum=0, height=6),
        bars("Jobs", "What became of the jobs that the workers that run now have taken.",
             [Query("sum by (outcome) (vqe_worker_jobs_total)", "{{outcome}}")], steps=[(None, BLUE)], minimum=0, height=6),
        series("DAG runs", "DAG runs that ended since the exporter began, and failed ones.",
               [Query("sum by (dag_id) (airflow_dagrun_duration_success_seconds_count)", "{{dag_id}} succeeded"),
                Query("sum by (dag_id) (airflow_dagrun_duration_failed_seconds_count) "
                      "or 0 * sum by (dag_id) (airflow_dagrun_duration_success_seconds_count)", "{{dag_id}} failed")],
               width=12, minimum=0),
        series("Airflow's heartbeats", "Per minute; a line at 0 is a process that hangs or is gone.",
               [Query("60 * rate(airflow_scheduler_heartbeat_total[5m])", "scheduler"),
                Query("60 * rate(airflow_dag_processor_heartbeat_total[5m])", "DAG processor")], width=12, minimum=0),
        series("Jobs waiting", "Jobs of the queue that no worker has begun, by device.",
               [Query('sum by (device) (vqe_queue_jobs{state="waiting"})', "{{device}}")], minimum=0),
        series("Oldest job waiting", "How long the job has waited that waits longest; the other line is when that is too long.",
               [Query("max by (device) (vqe_queue_oldest_waiting_seconds)", "{{device}}"),
                Query("max(vqe_queue_late_after_seconds)", "late after")], "s", minimum=0),
        series("Jobs running", "Jobs that workers hold, and those of them whose worker is gone and that no other has taken up.",
               [Query('sum by (device) (vqe_queue_jobs{state="running"})', "{{device}}"),
                Query("sum by (device) (vqe_queue_expired_leases)", "{{device}}, worker gone")], minimum=0),
        bars("Jobs ended", "All jobs of the queue that have ended, by state.",
             [Query('sum by (state) (vqe_queue_jobs{state=~"completed|failed|cancelled|dead"})', "{{state}}")], steps=[(None, BLUE)],
             minimum=0),
        series("Workers of the queue", "Workers that take jobs, by device, and those that take none because something is wrong.",
               [Query("sum by (device) (vqe_queue_workers)", "{{device}}"),
                Query("sum(vqe_queue_workers_with_problem)", "with a problem")], minimum=0),
        series("Jobs per minute", "What becomes of the jobs that workers take, mean of five minutes.",
               [Query("60 * sum by (outcome) (rate(vqe_worker_jobs_total[5m]))", "{{outcome}}")], minimum=0),
    ]  # fmt: skip


def resources() -> list[Panel]:
    return [
        series("CPU of runs", "Cores that a run's process uses.", [Query(f"vqe_run_cpu_ratio{{{FILTER}}}", RUN)], "percentunit", minimum=0),
        series("Memory of runs", "Resident memory of a run's process.", [Query(f"vqe_run_memory_bytes{{{FILTER}}}", RUN)], "bytes",
               minimum=0),
        series("Disk I/O of runs", "Bytes per second that a run's process reads and writes.",
               [Query(f"clamp_min(deriv(vqe_run_disk_written_bytes{{{FILTER}}}[2m]), 0)", RUN + " written"),
                Query(f"clamp_min(deriv(vqe_run_disk_read_bytes{{{FILTER}}}[2m]), 0)", RUN + " read")], "Bps", minimum=0),
        bars("Disk left", "Share that is free: workers' data directories and the object storage.",
             [Query("vqe:disk_free:ratio", "{{disk}} {{instance}}")], "percentunit",
             steps=[(None, RED), (0.1, YELLOW), (0.25, GREEN)], minimum=0, maximum=1),
        series("Memory left on machines of runs", "What a run's machine has available.",
               [Query(f"min by (instance) (vqe_run_memory_available_bytes{{{FILTER}}})", "{{instance}}")], "bytes", minimum=0),
        series("Memory of services", "Resident memory, Java's heap for services on a JVM.",
               [Query('sum by (job) (process_resident_memory_bytes{job!~"kafka|connect|registry"})', "{{job}}"),
                Query('sum by (job) (jvm_memory_used_bytes{area="heap"})', "{{job}} heap")], "bytes", minimum=0),
        series("Broker traffic", "Bytes that the broker takes and gives.",
               [Query("sum(rate(kafka_broker_bytes_in_total[5m]))", "in"), Query("sum(rate(kafka_broker_bytes_out_total[5m]))", "out")],
               "Bps", minimum=0),
        series("Broker: 99 % of requests are faster", "Total time of produce and fetch requests; fetches wait for records by design.",
               [Query('max by (request) (kafka_broker_request_p99_seconds)', "{{request}}")], "s", minimum=0),
        stat("Partitions without a leader", "Offline, or with too few replicas in step.",
             "sum(kafka_controller_offline_partitions) + sum(kafka_broker_under_replicated_partitions)", steps=BAD_ABOVE_0, height=8,
             width=4),
        stat("Spark workers", "Alive at the master.", "sum(metrics_master_aliveWorkers_Value)", steps=[(None, RED), (1, GREEN)],
             height=8, width=4),
        series("Object storage", "Bytes used, of the deployment's disks.",
               [Query("sum(minio_cluster_capacity_usable_total_bytes) - sum(minio_cluster_capacity_usable_free_bytes)", "used")],
               "bytes", minimum=0),
        series("Spark: cores in use", "Of the workers together.",
               [Query("sum(metrics_worker_coresUsed_Value)", "in use"), Query("sum(metrics_worker_coresFree_Value)", "free")],
               minimum=0, stack=True),
        series("Registry: requests per second", "By path, mean of five minutes.",
               [Query("sum(rate(rest_requests_count_total[5m])) or sum(rate(rest_requests_seconds_count[5m]))", "requests")], "reqps",
               minimum=0),
        stat("GPUs at work", "NVIDIA GPUs on the machines of runs of the last ten minutes.", f"sum(vqe_run_gpus{{{FILTER}}}) or vector(0)",
             steps=[(None, BLUE)], width=4, height=8),
        series("GPU load", "Share of time in which the GPU computes.",
               [Query(f"vqe_run_gpu_utilization_ratio{{{FILTER}}}", "{{instance}} GPU {{gpu}} {{gpu_name}}")], "percentunit", minimum=0,
               maximum=1, width=5, no_value="no GPU"),
        series("GPU temperature", "From about 90 °C on a GPU slows itself down.",
               [Query(f"vqe_run_gpu_temperature_celsius{{{FILTER}}}", "{{instance}} GPU {{gpu}}")], "celsius",
               steps=[(None, GREEN), (85, RED)], lines=True, width=5, no_value="no GPU"),
        series("GPU memory", "In use.", [Query(f"vqe_run_gpu_memory_used_bytes{{{FILTER}}}", "{{instance}} GPU {{gpu}}")], "bytes",
               minimum=0, width=5, no_value="no GPU"),
        series("GPU power", "Drawn.", [Query(f"vqe_run_gpu_power_watts{{{FILTER}}}", "{{instance}} GPU {{gpu}}")], "watt", minimum=0,
               width=5, no_value="no GPU"),
    ]  # fmt: skip


DASHBOARDS = {
    "overview": ("VQE overview", "Is everything well?", overview, False),
    "convergence": ("VQE convergence", "Optimizations as they go on.", convergence, True),
    "accuracy": ("VQE accuracy", "Energies against the reference.", accuracy, True),
    "performance": ("VQE performance", "What runs cost.", performance, True),
    "pipeline": ("VQE pipeline", "Events from the run to the tables.", pipeline, False),
    "resources": ("VQE resources", "CPU, memory, disks, GPUs and services.", resources, True),
}


def uid(name: str) -> str:
    return f"vqe-{name}"


def dashboard(name: str) -> dict[str, Any]:
    """A dashboard as Grafana takes it."""
    title, description, make, filtered = DASHBOARDS[name]
    links = [
        {"title": DASHBOARDS[other][0].removeprefix("VQE ").capitalize(), "type": "link", "url": f"/d/{uid(other)}",
         "icon": "dashboard", "keepTime": True, "includeVars": True, "targetBlank": False, "asDropdown": False, "tags": [],
         "tooltip": DASHBOARDS[other][1]}
        for other in DASHBOARDS if other != name
    ]  # fmt: skip
    return {
        "uid": uid(name), "title": title, "description": description, "tags": ["vqe"], "schemaVersion": 38, "version": 1,
        "editable": False, "graphTooltip": 1, "timezone": "browser", "refresh": "10s", "style": "dark", "id": None,
        "time": {"from": "now-1h", "to": "now"}, "timepicker": {}, "fiscalYearStartMonth": 0, "weekStart": "",
        "annotations": {"list": []}, "links": links,
        "templating": {"list": _variables(name, filtered)}, "panels": _placed(make()),
    }  # fmt: skip


def _variables(name: str, filtered: bool) -> list[dict[str, Any]]:
    found = [_variable(v) for v in ("molecule", "ansatz", "engine")] if filtered else []
    if name == "convergence":
        one = {"multi": False, "includeAll": False, "allValue": None, "current": {}, "sort": 1}
        found.append(_variable("process", "vqe_run_iterations", "instance") | one)
    return found


def _variable(name: str, metric: str = "vqe_runs_started_total", label: str | None = None) -> dict[str, Any]:
    query = f"label_values({metric}, {label or name})"
    return {
        "name": name, "label": name, "type": "query", "datasource": DATASOURCE, "definition": query,
        "query": {"query": query, "refId": "StandardVariableQuery"}, "refresh": 2, "sort": 1, "multi": True,
        "includeAll": True, "allValue": ".*", "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "hide": 0, "options": [], "regex": "", "skipUrlSync": False,
    }  # fmt: skip


def _placed(panels: list[Panel]) -> list[dict[str, Any]]:
    """Panels in rows from left to right; a row is as high as its highest panel."""
    out, x, y, row = [], 0, 0, 0
    for number, panel in enumerate(panels, 1):
        if x + panel.width > WIDTH:
            x, y, row = 0, y + row, 0
        out.append(_panel(panel, number, {"x": x, "y": y, "w": panel.width, "h": panel.height}))
        x, row = x + panel.width, max(row, panel.height)
    return out


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "color": {"mode": "palette-classic" if panel.kind in CURVES else "thresholds"},
        "mappings": [
            {"type": "value", "options": {v: {"text": t, "color": c, "index": i}}}
            for i, (v, (t, c)) in enumerate(panel.mappings.items())
        ],
        "thresholds": {"mode": "absolute", "steps": [{"value": v, "color": c} for v, c in panel.steps]},
        "custom": {},
    }
    for key, value in (
        ("decimals", panel.decimals),
        ("min", panel.minimum),
        ("max", panel.maximum),
        ("noValue", panel.no_value),
    ):
        if value is not None:
            defaults[key] = value
    if panel.kind in CURVES:
        defaults["custom"] = {
            "drawStyle": "line", "lineInterpolation": "linear", "lineWidth": 1, "fillOpacity": 10 if panel.stack else 0,
            "showPoints": "auto", "pointSize": 4, "spanNulls": 60_000, "axisLabel": "", "axisPlacement": "auto",
            "scaleDistribution": {"type": "log", "log": 10} if panel.log else {"type": "linear"},
            "stacking": {"mode": "normal" if panel.stack else "none", "group": "A"},
            "thresholdsStyle": {"mode": "line" if panel.lines else "off"},
        }  # fmt: skip
    made: dict[str, Any] = {
        "id": number, "type": panel.kind, "title": panel.title, "description": panel.description, "gridPos": place,
        "datasource": DATASOURCE, "options": _options(panel), "transformations": [],
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [
            {"refId": chr(65 + i), "datasource": DATASOURCE, "editorMode": "code", "expr": q.expr, "legendFormat": q.legend or "__auto",
             "instant": q.instant, "range": not q.instant, **({"format": "table"} if panel.kind == "table" else {})}
            for i, q in enumerate(panel.queries)
        ],
    }  # fmt: skip
    if panel.link:
        made["links"] = [{"title": "More", "url": f"/d/{panel.link}", "targetBlank": False}]
    if panel.kind == "table":
        _tabulate(made, panel)
    if panel.kind == "trend":
        _against(made, *(query.legend for query in panel.queries))
    return made


def _against(made: dict[str, Any], across: str, up: str) -> None:
    """One frame of both, a row for each value across, ascending: what a trend panel takes."""
    made["transformations"] = [
        {"id": "joinByField", "options": {"byField": "Time", "mode": "inner"}},
        {"id": "groupBy", "options": {"fields": {
            across: {"operation": "groupby", "aggregations": []}, up: {"operation": "aggregate", "aggregations": ["last"]},
        }}},
        {"id": "sortBy", "options": {"fields": {}, "sort": [{"field": across, "desc": False}]}},
        {"id": "organize", "options": {"excludeByName": {}, "indexByName": {}, "renameByName": {f"{up} (last)": up}}},
    ]  # fmt: skip
    made["fieldConfig"]["overrides"] = [
        {
            "matcher": {"id": "byName", "options": across},
            "properties": [{"id": "unit", "value": "none"}, {"id": "decimals", "value": 0}],
        }
    ]


def _tabulate(made: dict[str, Any], panel: Panel) -> None:
    """One row a label set, columns renamed and in the declared order."""
    hidden = ("Time", "__name__", "job", "instance", "basis", "device", "optimizer", "engine")
    made["transformations"] = [
        {"id": "merge", "options": {}},
        {"id": "organize", "options": {
            "excludeByName": {name: True for name in hidden if name not in panel.columns},
            "indexByName": {name: i for i, name in enumerate(panel.columns)},
            "renameByName": {name: shown for name, (shown, _) in panel.columns.items()},
        }},
    ]  # fmt: skip
    made["fieldConfig"]["overrides"] = [
        {"matcher": {"id": "byName", "options": shown}, "properties": [{"id": "unit", "value": unit}, *(
            [{"id": "decimals", "value": 6 if "Ha" in shown else 4}] if unit == "none" else [])]}
        for shown, unit in panel.columns.values() if unit
    ]  # fmt: skip


def _options(panel: Panel) -> dict[str, Any]:
    last = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    if panel.kind == "stat":
        return {"reduceOptions": last, "colorMode": "background", "graphMode": "none", "justifyMode": "auto", "orientation": "auto",
                "textMode": "value"}  # fmt: skip
    if panel.kind == "bargauge":
        return {"reduceOptions": last, "displayMode": "basic", "orientation": "horizontal", "showUnfilled": True, "minVizHeight": 10,
                "minVizWidth": 0, "valueMode": "color"}  # fmt: skip
    if panel.kind == "table":
        return {"showHeader": True, "cellHeight": "sm", "footer": {"show": False, "reducer": ["sum"], "fields": ""}}
    curves = {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
              "tooltip": {"mode": "multi", "sort": "desc"}}  # fmt: skip
    return curves | ({"xField": panel.queries[0].legend} if panel.kind == "trend" else {})


def main() -> None:
    folder = HERE / "dashboards"
    folder.mkdir(exist_ok=True)
    for name in DASHBOARDS:
        (folder / f"{name}.json").write_text(text_of(name), encoding="utf-8")


def text_of(name: str) -> str:
    """The file of a dashboard."""
    return json.dumps(dashboard(name), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main()
