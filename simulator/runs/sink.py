"""The one place that chooses where a run's events go: local files or Kafka, and the PushGateway beside either."""

from typing import Any

from simulator.settings import Settings


def make_sink(settings: Settings) -> Any:
    """The sink that the settings ask for.

    Raises:
        InputError: the kafka extra is missing.
        StorageError: its folder cannot be written.
    """
    sink = _events_sink(settings)
    if settings.pushgateway_url is None:
        return sink
    from simulator.observability.metrics import PushingSink

    return PushingSink(sink, settings)


def _events_sink(settings: Settings) -> Any:
    if settings.sink == "kafka":
        from simulator.kafka.clients import kafka_config, require_kafka

        require_kafka()
        kafka_config(settings)  # bad settings are bad input, told before anything runs
        from simulator.kafka.sink import KafkaSink

        return KafkaSink(settings)
    from simulator.sinks.file import FileSink

    return FileSink(settings.raw_dir)
