"""The order that the registry gives: `priority`, lower first, then the name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from db.registry import ModelEntry

if TYPE_CHECKING:
    from scheduler.selectors.base import Situation


def by_priority(models: Sequence[ModelEntry], _: Situation | None = None) -> list[ModelEntry]:
    """Models by the registry's `priority`, lower first. It needs no situation."""
    return sorted(models, key=lambda model: (model.priority, model.name))
