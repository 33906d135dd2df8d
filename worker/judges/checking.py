"""Checks of an answer that need no model: does it parse, is it as long as asked, does it mention what it must.

An answer is read and never run. A check says how far it is met, 0 to 1, and in words what an answer lacks. Whoever
writes checks (a registry, a task) writes these, and whatever he writes takes time in proportion to the answer: regular
expressions are RE2's.
"""

from __future__ import annotations

import ast
import json
import math
import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from worker.judges.language import LANGUAGES, language_of
from worker.judges.patterns import compiled, compiles
from worker.judges.schemas import fault, fits
from worker.params import Params

EXAMINED = 100_000  # characters; a longer answer is checked as far as that, and its length as it is
DEEPEST = 50  # brackets in brackets: deeper ones can bring a parser down
FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)
#: Looks at each mark of a row once: a text of nothing else is not read again from each of them.
SENTENCE_END = re.compile(r"(?<![.!?])[.!?]++(?:\s|$)")
OPENING, CLOSING = "([{", ")]}"

MOST_PARTS = 2000  # of a JSON schema
LONGEST_WHY = 200  # characters of a reason, which may quote the answer


def _readable_format(form: str) -> str:
    try:
        datetime.strptime("", form)  # noqa: DTZ007 - only whether the format is one
    except re.error:
        raise ValueError("it names a part of a date twice") from None
    except ValueError as error:
        if "does not match" not in str(error) and "unconverted" not in str(error):
            raise ValueError(f"it is no format of strftime: {error}") from None
    return form


def _known_language(given: str) -> str:
    if given not in LANGUAGES:
        raise ValueError(f"it is none of {', '.join(sorted(LANGUAGES))}")
    return given


Bound = Annotated[float, Field(allow_inf_nan=False)]
Wanted = Annotated[str, Field(min_length=1, max_length=500)]
Alternatives = Annotated[tuple[Wanted, ...], Field(min_length=1, max_length=20)]
DateFormat = Annotated[str, Field(min_length=1, max_length=40), AfterValidator(_readable_format)]


class Check(Params, ABC):
    """One check. Without `weight` it is hard: an answer that does not meet it cannot win."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, serialize_by_alias=True)

    weight: Annotated[float, Field(gt=0, le=1e6)] | None = None

    @abstractmethod
    def met(self, text: str) -> float:
        """How far an answer meets it; 1 is wholly."""

    @abstractmethod
    def why(self, text: str) -> str:
        """What an answer lacks that does not meet it, in words that may quote it."""


class Parses(Check):
    """It is JSON, alone or in one code fence; with `schema`, JSON of that JSON schema."""

    check: Literal["json"]
    json_schema: Annotated[dict[str, Any] | None, Field(alias="schema")] = None

    @model_validator(mode="after")
    def _is_a_schema(self) -> Parses:
        if self.json_schema is not None:
            from jsonschema import Draft202012Validator, SchemaError

            if sum(1 for _ in _parts(self.json_schema)) > MOST_PARTS:  # to look at each takes half a millisecond
                raise ValueError(f"its schema has more than {MOST_PARTS} objects and lists")
            try:
                Draft202012Validator.check_schema(self.json_schema)
            except SchemaError as error:
                raise ValueError(f"it is no JSON schema: {error.message}") from None
        return self

    def met(self, text: str) -> float:
        try:
            value = json.loads(unfenced(text), parse_constant=_no_number) if _is_shallow(text) else None
        except (ValueError, RecursionError):
            return 0.0
        if not _is_shallow(text) or self.json_schema is None:
            return float(_is_shallow(text))
        try:
            return float(fits(self.json_schema, value))
        except (ValueError, ArithmeticError):  # too much, or numbers with which nobody can calculate: see `why`
            return 0.0

    def why(self, text: str) -> str:
        if not _is_shallow(text):
            return f"it is longer than {EXAMINED} characters, or brackets stand in more than {DEEPEST} others"
        try:
            value = json.loads(unfenced(text), parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            return f"it is no JSON: {error}"
        try:
            said = fault(self.json_schema or {}, value)
        except (ValueError, ArithmeticError) as error:
            return f"it could not be checked: {error}"
        return f"it is JSON of another schema: {said}" if said else "it is no JSON"


class IsNumber(Check):
    """It is one number, with blanks and a unit of currency or per cent around it at most, within the bounds."""

    check: Literal["number"]
    least: Bound | None = None
    most: Bound | None = None

    @model_validator(mode="after")
    def _can_be_met(self) -> IsNumber:
        if self.least is not None and self.most is not None and self.most < self.least:
            raise ValueError(f"most = {self.most:g} is under least = {self.least:g}")
        return self

    def met(self, text: str) -> float:
        try:
            value = float(text.strip().strip("$€£%").strip().replace(",", ""))
        except ValueError:
            return 0.0
        if not math.isfinite(value) or (self.least is not None and value < self.least):
            return 0.0
        return float(self.most is None or value <= self.most)

    def why(self, text: str) -> str:  # noqa: ARG002 - what was wanted says it
        least = "" if self.least is None else f"at least {self.least:g}"
        most = "" if self.most is None else f"at most {self.most:g}"
        bounds = " and ".join(filter(None, [least, most]))
        return f"it is not a number{f' of {bounds}' if bounds else ''} and nothing else"


class IsDate(Check):
    """It is a date in one of the formats, as in Python's `strftime`; `iso` is YYYY-MM-DD."""

    check: Literal["date"]
    formats: Annotated[tuple[DateFormat, ...], Field(min_length=1, max_length=16)] = ("iso",)

    def met(self, text: str) -> float:
        return float(any(_is_date(text.strip(), form) for form in self.formats))

    def why(self, text: str) -> str:  # noqa: ARG002 - what was wanted says it
        return f"it is not a date written as {' or '.join(self.formats)} and nothing else"


class IsLanguage(Check):
    """It is written in the language, named by its two letters. A text too short to tell meets it."""

    check: Literal["language"]
    language: Annotated[str, AfterValidator(_known_language)]

    def met(self, text: str) -> float:
        return float(language_of(text[:EXAMINED]) in {None, self.language})

    def why(self, text: str) -> str:
        return f"it is written in {language_of(text[:EXAMINED])}, not in {self.language}"


class Length(Check):
    """It has so many characters, words or sentences; weighted, it is met the less the further off it is."""

    check: Literal["length"]
    of: Literal["characters", "words", "sentences"] = "words"
    least: Annotated[int, Field(ge=0)] = 0
    most: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _can_be_met(self) -> Length:
        if self.most is not None and self.most < self.least:
            raise ValueError(f"most = {self.most} is under least = {self.least}")
        return self

    def met(self, text: str) -> float:
        count = _count(text.strip(), self.of)
        if count < self.least:
            return count / self.least if self.weight is not None else 0.0
        if self.most is not None and count > self.most:
            return self.most / count if self.weight is not None else 0.0
        return 1.0

    def why(self, text: str) -> str:
        wanted = f"at least {self.least}" if self.most is None else f"{self.least} to {self.most}"
        return f"it has {_count(text.strip(), self.of)} {self.of}, not {wanted}"


class Mentions(Check):
    """It says each of these, as whole words, in upper or lower case; weighted, the share of them counts.

    An inner list is alternatives, one of which is enough. With `never` it says none of them.
    """

    check: Literal["mentions"]
    texts: Annotated[tuple[Wanted | Alternatives, ...], Field(min_length=1, max_length=100)]
    never: bool = False

    def met(self, text: str) -> float:
        read = _read(text)
        said = [any(_says(read, one) for one in _alternatives(wanted)) for wanted in self.texts]
        share = sum(one != self.never for one in said) / len(said)
        return share if self.weight is not None else float(share == 1)

    def why(self, text: str) -> str:
        read = _read(text)
        for wanted in self.texts:
            if any(_says(read, one) for one in _alternatives(wanted)) == self.never:
                return f"it {'says' if self.never else 'does not say'} {' or '.join(_alternatives(wanted))}"
        return "it says what it is not to say"


class Matches(Check):
    """It matches a regular expression (RE2's) somewhere; with `whole`, from end to end. A dot is any character."""

    check: Literal["matches"]
    pattern: Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(compiles)]
    whole: bool = False

    def met(self, text: str) -> float:
        pattern = compiled(self.pattern)
        search = pattern.fullmatch if self.whole else pattern.search
        return float(search(text[:EXAMINED].strip()) is not None)

    def why(self, text: str) -> str:  # noqa: ARG002 - what was wanted says it
        return f"it does not match {self.pattern}"


class IsPython(Check):
    """Its code fences, or all of it where it has none, parse as Python. Nothing is run."""

    check: Literal["python"]

    def met(self, text: str) -> float:
        return float(self._fault(text) is None)

    def why(self, text: str) -> str:
        return f"its code is no Python: {self._fault(text)}"

    def _fault(self, text: str) -> str | None:
        code = "\n".join(FENCE.findall(text[:EXAMINED])) or text[:EXAMINED]
        if not code.strip() or not _is_shallow(code):
            return "there is none" if not code.strip() else "brackets stand too deep in others"
        try:
            ast.parse(code)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            return str(error) or type(error).__name__
        return None


AnyCheck = Annotated[
    Parses | IsNumber | IsDate | IsLanguage | Length | Mentions | Matches | IsPython, Field(discriminator="check")
]


def _parts(schema: Any) -> Iterator[Any]:
    """Every object and list in a JSON value, itself included."""
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict | list):
            yield part
            waiting += part.values() if isinstance(part, dict) else part


def unfenced(text: str) -> str:
    """What stands in the only code fence of a text that is nothing else; else the text."""
    bare = text.strip()
    fence = FENCE.fullmatch(bare)
    return fence[1] if fence else bare


def _is_shallow(text: str) -> bool:
    """Whether few brackets stand in brackets, counted without regard to quotes: a text of many is refused unread."""
    depth = 0
    for mark in text[:EXAMINED]:
        depth += (mark in OPENING) - (mark in CLOSING)
        if depth > DEEPEST:
            return False
    return len(text) <= EXAMINED


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is not JSON")


def _is_date(text: str, form: str) -> bool:
    try:
        if form == "iso":
            return date.fromisoformat(text).isoformat() == text
        datetime.strptime(text, form)  # noqa: DTZ007 - only whether it can be read
    except ValueError:
        return False
    return True


def _count(text: str, of: str) -> int:
    if of == "characters":
        return len(text)
    if of == "words":
        return len(text.split())
    return len([part for part in SENTENCE_END.split(text) if part.strip()])


def _alternatives(wanted: str | tuple[str, ...]) -> tuple[str, ...]:
    return (wanted,) if isinstance(wanted, str) else wanted


def _read(text: str) -> str:
    """A text as mentions are looked for in it."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _says(read: str, wanted: str) -> bool:
    sought = _read(wanted)
    return sought in read and re.search(rf"(?<!\w){re.escape(sought)}(?!\w)", read) is not None
