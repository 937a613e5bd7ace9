"""Angles that are not linear in the parameters: arithmetic as text, with its value and derivatives.

The text is Python's arithmetic over p0, p1, ... and the functions below. It is read by a parser and worked out node by node; nothing in it
is executed.
"""

# NumPy's types are named below, NumPy is loaded when an expression is worked out: the command line reads specifications
from __future__ import annotations

import ast
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

from simulator.errors import InputError
from simulator.input_files import shown

if TYPE_CHECKING:
    import numpy as np

MAX_LENGTH = 1_000
"""Characters of an expression."""

MAX_DEPTH = 300
"""Levels of an expression: it is worked out by recursion."""

Dual: TypeAlias = "tuple[float, np.ndarray]"
"""A value and its derivatives by the parameters, shape: (n_parameters,)."""

FUNCTIONS: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "sin": (math.sin, math.cos),
    "cos": (math.cos, lambda x: -math.sin(x)),
    "tan": (math.tan, lambda x: 1 / math.cos(x) ** 2),
    "asin": (math.asin, lambda x: 1 / math.sqrt(1 - x * x)),
    "acos": (math.acos, lambda x: -1 / math.sqrt(1 - x * x)),
    "atan": (math.atan, lambda x: 1 / (1 + x * x)),
    "exp": (math.exp, math.exp),
    "log": (math.log, lambda x: 1 / x),
    "sqrt": (math.sqrt, lambda x: 0.5 / math.sqrt(x)),
    "abs": (abs, lambda x: math.copysign(1.0, x)),
}
"""Each function and its derivative."""


@dataclass(frozen=True)
class Expression:
    """Arithmetic over parameters p0, p1, ...

    Raises:
        InputError: the text holds something else.
    """

    text: str
    n_parameters: int

    def __post_init__(self) -> None:
        self._check(self._tree, 1)

    @cached_property
    def _tree(self) -> ast.expr:
        try:
            if len(self.text) > MAX_LENGTH:
                raise ValueError
            return ast.parse(self.text, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise InputError(f"circuit: {shown(self.text)} is no expression of up to {MAX_LENGTH} characters") from None

    def _check(self, node: ast.expr, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise InputError(f"circuit: {shown(self.text)} is nested more than {MAX_DEPTH} levels deep")
        inner: list[ast.expr] = []
        match node:
            case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
                pass
            case ast.Name(id=name) if name[:1] == "p" and name[1:].isdecimal() and int(name[1:]) < self.n_parameters:
                pass
            case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
                inner = [operand]
            case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div() | ast.Pow(), right=right):
                inner = [left, right]
            case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in FUNCTIONS:
                inner = [argument]
            case _:
                raise InputError(
                    f"circuit: {shown(self.text)} holds {shown(ast.unparse(node))}, and arithmetic over"
                    f" p0 to p{self.n_parameters - 1} and {', '.join(FUNCTIONS)} is allowed"
                )
        for part in inner:
            self._check(part, depth + 1)

    def at(self, parameters: np.ndarray) -> Dual:
        """The value and its derivatives; not a number where the expression has no value.

        Args:
            parameters: radian, shape: (n_parameters,).
        """
        import numpy as np

        try:
            return self._dual(self._tree, parameters)
        except (ArithmeticError, ValueError):
            return math.nan, np.full(len(parameters), math.nan)

    def _dual(self, node: ast.expr, p: np.ndarray) -> Dual:
        import numpy as np

        match node:
            case ast.Constant(value=value):
                return float(value), np.zeros(len(p))  # type: ignore[arg-type]
            case ast.Name(id=name):
                k = int(name[1:])
                return float(p[k]), np.eye(1, len(p), k)[0]
            case ast.UnaryOp(op=op, operand=inner):
                value, slope = self._dual(inner, p)
                return (-value, -slope) if isinstance(op, ast.USub) else (value, slope)
            case ast.Call(func=ast.Name(id=name), args=[inner]):
                value, slope = self._dual(inner, p)
                function, derivative = FUNCTIONS[name]
                return function(value), derivative(value) * slope
            case ast.BinOp(left=left, op=op, right=right):
                return _combined(op, self._dual(left, p), self._dual(right, p))
        raise AssertionError(node)  # the check lets nothing else pass


def _combined(op: ast.operator, left: Dual, right: Dual) -> Dual:
    (a, da), (b, db) = left, right
    match op:
        case ast.Add():
            return a + b, da + db
        case ast.Sub():
            return a - b, da - db
        case ast.Mult():
            return a * b, a * db + b * da
        case ast.Div():
            return a / b, (da - a / b * db) / b
        case _:  # a power
            if not db.any():  # also of numbers that have no logarithm
                return a**b, (b * a ** (b - 1) * da if b else 0.0 * da)
            return a**b, a**b * (db * math.log(a) + b / a * da)
