"""HuggingGPT's way: a language model that reads the descriptions. It was asked in the planner's process."""

from __future__ import annotations

from collections.abc import Sequence

from db.registry import ModelEntry
from scheduler.selectors.base import Situation


def by_proposal(models: Sequence[ModelEntry], situation: Situation) -> list[ModelEntry]:
    """The models that it named, in its order; a name that cannot be had, or comes twice, is passed over."""
    there = {model.name: model for model in models}
    named = dict.fromkeys(situation.proposals.get("llm", ()))
    return [there[name] for name in named if name in there]
