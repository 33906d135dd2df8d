"""How tasks end: done or failed, expired, cancelled. Final is final; to try again is to store a new task."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import Connection, text

from db.errors import InvalidRequest, NotFound
from db.tasks import announce

if TYPE_CHECKING:
    from collections.abc import Sequence


def unfinished_business(connection: Connection, limit: int = 1000) -> list[UUID]:
    """Running tasks whose subtasks are all terminal: `finish_tasks` passed them by, since somebody held their rows."""
    rows = connection.execute(
        text(
            """
            SELECT t.id FROM task AS t
            WHERE t.status = 'running'
              AND NOT EXISTS (SELECT FROM subtask AS s WHERE s.task_id = t.id AND s.finished_at IS NULL OFFSET 0)
            LIMIT :limit
            """
        ),
        {"limit": limit},
    )
    return list(rows.scalars())


def finish_tasks(connection: Connection, task_ids: Sequence[UUID]) -> int:
    """Finish those of these tasks that run and whose subtasks are all terminal.

    A task is done where every subtask is; its answer joins the winners' outputs in plan order. Otherwise it failed, or
    expired where the deadline is all that went wrong; its error keeps every subtask's. One statement, so two callers
    that race finish a task once.
    """
    finished = connection.execute(
        text(
            """
            WITH complete AS (
                SELECT t.id FROM task AS t
                WHERE t.id = ANY(CAST(:ids AS uuid[])) AND t.status || '' = 'running'  -- rows-by-id-alone.md
                  AND (SELECT s.id FROM subtask AS s WHERE s.task_id = t.id AND s.finished_at IS NULL LIMIT 1) IS NULL
                ORDER BY t.id FOR UPDATE SKIP LOCKED
            ), outcome AS MATERIALIZED (
                SELECT s.task_id,
                       bool_and(s.status = 'done') AS done,
                       bool_or(s.status = 'failed') AS failed,
                       string_agg(c.output, E'\\n\\n' ORDER BY s.position) AS answer,
                       jsonb_object_agg(s.name, jsonb_build_object(
                           'capability', s.capability, 'model', c.model, 'candidate_id', c.id))
                           FILTER (WHERE c.id IS NOT NULL) AS winners,
                       min(v.confidence) AS confidence,
                       bool_or(v.fallback) AS fallback,
                       jsonb_object_agg(s.name, s.error) FILTER (WHERE s.error IS NOT NULL) AS errors,
                       count(*) FILTER (WHERE s.status <> 'done') AS failures
                FROM complete JOIN subtask AS s ON s.task_id = complete.id
                LEFT JOIN verdict AS v ON v.subtask_id = s.id
                LEFT JOIN candidate AS c ON c.id = v.winner_id
                GROUP BY s.task_id
            )
            UPDATE task SET
                status = CASE WHEN o.done THEN 'done' WHEN o.failed THEN 'failed' ELSE 'expired' END,
                answer = CASE WHEN o.done THEN o.answer END,
                winners = coalesce(o.winners, '{}'), artifacts = '[]', confidence = o.confidence,
                fallback = coalesce(o.fallback, false),
                error = CASE WHEN NOT o.done THEN jsonb_build_object(
                    'code', CASE WHEN o.failed THEN 'subtasks_failed' ELSE 'deadline_passed' END,
                    'message', o.failures || ' subtask(s) did not succeed: ' || coalesce((
                        SELECT string_agg(e.key || ': ' || (e.value ->> 'message'), '; ')
                        FROM jsonb_each(o.errors) AS e), 'no reason kept'),
                    'subtasks', coalesce(o.errors, '{}')) END,
                finished_at = now(), finished_xid = pg_current_xact_id()
            FROM outcome AS o
            WHERE task.id = o.task_id  -- locked above
            """
        ),
        {"ids": list(task_ids)},
    ).rowcount
    if finished:
        announce(connection, "result")
    return finished


def expire_pending(connection: Connection, limit: int = 1000) -> int:
    """Pending tasks whose deadline has passed are expired."""
    expired = connection.execute(
        text(
            """
            UPDATE task SET status = 'expired', finished_at = now(), finished_xid = pg_current_xact_id(),
                error = '{"code": "deadline_passed", "message": "The deadline passed before anybody looked at it."}'
            WHERE id IN (SELECT id FROM task WHERE status = 'pending' AND deadline <= now()
                         ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED)
            """
        ),
        {"limit": limit},
    ).rowcount
    if expired:
        announce(connection, "result")
    return expired


def cancel_tasks(connection: Connection, tasks: Sequence[UUID]) -> list[UUID]:
    """Cancel tasks that are not final, with everything under them; returns those that this call ended.

    Tokens go with the rows, so whoever works on one finds it gone at the next charge, renewal or store and discards
    what it has; nothing is interrupted, since a batch is shared. Against a result the first commit wins.
    """
    values = {"ids": sorted(tasks)}
    # In the order in which verdicts lock: subtasks, then their candidates. The tasks are ours already.
    connection.execute(text("SELECT FROM task WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR UPDATE"), values)
    connection.execute(
        text(
            """
            SELECT FROM subtask WHERE task_id = ANY(CAST(:ids AS uuid[])) AND finished_at IS NULL
            ORDER BY id FOR UPDATE
            """
        ),
        values,
    )
    cancelled = connection.execute(
        text(
            """
            WITH mine AS (
                UPDATE task SET status = 'cancelled', cancel_requested_at = now(), finished_at = now(),
                       finished_xid = pg_current_xact_id(), token = NULL, lease_until = NULL,
                       error = '{"code": "cancelled", "message": "Somebody cancelled it."}'
                WHERE id = ANY(CAST(:ids AS uuid[])) AND finished_at IS NULL
                RETURNING id
            ), subtasks AS (
                UPDATE subtask SET status = 'cancelled', finished_at = now(), token = NULL, lease_until = NULL,
                       error = '{"code": "cancelled", "message": "its task was cancelled"}'
                WHERE task_id IN (SELECT id FROM mine) AND finished_at IS NULL
            ), candidates AS (
                UPDATE candidate SET status = 'cancelled', finished_at = now(), token = NULL, lease_until = NULL,
                       error = '{"kind": "model", "code": "cancelled", "message": "Its task was cancelled."}'
                WHERE finished_at IS NULL AND subtask_id IN (
                    SELECT s.id FROM subtask AS s WHERE s.task_id IN (SELECT id FROM mine))
            )
            SELECT id FROM mine
            """
        ),
        values,
    )
    ids = list(cancelled.scalars())
    if ids:
        announce(connection, "result")
    return ids


def retry_task(connection: Connection, task: UUID) -> UUID:
    """Store a finished task again, as a new one with `retry_of`; its deadline and key stay behind.

    Raises `NotFound`, and `InvalidRequest` where the task is still open.
    """
    row = connection.execute(
        text(
            """
            WITH old AS (SELECT * FROM task WHERE id = :task FOR KEY SHARE), new AS (
                INSERT INTO task (request, capability, source, priority, options, attachments, retry_of)
                SELECT request, capability, source, priority, options, attachments, id FROM old
                WHERE finished_at IS NOT NULL RETURNING id
            )
            SELECT old.status, (SELECT id FROM new) AS id FROM old
            """
        ),
        {"task": task},
    ).one_or_none()
    if row is None:
        raise NotFound(f"No task {task}; `bakeoff results` lists the latest ones.")
    if row.id is None:
        raise InvalidRequest(f"Task {task} is {row.status}; only a finished one can be tried again.")
    new: UUID = row.id
    return new
