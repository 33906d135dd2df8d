"""How good choices were, whoever made them: offline arms, or tasks that went through the real queue.

The judge is an oracle here: of the models chosen for an input the best answer counts. What a real judge picked is
measured by giving its winner as the only model.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from scheduler.evaluation.selectors.rows import Row


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a choice: the best score, the chance that the input's best model was among them, the calls."""

    score: float
    best_among: float
    calls: float


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean over inputs and its standard error."""

    mean: float
    se: float


@dataclass(frozen=True, kw_only=True)
class Figures:
    """An arm at one k."""

    score: Mean
    best_among: Mean
    calls: float
    rows: int


def outcome(row: Row, chosen: Sequence[str]) -> Outcome:
    """What comes of these models for this input. Where several are as good as the best, each of them is the best."""
    score = max(row.scores[model] for model in chosen)
    return Outcome(score=score, best_among=float(score >= max(row.scores.values())), calls=len(chosen))


def expected_at_random(row: Row, k: int) -> Outcome:
    """What is to be expected of k models drawn at random, all of them distinct; exact, without a draw."""
    scores = sorted(row.scores.values(), reverse=True)
    draws = math.comb(len(scores), k)
    # The best of k is the one at `place` where all the others come after it.
    score = sum(value * math.comb(len(scores) - place - 1, k - 1) for place, value in enumerate(scores)) / draws
    others = len(scores) - scores.count(scores[0])
    return Outcome(score=score, best_among=1 - math.comb(others, k) / draws, calls=k)


class Tally:
    """Outcomes by arm and k. An input that comes several times (in other splits) counts once, with its mean."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, int], dict[str, list[Outcome]]] = defaultdict(lambda: defaultdict(list))

    def add(self, arm: str, k: int, row: str, result: Outcome) -> None:
        """Count an outcome of an arm for an input."""
        self._seen[arm, k][row].append(result)

    @property
    def arms(self) -> list[str]:
        """The arms, in the order in which they came."""
        return list(dict.fromkeys(arm for arm, _ in self._seen))

    def sizes(self, arm: str) -> list[int]:
        """The k of an arm."""
        return sorted(k for name, k in self._seen if name == arm)

    def figures(self, arm: str, k: int) -> Figures:
        """How good an arm was."""
        seen = self._seen[arm, k].values()
        return Figures(
            score=mean_of([statistics.fmean(one.score for one in ones) for ones in seen]),
            best_among=mean_of([statistics.fmean(one.best_among for one in ones) for ones in seen]),
            calls=statistics.fmean(statistics.fmean(one.calls for one in ones) for ones in seen),
            rows=len(seen),
        )

    def difference(self, arm: str, other: str, k: int) -> Mean:
        """By how much an arm's score is over another's at the same k, input by input."""
        ours, theirs = self._scores(arm, k), self._scores(other, k)
        return mean_of([ours[row] - theirs[row] for row in ours])

    def kept(self, arm: str, k: int, whole: tuple[str, int]) -> Mean:
        """The share of another arm's score that an arm keeps: a ratio of means, its error by the delta method."""
        ours, theirs = self._scores(arm, k), self._scores(*whole)
        base = statistics.fmean(theirs.values())
        ratio = statistics.fmean(ours.values()) / base
        return Mean(mean=ratio, se=mean_of([ours[row] - ratio * theirs[row] for row in ours]).se / abs(base))

    def _scores(self, arm: str, k: int) -> dict[str, float]:
        return {row: statistics.fmean(one.score for one in ones) for row, ones in self._seen[arm, k].items()}


def mean_of(values: Sequence[float]) -> Mean:
    """Mean and standard error."""
    spread = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return Mean(mean=statistics.fmean(values), se=spread)
