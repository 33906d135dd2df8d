"""What the results page reads: a search among tasks, what people said of a task's candidates, what is left to judge.

Everything is bounded: a search reads so many of the newest tasks and says where it stopped, so that no word that occurs
nowhere reads the whole table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

MOST_SEARCHED = 20_000  # tasks of one search
MOST_LOOKED_AT = 2_000  # finished subtasks, for one that is left to judge
REQUEST_CHARS = 500


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A task in a list; `request` and `answer` are beginnings."""

    id: UUID
    source: str
    status: str
    request: str
    answer: str | None
    attachments: list[Any]
    winners: Mapping[str, Any] | None
    error: Mapping[str, Any] | None
    needs_review: bool
    created_at: datetime
    seconds: float | None  # from there to its end


@dataclass(frozen=True, kw_only=True)
class Found:
    """A page of a search, the newest first. `older`: the id before which the next one goes on; None at the end."""

    tasks: list[Listed]
    older: UUID | None


def search_tasks(
    connection: Connection,
    *,
    limit: int,
    words: str = "",
    ids: tuple[UUID, UUID] | None = None,
    source: str | None = None,
    status: str | None = None,
    before: UUID | None = None,
) -> Found:
    """Tasks whose request or source holds these words, or whose id lies between two; of this source and state only."""
    most = MOST_SEARCHED if words else limit + 1
    narrowed = {
        "source = :source": source,
        "status = :status": status,
        "id < :before": before,
        "id BETWEEN :low AND :high": ids,
    }
    where = " AND ".join([condition for condition, value in narrowed.items() if value is not None] or ["true"])
    holds = r"request ILIKE :like OR source ILIKE :like" if words else "true"
    rows = connection.execute(
        text(
            f"""
            WITH searched AS MATERIALIZED (
                SELECT id, source, status, request FROM task WHERE {where} ORDER BY id DESC LIMIT :most),
            found AS (SELECT id FROM searched WHERE {holds} ORDER BY id DESC LIMIT :limit),
            edge AS (SELECT min(id::text)::uuid AS id, count(*) AS n FROM searched)
            SELECT t.id, t.source, t.status, left(t.request, {REQUEST_CHARS}) AS request,
                   left(t.answer, {REQUEST_CHARS}) AS answer, t.attachments, t.winners, t.error, t.needs_review,
                   t.created_at, extract(epoch FROM t.finished_at - t.created_at)::float8 AS seconds,
                   edge.id AS edge, edge.n AS searched
            FROM edge LEFT JOIN found ON true LEFT JOIN task AS t ON t.id = found.id ORDER BY t.id DESC
            """  # noqa: S608 - only the fixed conditions above
        ),
        {
            "source": source,
            "status": status,
            "before": before,
            "like": f"%{_escaped(words)}%",
            "low": ids and ids[0],
            "high": ids and ids[1],
            "limit": limit + 1,
            "most": most,
        },
    ).all()
    found = [row._mapping for row in rows if row.id is not None]  # noqa: SLF001 - the documented name
    tasks = [Listed(**{name: row[name] for name in Listed.__dataclass_fields__}) for row in found[:limit]]
    if len(found) > limit:
        return Found(tasks=tasks, older=tasks[-1].id)
    return Found(tasks=tasks, older=rows[0].edge if words and rows[0].searched == most else None)


def _escaped(words: str) -> str:
    return words.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


@dataclass(frozen=True, kw_only=True)
class Said:
    """A person prefers one model's output of a subtask to another's."""

    subtask_id: UUID
    annotator: str | None
    better: str | None
    worse: str | None


def said_of(connection: Connection, subtasks: Sequence[UUID]) -> list[Said]:
    """What people said of the candidates of these subtasks, in the order of time. An index answers it."""
    rows = connection.execute(
        text(
            """
            SELECT subtask_id, annotator, better ->> 'model' AS better, worse ->> 'model' AS worse FROM preference
            WHERE subtask_id = ANY(CAST(:subtasks AS uuid[])) AND origin = 'human' ORDER BY created_at, id
            """
        ),
        {"subtasks": list(subtasks)},
    )
    return [Said(**row._mapping) for row in rows]  # noqa: SLF001 - the documented name


@dataclass(frozen=True, kw_only=True)
class ToJudge:
    """A subtask with two different outputs or more, of which somebody has not said which is best."""

    id: UUID
    task_id: UUID


def next_to_judge(
    connection: Connection, annotator: str, *, source: str | None = None, before: UUID | None = None
) -> ToJudge | None:
    """The newest finished subtask that this annotator has not judged; `before` is one that they left out."""
    narrowed = {"s.source = :source": source, "s.id < :before": before}
    where = "".join(f" AND {condition}" for condition, value in narrowed.items() if value is not None)
    row = connection.execute(
        text(
            f"""
            SELECT s.id, s.task_id
            FROM (SELECT s.id, s.task_id FROM subtask AS s WHERE s.status = 'done' {where}
                  ORDER BY s.id DESC LIMIT {MOST_LOOKED_AT}) AS s
            WHERE NOT EXISTS (SELECT FROM preference AS p
                              WHERE p.subtask_id = s.id AND p.origin = 'human' AND p.annotator = :annotator)
              AND (SELECT count(DISTINCT c.output) FROM candidate AS c
                   WHERE c.subtask_id = s.id AND c.status = 'done') > 1
            ORDER BY s.id DESC LIMIT 1
            """  # noqa: S608 - only the fixed conditions above
        ),
        {"annotator": annotator, "source": source, "before": before},
    ).one_or_none()
    return None if row is None else ToJudge(id=row.id, task_id=row.task_id)


def readings_of(connection: Connection, task: UUID) -> dict[UUID, list[Any]]:
    """By subtask, what the judge read in each order, without the prompts."""
    rows = connection.execute(
        text(
            """
            SELECT v.subtask_id, coalesce((
                SELECT jsonb_agg(CASE jsonb_typeof(o.said) WHEN 'object' THEN o.said - 'prompt' - 'swapped' - 'text'
                                 ELSE o.said END ORDER BY o.n)
                FROM jsonb_array_elements(v.orders) WITH ORDINALITY AS o (said, n)), '[]') AS orders
            FROM subtask AS s JOIN verdict AS v ON v.subtask_id = s.id WHERE s.task_id = :task
            """
        ),
        {"task": task},
    )
    return {row.subtask_id: row.orders for row in rows}


def prompts_of(connection: Connection, subtask: UUID) -> list[str]:
    """What the judge of a subtask was asked, word for word."""
    rows = connection.execute(
        text(
            """
            SELECT p.prompt FROM verdict AS v
            CROSS JOIN jsonb_array_elements(v.orders) WITH ORDINALITY AS o (said, n)
            CROSS JOIN LATERAL (VALUES (1, o.said ->> 'prompt'), (2, o.said ->> 'swapped')) AS p (place, prompt)
            WHERE v.subtask_id = :subtask AND p.prompt IS NOT NULL ORDER BY o.n, p.place
            """
        ),
        {"subtask": subtask},
    )
    return list(rows.scalars())
