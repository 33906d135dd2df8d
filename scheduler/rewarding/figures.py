"""How well rewards agree with people, and against what: pairs of a group, and groups against each other."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from scheduler.evaluation.judges.metrics import group_interval, mean
from worker.judges.fitting import calibration
from worker.reward.pairs import margins, right

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker.reward.pairs import Group

KEPT = 0.3  # share of groups that curation keeps
SCALES = tuple(0.05 * 1.09**step for step in range(60))  # .05 to 8

#: Rewards of each text, per group id.
Rewards = dict[str, list[float]]


def hits(groups: Sequence[Group], rewards: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, float]]:
    """Per group with pairs: how many are right, a draw counting one half, and how many there are."""
    return {
        group.id: (sum(map(right, margins(group, rewards[group.id]))), float(len(group.pairs)))
        for group in groups
        if group.pairs
    }


def accuracy(found: Mapping[str, tuple[float, float]]) -> float:
    """Share of pairs that are right."""
    return sum(above for above, _ in found.values()) / max(1.0, sum(below for _, below in found.values()))


def longest(groups: Sequence[Group]) -> Rewards:
    """The baseline that prefers the longer text."""
    return {group.id: [float(len(text)) for text in group.texts] for group in groups}


def figures(groups: Sequence[Group], rewards: Rewards, others: Mapping[str, Rewards]) -> dict[str, Any]:
    """Pairwise accuracy with its interval, the same against `others` pair by pair, and figures between groups."""
    mine = hits(groups, rewards)
    rivals = {name: hits(groups, found) for name, found in {"longest": longest(groups), **others}.items()}
    rivals["random"] = {group: (below / 2, below) for group, (_, below) in mine.items()}
    return {
        "pairwise_accuracy": accuracy(mine),
        "interval": _interval(mine),
        "pairs": int(sum(below for _, below in mine.values())),
        "groups": len(mine),
        "longest": accuracy(rivals["longest"]),
        "random": 0.5,
        "against": {name: _against(mine, theirs) for name, theirs in rivals.items()},
        **_between(groups, rewards),
    }


def _against(mine: Mapping[str, tuple[float, float]], theirs: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    paired = {group: (above - theirs[group][0], below) for group, (above, below) in mine.items()}
    return {"accuracy": accuracy(theirs), "difference": accuracy(paired), "interval": _interval(paired)}


def _interval(found: Mapping[str, tuple[float, float]]) -> list[float]:
    return list(group_interval(found) or (accuracy(found),) * 2)


def _between(groups: Sequence[Group], rewards: Rewards) -> dict[str, Any]:
    """Groups by their mean: does the best-rewarded part have the better human scores? None without human scores."""
    scored = [group for group in groups if group.scores]
    names = ("spearman_between_images", "kept_human_score", "kept_random", "kept_longest", "kept_oracle")
    if len(scored) < 3:
        return dict.fromkeys(names)
    human = [mean(group.scores or ()) for group in scored]
    mine = [mean(rewards[group.id]) for group in scored]
    lengths = [mean([len(text) for text in group.texts]) for group in scored]
    values = (spearman(mine, human), _kept(mine, human), mean(human), _kept(lengths, human), _kept(human, human))
    return dict(zip(names, values, strict=True))


def _kept(by: Sequence[float], human: Sequence[float]) -> float:
    order = sorted(range(len(by)), key=lambda place: (-by[place], place))
    return mean([human[place] for place in order[: max(1, round(KEPT * len(by)))]])


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Rank correlation, equal values sharing their mean rank; 0 where one side is all the same."""
    ranks = [_ranks(values) for values in (one, other)]
    centred = [[value - mean(values) for value in values] for values in ranks]
    spread = math.sqrt(math.prod(sum(value * value for value in values) for values in centred))
    return sum(a * b for a, b in zip(*centred, strict=True)) / spread if spread else 0.0


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(range(len(values)), key=lambda place: values[place])
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        stop = start
        while stop < len(order) and values[order[stop]] == values[order[start]]:
            stop += 1
        for place in order[start:stop]:
            ranks[place] = (start + stop - 1) / 2
        start = stop
    return ranks


def spread(rewards: Rewards) -> float:
    """By how much the texts of a group differ: the root of the mean squared distance from their group's mean."""
    away = [value - mean(own) for own in rewards.values() for value in own]
    return math.sqrt(mean([value * value for value in away])) or 1.0


def added(one: Rewards, share: float, other: Rewards, other_share: float) -> Rewards:
    """The sum of two models' rewards."""
    return {
        group: [share * a + other_share * b for a, b in zip(own, other[group], strict=True)]
        for group, own in one.items()
    }


def fitted_scale(groups: Sequence[Group], rewards: Rewards) -> float:
    """What raw held-out rewards must be multiplied with, so that sigma of a difference is a chance."""
    ahead = [margin for group in groups for margin in margins(group, rewards[group.id])]
    return min(SCALES, key=lambda scale: sum(_surprise(scale * margin) for margin in ahead))


def _surprise(margin: float) -> float:
    return math.log1p(math.exp(-abs(margin))) + max(0.0, -margin)


def calibrated(groups: Sequence[Group], rewards: Rewards) -> dict[str, Any]:
    """Brier score and reliability of rewards in log odds."""
    ahead = [(margin, group.id) for group in groups for margin in margins(group, rewards[group.id])]
    found = calibration([margin for margin, _ in ahead], [group for _, group in ahead])
    return {"brier": found["brier"], "reliability": found["reliability"]}
