"""The performance monitor: samples at its interval, at begin and end, GPUs where there are, and costs almost nothing."""

import sys
import time
import types

import psutil
from samples import spin

from simulator.events.records import to_record
from simulator.observability.monitor import Monitor


def test_samples_come_at_the_interval_and_are_counted_through():
    samples = []
    with Monitor("r", samples.append, interval=0.1) as monitor:
        spin(0.55)
    assert 4 <= len(samples) <= 8
    assert [s.sample_index for s in samples] == list(range(len(samples)))
    assert monitor.samples == len(samples)
    elapsed = [s.elapsed_seconds for s in samples]
    assert elapsed == sorted(elapsed)
    assert max(s.process_cpu_percent for s in samples) > 20, "the process was busy"
    assert all(s.memory_rss_bytes > 1_000_000 and s.memory_available_bytes > 0 for s in samples)


def test_a_short_run_has_a_first_and_a_last_sample():
    samples = []
    with Monitor("r", samples.append, interval=60):
        pass
    assert len(samples) == 2


def test_without_a_gpu_the_lists_are_empty():
    samples = []
    with Monitor("r", samples.append, interval=60):
        pass
    record = to_record(samples[0])
    assert len({len(v) for k, v in record.items() if k.startswith("gpu_")}) == 1


def test_gpus_are_sampled_where_the_driver_tells(monkeypatch):
    class Gone(Exception):
        pass

    nvml = types.ModuleType("pynvml")
    nvml.NVMLError = Gone  # type: ignore[attr-defined]
    nvml.NVML_TEMPERATURE_GPU = 0  # type: ignore[attr-defined]

    def utilization(handle):
        if handle == 1:
            raise Gone("GPU is lost")
        return types.SimpleNamespace(gpu=37)

    for name, value in {
        "nvmlInit": lambda: None, "nvmlShutdown": lambda: None, "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda i: i, "nvmlDeviceGetName": lambda h: "H200",
        "nvmlDeviceGetUtilizationRates": utilization, "nvmlDeviceGetMemoryInfo": lambda h: types.SimpleNamespace(used=7),
        "nvmlDeviceGetPowerUsage": lambda h: 120_500, "nvmlDeviceGetTemperature": lambda h, s: 61,
    }.items():  # fmt: skip
        setattr(nvml, name, value)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    samples = []
    with Monitor("r", samples.append, interval=60):
        pass
    record = to_record(samples[0])
    assert record["gpu_names"] == ["H200"], "the one that is lost is left out"
    assert record["gpu_power_watts"] == [120.5]
    assert record["gpu_temperature_celsius"] == [61.0]


def test_sampling_takes_less_than_a_hundredth_of_its_interval():
    process = psutil.Process()
    samples = []
    monitor = Monitor("r", samples.append, interval=60)
    with monitor:
        before = process.cpu_times()
        for _ in range(50):
            monitor._sample()
        after = process.cpu_times()
    spent = (after.user + after.system - before.user - before.system) / 50
    assert spent < 0.01, "CPU seconds a sample, at an interval of one second"
    assert time.monotonic() > 0
