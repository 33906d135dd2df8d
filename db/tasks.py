"""Transitions of tasks. Every statement that writes `task.status` is here."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import Connection, text

from db.engine import CHANNEL
from db.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, kw_only=True)
class TaskRow:
    """A task to be stored, already checked. `attachments` are references as in `db.blobs.AttachmentRef`."""

    request: str = ""
    capability: str | None = None
    source: str = "default"
    priority: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    attachments: list[dict[str, Any]] = field(default_factory=list)
    idempotency_key: str | None = None
    run_at: datetime | None = None
    deadline: datetime | None = None
    retry_of: UUID | None = None


@dataclass(frozen=True, kw_only=True)
class PendingTask:
    """A task that nobody has looked at yet, as its caller wrote it."""

    id: UUID
    request: str
    capability: str | None
    source: str
    priority: int
    options: dict[str, Any]
    attachments: list[Any]
    deadline: datetime | None


@dataclass(frozen=True, kw_only=True)
class SubtaskRow:
    """A subtask to be stored."""

    task_id: UUID
    position: int
    name: str
    capability: str
    inputs: list[dict[str, Any]]
    options: dict[str, Any]
    source: str
    priority: int
    candidates_wanted: int
    quorum: int
    judge: str
    deadline: datetime | None


class IdempotencyConflict(InvalidRequest):
    """The same idempotency key came with another body."""

    code = "idempotency_conflict"


def insert_task(connection: Connection, row: TaskRow) -> tuple[UUID, bool]:
    """Store one task. Returns its id and whether it is new.

    A row with the idempotency key of a stored one (same source) is not stored again: its id is returned where the
    bodies agree, `IdempotencyConflict` is raised where they do not. The unique index decides, so two callers that race
    get one task.
    """
    values = _values(row)
    new = connection.execute(
        text(
            """
            INSERT INTO task (request, capability, source, priority, options, attachments, idempotency_key, run_at,
                              deadline, retry_of)
            VALUES (:request, :capability, :source, :priority, CAST(:options AS jsonb), CAST(:attachments AS jsonb),
                    :idempotency_key, :run_at, :deadline, :retry_of)
            ON CONFLICT (source, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
            RETURNING id
            """
        ),
        values,
    ).scalar()
    if new is not None:
        return new, True
    stored = connection.execute(
        text(
            """
            SELECT id, (request = :request AND capability IS NOT DISTINCT FROM CAST(:capability AS text)
                        AND options = CAST(:options AS jsonb) AND attachments = CAST(:attachments AS jsonb)) AS same
            FROM task WHERE source = :source AND idempotency_key = :idempotency_key
            """
        ),
        values,
    ).one()
    if not stored.same:
        raise IdempotencyConflict(
            f"idempotency_key {row.idempotency_key!r} of source {row.source!r} belongs to task {stored.id}, which asks "
            "for something else; use a new key for a new request."
        )
    return stored.id, False


def _values(row: TaskRow) -> dict[str, Any]:
    return {
        "request": row.request,
        "capability": row.capability,
        "source": row.source,
        "priority": row.priority,
        "options": json.dumps(row.options),
        "attachments": json.dumps(row.attachments),
        "idempotency_key": row.idempotency_key,
        "run_at": row.run_at,
        "deadline": row.deadline,
        "retry_of": row.retry_of,
    }


def lock_pending(connection: Connection, limit: int) -> list[UUID]:
    """Lock up to `limit` pending tasks, most urgent first, for this transaction; other schedulers skip them."""
    rows = connection.execute(
        text(
            """
            SELECT id FROM task
            WHERE status = 'pending' AND (run_at IS NULL OR run_at <= now())
            ORDER BY priority DESC, created_at
            LIMIT :limit
            FOR UPDATE SKIP LOCKED
            """
        ),
        {"limit": limit},
    )
    return list(rows.scalars())


def read_pending(connection: Connection, tasks: Sequence[UUID]) -> list[PendingTask]:
    """What the callers of these tasks wrote. May raise for values that Python cannot hold: they come from anybody."""
    rows = connection.execute(
        text(
            """
            SELECT id, request, capability, source, priority, options, attachments, deadline
            FROM task WHERE id = ANY(CAST(:tasks AS uuid[])) ORDER BY priority DESC, created_at
            """
        ),
        {"tasks": list(tasks)},
    )
    return [PendingTask(**row._mapping) for row in rows]  # noqa: SLF001 - the documented name


def start_tasks(connection: Connection, subtasks: Sequence[SubtaskRow]) -> None:
    """Store the subtasks of locked pending tasks, all ready, and set the tasks running. One statement."""
    if not subtasks:
        return
    connection.execute(
        text(
            """
            WITH planned AS (
                INSERT INTO subtask (task_id, position, name, capability, inputs, options, source, priority,
                                     candidates_wanted, quorum, judge, deadline, status)
                SELECT task_id, position, name, capability, inputs, options, source, priority,
                       candidates_wanted, quorum, judge, deadline, 'ready'
                FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (
                    task_id uuid, position smallint, name text, capability text, inputs jsonb, options jsonb,
                    source text, priority smallint, candidates_wanted smallint, quorum smallint, judge text,
                    deadline timestamptz)
                RETURNING task_id
            )
            UPDATE task SET status = 'running'
            WHERE id IN (SELECT task_id FROM planned) AND status = 'pending'
            """
        ),
        {
            "rows": json.dumps(
                [{**vars(row), "task_id": str(row.task_id), "deadline": _iso(row.deadline)} for row in subtasks],
                allow_nan=False,
            )
        },
    )


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def reject_tasks(connection: Connection, reasons: dict[UUID, dict[str, str]]) -> None:
    """End locked pending tasks that can never run; each keeps its reason (`{"code", "message"}`). One statement."""
    if not reasons:
        return
    connection.execute(
        text(
            """
            UPDATE task SET status = 'failed', error = r.error, finished_at = now(),
                            finished_xid = pg_current_xact_id()
            FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (id uuid, error jsonb)
            WHERE task.id = r.id AND task.status = 'pending'
            """
        ),
        {"rows": json.dumps([{"id": str(task), "error": error} for task, error in reasons.items()])},
    )
    announce(connection, "result")


def finish_tasks(connection: Connection, task_ids: Sequence[UUID] | None = None) -> int:
    """Finish running tasks whose subtasks are all terminal; of the given ones, or whichever there are.

    A task is done where every subtask is; its answer joins the winners' outputs in plan order. Otherwise it failed,
    and its error keeps every subtask's. One statement, so two callers that race finish a task once.
    """
    finished = connection.execute(
        text(
            f"""
            WITH complete AS (
                SELECT t.id FROM task AS t
                WHERE t.status = 'running' {"AND t.id = ANY(CAST(:ids AS uuid[]))" if task_ids is not None else ""}
                  AND NOT EXISTS (SELECT FROM subtask AS s WHERE s.task_id = t.id AND s.finished_at IS NULL)
                ORDER BY t.id FOR UPDATE SKIP LOCKED
            ), outcome AS (
                SELECT s.task_id,
                       bool_and(s.status = 'done') AS done,
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
                status = CASE WHEN o.done THEN 'done' ELSE 'failed' END,
                answer = CASE WHEN o.done THEN o.answer END,
                winners = coalesce(o.winners, '{{}}'), artifacts = '[]', confidence = o.confidence,
                fallback = coalesce(o.fallback, false),
                error = CASE WHEN NOT o.done THEN jsonb_build_object(
                    'code', 'subtasks_failed',
                    'message', o.failures || ' subtask(s) did not succeed: ' || coalesce((
                        SELECT string_agg(e.key || ': ' || (e.value ->> 'message'), '; ')
                        FROM jsonb_each(o.errors) AS e), 'no reason kept'),
                    'subtasks', coalesce(o.errors, '{{}}')) END,
                finished_at = now(), finished_xid = pg_current_xact_id()
            FROM outcome AS o
            WHERE task.id = o.task_id AND task.status = 'running'
            """  # noqa: S608 - no value is interpolated
        ),
        {"ids": list(task_ids)} if task_ids is not None else {},
    ).rowcount
    if finished:
        announce(connection, "result")
    return finished


def announce(connection: Connection, what: str) -> None:
    """Tell listeners at commit. The payload is a constant: it only shortens a wait, polling finds the same."""
    connection.execute(text("SELECT pg_notify(:channel, :what)"), {"channel": CHANNEL, "what": what})
