import dataclasses

import numpy as np
import pytest

from simulator.chemistry.integrals import build_problem
from simulator.chemistry.molecules import load_molecule
from simulator.engines import rotations, sector
from simulator.engines._slow.sector import uccsd_state
from simulator.engines.sector import SectorEngine
from simulator.engines.statevector import StatevectorEngine
from simulator.operators.circuits import uccsd_gates
from simulator.operators.excitations import Excitation, all_excitations, n_excitations, uccsd
from simulator.operators.hamiltonian import Mapping, QubitHamiltonian
from simulator.operators.paulis import PauliSum
from simulator.stages import Stages
from simulator.vqe.initial_point import mp2_parameters
from simulator.vqe.spec import make_spec


def problem(name, **given):
    return build_problem(make_spec(load_molecule(name), **given), Stages())


def ansatz_of(p, **given):
    return uccsd(p.norb, p.nelec, orbsym=p.orbsym, spin_tied=p.is_closed_shell, **given)


def random_parameters(ansatz, seed=1):
    return np.random.default_rng(seed).uniform(-0.7, 0.7, ansatz.n_parameters)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(
    ("norb", "nelec"), [(3, (1, 1)), (4, (2, 2)), (4, (3, 1)), (4, (2, 0)), (5, (3, 2)), (2, (2, 1))]
)
def test_kernels_are_their_plain_twin(norb, nelec, compiled, monkeypatch):
    monkeypatch.setattr(sector, "MAX_PLAIN", 0 if compiled else 1e9)
    ansatz = uccsd(norb, nelec, spin_tied=nelec[0] == nelec[1])
    p = problem("h2")
    n_pairs = norb * (norb + 1) // 2
    fake = dataclasses.replace(
        p,
        norb=norb,
        nelec=nelec,
        h1=np.eye(norb),
        eri=np.zeros(n_pairs * (n_pairs + 1) // 2),
        mo_energy=np.arange(norb, dtype=float),
        orbsym=None,
    )
    x = random_parameters(ansatz)
    np.testing.assert_allclose(SectorEngine(fake, ansatz).state(x), uccsd_state(norb, nelec, ansatz, x), atol=1e-13)


@pytest.mark.parametrize("name", ["lih", "oh", "h4", "ch2"])
def test_gradient_is_the_finite_difference(name):
    p = problem(name)
    ansatz = ansatz_of(p)
    engine, x = SectorEngine(p, ansatz), random_parameters(ansatz)
    energy, gradient = engine.energy_and_gradient(x)
    assert energy == pytest.approx(engine.energy(x)[0], abs=1e-12)
    for k in range(0, ansatz.n_parameters, max(1, ansatz.n_parameters // 6)):
        step = np.eye(ansatz.n_parameters)[k] * 1e-4
        difference = (engine.energy(x + step)[0] - engine.energy(x - step)[0]) / 2e-4
        assert gradient[k] == pytest.approx(difference, abs=1e-6)


def test_the_plain_kernels_of_small_states_give_the_compiled_ones_energies_and_gradients(monkeypatch):
    p = problem("h2")
    ansatz = ansatz_of(p)
    plain = SectorEngine(p, ansatz)
    monkeypatch.setattr(sector, "MAX_PLAIN", 0)
    compiled = SectorEngine(p, ansatz)
    assert (plain._rotations._rotate, compiled._rotations._rotate) == (
        rotations.rotate.plain,
        rotations.rotate.compiled,
    )
    for x in (random_parameters(ansatz), mp2_parameters(p, ansatz)):
        (energy, gradient), (expected, slopes) = plain.energy_and_gradient(x), compiled.energy_and_gradient(x)
        assert energy == pytest.approx(expected, abs=1e-14)
        np.testing.assert_allclose(gradient, slopes, atol=1e-14)


def test_zero_amplitudes_are_hartree_fock():
    p = problem("h2o")
    ansatz = ansatz_of(p)
    assert SectorEngine(p, ansatz).energy(np.zeros(ansatz.n_parameters))[0] == pytest.approx(p.hf_energy, abs=1e-9)


@pytest.mark.filterwarnings(
    "ignore:.*BlueprintCircuit:DeprecationWarning"
)  # Qiskit Nature 0.8 under Qiskit 2: the oracle only
@pytest.mark.filterwarnings("ignore:.*qiskit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*deprecated:PendingDeprecationWarning")
def test_state_is_qiskit_natures_uccsd():
    from qiskit import transpile
    from qiskit.quantum_info import Statevector
    from qiskit_nature.second_q.circuit.library import UCCSD, HartreeFock
    from qiskit_nature.second_q.mappers import JordanWignerMapper

    norb, nelec = 3, (2, 1)
    ansatz = uccsd(norb, nelec)

    def in_our_order(num_spatial_orbitals, num_particles):
        flat = lambda e, k: e.alpha[k] + tuple(p + norb for p in e.beta[k])  # noqa: E731
        return [(flat(e, 1), flat(e, 0)) for e in ansatz.excitations]

    mapper = JordanWignerMapper()
    circuit = UCCSD(norb, nelec, mapper, initial_state=HartreeFock(norb, nelec, mapper), generalized=False)
    circuit.excitations = in_our_order
    x = random_parameters(ansatz)
    # Qiskit Nature orders a double's operators otherwise: the sign of each excitation's angle is a convention
    bound = transpile(circuit, basis_gates=["rx", "ry", "rz", "h", "cx", "x", "s", "sdg"], optimization_level=0)
    gates = uccsd_gates(ansatz, Mapping("jordan_wigner", norb, nelec))
    engine = StatevectorEngine(
        gates, QubitHamiltonian("jordan_wigner", 6, PauliSum.identity(6), 0.0), Mapping("jordan_wigner", norb, nelec)
    )
    ours = engine.state(x)
    signs = np.ones(len(x))
    for k in range(len(x)):  # one excitation at a time decides its sign
        alone = np.zeros(len(x))
        alone[k] = 0.3
        same = abs(np.vdot(Statevector(bound.assign_parameters(alone)).data, engine.state(alone)))
        signs[k] = 1.0 if same > 1 - 1e-9 else -1.0
    found = Statevector(bound.assign_parameters(signs * x)).data
    assert abs(np.vdot(found, ours)) == pytest.approx(1, abs=1e-10)


def test_excitations_are_counted_without_being_made():
    for norb, nelec in [(4, (2, 2)), (5, (3, 1)), (6, (2, 2)), (3, (3, 0))]:
        assert n_excitations(norb, nelec) == len(all_excitations(norb, nelec))


def test_labels_name_what_moves_where():
    assert Excitation(((2,), (0,)), ((3,), (1,))).label == "a0->a2 b1->b3"
    assert uccsd(2, (1, 1), spin_tied=True).labels == ("a0->a1 b0->b1", "a0->a1 and mirror")
    assert len(uccsd(2, (1, 1)).labels) == 3
    assert uccsd(2, (1, 1), spin_tied=True, reps=2).labels[2] == "a0->a1 b0->b1 #2"


def test_screening_drops_what_symmetry_forbids():
    p = problem("h2")
    assert uccsd(p.norb, p.nelec, orbsym=p.orbsym).labels == ("a0->a1 b0->b1",)
