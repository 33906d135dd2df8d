"""Annotation: sets of groups, who scores which group, and what they said. Every statement about them.

`annotation_group.taken` counts its annotations that are open or done, and is written by the statement that gives a
group away: whoever meets another at a group's row reads the count anew before taking it, so no group goes to more
annotators than it wants, however many ask at once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from db.errors import InvalidRequest, NotFound
from db.prefer import Contest
from db.subtasks import READ

AT_ONCE = 1000  # groups of one statement


class AnnotationState(StrEnum):
    """open → done | skipped | lapsed; `undo` opens what is done."""

    OPEN = "open"  # the annotator is at it
    DONE = "done"  # every item has its scores
    SKIPPED = "skipped"  # the annotator cannot say; somebody else is asked
    LAPSED = "lapsed"  # left open for too long: somebody else may be asked, and its own annotator again


@dataclass(frozen=True, kw_only=True)
class NewGroup:
    """Items to score. `said` is a text, or a list of texts where one item is several questions."""

    key: str
    field: str
    input: dict[str, Any]
    items: list[dict[str, Any]]  # {"said", "models"}
    wanted: int = 1


@dataclass(frozen=True, kw_only=True)
class SetOfGroups:
    """A set by its name, with the content of its criteria file."""

    id: UUID
    name: str
    criteria: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Assigned:
    """A group in the hands of an annotator; `scores` are those given so far."""

    group_id: UUID
    field: str
    input: dict[str, Any]
    items: list[dict[str, Any]]
    seed: int
    status: str
    scores: list[dict[str, float] | None] | None


@dataclass(frozen=True, kw_only=True)
class Annotated:
    """A group with all that is done about it: `annotations` holds {"annotator", "scores"}, in order of the names."""

    key: str
    field: str
    input: dict[str, Any]
    items: list[dict[str, Any]]
    wanted: int
    annotations: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one annotator has in each state."""

    annotator: str
    done: int
    open: int
    skipped: int
    lapsed: int


def add_groups(connection: Connection, name: str, criteria: dict[str, Any], groups: Sequence[NewGroup]) -> int:
    """Add groups to a set, which is made if need be; those whose key it has are passed over. Returns how many are new.

    Raises `InvalidRequest` where the set has other criteria.
    """
    connection.execute(
        text(
            """
            INSERT INTO annotation_set (name, criteria) VALUES (:name, CAST(:criteria AS jsonb)) ON CONFLICT DO NOTHING
            """
        ),
        {"name": name, "criteria": json.dumps(criteria)},
    )
    row = connection.execute(  # the lock keeps positions in order where two load at once
        text("SELECT id, criteria FROM annotation_set WHERE name = :name FOR UPDATE"), {"name": name}
    ).one()
    if row.criteria != criteria:
        raise InvalidRequest(
            f"The set {name!r} is scored by {row.criteria['version']}, not by these {criteria['version']}: "
            "choose another --name, or leave --criteria as it was."
        )
    new = 0
    for start in range(0, len(groups), AT_ONCE):
        rows = [
            {"key": group.key, "field": group.field, "input": group.input, "items": group.items, "wanted": group.wanted}
            for group in groups[start : start + AT_ONCE]
        ]
        new += connection.execute(
            text(
                """
                INSERT INTO annotation_group (set_id, position, key, field, input, items, wanted)
                SELECT :set, (SELECT coalesce(max(position), 0) FROM annotation_group WHERE set_id = :set)
                             + row_number() OVER (ORDER BY r.n), r.row ->> 'key', r.row ->> 'field', r.row -> 'input',
                       r.row -> 'items', CAST(r.row ->> 'wanted' AS smallint)
                FROM jsonb_array_elements(CAST(:rows AS jsonb)) WITH ORDINALITY AS r (row, n)
                ON CONFLICT (set_id, key) DO NOTHING
                """
            ),
            {"set": row.id, "rows": json.dumps(rows)},
        ).rowcount
    return new


def find_set(connection: Connection, name: str) -> SetOfGroups:
    """A set by its name. Raises `NotFound`, which names those there are."""
    row = connection.execute(
        text("SELECT id, name, criteria FROM annotation_set WHERE name = :name"), {"name": name}
    ).one_or_none()
    if row is None:
        there = ", ".join(set_names(connection)) or "none yet: `bakeoff annotate load` makes one"
        raise NotFound(f"No set {name!r} to annotate; there are: {there}.")
    return SetOfGroups(**row._mapping)  # noqa: SLF001 - the documented name


def set_names(connection: Connection) -> list[str]:
    """All sets, the latest first."""
    return list(connection.execute(text("SELECT name FROM annotation_set ORDER BY id DESC")).scalars())


def contests_done(connection: Connection, capability: str, limit: int) -> list[tuple[UUID, Contest]]:
    """The latest `limit` subtasks of a capability that are done, with their candidates that have an output.

    By index: `ix_subtask_done`.
    """
    rows = connection.execute(
        text(
            f"""
            SELECT s.id, s.capability, s.inputs, t.request, t.attachments, {READ} AS results, coalesce((
                SELECT jsonb_agg(jsonb_build_object('id', c.id, 'model', c.model, 'status', c.status,
                                                    'output', c.output) ORDER BY c.rank)
                FROM candidate AS c WHERE c.subtask_id = s.id AND c.status = 'done'), '[]') AS candidates
            FROM (SELECT * FROM subtask WHERE capability = :capability AND status = 'done'
                  ORDER BY finished_at DESC LIMIT :limit) AS s
            JOIN task AS t ON t.id = s.task_id
            ORDER BY s.finished_at
            """  # noqa: S608 - a constant
        ),
        {"capability": capability, "limit": limit},
    ).mappings()
    return [(row["id"], Contest(**{name: row[name] for name in row if name != "id"})) for row in rows]


def take_group(connection: Connection, set_id: UUID, annotator: str, seed: int) -> UUID | None:
    """Give an annotator the group that is theirs already, else the first one that wants somebody; None where none does.

    First whatever nobody else is taking at this moment; where that is nothing, wait for those who are.
    """
    for patience in ("SKIP LOCKED", ""):
        taken: UUID | None = connection.execute(
            text(
                f"""
                WITH mine AS (
                    SELECT a.group_id FROM annotation AS a JOIN annotation_group AS g ON g.id = a.group_id
                    WHERE a.annotator = :annotator AND g.set_id = :set AND a.status = 'open'
                    ORDER BY a.assigned_at DESC LIMIT 1
                ), free AS MATERIALIZED (
                    SELECT g.id FROM annotation_group AS g
                    WHERE g.set_id = :set AND g.taken < g.wanted AND NOT EXISTS (SELECT FROM mine)
                      AND NOT EXISTS (SELECT FROM annotation AS a WHERE a.group_id = g.id
                                        AND a.annotator = :annotator AND a.status <> 'lapsed')
                    ORDER BY g.position LIMIT 1 FOR UPDATE OF g {patience}
                ), given AS (
                    INSERT INTO annotation (group_id, annotator, seed) SELECT id, :annotator, :seed FROM free
                    ON CONFLICT (group_id, annotator) DO UPDATE SET status = 'open', assigned_at = now()
                        WHERE annotation.status = 'lapsed'
                    RETURNING group_id
                ), counted AS (
                    UPDATE annotation_group AS g SET taken = g.taken + 1 FROM given WHERE g.id = given.group_id
                )
                SELECT group_id FROM mine UNION ALL SELECT group_id FROM given
                """  # noqa: S608 - a constant
            ),
            {"set": set_id, "annotator": annotator, "seed": seed},
        ).scalar_one_or_none()
        if taken is not None:
            return taken
    return None


def lapse(connection: Connection, set_id: UUID, annotator: str, seconds: float) -> int:
    """Give back what others than `annotator` left open for `seconds`. Returns how many groups.

    It waits for nobody, neither for an annotation nor for its group: two that look at once could wait for each other.
    """
    return connection.execute(
        text(
            """
            WITH late AS (
                UPDATE annotation SET status = 'lapsed'
                WHERE (group_id, annotator) IN (
                    SELECT a.group_id, a.annotator FROM annotation AS a JOIN annotation_group AS g ON g.id = a.group_id
                    WHERE g.set_id = :set AND a.status = 'open' AND a.annotator <> :annotator
                      AND a.assigned_at < now() - make_interval(secs => :seconds)
                    FOR UPDATE OF a, g SKIP LOCKED)
                RETURNING group_id
            )
            UPDATE annotation_group AS g SET taken = g.taken - l.count
            FROM (SELECT group_id, count(*) AS count FROM late GROUP BY group_id) AS l WHERE g.id = l.group_id
            """
        ),
        {"set": set_id, "annotator": annotator, "seconds": seconds},
    ).rowcount


def assigned(connection: Connection, set_id: UUID, annotator: str, group: UUID) -> Assigned:
    """A group as an annotator has it, locked. Raises `NotFound` where it never was theirs."""
    row = connection.execute(
        text(
            """
            SELECT g.id AS group_id, g.field, g.input, g.items, a.seed, a.status, a.scores
            FROM annotation AS a JOIN annotation_group AS g ON g.id = a.group_id
            WHERE a.group_id = :group AND a.annotator = :annotator AND g.set_id = :set FOR UPDATE OF a
            """
        ),
        {"set": set_id, "group": group, "annotator": annotator},
    ).one_or_none()
    if row is None:
        raise NotFound(
            f"Group {group} of this set was never given to {annotator!r}: `bakeoff annotate next` gives one."
        )
    return Assigned(**row._mapping)  # noqa: SLF001 - the documented name


def set_annotation(
    connection: Connection,
    group: UUID,
    annotator: str,
    status: AnnotationState,
    scores: Sequence[dict[str, float] | None] | None,
) -> None:
    """Write an annotation's state and scores; the group counts it where it is open or done, and only there."""
    connection.execute(
        text(
            """
            WITH before AS (
                SELECT group_id, annotator, status IN ('open', 'done') AS counted FROM annotation
                WHERE group_id = :group AND annotator = :annotator FOR UPDATE
            ), written AS (
                UPDATE annotation AS a SET status = :status, scores = CAST(:scores AS jsonb),
                    assigned_at = CASE WHEN :status = 'open' THEN now() ELSE a.assigned_at END,
                    finished_at = CASE WHEN :status = 'done' THEN clock_timestamp() END
                FROM before AS b WHERE a.group_id = b.group_id AND a.annotator = b.annotator
                RETURNING a.group_id, CAST(:status IN ('open', 'done') AS int) - CAST(b.counted AS int) AS more
            )
            UPDATE annotation_group AS g SET taken = g.taken + w.more FROM written AS w
            WHERE g.id = w.group_id AND w.more <> 0
            """
        ),
        {
            "group": group,
            "annotator": annotator,
            "status": str(status),
            "scores": None if scores is None else json.dumps(list(scores)),
        },
    )


def last_finished(connection: Connection, set_id: UUID, annotator: str) -> UUID | None:
    """The group that an annotator finished last, if any."""
    found: UUID | None = connection.execute(
        text(
            """
            SELECT a.group_id FROM annotation AS a JOIN annotation_group AS g ON g.id = a.group_id
            WHERE a.annotator = :annotator AND g.set_id = :set AND a.status = 'done'
            ORDER BY a.finished_at DESC LIMIT 1
            """
        ),
        {"set": set_id, "annotator": annotator},
    ).scalar_one_or_none()
    return found


def annotated(connection: Connection, set_id: UUID) -> list[Annotated]:
    """Every group of a set, in its order, with the annotations that are done."""
    rows = connection.execute(
        text(
            """
            SELECT g.key, g.field, g.input, g.items, g.wanted, coalesce((
                SELECT jsonb_agg(jsonb_build_object('annotator', a.annotator, 'scores', a.scores) ORDER BY a.annotator)
                FROM annotation AS a WHERE a.group_id = g.id AND a.status = 'done'), '[]') AS annotations
            FROM annotation_group AS g WHERE g.set_id = :set ORDER BY g.position
            """
        ),
        {"set": set_id},
    )
    return [Annotated(**row._mapping) for row in rows]  # noqa: SLF001 - the documented name


def shares(connection: Connection, set_id: UUID) -> list[Share]:
    """What each annotator of a set did, in the order of their names."""
    rows = connection.execute(
        text(
            """
            SELECT a.annotator, count(*) FILTER (WHERE a.status = 'done') AS done,
                   count(*) FILTER (WHERE a.status = 'open') AS open,
                   count(*) FILTER (WHERE a.status = 'skipped') AS skipped,
                   count(*) FILTER (WHERE a.status = 'lapsed') AS lapsed
            FROM annotation AS a JOIN annotation_group AS g ON g.id = a.group_id
            WHERE g.set_id = :set GROUP BY a.annotator ORDER BY a.annotator
            """
        ),
        {"set": set_id},
    )
    return [Share(**row._mapping) for row in rows]  # noqa: SLF001 - the documented name
