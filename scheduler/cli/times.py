"""Times as people type them: `30d`, `90s`, `2026-12-24T18:00:00Z`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from db.errors import InvalidRequest

UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
LENGTH = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d|w)")
LONGEST_SECONDS = 100 * 366 * 86_400.0


def seconds_of(name: str, text: str) -> float:
    """Seconds of a length of time such as `30d`. Raises `InvalidRequest`."""
    match = LENGTH.fullmatch(text.strip())
    if match is None:
        raise InvalidRequest(f"{name} = {text!r} is no length of time; say for example 90s, 15m, 12h, 30d or 4w.")
    seconds = float(match[1]) * UNITS[match[2]]
    if seconds > LONGEST_SECONDS:
        raise InvalidRequest(f"{name} = {text!r} is over a hundred years.")
    return seconds


def moment_of(name: str, text: str) -> datetime:
    """A moment: a length of time from now, or ISO 8601 with a time zone. Raises `InvalidRequest`, also for the past."""
    if LENGTH.fullmatch(text.strip()):
        return datetime.now(UTC) + timedelta(seconds=seconds_of(name, text))
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise InvalidRequest(
            f"{name} = {text!r} is neither a length of time such as 15m nor a time such as 2026-12-24T18:00:00Z."
        ) from None
    if moment.tzinfo is None:
        raise InvalidRequest(f"{name} = {text!r} has no time zone; add Z or an offset such as +01:00.")
    if moment <= datetime.now(UTC):
        raise InvalidRequest(f"{name} = {text!r} has passed.")
    return moment
