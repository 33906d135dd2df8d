"""How pages write times, lengths and figures: the filters of the templates."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from scheduler.why import span


def ago(moment: str | datetime) -> str:
    """How long ago a time was: `12 s`, `4 min`, `3 d`."""
    then = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return span((datetime.now(UTC) - then).total_seconds())


def stamp(moment: str | datetime) -> str:
    """A time in full: `2026-11-26 02:15:09 UTC`."""
    then = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return f"{then.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def seconds(value: float | None) -> str:
    """Seconds that something took: `40 ms`, `1.2 s`, `3 min`; nothing where it is not known."""
    if value is None:
        return ""
    if value < 1:
        return f"{1000 * value:.0f} ms"
    return f"{value:.1f} s" if value < 60 else span(value)


def number(value: float | None, digits: int = 3) -> str:
    """A figure with so many digits behind the point, none where it is whole, and a minus that is one."""
    if value is None:
        return ""
    said = f"{value:.0f}" if value == int(value) else f"{value:.{digits}f}"
    return said.replace("-", "\N{MINUS SIGN}")


def size(value: int | None) -> str:
    """How many bytes: `3.1 MB`; nothing where it is not known."""
    if value is None:
        return ""
    for unit, name in ((1_000_000, "MB"), (1_000, "kB")):
        if value >= unit:
            return f"{value / unit:.1f} {name}"
    return f"{value} byte{'' if value == 1 else 's'}"


def short(text: str | None, length: int = 120) -> str:
    """The beginning of a text, on one line."""
    line = " ".join((text or "")[: 4 * length].split())
    return line if len(line) <= length else line[: length - 1] + "…"


FILTERS: dict[str, Callable[..., Any]] = {
    "ago": ago,
    "number": number,
    "seconds": seconds,
    "short": short,
    "size": size,
    "stamp": stamp,
}
