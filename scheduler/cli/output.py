"""How commands print: tables for people, JSON for programs."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Collection, Iterable
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
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

#: what moves the cursor, retitles the window, turns the direction of writing: C0 but line feed and tab, C1, bidi
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
C1 = re.compile("[\x7f-\x9f]")  # what JSON does not escape of them
UNFOLDED = 10_000  # columns of what is no terminal: programs read lines
FOLDED = 12  # columns that a folded column of a table has at least


class SafeConsole(Console):
    """A console that writes no control characters but its own, and folds lines on a terminal only."""

    @property
    def size(self) -> ConsoleDimensions:
        """See rich."""
        if self.is_terminal or "COLUMNS" in os.environ:
            return super().size
        return ConsoleDimensions(UNFOLDED, 25)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        self._width, self._height = new_size

    def on_broken_pipe(self) -> None:
        """See rich, which would end the process: `bakeoff up` works on unread, and `main` ends the rest."""
        self._buffer.clear()
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """See rich; it is the last wall, behind `harmless` of each text, which keeps columns straight."""
        for segment in super().render(renderable, options):
            if segment.control is None and CONTROLS.search(segment.text):
                yield Segment(harmless(segment.text), segment.style)
            else:
                yield segment


console = SafeConsole(highlight=False, markup=False)  # a request may say [/b]
errors = SafeConsole(stderr=True, highlight=False, markup=False)  # progress and remarks: what no program reads


def is_live(screen: Console) -> bool:
    """Whether lines can be drawn anew there: a terminal, and none that only types on."""
    return screen.is_terminal and not screen.is_dumb_terminal


def print_json(value: Any) -> None:
    """One JSON document on standard output, times and ids as text."""
    print(_dumped(value, indent=2))


def json_line(value: Any) -> str:
    """A JSON document on one line."""
    return _dumped(value, indent=None)


def _dumped(value: Any, *, indent: int | None) -> str:
    text = json.dumps(_json_ready(value), indent=indent, ensure_ascii=False, allow_nan=False)
    return C1.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


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
    return CONTROLS.sub("\ufffd", text)


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


class HouseTable(Table):
    """A table whose cells are harmless, and which folds names rather than cutting them off."""

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        """See rich."""
        super().add_row(*(harmless(cell) if isinstance(cell, str) else cell for cell in cells), **options)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = [FOLDED if not column.no_wrap else _longest(column.cells) + 1 for column in self.columns]
        if sum(wide) > options.max_width:
            for column in self.columns:
                column.no_wrap = False
        yield from super().__rich_console__(console, options)


def _longest(cells: Iterable[RenderableType]) -> int:
    return max((cell_len(str(cell)) for cell in cells), default=0)


def table(*columns: str, wrap: Collection[str] | None = None) -> Table:
    """An empty table in the style of the house.

    Only the columns in `wrap` (default: the last two) fold on a narrow terminal. Names, ids and states stay whole, to
    be read and copied, unless they alone are wider than the terminal.
    """
    foldable = columns[-2:] if wrap is None else wrap
    out = HouseTable(header_style="bold", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        out.add_column(column, overflow="fold", no_wrap=column not in foldable)
    return out
