"""Metrics as Prometheus would read them."""

from prometheus_client.parser import text_string_to_metric_families

from simulator.observability.metrics import exposed


def samples(families) -> dict[tuple[str, ...], float]:
    """Values by metric name and the values of the labels in `shown`."""
    out: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(exposed(iter(list(families))).decode()):
        for sample in family.samples:
            shown = [
                v
                for k, v in sorted(sample.labels.items())
                if k not in ("ansatz", "engine", "device", "optimizer", "basis")
            ]
            out[sample.name, *shown] = sample.value
    return out
