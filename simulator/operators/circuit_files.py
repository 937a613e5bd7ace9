"""Ansatz circuits from OpenQASM files and from Qiskit: taken apart into Pauli rotations and CNOTs by Qiskit's transpiler."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

from simulator.errors import InputError, one_line
from simulator.input_files import read_text
from simulator.operators.expressions import Expression
from simulator.operators.given_circuit import CNOT_NAME, MAX_QUBITS, ROTATIONS, GivenCircuit, GivenGate

SUFFIXES = (".qasm", ".qasm3")
MAX_FILE_BYTES = 1 << 20

_REGISTER = re.compile(r"\b(?:qubit|bit)\s*\[\s*([\d_]+)\s*\]|\b[qc]reg\s+\w+\s*\[\s*(\d+)\s*\]")


def is_circuit_file(name: str) -> bool:
    """Whether an ansatz is named by a file, as its ending tells."""
    return name.lower().endswith(SUFFIXES)


def read_circuit(path: Path) -> GivenCircuit:
    """The ansatz in a file of OpenQASM 3 (parameters are `input float` or `input angle`) or OpenQASM 2 (which has none).

    Raises:
        InputError: not readable, not OpenQASM (with line and column), or no ansatz, as `given_circuit` tells.
    """
    what = f"circuit {path}"
    text = read_text(path, what, MAX_FILE_BYTES)
    if not re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL).strip():
        raise InputError(f"{what}: it holds no statement")
    for register in _REGISTER.finditer(text):  # before anything is made of that size
        size = (register[1] or register[2]).replace("_", "").lstrip("0") or "0"
        if len(size) > 2 or int(size) > MAX_QUBITS:
            line = text.count("\n", 0, register.start()) + 1
            raise InputError(
                f"{what}: line {line}: a register of {size[:20]} is too large, at most {MAX_QUBITS} are allowed"
            )
    old = re.search(r"^\s*OPENQASM\s+2", text, re.MULTILINE)
    circuit = _openqasm_2(text, what) if old else _openqasm_3(text, what)
    return given_circuit(circuit, what)


def given_circuit(circuit: Any, what: str = "circuit") -> GivenCircuit:
    """A Qiskit circuit as a value. Measurements at its end are left out, and its global phase, which no energy depends on.

    Args:
        circuit: a `qiskit.QuantumCircuit`; its parameters keep Qiskit's order.
        what: how errors name it.

    Raises:
        InputError: an operation that is not unitary, an angle that is no arithmetic of the parameters, or too many qubits or gates.
    """
    from qiskit import transpile
    from qiskit.exceptions import QiskitError

    circuit = circuit.remove_final_measurements(inplace=False)
    parameters = list(circuit.parameters)  # of the circuit as given: a parameter that cancels out keeps its place
    try:
        plain = transpile(circuit, basis_gates=[*ROTATIONS, CNOT_NAME], optimization_level=0)
    except QiskitError as error:
        raise InputError(f"{what}: it cannot be taken apart into rotations and CNOTs ({one_line(error)})") from None
    angles = _Angles(parameters, what)
    gates = []
    for instruction in plain.data:
        name = instruction.operation.name
        if name == "barrier":
            continue
        qubits = tuple(plain.find_bit(qubit).index for qubit in instruction.qubits)
        if name == CNOT_NAME:
            gates.append(GivenGate(name, qubits))
            continue
        if name not in ROTATIONS:
            raise InputError(f"{what}: an ansatz is unitary, and this circuit holds {name}")
        terms, constant = angles.terms(instruction.operation.params[0])
        if terms or constant:
            gates.append(GivenGate(name, qubits, terms, constant))
    labels = tuple(str(parameter) for parameter in parameters)
    return GivenCircuit(plain.num_qubits, labels, tuple(gates), tuple(angles.expressions))


class _Angles:
    """Qiskit's angles as sums of parameters and of expressions, which are numbered as they come."""

    def __init__(self, parameters: list[Any], what: str) -> None:
        from qiskit.circuit import Parameter

        self.expressions: dict[str, int] = {}  # texts and their numbers
        self._what, self._index = what, {parameter: k for k, parameter in enumerate(parameters)}
        self._prefix = "p"
        while any(parameter.name.startswith(self._prefix) for parameter in parameters):
            self._prefix += "p"  # Qiskit takes parameters of one name for one, and refuses the exchange
        self._plain = {parameter: Parameter(f"{self._prefix}{k}") for parameter, k in self._index.items()}

    def terms(self, angle: Any) -> tuple[tuple[tuple[int, float], ...], float]:
        """(parameter or expression, coefficient) pairs and the constant of an angle."""
        terms = []
        for parameter in sorted(getattr(angle, "parameters", ()), key=self._index.__getitem__):
            slope = self._slope(angle, parameter)
            if slope is None:
                return ((len(self._index) + self._number(angle), 1.0),), 0.0
            if slope:
                terms.append((self._index[parameter], slope))
        constant = angle.bind(dict.fromkeys(angle.parameters, 0.0)) if hasattr(angle, "bind") else angle
        return tuple(terms), float(constant) + 0.0

    def _slope(self, angle: Any, parameter: Any) -> float | None:
        """The derivative; None where it is not one number."""
        try:
            return float(angle.gradient(parameter))
        except (TypeError, RuntimeError):  # it holds parameters, or Qiskit does not know it
            return None

    def _number(self, angle: Any) -> int:
        """The number of an angle's expression."""
        plain = angle.subs({parameter: self._plain[parameter] for parameter in angle.parameters})
        text = re.sub(rf"\b{self._prefix}(\d+)\b", r"p\1", str(plain))
        try:
            Expression(text, len(self._index))
        except InputError as error:
            raise InputError(f"{self._what}: the angle {angle}: {error}") from None
        return self.expressions.setdefault(text, len(self.expressions))


def _openqasm_3(text: str, what: str) -> Any:
    from openqasm3.parser import QASM3ParsingError
    from qiskit import qasm3

    try:
        with contextlib.redirect_stderr(io.StringIO()):  # the parser prints what is wrong; here it is in the error
            return qasm3.loads(text)
    except QASM3ParsingError as error:
        reason = _syntax_error(error)
    except qasm3.QASM3Error as error:
        reason = re.sub(r"^(\d+),(\d+): ", r"line \1:\2 ", _unquoted(error))
    except Exception as error:  # the importer meets what it does not know with errors of every kind
        reason = f"{_place(error)}Qiskit's importer does not know this construct ({one_line(error)})"
    raise InputError(f"{what}: {reason}")


def _syntax_error(error: Exception) -> str:
    """Where a text is no OpenQASM, of the parser's error, which hides it in its cause."""
    cause = getattr(error, "__cause__", None)
    token = getattr(next(iter(getattr(cause, "args", ())), None), "offendingToken", None)
    if token is None:
        return re.sub(r"^L(\d+):C(\d+): ", r"line \1:\2 ", one_line(error))
    what = "the end of the file" if token.text == "<EOF>" else repr(token.text)
    return f"line {token.line}:{token.column} {what} is not expected here"


def _place(error: Exception) -> str:
    """The line and column of what the importer was at when it failed, empty where that cannot be told."""
    found = ""
    trace = error.__traceback__
    while trace is not None:
        span = getattr(trace.tb_frame.f_locals.get("node"), "span", None)
        found = f"line {span.start_line}:{span.start_column} " if span is not None else found
        trace = trace.tb_next
    return found


def _unquoted(error: Exception) -> str:
    """A message of Qiskit's, whose errors quote it when they are made a text."""
    return one_line(getattr(error, "message", error))


def _openqasm_2(text: str, what: str) -> Any:
    from qiskit import qasm2

    try:
        return qasm2.loads(text)
    except qasm2.QASM2Error as error:
        raise InputError(f"{what}: {_unquoted(error)}") from None
