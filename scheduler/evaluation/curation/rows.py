"""Instruction sets as rows of turns, and the part that is kept back: by group, so that nobody trains on its like."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from db.errors import UsageError
from scheduler.curation.reading import Reader
from scheduler.curation.recipe import Input
from scheduler.curation.turns import Turn, Unreadable, captions_of, image_of, key_of, turns_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

ANSWERS = ("output", "answer", "answer_gpt4", "response")  # what sets call the answer, in the order looked for


@dataclass(frozen=True, kw_only=True)
class Row:
    """One record: what is asked and answered, turn by turn. `key` tells what it says, `group` what it is about."""

    key: str
    group: str
    turns: tuple[Turn, ...]  # the questions as a model reads them: with the captions that stand for the image
    record: Mapping[str, Any]

    @property
    def said(self) -> list[list[str]]:
        """Question and answer of every turn."""
        return [[turn.question, turn.answer] for turn in self.turns]

    @property
    def answer_length(self) -> int:
        """Characters of its answers."""
        return sum(len(turn.answer) for turn in self.turns)


@dataclass(frozen=True, kw_only=True)
class InstructionSet:
    """A set in two parts that share no group; `unreadable` records say no turns, or an empty answer."""

    name: str
    train: tuple[Row, ...]
    held_out: tuple[Row, ...]
    unreadable: int
    repeated: int


def read_instructions(path: Path, held_out: float) -> InstructionSet:
    """Read a set and keep a share of its groups back, the same ones on every machine. Raises `UsageError`."""
    found, unreadable, repeated = read_rows(path)
    train = tuple(row for row in found if not is_held_out(row.group, held_out))
    kept_back = tuple(row for row in found if is_held_out(row.group, held_out))
    if len(train) < 2 or len(kept_back) < 2:
        raise UsageError(
            f"{path} leaves {len(train)} rows to train on and {len(kept_back)} to test with; it takes 2 of each."
        )
    return InstructionSet(name=path.stem, train=train, held_out=kept_back, unreadable=unreadable, repeated=repeated)


def read_rows(path: Path) -> tuple[list[Row], int, int]:
    """The rows of a file, how many records are none, and how many repeat one before them."""
    rows: dict[str, Row] = {}
    unreadable = repeated = 0
    for text in Reader(path):
        row = _row(json.loads(text), path)
        if row is None:
            unreadable += 1
        elif row.key in rows:
            repeated += 1
        else:
            rows[row.key] = row
    return list(rows.values()), unreadable, repeated


def is_held_out(group: str, share: float) -> bool:
    """Whether a group belongs to the part that is kept back."""
    return int(hashlib.sha256(group.encode()).hexdigest()[:8], 16) / 16**8 < share


def lines_of(rows: Iterable[Row]) -> str:
    """Rows as JSON lines, in the form in which they came."""
    return "".join(f"{json.dumps(row.record, ensure_ascii=False)}\n" for row in rows)


def _row(record: Any, path: Path) -> Row | None:
    answer = next((name for name in ANSWERS if isinstance(record, dict) and name in record), ANSWERS[0])
    names = Input(file=path, answer=answer)
    try:
        said = turns_of(record, names)
    except Unreadable:
        return None
    if not all(turn.answer.strip() and turn.asked for turn in said):
        return None
    captions = "\n".join(captions_of(record, names))
    turns = tuple(
        Turn(question="\n\n".join(filter(None, (captions, turn.asked))), answer=turn.answer.strip()) for turn in said
    )
    return Row(key=key_of(record, said), group=_group(record, said), turns=turns, record=record)


def _group(record: Mapping[str, Any], said: Sequence[Turn]) -> str:
    """The image where there is one, else the words of the first question, whatever their case and blanks."""
    image = image_of(record)
    return f"image:{image}" if image else f"text:{' '.join(said[0].asked.casefold().split())}"
