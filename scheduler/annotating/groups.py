"""What is loaded for annotation: groups of items in the paper's format, or candidates of this system's own subtasks.

A line of a file is `{"id", "image", "questions": [...]}`, or with `answers` and an `instruction`; `score` may be there
and is not looked at: it is what other people say. An item is a text, or a list of texts: several questions as one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from db.annotations import NewGroup
from db.errors import InvalidRequest
from db.prefer import Contest
from scheduler.labels import object_of
from worker.inputs import words_of

#: What items are called in a file, in the order in which it is looked for.
FIELDS = ("questions", "answers")
WORDS = ("instruction", "question", "text")  # what the input's words are called
MOST_ITEMS = 26  # of one group, lettered A to Z


def read_groups(lines: Iterable[str]) -> list[NewGroup]:
    """The groups of a file; blank lines are passed over. Raises `InvalidRequest`, which names the line."""
    groups: dict[str, NewGroup] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            group = _group(line)
        except InvalidRequest as error:
            raise InvalidRequest(f"Line {number}: {error}") from None
        if group.key in groups:
            raise InvalidRequest(f"Line {number}: id = {group.key!r} names a line before it, too.")
        groups[group.key] = group
    if not groups:
        raise InvalidRequest("The file has no groups: there is no line in it.")
    return list(groups.values())


def groups_of(contests: Sequence[tuple[UUID, Contest]]) -> list[NewGroup]:
    """Subtasks whose models said two different things and more; what several said in the same words is one item."""
    groups = []
    for subtask, contest in contests:
        models: dict[str, list[str]] = {}
        for candidate in contest.candidates:
            models.setdefault(candidate["output"], []).append(candidate["model"])
        if not 2 <= len(models) <= MOST_ITEMS:
            continue
        given = {
            "text": words_of(contest.inputs, contest.request, contest.results),
            "attachments": [contest.attachments[part["attachment"]] for part in contest.inputs if "attachment" in part],
        }
        items = [{"said": said, "models": names} for said, names in models.items()]
        groups.append(NewGroup(key=str(subtask), field="answers", input=given, items=items))
    return groups


def twice(groups: Sequence[NewGroup], share: float) -> list[NewGroup]:
    """The groups, of which a share wants two annotators: always the same ones, spread over the file by their keys."""
    many = math.ceil(share * len(groups) - 1e-9)
    chosen = {group.key for group in sorted(groups, key=lambda group: _spread(group.key))[:many]}
    return [replace(group, wanted=2 if group.key in chosen else 1) for group in groups]


def _spread(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _group(line: str) -> NewGroup:
    read = object_of(line)
    field = next((name for name in FIELDS if name in read), None)
    if field is None:
        raise InvalidRequest(f"neither {' nor '.join(FIELDS)}: there is nothing to score.")
    items = read[field]
    if not isinstance(items, list) or not 2 <= len(items) <= MOST_ITEMS or not all(map(_is_item, items)):
        raise InvalidRequest(f"{field} is not a list of 2 to {MOST_ITEMS} texts, or of lists of texts.")
    key = read.get("id", read.get("image"))
    if not isinstance(key, str | int) or isinstance(key, bool) or not 1 <= len(str(key)) <= 500:
        raise InvalidRequest(f"id = {key!r} is not a name; every group needs one, at most 500 characters long.")
    words = next((read[name] for name in WORDS if name in read), None)
    given = {"text": words, "image": read.get("image"), "captions": read.get("captions")}
    for name, value in given.items():
        if value is not None and not (_is_item(value) if name == "captions" else isinstance(value, str)):
            raise InvalidRequest(f"{name} = {value!r} is not a text.")
    return NewGroup(
        key=str(key),
        field=field,
        input={name: value for name, value in given.items() if value is not None},
        items=[{"said": item, "models": []} for item in items],
    )


def _is_item(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(part, str) and part.strip() for part in value)
    return isinstance(value, str) and bool(value.strip())
