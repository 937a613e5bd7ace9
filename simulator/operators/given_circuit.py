"""An ansatz circuit that the user gave, as a value: named gates whose angles are linear in parameters and in expressions of them.

It is part of a specification and travels by value wherever that goes. `circuit_files` makes it from OpenQASM and from Qiskit.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import rfc8785

from simulator.errors import InputError
from simulator.input_files import check_whole, shown
from simulator.operators.expressions import Expression

MAX_BYTES = 200_000
"""Of a circuit's JSON. A specification stands in the records of a run's begin and end, and no record may have more than 500 kB;
some 4,000 rotations fit."""

MAX_LABEL = 36
"""Characters of a parameter's name, as long as an excitation's: it stands in every record that holds parameters."""

MAX_QUBITS = 64
"""Bits of the masks that stand for Pauli strings."""

ROTATIONS = {"rx": "X", "ry": "Y", "rz": "Z", "rxx": "XX", "ryy": "YY", "rzz": "ZZ"}
"""Gates exp(-i angle/2 P) by their names in OpenQASM's and Qiskit's libraries, and P."""

CNOT_NAME = "cx"


@dataclass(frozen=True)
class GivenGate:
    """A rotation by the angle constant + sum of coefficient x parameter, or a CNOT of control and target.

    Expressions of parameters are counted on from the last parameter.
    """

    name: str  # of ROTATIONS, or cx
    qubits: tuple[int, ...]
    terms: tuple[tuple[int, float], ...] = ()  # parameter or expression and coefficient, each once
    constant: float = 0.0  # radian


@dataclass(frozen=True)
class GivenCircuit:
    """A circuit on |0...0>, qubit k of it is qubit k of the Hamiltonian.

    Raises:
        InputError: a qubit, parameter or number that cannot be, or the circuit is too large for the records of a run.
    """

    n_qubits: int
    parameters: tuple[str, ...]
    gates: tuple[GivenGate, ...]
    expressions: tuple[str, ...] = ()  # as `expressions.Expression` takes them

    def __post_init__(self) -> None:
        check_whole("circuit: n_qubits", self.n_qubits, 1, MAX_QUBITS)
        for label in self.parameters:
            if not isinstance(label, str) or not label.isprintable() or not 1 <= len(label) <= MAX_LABEL:
                raise InputError(f"circuit: parameter {shown(label)} is no name of up to {MAX_LABEL} characters")
        if len(set(self.parameters)) < len(self.parameters):
            raise InputError("circuit: two parameters have one name")
        for text in self.expressions:
            if not isinstance(text, str):
                raise InputError(f"circuit: {shown(text)} is no expression")
            Expression(text, len(self.parameters))
        for gate in self.gates:
            self._check(gate)
        if self.n_bytes > MAX_BYTES:
            raise InputError(
                f"circuit: its {len(self.gates)} gates take {self.n_bytes} bytes in the records of a run, {MAX_BYTES} are allowed"
            )

    def _check(self, gate: GivenGate) -> None:
        n_qubits = 2 if gate.name == CNOT_NAME else len(ROTATIONS.get(gate.name, ""))
        if not n_qubits:
            raise InputError(
                f"circuit: unknown gate {shown(gate.name)} (use one of {', '.join(ROTATIONS)}, {CNOT_NAME})"
            )
        for qubit in gate.qubits:
            check_whole(f"circuit: qubit of {gate.name}", qubit, 0, self.n_qubits - 1)
        if len(gate.qubits) != n_qubits or len(set(gate.qubits)) < n_qubits:
            raise InputError(f"circuit: {gate.name} acts on {n_qubits} qubits, not on {list(gate.qubits)}")
        for parameter, coefficient in gate.terms:
            check_whole(
                f"circuit: parameter of {gate.name}", parameter, 0, len(self.parameters) + len(self.expressions) - 1
            )
            _check_number(gate.name, coefficient)
        _check_number(gate.name, gate.constant)
        if gate.name == CNOT_NAME and (gate.terms or gate.constant):
            raise InputError(f"circuit: {CNOT_NAME} has no angle")

    @cached_property
    def n_bytes(self) -> int:
        """Bytes of its canonical JSON (RFC 8785), as it stands in a specification's."""
        return len(rfc8785.dumps(self.to_dict()))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, from which `from_dict` makes the circuit again; a gate is [name, qubits, terms, constant]."""
        gates: list[list[Any]] = []
        for gate in self.gates:
            row = [gate.name, list(gate.qubits), [[k, c] for k, c in gate.terms], gate.constant]
            gates.append(row[:2] if gate.name == CNOT_NAME else row)
        out = {"n_qubits": self.n_qubits, "parameters": list(self.parameters), "gates": gates}
        return {**out, "expressions": list(self.expressions)} if self.expressions else out

    @classmethod
    def from_dict(cls, values: Any) -> "GivenCircuit":
        """The circuit that `to_dict` wrote.

        Raises:
            InputError: a key is unknown or missing, or a value is not allowed.
        """
        keys = {"n_qubits", "parameters", "gates"}
        if not isinstance(values, Mapping) or set(values) - {"expressions"} != keys:
            raise InputError(f"circuit must be a JSON object of {', '.join(sorted(keys))}, not {shown(values)}")
        gates = []
        for row in values["gates"]:
            try:
                name, qubits, terms, constant = row if len(row) == 4 else (*row, (), 0.0)
                gates.append(GivenGate(name, tuple(qubits), tuple((k, float(c)) for k, c in terms), float(constant)))
            except (TypeError, ValueError):
                raise InputError(f"circuit: {shown(row)} is no gate: [name, qubits, terms, constant]") from None
        return cls(values["n_qubits"], tuple(values["parameters"]), tuple(gates), tuple(values.get("expressions", ())))


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"circuit: an angle of {name} holds {shown(value)}, which is no finite number")
