"""How commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Collection
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from worker.cleaning import clean_json

COLOURS = {
    "done": "green",
    "ready": "green",
    "active": "green",
    "failed": "red",
    "error": "red",
    "dead": "red",
    "broken": "red",
    "expired": "yellow",
    "cancelled": "yellow",
    "skipped": "yellow",
    "suspended": "red",
}

console = Console(highlight=False, markup=False)  # a request may say [/b]
errors = Console(stderr=True, highlight=False, markup=False)  # progress and remarks: what no program reads


def is_live(screen: Console) -> bool:
    """Whether lines can be drawn anew there: a terminal, and none that only types on."""
    return screen.is_terminal and not screen.is_dumb_terminal


def print_json(value: Any) -> None:
    """One JSON document on standard output, times and ids as text."""
    print(json.dumps(_json_ready(value), indent=2, ensure_ascii=False, allow_nan=False))


def json_line(value: Any) -> str:
    """A JSON document on one line."""
    return json.dumps(_json_ready(value), ensure_ascii=False, allow_nan=False)


def _json_ready(value: Any) -> Any:
    """Bytes as hexadecimal digits, then whatever JSON does not know as text, and numbers that are none as null."""
    if isinstance(value, dict):
        return {key: _json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_ready(item) for item in value]
    return value.hex() if isinstance(value, bytes) else clean_json(value)


def state(status: str) -> Text:
    """A status in its colour."""
    return Text(status, style=COLOURS.get(status, "cyan"))


def harmless(text: str) -> str:
    """A text whose control characters cannot move the cursor, retitle the window or worse."""
    return "".join("\ufffd" if unicodedata.category(c) == "Cc" and c not in "\n\t" else c for c in text)


def short(text: str | None, length: int = 60) -> str:
    """The beginning of a text on one line."""
    line = harmless(" ".join((text or "").split()))
    return line if len(line) <= length else line[: length - 1] + "…"


def seconds(value: float | None) -> str:
    """Seconds for people."""
    if value is None:
        return ""
    if value < 10:
        return f"{value:.2f} s"
    return f"{value:.0f} s" if value < 600 else f"{value / 60:.0f} min"


def table(*columns: str, wrap: Collection[str] | None = None) -> Table:
    """An empty table in the style of the house.

    Only the columns in `wrap` (default: the last two) fold on a narrow terminal. Names, ids and states stay whole, to
    be read and copied.
    """
    foldable = columns[-2:] if wrap is None else wrap
    out = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        out.add_column(column, overflow="fold", no_wrap=column not in foldable)
    return out
