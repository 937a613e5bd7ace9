import numpy as np
import pytest
from circuit_engines import engines

from simulator.chemistry.molecules import load_molecule
from simulator.engines import aer
from simulator.engines.aer import evaluate
from simulator.errors import InputError
from simulator.vqe.spec import Noise, make_spec


@pytest.mark.parametrize("mapper", ["jordan_wigner", "parity", "bravyi_kitaev"])
@pytest.mark.parametrize("ansatz", ["uccsd", "efficient_su2", "excitation_preserving"])
def test_aers_energy_electrons_and_spin_are_our_engines(ansatz, mapper):
    on_aer, ours, x = engines(ansatz=ansatz, mapper=mapper)
    check = evaluate(ours.gates, x, on_aer._hamiltonian, on_aer._mapping)
    assert check.energy == pytest.approx(ours.energy(x)[0], abs=1e-8)
    assert on_aer.energy(x) == (pytest.approx(ours.energy(x)[0], abs=1e-8), None)
    assert (check.n_electrons, check.s_squared) == pytest.approx(ours.n_electrons_and_spin(x), abs=1e-9)


@pytest.mark.parametrize("ansatz", ["uccsd", "real_amplitudes", "excitation_preserving"])
def test_shift_rules_give_the_adjoint_gradient(ansatz):
    on_aer, ours, x = engines(ansatz=ansatz)
    np.testing.assert_allclose(on_aer.energy_and_gradient(x)[1], ours.energy_and_gradient(x)[1], atol=1e-8)


@pytest.mark.parametrize("method", ["automatic", "density_matrix", "matrix_product_state"])
def test_every_method_gives_the_same_exact_energy(method):
    on_aer, ours, x = engines(aer_method=method)
    assert on_aer.energy(x)[0] == pytest.approx(ours.energy(x)[0], abs=1e-8)
    assert on_aer._simulator.options.method == method


def test_single_precision_is_used():
    on_aer, ours, x = engines(precision="single")
    error = abs(on_aer.energy(x)[0] - ours.energy(x)[0])
    assert 1e-10 < error < 1e-3


def test_standard_error_is_the_spread_of_repeated_estimates():
    on_aer, ours, x = engines(shots=1000)
    samples = [on_aer.energy(x) for _ in range(60)]
    energies, errors = np.array(samples).T
    assert np.mean(errors) == pytest.approx(np.std(energies), rel=0.35)
    assert abs(np.mean(energies) - ours.energy(x)[0]) < 4 * np.mean(errors) / np.sqrt(60)
    more, _, _ = engines(shots=16_000)
    assert more.energy(x)[1] == pytest.approx(np.mean(errors) / 4, rel=0.1)


def test_one_shot_has_no_standard_error():
    on_aer, _, x = engines(shots=1)
    assert on_aer.energy(x)[1] is None
    on_aer.energy_and_gradient(x)
    assert on_aer.last_standard_error is None


def test_shot_gradient_is_the_exact_one_within_its_noise():
    on_aer, ours, x = engines(shots=20_000)
    np.testing.assert_allclose(on_aer.energy_and_gradient(x)[1], ours.energy_and_gradient(x)[1], atol=0.1)
    assert on_aer.last_standard_error > 0


def test_seeds_decide_shots():
    first, second, other = (engines(shots=500, seed=seed)[0] for seed in (1, 1, 2))
    x = engines()[2]
    one, again = first.energy(x), first.energy(x)
    assert one == second.energy(x)
    assert one != other.energy(x)
    assert one != again  # noise is fresh at every evaluation


@pytest.mark.parametrize("part", ["one_qubit", "two_qubit", "readout"])
def test_each_kind_of_noise_raises_the_energy(part):
    noisy, ours, _ = engines(aer_method="density_matrix", noise=Noise(**{part: 0.02}))
    ground = np.zeros(ours.n_parameters)  # Hartree-Fock: near the minimum, so that noise can only raise
    assert noisy.energy(ground)[0] > ours.energy(ground)[0] + 1e-3


def test_exact_readout_noise_is_that_of_many_shots():
    noise = Noise(readout=0.05)
    exact, _, x = engines(aer_method="density_matrix", noise=noise)
    sampled, _, _ = engines(noise=noise, shots=40_000)
    energy, error = sampled.energy(x)
    assert abs(energy - exact.energy(x)[0]) < 5 * error


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(aer, "gpu_available", lambda: (False, "no driver"))
    with pytest.raises(InputError, match=r"device gpu: Aer cannot use a GPU here \(no driver\)"):
        engines(device="gpu")


def test_probing_for_a_gpu_answers():
    found, reason = aer.gpu_available()
    assert found or reason


def test_a_density_matrix_too_large_is_refused(monkeypatch):
    from simulator import memory
    from simulator.engines import limits

    on_aer, _, _ = engines()
    monkeypatch.setattr(memory, "available_bytes", lambda: 4000)
    with pytest.raises(InputError, match=r"Aer density matrix of 4 qubits needs 4\.0 KiB"):
        limits.check_aer(make_spec(load_molecule("h2"), engine="aer", aer_method="density_matrix"), 4)
    assert on_aer.n_parameters


@pytest.mark.parametrize(
    "given",
    [{"noise": Noise(one_qubit=0.01)}, {"aer_method": "matrix_product_state"}, {"aer_method": "density_matrix"}],
)
def test_aer_draws_the_shots_of_noise_and_of_other_methods(given):
    on_aer, ours, x = engines(shots=4000, **given)
    assert on_aer._sampler is None
    energy, error = on_aer.energy(x)
    assert 0 < error < 0.05
    if "noise" not in given:
        assert abs(energy - ours.energy(x)[0]) < 4 * error


@pytest.mark.parametrize("given", [{}, {"aer_method": "automatic"}])
def test_shots_without_noise_are_drawn_from_our_kernels_state(given, monkeypatch):
    on_aer, _, x = engines(shots=500, **given)
    monkeypatch.setattr(aer, "completed", lambda job: pytest.fail("Aer was asked"))
    assert on_aer.energy(x)[1] > 0


def test_shots_in_single_precision_are_drawn_from_aers_state():
    single, ours, x = engines(shots=4000, precision="single")
    state = single._state(single.gates.angles(x))
    assert 1e-10 < np.abs(state - ours._state(x)).max() < 1e-4
    energy, error = single.energy(x)
    assert abs(energy - ours.energy(x)[0]) < 4 * error


def test_shots_beyond_the_memory_are_refused(monkeypatch):
    from simulator import memory
    from simulator.engines import limits

    monkeypatch.setattr(memory, "available_bytes", lambda: 700)
    with pytest.raises(InputError, match=r"shots from a statevector of 4 qubits needs 784 bytes"):
        limits.check_aer(make_spec(load_molecule("h2"), shots=10), 4)
    limits.check_aer(make_spec(load_molecule("h2"), shots=10, noise=Noise(0.1)), 2)
