"""Validate: is a record whole, is its image there, are its marks where they belong, is it noise, is it long enough?

Without an image root nobody looks at images; the job's notes say so.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING

from pydantic import Field

from db.errors import InvalidRequest, UsageError
from scheduler.curation.options import StageOptions
from scheduler.curation.stages.alone import Alone
from scheduler.curation.turns import MARK, Unreadable, image_of, turns_of
from scheduler.requests import check_storable
from worker.media import FORMATS

if TYPE_CHECKING:
    from pathlib import Path

    from db.curation_records import Record
    from scheduler.curation.run import Run
    from scheduler.curation.turns import Turn

#: Words that say that a model refused, a page was scraped, or a template was left as it was.
NOISE = (
    "as an ai language model", "as a language model", "i cannot see the image", "i can't see the image",
    "i'm sorry, but i can", "i am sorry, but i can", "i apologize, but", "can't assist with", "i'm unable to",
    "lorem ipsum", "[insert", "{{", "<script", "<div", "<html", "http://", "https://", "click here",
    "all rights reserved", "traceback (most recent call last)",
)  # fmt: skip

_ODD = re.compile(r"""[^\w\s.,;:!?'"()/\u2018\u2019\u201c\u201d\u2013\u2014\u2026-]""")


class ValidateOptions(StageOptions):
    """Lengths are words of one turn."""

    question_words: tuple[int, int] = (2, 400)
    answer_words: tuple[int, int] = (1, 1500)
    turns: int = Field(32, ge=1, description="of one record, at most")
    noise: tuple[str, ...] = Field(NOISE, description="texts that no turn may hold, capitals or not")
    repeated: float = Field(0.5, gt=0, le=1, description="share of a text's words that may be the same word")
    strange: float = Field(0.2, ge=0, le=1, description="share of characters that are neither letters nor punctuation")


class Validate(Alone[ValidateOptions]):
    """Rules that need no model."""

    Options = ValidateOptions
    root: Path | None = None

    @cached_property
    def _noise(self) -> tuple[str, ...]:
        return tuple(term.lower() for term in self.options.noise)

    def prepare(self, run: Run) -> None:
        """Remember where images lie, and note where nobody looks at them. Raises `UsageError` for no folder."""
        self.root = run.recipe.input.image_root
        if self.root is not None and not self.root.is_dir():
            raise UsageError(f"input.image_root = {str(self.root)!r} is no folder: every image would be missing.")
        run.notes["images"] = "read" if self.root is not None else "not looked at: the recipe names no image_root"

    def fault(self, record: Record) -> tuple[str, str] | None:
        """The first rule that the record breaks."""
        try:
            turns = turns_of(record.data, self.names)
            check_storable("the record", record.data)
        except Unreadable as error:
            return "schema", f"{str(error)[0].upper()}{str(error)[1:]}."
        except InvalidRequest as error:
            return "schema", str(error)
        if len(turns) > self.options.turns:
            return "length", f"It has {len(turns)} turns; {self.options.turns} are allowed."
        return self._marks(record, turns) or self._texts(turns) or self._image(record)

    def _marks(self, record: Record, turns: list[Turn]) -> tuple[str, str] | None:
        """Where a conversation has an image, its mark stands once, in the first question, and nowhere else."""
        if "conversations" not in record.data:
            return None
        wanted = 1 if image_of(record.data) else 0
        first = turns[0].question.count(MARK)
        rest = sum(turn.question.count(MARK) for turn in turns[1:]) + sum(turn.answer.count(MARK) for turn in turns)
        if first == wanted and not rest:
            return None
        return (
            "placeholder",
            f"{MARK} stands {first} times in the first question and {rest} times elsewhere, not {wanted}.",
        )

    def _texts(self, turns: list[Turn]) -> tuple[str, str] | None:
        for number, turn in enumerate(turns, start=1):
            for what, text, bounds in (
                ("question", turn.asked, self.options.question_words),
                ("answer", turn.answer, self.options.answer_words),
            ):
                if (why := self._text(text, *bounds)) is not None:
                    return why[0], f"The {what} of turn {number} {why[1]}."
        return None

    def _text(self, text: str, least: int, most: int) -> tuple[str, str] | None:
        words = text.split()
        if not least <= len(words) <= most:
            return "length", f"has {len(words)} words; {least} to {most} are allowed"
        lower = text.lower()
        if (term := next((term for term in self._noise if term in lower), None)) is not None:
            return "noise_term", f"says {term!r}"
        if len(words) >= 8:
            word, times = Counter(lower.split()).most_common(1)[0]
            if times > self.options.repeated * len(words):
                return "repetition", f"says {word[:40]!r} {times} times among {len(words)} words"
        odd = len(_ODD.findall(text))
        if odd > self.options.strange * len(text):
            return "characters", f"has {odd} strange characters among {len(text)}"
        return None

    def _image(self, record: Record) -> tuple[str, str] | None:
        name = image_of(record.data)
        if self.root is None or name is None:
            return None
        from PIL import Image  # noqa: PLC0415 - only where there are images

        try:
            path = (self.root / name).resolve()
            if not path.is_relative_to(self.root.resolve()):
                return "image", f"Its image {name[:100]!r} lies outside of the image root."
            with Image.open(path, formats=FORMATS) as image:
                image.verify()
        except Exception as error:  # noqa: BLE001 - a broken file makes a decoder raise anything
            return "image", f"Its image {name[:100]!r} cannot be read ({type(error).__name__})."
        return None
