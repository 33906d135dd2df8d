"""What a judge's choice among several models' answers scores, beside the choices that need no judge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from db.registry import JudgeEntry
from scheduler.evaluation.judges.metrics import by_group, counted, group_interval, mean, ratio, standard_error
from scheduler.evaluation.judges.rows import best_models
from worker.judges import create_judge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scheduler.evaluation.judges.bench import Asked
    from scheduler.evaluation.judges.rows import Kind
    from worker.judges import Judge

BASELINES = ("best_single", "longest", "consensus", "vote")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Scores of one row by every way of choosing. `scores` are those of the candidates, by model."""

    group: str
    arms: Mapping[str, float]
    scores: Mapping[str, float]
    calls: int | None
    asked_model: bool
    failed: bool


def outcomes(asked: Sequence[Asked], kind: Kind) -> list[Outcome]:
    """Score every decision. A judge that failed leaves the first by rank, as a queue would."""
    closed = kind.similarity == "answer"
    agreeing = {"consensus": _agreeing("open")} | ({"vote": _agreeing("closed")} if closed else {})
    best: dict[int, str] = {}
    out = []
    for one in asked:
        case = one.case
        single = best.setdefault(id(one.learned_from), best_models(one.learned_from, 1)[0])
        scores = {key: case.row.scores[key] for key in case.keys}
        first = case.question.answers[0].id
        longest = max(case.keys, key=lambda key: len(case.row.answers[key]))
        arms = {
            "chosen": scores[case.key(one.decision.ranking[0] if one.decision else first)],
            "random": mean(list(scores.values())),
            "longest": scores[longest],
            **{name: scores[case.key(judge.decide(case.question).ranking[0])] for name, judge in agreeing.items()},
            "best_single": scores.get(single, mean(list(scores.values()))),
            "oracle": max(scores.values()),
        }
        out.append(
            Outcome(
                group=case.row.group,
                arms=arms,
                scores=scores,
                calls=one.calls,
                asked_model=one.decision is not None and one.decision.model is not None,
                failed=one.decision is None,
            )
        )
    return out


def _agreeing(answers: str) -> Judge:
    """The answer most like the others (`open`), or the one that most come to (`closed`)."""
    return create_judge(JudgeEntry(name="consensus", method="consensus", params={"answers": answers}), None)


def selection_figures(found: Sequence[Outcome]) -> dict[str, Any]:
    """Mean score of every arm, and the share of the gap from the best single model to the oracle that is recovered."""
    arms = {name: mean([one.arms[name] for one in found]) for name in (found[0].arms if found else {})}
    groups, gains, gaps = gains_of(found)
    gain = [one.arms["chosen"] - one.arms["best_single"] for one in found]
    baseline = max(BASELINES, key=lambda name: arms.get(name, 0.0))
    behind = [one.arms["chosen"] - one.arms.get(baseline, 0.0) for one in found]
    return arms | {
        "arm_errors": {name: standard_error(groups, [one.arms[name] for one in found]) for name in arms},
        "best_single_hindsight": _hindsight(found),
        "recovered": ratio(sum(gains), sum(gaps)),
        "recovered_interval": group_interval(by_group(groups, gains, gaps)),
        "gain": mean(gain),
        "gain_error": standard_error(groups, gain),
        "best_baseline": baseline,
        "against_best_baseline": mean(behind),
        "against_best_baseline_error": standard_error(groups, behind),
        "calls": counted([one.calls for one in found]),
        "asked_model": sum(one.asked_model for one in found),
        "failed": sum(one.failed for one in found),
        "support": len(found),
        "groups": len(set(groups)),
    }


def gains_of(found: Sequence[Outcome]) -> tuple[list[str], list[float], list[float]]:
    """Group, gain over the best single model and gap to the oracle, per row."""
    return (
        [one.group for one in found],
        [one.arms["chosen"] - one.arms["best_single"] for one in found],
        [one.arms["oracle"] - one.arms["best_single"] for one in found],
    )


def pooled(sets: Mapping[str, Sequence[Outcome]]) -> dict[str, Any]:
    """Sum of gains over sum of gaps of all sets, with a bootstrap over their groups.

    In the sets' own units, and with every score divided by its set's range so that no scale counts for more.
    """
    out: dict[str, Any] = {}
    for name, scaled in (("recovered", False), ("recovered_scaled", True)):
        groups: list[str] = []
        gains: list[float] = []
        gaps: list[float] = []
        for key, found in sets.items():
            scores = [score for one in found for score in one.scores.values()]
            unit = (max(scores) - min(scores)) or 1.0 if scaled and scores else 1.0
            own = gains_of(found)
            groups += [f"{key}\n{group}" for group in own[0]]
            gains += [value / unit for value in own[1]]
            gaps += [value / unit for value in own[2]]
        out[name] = ratio(sum(gains), sum(gaps))
        out[f"{name}_interval"] = group_interval(by_group(groups, gains, gaps))
        out["support"] = len(groups)
    return out


def _hindsight(found: Sequence[Outcome]) -> float:
    """The mean score of the one model that turned out best on these very rows; of those that answered all of them."""
    everywhere = set.intersection(*(set(one.scores) for one in found)) if found else set()
    models = everywhere or {model for one in found for model in one.scores}
    means = (mean([one.scores[model] for one in found if model in one.scores]) for model in models)
    return max(means, default=0.0)
