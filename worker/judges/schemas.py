"""An answer held against a JSON schema, in bounded time: both are the words of strangers.

What jsonschema does in quadratic time (`uniqueItems`) or by backtracking (`pattern`) is done otherwise here, and it is
counted how often a keyword meets a value: a small schema and a long answer can make that billions.
"""

from __future__ import annotations

import json
from contextvars import ContextVar
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from worker.judges.patterns import found

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from jsonschema import ValidationError

MOST_STEPS = 100_000  # keywords that meet values: seconds
NAMES_IN_A_STEP = 20  # values of an `enum` that are compared as fast as a keyword is looked at

_left: ContextVar[int] = ContextVar("left")


class TooManySteps(ValueError):
    """An answer is too large for its schema."""

    def __init__(self) -> None:
        super().__init__(f"against its schema that takes more than {MOST_STEPS} steps")


def fits(schema: Mapping[str, Any], value: Any) -> bool:
    """Whether a JSON value is one of the schema. Raises `TooManySteps`, `ArithmeticError` for numbers out of reach."""
    _left.set(MOST_STEPS)
    return bool(_validator()(schema).is_valid(value))


def fault(schema: Mapping[str, Any], value: Any) -> str | None:
    """Where a JSON value is not one of the schema, and why; None where it is. Raises as `fits`."""
    from jsonschema.exceptions import best_match

    _left.set(MOST_STEPS)
    found_first = best_match(_validator()(schema).iter_errors(value))
    return f"{found_first.json_path}: {found_first.message}" if found_first else None


@lru_cache(maxsize=1)
def _validator() -> Any:
    from jsonschema import Draft202012Validator, validators

    known = {**Draft202012Validator.VALIDATORS, "pattern": _pattern, "uniqueItems": _unique}
    counted = {keyword: partial(_counted, function) for keyword, function in known.items()}
    return validators.extend(Draft202012Validator, counted)  # type: ignore[no-untyped-call]


def _counted(function: Callable[..., Any], validator: Any, wanted: Any, value: Any, schema: Any) -> Any:
    steps = 1 + (len(wanted) // NAMES_IN_A_STEP if isinstance(wanted, list) else 0)
    left = _left.get() - steps
    if left < 0:
        raise TooManySteps
    _left.set(left)
    return function(validator, wanted, value, schema)


def _pattern(_: Any, wanted: str, value: Any, __: Any) -> Iterator[ValidationError]:
    from jsonschema import ValidationError

    if isinstance(value, str) and not found(wanted, value):
        yield ValidationError(f"{value!r} does not match {wanted!r}")


def _unique(_: Any, wanted: bool, value: Any, __: Any) -> Iterator[ValidationError]:  # noqa: FBT001 - jsonschema calls
    from jsonschema import ValidationError

    if (
        wanted
        and isinstance(value, list)
        and len({json.dumps(_same(one), sort_keys=True) for one in value}) < len(value)
    ):
        yield ValidationError(f"{value!r} has non-unique elements")


def _same(value: Any) -> Any:
    """A value such that equal ones are written alike: to JSON, 1.0 is 1."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_same(one) for one in value]
    return {key: _same(one) for key, one in value.items()} if isinstance(value, dict) else value
