"""The performance monitor: a thread that samples CPU, memory, disk I/O and NVIDIA GPUs of a run."""

import threading
import time
from collections.abc import Callable
from typing import Any

import psutil

from simulator.events.records import SystemMetrics, now_micros


class Monitor:
    """Emits a sample when it begins, every `interval` seconds, and when it ends.

    Args:
        run_id: the run that the samples belong to.
        emit: takes each sample.
        interval: seconds between samples.
    """

    def __init__(self, run_id: str, emit: Callable[[SystemMetrics], None], *, interval: float) -> None:
        self.samples = 0
        self._run_id, self._emit, self._interval = run_id, emit, interval
        self._process = psutil.Process()
        self._gpus = _Gpus()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="monitor", daemon=True)

    def __enter__(self) -> "Monitor":
        self._began = self._last = time.monotonic()
        self._last_process = self._process_seconds()
        psutil.cpu_percent()
        self._sample()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()
        self._gpus.close()

    def _work(self) -> None:
        while not self._stop.wait(self._interval):
            self._sample()

    def _sample(self) -> None:
        now, used = time.monotonic(), self._process_seconds()
        interval = now - self._last
        with self._process.oneshot():
            rss, threads = self._process.memory_info().rss, self._process.num_threads()
        read, written = self._disk()
        sample = SystemMetrics(
            run_id=self._run_id,
            recorded_at=now_micros(),
            sample_index=self.samples,
            elapsed_seconds=now - self._began,
            interval_seconds=interval,
            process_cpu_percent=100 * (used - self._last_process) / interval if interval > 0 else 0.0,
            system_cpu_percent=psutil.cpu_percent(),
            memory_rss_bytes=rss,
            memory_available_bytes=psutil.virtual_memory().available,
            threads=threads,
            disk_read_bytes=read,
            disk_write_bytes=written,
            **self._gpus.sample(),
        )
        self._last, self._last_process = now, used
        self.samples += 1
        self._emit(sample)

    def _process_seconds(self) -> float:
        times = self._process.cpu_times()
        return times.user + times.system

    def _disk(self) -> tuple[int | None, int | None]:
        try:
            counters = self._process.io_counters()  # not on macOS
        except (AttributeError, psutil.Error, OSError):
            return None, None
        return counters.read_bytes, counters.write_bytes


class _Gpus:
    """NVIDIA's management library; no GPU and no driver are the usual case and no error."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._handles: list[Any] = []
        try:
            import pynvml

            pynvml.nvmlInit()
            self._nvml = pynvml
            self._handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        except Exception:
            self._handles = []

    def sample(self) -> dict[str, list[Any]]:
        out: dict[str, list[Any]] = {
            "gpu_names": [], "gpu_utilization_percent": [], "gpu_memory_used_bytes": [],
            "gpu_power_watts": [], "gpu_temperature_celsius": [],
        }  # fmt: skip
        nvml = self._nvml
        for handle in self._handles:
            try:
                name = nvml.nvmlDeviceGetName(handle)
                row = (
                    name.decode() if isinstance(name, bytes) else str(name),
                    float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
                    int(nvml.nvmlDeviceGetMemoryInfo(handle).used),
                    nvml.nvmlDeviceGetPowerUsage(handle) / 1000.0,
                    float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
                )
            except nvml.NVMLError:
                continue  # a GPU that falls off the bus in mid run is left out, not the whole sample
            for column, value in zip(out.values(), row, strict=True):
                column.append(value)
        return out

    def close(self) -> None:
        if self._nvml is not None:
            self._nvml.nvmlShutdown()
            self._nvml = None
