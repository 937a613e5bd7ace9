"""What the topics say about runs: counters, running and lost ones, accuracy. Energies in hartree, times in seconds.

Counters are rebuilt from the topics when the exporter starts, and shown only once it has read to their end. Records that
retention has deleted by then are missing in them, which Prometheus takes for a counter's reset. What alerts need is therefore no
rate: the `vqe_recent_*` gauges count the results that reached Kafka in the last 15 minutes, whoever was scraped when.
"""

import statistics
import time
from collections import Counter as Tally
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from simulator.events.records import vqe_labels
from simulator.trust import CHEMICAL_ACCURACY

if TYPE_CHECKING:
    from prometheus_client import Metric

RECENT_SECONDS = 900.0
FORGET_SECONDS = 24 * 3600.0
"""A lost run is shown for a day: then it is a row of `quality_issues`."""
MAX_LABEL_SETS = 500
MAX_ENDED = 200_000
MAX_OPEN = 50_000
MAX_WAITING = 100_000
USUAL_RUNS = 50
USUAL_AT_LEAST = 5
ERROR_BUCKETS = (1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 5e-4, CHEMICAL_ACCURACY, 5e-3, 1e-2, 0.05, 0.1, 1.0)
"""Hartree."""
SECONDS_BUCKETS = (0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 28_800.0)
OTHER = "other"
LABELS = ("molecule", "ansatz", "optimizer", "engine", "device")
"""As `vqe_labels` gives them."""
STATUSES = ("completed", "failed", "interrupted")


@dataclass
class _Open:
    """A run that began and has no result yet."""

    labels: tuple[str, ...]
    spec_id: str
    sign: float  # Unix time of its last sign of life
    redone: bool = False  # another run of its specification has ended since


@dataclass
class _Accuracy:
    """Results of one problem with the same labels."""

    errors: deque[float] = field(default_factory=lambda: deque(maxlen=USUAL_RUNS + 1))  # |error| in hartree
    energy: float = 0.0
    reference: float = 0.0
    error: float = 0.0
    share: float | None = None


class RunBook:
    """Takes records of vqe_run, vqe_result and signs of life, in any order and any number of times.

    A time of Kafka's that is yet to come is that of a machine whose clock runs ahead: it counts as the present.

    Args:
        lost_after: seconds without a sign after which a run counts as lost.
        now: the clock, Unix time in seconds.
    """

    def __init__(self, *, lost_after: float, now: Callable[[], float] = time.time) -> None:
        from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics

        disable_created_metrics()
        self._lost_after, self._now = lost_after, now
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._open_by_spec: dict[str, set[str]] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._known: set[tuple[str, ...]] = set()
        self._recent: deque[tuple[float, tuple[str, ...], str, bool, bool]] = deque()
        self._accuracy: OrderedDict[tuple[str, ...], _Accuracy] = OrderedDict()
        self._shown: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._waiting: OrderedDict[str, float] = OrderedDict()  # run_id -> Unix time at which Kafka got its result
        self._missing: set[str] = set()  # those of them that were looked for in the tables
        self._registry = CollectorRegistry()

        def counter(name: str, doc: str, *more: str) -> Any:
            return Counter(name, doc, (*LABELS, *more), registry=self._registry)

        self._started = counter("vqe_runs_started", "Runs that began.")
        self._runs = counter("vqe_runs", "Runs that ended, by status.", "status")
        self._unphysical = counter("vqe_runs_unphysical", "Results that are not physical.")
        self._unconverged = counter("vqe_runs_not_converged", "Completed runs that did not converge.")
        self._accurate = counter("vqe_runs_chemically_accurate", "Results within chemical accuracy of the reference.")
        self._compared = counter("vqe_runs_compared", "Results that have a reference energy.")
        self._iterations = counter("vqe_iterations", "Optimizer iterations of ended runs.")
        self._evaluations = counter("vqe_evaluations", "Energy evaluations of ended runs.")
        self._stage_seconds = counter("vqe_stage_seconds", "Seconds of ended runs by stage.", "stage")
        self._stage_calls = counter("vqe_stage_calls", "Calls of ended runs by stage.", "stage")
        self._seconds = Histogram(
            "vqe_result_duration_seconds", "Seconds from a run's begin to its end.", LABELS, buckets=SECONDS_BUCKETS,
            registry=self._registry,
        )  # fmt: skip
        self._errors = Histogram(
            "vqe_result_error_hartree", "Distance of completed runs' energies to the reference, without sign.", LABELS,
            buckets=ERROR_BUCKETS, registry=self._registry,
        )  # fmt: skip

    def began(self, record: dict[str, Any], at: float) -> None:
        """Take a record of vqe_run; `at` is the Unix time at which Kafka got it."""
        at = min(at, self._now())
        run_id = str(record["run_id"])
        if run_id in self._ended or run_id in self._open:
            return
        labels = self._bounded(tuple(vqe_labels(record["molecule"]["formula"], record["spec"]).values()))
        self._started.labels(*labels).inc()
        self._open[run_id] = _Open(labels, record["spec_id"], at)
        self._open_by_spec.setdefault(record["spec_id"], set()).add(run_id)
        while len(self._open) > MAX_OPEN:
            self._close(next(iter(self._open)))

    def alive(self, run_id: str, at: float) -> None:
        """A run was seen at work at Unix time `at`."""
        known = self._open.get(run_id)
        if known is not None:
            known.sign = max(known.sign, min(at, self._now()))

    def ended(self, record: dict[str, Any], at: float) -> None:
        """Take a record of vqe_result; `at` is the Unix time at which Kafka got it."""
        at = min(at, self._now())
        run_id = str(record["run_id"])
        if run_id in self._ended:
            return
        self._ended[run_id] = None
        while len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)
        labels = self._bounded(tuple(vqe_labels(record["formula"], record["spec"]).values()))
        if not self._close(run_id):
            self._started.labels(*labels).inc()  # its begin is late, or was deleted by retention
        for other in self._open_by_spec.get(record["spec_id"], ()):
            self._open[other].redone = True
        self._count(record, labels)
        unconverged = record["status"] == "completed" and record["converged"] is False
        self._recent.append((at, labels, record["status"], record["physical"] is False, unconverged))
        self._waiting[run_id] = at
        while len(self._waiting) > MAX_WAITING:
            self._missing.discard(self._waiting.popitem(last=False)[0])
        self._take_accuracy(record, labels)

    def waiting(self, *, all_: bool) -> list[str]:
        """Runs whose results are not known to be in the tables; without `all_` only those not looked for yet."""
        return [run_id for run_id in self._waiting if all_ or run_id not in self._missing]

    def looked_for(self, run_ids: Collection[str], stored: Collection[str]) -> None:
        """Take which of these runs' results the tables hold."""
        for run_id in stored:
            self._waiting.pop(run_id, None)
            self._missing.discard(run_id)
        self._missing.update(run_id for run_id in run_ids if run_id in self._waiting)

    def pending_seconds(self) -> float:
        """Seconds for which the oldest result has waited that was looked for in the tables and not found; 0: none does.

        Found by run, and aged by when Kafka got it: the clocks of the machines that run may differ by days.
        """
        return max((self._now() - self._waiting[run_id] for run_id in self._missing), default=0.0)

    def families(self) -> "Iterator[Metric]":
        """The metrics as they are now."""
        yield from self._registry.collect()
        yield from self._open_families()
        yield from self._recent_families()
        yield from self._accuracy_families()

    def _close(self, run_id: str) -> bool:
        """Forget an open run; whether it was one."""
        run = self._open.pop(run_id, None)
        if run is None:
            return False
        same = self._open_by_spec[run.spec_id]
        same.discard(run_id)
        if not same:
            del self._open_by_spec[run.spec_id]
        return True

    def _bounded(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        """The labels, or `other` for the molecule where there are too many."""
        if labels not in self._known and len(self._known) >= MAX_LABEL_SETS:
            return (OTHER, *labels[1:])
        self._known.add(labels)
        return labels

    def _count(self, record: dict[str, Any], labels: tuple[str, ...]) -> None:
        for status in STATUSES:  # all three exist from the first run on, so that their rates do
            self._runs.labels(*labels, status).inc(record["status"] == status)
        completed = record["status"] == "completed"
        self._unphysical.labels(*labels).inc(record["physical"] is False)
        self._unconverged.labels(*labels).inc(completed and record["converged"] is False)
        self._compared.labels(*labels).inc(record["chemical_accuracy"] is not None)
        self._accurate.labels(*labels).inc(record["chemical_accuracy"] is True)
        self._iterations.labels(*labels).inc(record["iterations"])
        self._evaluations.labels(*labels).inc(record["evaluations"])
        self._seconds.labels(*labels).observe(record["total_seconds"])
        for row in record["timings"]:
            self._stage_seconds.labels(*labels, row["stage"]).inc(row["seconds"])
            self._stage_calls.labels(*labels, row["stage"]).inc(row["calls"])
        if completed and record["error_mha"] is not None:
            self._errors.labels(*labels).observe(abs(record["error_mha"]) / 1e3)

    def _take_accuracy(self, record: dict[str, Any], labels: tuple[str, ...]) -> None:
        """Compare like with like: converged runs of one problem, neither shots nor noise."""
        spec = record["spec"]
        if record["status"] != "completed" or record["converged"] is not True or record["error_mha"] is None:
            return
        if spec.get("shots") or spec.get("noise"):
            return
        shown = (*labels, spec["basis"])
        key = (*shown, record["problem_id"])
        known = self._accuracy.setdefault(key, _Accuracy())
        self._accuracy.move_to_end(key)
        while len(self._accuracy) > 4 * MAX_LABEL_SETS:
            gone, _ = self._accuracy.popitem(last=False)
            self._shown = {k: v for k, v in self._shown.items() if v != gone}
        known.energy, known.reference = record["energy"], record["reference_energy"]
        known.error = record["error_mha"] / 1e3
        known.errors.append(abs(known.error))
        shares = [r["correlation_share"] for r in record["references"] if r["name"] == record["reference_name"]]
        known.share = shares[0] if shares else None
        self._shown[shown] = key

    def _open_families(self) -> "Iterator[Metric]":
        from prometheus_client.core import GaugeMetricFamily

        now, running, lost = self._now(), Tally[tuple[str, ...]](), Tally[tuple[str, ...]]()
        for run_id, run in list(self._open.items()):
            silent = now - run.sign
            if silent > FORGET_SECONDS:
                self._close(run_id)
            elif silent <= self._lost_after:
                running[run.labels] += 1
            elif not run.redone:
                lost[run.labels] += 1
        for name, doc, found in (
            ("vqe_runs_running", "Runs that began, have no result and gave a sign of life lately.", running),
            ("vqe_runs_lost", "Runs that began, have no result, fell silent within a day and were not redone.", lost),
        ):
            family = GaugeMetricFamily(name, doc, labels=LABELS)
            for labels in self._known | set(found):
                family.add_metric(labels, found[labels])
            yield family

    def _recent_families(self) -> "Iterator[Metric]":
        from prometheus_client.core import GaugeMetricFamily

        oldest = self._now() - RECENT_SECONDS
        self._recent = deque((row for row in self._recent if row[0] >= oldest), maxlen=MAX_WAITING)
        by_status = GaugeMetricFamily(
            "vqe_recent_runs", "Runs whose result reached Kafka in the last 15 minutes.", labels=(*LABELS, "status")
        )
        unphysical = GaugeMetricFamily("vqe_recent_unphysical_runs", "Those that are not physical.", labels=LABELS)
        unconverged = GaugeMetricFamily(
            "vqe_recent_not_converged_runs", "Those that completed without converging.", labels=LABELS
        )
        statuses = Tally((labels, status) for _, labels, status, _, _ in self._recent)
        bad = Tally(labels for _, labels, _, unphysical_run, _ in self._recent if unphysical_run)
        long = Tally(labels for _, labels, _, _, unconverged_run in self._recent if unconverged_run)
        for labels in self._known:
            for status in STATUSES:
                by_status.add_metric((*labels, status), statuses[labels, status])
            unphysical.add_metric(labels, bad[labels])
            unconverged.add_metric(labels, long[labels])
        yield from (by_status, unphysical, unconverged)

    def _accuracy_families(self) -> "Iterator[Metric]":
        from prometheus_client.core import GaugeMetricFamily

        def gauge(name: str, doc: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"vqe_accuracy_{name}", doc, labels=(*LABELS, "basis"))

        energy = gauge("energy_hartree", "Total energy of the last converged run without shots and noise.")
        reference = gauge("reference_hartree", "The reference energy that it is compared with.")
        error = gauge("error_hartree", "Its distance to the reference, with its sign.")
        usual = gauge("usual_error_hartree", "Median distance of up to 50 such runs of the same problem before it.")
        share = gauge("correlation_ratio", "Share of the correlation energy that it found.")
        for labels, key in self._shown.items():
            known = self._accuracy[key]
            energy.add_metric(labels, known.energy)
            reference.add_metric(labels, known.reference)
            error.add_metric(labels, known.error)
            if known.share is not None:
                share.add_metric(labels, known.share)
            before = list(known.errors)[:-1]
            if len(before) >= USUAL_AT_LEAST:
                usual.add_metric(labels, statistics.median(before))
        yield from (energy, reference, error, usual, share)
