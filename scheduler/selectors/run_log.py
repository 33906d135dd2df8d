"""The run log of a capability: what was asked before, and how good each model that tried was at it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from scheduler.selectors.nearness import Nearness

NEIGHBOURS = 40
#: An entry's weight is its cosine to this power: texts that share a few words count little.
SHARPNESS = 4.0
#: What is known of a model everywhere weighs as much as this many entries with the very same text. On published scores
#: less steadiness follows chance: a few hundred entries that are hardly alike say nothing about the input.
STEADINESS = 10.0
SAMPLE = 500  # entries, the first ones, that say how often models are right together anywhere
#: A model's mean is drawn towards that of all models as if it had this many entries of theirs.
DOUBT = 2.0


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A past subtask: its task's request, and 0..1 per model that tried (1: as good as the best, 0: failed)."""

    text: str
    scores: Mapping[str, float]


class RunLog:
    """Entries, and what can be read from them. What is derived is made when it is first asked for."""

    def __init__(self, entries: Sequence[Entry] = ()) -> None:
        self.entries = tuple(entries)
        self._covered: dict[tuple[str, ...], list[float]] = {}

    @cached_property
    def _index(self) -> Nearness:
        return Nearness([entry.text for entry in self.entries])

    @cached_property
    def means(self) -> Mapping[str, float]:
        """Mean score of each model that tried, drawn towards that of all models."""
        gathered: dict[str, list[float]] = defaultdict(list)
        for entry in self.entries:
            for model, score in entry.scores.items():
                gathered[model].append(score)
        if not gathered:
            return {}
        everybody = sum(map(sum, gathered.values())) / sum(map(len, gathered.values()))
        return {model: (sum(scores) + DOUBT * everybody) / (len(scores) + DOUBT) for model, scores in gathered.items()}

    def prepare(self) -> None:
        """Derive now what is otherwise derived when the first subtask asks for it."""
        _ = self._index, self.means

    def near(self, text: str, limit: int = NEIGHBOURS) -> list[tuple[Entry, float]]:
        """The entries most like a text, with their weight, the heaviest first."""
        if not text or not self.entries:
            return []
        return [(self.entries[place], cosine**SHARPNESS) for place, cosine in self._index(text, limit)]

    def expected(self, models: Iterable[str], text: str) -> dict[str, float]:
        """The score to expect of each of these models that ever tried: near entries', drawn towards its mean."""
        near = self.near(text)
        out = {}
        for model in models:
            if model in self.means:
                known = [(entry.scores[model], weight) for entry, weight in near if model in entry.scores]
                total = sum(score * weight for score, weight in known) + STEADINESS * self.means[model]
                out[model] = total / (sum(weight for _, weight in known) + STEADINESS)
        return out

    def coverage(self, models: Sequence[str], text: str) -> list[float]:
        """For each beginning of `models`: the chance that the right answer is among those, from near entries.

        Joint outcomes: two models that are right on the same entries cover no more than one. Near entries are drawn
        towards all of them. A model that did not try an entry is taken to be right as often as its mean says; one that
        never tried anything, never.
        """
        key = tuple(models)
        if key not in self._covered:
            if len(self._covered) > 1000:
                self._covered.clear()
            self._covered[key] = self._mean_covered(key, [(entry, 1.0) for entry in self.entries[:SAMPLE]])
        everywhere = self._covered[key]
        near = self.near(text)
        weight = sum(weight for _, weight in near)
        if not weight:
            return list(everywhere)
        here = self._mean_covered(key, near)
        return [
            (local * weight + overall * STEADINESS) / (weight + STEADINESS)
            for local, overall in zip(here, everywhere, strict=True)
        ]

    def _mean_covered(self, models: Sequence[str], weighted: Sequence[tuple[Entry, float]]) -> list[float]:
        total = sum(weight for _, weight in weighted)
        sums = [0.0] * len(models)
        for entry, weight in weighted:
            best, missed = 0.0, 1.0
            for place, model in enumerate(models):
                score = entry.scores.get(model)
                if score is None:
                    missed *= 1.0 - self.means.get(model, 0.0)
                else:
                    best = max(best, score)
                sums[place] += weight * (1.0 - (1.0 - best) * missed)
        return [value / total for value in sums] if total else sums
