"""What a record says, whatever its form: turns of question and answer, an image, captions, a type.

LLaVA's form is `{"id", "image", "conversations": [{"from": "human" | "gpt", "value"}, ...]}`; any other record says its
one turn in two fields, which the recipe names.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker.reward.text import without_image_mark

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scheduler.curation.recipe import Input

TYPES = ("conversation", "detail", "complex")
MARK = "<image>"
_HUMAN, _MODEL = {"human", "user"}, {"gpt", "assistant"}
_DETAIL = re.compile(
    r"\b(describe|description|detail(ed|s)?|comprehensive|elaborate|thorough|rundown|characteri[sz]e|"
    r"explain the (visual|various)|walk through|narrate|illustrate|portray|clarify the contents|"
    r"break down the elements|give an? .*(account|overview))\b",
    re.IGNORECASE,
)


class Unreadable(ValueError):
    """A record that says no turns; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A question and the answer to it."""

    question: str
    answer: str

    @property
    def asked(self) -> str:
        """The question without the mark of the image."""
        return without_image_mark(self.question)


def turns_of(data: Any, names: Input) -> list[Turn]:
    """The turns of a record. Raises `Unreadable`."""
    if not isinstance(data, dict):
        raise Unreadable("it is not an object")
    if "conversations" in data:
        return _conversation(data["conversations"])
    question, answer, more = data.get(names.question), data.get(names.answer), data.get(names.context, "")
    for field, value in ((names.question, question), (names.answer, answer)):
        if not isinstance(value, str):
            raise Unreadable(f"it has neither conversations nor a text {field!r}")
    asked = f"{question}\n\n{more}" if isinstance(more, str) and more.strip() else str(question)
    return [Turn(question=asked, answer=str(answer))]


def _conversation(said: Any) -> list[Turn]:
    if not isinstance(said, list) or not said:
        raise Unreadable("conversations is not a list of turns")
    if len(said) % 2:
        raise Unreadable(f"conversations has {len(said)} entries: a question has no answer")
    values = []
    for place, entry in enumerate(said):
        if not isinstance(entry, dict) or not isinstance(entry.get("value"), str):
            raise Unreadable(f"conversations[{place}] has no text in 'value'")
        said_by, who = entry.get("from"), "gpt" if place % 2 else "human"
        if not isinstance(said_by, str) or said_by not in (_MODEL if place % 2 else _HUMAN):
            raise Unreadable(f"conversations[{place}] is from {said_by!r:.40}, not from {who}")
        values.append(entry["value"])
    return [Turn(question=values[place], answer=values[place + 1]) for place in range(0, len(values), 2)]


def with_answers(data: dict[str, Any], answers: Sequence[str], names: Input) -> dict[str, Any]:
    """The record with other answers, its form and everything else as it was."""
    out = copy.deepcopy(data)
    if "conversations" not in out:
        out[names.answer] = answers[0]
        return out
    for turn, answer in enumerate(answers):
        out["conversations"][2 * turn + 1]["value"] = answer
    return out


def captions_of(data: dict[str, Any], names: Input) -> list[str]:
    """Texts that stand in for the record's image."""
    said = data.get(names.captions, ())
    if isinstance(said, str):
        return [said]
    return [one for one in said if isinstance(one, str)] if isinstance(said, list) else []


def image_of(data: Any) -> str | None:
    """The name of the record's image."""
    image = data.get("image") if isinstance(data, dict) else None
    return image if isinstance(image, str) and image else None


def type_of(data: Any, turns: Sequence[Turn], names: Input) -> str:
    """Conversation, detail or complex: what the record's field says, by its first letters; else by its shape.

    Several turns are a conversation; one that asks for a description is detail; one that asks anything else is complex.
    """
    said = data.get(names.type) if isinstance(data, dict) else None
    if isinstance(said, str):
        for known in TYPES:
            if said.lower().startswith(known[:4]):
                return known
    if len(turns) > 1:
        return TYPES[0]
    return TYPES[1] if turns and _DETAIL.search(turns[0].question) else TYPES[2]


def key_of(data: Any, turns: Sequence[Turn]) -> str:
    """What makes two records the same: image and turns; of one without turns, everything that it says."""
    said: Any = [image_of(data), [[turn.question, turn.answer] for turn in turns]] if turns else data
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()
