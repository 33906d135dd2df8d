"""This system's own verdicts and preferences: Bradley-Terry strengths, ranked by what is certain of them."""

from __future__ import annotations

from collections.abc import Sequence

from db.registry import ModelEntry
from scheduler.selectors.base import Situation

#: Ranked by mean - CAUTION x standard deviation: half a standard deviation keeps a model that won its only game behind
#: one that won most of many. Chances for the unknown are `explore`'s business.
CAUTION = 0.5


def by_track_record(models: Sequence[ModelEntry], situation: Situation) -> list[ModelEntry]:
    """The models that were judged before, by the lower bound of their strength; others are left out."""
    strengths = situation.history.strengths
    bounds = {}
    for model in models:
        if model.name in strengths.games:
            mean, sd = strengths.of(model.name)
            bounds[model.name] = mean - CAUTION * sd
    known = [model for model in models if model.name in bounds]
    return sorted(known, key=lambda model: (-bounds[model.name], model.priority, model.name))
