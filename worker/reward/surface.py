"""What can be counted in a text without a network: the form of an answer, and what it takes from its instruction."""

from __future__ import annotations

from worker.judges.features import seen
from worker.reward.text import parted


def form_of(text: str) -> dict[str, float]:
    """Features of a rendered text's answer, by name: always the same names."""
    asked, said = parted(text)
    (row,) = seen(asked, [said]).features
    return row
