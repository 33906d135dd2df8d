"""How many models a subtask needs (SelectLLM, arXiv 2408.08545): no more than it takes to have the right answer.

k grows only while the predicted chance that the right answer is among the chosen is below a target. The chance is read
from joint outcomes of the run log's entries that are like the input, so that models that fail together do not count
twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from scheduler.selectors.base import Chosen, Situation

#: Joint outcomes say something from this many entries on; before, the track record does.
ENOUGH_ENTRIES = 20


def enough(chosen: Sequence[Chosen], situation: Situation, target: float) -> int:
    """How many of the chosen, from the first, are needed: 1 .. len(chosen), or 0 of none.

    `target` (0..1) is the share of the chance of all the chosen that the first ones must reach: where even all of them
    are hardly ever right, asking more of them is no better. From the run log where it holds ENOUGH_ENTRIES; else from
    the track record, as if each model were the best one as often as its strength says; all of them where nothing is
    known of one.
    """
    return first_to_reach(predicted(chosen, situation), target) or len(chosen)


def predicted(chosen: Sequence[Chosen], situation: Situation) -> list[float]:
    """For each beginning of the chosen, the chance that the right answer is among those; empty where none is known."""
    names = [one.model.name for one in chosen]
    return _from_log(names, situation) or _from_strengths(names, situation)


def first_to_reach(chances: Sequence[float], target: float) -> int:
    """How many it takes to reach that share of the last chance; 0 of none."""
    return next((place for place, chance in enumerate(chances, start=1) if chance >= target * chances[-1]), 0)


def _from_log(names: Sequence[str], situation: Situation) -> list[float]:
    log = situation.history.log
    if not names or len(log.entries) < ENOUGH_ENTRIES or any(name not in log.means for name in names):
        return []
    return log.coverage(names, situation.text)


def _from_strengths(names: Sequence[str], situation: Situation) -> list[float]:
    strengths = situation.history.strengths
    if not names or any(name not in strengths.games for name in names):
        return []
    odds = [math.exp(strengths.of(name)[0]) for name in names]
    covered, total = 0.0, []
    for value in odds:
        covered += value / sum(odds)
        total.append(covered)
    return total
