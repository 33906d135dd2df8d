"""Input of any size, one record at a time: a JSON array as LLaVA has it, or JSON lines.

Nothing is held but the record at hand and a megabyte of what follows.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from db.curation_records import NewRecord
from db.errors import UsageError
from scheduler.curation.turns import Unreadable, key_of, turns_of, type_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from scheduler.curation.recipe import Input

CHUNK = 1 << 20
LARGEST = 64 << 20  # characters of one record: nobody's instruction is longer, and a file that is no array ends here
EXCERPT = 300
BLANK = " \t\r\n\ufeff"
AFTER = set(BLANK) | {",", "]"}  # what may follow a record of an array


class Reader:
    """The records of a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __iter__(self) -> Iterator[str]:
        """Each record as JSON text; a line that is no JSON as a JSON string that says so.

        Raises `UsageError` where the file cannot be read, or its array breaks off.
        """
        try:
            # bytes that are no UTF-8 become half surrogates, which `validate` drops: they are not silently replaced
            with self.path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
                pieces = iter(lambda: file.read(CHUNK), "")
                first = next((piece for piece in pieces if piece.strip(BLANK)), "")
                array = first.lstrip(BLANK).startswith("[")
                yield from self._array(first, pieces) if array else self._lines(first, pieces)
        except OSError as error:
            raise UsageError(f"Cannot read {self.path}: {error.strerror}.") from None

    def _lines(self, first: str, pieces: Iterator[str]) -> Iterator[str]:
        rest = first
        for piece in pieces:
            *whole, rest = (rest + piece).split("\n") if "\n" in piece else [rest + piece]
            yield from filter(None, map(_line, whole))
            if len(rest) > LARGEST:
                raise UsageError(f"{self.path} has a line of over {LARGEST} characters: these are no JSON lines.")
        yield from filter(None, map(_line, rest.split("\n")))

    def _array(self, first: str, pieces: Iterator[str]) -> Iterator[str]:
        text, at, count = first.lstrip(BLANK)[1:], 0, 0
        ended = False
        while True:
            at = _skip(text, at, BLANK + "," if count else BLANK)
            if at < len(text) and text[at] == "]":
                if any(piece.strip(BLANK) for piece in (text[at + 1 :], *pieces)):
                    raise UsageError(f"{self.path} goes on after its array of {count} records: nothing may follow it.")
                return
            try:
                value, end = json.JSONDecoder(parse_constant=_no_number).raw_decode(text, at)
                if not ended and text[end : end + 1] not in AFTER:
                    raise ValueError  # noqa: TRY301 - a number may go on in the next piece
                said = json.dumps(value, allow_nan=False)
            except (ValueError, RecursionError) as error:
                if ended or len(text) - at > LARGEST:
                    raise UsageError(f"{self.path}, record {count + 1} of its array: not JSON ({error}).") from None
                more = next(pieces, None)
                ended = more is None
                text, at = text[at:] + (more or ""), 0
                continue
            yield said
            count, at = count + 1, end


def _skip(text: str, at: int, blank: str) -> int:
    while at < len(text) and text[at] in blank:
        at += 1
    return at


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _line(line: str) -> str | None:
    """A line as JSON; None where it is blank."""
    stripped = line.strip(BLANK)
    if not stripped:
        return None
    try:
        return json.dumps(json.loads(stripped, parse_constant=_no_number), allow_nan=False)
    except (ValueError, RecursionError) as error:
        return json.dumps(f"not JSON ({error}): {stripped[:EXCERPT]}")


def digest_of_file(path: Path) -> str:
    """The sha256 of a file. Raises `UsageError`."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"Cannot read {path}: {error.strerror}.") from None


class Chosen:
    """Which records of an input are taken: all, or so many, or so many of each type."""

    def __init__(self, names: Input) -> None:
        self._names = names
        self._taken = 0
        self._by_type: dict[str, int] = {}

    def record(self, text: str, position: int) -> NewRecord | None:
        """The record to store, or None where there are enough of its kind."""
        data = json.loads(text)
        try:
            turns = turns_of(data, self._names)
        except Unreadable:
            turns = []
        kind = type_of(data, turns, self._names)
        most = self._names.per_type
        if self.full or (most is not None and self._by_type.get(kind, 0) >= most):
            return None
        self._taken += 1
        self._by_type[kind] = self._by_type.get(kind, 0) + 1
        return NewRecord(position=position, key=key_of(data, turns), type=kind, data=text)

    @property
    def full(self) -> bool:
        """Whether no further record is taken, whatever its type."""
        return self._names.limit is not None and self._taken >= self._names.limit


def is_array(path: Path) -> bool:
    """Whether a file is a JSON array rather than JSON lines. Raises `UsageError`."""
    try:
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            return file.read(CHUNK).lstrip(BLANK).startswith("[")
    except OSError as error:
        raise UsageError(f"Cannot read {path}: {error.strerror}.") from None
