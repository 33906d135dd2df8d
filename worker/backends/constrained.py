"""The option `json_schema`, for every backend that can bind what is written to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from worker.backends import BadInput

if TYPE_CHECKING:
    from worker.backends import Input


def wanted_schema(item: Input) -> dict[str, Any] | None:
    """The JSON schema that a caller wants the reply to follow. Raises `BadInput` where it is no object."""
    schema = item.options.get("json_schema")
    if schema is None:
        return None
    if not isinstance(schema, Mapping):
        raise BadInput(f"Option json_schema = {schema!r} is not a JSON schema, which is an object.")
    return dict(schema)
