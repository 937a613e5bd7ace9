"""Shots: how many fewer groups of general commutation take for an equal error, and what a sampled energy takes.

    OMP_NUM_THREADS=1 python benchmarks/shots.py variance [--molecules h2,lih,h2o]
    OMP_NUM_THREADS=1 python benchmarks/shots.py time [--molecules h2,lih,h2o] [--repeats 5] [--shots 1000]

Variance: exact, from each state's probabilities; it is that of an energy times the shots in all, so the ratio of two is the ratio of the
shots for equal errors. STO-3G, Jordan-Wigner. States: Hartree-Fock, the minimum of UCCSD, EfficientSU2 (two repetitions) at random angles.
Time: energies drawn from the state vector beside energies whose circuits Aer measures, in interleaved rounds; wall time.
"""

import argparse
import os
import time
from collections.abc import Iterator
from unittest import mock

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from engines import medians
from scipy.optimize import minimize

from simulator.chemistry.integrals import build_problem
from simulator.chemistry.molecules import load_molecule
from simulator.engines import aer
from simulator.engines._slow.shots import mean_and_variance
from simulator.engines.statevector import StatevectorEngine
from simulator.operators.circuits import Gates, library_gates, uccsd_gates
from simulator.operators.commuting import CommutingGroup, commuting_groups, diagonalised, qubitwise_groups
from simulator.operators.excitations import uccsd
from simulator.operators.hamiltonian import Mapping, QubitHamiltonian, qubit_hamiltonian
from simulator.stages import Stages
from simulator.vqe.spec import make_spec


def circuits(name: str) -> tuple[QubitHamiltonian, Mapping, dict[str, Gates]]:
    """A molecule's Hamiltonian, mapping and ansatz circuits."""
    problem = build_problem(make_spec(load_molecule(name)), Stages())
    mapping = Mapping("jordan_wigner", problem.norb, problem.nelec)
    excitations = uccsd(problem.norb, problem.nelec, orbsym=problem.orbsym, spin_tied=problem.is_closed_shell)
    gates = {"UCCSD": uccsd_gates(excitations, mapping), "EfficientSU2": library_gates("efficient_su2", 2, mapping)}
    return qubit_hamiltonian(problem, "jordan_wigner", Stages()), mapping, gates


def states(name: str) -> Iterator[tuple[str, QubitHamiltonian, np.ndarray]]:
    """What is measured: the state's name, the Hamiltonian, and the state, complex, shape (2^n,)."""
    hamiltonian, mapping, gates = circuits(name)
    engine = StatevectorEngine(gates["UCCSD"], hamiltonian, mapping)
    at_hf = np.zeros(engine.n_parameters)
    yield "Hartree-Fock", hamiltonian, engine.state(at_hf)
    found = minimize(engine.energy_and_gradient, at_hf + 0.01, jac=True, method="L-BFGS-B", options={"maxiter": 40})
    yield "UCCSD, minimum", hamiltonian, engine.state(found.x)
    engine = StatevectorEngine(gates["EfficientSU2"], hamiltonian, mapping)
    angles = np.random.default_rng(1).uniform(-np.pi, np.pi, engine.n_parameters)
    yield "EfficientSU2, random", hamiltonian, engine.state(angles)


def variances(groups: list[CommutingGroup], psi: np.ndarray) -> tuple[float, float, float]:
    """Variance of an energy times the shots in all, hartree squared: with equal shots a group, by the root of the norm, by the norm."""
    of_groups = np.array([mean_and_variance(psi, group)[1] for group in groups])
    norms = np.array([np.linalg.norm(group.coefficients) for group in groups])
    equal, by_root, by_norm = (
        float((of_groups / norms**power).sum() * (norms**power).sum()) for power in (0.0, 0.5, 1.0)
    )
    return equal, by_root, by_norm


def variance(molecules: list[str]) -> None:
    print("variance times shots, hartree^2; fewer: ratios of it, the last against equal shares of qubit-wise groups")
    print(
        f"{'molecule':9} {'state':21} {'grouping':11} {'groups':>6} {'equal':>9} {'by root':>9} {'by norm':>9}"
        f" {'fewer by grouping':>18} {'fewer in all':>13}"
    )
    for name in molecules:
        groupings: list[list[CommutingGroup]] = []
        for state, hamiltonian, psi in states(name):
            operator = hamiltonian.operator
            if not groupings:
                acting = (operator.x | operator.z) != 0
                qubitwise = [m for m in qubitwise_groups(operator) if acting[m].any()]
                groupings = [[diagonalised(operator, m) for m in qubitwise], commuting_groups(operator)]
            before, now = (variances(groups, psi) for groups in groupings)
            for grouping, groups, (equal, by_root, by_norm) in zip(
                ("qubit-wise", "general"), groupings, (before, now), strict=True
            ):
                print(
                    f"{name:9} {state:21} {grouping:11} {len(groups):6d} {equal:9.3g} {by_root:9.3g} {by_norm:9.3g}"
                    f" {before[1] / by_root:18.2f} {before[0] / by_root:13.2f}",
                    flush=True,
                )


def sampled_times(molecules: list[str], repeats: int, shots: int) -> None:
    print(
        f"{'molecule':9} {'ansatz':13} {'Aer, qubit-wise, ms':>20} {'from the state, ms':>19} {'of it the state':>16} {'ratio':>8}"
    )
    for name in molecules:
        hamiltonian, mapping, gates = circuits(name)
        spec = make_spec(load_molecule(name), shots=shots, engine="aer")
        for ansatz, of_ansatz in gates.items():
            if ansatz == "UCCSD" and mapping.n_qubits > 12:
                continue  # Aer takes minutes for one energy
            now = aer.AerEngine(spec, of_ansatz, hamiltonian, mapping)
            with mock.patch.object(aer, "_sampler", return_value=None):
                before = aer.AerEngine(spec, of_ansatz, hamiltonian, mapping)
            x = np.random.default_rng(1).uniform(-0.3, 0.3, now.n_parameters)
            angles = of_ansatz.angles(x)
            tasks = {
                "before": lambda engine=before, x=x: engine.energy(x),
                "now": lambda engine=now, x=x: engine.energy(x),
                "state": lambda engine=now, angles=angles: engine._state(angles),
            }
            ms = medians(tasks, repeats, time.perf_counter)
            print(
                f"{name:9} {ansatz:13} {ms['before']:20.1f} {ms['now']:19.2f} {ms['state']:16.2f} {ms['before'] / ms['now']:8.0f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["variance", "time"])
    parser.add_argument("--molecules", default="h2,lih,h2o")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--shots", type=int, default=1000)
    arguments = parser.parse_args()
    molecules = arguments.molecules.split(",")
    if arguments.what == "variance":
        variance(molecules)
    else:
        sampled_times(molecules, arguments.repeats, arguments.shots)


if __name__ == "__main__":
    main()
