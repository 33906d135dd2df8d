"""Which texts of a collection are like a given one: TF-IDF cosine over an inverted index, in pure Python.

The scheduler's process loads no numpy and no model, and choosing must cost little: a query reads only the postings of
its own rarer words.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from heapq import nlargest

MAX_CHARS = 4000  # of a text that are read: what a request is about stands at its beginning
MAX_TERMS = 48  # of a query, the most telling ones
COMMON = 0.2  # words of more than this share of the texts say little about any; in a large log they are not looked up
LARGE = 500  # texts

_WORD = re.compile(r"[^\W\d_]+|\d+")


def terms_of(text: str) -> Counter[str]:
    """Words of a text, without case; all numbers are one word."""
    return Counter("0" if word[0].isdigit() else word for word in _WORD.findall(text[:MAX_CHARS].lower()))


class Nearness:
    """An index over texts, which are known by their place in the sequence."""

    def __init__(self, texts: Sequence[str]) -> None:
        counted = [terms_of(text) for text in texts]
        documents = Counter(term for terms in counted for term in terms)
        ceiling = len(texts) if len(texts) <= LARGE else COMMON * len(texts)
        self._rarity = {
            term: math.log((1 + len(texts)) / (1 + count)) for term, count in documents.items() if count <= ceiling
        }
        self._postings: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for place, terms in enumerate(counted):
            for term, weight in self._unit(terms).items():
                self._postings[term].append((place, weight))

    def __call__(self, text: str, limit: int) -> list[tuple[int, float]]:
        """Places of the texts most like this one with the cosine (over 0), most alike first."""
        found: dict[int, float] = {}
        asked = self._unit(terms_of(text))
        for term, weight in nlargest(MAX_TERMS, asked.items(), key=lambda pair: pair[1]):
            for place, other in self._postings.get(term, ()):
                found[place] = found.get(place, 0.0) + weight * other
        return nlargest(limit, found.items(), key=lambda pair: (pair[1], -pair[0]))

    def _unit(self, terms: Counter[str]) -> dict[str, float]:
        weights = {
            term: (1.0 + math.log(count)) * self._rarity[term] for term, count in terms.items() if term in self._rarity
        }
        length = math.sqrt(sum(weight * weight for weight in weights.values()))
        return {term: weight / length for term, weight in weights.items()} if length else {}
