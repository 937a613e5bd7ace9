"""Synthetic raw Avro files in the raw layout: what tests and benchmarks of the tables build from."""

import contextlib
import hashlib
import io
import json
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastavro

from simulator.events import avro, schemas

if TYPE_CHECKING:
    import pyarrow as pa

Event = dict[str, Any]
BEGIN = datetime(2026, 1, 10, 12, 0, tzinfo=UTC)
VERSIONS = {"vqe-pipeline": "0.1.0", "numpy": "2.4.6"}


def run_id(number: int, at: datetime = BEGIN) -> str:
    """A UUIDv7 of a time, with the number in its random part."""
    millis = int((at + timedelta(seconds=number)).timestamp() * 1000)
    text = f"{millis:012x}7{number % 4096:03x}8{number:015x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class Run:
    """A run's events. Numbers follow from `number`, so that a run made again is the same."""

    number: int
    iterations: int = 3
    n_parameters: int = 2
    samples: int = 2
    molecule: int = 0
    n_terms: int = 5
    status: str = "completed"
    at: datetime = BEGIN
    references: int = 2
    overrides: dict[str, Any] = field(default_factory=dict)  # of the result

    def __post_init__(self) -> None:
        self.run_id = run_id(self.number, self.at)
        self.molecule_id = sha(f"molecule {self.molecule}")
        self.problem_id = sha(f"problem {self.molecule}")
        self.hamiltonian_id = sha(f"hamiltonian {self.molecule}")
        self.began = self.at + timedelta(seconds=self.number)

    @property
    def spec(self) -> Event:
        return {
            "spec_version": 1,
            "elements": ["H", "H"],
            "geometry": [[0.0, 0.0, 0.0], [0.0, 0.0, 0.7 + 0.01 * self.molecule]],
            "charge": 0,
            "multiplicity": 1,
            "basis": "sto-3g",
            "active_electrons": None,
            "active_orbitals": None,
            "freeze_core": True,
            "mapper": "jordan_wigner",
            "ansatz": "uccsd",
            "reps": 1,
            "optimizer": "l-bfgs-b",
            "optimizer_options": {"ftol": "1e-12"},
            "max_iterations": 1000,
            "tolerance": 1e-6,
            "initial_point": "mp2",
            "initial_vector": None,
            "seed": self.number,
            "engine": "sector",
            "aer_method": "automatic",
            "device": "cpu",
            "precision": "double",
            "shots": None,
            "noise": None if self.number % 2 == 0 else {"one_qubit": 0.001, "two_qubit": 0.01, "readout": 0.02},
        }

    @property
    def spec_json(self) -> str:
        return json.dumps(self.spec, sort_keys=True, separators=(",", ":"))

    @property
    def ids(self) -> Event:
        return {
            "run_id": self.run_id,
            "spec_id": sha(self.spec_json),
            "molecule_id": self.molecule_id,
            "problem_id": self.problem_id,
            "sweep_id": None,
            "attempt": 1,
            "molecule_name": f"h2_{self.molecule}",
        }

    def run_event(self) -> Event:
        spec = self.spec
        molecule = {
            "formula": "H2",
            "elements": spec["elements"],
            "geometry": spec["geometry"],
            "charge": 0,
            "multiplicity": 1,
            "n_electrons": 2,
            "nuclear_repulsion": 0.7,
        }
        return {
            **self.ids,
            "recorded_at": self.began,
            "molecule": molecule,
            "spec": spec,
            "spec_json": self.spec_json,
            "host": "laptop",
            "process_id": 1,
            "versions": VERSIONS,
        }

    def iteration_events(self) -> list[Event]:
        drawn = random.Random(self.number)
        return [
            {
                "run_id": self.run_id,
                "recorded_at": self.began + timedelta(milliseconds=i + 1),
                "iteration": i,
                "energy": -1.13 + 0.1 / (i + 1),
                "error_mha": 100.0 / (i + 1) ** 2,
                "standard_error": None,
                "gradient_norm": 0.1 / (i + 1),
                "evaluations": 2 * i + 1,
                "gradient_evaluations": i,
                "elapsed_seconds": 0.001 * i,
                "parameters": [drawn.uniform(-1, 1) for _ in range(self.n_parameters)],
            }
            for i in range(self.iterations)
        ]

    def hamiltonian_events(self, chunk_size: int = 2000) -> list[Event]:
        terms = [
            {"term_index": i, "pauli": f"{i:08b}".replace("0", "I").replace("1", "Z"), "coefficient": 0.5 / (i + 1)}
            for i in range(self.n_terms)
        ]
        chunks = [terms[i : i + chunk_size] for i in range(0, len(terms), chunk_size)]
        return [
            {
                "hamiltonian_id": self.hamiltonian_id,
                "recorded_at": self.began,
                "problem_id": self.problem_id,
                "mapper": "jordan_wigner",
                "n_qubits": 8,
                "n_terms": self.n_terms,
                "energy_offset": 0.7,
                "chunk": i,
                "n_chunks": len(chunks),
                "terms": chunk,
            }
            for i, chunk in enumerate(chunks)
        ]

    def system_events(self) -> list[Event]:
        return [
            {
                "run_id": self.run_id,
                "recorded_at": self.began + timedelta(milliseconds=10 * i),
                "sample_index": i,
                "elapsed_seconds": 0.01 * i,
                "interval_seconds": 0.01,
                "process_cpu_percent": 99.0,
                "system_cpu_percent": 50.0,
                "memory_rss_bytes": 200_000_000,
                "memory_available_bytes": 8_000_000_000,
                "threads": 4,
                "disk_read_bytes": None,
                "disk_write_bytes": 4096,
                "gpu_names": [],
                "gpu_utilization_percent": [],
                "gpu_memory_used_bytes": [],
                "gpu_power_watts": [],
                "gpu_temperature_celsius": [],
            }
            for i in range(self.samples)
        ]

    def result_event(self) -> Event:
        drawn = random.Random(-1 - self.number)
        done = self.status == "completed"
        energy = -1.1373 if done else None
        names = ["FCI", "HF", "MP2", "CCSD"][: self.references]
        references = [
            {
                "name": name,
                "energy": None if name == "MP2" else -1.1373 + 0.01 * i,
                "error_mha": None if name == "MP2" else -10.0 * i + 1e-4,
                "chemical_accuracy": None if name == "MP2" else i == 0,
                "correlation_share": None,
                "s_squared": None,
                "source": None,
                "reason": "an open shell" if name == "MP2" else None,
            }
            for i, name in enumerate(names)
        ]
        stages = ("scf", "integrals", "mapping", "reference", "optimization", "verification")
        return {
            **self.ids,
            "recorded_at": self.began + timedelta(seconds=2),
            "formula": "H2",
            "hamiltonian_id": self.hamiltonian_id,
            "spec": self.spec,
            "spec_json": self.spec_json,
            "status": self.status,
            "error": None if done else "SCF did not converge",
            "physical": True if done else None,
            "physical_reason": None,
            "converged": done,
            "convergence_reason": "gradient norm below tolerance" if done else None,
            "energy": energy,
            "standard_error": None,
            "hf_energy": -1.117,
            "reference_name": "FCI",
            "reference_energy": -1.1373,
            "error_mha": 1e-4 * (1 + self.number % 7) if done else None,
            "chemical_accuracy": True if done else None,
            "aer_energy": energy,
            "aer_reason": None,
            "electron_number": 2.0,
            "s_squared": 0.0,
            "s_squared_expected": 0.0,
            "n_active_electrons": 2,
            "n_orbitals": 2,
            "n_qubits": 4,
            "n_terms": self.n_terms,
            "n_parameters": self.n_parameters,
            "circuit_depth": None,
            "two_qubit_gates": None,
            "energy_offset": 0.7,
            "nuclear_repulsion": 0.7,
            "iterations": max(self.iterations - 1, 0),
            "evaluations": 2 * self.iterations,
            "gradient_evaluations": self.iterations,
            "started_at": self.began,
            "finished_at": self.began + timedelta(seconds=2),
            "total_seconds": 2.0,
            "notes": [],
            "references": references,
            "timings": [{"stage": s, "seconds": 0.1 * (i + 1), "calls": 1} for i, s in enumerate(stages)],
            "parameters": [
                {"parameter_index": i, "label": f"a{i}->v{i}", "initial": 0.0, "optimal": drawn.uniform(-1, 1)}
                for i in range(self.n_parameters)
            ],
            "counts": {
                "iterations": self.iterations,
                "system_metrics": self.samples,
                "hamiltonian_chunks": len(self.hamiltonian_events()),
                "hamiltonian_terms": self.n_terms,
            },
            "host": "laptop",
            "versions": VERSIONS,
            **self.overrides,
        }

    def events(self) -> dict[str, list[Event]]:
        """All events, by stream."""
        return {
            "vqe_run": [self.run_event()],
            "vqe_hamiltonian": self.hamiltonian_events(),
            "vqe_iteration": self.iteration_events(),
            "vqe_system_metrics": self.system_events(),
            "vqe_result": [self.result_event()],
        }


def container(events: Iterable[Event], schema: Event, codec: str = "deflate") -> bytes:
    """An Avro container."""
    buffer = io.BytesIO()
    fastavro.writer(buffer, fastavro.parse_schema(schema), events, codec=codec)
    return buffer.getvalue()


def object_path(topic: str, number: int, partition: str = "local") -> str:
    """A raw object's path; names are ordered by number."""
    name = run_id(number) if partition == "local" else f"{number:019d}"
    return f"raw/{topic}/partition={partition}/{topic}+{partition}+{name}.avro"


def put(data_dir: Path, path: str, content: bytes) -> Path:
    """Writes a raw object."""
    target = data_dir / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    return target


def write_runs(
    data_dir: Path, runs: Iterable[Run], number: int = 0, streams: Iterable[str] = schemas.STREAMS
) -> list[Path]:
    """Writes runs as one raw object a stream, as a run or a sweep leaves them.

    Args:
        data_dir: the data dir.
        runs: whose events.
        number: tells this call's objects from others.
        streams: which streams to write, e.g. all but `vqe_result` for runs that have not ended.
    """
    by_stream: dict[str, list[Event]] = {s: [] for s in streams}
    seen_hamiltonians: set[str] = set()
    for run in runs:
        for stream, events in run.events().items():
            if stream == "vqe_hamiltonian":
                if run.hamiltonian_id in seen_hamiltonians:
                    continue
                seen_hamiltonians.add(run.hamiltonian_id)
            if stream in by_stream:
                by_stream[stream] += events
    paths = []
    for stream, events in by_stream.items():
        if not events:
            continue
        schema = schemas.current(stream)
        topic = schemas.topic_of(schema)
        paths.append(put(data_dir, object_path(topic, number), container(events, schema)))
    return paths


def random_iterations(number: int, runs: int, of_each: int, n_parameters: int) -> "pa.Table":
    """Rows of vqe_iterations with random parameters, which nothing compresses."""
    import numpy as np
    import pyarrow as pa

    from spark_jobs.rows import arrow_schema
    from spark_jobs.tables import by_name

    schema = arrow_schema(by_name("vqe_iterations"))
    n = runs * of_each
    drawn = np.random.default_rng(number)
    offsets = pa.array(np.arange(0, n * n_parameters + 1, n_parameters, dtype=np.int32))
    values = {
        "run_id": pa.array([Run(1000 * number + run).run_id for run in range(runs) for _ in range(of_each)]),
        "recorded_at": pa.array([BEGIN + timedelta(hours=number)] * n, pa.timestamp("us", "UTC")),
        "iteration": pa.array(np.tile(np.arange(of_each), runs), pa.int32()),
        "energy": pa.array(drawn.normal(size=n)),
        "parameters": pa.ListArray.from_arrays(offsets, pa.array(drawn.normal(size=n * n_parameters))),
    }
    columns = [values[f.name].cast(f.type) if f.name in values else pa.nulls(n, f.type) for f in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def results(data_dir: Path) -> list[dict[str, Any]]:
    """Results in the raw files of a data dir, those that are being written included."""
    found: dict[str, dict[str, Any]] = {}
    for path in data_dir.glob("raw/vqe_result_v1/*/*"):
        with contextlib.suppress(avro.DamagedContainer, OSError):
            for record in avro.records(path.read_bytes()):
                found[record["run_id"]] = record
    return list(found.values())
