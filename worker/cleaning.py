"""What a model said, made storable: Postgres takes no zero character, no half surrogate, and JSON no NaN."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def clean_text(text: str) -> str:
    """Text without zero characters; half surrogates become question marks."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()


def clean_json(value: Any) -> Any:  # noqa: PLR0911 - one line per type
    """A JSON value: numbers that are none become null, keys become text, what JSON does not know becomes text."""
    if isinstance(value, str):
        return clean_text(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {clean_text(str(key)): clean_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        if set(map(type, value)) == {float} and all(map(math.isfinite, value)):
            return list(value)  # a vector, at once
        return [clean_json(item) for item in value]
    if hasattr(value, "item"):  # a number of numpy or torch
        return clean_json(value.item())
    return clean_text(str(value))
