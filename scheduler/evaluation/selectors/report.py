"""What was measured of selectors, as JSON-ready values, and whether it reaches the bar."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from scheduler.evaluation.selectors.arms import ADAPTIVE, ADAPTS, BEST_SINGLE, RANDOM, most_of
from scheduler.evaluation.selectors.measure import Figures, Mean, Tally
from scheduler.evaluation.selectors.rows import Rows

KEEP, CALLS = 0.98, 0.60  # of the largest k's score and calls: what `adaptive` is to reach
BEST = ("nearest", "track_record")  # one of these is to hold its own at each k


def report_of(data: Rows, tally: Tally, targets: list[float]) -> dict[str, Any]:
    """Everything that was measured, and whether it reaches the bar; null where the arms for it were not run."""
    most = most_of(data.models)
    compared = [arm for arm in tally.arms if arm not in {RANDOM, BEST_SINGLE, ADAPTIVE}]
    against = {
        arm: {
            str(k): {other: asdict(tally.difference(arm, other, k)) for other in (RANDOM, BEST_SINGLE)}
            for k in tally.sizes(arm)
        }
        for arm in compared
    }
    adaptive = _adaptive(tally, most, targets) if ADAPTIVE in tally.arms else None
    choosing = [arm for arm in BEST if tally.sizes(arm) == list(range(1, most + 1))]
    return {
        "models": len(data.models),
        "rows": len(data.rows),
        "incomplete": data.incomplete,
        "tested": tally.figures(RANDOM, 1).rows,
        "arms": {
            arm: {str(k): asdict(tally.figures(arm, k)) for k in tally.sizes(arm)}
            for arm in tally.arms
            if arm != ADAPTIVE
        },
        "against": against,
        "adaptive": adaptive,
        "bar": {
            "choices": all(
                any(_holds(tally, arm, k, every=k == len(data.models)) for arm in choosing) for k in range(1, most + 1)
            )
            if choosing
            else None,
            "adaptive": adaptive and adaptive["kept"]["mean"] >= KEEP and adaptive["calls_share"] <= CALLS,
        },
    }


def _holds(tally: Tally, arm: str, k: int, *, every: bool) -> bool:
    """Above random (where k is not every model there is), and not below the best by more than a standard error."""
    best = tally.difference(arm, BEST_SINGLE, k)
    return (every or tally.difference(arm, RANDOM, k).mean > 0) and best.mean >= -best.se - 1e-12


def _adaptive(tally: Tally, most: int, targets: list[float]) -> dict[str, Any]:
    figures: Figures = tally.figures(ADAPTIVE, most)
    kept: Mean = tally.kept(ADAPTIVE, most, (ADAPTS[0], most))
    return {
        **asdict(figures),
        "k": most,
        "targets": targets,
        "calls_share": figures.calls / most,
        "kept": asdict(kept),
    }
