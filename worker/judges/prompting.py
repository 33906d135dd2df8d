"""Prompts of judges: versioned files, and the care that quoted text needs.

A version never changes: a better prompt is a new file, so that a stored verdict can be read beside what
was asked.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import Field

from db.errors import RegistryError
from worker.judges.reading import QUOTES, Hostile, escape_tags
from worker.params import Params, checked_params
from worker.templates import Prompts

if TYPE_CHECKING:
    from db.registry import JudgeEntry
    from worker.backends import LanguageModel

__all__ = ["JudgeParams", "checked_prompt", "escape_tags", "needed_model", "render"]

PROMPTS = Prompts(Path(__file__).parent / "prompts", QUOTES, tidy=False)


class JudgeParams(Params):
    """`params` that every judge with a prompt takes. Longer texts are cut to the limit, every answer
    alike; `hostile` is what becomes of text that is aimed at the judge (`worker.judges.reading`)."""

    prompt: str
    max_answer_characters: int = Field(1200, ge=1)
    max_request_characters: int = Field(4000, ge=0)
    hostile: Hostile = "remove"


P = TypeVar("P", bound=JudgeParams)


def checked_prompt(entry: JudgeEntry, kind: type[P]) -> P:
    """The entry's `params` as `kind`. Raises `RegistryError`, also for a prompt that is no file."""
    params = checked_params(entry, kind)
    PROMPTS.check(params.prompt, f"judges.{entry.name}.params.prompt")
    return params


def needed_model(entry: JudgeEntry, language_model: LanguageModel | None) -> LanguageModel:
    """The language model of a judge that cannot do without. Raises `RegistryError`."""
    if language_model is None:
        raise RegistryError(f"judges.{entry.name}.method = {entry.method!r} needs judges.{entry.name}.model.")
    return language_model


def render(version: str, **values: Any) -> str:
    """The prompt of a version, filled in."""
    return PROMPTS.render(version, **values)
