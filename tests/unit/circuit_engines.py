"""The engines that run circuits, for one small molecule each."""

import numpy as np

from simulator.chemistry.integrals import build_problem
from simulator.chemistry.molecules import load_molecule
from simulator.engines.aer import AerEngine
from simulator.engines.statevector import StatevectorEngine
from simulator.operators.circuits import library_gates, uccsd_gates
from simulator.operators.excitations import uccsd
from simulator.operators.hamiltonian import Mapping, qubit_hamiltonian
from simulator.stages import Stages
from simulator.vqe.spec import make_spec


def engines(name="heh+", ansatz="uccsd", mapper="jordan_wigner", **given):
    """Aer's engine and ours for the same circuit, and parameters."""
    spec = make_spec(load_molecule(name), ansatz=ansatz, mapper=mapper, engine="aer", **given)
    p = build_problem(spec, Stages())
    mapping, operator = Mapping(mapper, p.norb, p.nelec), qubit_hamiltonian(p, mapper, Stages())
    gates = uccsd_gates(uccsd(p.norb, p.nelec), mapping) if ansatz == "uccsd" else library_gates(ansatz, 1, mapping)
    x = np.random.default_rng(2).uniform(-0.6, 0.6, gates.n_parameters)
    return AerEngine(spec, gates, operator, mapping), StatevectorEngine(gates, operator, mapping), x
