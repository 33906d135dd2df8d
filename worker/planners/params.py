"""The `params` of a planner, checked; and what a planner cannot do without."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from db.errors import RegistryError
from worker.params import Params

if TYPE_CHECKING:
    from db.registry import PlannerEntry
    from worker.backends import Backend

P = TypeVar("P", bound=Params)


def planner_params(entry: PlannerEntry, kind: type[P]) -> P:
    """The entry's `params` as `kind`. Raises `RegistryError` that names `planners.NAME.params.KEY` and the value."""
    try:
        return kind.model_validate(entry.params)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise RegistryError(
            f"planners.{entry.name}.params.{key} = {first['input']!r}: {first['msg']}. "
            f"There are: {', '.join(kind.model_fields)}."
        ) from None


def needed_model(entry: PlannerEntry, model: Backend | None) -> Backend:
    """The language model of a planner that cannot do without. Raises `RegistryError`."""
    if model is None:
        raise RegistryError(f"planners.{entry.name}.method = {entry.method!r} needs planners.{entry.name}.model.")
    return model
