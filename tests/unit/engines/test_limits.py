"""Memory that the engines say they need, against what a process of its own takes."""

import os
import subprocess
import sys

import pytest

from simulator.engines.limits import sampled_bytes, sector_bytes, statevector_bytes

MEASURE = """
import dataclasses, sys
import numpy as np
from pyscf import ao2mo
from simulator.chemistry.integrals import build_problem
from simulator.chemistry.molecules import load_molecule
from simulator.engines import rotations
from simulator.engines.aer import AerEngine
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
    elif engine_name == "shots":  # of one group whose change of basis ends with an H on each qubit
        mapping = Mapping("jordan_wigner", norb, nelec)
        x = np.left_shift(np.uint64(1), np.arange(2 * norb, dtype=np.uint64))
        hamiltonian = QubitHamiltonian("given", 2 * norb, PauliSum(2 * norb, x, 0 * x, np.ones(len(x), complex)), 0.0)
        spec = make_spec(load_molecule("h2"), ansatz="efficient_su2", shots=100)
        given = AerEngine, spec, library_gates("efficient_su2", 1, mapping), hamiltonian, mapping
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
    if engine_name != "shots":
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


def test_shots_take_what_is_said_where_each_qubit_is_a_pivot():
    assert measured("shots", 10, (5, 5), [0] * 10) == pytest.approx(sampled_bytes(20), rel=0.1)
