"""Ansatz circuits as lists of Pauli rotations and CNOTs: what our statevector engine and Aer's circuits come from."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any

import numpy as np

from simulator.operators.excitations import ExcitationSet
from simulator.operators.expressions import Expression
from simulator.operators.given_circuit import CNOT_NAME, ROTATIONS, GivenCircuit
from simulator.operators.hamiltonian import Mapping

ROTATION, CNOT = 0, 1


@dataclass(frozen=True)
class Gates:
    """Gates in order of action on the basis state `initial_state`.

    A rotation is exp(-i angle/2 P(x, z)) with angle = coefficient * (its slot's value), or a fixed angle and slot -1; a CNOT has its
    control in x and its target in z, as one-bit masks, and slot -1.

    Parameters enter through slots: a slot is what a shift rule shifts as a whole, and takes the value of one parameter or, where
    its number is past theirs, of an expression of them.
    The energy as a function of a slot's angle has the frequency 1 for a single rotation, 1 and 2 for an excitation, whose
    generator has the eigenvalues -1, 0, 1.
    """

    n_qubits: int
    initial_state: int  # mask
    kind: np.ndarray  # ROTATION or CNOT, shape: (n_gates,)
    x: np.ndarray  # uint64, shape: (n_gates,)
    z: np.ndarray  # uint64, shape: (n_gates,)
    slot: np.ndarray  # -1 for CNOTs and fixed rotations, shape: (n_gates,)
    coefficient: np.ndarray  # of the slot's angle; with slot -1 the angle itself, shape: (n_gates,)
    slot_parameter: np.ndarray  # shape: (n_slots,)
    frequencies: int  # 1 or 2: how many
    labels: tuple[str, ...]  # shape: (n_parameters,)
    hf_parameters: np.ndarray  # radian, where the state is the Hartree-Fock determinant, shape: (n_parameters,)
    expressions: tuple[Expression, ...] = ()

    @property
    def n_parameters(self) -> int:
        return len(self.labels)

    def angles(self, parameters: np.ndarray) -> np.ndarray:
        """Every gate's angle in radian, 0 for CNOTs, shape: (n_gates,)."""
        return self.angles_of_slots(self.slot_values(parameters))

    def slot_values(self, parameters: np.ndarray) -> np.ndarray:
        """Every slot's value, shape: (n_slots,)."""
        values = np.asarray(parameters, dtype=float)
        if self.expressions:
            values = np.concatenate([values, [e.at(values)[0] for e in self.expressions]])
        return np.asarray(values[self.slot_parameter])

    def gradient_of(self, by_slot: np.ndarray, parameters: np.ndarray) -> np.ndarray:
        """Derivatives by the parameters from those by the slots' values, shape: (n_slots,) -> (n_parameters,)."""
        n = self.n_parameters
        by_value = np.zeros(n + len(self.expressions))
        np.add.at(by_value, self.slot_parameter, by_slot)
        gradient = by_value[:n]
        for slope, expression in zip(by_value[n:], self.expressions, strict=True):
            gradient += slope * expression.at(np.asarray(parameters, dtype=float))[1]
        return gradient

    def angles_of_slots(self, values: np.ndarray) -> np.ndarray:
        """Every gate's angle from the slots' values, shape: (n_gates,)."""
        if not len(values):
            return self.coefficient.copy()
        return np.where(self.slot >= 0, self.coefficient * values[self.slot], self.coefficient)


def uccsd_gates(ansatz: ExcitationSet, mapping: Mapping) -> Gates:
    """Factorised UCCSD: exp(theta (T - T^dagger)) is a product of rotations, as an excitation's strings commute."""
    rows = []
    strings: dict[Any, Any] = {}
    for slot, excitation in enumerate(ansatz.excitations):
        if excitation not in strings:
            strings[excitation] = excitation.generator(mapping)
        generator = strings[excitation]
        rows += [
            (ROTATION, x, z, slot, 2.0 * c.real)
            for x, z, c in zip(generator.x, generator.z, generator.coefficients, strict=True)
        ]
    return _gates(
        rows, mapping.n_qubits, mapping.hartree_fock_state(), ansatz.parameter, 2, ansatz.labels, np.zeros(ansatz.n_parameters)
    )  # fmt: skip


def library_gates(name: str, reps: int, mapping: Mapping) -> Gates:
    """EfficientSU2, RealAmplitudes or ExcitationPreserving as in Qiskit's circuit library, default entanglement.

    ExcitationPreserving starts from the Hartree-Fock determinant, the others from |0...0>.

    Raises:
        ValueError: the circuit holds a gate that is neither a rotation nor a CNOT.
    """
    from qiskit.circuit.library import efficient_su2, excitation_preserving, real_amplitudes

    make = {
        "efficient_su2": efficient_su2,
        "real_amplitudes": real_amplitudes,
        "excitation_preserving": excitation_preserving,
    }
    circuit = make[name](mapping.n_qubits, reps=reps)
    circuit = circuit.decompose(gates_to_decompose="Interaction")  # ExcitationPreserving's block of RXX and RYY
    index = {parameter: k for k, parameter in enumerate(circuit.parameters)}
    hf_state = mapping.hartree_fock_state()
    rows: list[tuple[int, int, int, int, float]] = []
    slots: list[int] = []
    last_ry: dict[int, int] = {}
    for instruction in circuit.data:
        qubits = [circuit.find_bit(q).index for q in instruction.qubits]
        gate = instruction.operation.name
        if gate == "cx":
            rows.append((CNOT, 1 << qubits[0], 1 << qubits[1], -1, 0.0))
            continue
        if gate == "xx_plus_yy":  # exp(-i angle/4 (XX + YY)), two rotations that commute
            angle, beta = instruction.operation.params
            if float(beta) != 0.0:
                raise ValueError(f"{name} holds an {gate} gate with a phase")
            (parameter,) = angle.parameters
            mask = sum(1 << q for q in qubits)
            for z in (0, mask):
                rows.append((ROTATION, mask, z, len(slots), 0.5 * float(angle.gradient(parameter))))
                slots.append(index[parameter])
            continue
        if gate not in ROTATIONS:
            raise ValueError(f"{name} holds a gate {gate!r}")
        (angle,) = instruction.operation.params
        (parameter,) = angle.parameters
        scale = float(angle.gradient(parameter))
        rows.append((ROTATION, *_masks(gate, qubits), len(slots), scale))
        slots.append(index[parameter])
        if gate == "ry":
            last_ry[qubits[0]] = index[parameter]
    hf_parameters = np.zeros(len(index))
    initial = hf_state if name == "excitation_preserving" else 0
    if initial == 0:  # the last layer's rotations by pi make the determinant out of |0...0>
        for qubit, k in last_ry.items():
            hf_parameters[k] = np.pi if hf_state >> qubit & 1 else 0.0
    labels = tuple(str(p) for p in circuit.parameters)
    return _gates(rows, mapping.n_qubits, initial, np.array(slots, dtype=np.int64), 1, labels, hf_parameters)


def _masks(name: str, qubits: Iterable[int]) -> tuple[int, int]:
    """X and Z masks of the string that a gate of ROTATIONS rotates by."""
    mask, letter = sum(1 << q for q in qubits), ROTATIONS[name][0]
    return mask if letter in "XY" else 0, mask if letter in "YZ" else 0


def given_gates(circuit: GivenCircuit) -> Gates:
    """A circuit that the user gave. A rotation by several parameters is one rotation for each, as they commute.

    Nobody knows where such a circuit is the Hartree-Fock determinant; `hf_parameters` are zeros.
    """
    rows: list[tuple[int, int, int, int, float]] = []
    slots: list[int] = []
    for gate in circuit.gates:
        if gate.name == CNOT_NAME:
            rows.append((CNOT, 1 << gate.qubits[0], 1 << gate.qubits[1], -1, 0.0))
            continue
        x, z = _masks(gate.name, gate.qubits)
        if gate.constant:
            rows.append((ROTATION, x, z, -1, gate.constant))
        for parameter, coefficient in gate.terms:
            rows.append((ROTATION, x, z, len(slots), coefficient))
            slots.append(parameter)
    n_parameters = len(circuit.parameters)
    gates = _gates(
        rows, circuit.n_qubits, 0, np.array(slots, dtype=np.int64), 1, circuit.parameters, np.zeros(n_parameters)
    )
    return replace(gates, expressions=tuple(Expression(text, n_parameters) for text in circuit.expressions))


def _gates(
    rows: list[Any],
    n_qubits: int,
    initial: int,
    slot_parameter: np.ndarray,
    frequencies: int,
    labels: tuple[str, ...],
    hf: np.ndarray,
) -> Gates:
    kind, x, z, slot, coefficient = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    return Gates(
        n_qubits=n_qubits, initial_state=initial, kind=np.array(kind, np.int64), x=np.array(x, np.uint64),
        z=np.array(z, np.uint64), slot=np.array(slot, np.int64), coefficient=np.array(coefficient, float),
        slot_parameter=slot_parameter, frequencies=frequencies, labels=labels, hf_parameters=hf,
    )  # fmt: skip


def build_circuit(gates: Gates, angles: Any) -> Any:
    """A Qiskit circuit of rx, ry, rz, h, s, sdg, x, cx and cz.

    Args:
        gates: the ansatz.
        angles: a number or a Qiskit Parameter for each gate, shape: (n_gates,).
    """
    from qiskit import QuantumCircuit

    circuit = QuantumCircuit(gates.n_qubits)
    for q in _bits(gates.initial_state):
        circuit.x(q)
    rows = zip(gates.kind.tolist(), gates.slot.tolist(), gates.x.tolist(), gates.z.tolist(), angles, strict=True)
    for (kind, slot, x), group in groupby(rows, key=itemgetter(0, 1, 2)):
        rotations = [(z, angle) for *_, z, angle in group]
        if kind == CNOT:
            for z, _ in rotations:
                circuit.cx(x.bit_length() - 1, z.bit_length() - 1)
        elif slot >= 0 and len(rotations) > 1:
            _append_excitation(circuit, x, rotations)
        else:
            for z, angle in rotations:
                _append_rotation(circuit, x, z, angle)
    return circuit


def _append_excitation(circuit: Any, x: int, rotations: list[tuple[int, Any]]) -> None:
    """The rotations of one excitation together: a Y rotation of one qubit, its sign decided by the parities of others.

    All strings flip the same qubits x and hold an odd number of Ys (T - T^dagger is real). CNOTs from one of these qubits
    to the rest leave Y there and Zs elsewhere, Y_t Z^w; a CZ between t and q turns Y_t into Y_t Z_q. NH3 takes 18,680 CNOTs
    when each string has a ladder of its own, and Aer nine seconds; 4,000 two-qubit gates this way.
    """
    target, *others = _bits(x)
    for q in others:
        circuit.cx(target, q)
    left = []
    for z, angle in rotations:
        parity = (z & x).bit_count()
        if not parity % 2:
            raise ValueError("an excitation's string must hold an odd number of Ys")
        # X^x Z^z maps to X_t Z^w without a sign; the powers of i in P(x, z) leave i^(parity - 1)
        left.append((z & ~(1 << target), angle if parity % 4 == 1 else -angle))
    current = 0
    while left:
        left.sort(key=lambda item: (item[0] ^ current).bit_count())
        wanted, angle = left.pop(0)
        for q in _bits(wanted ^ current):
            circuit.cz(q, target)
        circuit.ry(angle, target)
        current = wanted
    for q in _bits(current):
        circuit.cz(q, target)
    for q in reversed(others):
        circuit.cx(target, q)


def _append_rotation(circuit: Any, x: int, z: int, angle: Any) -> None:
    """exp(-i angle/2 P): each letter turned to Z, the parity gathered on the last qubit, turned there, all undone."""
    qubits = _bits(x | z)
    if not qubits:
        return  # a global phase
    if len(qubits) == 1:
        rotation = circuit.rz if not x else circuit.ry if z else circuit.rx
        rotation(angle, qubits[0])
        return
    for q in _bits(x):
        if z >> q & 1:
            circuit.sdg(q)
        circuit.h(q)
    for control, target in pairwise(qubits):
        circuit.cx(control, target)
    circuit.rz(angle, qubits[-1])
    for control, target in reversed(list(pairwise(qubits))):
        circuit.cx(control, target)
    for q in _bits(x):
        circuit.h(q)
        if z >> q & 1:
            circuit.s(q)


def _bits(mask: int) -> list[int]:
    return [q for q in range(mask.bit_length()) if mask >> q & 1]
