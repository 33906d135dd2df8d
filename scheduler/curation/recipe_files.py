"""Files that a recipe names."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def find_file(folder: Path, file: Path, eval_data: Path | None) -> Path:
    """A file that a recipe names: beside the recipe, else among the evaluation data; as it is where it is nowhere."""
    places = [folder / file, *([] if eval_data is None else [eval_data / file])]
    return next((place for place in places if place.exists()), places[0]).absolute()
