"""Which model was right on inputs like this one (arXiv 2309.15789): nearest neighbours in the run log."""

from __future__ import annotations

from collections.abc import Sequence

from db.registry import ModelEntry
from scheduler.selectors.base import Situation


def by_nearest(models: Sequence[ModelEntry], situation: Situation) -> list[ModelEntry]:
    """The models that ever tried, by the score to expect of them here; others are left out."""
    expected = situation.history.log.expected([model.name for model in models], situation.text)
    known = [model for model in models if model.name in expected]
    return sorted(known, key=lambda model: (-expected[model.name], model.priority, model.name))
