"""Webhooks: which addresses hear of ended tasks, and each delivery until it has arrived.

A webhook follows the row of ended tasks (`db.watching.ended_after`) from the moment it was added, by a place of its
own: no task's end is lost to it, whoever is killed, and nobody who ends a task needs to know of webhooks.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from db.errors import InvalidRequest, NotFound
from db.watching import Place, end_of_row, ended_after

PREFIX = "whsec_"  # as Standard Webhooks has it
PAGE = 200  # ended tasks of one webhook that become deliveries at once
COLUMNS = "id, created_at, url, source, stopped_at, reason"


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """An address, without its secret."""

    id: UUID
    created_at: datetime
    url: str
    source: str | None
    stopped_at: datetime | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class Due:
    """A delivery that is ours to send now. `attempt` counts this one and fences what is said of it later."""

    id: UUID
    webhook_id: UUID
    url: str
    secret: bytes
    attempt: int
    result: Mapping[str, Any]  # a row of `results`


def add_webhook(connection: Connection, url: str, source: str | None) -> tuple[UUID, str]:
    """Store an address, which the caller has checked; returns its id and the secret that deliveries are signed with."""
    secret = secrets.token_bytes(32)
    place = end_of_row(connection)
    id_: UUID = connection.execute(
        text(
            """
            INSERT INTO webhook (url, source, secret, seen_xid, seen_task)
            VALUES (:url, :source, :secret, :xid, :task) RETURNING id
            """
        ),
        {"url": url, "source": source, "secret": secret, "xid": place.xid, "task": place.task},
    ).scalar_one()
    return id_, PREFIX + base64.b64encode(secret).decode()


def list_webhooks(connection: Connection) -> list[Webhook]:
    """All of them, the oldest first."""
    rows = connection.execute(text(f"SELECT {COLUMNS} FROM webhook ORDER BY id"))  # noqa: S608 - a constant
    return [Webhook(**row._mapping) for row in rows]  # noqa: SLF001 - the documented name


def remove_webhook(connection: Connection, webhook: UUID) -> None:
    """Delete one, with its deliveries. Raises `NotFound`."""
    if not connection.execute(text("DELETE FROM webhook WHERE id = :id"), {"id": webhook}).rowcount:
        raise NotFound(f"No webhook {webhook}; `bakeoff webhooks list` lists them.")


def stop_webhook(connection: Connection, webhook: UUID, reason: str) -> None:
    """Send it nothing more: the receiver said that it is gone."""
    connection.execute(
        text("UPDATE webhook SET stopped_at = now(), reason = :reason WHERE id = :id AND stopped_at IS NULL"),
        {"id": webhook, "reason": reason},
    )


def collect_ends(connection: Connection) -> int:
    """Turn the ends of tasks that webhooks have not seen into deliveries; returns how many.

    Any number of processes may do so: each takes the webhooks that nobody else holds.
    """
    hooks = connection.execute(
        text(
            """
            SELECT id, source, seen_xid, seen_task FROM webhook
            WHERE stopped_at IS NULL ORDER BY id FOR UPDATE SKIP LOCKED
            """
        )
    ).all()
    found = 0
    for hook in hooks:
        page = ended_after(connection, Place(xid=hook.seen_xid, task=hook.seen_task), PAGE, hook.source)
        if not page:
            continue
        connection.execute(
            text(
                """
                INSERT INTO webhook_delivery (webhook_id, task_id)
                SELECT :webhook, t.id FROM unnest(CAST(:tasks AS uuid[])) AS t (id) ON CONFLICT DO NOTHING
                """
            ),
            {"webhook": hook.id, "tasks": [one.place.task for one in page]},
        )
        last = page[-1].place
        connection.execute(
            text("UPDATE webhook SET seen_xid = :xid, seen_task = :task WHERE id = :id"),
            {"id": hook.id, "xid": last.xid, "task": last.task},
        )
        found += len(page)
    return found


def claim_due(connection: Connection, limit: int, lease: float) -> list[Due]:
    """Take deliveries that are due, for `lease` seconds; an attempt is counted."""
    rows = connection.execute(
        text(
            """
            WITH taken AS (
                UPDATE webhook_delivery SET attempt = attempt + 1, not_before = now() + make_interval(secs => :lease)
                WHERE id IN (
                    SELECT d.id FROM webhook_delivery AS d JOIN webhook AS w ON w.id = d.webhook_id
                    WHERE d.status = 'pending' AND d.not_before <= now() AND w.stopped_at IS NULL
                    ORDER BY d.not_before LIMIT :limit FOR UPDATE OF d SKIP LOCKED)
                RETURNING id, webhook_id, task_id, attempt
            )
            SELECT t.id, t.webhook_id, w.url, w.secret, t.attempt, to_jsonb(r) AS result
            FROM taken AS t JOIN webhook AS w ON w.id = t.webhook_id JOIN results AS r ON r.task_id = t.task_id
            """
        ),
        {"limit": limit, "lease": lease},
    )
    return [Due(**row._mapping) for row in rows]  # noqa: SLF001 - the documented name


def settle(
    connection: Connection, due: Due, *, answered: int | None, error: str | None, again_in: float | None
) -> None:
    """Say how an attempt went. Without `error` it arrived; `again_in` seconds it is tried again, or it failed."""
    status = "delivered" if error is None else "failed" if again_in is None else "pending"
    connection.execute(
        text(
            """
            UPDATE webhook_delivery SET status = :status, answered = :answered, error = :error,
                   finished_at = CASE WHEN :status <> 'pending' THEN now() END,
                   not_before = now() + make_interval(secs => :again_in)
            WHERE id = :id AND attempt = :attempt AND status = 'pending'
            """
        ),
        {
            "id": due.id,
            "attempt": due.attempt,
            "status": status,
            "answered": answered,
            "error": error,
            "again_in": again_in or 0.0,
        },
    )


def list_deliveries(connection: Connection, limit: int, status: str | None = None) -> list[dict[str, Any]]:
    """The latest deliveries, the newest first."""
    rows = connection.execute(
        text(
            f"""
            SELECT d.id, d.created_at, d.webhook_id, d.task_id, d.status, d.attempt, d.not_before, d.answered, d.error,
                   d.finished_at
            FROM webhook_delivery AS d {"WHERE d.status = :status" if status else ""} ORDER BY d.id DESC LIMIT :limit
            """  # noqa: S608 - one of two constants
        ),
        {"limit": limit, "status": status},
    )
    return [dict(row._mapping) for row in rows]  # noqa: SLF001 - the documented name


def replay(connection: Connection, delivery: UUID) -> None:
    """Send a delivery once more, at once and with all of its attempts. Raises `NotFound` or `InvalidRequest`."""
    row = connection.execute(
        text(
            """
            SELECT w.stopped_at, w.reason FROM webhook_delivery AS d JOIN webhook AS w ON w.id = d.webhook_id
            WHERE d.id = :id
            """
        ),
        {"id": delivery},
    ).one_or_none()
    if row is None:
        raise NotFound(f"No delivery {delivery}; `bakeoff webhooks deliveries` lists them.")
    if row.stopped_at is not None:
        raise InvalidRequest(f"Its webhook was stopped ({row.reason}); add it again with `bakeoff webhooks add`.")
    connection.execute(
        text(
            """
            UPDATE webhook_delivery SET status = 'pending', attempt = 0, not_before = now(), finished_at = NULL,
                                        error = NULL, answered = NULL
            WHERE id = :id
            """
        ),
        {"id": delivery},
    )
