"""Memory that the engines say they need, against what a process of its own takes."""

import os
import subprocess
import sys

import pytest

from simulator.engines.limits import sector_bytes, statevector_bytes

MEASURE = """
import dataclasses, sys
import numpy as np
from pyscf import ao2mo
from simulator.chemistry.integrals import build_problem
from simulator.chemistry.molecules import load_molecule
from simulator.engines import rotations
from simulator.engines.sector import SectorEngine
from simulator.engines.statevector import StatevectorEngine
from simulator.operators.circuits import library_gates
from simulator.operators.excitations import uccsd
from simulator.operators.hamiltonian import ElectronicIntegrals, Mapping, QubitHamiltonian
from simulator.operators.paulis import PauliSum
from simulator.stages import Stages
from simulator.vqe.spec import make_spec

template = build_problem(make_spec(load_molecule("h2")), Stages())

def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024

def evaluated(engine_name, norb, nelec, irreps):
    n_pairs = norb * (norb + 1) // 2
    product = irreps[:, None] ^ irreps[None, :]
    random = np.random.default_rng(1).normal(size=(n_pairs, n_pairs))
    eri = ao2mo.restore(1, random + random.T, norb)
    eri[product[:, :, None, None] != product[None, None, :, :]] = 0.0
    eri, h1 = ao2mo.restore(8, eri, norb), np.where(product == 0, 1.0, 0.0)
    if engine_name == "sector":
        problem = dataclasses.replace(template, norb=norb, nelec=nelec, h1=h1, eri=eri, orbsym=irreps, mo_energy=np.arange(norb, dtype=float))
        given = SectorEngine, problem, uccsd(norb, nelec, orbsym=irreps)
    else:
        mapping = Mapping("jordan_wigner", norb, nelec)
        hamiltonian = QubitHamiltonian(
            "jordan_wigner", 2 * norb, PauliSum.identity(2 * norb), 0.0, ElectronicIntegrals(h1, eri, irreps)
        )
        given = StatevectorEngine, library_gates("efficient_su2", 1, mapping), hamiltonian, mapping
    before = peak()
    engine = given[0](*given[1:])
    x = np.full(engine.n_parameters, 0.1)
    engine.energy(x)
    engine.energy_and_gradient(x)
    if engine_name == "sector":
        engine.n_electrons_and_spin(x)
    return peak() - before

engine_name, norb, nelec, irreps = sys.argv[1], int(sys.argv[2]), eval(sys.argv[3]), np.array(eval(sys.argv[4]))
cached, rotations.CACHED = rotations.CACHED, 100
evaluated(engine_name, 5, (2, 2), np.zeros(5, np.int64))  # loads what every size loads
rotations.CACHED = cached
print(evaluated(engine_name, norb, nelec, irreps))
"""


def measured(engine, norb, nelec, irreps):
    command = [sys.executable, "-c", MEASURE, engine, str(norb), repr(nelec), repr(irreps)]
    return int(
        subprocess.run(
            command, check=True, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
        ).stdout
    )


@pytest.mark.parametrize(
    ("norb", "nelec", "irreps"),
    [(12, (6, 6), [0] * 12), (14, (7, 6), [*range(8), *range(6)])],
)
def test_the_sector_engine_takes_what_it_says(norb, nelec, irreps):
    said = sector_bytes(norb, nelec, 8 if any(irreps) else 1)
    assert measured("sector", norb, nelec, irreps) == pytest.approx(said, rel=0.1)


def test_the_statevector_engine_takes_what_it_says():
    assert measured("statevector", 10, (5, 5), [0] * 10) == pytest.approx(statevector_bytes(20), rel=0.1)
