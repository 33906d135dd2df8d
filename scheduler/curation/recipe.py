"""A recipe: the input, the stages in their order, and what each of them is to do. TOML, checked whole.

    name = "coco"
    stages = ["validate", "exact", "near", "leakage", "questions", "answers"]

    [input]
    file = "instructions.json"

    [questions]
    models = ["question-reward"]
    keep = 0.3

What a stage's own table may say is in the stage's file (`scheduler.curation.stages`).
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from db.errors import UsageError
from scheduler.curation.options import STAGES, options_type
from scheduler.curation.recipe_files import find_file

if TYPE_CHECKING:
    from collections.abc import Mapping

JobName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
DEFAULT_STAGES = ("validate", "exact", "near")


class Input(BaseModel):
    """Where records come from. The fields are those of records that have no `conversations`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Path = Field(description="JSON array or JSON lines; relative to the recipe, else to BAKEOFF_EVAL_DATA")
    question: str = "instruction"
    context: str = Field("input", description="a field that belongs to the question, where there is one")
    answer: str = "output"
    captions: str = Field("captions", description="a field with texts that stand in for the image")
    type: str = Field("type", description="a field that says conversation, detail or complex")
    image_root: Path | None = Field(None, description="folder of the images; without it nobody looks at them")
    limit: int | None = Field(None, ge=1, description="records that are read at most")
    per_type: int | None = Field(None, ge=1, description="records of each type that are read at most")


class Recipe(BaseModel):
    """What a job does. `tables` holds the stages' own tables, checked by the stages."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: JobName
    input: Input
    stages: tuple[str, ...] = Field(DEFAULT_STAGES, min_length=1)
    in_flight: int = Field(1000, ge=1, le=50_000, description="records whose tasks are open at once, at most")
    tables: dict[str, dict[str, Any]] = {}

    @model_validator(mode="after")
    def _stages_exist(self) -> Recipe:
        for name in (*self.stages, *self.tables):
            if name not in STAGES:
                raise ValueError(f"{name!r} is no stage; there are: {', '.join(STAGES)}")
        if self.stages[0] != "validate":
            raise ValueError("stages must begin with 'validate': the others read what it lets pass")
        if len(set(self.stages)) < len(self.stages):
            raise ValueError("stages names one of them twice")
        if unused := sorted(set(self.tables) - set(self.stages)):
            raise ValueError(f"[{unused[0]}] is there, and stages does not name it")
        return self

    @property
    def digest(self) -> str:
        """The sha256 of all that decides what comes out but the input's bytes: no name, no path of this machine."""
        said = self.model_dump(mode="json", exclude={"name": True, "in_flight": True, "input": {"file", "image_root"}})
        said["input"]["images"] = self.input.image_root is not None
        said["tables"] = _without_folders(self.tables)
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    @property
    def shown(self) -> dict[str, Any]:
        """The recipe as a manifest states it: files by their names."""
        said = self.model_dump(mode="json", exclude={"in_flight"})
        said["input"] |= {
            "file": self.input.file.name,
            "image_root": None if self.input.image_root is None else self.input.image_root.name,
        }
        said["tables"] = _without_folders(self.tables)
        return said


def _without_folders(tables: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The stages' tables with evaluation sets by their names: where they lie is this machine's business."""
    return {
        name: {**table, "sets": [Path(file).name for file in table["sets"]]} if "sets" in table else table
        for name, table in tables.items()
    }


def read_recipe(path: Path, *, eval_data: Path | None = None, changes: Mapping[str, Any] | None = None) -> Recipe:
    """Read and check a recipe; `changes` replace keys of its `input` (None takes one out), and `name`.

    Raises `UsageError`, which names the table, the key and the value.
    """
    try:
        with path.open("rb") as text:
            tables = tomllib.load(text)
    except OSError as error:
        raise UsageError(f"Cannot read the recipe {path}: {error.strerror}.") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}.") from None
    said: dict[str, Any] = {key: tables.pop(key) for key in ("name", "input", "stages", "in_flight") if key in tables}
    changed = dict(changes or {})
    said["name"] = changed.pop("name", None) or said.get("name", path.stem.lower())
    if not isinstance(given := said.get("input", {}), dict):
        raise UsageError(f"{path}: input = {given!r:.100}: it must be a table.")
    said["input"] = {**given, **changed}
    for key in ("file", "image_root"):
        if isinstance(file := said["input"].get(key), str):
            said["input"][key] = find_file(path.parent, Path(file), eval_data)
    return parse_recipe({**said, "tables": tables}, str(path))


def parse_recipe(said: Mapping[str, Any], origin: str = "recipe") -> Recipe:
    """Check a recipe, the stages' tables too: what they leave out is filled in. Raises `UsageError`."""
    try:
        recipe = Recipe.model_validate(said)
    except ValidationError as error:
        raise UsageError(_sentence(origin, "", error)) from None
    tables = {}
    for name in recipe.stages:
        try:
            tables[name] = options_type(name).model_validate(recipe.tables.get(name, {})).model_dump(mode="json")
        except ValidationError as error:
            raise UsageError(_sentence(origin, f"{name}.", error)) from None
    return recipe.model_copy(update={"tables": tables})


def _sentence(origin: str, table: str, error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    said = str(first["msg"]).removeprefix("Value error, ")
    if not key:
        return f"{origin}: {said}."
    return f"{origin}: {table}{key} = {first['input']!r:.100}: {said}."
