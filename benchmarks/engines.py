"""Energy with its full gradient on our engines, beside PySCF's products H c of the same vectors and, where installed, peers.

    OMP_NUM_THREADS=1 python benchmarks/engines.py sector [--spaces 6,8,10,12,14] [--repeats 5] [--threads 2]
    OMP_NUM_THREADS=1 python benchmarks/engines.py circuits [--molecules lih,h2o,nh3,n2] [--repeats 5]

Seconds are a thread's own processor time (with several threads: wall time), so that other work on the machine counts little;
the rounds are interleaved, the table gives medians. Sector: N2 in cc-pVDZ, D2h, UCCSD. Circuits: EfficientSU2 with two repetitions, STO-3G.
Peers are measured where they can be imported: TenCirChem-ng (`tencirchem`), PennyLane's lightning (`pennylane_lightning`); they have
dependencies of their own, so install this package beside them in an environment of theirs.
"""

import argparse
import importlib.util
import os
import resource
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from pyscf.fci import cistring, direct_spin1, direct_spin1_symm

from simulator.chemistry.integrals import build_problem
from simulator.chemistry.molecules import load_molecule
from simulator.engines.sector import SectorEngine
from simulator.engines.statevector import StatevectorEngine
from simulator.operators.circuits import library_gates
from simulator.operators.excitations import uccsd
from simulator.operators.hamiltonian import Mapping, qubit_hamiltonian
from simulator.stages import Stages
from simulator.vqe.spec import make_spec

BEFORE = {6: 0.09, 8: 1.2, 10: 28.7, 12: 839.0, 14: 22_700.0}
"""Energy with gradient, ms, with PySCF's contraction over all determinants, on another machine of the same kind."""

LARGEST_PLAIN = 10
"""Orbitals up to which PySCF's product without symmetry is measured: at 14 one takes 16 s."""


def medians(tasks: dict[str, Callable[[], object]], repeats: int, clock: Callable[[], float]) -> dict[str, float]:
    """Median milliseconds of each task, in interleaved rounds after a first one that compiles and loads."""
    found: dict[str, list[float]] = {name: [] for name in tasks}
    for round_ in range(repeats + 1):
        for name, task in tasks.items():
            began = clock()
            task()
            if round_:
                found[name].append(1e3 * (clock() - began))
    return {name: statistics.median(times) for name, times in found.items()}


def sector(spaces: list[int], repeats: int, threads: int) -> None:
    os.environ["OMP_NUM_THREADS"] = str(threads)
    clock = time.thread_time if threads == 1 else time.perf_counter
    print(
        f"{'space':8} {'vector':>9} {'E+grad ms':>10} {'H c':>8} {'rotate':>8} {'PySCF symm':>11} {'PySCF':>8} {'before':>8} {'peak MB':>8}"
    )
    for n in spaces:
        spec = make_spec(load_molecule("n2"), basis="cc-pvdz", active_electrons=n, active_orbitals=n)
        problem = build_problem(spec, Stages())
        ansatz = uccsd(problem.norb, problem.nelec, orbsym=problem.orbsym, spin_tied=True)
        engine = SectorEngine(problem, ansatz)
        x = np.random.default_rng(1).uniform(-0.1, 0.1, ansatz.n_parameters)
        engine.energy_and_gradient(x)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        vector, product = engine._state(x).copy(), np.empty(engine._layout.size)
        h2 = direct_spin1.absorb_h1e(problem.h1, problem.eri, n, problem.nelec, 0.5)
        links = tuple(cistring.gen_linkstr_index_trilidx(range(n), k) for k in problem.nelec)
        tasks = {
            "ours": lambda engine=engine, x=x: engine.energy_and_gradient(x),
            "product": lambda engine=engine, v=vector, p=product: engine._multiply.into(p, v),
            "rotate": lambda engine=engine, x=x: engine._state(x),
            "symm": lambda h2=h2, v=vector, p=problem, links=links, w=engine._layout.irrep: (
                direct_spin1_symm.contract_2e(h2, v, p.norb, p.nelec, links, p.orbsym, w)
            ),
        }
        if n <= LARGEST_PLAIN:
            full = engine.state(x)
            tasks["plain"] = lambda h2=h2, c=full, p=problem, links=links: direct_spin1.contract_2e(
                h2, c, p.norb, p.nelec, links
            )
        ms = medians(tasks, repeats, clock)
        print(
            f"{n}e,{n}o".ljust(8)
            + f" {len(vector):9d} {ms['ours']:10.3f} {ms['product']:8.3f} {ms['rotate']:8.3f} {ms['symm']:11.3f}"
            f" {ms.get('plain', float('nan')):8.3f} {BEFORE.get(n, float('nan')):8.2f} {peak:8.0f}",
            flush=True,
        )
    if importlib.util.find_spec("tencirchem") is None:
        print("TenCirChem-ng is not installed here: not measured")
        return
    from tencirchem import UCCSD

    for n in (k for k in spaces if k <= LARGEST_PLAIN):
        from pyscf import gto

        molecule = load_molecule("n2")
        mol = gto.M(atom=list(zip(molecule.elements, molecule.geometry, strict=True)), basis="cc-pvdz", verbose=0)
        theirs = UCCSD(mol, active_space=(n, n))
        x = np.full(theirs.n_params, 0.05)
        ms = medians({"theirs": lambda theirs=theirs, x=x: theirs.energy_and_grad(x)}, repeats, clock)
        print(f"TenCirChem-ng {n}e,{n}o: {ms['theirs']:.1f} ms")


def circuits(molecules: list[str], repeats: int) -> None:
    print(f"{'molecule':9} {'qubits':>6} {'E+grad ms':>10} {'H psi':>8} {'circuit':>8}")
    for name in molecules:
        problem = build_problem(make_spec(load_molecule(name)), Stages())
        mapping = Mapping("jordan_wigner", problem.norb, problem.nelec)
        hamiltonian = qubit_hamiltonian(problem, "jordan_wigner", Stages())
        engine = StatevectorEngine(library_gates("efficient_su2", 2, mapping), hamiltonian, mapping)
        x = np.random.default_rng(1).uniform(-1, 1, engine.n_parameters)
        psi = engine._state(x)
        tasks = {
            "ours": lambda engine=engine, x=x: engine.energy_and_gradient(x),
            "product": lambda engine=engine, psi=psi: engine._hamiltonian.parts_with_energy(psi),
            "circuit": lambda engine=engine, x=x: engine._state(x),
        }
        ms = medians(tasks, repeats, time.thread_time)
        print(
            f"{name:9} {mapping.n_qubits:6d} {ms['ours']:10.3f} {ms['product']:8.3f} {ms['circuit']:8.3f}", flush=True
        )
        if importlib.util.find_spec("pennylane_lightning") is not None:
            print(f"  lightning, adjoint: {lightning(hamiltonian, x, repeats):.1f} ms")
    if importlib.util.find_spec("pennylane_lightning") is None:
        print("PennyLane's lightning is not installed here: not measured")


def lightning(hamiltonian, x: np.ndarray, repeats: int) -> float:
    """Median milliseconds of lightning's energy with gradient for the same ansatz."""
    import pennylane as qml

    n = hamiltonian.n_qubits
    letters = {"X": qml.PauliX, "Y": qml.PauliY, "Z": qml.PauliZ, "I": qml.Identity}
    operators = [
        qml.prod(*(letters[letter](n - 1 - k) for k, letter in enumerate(label) if letter != "I"))
        if set(label) != {"I"}
        else qml.Identity(0)
        for label in hamiltonian.labels
    ]
    observable = qml.Hamiltonian(hamiltonian.coefficients, operators)
    device = qml.device("lightning.qubit", wires=n)

    @qml.qnode(device, diff_method="adjoint")
    def energy(angles):
        for layer in range(3):
            for q in range(n):
                qml.RY(angles[2 * n * layer + q], wires=q)
            for q in range(n):
                qml.RZ(angles[2 * n * layer + n + q], wires=q)
            if layer < 2:
                for q in reversed(range(n - 1)):
                    qml.CNOT(wires=[q, q + 1])
        return qml.expval(observable)

    angles = qml.numpy.array(x, requires_grad=True)
    return medians({"theirs": lambda: qml.grad(energy)(angles)}, repeats, time.thread_time)["theirs"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["sector", "circuits"])
    parser.add_argument("--spaces", default="6,8,10,12,14")
    parser.add_argument("--molecules", default="lih,h2o,nh3,n2")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.what == "sector":
        sector([int(n) for n in arguments.spaces.split(",")], arguments.repeats, arguments.threads)
    else:
        circuits(arguments.molecules.split(","), arguments.repeats)


if __name__ == "__main__":
    main()
