"""The order that the registry gives: `priority`, lower first, then the name."""

from __future__ import annotations

from collections.abc import Sequence

from db.registry import ModelEntry


def by_priority(models: Sequence[ModelEntry]) -> list[ModelEntry]:
    """Models by the registry's `priority`, lower first."""
    return sorted(models, key=lambda model: (model.priority, model.name))
