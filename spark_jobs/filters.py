"""Row filters, as pyiceberg's expressions.

pyiceberg's predicates take their term and value by position, which their pydantic signatures hide from mypy. This module is
the only place that makes them.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import reduce
from itertools import pairwise
from typing import Any
from uuid import UUID

from pyiceberg import expressions
from pyiceberg.expressions import AlwaysTrue, And, BooleanExpression, Or

MAX_IN = 200
"""pyiceberg prunes files by an In of up to 200 values."""
_MAX_RANGES = 16

EVERYTHING: BooleanExpression = AlwaysTrue()


def between(column: str, first: Any, last: Any) -> BooleanExpression:
    """Rows from `first` to `last`, both included."""
    at_least, at_most = _predicate("GreaterThanOrEqual", column, first), _predicate("LessThanOrEqual", column, last)
    return And(at_least, at_most)


def at_least(column: str, first: Any) -> BooleanExpression:
    """Rows from `first` on."""
    return _predicate("GreaterThanOrEqual", column, first)


def among(column: str, values: Sequence[str]) -> BooleanExpression:
    """Rows whose value is one of these."""
    return _predicate("In", column, list(values))


def ids(column: str, values: Iterable[str]) -> BooleanExpression:
    """Rows that can hold one of these UUIDv7s, and few others: up to 200 by name, more by ranges of ids between the
    widest gaps, so that an old run among new ones does not ask for all that lies between them."""
    ordered = sorted(set(values))
    if len(ordered) <= MAX_IN:
        return among(column, ordered)
    return reduce(Or, (between(column, first, last) for first, last in id_ranges(ordered)))


def id_ranges(values: Iterable[str]) -> list[tuple[str, str]]:
    """Up to 16 ranges that hold these UUIDv7s, both ends included, cut at the widest gaps between them."""
    ordered = sorted(set(values))
    try:
        numbers = [UUID(value).int for value in ordered]
    except ValueError:
        return [(ordered[0], ordered[-1])]
    widest = sorted(range(1, len(ordered)), key=lambda i: numbers[i] - numbers[i - 1])[1 - _MAX_RANGES :]
    return [(ordered[i], ordered[j - 1]) for i, j in pairwise([0, *sorted(widest), len(ordered)])]


def equal(column: str, value: Any) -> BooleanExpression:
    """Rows with that value."""
    return _predicate("EqualTo", column, value)


def both(one: BooleanExpression, other: BooleanExpression) -> BooleanExpression:
    """Rows for which both hold."""
    return And(one, other)


def _predicate(name: str, column: str, value: Any) -> BooleanExpression:
    if isinstance(value, datetime):
        value = value.astimezone(UTC).isoformat()
    predicate: BooleanExpression = getattr(expressions, name)(column, value)
    return predicate
