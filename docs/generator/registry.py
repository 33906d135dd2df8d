"""The page of `models.toml`, from the classes that read it; and that of a recipe of curation."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Any

from pydantic_core import PydanticUndefined

from db import registry, sources
from docs.generator.text import code, comments_of, kind_of, sentence, table
from scheduler.curation.options import STAGES, options_type, stage_type
from scheduler.curation.recipe import Input, Recipe

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

HEAD = """# The registry: models.toml

Made from the classes that read the file. It is read and checked whole: an unknown key or name is an error that says
where it stands. `bakeoff models` shows what is in force. A change counts once the processes were started again.
"""
TABLES = (
    ("[models.NAME]", registry.ModelEntry),
    ("[capabilities.NAME]", registry.CapabilityEntry),
    ("[judges.NAME]", registry.JudgeEntry),
    ("[planners.NAME]", registry.PlannerEntry),
    ("[integrators.NAME]", registry.IntegratorEntry),
    ("[profiles.NAME]", registry.Profile),
)
RECIPE_HEAD = """# Recipes of curation

Made from the classes that read a recipe. `name`, `stages` and `in_flight` stand at the top; `[input]` says where
records come from; a stage that `stages` names may have a table of its own.
"""


def page() -> str:
    """A section per table, then the kinds of source."""
    parts = [HEAD]
    for title, kind in TABLES:
        parts += [f"## {title}", "", sentence(kind.__doc__), "", fields(kind)]
    parts += ["## source of a model", ""]
    for name, source in inspect.getmembers(sources, inspect.isclass):
        if name.endswith("Source") and not name.startswith("_"):
            parts += [f"### {name.removesuffix('Source')}", "", sentence(source.__doc__), "", fields(source)]
    return "\n".join(parts)


def recipe_page() -> str:
    """The recipe itself, its input, then each stage."""
    parts = [RECIPE_HEAD, fields(Recipe, leave_out=("tables", "input")), "## [input]", "", fields(Input)]
    for name in STAGES:
        module = inspect.getmodule(stage_type(name))
        options = options_type(name)
        parts += [f"## [{name}]", "", sentence(module.__doc__ if module else ""), ""]
        if options.__doc__ and options.__module__ == getattr(module, "__name__", None):
            parts += [sentence(options.__doc__), ""]
        parts.append(fields(options) or "It has no keys.\n")
    return "\n".join(parts)


def fields(kind: Any, leave_out: tuple[str, ...] = ("name", "asked_only")) -> str:
    """The keys of a table with type, default and meaning."""
    comments = comments_of(kind)
    rows = [
        (code(name), kind_of(one.annotation), _default(one), one.description or comments.get(name, ""))
        for name, one in kind.model_fields.items()
        if name not in leave_out
    ]
    return table(("key", "type", "default", "meaning"), rows)


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined:
        return "required" if field.default_factory is None else ""
    if value is None or isinstance(value, sources.NoSource) or value in ("", (), {}, []):
        return ""
    return code(json.dumps(value, default=str))  # as TOML writes it, too
