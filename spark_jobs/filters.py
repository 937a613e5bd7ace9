"""Row filters, as pyiceberg's expressions.

pyiceberg's predicates take their term and value by position, which their pydantic signatures hide from mypy: the one
place that says so.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pyiceberg import expressions
from pyiceberg.expressions import AlwaysTrue, And, BooleanExpression

EVERYTHING: BooleanExpression = AlwaysTrue()


def between(column: str, first: Any, last: Any) -> BooleanExpression:
    """Rows from `first` to `last`, both included."""
    at_least, at_most = _predicate("GreaterThanOrEqual", column, first), _predicate("LessThanOrEqual", column, last)
    return And(at_least, at_most)


def after(column: str, since: datetime | None, until: datetime) -> BooleanExpression:
    """Rows after `since` (None: from the first) up to `until`."""
    at_most = _predicate("LessThanOrEqual", column, until)
    return at_most if since is None else And(_predicate("GreaterThan", column, since), at_most)


def among(column: str, values: Sequence[str]) -> BooleanExpression:
    """Rows whose value is one of these."""
    return _predicate("In", column, list(values))


def equal(column: str, value: Any) -> BooleanExpression:
    """Rows with that value."""
    return _predicate("EqualTo", column, value)


def both(one: BooleanExpression, other: BooleanExpression) -> BooleanExpression:
    """Rows that both name."""
    return And(one, other)


def _predicate(name: str, column: str, value: Any) -> BooleanExpression:
    if isinstance(value, datetime):
        value = value.astimezone(UTC).isoformat()
    predicate: BooleanExpression = getattr(expressions, name)(column, value)
    return predicate
