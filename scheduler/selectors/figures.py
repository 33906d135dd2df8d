"""Figures that others published: the top of the most downloaded, most liked, trending, or best scored models.

They stand in `metadata` of a registry entry, or in the file beside it that `bakeoff models import` and
`bakeoff models refresh` write. A model without the figure is left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from db.registry import ModelEntry
from scheduler.selectors.base import Selector, Situation

#: Words of a score's name that say that less is better.
ERRORS = frozenset(
    {"wer", "cer", "mer", "ter", "eer", "fid", "loss", "perplexity", "ppl", "mae", "mse", "rmse", "error"}
)


def by_figure(key: str) -> Selector:
    """Rank by a number of the metadata, most first."""

    def ranked(models: Sequence[ModelEntry], _: Situation) -> list[ModelEntry]:
        return _ranked(models, {model.name: _number(model.metadata.get(key)) for model in models})

    return ranked


def by_benchmark(name: str = "") -> Selector:
    """Rank by the score of that name; without a name, by the score that most of the models have.

    The best is first: the highest, or the lowest where the name says that it counts errors (`wer`, `loss` ...).
    """

    def ranked(models: Sequence[ModelEntry], _: Situation) -> list[ModelEntry]:
        score = name or _commonest(models)
        sign = -1.0 if less_is_better(score) else 1.0
        found = {model.name: _number(_scores(model).get(score)) for model in models}
        return _ranked(models, {key: None if value is None else sign * value for key, value in found.items()})

    return ranked


def less_is_better(score: str) -> bool:
    """Whether a score counts errors, by the words of its name."""
    return not ERRORS.isdisjoint(re.findall(r"[a-z]+", score.lower()))


def _scores(model: ModelEntry) -> Mapping[str, Any]:
    scores = model.metadata.get("scores")
    return scores if isinstance(scores, Mapping) else {}


def _commonest(models: Sequence[ModelEntry]) -> str:
    counted = Counter(name for model in models for name, value in _scores(model).items() if _number(value) is not None)
    return min(counted, key=lambda name: (-counted[name], name), default="")


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _ranked(models: Sequence[ModelEntry], values: Mapping[str, float | None]) -> list[ModelEntry]:
    known = [(value, model) for model in models if (value := values[model.name]) is not None]
    return [model for _, model in sorted(known, key=lambda pair: (-pair[0], pair[1].priority, pair[1].name))]
