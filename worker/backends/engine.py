"""What the packaged engines share: their parameters are checked, and a missing package is explained."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from db.errors import RegistryError, WeightsError

if TYPE_CHECKING:
    from db.registry import ModelEntry


class Params(BaseModel):
    """Parameters of an engine as `models.toml` gives them; an unknown name is an error, not silence."""

    model_config = ConfigDict(extra="forbid", frozen=True)


P = TypeVar("P", bound=Params)


def checked_params(model: ModelEntry, kind: type[P]) -> P:
    """The entry's `params` as `kind`. Raises `RegistryError` that names `models.NAME.params.KEY`."""
    try:
        return kind.model_validate(model.params)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        known = ", ".join(kind.model_fields)
        raise RegistryError(
            f"models.{model.name}.params.{key} = {first['input']!r}: {first['msg']}. There are: {known}."
        ) from None


def import_engine(model: ModelEntry, module: str) -> Any:
    """Import the package of an engine. Raises `WeightsError` with the way out where it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        raise WeightsError(
            f"Model {model.name} needs the Python package of {module} ({error}): pip install 'bakeoff[engines]'."
        ) from None
