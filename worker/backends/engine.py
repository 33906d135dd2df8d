"""What the packaged engines share: a missing package is explained."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from db.errors import WeightsError

if TYPE_CHECKING:
    from db.registry import ModelEntry


def import_engine(model: ModelEntry, module: str) -> Any:
    """Import the package of an engine. Raises `WeightsError` with the way out where it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        raise WeightsError(
            f"Model {model.name} needs the Python package of {module} ({error}): pip install 'bakeoff[engines]'."
        ) from None
