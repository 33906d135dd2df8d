"""The `params` of a registry entry, checked: backends and judges describe theirs as a model and get it filled in."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from db.errors import RegistryError
from db.registry import IntegratorEntry, JudgeEntry, ModelEntry, PlannerEntry


class Params(BaseModel):
    """Parameters as `models.toml` gives them; an unknown name is an error, not silence."""

    model_config = ConfigDict(extra="forbid", frozen=True)


P = TypeVar("P", bound=Params)
Entry = ModelEntry | JudgeEntry | PlannerEntry | IntegratorEntry
TABLES = {ModelEntry: "models", JudgeEntry: "judges", PlannerEntry: "planners", IntegratorEntry: "integrators"}


def checked_params(entry: Entry, kind: type[P]) -> P:
    """The entry's `params` as `kind`. Raises `RegistryError` that names `models.NAME.params.KEY` and the value."""
    try:
        return kind.model_validate(entry.params)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        known = ", ".join(kind.model_fields)
        raise RegistryError(
            f"{TABLES[type(entry)]}.{entry.name}.params.{key} = {first['input']!r}: {first['msg']}. There are: {known}."
        ) from None
