import numpy as np
import pytest

from simulator.chemistry.integrals import build_problem
from simulator.chemistry.molecules import load_molecule
from simulator.engines._slow.paulis import gates_state, sum_matrix
from simulator.engines.sector import SectorEngine
from simulator.engines.statevector import PauliOperator, StatevectorEngine
from simulator.operators.circuits import build_circuit, library_gates, uccsd_gates
from simulator.operators.excitations import uccsd
from simulator.operators.hamiltonian import Mapping, qubit_hamiltonian
from simulator.stages import Stages
from simulator.vqe.spec import make_spec

MAPPERS = ("jordan_wigner", "parity", "bravyi_kitaev")
ANSATZE = ("uccsd", "efficient_su2", "real_amplitudes", "excitation_preserving")


def engine_of(name, ansatz, mapper):
    p = build_problem(make_spec(load_molecule(name)), Stages())
    mapping = Mapping(mapper, p.norb, p.nelec)
    gates = uccsd_gates(uccsd(p.norb, p.nelec), mapping) if ansatz == "uccsd" else library_gates(ansatz, 2, mapping)
    return p, StatevectorEngine(gates, qubit_hamiltonian(p, mapper, Stages()), mapping)


def random_parameters(n):
    return np.random.default_rng(5).uniform(-1, 1, n)


@pytest.mark.parametrize("mapper", MAPPERS)
@pytest.mark.parametrize("ansatz", ANSATZE)
def test_state_and_energy_are_those_of_dense_matrices(ansatz, mapper):
    p, engine = engine_of("heh+", ansatz, mapper)
    x = random_parameters(engine.n_parameters)
    expected = gates_state(engine.gates, x)
    np.testing.assert_allclose(engine.state(x), expected, atol=1e-12)
    matrix = sum_matrix(qubit_hamiltonian(p, mapper, Stages()).operator)
    energy = np.vdot(expected, matrix @ expected).real + p.energy_offset
    assert engine.energy(x)[0] == pytest.approx(energy, abs=1e-11)


@pytest.mark.parametrize("mapper", MAPPERS)
@pytest.mark.parametrize("ansatz", ANSATZE)
def test_gradient_is_the_finite_difference(ansatz, mapper):
    _, engine = engine_of("heh+", ansatz, mapper)
    x = random_parameters(engine.n_parameters)
    energy, gradient = engine.energy_and_gradient(x)
    assert energy == pytest.approx(engine.energy(x)[0], abs=1e-12)
    steps = np.eye(len(x)) * 1e-4
    differences = [(engine.energy(x + s)[0] - engine.energy(x - s)[0]) / 2e-4 for s in steps]
    np.testing.assert_allclose(gradient, differences, atol=1e-6)


@pytest.mark.parametrize("mapper", MAPPERS)
@pytest.mark.parametrize("ansatz", ANSATZE)
def test_state_is_that_of_the_circuit_given_to_aer(ansatz, mapper):
    from qiskit.quantum_info import Statevector

    _, engine = engine_of("h3+" if ansatz == "uccsd" else "heh+", ansatz, mapper)
    x = random_parameters(engine.n_parameters)
    circuit = build_circuit(engine.gates, engine.gates.angles(x).tolist())
    assert abs(np.vdot(Statevector(circuit).data, engine.state(x))) == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize("name", ["efficient_su2", "real_amplitudes", "excitation_preserving"])
def test_gates_are_those_of_qiskits_library(name):
    from qiskit import QuantumCircuit
    from qiskit.circuit import library
    from qiskit.quantum_info import Statevector

    mapping = Mapping("jordan_wigner", 2, (1, 1))
    gates = library_gates(name, 3, mapping)
    x = random_parameters(gates.n_parameters)
    circuit = QuantumCircuit(4)
    if name == "excitation_preserving":
        circuit.x([0, 2])
    circuit.compose(getattr(library, name)(4, reps=3).assign_parameters(x), inplace=True)
    assert abs(np.vdot(Statevector(circuit).data, gates_state(gates, x))) == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize("mapper", MAPPERS)
@pytest.mark.parametrize("name", ["lih", "oh"])
def test_uccsd_on_qubits_is_the_sector_engine(name, mapper):
    p = build_problem(make_spec(load_molecule(name), freeze_core=True), Stages())
    ansatz, mapping = uccsd(p.norb, p.nelec, orbsym=p.orbsym), Mapping(mapper, p.norb, p.nelec)
    qubits = StatevectorEngine(uccsd_gates(ansatz, mapping), qubit_hamiltonian(p, mapper, Stages()), mapping)
    sector = SectorEngine(p, ansatz)
    x = random_parameters(ansatz.n_parameters) * 0.3
    energy, gradient = qubits.energy_and_gradient(x)
    expected, expected_gradient = sector.energy_and_gradient(x)
    assert energy == pytest.approx(expected, abs=1e-10)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-9)
    assert qubits.n_electrons_and_spin(x) == pytest.approx(sector.n_electrons_and_spin(x), abs=1e-9)


@pytest.mark.parametrize("mapper", MAPPERS)
@pytest.mark.parametrize("ansatz", ANSATZE)
def test_hf_parameters_make_the_hartree_fock_determinant(ansatz, mapper):
    p, engine = engine_of("heh+", ansatz, mapper)
    assert engine.energy(engine.gates.hf_parameters)[0] == pytest.approx(p.hf_energy, abs=1e-9)


def test_an_operator_on_a_state_is_its_matrix():
    p = build_problem(make_spec(load_molecule("h2")), Stages())
    operator = qubit_hamiltonian(p, "bravyi_kitaev", Stages()).operator
    psi = np.random.default_rng(0).normal(size=(2, 16)).T @ [1, 1j]
    np.testing.assert_allclose(PauliOperator(operator).apply(psi), sum_matrix(operator) @ psi, atol=1e-12)
