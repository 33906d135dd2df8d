"""What the scheduler reads and locks of ready subtasks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text


@dataclass(frozen=True, kw_only=True)
class ReadySubtask:
    """A subtask whose inputs are there."""

    id: UUID
    task_id: UUID
    capability: str
    options: dict[str, Any]
    candidates_wanted: int
    judge: str
    created_at: datetime
    group: str  # capability, and the models that the caller named: what can be stuck together


def lock_ready(connection: Connection, limit: int, skip: list[str]) -> list[ReadySubtask]:
    """Lock up to `limit` ready subtasks, most urgent first, but none of the groups in `skip`."""
    rows = connection.execute(
        text(
            """
            SELECT id, task_id, capability, options, candidates_wanted, judge, created_at,
                   capability || coalesce(options ->> 'models', '') AS "group"
            FROM subtask
            WHERE status = 'ready' AND NOT capability || coalesce(options ->> 'models', '') = ANY(CAST(:skip AS text[]))
            ORDER BY priority DESC, created_at
            LIMIT :limit FOR UPDATE SKIP LOCKED
            """
        ),
        {"limit": limit, "skip": skip},
    )
    return [ReadySubtask(**row._mapping) for row in rows]  # noqa: SLF001 - the documented name


def ready_capabilities(connection: Connection) -> list[str]:
    """Capabilities that have ready subtasks."""
    return list(connection.execute(text("SELECT DISTINCT capability FROM subtask WHERE status = 'ready'")).scalars())
