"""`vqe schemas`, `vqe topics`, `vqe replay` and `vqe exporter`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from simulator.settings import Settings

schemas_app = typer.Typer(no_args_is_help=True)
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Folder of the spool.", show_default="./vqe-data")]


@schemas_app.command("register")
def register() -> int:
    """Register every schema under FULL_TRANSITIVE compatibility; what is there stays."""
    from simulator.kafka.clients import require_kafka
    from simulator.settings import load_settings

    require_kafka()
    from simulator.kafka.registry import register_all

    for done in register_all(load_settings()):
        typer.echo(f"{done.subject} {done.version}: id {done.schema_id} {'registered' if done.new else 'present'}")
    return 0


@schemas_app.command("check")
def check() -> int:
    """Check every schema against every earlier version of its topic, both directions; needs no service."""
    from simulator.kafka.compatibility import check_all

    problems = check_all()
    for problem in problems:
        typer.echo(problem, err=True)
    if not problems:
        from simulator.events import schemas

        typer.echo(
            f"{sum(map(len, schemas.released().values()))} schemas of {len(schemas.released())} topics are compatible"
        )
    return 1 if problems else 0


def topics() -> int:
    """Create the topics that are missing, with the partitions and retention of the settings."""
    from simulator.kafka.clients import require_kafka
    from simulator.settings import load_settings

    require_kafka()
    from simulator.kafka.topics import create_topics, plan

    settings = load_settings()
    planned = {topic.name: topic for topic in plan(settings)}
    for name, state in sorted(create_topics(settings).items()):
        topic = planned[name]
        typer.echo(f"{name}: {state} ({topic.partitions} partitions, {topic.retention_ms // 3_600_000} h)")
    return 0


def replay(
    data_dir: DataDir = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0, help="Longest wait for Kafka.")] = 60.0,
    rejected: Annotated[
        bool, typer.Option("--rejected", help="Offer events that were refused for good again, too.")
    ] = False,
) -> int:
    """Deliver events that earlier processes could not."""
    from simulator.kafka.clients import require_kafka
    from simulator.settings import load_settings

    settings = load_settings(data_dir=data_dir)
    require_kafka()
    from simulator.kafka import replay as spool

    done = spool.replay(settings, seconds=seconds, rejected=rejected)
    typer.echo(f"{done.delivery.delivered} events delivered, {done.left_bytes} bytes left in {settings.spool_dir}")
    if done.set_aside:
        typer.echo(
            f"{done.set_aside} set aside in {settings.spool_dir / 'rejected'}, refused for good: the .json files there tell "
            f"why; vqe replay --rejected offers them again"
        )
    return 1 if done.left_bytes or done.delivery.rejected else 0


def exporter(
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", help="Folder of tables, without VQE_CATALOG_URI.", show_default="./vqe-data"),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print the metrics and end; 1 where a source is away.")] = False,
) -> int:
    """Serve what topics, consumer groups, Connect and tables say as metrics for Prometheus."""
    settings = _service_settings(data_dir=data_dir)
    from simulator.observability.exporter.serve import run_exporter

    return run_exporter(settings, once=once)


def _service_settings(**given: Any) -> "Settings":
    """Settings of a process that stays; it tells what it does unless it was told to say less."""
    from simulator import log
    from simulator.kafka.clients import require_kafka
    from simulator.settings import load_settings

    settings = load_settings(**given)
    log.configure("info" if settings.log_level == "warning" else settings.log_level, settings.log_format)
    require_kafka()
    return settings
