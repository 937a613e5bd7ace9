"""Ansatz circuits that a user gives: the same state as Qiskit's simulator makes of them, one id however they are written."""

from dataclasses import replace

import numpy as np
import pytest
from qiskit import QuantumCircuit, qasm3
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import efficient_su2, excitation_preserving
from qiskit.circuit.random import random_circuit
from qiskit.quantum_info import Statevector, random_unitary
from samples import a_result, encoded_bytes

from simulator import load_molecule, make_spec, run_vqe
from simulator.chemistry.integrals import build_problem
from simulator.engines._slow.paulis import gates_state
from simulator.engines.aer import AerEngine
from simulator.engines.gate_kernels import program_of
from simulator.engines.statevector import StatevectorEngine, joined, state_at
from simulator.errors import InputError, RunFailed
from simulator.events.records import MAX_RECORD_BYTES
from simulator.operators.circuit_files import given_circuit, read_circuit
from simulator.operators.circuits import given_gates
from simulator.operators.given_circuit import MAX_BYTES, GivenCircuit, GivenGate
from simulator.operators.hamiltonian import Mapping, qubit_hamiltonian
from simulator.stages import Stages
from simulator.vqe.records import spec_record
from simulator.vqe.spec import RunSpec

WRITTEN = """OPENQASM 3.0;
include "stdgates.inc";
input float b;
input angle a;
def_qubits
gate turn(x) q { rz(x) q; sx q; }
x q[0];
ry(a / 2 + 0.3) q[1];
cx q[1], q[3];
crz(2 * b - a) q[0], q[1];
U(a, 0.1, b) q[2];
ctrl @ ry(0.4) q[0], q[2];
inv @ s q[3];
pow(2) @ t q[1];
cp(b) q[2], q[3];
ccx q[0], q[1], q[2];
turn(0.1) q[3];
let pair = q[1:2];
turn(a - b) pair[0];
gphase(0.7);
barrier q;
bit[4] c;
c = measure q;
""".replace("def_qubits", "qubit[4] q;")


def everything() -> QuantumCircuit:
    """Standard gates of every kind with angles that are linear in three parameters."""
    a, b = ParameterVector("a", 2)
    c = Parameter("c")
    circuit = QuantumCircuit(4)
    circuit.h(0)
    circuit.y(1)
    circuit.sxdg(2)
    circuit.u(a, 0.3 - b, c / 3, 3)
    circuit.rxx(a + b, 0, 2)
    circuit.ryy(2 * c, 1, 3)
    circuit.rzz(0.2, 0, 3)
    circuit.rzx(b, 2, 1)
    circuit.append(QuantumCircuit.from_instructions(excitation_preserving(2, reps=1).data).to_gate(), [1, 2])
    circuit.mcp(a, [0, 1], 2)
    circuit.cswap(0, 1, 3)
    circuit.p(-c, 2)
    circuit.ch(3, 0)
    circuit.unitary(random_unitary(4, seed=1), [0, 2])
    return circuit


def overlap(circuit: QuantumCircuit, seed: int = 5) -> float:
    """Of Qiskit's state and of our engine's, at random parameters."""
    gates = given_gates(given_circuit(circuit))
    x = np.random.default_rng(seed).uniform(-np.pi, np.pi, gates.n_parameters)
    theirs = Statevector(circuit.remove_final_measurements(inplace=False).assign_parameters(x)).data
    np.testing.assert_allclose(gates_state(gates, x), joined_state(gates, x), atol=1e-12)
    return float(abs(np.vdot(theirs, joined_state(gates, x))))


def joined_state(gates, x):
    """By the kernels."""
    return joined(state_at(gates, program_of(gates), gates.angles(x)))


@pytest.mark.parametrize("seed", range(6))
def test_random_circuits_make_qiskits_state(seed):
    circuit = random_circuit(5, 8, max_operands=3, seed=seed).compose(efficient_su2(5, reps=1))
    assert overlap(circuit) == pytest.approx(1, abs=1e-11)


def test_every_kind_of_gate_and_angle_makes_qiskits_state():
    assert overlap(everything()) == pytest.approx(1, abs=1e-11)


def test_openqasm_3_makes_qiskits_state(tmp_path):
    path = tmp_path / "ansatz.qasm"
    path.write_text(WRITTEN)
    read = read_circuit(path)
    assert read.parameters == ("a", "b")
    assert read == given_circuit(qasm3.loads(WRITTEN))
    assert overlap(qasm3.loads(WRITTEN)) == pytest.approx(1, abs=1e-11)


def test_openqasm_2_has_no_parameters(tmp_path):
    path = tmp_path / "ansatz.qasm"
    path.write_text(
        '// made long ago\nOPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[2];\nx q[0];\ncu1(0.4) q[0], q[1];\n'
    )
    circuit = read_circuit(path)
    assert (circuit.n_qubits, circuit.parameters) == (2, ())


def engines(circuit: QuantumCircuit, **given):
    spec = make_spec(load_molecule("h2"), ansatz=circuit, **given)
    p = build_problem(spec, Stages())
    mapping, operator = Mapping(spec.mapper, p.norb, p.nelec), qubit_hamiltonian(p, spec.mapper, Stages())
    assert spec.circuit is not None
    gates = given_gates(spec.circuit)
    x = np.random.default_rng(2).uniform(-1, 1, gates.n_parameters)
    return (
        StatevectorEngine(gates, operator, mapping),
        AerEngine(replace(spec, engine="aer"), gates, operator, mapping),
        x,
    )


def hold_energy_and_gradient(circuit: QuantumCircuit, step: float, atol: float) -> None:
    """Our engine's against Aer's, and against differences of energies."""
    ours, on_aer, x = engines(circuit)
    energy, gradient = ours.energy_and_gradient(x)
    assert on_aer.energy(x)[0] == pytest.approx(energy, abs=1e-9)
    np.testing.assert_allclose(on_aer.energy_and_gradient(x)[1], gradient, atol=1e-9)
    for k, unit in enumerate(np.eye(len(x))):
        slope = (ours.energy(x + step * unit)[0] - ours.energy(x - step * unit)[0]) / (2 * step)
        assert slope == pytest.approx(gradient[k], abs=atol)


def test_energies_and_gradients_are_aers_and_the_differences():
    hold_energy_and_gradient(everything(), step=1e-5, atol=1e-8)


def test_a_run_finds_the_ground_state_and_its_specification_comes_back():
    circuit = QuantumCircuit(4)
    circuit.x([0, 2])
    circuit.append(excitation_preserving(4, reps=2).to_gate(), range(4))
    spec = make_spec(load_molecule("h2"), ansatz=circuit, seed=1)
    assert (spec.ansatz, spec.engine, spec.initial_point, spec.reps) == ("circuit", "statevector", "random", 1)
    again = RunSpec.from_json(spec.canonical_json())
    assert (again, again.spec_id) == (spec, spec.spec_id)
    result = run_vqe(spec)
    assert result.energy == pytest.approx(-1.1373060358, abs=1e-6)
    assert "circuit" not in RunSpec.from_json(make_spec(load_molecule("h2")).canonical_json()).to_dict()


def test_how_a_circuit_is_written_does_not_decide_its_id(tmp_path):
    plain = QuantumCircuit(4)
    theta = Parameter("theta")
    plain.x(0)
    plain.ry(2 * theta, 1)
    path = tmp_path / "a.qasm"
    path.write_text(
        'OPENQASM 3;\n\ninclude "stdgates.inc"; input float theta;\nqubit[4] r; // four\nx r[0]; ry(theta * 2) r[1];'
    )
    ids = {make_spec(load_molecule("h2"), ansatz=a).spec_id for a in (plain, read_circuit(path), given_circuit(plain))}
    assert len(ids) == 1


def curved() -> QuantumCircuit:
    """Angles of every function that Qiskit has, in parameters whose names look like those that expressions use."""
    a, b = Parameter("p1"), Parameter("p0")
    circuit = QuantumCircuit(4)
    angles = [
        a * b,
        a**2,
        2 * a.sin() + b,
        (a + 1) / (b + 4),
        a.exp(),
        (a + 3).log(),
        a.cos() - b.tan(),
        (a / 9).arcsin(),
    ]
    angles += [(b / 9).arccos(), b.arctan(), abs(a) * 0.3, (a + 2) ** b, -a * b / 3, a * b]
    for k, angle in enumerate(angles):
        circuit.ry(angle, k % 4)
        circuit.rxx(angle, k % 4, (k + 1) % 4)
    return circuit


def test_angles_that_are_not_linear_make_qiskits_state_and_the_right_gradient():
    assert overlap(curved()) == pytest.approx(1, abs=1e-11)
    hold_energy_and_gradient(curved(), step=1e-6, atol=1e-7)
    spec = make_spec(load_molecule("h2"), ansatz=curved())
    assert spec.circuit is not None
    assert len(spec.circuit.expressions) == 13, "one comes twice"
    assert RunSpec.from_json(spec.canonical_json()) == spec


def test_an_angle_without_a_value_fails_the_run_in_one_line():
    a = Parameter("a")
    circuit = QuantumCircuit(4)
    circuit.ry(a.log(), 0)
    spec = make_spec(load_molecule("h2"), ansatz=circuit, initial_point="vector", initial_vector=(-1.0,))
    with pytest.raises(RunFailed, match="not a number"):
        run_vqe(spec)


@pytest.mark.parametrize(
    "text", ["p1", "q0", "p", "p-1", "p0 +", "__import__('os')", "p0.real", "sin(p0, p0)", "sin(x=p0)", "p0 if p0 else 1", "p0 // 2",
             "True", "'a'", "1j", "[p0]", "p0" + "+p0" * 400, "-" * 900 + "p0", "(" * 300 + "p0" + ")" * 300, "lambda: p0", "max(p0)", ""],
)  # fmt: skip
def test_what_is_no_arithmetic_is_refused(text):
    with pytest.raises(InputError, match="circuit: "):
        GivenCircuit(4, ("a",), (), (text,))


def measured_in_the_middle() -> QuantumCircuit:
    circuit = QuantumCircuit(4, 1)
    circuit.measure(0, 0)
    circuit.h(0)
    return circuit


def of_two_parameters(angle) -> QuantumCircuit:
    circuit = QuantumCircuit(4)
    circuit.ry(angle(Parameter("a"), Parameter("b")), 0)
    return circuit


def with_reset() -> QuantumCircuit:
    circuit = QuantumCircuit(4)
    circuit.reset(1)
    return circuit


def conditional() -> QuantumCircuit:
    circuit = QuantumCircuit(4, 1)
    circuit.measure(0, 0)
    with circuit.if_test((0, 1)):
        circuit.x(1)
    return circuit


def too_long() -> QuantumCircuit:
    circuit = QuantumCircuit(4)
    for k in range(9_000):
        circuit.ry(0.1 + 1 / (k + 3), k % 4)
    return circuit


@pytest.mark.parametrize(
    ("circuit", "reason"),
    [
        (measured_in_the_middle, "unitary, and this circuit holds measure"),
        (with_reset, "unitary, and this circuit holds reset"),
        (conditional, "unitary, and this circuit holds (measure|if_else)"),
        (lambda: of_two_parameters(lambda a, b: a.sign() * b), "the angle .*sign"),
        (too_long, "200000 are allowed"),
        (lambda: 3, "or a circuit, not 3"),
    ],
)
def test_what_is_no_ansatz_is_refused(circuit, reason):
    with pytest.raises(InputError, match=reason):
        make_spec(load_molecule("h2"), ansatz=circuit())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("garbage", "line 1:7 the end of the file is not expected"),
        ("OPENQASM 3;\nqubit[2] q;\nU(0 0,0) q[0];", "line 3:4 '0' is not expected here"),
        ("OPENQASM 3;\nqubit[2] q;\nU(0,0,0) $ # q[0];", "line 3:"),
        ('OPENQASM 3;\ninclude "stdgates.inc";\nqubit[2] q;\nfoo q[0];', "line 4:0 gate 'foo' is not defined"),
        ("OPENQASM 3;\nqubit[2] q;\nU(0,0,0) q[2];", "line 3"),
        ("OPENQASM 3;\nqubit q;\nU(0,0,0) q", "line 3"),
        ("OPENQASM 3;\ninput array[float, 2] a;\nqubit q;\nU(a[0],0,0) q;", "line 2:0 only 'float' and 'angle'"),
        (
            "OPENQASM 3;\nqubit[3] q;\nfor int i in [0:2] { U(0,0,1) q[i]; }",
            "line 3:[0-9]+ Qiskit's importer does not know",
        ),
        ("OPENQASM 2.0;\nqreg q[1];\nfoo q[0];", "'?foo'? is not defined"),
        ("", "no statement"),
        ("// a comment\n/* and\nanother */", "no statement"),
        ("OPENQASM 3;\nqubit[4_000_000_000] q;", "line 2: a register of 4000000000 is too large, at most 64"),
        (f"OPENQASM 3;\nbit[{'9' * 5000}] c;", "line 2: a register of 9{20} is too large"),
        ("OPENQASM 2.0;\nqreg q[2];\ncreg c[999999999999];", "line 3: a register of 999999999999"),
        ("OPENQASM 3;\nqubit[2] q;\nfor int i in [0:1000000000] { U(0,0,1) q[0]; }", "holds for_loop"),
        ("OPENQASM 3;", "n_qubits must be a whole number from 1"),
    ],
)
def test_a_file_that_is_no_openqasm_is_refused_with_the_place(tmp_path, capfd, text, reason):
    path = tmp_path / "bad.qasm"
    path.write_text(text)
    with pytest.raises(InputError, match=reason) as told:
        read_circuit(path)
    assert "\n" not in str(told.value)
    assert capfd.readouterr().err == "", "the parser's own lines are in the message"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"ansatz": "circuit"}, "has no circuit"),
        ({"ansatz": "uccsd", "circuit": "it"}, "is given for ansatz uccsd"),
        ({"circuit": "it", "ansatz": "circuit", "reps": 2}, "repetitions belong into it"),
        ({"circuit": "it", "ansatz": "circuit", "initial_point": "hf"}, "initial point hf"),
        ({"circuit": "it", "ansatz": "circuit", "initial_point": "mp2"}, "mp2 is for the uccsd ansatz"),
        ({"circuit": "it", "ansatz": "circuit", "engine": "sector"}, "engine sector is for ansatz uccsd"),
    ],
)
def test_what_does_not_go_with_a_circuit_is_refused(given, reason):
    given = {k: given_circuit(everything()) if v == "it" else v for k, v in given.items()}
    with pytest.raises(InputError, match=reason):
        make_spec(load_molecule("h2"), **given)


@pytest.mark.parametrize(
    "gates",
    [
        (GivenGate("rx", (4,)),), (GivenGate("cx", (1, 1)),), (GivenGate("cx", (0, 1), constant=0.1),),
        (GivenGate("swap", (0, 1)),), (GivenGate("ry", (0,), ((1, 0.5),)),), (GivenGate("ry", (0, 1)),),
        (GivenGate("rz", (0,), constant=float("nan")),), (GivenGate("rz", (0,), ((0, float("inf")),)),),
    ],
)  # fmt: skip
def test_a_gate_that_cannot_be_is_refused(gates):
    with pytest.raises(InputError, match="circuit: "):
        GivenCircuit(4, ("a",), gates)


@pytest.mark.parametrize("values", [[], {}, {"n_qubits": 4, "parameters": [], "gates": [["rx"]]}, {"n_qubits": 4}])
def test_json_that_is_no_circuit_is_refused(values):
    with pytest.raises(InputError, match="circuit"):
        GivenCircuit.from_dict(values)


def test_the_number_of_qubits_is_told_before_any_work():
    with pytest.raises(InputError, match="circuit has 4 qubits, and the Hamiltonian has 12"):
        run_vqe(make_spec(load_molecule("lih"), ansatz=everything()))
    with pytest.raises(InputError, match=r"has 2 \(2 spatial orbitals, mapper parity\)"):
        run_vqe(make_spec(load_molecule("h2"), ansatz=everything(), mapper="parity"))


def test_no_record_of_the_largest_circuit_is_larger_than_the_limit():
    names = tuple(f"{k:x<36}" for k in range(3_000))
    gates = tuple(GivenGate("rzz", (k % 20, 20), ((k, 1 / (k + 3)),), 1 / (k + 7)) for k in range(900))
    circuit = GivenCircuit(21, names, gates)
    assert circuit.n_bytes > 0.8 * MAX_BYTES
    spec = make_spec(
        load_molecule("h2"),
        ansatz=circuit,
        initial_point="vector",
        initial_vector=(-0.123456789012345678,) * len(names),
    )
    result = a_result(len(names), spec=spec_record(spec), spec_json=spec.canonical_json(), notes=["a note" * 100] * 10)
    result = replace(result, parameters=[row | {"label": "l" * 36} for row in result.parameters])
    assert spec.max_parameters - len(names) < 60, "nearly as many as are allowed"
    assert encoded_bytes(result) < MAX_RECORD_BYTES


def test_parameters_that_have_no_room_beside_the_circuit_are_refused(monkeypatch):
    monkeypatch.setattr("simulator.vqe.spec.RECORD_ROOM", 1_500)
    with pytest.raises(
        InputError, match=r"has 8 parameters here, at most \d are allowed beside the \d+ gates of the circuit"
    ):
        make_spec(load_molecule("h2"), ansatz=everything())
