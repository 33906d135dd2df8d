"""Where a text differs from another one, word by word; a single word letter by letter."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

Kind = Literal["same", "ins", "del"]

#: A word, a space, a sign; scripts without spaces (`DENSE`) go letter by letter.
TOKEN = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+|\s+|[\s\S]"
)
MOST_TOKENS = 3_000  # of a text: the comparison takes the square of it
ALIKE = 0.35  # below it, marks would cover everything and show nothing


@dataclass(frozen=True)
class Piece:
    """A part of a text: in both (`same`), in this one only (`ins`), in the other one only (`del`)."""

    kind: Kind
    text: str


@dataclass(frozen=True, kw_only=True)
class Marked:
    """A text with its differences, or the sentence why they are not marked."""

    pieces: tuple[Piece, ...]
    note: str = ""


def marked(text: str, base: str) -> Marked:
    """A text, with what it has and what it lacks against another one."""
    plain = (Piece("same", text),)
    if text == base:
        return Marked(pieces=plain, note="the same, word for word")
    ours, theirs = _tokens(text, base)
    if max(len(ours), len(theirs)) > MOST_TOKENS:
        return Marked(pieces=plain, note="too long to be compared word by word")
    matcher = SequenceMatcher(None, theirs, ours, autojunk=False)
    if _alike(matcher, ours, theirs) < ALIKE:
        return Marked(pieces=plain, note="differs throughout")
    pieces: list[Piece] = []
    for operation, start, end, our_start, our_end in matcher.get_opcodes():
        if operation == "equal":
            pieces.append(Piece("same", "".join(ours[our_start:our_end])))
            continue
        if end > start:
            pieces.append(Piece("del", "".join(theirs[start:end])))
        if our_end > our_start:
            pieces.append(Piece("ins", "".join(ours[our_start:our_end])))
    return Marked(pieces=tuple(pieces))


def _tokens(text: str, base: str) -> tuple[Sequence[str], Sequence[str]]:
    if len(text.split()) <= 1 and len(base.split()) <= 1:
        return text, base
    return TOKEN.findall(text), TOKEN.findall(base)


def _alike(matcher: SequenceMatcher[str], ours: Sequence[str], theirs: Sequence[str]) -> float:
    """The share of both texts' words that they have in common, in order; spaces say nothing."""
    common = sum(
        not token.isspace()
        for start, _, size in matcher.get_matching_blocks()
        for token in theirs[start : start + size]
    )
    both = sum(not token.isspace() for token in (*ours, *theirs))
    return 2 * common / both if both else 1.0
