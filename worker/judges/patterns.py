"""Regular expressions of callers, by RE2: time in proportion to the text, whatever the pattern is."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any


@lru_cache(maxsize=256)
def compiled(pattern: str) -> Any:
    """The pattern, for searching; a dot is any character. Raises RE2's error."""
    import re2

    options = re2.Options()
    options.dot_nl = True
    options.log_errors = False
    return re2.compile(pattern, options)


def compiles(pattern: str) -> str:
    """The pattern, where RE2 reads it. Raises `ValueError` in words."""
    import re2

    try:
        compiled(pattern)
    except re2.error as error:
        said = error.args[0]
        reason = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        raise ValueError(
            f"it is no regular expression of RE2, which has no look-around and no back references: {reason}"
        ) from None
    return pattern


def found(pattern: str, text: str) -> bool:
    """Whether a schema's pattern is found. One that RE2 does not read is an operator's, who may have Python's."""
    try:
        return compiled(compiles(pattern)).search(text) is not None
    except ValueError:
        return re.search(pattern, text) is not None
