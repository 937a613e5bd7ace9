"""What a command costs from the process' start to its end: wall seconds, medians; each in a data directory of its own.

    python benchmarks/start.py [--repeats 5]

Kernels are compiled when a checkout is installed; `no kernel compiled yet` is what the first run costs where they were not.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

VQE = [sys.executable, "-m", "simulator.cli.main"]
CURVE = "name: curve\nmolecules: [{{molecule: h2, scale: [{scales}]}}]\n"


def seconds(arguments: list[str], folder: Path, **more: str) -> float:
    """Of one command, which must succeed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("VQE_")} | {"OMP_NUM_THREADS": "1", **more}
    began = time.perf_counter()
    subprocess.run([*VQE, *arguments], cwd=folder, env=environment, check=True, capture_output=True)
    return time.perf_counter() - began


def measured(repeats: int) -> dict[str, list[float]]:
    """Seconds of each command, interleaved."""
    found: dict[str, list[float]] = {}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "curve.yaml").write_text(
                CURVE.format(scales=", ".join(f"{0.6 + 0.02 * i:.2f}" for i in range(100)))
            )
            cold = {"NUMBA_CACHE_DIR": str(folder / "kernels"), "VQE_DATA_DIR": str(folder / "cold")}
            for what, arguments, more in (
                ("vqe --help", ["--help"], {}),
                ("vqe run lih, no kernel compiled yet", ["run", "lih"], cold),
                ("vqe run h2, from start to tables", ["run", "h2"], {}),
                ("vqe run h2o, from start to tables", ["run", "h2o"], {}),
                ("vqe sql", ["sql", "select molecule_name, energy from vqe_results"], {}),
                ("vqe sweep, 100 points of H2's curve with tables", ["sweep", "curve.yaml"], {}),
            ):
                found.setdefault(what, []).append(seconds(arguments, folder, **more))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n\n| command | s |\n| --- | --- |")
    for what, times in measured(repeats).items():
        print(f"| {what} | {statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f}) |")


if __name__ == "__main__":
    main()
