"""What a planner cannot do without."""

from __future__ import annotations

from typing import TYPE_CHECKING

from db.errors import RegistryError

if TYPE_CHECKING:
    from db.registry import PlannerEntry
    from worker.backends import Backend


def needed_model(entry: PlannerEntry, model: Backend | None) -> Backend:
    """The language model of a planner that cannot do without. Raises `RegistryError`."""
    if model is None:
        raise RegistryError(f"planners.{entry.name}.method = {entry.method!r} needs planners.{entry.name}.model.")
    return model
