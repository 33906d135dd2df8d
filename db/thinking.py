"""Tasks that a language model works on: planned, and integrated. Every statement that moves one through these states.

A task waits in `planning` until a planner's process has stored a plan (`planned`), which a scheduler turns into
subtasks; it waits in `integrating` until its answer is written. One message carries one task. A planner that plans
step by step is asked again when its steps have ended.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, text

from db.endings import finish_as_they_are, finish_tasks
from db.states import TaskState
from db.tasks import announce

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from db.verdicts import Patience


@dataclass(frozen=True, kw_only=True)
class ThinkingMessage:
    """A message about one task."""

    id: UUID
    task_id: UUID


@dataclass(frozen=True, kw_only=True)
class Thought:
    """A claimed task: what is to be planned, or to be answered. `attempt` counts this try."""

    id: UUID
    token: UUID
    request: str
    attachments: list[Any]
    options: dict[str, Any]
    plan: dict[str, Any] | None
    attempt: int
    max_attempts: int


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What became of one subtask: the winner's output and model, or an error."""

    name: str
    capability: str
    status: str
    output: str | None
    model: str | None
    confidence: float | None
    needs_review: bool
    error: str


#: Tasks `t` that are due for a message.
DUE = """
t.status = :status AND t.status IN ('planning', 'integrating') AND t.token IS NULL AND NOT t.planned
AND (t.not_before IS NULL OR t.not_before <= now())
AND (t.sent_at IS NULL OR (:queue_empty AND t.sent_at < now() - make_interval(secs => :lost_after)))
"""


def send_thinking(connection: Connection, status: TaskState, patience: Patience, limit: int) -> list[ThinkingMessage]:
    """Give up to `limit` tasks that wait in this state a message each, by priority and age.

    One that was sent is sent again where its queue is empty and nobody has claimed it: a second one claims nothing.
    """
    rows = connection.execute(
        text(
            f"""
            WITH flying AS (
                SELECT source, count(*) AS n FROM task WHERE status = :status
                   AND status IN ('planning', 'integrating') AND message_id IS NOT NULL GROUP BY source
            ), turns AS MATERIALIZED (
                SELECT t.id, coalesce(f.n, 0) + row_number() OVER (
                           PARTITION BY t.priority, t.source ORDER BY t.created_at, t.id) AS turn
                FROM task AS t LEFT JOIN flying AS f ON f.source = t.source WHERE {DUE}
                ORDER BY t.priority DESC, turn, t.created_at LIMIT 2 * :limit
            )
            UPDATE task SET sent_at = now(), message_id = bakeoff_uuid7()
            WHERE id IN (SELECT t.id FROM task AS t JOIN turns AS r ON r.id = t.id WHERE {DUE}
                         ORDER BY t.priority DESC, r.turn, t.created_at LIMIT :limit FOR UPDATE OF t SKIP LOCKED)
            RETURNING id, message_id
            """  # noqa: S608 - a constant
        ),
        {
            "status": status,
            "limit": limit,
            "queue_empty": patience.queue_empty,
            "lost_after": patience.lost_after,
        },
    )
    return [ThinkingMessage(id=row.message_id, task_id=row.id) for row in rows]


def unsend_thinking(connection: Connection, messages: Sequence[UUID]) -> None:
    """Messages that could not be published are due again."""
    connection.execute(
        text(
            """
            UPDATE task SET sent_at = NULL, message_id = NULL
            WHERE status IN ('planning', 'integrating') AND token IS NULL AND message_id = ANY(CAST(:ids AS uuid[]))
            """
        ),
        {"ids": list(messages)},
    )


def waiting_to_think(connection: Connection, lost_after: float) -> dict[str, int]:
    """Tasks per state that no message carries, or one that nobody has claimed for `lost_after` seconds; up to 256."""
    rows = connection.execute(
        text(
            " UNION ALL ".join(
                f"""
                SELECT '{state}' AS status, count(*) AS n FROM (
                    SELECT FROM task
                    WHERE status = '{state}' AND token IS NULL AND NOT planned
                      AND (not_before IS NULL OR not_before <= now())
                      AND (sent_at IS NULL OR sent_at < now() - make_interval(secs => :lost_after))
                    LIMIT 256) AS due
                """  # noqa: S608 - our enum
                for state in (TaskState.PLANNING, TaskState.INTEGRATING)
            )
        ),
        {"lost_after": lost_after},
    )
    return {row.status: row.n for row in rows if row.n}


def thinking_in_flight(connection: Connection) -> dict[str, int]:
    """Tasks per state that a message carries, or that somebody works on."""
    rows = connection.execute(
        text(
            """
            SELECT status, count(*) AS n FROM task
            WHERE status IN ('planning', 'integrating') AND message_id IS NOT NULL GROUP BY status
            """
        )
    )
    return {row.status: row.n for row in rows}


def claim_thinking(
    connection: Connection, task: UUID, status: TaskState, message: UUID, seconds: float
) -> Thought | None:
    """Claim a task that waits in this state, and charge the attempt that begins. None where it does not wait."""
    token = uuid4()
    row = connection.execute(
        text(
            """
            UPDATE task SET token = :token, message_id = :message, attempt = attempt + 1,
                   lease_until = now() + make_interval(secs => :seconds)
            WHERE id = :task AND status || '' = :status AND token IS NULL AND NOT planned
              AND attempt < max_attempts AND (not_before IS NULL OR not_before <= now())
            RETURNING id, token, request, attachments, options, plan, attempt, max_attempts
            """
        ),
        {"token": token, "message": message, "seconds": seconds, "task": task, "status": status},
    ).one_or_none()
    return None if row is None else Thought(**row._mapping)  # noqa: SLF001 - the documented name


def step_results(connection: Connection, task: UUID) -> list[StepResult]:
    """What became of a task's subtasks, in plan order. One statement."""
    rows = connection.execute(
        text(
            """
            SELECT s.name, s.capability, s.status, c.output, c.model, v.confidence, s.needs_review,
                   coalesce(s.error ->> 'message', '') AS error
            FROM subtask AS s
            LEFT JOIN verdict AS v ON v.subtask_id = s.id LEFT JOIN candidate AS c ON c.id = v.winner_id
            WHERE s.task_id = :task ORDER BY s.position
            """
        ),
        {"task": task},
    )
    return [StepResult(**row._mapping) for row in rows]  # noqa: SLF001 - the documented name


def store_plan(connection: Connection, thought: Thought, plan: Mapping[str, Any]) -> bool:
    """Store a plan under the token of its claim; a scheduler takes it from there. Returns whether it was still ours."""
    stored = connection.execute(
        text(
            """
            UPDATE task SET plan = CAST(:plan AS jsonb), planned = true, token = NULL, lease_until = NULL,
                   message_id = NULL, sent_at = NULL, not_before = NULL, attempt = 0, error = NULL
            WHERE id = :task AND token = :token
            """
        ),
        {"task": thought.id, "token": thought.token, "plan": json.dumps(dict(plan), allow_nan=False)},
    ).rowcount
    if stored:
        announce(connection, "plan")
    return bool(stored)


def refuse_plan(
    connection: Connection, thought: Thought, error: Mapping[str, Any], plan: Mapping[str, Any] | None = None
) -> bool:
    """End a claimed task as failed, with what was planned and why it cannot run. Returns whether it was still ours."""
    if _answer_from_what_ended(connection, {thought.id: str(error.get("message", ""))}, thought.token):
        return True
    ended = connection.execute(
        text(
            """
            UPDATE task SET status = 'failed', error = CAST(:error AS jsonb),
                   plan = coalesce(CAST(:plan AS jsonb), plan),
                   token = NULL, lease_until = NULL, finished_at = now(), finished_xid = pg_current_xact_id()
            WHERE id = :task AND token = :token
            """
        ),
        {
            "task": thought.id,
            "token": thought.token,
            "error": json.dumps(dict(error)),
            "plan": None if plan is None else json.dumps(dict(plan)),
        },
    ).rowcount
    if ended:
        announce(connection, "result")
    return bool(ended)


def thinking_failed(
    connection: Connection, thought: Thought, error: Mapping[str, str], delay: float, *, charged: bool = True
) -> bool:
    """A planner or an integrator failed: the task waits `delay` seconds and is sent again. Whether it was still ours.

    Not `charged` where it could not be had at all: that is not this task's fault.
    """
    returned = connection.execute(
        text(
            """
            UPDATE task SET token = NULL, lease_until = NULL, message_id = NULL, sent_at = NULL,
                   attempt = greatest(attempt - CASE WHEN :charged THEN 0 ELSE 1 END, 0),
                   not_before = now() + make_interval(secs => :delay), error = CAST(:error AS jsonb)
            WHERE id = :task AND token = :token
            """
        ),
        {
            "task": thought.id,
            "token": thought.token,
            "charged": charged,
            "delay": delay,
            "error": json.dumps(dict(error)),
        },
    ).rowcount
    return bool(returned)


def expire_thinking(connection: Connection) -> int:
    """Leases of planners and integrators that ran out: the task is due at once, or given up after its last attempt.

    A plan that cost its process the life each time fails its task; an answer is put together without a language model.
    What passes its deadline ends likewise. Returns how many were found.
    """
    late = connection.execute(
        text(
            """
            UPDATE task SET token = NULL, lease_until = NULL, message_id = NULL, sent_at = NULL, not_before = now()
            WHERE id IN (SELECT id FROM task WHERE status IN ('planning', 'integrating') AND lease_until < now()
                         ORDER BY id FOR UPDATE SKIP LOCKED)
            """
        )
    ).rowcount
    over = connection.execute(
        text(
            """
            SELECT id, status, deadline <= now() AS late FROM task
            WHERE status IN ('planning', 'integrating') AND token IS NULL AND NOT planned
              AND (attempt >= max_attempts OR deadline <= now())
            ORDER BY id FOR UPDATE SKIP LOCKED
            """
        )
    ).all()
    planning = {
        row.id: "the deadline passed" if row.late else "the planner was tried as often as a task may be"
        for row in over
        if row.status == TaskState.PLANNING
    }
    answered = _answer_from_what_ended(connection, planning)
    _give_up_planning(connection, sorted(planning.keys() - answered))
    finish_as_they_are(
        connection,
        {
            row.id: "the deadline passed" if row.late else "it was tried as often as a task may be"
            for row in over
            if row.status == TaskState.INTEGRATING
        },
    )
    return late + len(over)


def _answer_from_what_ended(
    connection: Connection, reasons: Mapping[UUID, str], token: UUID | None = None
) -> set[UUID]:
    """Tasks whose planner gives them no further step, but whose earlier steps have results: those are the answer.

    `token` is that of the claim, where there is one; else the tasks are locked. Returns those that there were.
    """
    if not reasons:
        return set()
    rows = connection.execute(
        text(
            """
            UPDATE task SET status = 'running', plan = plan || jsonb_build_object('more', false, 'stopped', r.reason),
                   token = NULL, lease_until = NULL, message_id = NULL, sent_at = NULL, not_before = NULL, error = NULL
            FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (id uuid, reason text)
            WHERE task.id = r.id AND task.status || '' = 'planning'
              AND task.token IS NOT DISTINCT FROM CAST(:token AS uuid)
              AND EXISTS (SELECT FROM subtask AS s WHERE s.task_id = task.id AND s.status = 'done')
            RETURNING task.id
            """
        ),
        {"rows": json.dumps([{"id": str(task), "reason": why} for task, why in reasons.items()]), "token": token},
    )
    ids = set(rows.scalars())
    if ids:
        finish_tasks(connection, sorted(ids))
    return ids


def _give_up_planning(connection: Connection, tasks: Sequence[UUID]) -> None:
    """End locked tasks that were not planned in time, or cost every planner its process."""
    if not tasks:
        return
    connection.execute(
        text(
            """
            UPDATE task SET status = CASE WHEN deadline <= now() THEN 'expired' ELSE 'failed' END,
                   error = CASE WHEN deadline <= now()
                       THEN '{"code": "deadline_passed", "message": "The deadline passed before it was planned."}'
                       ELSE jsonb_build_object('code', 'planner_failed', 'message',
                            'It was tried ' || attempt || ' times and not planned'
                            || coalesce(' (' || (error ->> 'message') || ')', '') || '.') END,
                   finished_at = now(), finished_xid = pg_current_xact_id()
            WHERE id = ANY(CAST(:ids AS uuid[]))
            """
        ),
        {"ids": list(tasks)},
    )
    announce(connection, "result")
