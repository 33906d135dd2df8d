"""What an annotator sees, and what comes back: items without their models, in an order of this annotator's own.

Scores travel in the order shown, and are stored in the group's. The order is made from a seed that is stored when the
group is given away, so it is the same after a break; no two annotators see the same one, so that the first place is
nobody's advantage. A page and the command line call these functions, each in a transaction of the caller's.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from db.annotations import (
    AnnotationState,
    Assigned,
    SetOfGroups,
    assigned,
    lapse,
    last_finished,
    set_annotation,
    take_group,
)
from db.errors import InvalidRequest, NotFound
from scheduler.annotating.criteria import Criteria
from worker.cleaning import clean_text
from worker.reward.text import without_image_mark

#: A group left open this long is offered to others: a working day and a night, so that nobody loses one over lunch.
LAPSE_SECONDS = 86_400.0

Scores = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A group as one annotator sees it. `scores` are those given before, one per item, None where there are none."""

    group: UUID
    field: str
    input: dict[str, Any]
    items: list[list[str]]  # each the texts of one item
    scores: list[Scores | None]


def next_group(connection: Connection, to_score: SetOfGroups, annotator: str) -> Shown | None:
    """The group that the annotator left open, else one that wants them; None where no group does."""
    name = annotator_name(annotator)
    lapse(connection, to_score.id, name, LAPSE_SECONDS)
    group = take_group(connection, to_score.id, name, secrets.randbits(62))
    return None if group is None else _shown(assigned(connection, to_score.id, name, group))


def store_scores(
    connection: Connection,
    to_score: SetOfGroups,
    annotator: str,
    group: UUID,
    scores: Sequence[Mapping[str, Any] | None],
) -> bool:
    """Store scores in the order shown, one object of all criteria per item; returns whether the group is finished.

    None stands for an item that has no scores yet: the group stays open. Raises `InvalidRequest` for anything else but
    numbers from 0 to 1 for every criterion, `NotFound` where the annotator was never given the group.
    """
    name = annotator_name(annotator)
    given = assigned(connection, to_score.id, name, group)
    criteria = Criteria.model_validate(to_score.criteria)
    if len(scores) != len(given.items):
        raise InvalidRequest(f"{len(scores)} scores for {len(given.items)} items; an item left for later is null.")
    read = [None if one is None else _checked(one, criteria, place) for place, one in enumerate(scores, start=1)]
    finished = None not in read
    if not finished and given.status == AnnotationState.DONE:
        raise InvalidRequest("This group is finished: undo it first, or score all of its items.")
    stored: list[Scores | None] = [None] * len(read)
    for place, one in zip(_order(given), read, strict=True):
        stored[place] = one
    set_annotation(connection, group, name, AnnotationState.DONE if finished else AnnotationState.OPEN, stored)
    return finished


def skip_group(connection: Connection, to_score: SetOfGroups, annotator: str, group: UUID) -> None:
    """The annotator cannot say: the group goes to somebody else. Raises `NotFound`, or `InvalidRequest` once done."""
    name = annotator_name(annotator)
    given = assigned(connection, to_score.id, name, group)
    if given.status == AnnotationState.DONE:
        raise InvalidRequest("This group is finished: undo it first.")
    set_annotation(connection, group, name, AnnotationState.SKIPPED, given.scores)


def undo(connection: Connection, to_score: SetOfGroups, annotator: str) -> Shown:
    """Open the group that the annotator finished last, with its scores. Raises `NotFound` where there is none."""
    name = annotator_name(annotator)
    group = last_finished(connection, to_score.id, name)
    if group is None:
        raise NotFound(f"{name!r} has finished no group of {to_score.name!r}: there is nothing to undo.")
    given = assigned(connection, to_score.id, name, group)
    set_annotation(connection, group, name, AnnotationState.OPEN, given.scores)
    return _shown(given)


def annotator_name(name: str) -> str:
    """A name fit to be stored. Raises `InvalidRequest`."""
    clean = clean_text(name).strip()
    if not 1 <= len(clean) <= 100:
        raise InvalidRequest(f"annotator = {name[:40]!r} is not a name of 1 to 100 characters.")
    return clean


def _shown(given: Assigned) -> Shown:
    order = _order(given)
    scores = given.scores or [None] * len(given.items)
    return Shown(
        group=given.group_id,
        field=given.field,
        input=given.input,
        items=[_texts(given.items[place]["said"]) for place in order],
        scores=[scores[place] for place in order],
    )


def _order(given: Assigned) -> list[int]:
    """Places of the items in the order shown; by hashes, which no release of Python will reshuffle."""
    return sorted(range(len(given.items)), key=lambda n: hashlib.sha256(f"{given.seed} {n}".encode()).digest())


def _texts(said: str | list[str]) -> list[str]:
    """An item without the mark of an image, which says where it comes from."""
    return [without_image_mark(part) for part in ([said] if isinstance(said, str) else said)]


def _checked(scores: Mapping[str, Any], criteria: Criteria, place: int) -> Scores:
    if not isinstance(scores, Mapping):
        raise InvalidRequest(f"Item {place}: {scores!r} is not an object of scores by criterion, nor null.")
    if wrong := sorted(set(scores) ^ set(criteria.names)):
        what = "is no criterion" if wrong[0] in scores else "has no score"
        raise InvalidRequest(f"Item {place}: {wrong[0]!r} {what}; it takes: {', '.join(criteria.names)}.")
    for name, value in scores.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise InvalidRequest(f"Item {place}: {name} = {value!r} is not a number from 0 to 1.")
    return {name: float(scores[name]) for name in criteria.names}
