"""H psi by occupation strings against Pauli strings, and programs of gates against gates one by one."""

import dataclasses

import numpy as np
import pytest

from simulator.chemistry.integrals import build_problem
from simulator.chemistry.molecules import load_molecule
from simulator.engines import fock
from simulator.engines._slow.paulis import gates_state, sum_matrix
from simulator.engines.fock import FockProduct
from simulator.engines.gate_kernels import Y_THEN_Z, angles_of, program_of, run_program, undo_program
from simulator.engines.statevector import PauliOperator, StatevectorEngine, joined
from simulator.operators.circuits import ROTATION, Gates, library_gates
from simulator.operators.hamiltonian import Mapping, qubit_hamiltonian
from simulator.operators.paulis import PauliSum
from simulator.stages import Stages
from simulator.vqe.spec import make_spec

MAPPERS = ("jordan_wigner", "parity", "bravyi_kitaev")


@pytest.fixture(scope="module")
def problems():
    given = {"lih": {"freeze_core": True}, "oh": {"freeze_core": True}, "h3+": {}, "h4": {}}
    return {name: build_problem(make_spec(load_molecule(name), **g), Stages()) for name, g in given.items()}


@pytest.mark.parametrize("mapper", MAPPERS)
@pytest.mark.parametrize("name", ["lih", "oh", "h3+", "h4"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_h_psi_by_occupations_is_that_by_pauli_strings(problems, name, mapper, symmetric):
    p = problems[name]
    hamiltonian = qubit_hamiltonian(p, mapper, Stages())
    integrals = hamiltonian.integrals
    if not symmetric:
        integrals = dataclasses.replace(integrals, orbsym=None)
    psi = np.random.default_rng(1).normal(size=(2, 2**hamiltonian.n_qubits))
    product, energy = FockProduct(integrals, Mapping(mapper, p.norb, p.nelec)).parts_with_energy(psi)
    expected, expected_energy = PauliOperator(hamiltonian.operator).parts_with_energy(psi)
    np.testing.assert_allclose(product, expected, atol=1e-9)
    assert energy == pytest.approx(expected_energy, abs=1e-7)


def test_a_part_that_is_zero_stays_zero(problems):
    p = problems["h4"]
    hamiltonian = qubit_hamiltonian(p, "jordan_wigner", Stages())
    psi = np.random.default_rng(1).normal(size=(2, 2**hamiltonian.n_qubits))
    psi[1] = 0.0
    product, _ = FockProduct(hamiltonian.integrals, Mapping("jordan_wigner", p.norb, p.nelec)).parts_with_energy(psi)
    assert not product[1].any()
    assert product[0].any()


def test_irreps_that_integrals_contradict_are_not_used(problems):
    p = problems["h4"]
    broken = p.h1.copy()
    first, other = 0, int(np.flatnonzero(p.orbsym != p.orbsym[0])[0])
    broken[first, other] = broken[other, first] = 0.3
    p = dataclasses.replace(p, h1=broken)
    hamiltonian = qubit_hamiltonian(p, "jordan_wigner", Stages())
    psi = np.random.default_rng(1).normal(size=(2, 2**hamiltonian.n_qubits))
    product, _ = FockProduct(hamiltonian.integrals, Mapping("jordan_wigner", p.norb, p.nelec)).parts_with_energy(psi)
    np.testing.assert_allclose(product, PauliOperator(hamiltonian.operator).parts_with_energy(psi)[0], atol=1e-9)


@pytest.mark.parametrize("mapper", MAPPERS)
@pytest.mark.parametrize("ansatz", ["efficient_su2", "real_amplitudes", "excitation_preserving"])
def test_energy_and_gradient_do_not_depend_on_the_way_to_h_psi(problems, ansatz, mapper):
    p = problems["lih"]
    mapping = Mapping(mapper, p.norb, p.nelec)
    hamiltonian = qubit_hamiltonian(p, mapper, Stages())
    gates = library_gates(ansatz, 1, mapping)
    by_occupations = StatevectorEngine(gates, hamiltonian, mapping)
    by_strings = StatevectorEngine(gates, dataclasses.replace(hamiltonian, integrals=None), mapping)
    by_occupations._hamiltonian = fock.FockProduct(hamiltonian.integrals, mapping)
    assert isinstance(by_strings._hamiltonian, PauliOperator)
    x = np.random.default_rng(2).uniform(-1, 1, gates.n_parameters)
    energy, gradient = by_occupations.energy_and_gradient(x)
    expected, expected_gradient = by_strings.energy_and_gradient(x)
    assert energy == pytest.approx(expected, abs=1e-10)
    assert by_occupations.energy(x)[0] == pytest.approx(expected, abs=1e-10)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-9)


def random_gates(n_qubits, n_gates, seed):
    """Rotations by one and more qubits' Pauli strings and CNOTs, in any order."""
    random = np.random.default_rng(seed)
    kind, x, z = [], [], []
    for _ in range(n_gates):
        kind.append(random.choice([ROTATION, ROTATION, ROTATION, 1]))
        if kind[-1] == 1:
            control, target = random.choice(n_qubits, 2, replace=False).tolist()
            masks = 1 << control, 1 << target
        elif random.random() < 0.7:
            q = 1 << int(random.integers(n_qubits))
            masks = [(0, q), (q, q), (q, 0)][random.integers(3)]
        else:
            masks = tuple(random.integers(1, 2**n_qubits, 2).tolist())
            if random.random() < 0.4:  # diagonal
                masks = (0, masks[1])
        x.append(masks[0])
        z.append(masks[1])
    kind = np.array(kind, np.int64)
    slot = np.where(kind == ROTATION, np.cumsum(kind == ROTATION) - 1, -1)
    n = int(np.sum(kind == ROTATION))
    return Gates(
        n_qubits, 1, kind, np.array(x, np.uint64), np.array(z, np.uint64), slot, np.ones(n_gates), np.arange(n), 1,
        tuple(map(str, range(n))), np.zeros(n),
    )  # fmt: skip


@pytest.mark.parametrize("low_qubits", [1, 2, 3, 13])
@pytest.mark.parametrize("seed", range(4))
def test_a_program_is_its_gates_one_by_one(seed, low_qubits):
    gates = random_gates(4, 40, seed)
    x = np.random.default_rng(seed).uniform(-2, 2, gates.n_parameters)
    at, program = angles_of(gates, gates.angles(x)), program_of(gates, low_qubits)
    psi = np.zeros((2, 16))
    psi[0, gates.initial_state] = 1.0
    run_program(psi, program, at, low_qubits)
    np.testing.assert_allclose(joined(psi), gates_state(gates, x), atol=1e-12)


@pytest.mark.parametrize("low_qubits", [2, 13])
def test_undone_gates_leave_the_start_and_each_ones_derivative(low_qubits):
    gates = random_gates(4, 30, 7)
    x = np.random.default_rng(7).uniform(-2, 2, gates.n_parameters)
    matrix = sum_matrix(PauliSum.from_terms(4, [(1, 3, 0.3), (5, 0, -0.7), (0, 9, 0.4), (15, 6, 0.2)]))

    def energy(parameters):
        state = gates_state(gates, parameters)
        return np.vdot(state, matrix @ state).real

    state = gates_state(gates, x)
    psi = np.array([state.real, state.imag])
    lam = matrix @ state
    slopes = np.zeros(len(gates.kind))
    program = program_of(gates, low_qubits)
    undo_program(psi, np.array([lam.real, lam.imag]), program, angles_of(gates, gates.angles(x)), low_qubits, slopes)
    assert psi[0, gates.initial_state] == pytest.approx(1, abs=1e-12)
    steps = np.eye(len(x)) * 1e-4
    differences = [(energy(x + s) - energy(x - s)) / 2e-4 for s in steps]
    np.testing.assert_allclose(slopes[gates.slot >= 0], differences, atol=1e-6)


def test_layers_of_one_qubit_gates_become_one_pass_for_each_qubit():
    gates = library_gates("efficient_su2", 2, Mapping("jordan_wigner", 3, (1, 1)))
    program = program_of(gates)
    assert int(np.sum(program.operation == Y_THEN_Z)) == 3 * 6
    assert len(program.operation) == 3 * 6 + 2 * 5
