"""Kinds of fields that several documents have, as strict as their JSON schema and no stricter."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from db.errors import InvalidRequest
from scheduler.jsonl import moment

#: What a JSON number holds everywhere.
LARGEST = 2**53 - 1


def whole(value: Any) -> Any:
    """JSON has one kind of number: 3.0 is a whole one."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _real(value: str) -> str:
    """Whether there is such a day and hour."""
    try:
        moment("", value)
    except InvalidRequest:
        raise ValueError("no such time; write it like 2026-12-24T18:00:00Z") from None
    return value


Count = Annotated[int, Field(ge=1, le=LARGEST), BeforeValidator(whole)]
Seed = Annotated[int, Field(ge=-LARGEST, le=LARGEST), BeforeValidator(whole)]
Priority = Annotated[int, Field(ge=-100, le=100), BeforeValidator(whole)]

#: A time with its zone, as RFC 3339 writes it.
Moment = Annotated[
    str,
    Field(
        pattern=r"^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$",
        json_schema_extra={"format": "date-time", "examples": ["2026-12-24T18:00:00Z"]},
    ),
    AfterValidator(_real),
]

SourceName = Annotated[str, Field(min_length=1, max_length=100)]
