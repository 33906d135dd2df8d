"""The files of a recipe that came over HTTP: relative names within one folder of this machine, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from db.errors import InvalidRequest

if TYPE_CHECKING:
    from scheduler.curation.recipe import Recipe


def confined(recipe: Recipe, folder: Path | None) -> Recipe:
    """The recipe with every file where it lies in the folder. Raises `InvalidRequest` for one that does not."""
    if folder is None:
        raise InvalidRequest(
            "This installation reads no files for recipes sent over HTTP; its operator sets BAKEOFF_CURATION_FOLDER to "
            "the folder that holds their input."
        )
    given, tables = recipe.input, dict(recipe.tables)
    files = {"file": _within(folder, given.file, "input.file")}
    if given.image_root is not None:
        files["image_root"] = _within(folder, given.image_root, "input.image_root", is_folder=True)
    if leakage := tables.get("leakage"):
        sets = [str(_within(folder, Path(one), "leakage.sets")) for one in leakage["sets"]]
        tables["leakage"] = {**leakage, "sets": sets}
    return recipe.model_copy(update={"input": given.model_copy(update=files), "tables": tables})


def _within(folder: Path, said: Path, place: str, *, is_folder: bool = False) -> Path:
    shown = f"{place} = {str(said)!r:.200}"
    if said.is_absolute() or ".." in said.parts:
        raise InvalidRequest(f"{shown} must be a name within BAKEOFF_CURATION_FOLDER, without a leading / and '..'.")
    try:
        root = folder.resolve()
        found = (root / said).resolve()
        if not found.is_relative_to(root):  # before anything is said about what lies there
            raise InvalidRequest(f"{shown} leads out of BAKEOFF_CURATION_FOLDER by a link; copy the file into it.")
        there = found.is_dir() if is_folder else found.is_file()
    except (OSError, RuntimeError, ValueError):  # too long, a circle of links, no name at all
        there = False
    if not there:
        raise InvalidRequest(f"{shown} is no {'folder' if is_folder else 'file'} in BAKEOFF_CURATION_FOLDER.")
    return found
