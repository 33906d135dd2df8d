"""Whether a rewrite says what the original says: rules that need no model.

Numbers, names and placeholders must be kept, none may be added; of the rewrite's own content words most must stand in
the original, the question or the captions. An overlap check, not entailment: it lets a negation pass, and says so by
the review that follows it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_PLACEHOLDER = re.compile(r"<[a-zA-Z_][^<>\s]*>|\{[a-zA-Z_]\w*\}|\[[A-Z][A-Z_ ]+\]")
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)?")
_SENTENCE_START = re.compile(r"(?:^|[.!?:]\s+|\n\s*(?:[-*]\s*)?|[\"“(])\s*$")
#: Words that say nothing by themselves: a rewrite may use others of them.
FUNCTION = frozenset(
    """
    a an the this that these those it its he she they them his her their there here is are was were be been being
    am has have had do does did can could may might must shall should will would of in on at by for with from to
    into onto and or but nor so as if than then also while when where which who whom whose what how why not no yes
    very more most some any each every both all one ones such other another i you we us our your my me about over
    under between through during before after above below up down out off again further once because until against
    same own too only just now however moreover furthermore additionally overall appears appear seems seem likely
    possibly
    """.split()  # noqa: SIM905 - a text is read, a list of a hundred strings is not
)


def numbers_of(text: str) -> set[str]:
    """The numbers of a text, as they are written."""
    return set(_NUMBER.findall(text))


def placeholders_of(text: str) -> list[str]:
    """The placeholders of a text, each as often as it stands there."""
    return sorted(_PLACEHOLDER.findall(text))


def names_of(text: str) -> set[str]:
    """Words with a capital letter that do not begin a sentence."""
    return {
        found.group().lower()
        for found in _WORD.finditer(text)
        if found.group()[0].isupper()
        and found.group() != "I"
        and not _SENTENCE_START.search(text[max(0, found.start() - 4) : found.start()] if found.start() else "")
    }


def content_of(text: str) -> set[str]:
    """Stems of the words that say something."""
    return {_stem(word) for word in map(str.lower, _WORD.findall(text)) if word not in FUNCTION}


def _stem(word: str) -> str:
    """Enough to know a word again in another form; not meant to be read."""
    for end in ("ations", "ation", "ings", "ing", "edly", "ies", "ied", "ely", "es", "ed", "ly", "s", "e", "y"):
        if word.endswith(end) and len(word) - len(end) >= 3:
            return word[: -len(end)]
    return word


def fault_of(
    original: str,
    rewrite: str,
    known: Sequence[str],
    *,
    new_words: float,
    length: tuple[float, float],
    noise: Sequence[str] = (),
) -> str | None:
    """Why a rewrite is not taken, in one sentence; None where it is. `known`: texts whose words are no new claims."""
    for term in noise:
        if term.lower() in rewrite.lower() and term.lower() not in original.lower():
            return f"It says {term!r}."
    return next(_faults(original, rewrite, " ".join((original, *known)), new_words, length), None)


def _faults(
    original: str, rewrite: str, everything: str, new_words: float, length: tuple[float, float]
) -> Iterator[str]:
    share = len(rewrite) / max(1, len(original))
    if not rewrite.strip():
        yield "It is empty."
    if not length[0] <= share <= length[1]:
        yield f"It has {share:.2f} times the characters of the original."
    if placeholders_of(original) != placeholders_of(rewrite):
        yield "Its placeholders are not those of the original."
    written, there = _spoken(rewrite), _spoken(everything)
    for what, lost, new in (
        ("number", numbers_of(original) - numbers_of(rewrite), numbers_of(rewrite) - numbers_of(everything)),
        ("name", names_of(original) - written, names_of(rewrite) - there),
    ):
        yield from (f"The {what} {one!r} is lost." for one in sorted(lost))
        yield from (f"The {what} {one!r} is new." for one in sorted(new))
    said = content_of(rewrite)
    unknown = said - content_of(everything)
    if unknown and len(unknown) / len(said) > new_words:
        yield f"{len(unknown)} of its {len(said)} content words are new, such as {min(unknown)!r}."


def _spoken(text: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(text)}
