"""Shots that are drawn from a state vector, against the same circuits on Aer and against exact probabilities."""

import numpy as np
import pytest
from circuit_engines import engines
from scipy import stats

from simulator.engines import shots
from simulator.engines._slow.shots import mean_and_variance, outcome_values, probabilities
from simulator.engines.shots import ShotSampler, add_moments, draw_outcomes, sample, shared_out, sorted_uniform
from simulator.engines.statevector import PauliOperator, joined
from simulator.operators.circuits import build_circuit
from simulator.operators.commuting import commuting_groups
from simulator.operators.paulis import PauliSum


def random_case(n_qubits, seed):
    """A sum of random strings and a random state's real and imaginary parts."""
    rng = np.random.default_rng(seed)
    x, z = (rng.integers(0, 2**n_qubits, 50).astype(np.uint64) for _ in range(2))
    psi = rng.normal(size=(2, 2**n_qubits))
    operator = PauliSum(n_qubits, x, z, rng.normal(size=50).astype(complex)).simplified()
    return operator, psi / np.linalg.norm(psi)


def tallied(outcomes, counts, n_qubits):
    out = np.zeros(2**n_qubits)
    np.add.at(out, outcomes.astype(np.int64), counts)
    return out


def on_aer(engine, parameters, group, shots, seed):
    """Outcomes, shot by shot, of Aer measuring the ansatz's circuit after the group's change of basis."""
    from qiskit_aer import AerSimulator

    circuit = build_circuit(engine.gates, engine.gates.angles(parameters).tolist())
    for gate, qubits in group.circuit():
        getattr(circuit, gate)(*qubits)
    circuit.measure_all()
    result = AerSimulator(method="statevector").run(circuit, shots=shots, memory=True, seed_simulator=seed).result()
    return np.array([int(bits, 2) for bits in result.get_memory()], dtype=np.uint64)


@pytest.mark.parametrize("n_qubits", [1, 2, 4, 5])
def test_outcomes_have_the_probabilities_of_the_gates_one_by_one(n_qubits):
    operator, psi = random_case(n_qubits, n_qubits)
    rng = np.random.default_rng(1)
    p_values = []
    for group in commuting_groups(operator):
        expected = probabilities(joined(psi), group)
        found = tallied(*sample(psi, group, 50_000, rng), n_qubits)
        assert found.sum() == 50_000
        assert not np.any(found[expected < 1e-15])
        possible = expected * 50_000 > 5
        expected, found = expected[possible], found[possible]
        if len(expected) > 1:
            p_values.append(stats.chisquare(found, expected * found.sum() / expected.sum()).pvalue)
    assert min(p_values) > 0.01 / len(p_values)


def test_sorted_uniform_numbers_are_uniform_and_sorted():
    rng = np.random.default_rng(2)
    found = sorted_uniform(20_000, rng)
    assert np.all(np.diff(found) > 0)
    assert stats.kstest(found, "uniform").pvalue > 0.01
    smallest = [sorted_uniform(4, rng)[0] for _ in range(5000)]
    assert stats.kstest(smallest, stats.beta(1, 4).cdf).pvalue > 0.01


@pytest.mark.parametrize("ansatz", ["uccsd", "efficient_su2"])
@pytest.mark.parametrize("name", ["h2", "heh+"])
def test_outcomes_are_distributed_as_aers_of_the_same_circuit(name, ansatz):
    engine, ours, x = engines(name, ansatz=ansatz, shots=100)
    rng = np.random.default_rng(3)
    for k, group in enumerate(engine._sampler.groups):
        table = np.array([
            tallied(*sample(ours._state(x), group, 20_000, rng), 4),
            tallied(on_aer(engine, x, group, 20_000, seed=k), np.ones(20_000), 4),
        ])  # fmt: skip
        table = table[:, table.sum(axis=0) > 10]
        assert table.sum() > 39_900
        assert table.shape[1] == 1 or stats.chi2_contingency(table).pvalue > 0.002


def test_sampled_energies_are_distributed_as_those_of_aers_shots():
    engine, _, x = engines("h2", ansatz="efficient_su2", shots=40)
    energies = [engine.energy(x)[0] for _ in range(500)]
    sampler = engine._sampler
    on_aers = np.full(500, sampler.constant + engine._hamiltonian.energy_offset)
    for k, (group, n) in enumerate(zip(sampler.groups, sampler.shots, strict=True)):
        outcomes = on_aer(engine, x, group, 500 * int(n), seed=10 + k)
        on_aers += outcome_values(group, 4)[outcomes.astype(np.int64)].reshape(500, n).mean(axis=1)
    assert stats.ks_2samp(energies, on_aers).pvalue > 0.01


@pytest.mark.parametrize("per_group", [2, 25, 400])
def test_estimates_have_the_exact_mean_and_variance(per_group):
    operator, psi = random_case(4, 7)
    sampler = ShotSampler(operator, per_group)
    exact = PauliOperator(operator).expectation(joined(psi))
    moments = [mean_and_variance(joined(psi), group) for group in sampler.groups]
    assert sampler.constant + sum(mean for mean, _ in moments) == pytest.approx(exact, abs=1e-12)
    variance = sum(v / n for (_, v), n in zip(moments, sampler.shots, strict=True))
    rng = np.random.default_rng(5)
    means, told = np.array([sampler.estimate(psi, rng) for _ in range(2000)]).T
    assert abs(np.mean(means) - exact) < 3.5 * np.sqrt(variance / 2000)
    assert np.var(means, ddof=1) == pytest.approx(variance, rel=3.5 * np.sqrt(2 / 2000))
    assert np.mean(told) == pytest.approx(variance, rel=0.06)


def test_shots_in_several_pieces_are_as_good_as_in_one(monkeypatch):
    operator, psi = random_case(3, 1)
    monkeypatch.setattr(shots, "MAX_DRAWN_AT_ONCE", 37)
    sampler = ShotSampler(operator, 100)
    exact = PauliOperator(operator).expectation(joined(psi))
    means, told = np.array([sampler.estimate(psi, np.random.default_rng(seed)) for seed in range(400)]).T
    assert abs(np.mean(means) - exact) < 3.5 * np.std(means) / np.sqrt(400)
    assert np.mean(told) == pytest.approx(np.var(means), rel=0.25)
    assert sum(shots.pieces(100)) == 100


def test_a_number_beyond_the_last_probability_is_the_last_possible_outcome():
    """Where rounding leaves the sum of the probabilities below a uniform number."""
    (group,) = commuting_groups(PauliSum.from_labels(["IZ"], [1.0]))
    psi = np.array([[0.6, 0.8, 0.0, 0.0], [0.0] * 4])
    outcomes, counts = np.zeros(2, np.uint64), np.zeros(2, np.int64)
    n = draw_outcomes(psi, group.pivots, group.flips, group.phases, np.array([0.3, 1.0]), outcomes, counts)
    assert (n, outcomes.tolist(), counts.tolist()) == (2, [0, 1], [1, 1])


def test_moments_are_numpys():
    rng = np.random.default_rng(0)
    outcomes, counts = rng.integers(0, 8, 6).astype(np.uint64), rng.integers(1, 9, 6)
    (group,) = commuting_groups(PauliSum.from_labels(["IIZ", "ZIZ", "ZZZ"], [0.5, -0.3, 0.2]))
    values = np.repeat(outcome_values(group, 3)[outcomes.astype(np.int64)], counts)
    moments = np.zeros(3)
    for part in (slice(0, 2), slice(2, 6)):
        add_moments(outcomes[part], counts[part], group.outcome_masks, group.coefficients, moments)
    assert moments == pytest.approx([len(values), values.mean(), len(values) * values.var()])


def test_shots_are_shared_by_the_roots_of_the_norms_and_none_is_lost_or_added():
    assert shared_out(100, np.array([9.0, 1.0])).tolist() == [2 + 147, 2 + 49]
    found = shared_out(1000, np.random.default_rng(0).exponential(size=41))
    assert found.sum() == 41_000
    assert found.min() >= 2
    assert shared_out(1, np.array([5.0, 1.0, 0.1])).tolist() == [1, 1, 1]
    assert shared_out(2, np.array([5.0, 1.0])).tolist() == [2, 2]
    assert shared_out(10, np.zeros(0)).tolist() == []


def test_a_constant_is_measured_without_error():
    psi = random_case(2, 0)[1]
    rng = np.random.default_rng(0)
    assert ShotSampler(PauliSum.identity(2, -1.5), 10).estimate(psi, rng) == (-1.5, 0.0)
