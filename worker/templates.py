"""Prompts as versioned files, and the care that quoted text needs. A version never changes: a better prompt is a new
file, so that what is stored can be read beside what was asked."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateNotFound

from db.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def tag_of(quotes: Sequence[str]) -> re.Pattern[str]:
    """Where one of these tags is opened or closed, with blanks or without."""
    return re.compile(rf"<(?=\s*/?\s*(?:{'|'.join(quotes)})\b)", re.IGNORECASE)


class Prompts:
    """The prompts of one folder. Text that goes through `quoted`, also a filter, cannot close the tags `quotes`.

    `tidy`: a line that holds nothing but a Jinja block leaves no line behind. It is a property of the versions in a
    folder, whose text never changes.
    """

    def __init__(self, folder: Path, quotes: Sequence[str], *, tidy: bool = True) -> None:
        self._folder = folder
        self._tag = tag_of(quotes)
        # Plain text for a language model: nothing is escaped for HTML, `quoted` guards the quotes.
        self._environment = Environment(
            loader=FileSystemLoader(folder),
            undefined=StrictUndefined,
            autoescape=False,  # noqa: S701 - a prompt is no page
            trim_blocks=tidy,
            lstrip_blocks=tidy,
        )
        self._environment.filters["quoted"] = self.quoted

    def quoted(self, text: str) -> str:
        """The text, unable to close the quotes that it stands in or to open others."""
        return self._tag.sub("&lt;", text)

    def check(self, version: str, place: str) -> None:
        """Raise `RegistryError` where the version is no file; `place` is what the registry calls it."""
        try:
            self._environment.get_template(f"{version}.j2")
        except TemplateNotFound:
            known = ", ".join(sorted(file.stem for file in self._folder.glob("*.j2")))
            raise RegistryError(f"{place} = {version!r} is no file; there are: {known}.") from None

    def render(self, version: str, **values: Any) -> str:
        """The prompt of a version, filled in."""
        return self._environment.get_template(f"{version}.j2").render(**values).strip()
