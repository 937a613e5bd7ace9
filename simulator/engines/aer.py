"""Aer: the check of a run's final parameters, and the engine for shots, noise, other methods, precisions and devices."""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.engines.base import samples_states
from simulator.engines.limits import check_aer
from simulator.errors import InputError, RunFailed
from simulator.operators.circuits import Gates, build_circuit
from simulator.operators.commuting import qubitwise_groups
from simulator.operators.hamiltonian import Mapping, QubitHamiltonian
from simulator.operators.paulis import PauliSum

if TYPE_CHECKING:
    from simulator.engines.base import EngineSpec
    from simulator.engines.gate_kernels import Program
    from simulator.engines.shots import ShotSampler

ONE_QUBIT_GATES = ["rx", "ry", "rz", "h", "s", "sdg", "x"]
TWO_QUBIT_GATES = ["cx", "cz"]
"""What circuits are made of, and so where noise acts."""


@dataclass(frozen=True)
class AerCheck:
    """What Aer says about an ansatz at given parameters, without noise, in double precision."""

    energy: float  # total, hartree
    n_electrons: float  # over the active space
    s_squared: float
    depth: int
    two_qubit_gates: int


def evaluate(gates: Gates, parameters: np.ndarray, hamiltonian: QubitHamiltonian, mapping: Mapping) -> AerCheck:
    """Run the ansatz's circuit on Aer's statevector method.

    Raises:
        RunFailed: Aer reports an error.
    """
    from qiskit_aer import AerSimulator
    from qiskit_aer.library import SaveExpectationValue

    circuit = build_circuit(gates, gates.angles(parameters).tolist())
    depth, two_qubit_gates = circuit.depth(), circuit.num_nonlocal_gates()
    observables = {
        "energy": hamiltonian.to_sparse_pauli_op(),
        "n_electrons": sparse_pauli_op(mapping.number_operator()),
        "s_squared": sparse_pauli_op(mapping.spin_squared_operator()),
    }
    for label, observable in observables.items():
        circuit.append(SaveExpectationValue(observable, label=label), range(gates.n_qubits))
    values = completed(AerSimulator(method="statevector", precision="double").run(circuit, shots=1)).data(0)
    return AerCheck(
        float(values["energy"]) + hamiltonian.energy_offset, float(values["n_electrons"]), float(values["s_squared"]),
        depth, two_qubit_gates,
    )  # fmt: skip


def completed(job: Any) -> Any:
    """A job's result.

    Raises:
        RunFailed: it did not succeed.
    """
    result = job.result()
    if not result.success:
        raise RunFailed(f"Aer failed: {result.status}")
    return result


def sparse_pauli_op(operator: PauliSum) -> Any:
    """A Hermitian PauliSum as Qiskit's SparsePauliOp."""
    from qiskit.quantum_info import SparsePauliOp

    if not len(operator):
        return SparsePauliOp("I" * operator.n_qubits, [0.0])
    return SparsePauliOp(operator.labels(), operator.coefficients.real)


@cache
def gpu_available() -> tuple[bool, str]:
    """Whether Aer runs on a GPU here, and why not. Found by running a circuit: `available_devices()` claims too much."""
    from qiskit import QuantumCircuit
    from qiskit_aer import AerSimulator

    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.save_statevector()
    try:
        result = AerSimulator(method="statevector", device="GPU").run(circuit, shots=1).result()
        if not result.success:
            return False, " ".join(str(result.status).split())
        device = result.results[0].metadata.get("device", "unknown")
        norm = float(np.linalg.norm(np.asarray(result.get_statevector())))
    except Exception as error:  # a missing driver or library shows as any of several exceptions
        return False, " ".join(f"{type(error).__name__}: {error}".split())
    if str(device).upper() != "GPU":
        return False, f"Aer ran on {device} instead"
    return (True, "") if abs(norm - 1) < 1e-6 else (False, "a state from the GPU has no unit norm")


class AerEngine:
    """Energies on Aer: exact expectation values, or estimates from shots, with or without noise.

    Without shots the energy is exact for the method, noise included (density matrix); a readout error p, the same for 0 and
    1, scales a string of weight w by (1 - 2p)^w. With shots the standard error comes from the spread within each group's shots.

    Shots of a state vector without noise are drawn by `ShotSampler` from the state's probabilities, in groups of commuting strings that
    have the asked shots each on average: the longer change of basis adds no errors of gates where there are none. The state comes from
    `statevector`'s kernels, or from Aer where a GPU or single precision is asked for. With noise, and by the methods
    density_matrix and matrix_product_state, Aer samples groups of strings that commute qubit by qubit, each with all of the shots.

    Gradients follow shift rules, exact up to shot noise: two shifted energies for each rotation, four for each excitation,
    whose generator has the eigenvalues -1, 0, 1 (Anselmetti et al., doi:10.1088/1367-2630/ac2cb3).

    Raises:
        InputError: no GPU although one was asked for, or the state would not fit in memory.
    """

    name = "aer"

    def __init__(self, spec: "EngineSpec", gates: Gates, hamiltonian: QubitHamiltonian, mapping: Mapping) -> None:
        check_aer(spec, gates.n_qubits)
        if spec.device == "gpu":
            found, reason = gpu_available()
            if not found:
                raise InputError(f"device gpu: Aer cannot use a GPU here ({reason}); use device cpu")
        self.gates, self.labels, self.n_parameters = gates, gates.labels, gates.n_parameters
        self.last_standard_error: float | None = None
        self._hamiltonian, self._mapping = hamiltonian, mapping
        self._shots, self._seed, self._jobs = spec.shots, spec.seed, 0
        self._circuits: list[Any]
        self._values: list[PauliSum] = []  # what each measured circuit's counts are worth
        self._sampler = _sampler(spec, hamiltonian)
        self._program = None if self._sampler is None else _program(spec, gates)
        if self._program is not None:
            return
        self._simulator = _simulator(spec)
        self._parameters, ansatz = _parametrised(gates)
        if self._sampler is not None:
            ansatz.save_statevector()
            self._circuits = [ansatz]
        elif spec.shots is None:
            readout = spec.noise.readout if spec.noise is not None else 0.0
            self._circuits = [_with_expectation(ansatz, hamiltonian, readout)]
        else:
            self._circuits, self._values = _measurements(ansatz, hamiltonian)

    def energy(self, parameters: np.ndarray) -> tuple[float, float | None]:
        """Total energy in hartree and its standard error, None without shots and with one."""
        energies, errors = self._energies(self.gates.angles(parameters)[None, :])
        return float(energies[0]), self._standard_error(errors)

    def energy_and_gradient(self, parameters: np.ndarray) -> tuple[float, np.ndarray]:
        """Total energy in hartree and its derivatives in hartree per radian, shape: (n_parameters,)."""
        gates = self.gates
        slots = gates.slot_values(parameters)
        shifts = SHIFT_RULES[gates.frequencies]
        # a rotation's slot enters as coefficient x value: its own angle is what the rule shifts
        scale = np.ones(len(slots))
        if gates.frequencies == 1:
            scale[gates.slot[gates.slot >= 0]] = gates.coefficient[gates.slot >= 0]
        points = [slots]
        for k in range(len(slots)):
            for shift, _ in shifts:
                for sign in (1, -1):
                    moved = slots.copy()
                    moved[k] += sign * shift / scale[k]
                    points.append(moved)
        energies, errors = self._energies(np.array([gates.angles_of_slots(p) for p in points]))
        differences = (energies[1::2] - energies[2::2]).reshape(len(slots), len(shifts))
        by_slot = scale * (differences @ np.array([weight for _, weight in shifts]))
        gradient = gates.gradient_of(by_slot, parameters)
        self.last_standard_error = self._standard_error(errors)
        return float(energies[0]), gradient

    def n_electrons_and_spin(self, parameters: np.ndarray) -> tuple[float, float]:
        """<N> over the active space and <S^2> of the noiseless state."""
        check = evaluate(self.gates, parameters, self._hamiltonian, self._mapping)
        return check.n_electrons, check.s_squared

    def _standard_error(self, errors: np.ndarray) -> float | None:
        """Of the first point; None without shots, and with one shot, which has no spread."""
        return float(errors[0]) if self._shots is not None and self._shots > 1 else None

    def _energies(self, angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Energies (hartree) and standard errors at several sets of gate angles, shapes: (n_points, n_gates) -> (n_points,)."""
        self._jobs += 1
        # every job has a seed of its own: with one for all, shot noise would be the same at every point, and look like none
        seeds = np.random.SeedSequence([self._seed, self._jobs])
        offset = self._hamiltonian.energy_offset
        if self._sampler is not None:
            rng = np.random.default_rng(seeds)
            estimates = np.array([self._sampler.estimate(self._state(row), rng) for row in angles])
            return estimates[:, 0] + offset, np.sqrt(estimates[:, 1])
        seed = int(seeds.generate_state(1)[0]) % 2**31
        result, n_points = self._run(angles, seed)
        if self._shots is None:
            energies = np.array([result.data(k)["energy"] for k in range(n_points)], dtype=float) + offset
            return np.resize(energies, len(angles)), np.zeros(len(angles))
        energies, variances = np.full(n_points, offset), np.zeros(n_points)
        for group, values in enumerate(self._values):
            for k in range(n_points):
                mean, variance = _mean_and_variance(result.data(group * n_points + k)["counts"], values)
                energies[k] += mean
                variances[k] += variance
        return np.resize(energies, len(angles)), np.sqrt(np.resize(variances, len(angles)))

    def _run(self, angles: np.ndarray, seed: int) -> tuple[Any, int]:
        """Aer's result of all circuits at several sets of gate angles, and at how many: at one where the ansatz has no parameters."""
        binds = {parameter: angles[:, g].tolist() for g, parameter in self._parameters}
        binds_of_all = [binds] * len(self._circuits) if binds else None
        job = self._simulator.run(
            self._circuits, shots=self._shots or 1, parameter_binds=binds_of_all, seed_simulator=seed
        )
        return completed(job), len(angles) if binds else 1

    def _state(self, angles: np.ndarray) -> np.ndarray:
        """Real and imaginary parts of the state at gate angles of shape (n_gates,), shape: (2, 2^n_qubits)."""
        if self._program is not None:
            from simulator.engines.statevector import state_at

            return state_at(self.gates, self._program, angles)
        psi = np.asarray(self._run(angles[None, :], seed=0)[0].get_statevector())
        return np.array([psi.real, psi.imag], dtype=float)


SHIFT_RULES = {
    1: ((np.pi / 2, 0.5),),
    2: ((np.pi / 4, (np.sqrt(0.5) + 1) / 2), (3 * np.pi / 4, (np.sqrt(0.5) - 1) / 2)),
}
"""(shift, weight): dE/dx = sum of weight (E(x + shift) - E(x - shift)), exact for energies of 1 frequency, 1, and of two, 1 and 2."""


def _sampler(spec: "EngineSpec", hamiltonian: QubitHamiltonian) -> "ShotSampler | None":
    """What draws shots from state vectors; None where Aer draws them or there are none."""
    if spec.shots is None or not samples_states(spec):
        return None
    from simulator.engines.shots import ShotSampler

    return ShotSampler(hamiltonian.operator, spec.shots)


def _program(spec: "EngineSpec", gates: Gates) -> "Program | None":
    """The gates for our kernels; None where the state must come from Aer."""
    if spec.device != "cpu" or spec.precision != "double":
        return None
    from simulator.engines.gate_kernels import program_of

    return program_of(gates)


def _simulator(spec: "EngineSpec") -> Any:
    from qiskit_aer import AerSimulator

    options: dict[str, Any] = {"method": spec.aer_method, "precision": spec.precision, "device": spec.device.upper()}
    if spec.noise is not None:
        options["noise_model"] = noise_model(spec)
        if spec.shots is None and spec.aer_method == "automatic":
            options["method"] = "density_matrix"
    return AerSimulator(**options)


def noise_model(spec: "EngineSpec") -> Any:
    """Depolarizing channels after every one- and two-qubit gate, and symmetric readout errors, as Aer's NoiseModel."""
    from qiskit_aer.noise import NoiseModel, ReadoutError, depolarizing_error

    assert spec.noise is not None
    model, noise = NoiseModel(), spec.noise
    if noise.one_qubit:
        model.add_all_qubit_quantum_error(depolarizing_error(noise.one_qubit, 1), ONE_QUBIT_GATES)
    if noise.two_qubit:
        model.add_all_qubit_quantum_error(depolarizing_error(noise.two_qubit, 2), TWO_QUBIT_GATES)
    if noise.readout:
        p = noise.readout
        model.add_all_qubit_readout_error(ReadoutError([[1 - p, p], [p, 1 - p]]))
    return model


def _parametrised(gates: Gates) -> tuple[list[tuple[int, Any]], Any]:
    """(gate, Parameter) of every rotation, and the circuit with them."""
    from qiskit.circuit import Parameter

    rows = enumerate(zip(gates.slot.tolist(), gates.coefficient.tolist(), strict=True))
    angles = [Parameter(f"g{g}") if slot >= 0 else fixed for g, (slot, fixed) in rows]
    circuit = build_circuit(gates, angles)
    used = {p.name for p in circuit.parameters}
    return [(g, p) for g, p in enumerate(angles) if isinstance(p, Parameter) and p.name in used], circuit


def _with_expectation(ansatz: Any, hamiltonian: QubitHamiltonian, readout: float) -> Any:
    from qiskit_aer.library import SaveExpectationValue

    operator = hamiltonian.operator
    weight = np.bitwise_count(operator.x | operator.z)
    damped = PauliSum(operator.n_qubits, operator.x, operator.z, operator.coefficients * (1 - 2 * readout) ** weight)
    circuit = ansatz.copy()
    circuit.append(SaveExpectationValue(sparse_pauli_op(damped), label="energy"), range(circuit.num_qubits))
    return circuit


def _measurements(ansatz: Any, hamiltonian: QubitHamiltonian) -> tuple[list[Any], list[PauliSum]]:
    """Circuits that measure groups of qubit-wise commuting strings, and each group's strings, in Z after the change of basis."""
    circuits, groups = [], []
    identity = 0.0
    for chosen in qubitwise_groups(hamiltonian.operator):
        part = hamiltonian.operator
        x, z, c = part.x[chosen], part.z[chosen], part.coefficients[chosen]
        if not np.any(x | z):
            identity += float(c.sum().real)
            continue
        circuit = ansatz.copy()
        flips, phases = int(np.bitwise_or.reduce(x)), int(np.bitwise_or.reduce(x & z))
        for q in range(part.n_qubits):
            if flips >> q & 1:
                if phases >> q & 1:
                    circuit.sdg(q)
                circuit.h(q)
        circuit.measure_all()
        circuits.append(circuit)
        groups.append(PauliSum(part.n_qubits, np.zeros_like(x), x | z, c))
    if identity:  # a constant, measured without error along with the first group
        first = groups[0]
        zero = np.zeros(1, np.uint64)
        groups[0] = PauliSum(
            first.n_qubits, np.append(first.x, zero), np.append(first.z, zero), np.append(first.coefficients, identity)
        )
    return circuits, groups


def _mean_and_variance(counts: dict[str, int], group: PauliSum) -> tuple[float, float]:
    """Mean of a group's observable over the shots (hartree), and the variance of that mean."""
    from simulator.engines.shots import add_moments

    outcomes = np.array([int(key, 16) for key in counts], dtype=np.uint64)
    moments = np.zeros(3)
    add_moments(outcomes, np.array(list(counts.values()), np.int64), group.z, group.coefficients.real, moments)
    n, mean, squares = moments.tolist()
    return mean, squares / max(n - 1, 1) / n
