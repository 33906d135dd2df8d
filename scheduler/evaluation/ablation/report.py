"""What the ablation found on one set, as plain figures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from scheduler.evaluation.ablation.arms import BEST_SINGLE, ORACLE, Contest, Run
from scheduler.evaluation.judges.metrics import mean, paired_interval
from scheduler.evaluation.judges.rows import best_models

if TYPE_CHECKING:
    from scheduler.evaluation.judges.rows import EvaluationSet
    from worker.backends import LanguageModel


def ablation(
    evaluation: EvaluationSet,
    model: LanguageModel,
    *,
    candidates: int,
    limit: int | None = None,
    seconds: float | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Every arm on the rows kept for reporting, as many as `seconds` allow.

    The candidates are the best models of the fit rows.
    """
    fit, rows = evaluation.part("fit"), evaluation.part("report")[:limit]
    models = best_models(fit, candidates)
    rows = [row for row in rows if set(models) <= set(row.answers)]
    runs = Contest(models, evaluation.kind, model, seed).run(rows, math.inf if seconds is None else seconds)
    return {
        "set": evaluation.name,
        "note": evaluation.kind.note,
        "judge_model": model.identity,
        "models": models,
        "fit": len(fit),
        "support": len(runs[BEST_SINGLE].scores),
        "ranks": "shuffled" if seed else "by fit rows",
        "arms": [_figures(run, runs[BEST_SINGLE], runs[ORACLE]) for run in runs.values()],
    }


def _figures(run: Run, best: Run, oracle: Run) -> dict[str, Any]:
    """Figures of an arm beside the best single model; `recovered` is its share of the way from there to the oracle."""
    differences = [own - base for own, base in zip(run.scores, best.scores, strict=True)]
    gap = mean(oracle.scores) - mean(best.scores)
    return {
        "arm": run.arm,
        "score": mean(run.scores),
        "difference": mean(differences),
        "interval": list(paired_interval(differences)) if differences else None,
        "recovered": mean(differences) / gap if gap > 0 else None,
        "calls": run.calls,
        "seconds": round(run.seconds, 2),
    }
