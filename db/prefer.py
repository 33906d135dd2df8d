"""Preferences, written: for this input, this output is better than that one.

A preference's id is made from what it says, so that saying it twice stores it once, without a lock and whoever comes
first. About a subtask, one annotator has one opinion of a pair of models: the last one. Anywhere else every opinion is
a row of its own; the same line of a file is stored once, however often the file is imported.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from db.subtasks import READ

AT_ONCE = 1000  # rows of one statement: more gain nothing

#: Who may say what is better (`preference.origin`).
ORIGINS = ("human", "judge", "import")


@dataclass(frozen=True, kw_only=True)
class Side:
    """An output, and the model that gave it where that is known."""

    text: str
    model: str | None = None


@dataclass(frozen=True, kw_only=True)
class NewPreference:
    """`better` is better than `worse` for `text` and these files (`{"sha256": ..., "name": ...}`).

    `group` is what splits go by; by default rows that share their files, or else their text, share their group. `key`
    tells two equal rows of a file apart.
    """

    capability: str
    text: str
    better: Side
    worse: Side
    attachments: Sequence[Mapping[str, Any]] = ()
    origin: str = "import"
    annotator: str | None = None
    subtask_id: UUID | None = None
    group: str | None = None
    key: str | None = None

    @property
    def group_key(self) -> str:
        """The given group, else the digests of the files, else that of the text."""
        if self.group is not None:
            return self.group
        files = sorted({str(file.get("sha256")) for file in self.attachments})
        return f"file:{'+'.join(files)}" if files else f"text:{hashlib.sha256(self.text.encode()).hexdigest()}"

    @property
    def id(self) -> UUID:
        """The same for whoever says the same; version 8, which RFC 9562 leaves to its maker."""
        said: list[Any] = [self.origin, self.annotator]
        if self.subtask_id is not None:
            said += [str(self.subtask_id), *sorted([str(self.better.model), str(self.worse.model)])]
        else:
            sides = [[side.text, side.model] for side in (self.better, self.worse)]
            said += [self.capability, self.group_key, self.text, [dict(file) for file in self.attachments], sides]
            said.append(self.key)
        digest = bytearray(hashlib.sha256(json.dumps(said, sort_keys=True).encode()).digest()[:16])
        digest[6] = digest[6] & 0x0F | 0x80
        digest[8] = digest[8] & 0x3F | 0x80
        return UUID(bytes=bytes(digest))


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What became of preferences: new, changed (the annotator thinks otherwise now), or there already."""

    new: int = 0
    changed: int = 0
    known: int = 0


def store_preferences(connection: Connection, preferences: Sequence[NewPreference]) -> Stored:
    """Store any number of preferences, a thousand per statement, in the transaction of the caller."""
    rows = {preference.id: preference for preference in preferences}
    ids = sorted(rows)  # everybody takes them in the same order, and nobody waits in a ring
    new = changed = 0
    for start in range(0, len(ids), AT_ONCE):
        written = connection.execute(
            text(
                """
                INSERT INTO preference (id, capability, origin, annotator, subtask_id, group_key, input, better, worse)
                SELECT r.* FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (
                    id uuid, capability text, origin text, annotator text, subtask_id uuid, group_key text, input jsonb,
                    better jsonb, worse jsonb)
                ON CONFLICT (id) DO UPDATE SET better = excluded.better, worse = excluded.worse, created_at = now()
                WHERE preference.better <> excluded.better
                RETURNING xmax = 0 AS new
                """
            ),
            {"rows": json.dumps([_row(id_, rows[id_]) for id_ in ids[start : start + AT_ONCE]])},
        )
        found = [row.new for row in written]
        new += sum(found)
        changed += len(found) - sum(found)
    return Stored(new=new, changed=changed, known=len(preferences) - new - changed)


def _row(id_: UUID, preference: NewPreference) -> dict[str, Any]:
    return {
        "id": str(id_),
        "capability": preference.capability,
        "origin": preference.origin,
        "annotator": preference.annotator,
        "subtask_id": None if preference.subtask_id is None else str(preference.subtask_id),
        "group_key": preference.group_key,
        "input": {"text": preference.text, "attachments": [dict(file) for file in preference.attachments]},
        "better": {"text": preference.better.text, "model": preference.better.model},
        "worse": {"text": preference.worse.text, "model": preference.worse.model},
    }


@dataclass(frozen=True, kw_only=True)
class Comparable:
    """A subtask, by its id or its task's, and how many of its candidates have an output."""

    id: UUID
    task_id: UUID
    name: str
    done: int


def comparable_subtasks(connection: Connection, low: UUID, high: UUID) -> list[Comparable]:
    """Up to 257 subtasks whose id, or whose task's id, lies between two ids, in the order of their plan."""
    rows = connection.execute(
        text(
            """
            SELECT s.id, s.task_id, s.name,
                   (SELECT count(*) FROM candidate AS c WHERE c.subtask_id = s.id AND c.status = 'done') AS done
            FROM (SELECT id, task_id, name, position FROM subtask WHERE id BETWEEN :low AND :high
                  UNION
                  SELECT id, task_id, name, position FROM subtask WHERE task_id BETWEEN :low AND :high
                  ORDER BY task_id, position LIMIT 257) AS s
            ORDER BY s.task_id, s.position
            """
        ),
        {"low": low, "high": high},
    )
    return [Comparable(**row._mapping) for row in rows]  # noqa: SLF001 - the documented name


@dataclass(frozen=True, kw_only=True)
class Contest:
    """A subtask with what its models read, by reference, and its candidates (`id`, `model`, `status`, `output`)."""

    capability: str
    inputs: list[dict[str, Any]]
    request: str
    attachments: list[dict[str, Any]]
    results: dict[str, str] | None  # what the winners said whose output the inputs name
    candidates: list[dict[str, Any]]


def contest_of(connection: Connection, subtask: UUID) -> Contest | None:
    """What a preference about a subtask needs; None where it is gone."""
    row = connection.execute(
        text(
            f"""
            SELECT s.capability, s.inputs, t.request, t.attachments, {READ} AS results, coalesce((
                SELECT jsonb_agg(jsonb_build_object('id', c.id, 'model', c.model, 'status', c.status,
                                                    'output', c.output) ORDER BY c.rank)
                FROM candidate AS c WHERE c.subtask_id = s.id), '[]') AS candidates
            FROM subtask AS s JOIN task AS t ON t.id = s.task_id WHERE s.id = :subtask
            """  # noqa: S608 - a constant
        ),
        {"subtask": subtask},
    ).one_or_none()
    return None if row is None else Contest(**row._mapping)  # noqa: SLF001 - the documented name
