"""Copies of a text that are worse for certain: words shuffled, left out, or said twice.

A pair of a text and its corrupted copy teaches a reward model what no pair of two good texts shows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.reward.text import parted, rendered

if TYPE_CHECKING:
    import random

SHARE_DROPPED = 0.3  # of the words, at least one
DOUBLED = 3  # words said twice at one place, and again for every twelve words of the text


def corrupted(text: str, dice: random.Random) -> str | None:
    """A worse copy of a rendered text; the instruction stays as it is. None for a text too short to be made worse."""
    asked, said = parted(text)
    words = said.split()
    if len(words) < 3:
        return None
    worse = dice.choice((_shuffled, _dropped, _doubled))(words, dice)
    return rendered(asked, " ".join(worse)) if worse != words else None


def _shuffled(words: list[str], dice: random.Random) -> list[str]:
    return dice.sample(words, len(words))


def _dropped(words: list[str], dice: random.Random) -> list[str]:
    gone = set(dice.sample(range(len(words)), max(1, round(SHARE_DROPPED * len(words)))))
    return [word for place, word in enumerate(words) if place not in gone]


def _doubled(words: list[str], dice: random.Random) -> list[str]:
    said = list(words)
    for _ in range(1 + len(words) // 12):
        start = dice.randrange(max(1, len(said) - DOUBLED))
        said[start:start] = said[start : start + DOUBLED]
    return said
