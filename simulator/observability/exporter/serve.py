"""Putting the exporter together from the settings."""

import sys
import threading

from simulator.observability.exporter.sources import Exporter, Source
from simulator.settings import Settings
from simulator.signals import on_stop


def make_exporter(settings: Settings) -> Exporter:
    """The exporter with the sources that the settings name; tables and queue where there are any.

    Raises:
        InputError: settings that cannot go together.
    """
    from simulator.observability.exporter.catalog import CatalogSource
    from simulator.observability.exporter.groups import GroupSource
    from simulator.observability.exporter.queue import QueueSource
    from simulator.observability.exporter.runs import RunBook
    from simulator.observability.exporter.topics import TopicSource

    lock = threading.Lock()
    book = RunBook(lost_after=settings.lost_after_seconds)
    sources: list[Source] = [TopicSource(settings, book, lock), GroupSource(settings)]
    if settings.connect_url is not None:
        from simulator.observability.exporter.connect import ConnectSource

        sources.append(ConnectSource(settings))
    if settings.pushgateway_url is not None:
        from simulator.observability.exporter.gateway import GatewaySource

        sources.append(GatewaySource(settings))
    if CatalogSource.there(settings.data_dir):
        sources.append(CatalogSource(settings, book, lock))
    if QueueSource.there(settings):
        sources.append(QueueSource(settings))
    if settings.statsd_port:
        from simulator.observability.exporter.airflow import AirflowSource

        sources.append(AirflowSource(settings))
    return Exporter(sources)


def run_exporter(settings: Settings, *, once: bool = False) -> int:
    """Serve the metrics until SIGTERM or SIGINT; with `once` print them and return 1 where a source is away."""
    from simulator.observability.metrics import exposed, serve

    if once:
        settings = settings.model_copy(update={"statsd_port": 0})  # nothing to hear in so short a time
    exporter = make_exporter(settings)
    if once:
        well = exporter.look_once()
        sys.stdout.write(exposed(exporter.collect()).decode())
        exporter.close()
        return 0 if well else 1
    stop = threading.Event()

    with on_stop(stop.set):
        server = serve(settings.exporter_port, settings.metrics_address, exporter.collect)
        exporter.start()
        stop.wait()
        server.shutdown()
        server.server_close()
        exporter.close()
    return 0
