"""How often a judge prefers the better of two answers, and whether it still does when they change places."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from scheduler.evaluation.judges.metrics import by_group, counted, group_interval, mean
from scheduler.evaluation.judges.raw import raw_choices
from worker.judges.fitting import calibration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scheduler.evaluation.judges.bench import Asked
    from scheduler.evaluation.judges.cases import Case
    from worker.judges import Decision

CLOSE = 1e-9
SUREST = 1 - 1e-9


def judge_figures(asked: Sequence[Asked]) -> dict[str, Any]:
    """Figures over the untied pairs. A judge's tie counts one half, a failed judge counts as wrong."""
    groups = [one.case.row.group for one in asked]
    right = [_outcome(one) for one in asked]
    tied = [one.decision is not None and _is_tie(one.decision) for one in asked]
    shorter = [value for one, value in zip(asked, right, strict=True) if _shorter_is_better(one.case)]
    settled = [value for value, tie in zip(right, tied, strict=True) if not tie]
    consistent = _consistency(asked)
    short_groups = [one.case.row.group for one in asked if _shorter_is_better(one.case)]
    return {
        "accuracy": mean(right),
        "accuracy_interval": group_interval(by_group(groups, right, [1.0] * len(right))),
        "decisive": 1 - mean([float(tie) for tie in tied]),
        "accuracy_decisive": mean(settled),
        "accuracy_shorter_better": mean(shorter),
        "accuracy_shorter_better_interval": group_interval(by_group(short_groups, shorter, [1.0] * len(shorter))),
        "order_consistency": mean(consistent) if consistent else None,
        **_against_one_order(asked, right),
        "unparseable": mean([float(one.decision is None) for one in asked]),
        "longest": mean([1.0 - _shorter_is_better(one.case) for one in asked]),
        **_calibration(asked, right),
        "calls": counted([one.calls for one in asked]),
        "asked_model": sum(one.decision is not None and one.decision.model is not None for one in asked),
        "support": len(asked),
        "support_shorter_better": len(shorter),
        "groups": len(set(groups)),
    }


def _better(case: Case) -> str:
    return max(case.keys, key=lambda key: case.row.scores[key])


def _shorter_is_better(case: Case) -> bool:
    lengths = {key: len(case.row.answers[key].strip()) for key in case.keys}
    return lengths[_better(case)] < max(lengths.values())


def _is_tie(decision: Decision) -> bool:
    scores = [decision.scores.get(answer, 0.0) for answer in decision.ranking]
    return abs(scores[0] - scores[1]) <= CLOSE


def _outcome(one: Asked) -> float:
    if one.decision is None:
        return 0.0
    if _is_tie(one.decision):
        return 0.5
    return float(one.case.key(one.decision.ranking[0]) == _better(one.case))


def _consistency(asked: Sequence[Asked]) -> list[float]:
    """Whether the raw replies in both orders name the same answer; nothing where a text stood alone.

    Of a judge that keeps no raw replies: whether its decision survives the ranks turned round.
    """
    raw = [float(len(set(named)) == 1) for one in asked if one.decision and (named := raw_choices(one.decision))]
    return raw or [
        float(one.swapped.ranking[0] == one.decision.ranking[0])
        for one in asked
        if one.decision is not None and one.swapped is not None
    ]


def _calibration(asked: Sequence[Asked], right: Sequence[float]) -> dict[str, Any]:
    """How far the confidence of decisions can be believed; nothing of a judge that claims none."""
    margins, groups = [], []
    for one, value in zip(asked, right, strict=True):
        if one.decision is not None and one.decision.confidence is not None:
            sure = min(SUREST, max(1 - SUREST, one.decision.confidence))
            margins.append(math.log(sure / (1 - sure)) * (2 * value - 1))
            groups.append(one.case.row.group)
    if not margins:
        return {"brier": None, "reliability": []}
    found = calibration(margins, groups)
    return {"brier": found["brier"], "reliability": found["reliability"]}


def _against_one_order(asked: Sequence[Asked], right: Sequence[float]) -> dict[str, Any]:
    """What asking in both orders gains over the same model asked once, as the mean of its two single replies.

    Nothing for a judge that keeps no raw replies.
    """
    groups, singles, gains = [], [], []
    for one, value in zip(asked, right, strict=True):
        named = raw_choices(one.decision) if one.decision is not None else []
        if named:
            by_rank = [one.case.key(answer.id) for answer in one.case.question.answers]
            singles.append(mean([float(by_rank[choice] == _better(one.case)) for choice in named]))
            gains.append(value - singles[-1])
            groups.append(one.case.row.group)
    if not singles:
        return {}
    return {
        "accuracy_single_order": mean(singles),
        "both_orders_gain": mean(gains),
        "both_orders_gain_interval": group_interval(by_group(groups, gains, [1.0] * len(gains))),
    }
