"""Thompson sampling: rank by one draw of every model's strength, so that what is uncertain gets its chance."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from db.registry import ModelEntry
from scheduler.selectors.base import Situation


def by_chance(models: Sequence[ModelEntry], situation: Situation) -> list[ModelEntry]:
    """All models by a draw from the posterior of their strengths; the same seed draws the same.

    A model that was never judged is drawn from the prior: it is first as often as it may be the best.
    """
    random = Random(situation.seed)  # noqa: S311 - a draw that can be repeated
    drawn = situation.history.strengths.draw(sorted(model.name for model in models), random)
    return sorted(models, key=lambda model: -drawn[model.name])
