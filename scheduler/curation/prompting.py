"""Prompts of curation: versioned files, in which a record's text is quoted data."""

from __future__ import annotations

from pathlib import Path

from db.errors import RegistryError, UsageError
from worker.templates import Prompts

PROMPTS = Prompts(Path(__file__).parent / "prompts", ("question", "answer"))


def check_prompt(version: str, place: str) -> None:
    """Raise `UsageError` where the version is no file; `place` is what the recipe calls it."""
    try:
        PROMPTS.check(version, place)
    except RegistryError as error:
        raise UsageError(str(error)) from None
