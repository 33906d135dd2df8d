"""What those who wait for tasks read: whose a task is, where it stands now, and which have ended since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

#: What webhooks and callbacks tell of a task that ended: the fields of `results` but the request.
TOLD = ("task_id", "status", "source", "answer", "artifacts", "winners", "confidence", "fallback", "error",
        "finished_at", "retry_of")  # fmt: skip


def source_of(connection: Connection, task: UUID) -> str | None:
    """The source of a task; None where there is none."""
    source: str | None = connection.execute(
        text("SELECT source FROM task WHERE id = :task"), {"task": task}
    ).scalar_one_or_none()
    return source


def names_file(connection: Connection, source: str, digest: str) -> bool:
    """Whether a task of this source names a stored file. An index answers it."""
    found: bool = connection.execute(
        text(
            """
            SELECT EXISTS (SELECT FROM task WHERE attachments <> '[]' AND source = :source
                             AND attachments @> jsonb_build_array(jsonb_build_object('sha256', CAST(:digest AS text))))
            """
        ),
        {"source": source, "digest": digest},
    ).scalar_one()
    return found


def progress_of(connection: Connection, tasks: Sequence[UUID]) -> dict[UUID, dict[str, Any]]:
    """Where each of these tasks stands, with its subtasks and candidates by name; unknown ones are left out."""
    rows = connection.execute(
        text(
            """
            SELECT t.id, jsonb_build_object('id', t.id, 'status', t.status, 'subtasks', coalesce((
                SELECT jsonb_agg(jsonb_build_object('name', s.name, 'status', s.status, 'candidates', coalesce((
                    SELECT jsonb_agg(jsonb_build_object('model', c.model, 'status', c.status) ORDER BY c.rank)
                    FROM candidate AS c WHERE c.subtask_id = s.id), '[]')) ORDER BY s.position)
                FROM subtask AS s WHERE s.task_id = t.id), '[]')) AS progress
            FROM task AS t WHERE t.id = ANY(CAST(:tasks AS uuid[]))
            """
        ),
        {"tasks": list(tasks)},
    )
    return {row.id: row.progress for row in rows}


@dataclass(frozen=True, kw_only=True, order=True)
class Place:
    """A place in the row of ended tasks: nothing that commits later comes before it."""

    xid: int
    task: UUID


#: Before every task.
BEGINNING = Place(xid=0, task=UUID(int=0))


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A task that ended."""

    place: Place
    source: str
    status: str
    finished_at: datetime
    error: Mapping[str, Any] | None


def end_of_row(connection: Connection) -> Place:
    """The place that only tasks ending from now on come after."""
    xid: int = connection.execute(
        text("SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint)")
    ).scalar_one()
    return Place(xid=xid, task=UUID(int=0))


def ended_after(connection: Connection, place: Place, limit: int, source: str | None = None) -> list[Ended]:
    """Tasks that ended after a place, in order; none is ever passed by.

    What a transaction that is still open could come before is held back until that one has ended.
    """
    rows = connection.execute(
        text(
            f"""
            SELECT id, source, status, finished_at, error, CAST(CAST(finished_xid AS text) AS bigint) AS xid
            FROM task
            WHERE finished_xid IS NOT NULL
              AND (finished_xid, id) > (CAST(CAST(:xid AS text) AS xid8), CAST(:task AS uuid))
              AND finished_xid < pg_snapshot_xmin(pg_current_snapshot()) {"AND source = :source" if source else ""}
            ORDER BY finished_xid, id LIMIT :limit
            """  # noqa: S608 - one of two constants
        ),
        {"xid": str(place.xid), "task": place.task, "limit": limit, "source": source},
    )
    return [
        Ended(
            place=Place(xid=row.xid, task=row.id),
            source=row.source,
            status=row.status,
            finished_at=row.finished_at,
            error=row.error,
        )
        for row in rows
    ]
