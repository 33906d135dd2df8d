"""What other systems ask: one task by its id, page after page of results. Statements as DESIGN §7 documents them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import Connection, text

if TYPE_CHECKING:
    from collections.abc import Sequence

COLUMNS = "task_id, source, status, request, answer, winners, confidence, fallback, error, finished_at"

Place = tuple[datetime, UUID]  # where a reader is: `finished_at`, `task_id`


def poll(connection: Connection, task: UUID) -> Any:
    """One task's row."""
    return connection.execute(
        text(f"SELECT {COLUMNS} FROM results WHERE task_id = :task"),  # noqa: S608 - a constant
        {"task": task},
    ).one()


def page_by_time(connection: Connection, place: Place, limit: int) -> Sequence[Any]:
    """What finished after `place`, oldest first."""
    return connection.execute(
        text(
            f"""
            SELECT {COLUMNS} FROM results WHERE (finished_at, task_id) > (:at, :task)
            ORDER BY finished_at, task_id LIMIT :limit
            """  # noqa: S608 - a constant
        ),
        {"at": place[0], "task": place[1], "limit": limit},
    ).all()


def page_by_transaction(connection: Connection, xid: str, task: UUID, limit: int) -> Sequence[Any]:
    """What transactions finished after `xid` (and `task` in it) that no running one can still add to."""
    return connection.execute(
        text(
            f"""
            SELECT {COLUMNS}, finished_xid FROM results
            WHERE (finished_xid, task_id) > (CAST(:xid AS xid8), :task)
              AND finished_xid < pg_snapshot_xmin(pg_current_snapshot())
            ORDER BY finished_xid, task_id LIMIT :limit
            """  # noqa: S608 - a constant
        ),
        {"xid": xid, "task": task, "limit": limit},
    ).all()


def latest_of_source(connection: Connection, source: str, limit: int) -> Sequence[Any]:
    """The query of the README: a source's newest results."""
    return connection.execute(
        text(
            "SELECT status, answer, winners, error FROM results WHERE source = :source "
            "ORDER BY task_id DESC LIMIT :limit"
        ),
        {"source": source, "limit": limit},
    ).all()
