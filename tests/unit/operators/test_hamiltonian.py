import numpy as np
import pytest

from simulator.chemistry.integrals import build_problem
from simulator.chemistry.molecules import load_molecule
from simulator.chemistry.references import compute_references, reference_energy
from simulator.engines._slow.paulis import string_matrix, sum_matrix
from simulator.operators.hamiltonian import Mapping, _ladder_operators, qubit_hamiltonian
from simulator.operators.paulis import PauliSum
from simulator.stages import Stages
from simulator.vqe.spec import make_spec

MAPPERS = ("jordan_wigner", "parity", "bravyi_kitaev")


def problem(name, **given):
    return build_problem(make_spec(load_molecule(name), **given), Stages())


def nature_mapper(mapper, nelec):
    from qiskit_nature.second_q.mappers import BravyiKitaevMapper, JordanWignerMapper, ParityMapper

    return {
        "jordan_wigner": JordanWignerMapper,
        "parity": lambda: ParityMapper(num_particles=nelec),
        "bravyi_kitaev": BravyiKitaevMapper,
    }[mapper]()


def terms(operator):
    return {label: coefficient for label, coefficient in operator.to_list() if abs(coefficient) > 1e-8}


@pytest.mark.parametrize("mapper", MAPPERS)
@pytest.mark.parametrize("name", ["heh+", "h3+", "h4", "oh"])
def test_terms_are_exactly_qiskit_natures(name, mapper):
    from pyscf import ao2mo
    from qiskit_nature.second_q.hamiltonians import ElectronicEnergy

    p = problem(name, freeze_core=True)
    ours = terms(qubit_hamiltonian(p, mapper, Stages()).to_sparse_pauli_op())
    electronic = ElectronicEnergy.from_raw_integrals(p.h1, ao2mo.restore(1, p.eri, p.norb))
    theirs = terms(nature_mapper(mapper, p.nelec).map(electronic.second_q_op()))
    assert set(ours) == set(theirs)
    assert all(abs(ours[label] - theirs[label]) < 1e-10 for label in ours)


@pytest.mark.parametrize("mapper", MAPPERS)
@pytest.mark.parametrize("modes", [1, 2, 3, 7, 12])
def test_ladder_operators_are_qiskit_natures(modes, mapper):
    mask = lambda bits: sum(1 << q for q, bit in enumerate(bits) if bit)  # noqa: E731
    theirs = nature_mapper(mapper, None).pauli_table(modes)
    for ours, (p, r) in zip(_ladder_operators(mapper, modes), theirs, strict=True):
        assert list(zip(ours.x.tolist(), ours.z.tolist(), ours.coefficients.tolist(), strict=True)) == [
            (mask(p.x), mask(p.z), 0.5),
            (mask(r.x), mask(r.z), 0.5j),
        ]


@pytest.mark.parametrize("mapper", MAPPERS)
def test_electron_number_and_spin_are_qiskit_natures(mapper):
    from qiskit_nature.second_q.properties import AngularMomentum, ParticleNumber

    mapping = Mapping(mapper, 3, (2, 1))
    oracle = nature_mapper(mapper, (2, 1))
    for ours, theirs in (
        (mapping.number_operator(), ParticleNumber(3).second_q_ops()["ParticleNumber"]),
        (mapping.spin_squared_operator(), AngularMomentum(3).second_q_ops()["AngularMomentum"]),
    ):
        np.testing.assert_allclose(sum_matrix(ours), oracle.map(theirs).to_matrix(), atol=1e-12)


@pytest.mark.parametrize("mapper", MAPPERS)
@pytest.mark.parametrize("name", ["h2", "oh"])
def test_lowest_eigenvalue_in_the_sector_is_fci(name, mapper):
    spec = make_spec(
        load_molecule(name), active_electrons=None if name == "h2" else 3, active_orbitals=None if name == "h2" else 2
    )
    p = build_problem(spec, Stages())
    operator = qubit_hamiltonian(p, mapper, Stages())
    mapping = Mapping(mapper, p.norb, p.nelec)
    penalty = sum_matrix(mapping.number_operator()) - sum(p.nelec) * np.eye(2**operator.n_qubits)
    energies = np.linalg.eigvalsh(sum_matrix(operator.operator) + 10 * penalty @ penalty)
    found = reference_energy(compute_references(p, spec, Stages()))
    assert energies[0] + p.energy_offset == pytest.approx(found[1], abs=1e-8)


@pytest.mark.parametrize("mapper", MAPPERS)
def test_hartree_fock_state_has_the_hartree_fock_energy(mapper):
    p = problem("lih")
    operator = qubit_hamiltonian(p, mapper, Stages())
    state = Mapping(mapper, p.norb, p.nelec).hartree_fock_state()
    diagonal = operator.operator.x == 0
    signs = 1 - 2.0 * (np.bitwise_count(operator.operator.z[diagonal] & np.uint64(state)) % 2)
    energy = operator.operator.coefficients[diagonal].real @ signs + operator.energy_offset
    assert energy == pytest.approx(p.hf_energy, abs=1e-8)


def test_parity_mapping_needs_two_qubits_fewer():
    p = problem("h2")
    assert [qubit_hamiltonian(p, m, Stages()).n_qubits for m in MAPPERS] == [4, 2, 4]


def test_id_depends_on_terms_and_offset_and_nothing_else():
    first, again = (qubit_hamiltonian(problem("h2"), "jordan_wigner", Stages()) for _ in range(2))
    other = qubit_hamiltonian(problem("h2"), "bravyi_kitaev", Stages())
    assert first.hamiltonian_id == again.hamiltonian_id != other.hamiltonian_id


def test_products_of_pauli_sums_are_those_of_their_matrices():
    rng = np.random.default_rng(3)
    make = lambda: PauliSum.from_terms(  # noqa: E731
        3,
        [
            (int(x), int(z), complex(c, d))
            for x, z, c, d in zip(*rng.integers(0, 8, (2, 5)), *rng.normal(size=(2, 5)), strict=True)
        ],
    )
    a, b = make(), make()
    np.testing.assert_allclose(sum_matrix(a @ b), sum_matrix(a) @ sum_matrix(b), atol=1e-12)
    np.testing.assert_allclose(sum_matrix(a - b), sum_matrix(a) - sum_matrix(b), atol=1e-12)
    np.testing.assert_allclose(sum_matrix(a.adjoint()), sum_matrix(a).conj().T, atol=1e-12)


def test_labels_have_qubit_0_rightmost():
    assert PauliSum.from_terms(3, [(0b001, 0b010, 1.0)]).labels() == ["IZX"]
    assert string_matrix("IX")[0, 1] == 1.0


def test_a_qubit_that_is_flipped_cannot_be_removed():
    with pytest.raises(ValueError, match="flips qubit 1"):
        PauliSum.from_terms(2, [(2, 0, 1.0)]).without_qubits({1: 1})
