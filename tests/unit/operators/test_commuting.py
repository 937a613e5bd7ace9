"""Strings that are measured together, and the change of basis that makes Z strings of them."""

import numpy as np
import pytest

from simulator.chemistry.integrals import build_problem
from simulator.chemistry.molecules import load_molecule
from simulator.engines._slow.paulis import sum_matrix
from simulator.operators.commuting import commuting_groups, diagonalised, qubitwise_groups
from simulator.operators.hamiltonian import qubit_hamiltonian
from simulator.operators.paulis import PauliSum
from simulator.stages import Stages
from simulator.vqe.spec import make_spec

SMALL = ("h2", "h3+", "heh+", "h4", "h4-square", "oh", "hf", "lih", "ch2", "beh2", "h2o")
"""Bundled molecules of up to 14 qubits."""


def hamiltonian(name, mapper="jordan_wigner", **given):
    return qubit_hamiltonian(
        build_problem(make_spec(load_molecule(name), **given), Stages()), mapper, Stages()
    ).operator


def random_sum(n_qubits, n_terms, seed):
    rng = np.random.default_rng(seed)
    x, z = (rng.integers(0, 2**n_qubits, n_terms).astype(np.uint64) for _ in range(2))
    return PauliSum(n_qubits, x, z, rng.normal(size=n_terms).astype(complex)).simplified()


def part(operator, members):
    return PauliSum(operator.n_qubits, operator.x[members], operator.z[members], operator.coefficients[members])


def in_z(group, n_qubits):
    """The group's observable after the change of basis."""
    masks = group.outcome_masks
    return PauliSum(n_qubits, np.zeros_like(masks), masks, group.coefficients.astype(complex))


def as_circuit(group, n_qubits):
    from qiskit import QuantumCircuit

    circuit = QuantumCircuit(n_qubits)
    for gate, qubits in group.circuit():
        getattr(circuit, gate)(*qubits)
    return circuit


def assert_diagonalises(operator, group):
    """U A U^dagger is the group's sum of Z strings, entry by entry."""
    from qiskit.quantum_info import Operator

    u = Operator(as_circuit(group, operator.n_qubits)).data
    dense = sum_matrix(part(operator, group.members))
    np.testing.assert_allclose(u @ dense @ u.conj().T, sum_matrix(in_z(group, operator.n_qubits)), atol=1e-12)


@pytest.mark.parametrize("n_qubits", [1, 2, 3, 4, 5])
def test_the_change_of_basis_makes_z_strings_of_random_commuting_strings(n_qubits):
    for seed in range(12):
        operator = random_sum(n_qubits, 60, seed)
        for group in commuting_groups(operator):
            assert_diagonalises(operator, group)


@pytest.mark.parametrize("mapper", ["jordan_wigner", "parity", "bravyi_kitaev"])
@pytest.mark.parametrize("name", ["h2", "h3+", "heh+"])
def test_the_change_of_basis_makes_z_strings_of_a_molecules_groups(name, mapper):
    operator = hamiltonian(name, mapper)
    for group in commuting_groups(operator):
        assert_diagonalises(operator, group)


@pytest.mark.parametrize("name", SMALL)
def test_qiskits_clifford_algebra_turns_larger_molecules_groups_into_the_same_z_strings(name):
    from qiskit.quantum_info import Clifford, PauliList

    operator = hamiltonian(name)
    labels = operator.labels()
    for group in commuting_groups(operator):
        strings = PauliList([labels[k] for k in group.members])
        turned = strings.evolve(Clifford(as_circuit(group, operator.n_qubits)), frame="s")
        signs = 1 - turned.phase.astype(int)  # phase 0 is +1 and 2 is -1
        assert set(signs) <= {1, -1}
        expected = in_z(group, operator.n_qubits)
        unsigned = PauliList.from_symplectic(turned.z, turned.x)
        assert unsigned.to_labels() == [expected.labels()[k] for k in range(len(expected))]
        np.testing.assert_array_equal(signs * operator.coefficients.real[group.members], group.coefficients)


@pytest.mark.parametrize("name", SMALL)
def test_groups_hold_every_string_but_the_identity_once_and_commute(name):
    operator = hamiltonian(name)
    groups = commuting_groups(operator)
    identity = np.flatnonzero((operator.x | operator.z) == 0)
    assert sorted([*np.concatenate([g.members for g in groups]), *identity]) == list(range(len(operator)))
    for group in groups:
        x, z = operator.x[group.members], operator.z[group.members]
        crossings = np.bitwise_count(x[:, None] & z) + np.bitwise_count(z[:, None] & x)
        assert not np.any(crossings % 2)


def test_general_commutation_needs_a_third_of_the_groups_or_fewer():
    operator = hamiltonian("lih")
    assert 3 * len(commuting_groups(operator)) < len(qubitwise_groups(operator))


def test_sorted_insertion_begins_with_the_largest_coefficient_and_takes_the_first_group_that_fits():
    operator = PauliSum.from_labels(["XX", "ZZ", "ZI", "IZ", "YY"], [0.5, 0.4, 0.9, 0.3, 0.2])
    found = [[operator.labels()[k] for k in group.members] for group in commuting_groups(operator)]
    assert found == [["ZI", "ZZ", "IZ"], ["XX", "YY"]]


def test_strings_that_do_not_commute_are_refused():
    operator = PauliSum.from_labels(["XX", "ZI"], [0.5, 0.4])
    with pytest.raises(ValueError, match="do not commute"):
        diagonalised(operator, np.array([0, 1]))


def test_qubitwise_groups_agree_on_every_qubit_and_hold_every_string():
    operator = hamiltonian("h4")
    groups = qubitwise_groups(operator)
    assert sorted(np.concatenate(groups)) == list(range(len(operator)))
    labels = operator.labels()
    for group in groups:
        letters = [{labels[k][q] for k in group} - {"I"} for q in range(operator.n_qubits)]
        assert all(len(found) <= 1 for found in letters)
