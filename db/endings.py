"""How tasks end: done or failed, expired, cancelled. Final is final; to try again is to store a new task."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import Connection, text

from db.errors import InvalidRequest, NotFound
from db.logs import get_logger, portions
from db.states import TaskState
from db.tasks import announce
from db.tracing import here

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

log = get_logger(__name__)


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


#: What the subtasks of the tasks in `complete` came to.
OUTCOME = """
SELECT s.task_id, bool_and(s.status = 'done') AS done, bool_or(s.status = 'done') AS any_done,
       bool_or(s.status = 'failed') AS failed, bool_or(s.needs_review) AS needs_review,
       string_agg(c.output, E'\\n\\n' ORDER BY s.position) AS answer,
       jsonb_object_agg(s.name, jsonb_build_object('capability', s.capability, 'model', c.model, 'candidate_id', c.id))
           FILTER (WHERE c.id IS NOT NULL) AS winners,
       min(v.confidence) AS confidence, bool_or(v.fallback) AS fallback,
       jsonb_object_agg(s.name, s.error) FILTER (WHERE s.error IS NOT NULL) AS errors,
       count(*) FILTER (WHERE s.status <> 'done') AS failures
FROM complete JOIN subtask AS s ON s.task_id = complete.id
LEFT JOIN verdict AS v ON v.subtask_id = s.id
LEFT JOIN candidate AS c ON c.id = v.winner_id
GROUP BY s.task_id
"""
FAILURES = """
CASE WHEN NOT o.done THEN jsonb_build_object(
    'code', CASE WHEN o.failed THEN 'subtasks_failed' ELSE 'deadline_passed' END,
    'message', o.failures || ' subtask(s) did not succeed: ' || coalesce((
        SELECT string_agg(e.key || ': ' || (e.value ->> 'message'), '; ') FROM jsonb_each(o.errors) AS e),
        'no reason kept'),
    'subtasks', coalesce(o.errors, '{}')) END
"""
#: A task's last columns, from the outcome `o`.
ENDS = f"""
winners = coalesce(o.winners, '{{}}'), artifacts = '[]', confidence = o.confidence, needs_review = o.needs_review,
fallback = coalesce(o.fallback, false), error = {FAILURES}, finished_at = now(), finished_xid = pg_current_xact_id()
"""


def finish_tasks(connection: Connection, task_ids: Sequence[UUID]) -> int:
    """Move on those of these tasks that run and whose subtasks are all terminal. Returns how many.

    Where the plan says so, the planner is asked for more steps, or an integrator writes the answer. Otherwise a task is
    done where every subtask is, and its answer joins the winners' outputs in plan order; if not it failed, or expired
    where the deadline is all that went wrong; its error keeps every subtask's. One statement, so two callers that race
    finish a task once.
    """
    moved = connection.execute(
        text(
            f"""
            WITH complete AS (
                SELECT t.id FROM task AS t
                WHERE t.id = ANY(CAST(:ids AS uuid[])) AND t.status || '' = 'running'  -- rows-by-id-alone.md
                  AND (SELECT s.id FROM subtask AS s WHERE s.task_id = t.id AND s.finished_at IS NULL LIMIT 1) IS NULL
                ORDER BY t.id FOR UPDATE SKIP LOCKED
            ), outcome AS MATERIALIZED ({OUTCOME}
            ), fate AS MATERIALIZED (
                SELECT o.*, CASE WHEN t.plan -> 'more' = 'true' AND (t.deadline > now()) IS NOT FALSE THEN 'planning'
                                 WHEN t.plan ->> 'integrator' IS NOT NULL AND o.any_done THEN 'integrating'
                                 WHEN o.done THEN 'done' WHEN o.failed THEN 'failed' ELSE 'expired' END AS next
                FROM outcome AS o JOIN task AS t ON t.id = o.task_id
            ), thinking AS (
                UPDATE task SET status = o.next, attempt = 0, message_id = NULL, sent_at = NULL, not_before = NULL
                FROM fate AS o WHERE task.id = o.task_id AND o.next IN ('planning', 'integrating')
                RETURNING id, status
            ), ended AS (
                UPDATE task SET status = o.next, answer = CASE WHEN o.done THEN o.answer END, {ENDS}
                FROM fate AS o WHERE task.id = o.task_id AND o.next NOT IN ('planning', 'integrating')
                RETURNING id, status
            )
            SELECT id, status FROM thinking UNION ALL SELECT id, status FROM ended
            """  # noqa: S608 - constants
        ),
        {"ids": list(task_ids)},
    ).all()
    states = {row.status for row in moved}
    if any(TaskState(state).final for state in states):
        announce(connection, "result")
    if not all(TaskState(state).final for state in states):
        announce(connection, "subtask")
    for state in sorted(states):
        _tell(state, [row.id for row in moved if row.status == state])
    return len(moved)


def _tell(state: str, tasks: Sequence[UUID]) -> None:
    """One line, for as many as one statement moved. What a transaction then takes back, it tells again later."""
    for some in portions(tasks):
        log.info(f"{len(some)} {state}", action="tasks_moved", state=state, tasks=some)


def store_answer(connection: Connection, task: UUID, token: UUID, answer: str, integration: Mapping[str, Any]) -> bool:
    """Store the answer that an integrator wrote, under the token of its claim. Returns whether it was still ours.

    The task is done; where subtasks did not succeed, its error says which, as the answer does.
    """
    stored = connection.execute(
        text(
            f"""
            WITH complete AS (SELECT id FROM task WHERE id = :task AND token = :token FOR UPDATE
            ), outcome AS MATERIALIZED ({OUTCOME})
            UPDATE task SET status = 'done', answer = :answer, integration = CAST(:integration AS jsonb),
                            token = NULL, lease_until = NULL, {ENDS}
            FROM outcome AS o WHERE task.id = o.task_id
            """  # noqa: S608 - constants
        ),
        {"task": task, "token": token, "answer": answer, "integration": json.dumps(dict(integration))},
    ).rowcount
    if stored:
        announce(connection, "result")
        _tell(TaskState.DONE, [task])
    return bool(stored)


def finish_as_they_are(connection: Connection, reasons: Mapping[UUID, str]) -> None:
    """End locked integrating tasks without an integrator: what succeeded is the answer, as it is, and it says why."""
    if not reasons:
        return
    connection.execute(
        text(
            f"""
            WITH given AS (
                SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (id uuid, reason text)
            ), complete AS (SELECT id FROM given
            ), outcome AS MATERIALIZED ({OUTCOME})
            UPDATE task SET status = CASE WHEN o.any_done THEN 'done' ELSE 'failed' END, answer = o.answer,
                            token = NULL, lease_until = NULL,
                            integration = jsonb_build_object(
                                'method', 'none', 'fallback', true,
                                'reason', 'Nobody wrote the answer: ' || given.reason
                                          || coalesce(' (' || (task.error ->> 'message') || ')', '') || '.'),
                            {ENDS}
            FROM outcome AS o JOIN given ON given.id = o.task_id
            WHERE task.id = o.task_id AND task.status || '' = 'integrating'
            """  # noqa: S608 - constants
        ),
        {"rows": json.dumps([{"id": str(task), "reason": reason} for task, reason in reasons.items()])},
    )
    announce(connection, "result")
    _tell("ended", list(reasons))


def expire_pending(connection: Connection, limit: int = 1000) -> int:
    """Pending tasks whose deadline has passed are expired."""
    expired = list(
        connection.execute(
            text(
                """
            UPDATE task SET status = 'expired', finished_at = now(), finished_xid = pg_current_xact_id(),
                error = '{"code": "deadline_passed", "message": "The deadline passed before anybody looked at it."}'
            WHERE id IN (SELECT id FROM task WHERE status = 'pending' AND deadline <= now()
                         ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED)
            RETURNING id
            """
            ),
            {"limit": limit},
        ).scalars()
    )
    if expired:
        announce(connection, "result")
        _tell(TaskState.EXPIRED, expired)
    return len(expired)


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
                UPDATE task SET status = 'cancelled', cancel_requested_at = now(), finished_at = now(), planned = false,
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
    ended = list(cancelled.scalars())
    if ended:
        announce(connection, "result")
        _tell(TaskState.CANCELLED, ended)
    return ended


def retry_task(connection: Connection, task: UUID) -> UUID:
    """Store a finished task again, as a new one with `retry_of`; its deadline and key stay behind.

    Raises `NotFound`, and `InvalidRequest` where the task is still open.
    """
    row = connection.execute(
        text(
            """
            WITH old AS (SELECT * FROM task WHERE id = :task FOR KEY SHARE), new AS (
                INSERT INTO task (request, capability, source, priority, options, attachments, retry_of, traceparent)
                SELECT request, capability, source, priority, options, attachments, id, CAST(:trace AS text) FROM old
                WHERE finished_at IS NOT NULL RETURNING id
            )
            SELECT old.status, (SELECT id FROM new) AS id FROM old
            """
        ),
        {"task": task, "trace": here()},
    ).one_or_none()
    if row is None:
        raise NotFound(f"No task {task}; `bakeoff results` lists the latest ones.")
    if row.id is None:
        raise InvalidRequest(f"Task {task} is {row.status}; only a finished one can be tried again.")
    new: UUID = row.id
    return new
