"""Plans of tasks: waited for, stored, turned into subtasks, looked up again. Who makes them is in `db.thinking`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import Connection, text

from db.endings import finish_tasks
from db.tasks import PendingTask

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, kw_only=True)
class PlannedTask(PendingTask):
    """A task whose plan is stored; `known` are its subtasks, with the number of candidates that each was given."""

    plan: dict[str, Any]
    known: dict[str, int]


def begin_planning(connection: Connection, plans: Mapping[UUID, Mapping[str, Any]]) -> None:
    """Locked pending tasks wait for a planner from now on; what is known of each one's plan is stored with it."""
    if not plans:
        return
    connection.execute(
        text(
            """
            UPDATE task SET status = 'planning', plan = r.plan
            FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (id uuid, plan jsonb)
            WHERE task.id = r.id AND task.status || '' = 'pending'
            """
        ),
        {"rows": json.dumps([{"id": str(task), "plan": dict(plan)} for task, plan in plans.items()])},
    )


def lock_planned(connection: Connection, limit: int) -> list[UUID]:
    """Lock tasks whose plan waits to become subtasks; other schedulers skip them."""
    rows = connection.execute(
        text(
            """
            SELECT id FROM task WHERE planned
            ORDER BY priority DESC, id LIMIT :limit FOR UPDATE SKIP LOCKED
            """
        ),
        {"limit": limit},
    )
    return list(rows.scalars())


def read_planned(connection: Connection, tasks: Sequence[UUID]) -> list[PlannedTask]:
    """What was planned for these locked tasks."""
    rows = connection.execute(
        text(
            """
            SELECT t.id, t.request, t.capability, t.source, t.priority, t.options, t.attachments, t.deadline, t.plan,
                   coalesce((SELECT jsonb_object_agg(s.name, s.candidates_wanted) FROM subtask AS s
                             WHERE s.task_id = t.id), '{}') AS known
            FROM task AS t WHERE t.id = ANY(CAST(:tasks AS uuid[])) ORDER BY t.priority DESC, t.id
            """
        ),
        {"tasks": list(tasks)},
    )
    return [PlannedTask(**row._mapping) for row in rows]  # noqa: SLF001 - the documented name


def keep_plans(connection: Connection, plans: Mapping[UUID, Mapping[str, Any]]) -> None:
    """Write down the plans of locked tasks, pending or planned, that are about to become subtasks."""
    if not plans:
        return
    connection.execute(
        text(
            """
            UPDATE task SET plan = r.plan FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (id uuid, plan jsonb)
            WHERE task.id = r.id AND (task.status || '' = 'pending' OR task.planned)
            """
        ),
        {"rows": json.dumps([{"id": str(task), "plan": dict(plan)} for task, plan in plans.items()])},
    )


def end_plans(connection: Connection, tasks: Sequence[UUID]) -> None:
    """Planned tasks, locked, that get no further step: they are answered from the subtasks that they have."""
    if not tasks:
        return
    connection.execute(
        text("UPDATE task SET status = 'running', planned = false WHERE id = ANY(CAST(:ids AS uuid[])) AND planned"),
        {"ids": list(tasks)},
    )
    finish_tasks(connection, tasks)


@dataclass(frozen=True, kw_only=True)
class StoredPlan:
    """A plan that worked: what was asked, its steps, and the media types of the task's files, in order."""

    request: str
    steps: list[Any]
    media_types: list[str]


def stored_plans(connection: Connection, limit: int) -> list[StoredPlan]:
    """The latest plans whose tasks are done, nothing failed or flagged.

    Not those that were looked up themselves, and not those that callers wrote: whoever may enqueue could plant one.
    """
    rows = connection.execute(
        text(
            """
            SELECT t.request, t.plan -> 'steps' AS steps, ARRAY(
                SELECT coalesce(a.media_type, '')
                FROM jsonb_array_elements(t.attachments) WITH ORDINALITY AS f (file, n)
                LEFT JOIN artifact AS a ON a.sha256 = f.file ->> 'sha256' ORDER BY f.n) AS media_types
            FROM task AS t
            WHERE t.plan IS NOT NULL AND t.status = 'done' AND t.error IS NULL AND t.request <> ''
              AND NOT coalesce(t.needs_review, false) AND NOT coalesce(t.fallback, false)
              AND t.plan ->> 'method' NOT IN ('retrieval', 'explicit')
            ORDER BY t.id DESC LIMIT :limit
            """
        ),
        {"limit": limit},
    )
    return [StoredPlan(**row._mapping) for row in rows]  # noqa: SLF001 - the documented name
