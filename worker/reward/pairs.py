"""What a reward model learns from: groups of texts, and which of two texts of a group is the better one."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, kw_only=True)
class Group:
    """Texts about one thing (an image, an instruction), as `worker.reward.text.rendered` makes them.

    `pairs` are (better, worse) by place, never across groups. `scores` are people's, in 0..1, where there are any.
    """

    id: str
    texts: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]
    scores: tuple[float, ...] | None = None


def scored_group(id_: str, texts: Sequence[str], scores: Sequence[float]) -> Group:
    """A group whose pairs are those with different scores: a tie says nothing."""
    pairs = [
        (one, other) if scores[one] > scores[other] else (other, one)
        for one, other in combinations(range(len(texts)), 2)
        if scores[one] != scores[other] and texts[one] != texts[other]
    ]
    return Group(id=id_, texts=tuple(texts), pairs=tuple(pairs), scores=tuple(scores))


def paired_group(id_: str, preferred: Sequence[tuple[str, str]]) -> Group:
    """A group of (better, worse) texts; equal texts are one, and what is said both ways counts both ways."""
    places = {text: place for place, text in enumerate(dict.fromkeys(text for pair in preferred for text in pair))}
    pairs = [(places[better], places[worse]) for better, worse in preferred if better != worse]
    return Group(id=id_, texts=tuple(places), pairs=tuple(pairs))


def margins(group: Group, rewards: Sequence[float]) -> list[float]:
    """By how much each better text is ahead of the worse one; below 0 where the rewards are wrong."""
    return [rewards[better] - rewards[worse] for better, worse in group.pairs]


def right(margin: float) -> float:
    """What a pair counts: 1 where the better text is ahead, half for a draw."""
    return 1.0 if margin > 0 else 0.5 * (margin == 0)
