"""Where a text differs from another one, word by word; where spelling counts, letter by letter."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

Kind = Literal["same", "ins", "del"]

#: A word or a sign with the space behind it; scripts without spaces (`DENSE`) go letter by letter.
DENSE = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
TOKEN = re.compile(rf"^\s+|(?:[{DENSE}]|[^\W{DENSE}]+|[^\w\s])\s*")
MOST_TOKENS = 5_000  # of a text
MOST_LETTERS = 300  # their comparison may take the cube of it
ALIKE, SPELLED_ALIKE = 0.35, 0.6  # below it, marks would cover everything and show nothing


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


def marked(text: str, base: str, *, letters: bool = False) -> Marked:
    """A text, with what it has and what it lacks against another one; of spaces, those of the text itself.

    `letters`: letter by letter, where the texts are short enough for that.
    """
    plain = (Piece("same", text),)
    if text == base:
        return Marked(pieces=plain, note="the same, word for word")
    single = len(text.split()) <= 1 and len(base.split()) <= 1
    spelled = (letters or single) and max(len(text), len(base)) <= MOST_LETTERS
    ours, theirs = (list(text), list(base)) if spelled else (TOKEN.findall(text), TOKEN.findall(base))
    if max(len(ours), len(theirs)) > MOST_TOKENS:
        return Marked(pieces=plain, note="too long to be compared")
    # of a long text, words that are everywhere are passed over: one word, repeated, would take minutes
    matcher = SequenceMatcher(None, _keys(theirs), _keys(ours), autojunk=not spelled)
    if matcher.ratio() < (SPELLED_ALIKE if spelled else ALIKE):
        return Marked(pieces=plain, note="differs throughout")
    pieces = _pieces(matcher, ours, theirs)
    return Marked(pieces=pieces, note="" if any(one.kind != "same" for one in pieces) else "differs in spaces only")


def _pieces(matcher: SequenceMatcher[str], ours: Sequence[str], theirs: Sequence[str]) -> tuple[Piece, ...]:
    pieces: list[Piece] = []
    for operation, start, end, our_start, our_end in matcher.get_opcodes():
        lacks, has = "".join(theirs[start:end]), "".join(ours[our_start:our_end])
        if operation == "equal":
            pieces.append(Piece("same", has))
            continue
        if not has and start and theirs[start - 1][-1].isspace() and not ours[our_start - 1][-1].isspace():
            lacks = f" {lacks.rstrip()}"  # the space before it is lacking, too
        bare = has.rstrip() or has  # the space behind a change is none
        pieces.append(Piece("del", lacks.rstrip() if has else lacks))
        pieces.append(Piece("ins", bare))
        pieces.append(Piece("same", has[len(bare) :]))
    return tuple(piece for piece in pieces if piece.text)


def _keys(tokens: Sequence[str]) -> list[str]:
    """Tokens as they are compared: without the space behind them, unless that is all there is."""
    return [token.rstrip() or " " for token in tokens]
