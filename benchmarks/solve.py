"""From geometry to chemical accuracy, against PySCF's FCI or CASCI of the same molecule in the same process.

    OMP_NUM_THREADS=1 python benchmarks/solve.py [--repeats 7] [--molecules lih,beh2,h2o,nh3]
    OMP_NUM_THREADS=1 python benchmarks/solve.py --molecules n2 --basis cc-pvdz --active 8,10,12 --repeats 3

`--active N` is the space of N electrons in N orbitals; PySCF then runs CASCI in the same
orbitals in D2h, so the molecule must be a linear one with a centre, along z.
Both sides start from the geometry and pay for their own SCF; runs are interleaved and warm (a first one of each compiles
and loads); the table gives medians. `time to 1.6 mHa` ends when an evaluated energy is within 1.6 mHa of FCI.
"""

import argparse
import os
import statistics
import time
from dataclasses import dataclass

os.environ.setdefault("OMP_NUM_THREADS", "1")

from pyscf import fci, gto, mcscf, scf

from simulator.chemistry.integrals import build_problem
from simulator.chemistry.molecules import load_molecule
from simulator.engines.sector import SectorEngine
from simulator.operators.excitations import uccsd
from simulator.stages import Stages
from simulator.trust import CHEMICAL_ACCURACY
from simulator.vqe.initial_point import mp2_parameters, natural_steps
from simulator.vqe.optimizers import Objective, run_optimizer
from simulator.vqe.spec import make_spec


@dataclass(frozen=True)
class Case:
    """What both sides solve."""

    name: str
    basis: str = "sto-3g"
    active: int | None = None  # electrons and orbitals

    def __str__(self) -> str:
        return self.name if self.active is None else f"{self.name} {self.active}e,{self.active}o"


def pyscf_exact(case: Case) -> tuple[float, float]:
    """Seconds and total energy (hartree) of PySCF's SCF and FCI or CASCI, as PySCF's own documentation runs it."""
    molecule = load_molecule(case.name)
    began = time.perf_counter()
    mol = gto.M(
        atom=list(zip(molecule.elements, molecule.geometry, strict=True)), basis=case.basis, charge=molecule.charge,
        spin=molecule.multiplicity - 1, verbose=0, symmetry="D2h" if case.active is not None else False,
    )  # fmt: skip
    mf = scf.RHF(mol).run()
    if case.active is None:
        energy = float(fci.FCI(mf).kernel()[0])
    else:
        energy = float(mcscf.CASCI(mf, case.active, case.active).kernel()[0])
    return time.perf_counter() - began, energy


def sector_vqe(case: Case, exact: float) -> tuple[float | None, float, float, int]:
    """Seconds to chemical accuracy, seconds to convergence, energy (hartree), evaluations of the energy with its gradient."""
    spec = make_spec(
        load_molecule(case.name), basis=case.basis, active_electrons=case.active, active_orbitals=case.active
    )
    began = time.perf_counter()
    reached: list[float] = []
    calls = 0
    problem = build_problem(spec, Stages())
    ansatz = uccsd(problem.norb, problem.nelec, orbsym=problem.orbsym, spin_tied=problem.is_closed_shell)
    engine = SectorEngine(problem, ansatz)

    def energy_and_gradient(x):
        nonlocal calls
        calls += 1
        energy, gradient = engine.energy_and_gradient(x)
        if not reached and energy < exact + CHEMICAL_ACCURACY:
            reached.append(time.perf_counter() - began)
        return energy, gradient

    objective = Objective(lambda x: engine.energy(x)[0], energy_and_gradient, lambda _x, _state: None)
    end = run_optimizer(
        spec.optimizer, spec.options, objective, mp2_parameters(problem, ansatz), max_iterations=spec.max_iterations,
        tolerance=spec.tolerance, seed=0, steps=natural_steps(problem, ansatz),
    )  # fmt: skip
    energy = engine.energy(end.parameters)[0]
    return (reached[0] if reached else None), time.perf_counter() - began, energy, calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--molecules", default="lih,beh2,h2o,nh3")
    parser.add_argument("--basis", default="sto-3g")
    parser.add_argument("--active", default="", help="sizes of active spaces; else FCI of all orbitals")
    arguments = parser.parse_args()
    active = [int(n) for n in arguments.active.split(",")] if arguments.active else [None]
    pyscf_exact(Case("h2"))
    sector_vqe(Case("h2"), -1.137306)
    print(
        f"{'case':12} {'error mHa':>9} {'calls':>5} {'to 1.6 mHa s':>13} {'converged s':>12} {'exact s':>8} {'to 1.6 mHa':>11} {'converged':>10}"
    )
    for case in (Case(name, arguments.basis, n) for name in arguments.molecules.split(",") for n in active):
        ours, whole, theirs = [], [], []
        error, calls = float("nan"), 0
        sector_vqe(case, pyscf_exact(case)[1])
        for _ in range(arguments.repeats):
            seconds, exact = pyscf_exact(case)
            theirs.append(seconds)
            reached, total, energy, calls = sector_vqe(case, exact)
            ours.append(float("inf") if reached is None else reached)
            whole.append(total)
            error = 1e3 * (energy - exact)
        a, b, c = (statistics.median(times) for times in (ours, whole, theirs))
        print(
            f"{case!s:12} {error:9.4f} {calls:5d} {a:13.4f} {b:12.4f} {c:8.4f} {a / c:11.2f} {b / c:10.2f}", flush=True
        )


if __name__ == "__main__":
    main()
