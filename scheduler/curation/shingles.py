"""What near duplicates and leaks are measured by: the words of a text, lower case, and their runs.

The likeness of two texts is the Jaccard index of their sets of runs of three words: what they share, divided by what
they have together. A text of fewer words is one run.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

RUN = 3
_WORD = re.compile(r"\w+")


def words_of(text: str) -> list[str]:
    """The words of a text, lower case, without punctuation."""
    return _WORD.findall(text.lower())


def runs_of(words: Sequence[str], length: int = RUN) -> set[str]:
    """Every run of so many words."""
    if len(words) <= length:
        return {" ".join(words)} if words else set()
    return {" ".join(words[start : start + length]) for start in range(len(words) - length + 1)}


def jaccard(one: set[str], other: set[str]) -> float:
    """0 for nothing in common, 1 for the same."""
    together = len(one | other)
    return len(one & other) / together if together else 1.0


def hashed(text: str) -> int:
    """A whole number of 64 bits, with sign, as Postgres has them; the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big", signed=True)
