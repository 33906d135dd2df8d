"""A name that nobody knows, and the known ones that look like it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str], *, alike: float = 0.6) -> str:
    """` Did you mean 'alpha'?`, to end an error with; empty where nothing looks like the name."""
    lower = {one.lower(): one for one in known}
    found = [lower[one] for one in difflib.get_close_matches(name.lower()[:200], lower, n=2, cutoff=alike)]
    return f" Did you mean {' or '.join(map(repr, found))}?" if found else ""
