"""Callbacks: Celery tasks of other applications that hear of one task's end, each until its message is on its queue.

A callback is stored with its task, in the same transaction. It becomes due as webhooks learn of ends: by following the
row of ended tasks (`db.watching.ended_after`), so nobody who ends a task needs to know of callbacks, and none is lost,
whoever is killed. It may be sent twice, with the same id: its sender was killed between the message and its row.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from db.watching import BEGINNING, Place, ended_after

PAGE = 500  # ended tasks of one look
FAR_BEHIND = 1000  # transactions after which the place is moved on though nobody waits


@dataclass(frozen=True, kw_only=True)
class Callback:
    """A Celery task, its queue and its own arguments; the result comes before them, unless it is `immutable`."""

    name: str
    queue: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    immutable: bool = False

    @property
    def address(self) -> str:
        """As BAKEOFF_CALLBACKS names it."""
        return f"{self.name}@{self.queue}"


@dataclass(frozen=True, kw_only=True)
class Due:
    """A callback that is ours to send now. `attempt` counts this one and fences what is said of it later."""

    task_id: UUID
    callback: Callback
    attempt: int
    result: Mapping[str, Any]  # a row of `results`


def store_callback(connection: Connection, task: UUID, callback: Callback) -> None:
    """Store what is to be called about a task, in the transaction that stored the task. The first one stays.

    A task that was there before may be ending at this moment: its row is locked, so either its end is seen here, or it
    comes after this commit and is followed.
    """
    connection.execute(
        text(
            """
            WITH known AS MATERIALIZED (SELECT id, finished_at FROM task WHERE id = :task FOR NO KEY UPDATE)
            INSERT INTO callback (task_id, name, queue, args, kwargs, immutable, status, not_before)
            SELECT id, :name, :queue, CAST(:args AS jsonb), CAST(:kwargs AS jsonb), :immutable,
                   CASE WHEN finished_at IS NULL THEN 'waiting' ELSE 'due' END,
                   CASE WHEN finished_at IS NOT NULL THEN now() END
            FROM known ON CONFLICT DO NOTHING
            """
        ),
        {
            "task": task,
            "name": callback.name,
            "queue": callback.queue,
            "args": json.dumps(callback.args),
            "kwargs": json.dumps(callback.kwargs),
            "immutable": callback.immutable,
        },
    )


def release_callbacks(connection: Connection) -> int:
    """Make the callbacks of tasks that ended due; returns how many ends were looked at.

    Any number of processes may do so: one holds the place at a time, the others pass by.
    """
    held = connection.execute(
        text(
            """
            SELECT seen_xid, seen_task, EXISTS (SELECT FROM callback WHERE status = 'waiting') AS awaited,
                   CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint) AS open_xid
            FROM callback_place FOR UPDATE SKIP LOCKED
            """
        )
    ).one_or_none()
    if held is None:
        return 0
    if not held.awaited:  # one snapshot said so and how far: what it could not see yet ends after that
        if held.open_xid - held.seen_xid > FAR_BEHIND:
            _move(connection, Place(xid=held.open_xid, task=BEGINNING.task))
        return 0
    page = ended_after(connection, Place(xid=held.seen_xid, task=held.seen_task), PAGE)
    if page:
        connection.execute(
            text(
                """
                UPDATE callback SET status = 'due', not_before = now()
                WHERE task_id = ANY(CAST(:tasks AS uuid[])) AND status = 'waiting'
                """
            ),
            {"tasks": [one.place.task for one in page]},
        )
        _move(connection, page[-1].place)
    return len(page)


def _move(connection: Connection, place: Place) -> None:
    connection.execute(
        text("UPDATE callback_place SET seen_xid = :xid, seen_task = :task"), {"xid": place.xid, "task": place.task}
    )


def claim_callbacks(connection: Connection, limit: int, lease: float, full: Collection[str] = ()) -> list[Due]:
    """Take callbacks that are due, for `lease` seconds, none for a queue that is `full`; an attempt is counted."""
    rows = connection.execute(
        text(
            """
            WITH taken AS (
                UPDATE callback SET attempt = least(attempt + 1, 30000),
                                    not_before = now() + make_interval(secs => :lease)
                WHERE task_id IN (
                    SELECT task_id FROM callback WHERE status = 'due' AND not_before <= now()
                      AND queue <> ALL (CAST(:full AS text[]))
                    ORDER BY not_before LIMIT :limit FOR UPDATE SKIP LOCKED)
                RETURNING task_id, name, queue, args, kwargs, immutable, attempt
            )
            SELECT t.*, to_jsonb(r) AS result FROM taken AS t JOIN results AS r ON r.task_id = t.task_id
            """
        ),
        {"limit": limit, "lease": lease, "full": list(full)},
    )
    return [
        Due(
            task_id=row.task_id,
            callback=Callback(
                name=row.name, queue=row.queue, args=row.args, kwargs=row.kwargs, immutable=row.immutable
            ),
            attempt=row.attempt,
            result=row.result,
        )
        for row in rows
    ]


def settle_callback(connection: Connection, due: Due, *, error: str | None, again_in: float | None) -> None:
    """Say how an attempt went. Without `error` it was sent; `again_in` seconds it is tried again, or it failed."""
    status = "sent" if error is None else "failed" if again_in is None else "due"
    connection.execute(
        text(
            """
            UPDATE callback SET status = :status, error = :error,
                   finished_at = CASE WHEN :status <> 'due' THEN now() END,
                   not_before = now() + make_interval(secs => :again_in)
            WHERE task_id = :task AND attempt = :attempt AND status = 'due'
            """
        ),
        {"task": due.task_id, "attempt": due.attempt, "status": status, "error": error, "again_in": again_in or 0.0},
    )
