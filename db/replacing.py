"""Subtasks that need other models: theirs all failed, or cannot be had. Who takes over is `scheduler.replacing`'s."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import Connection, text

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, kw_only=True)
class Exhausted:
    """A running, locked subtask whose candidates are all terminal and none done. `age` is seconds since the last."""

    id: UUID
    capability: str
    options: dict[str, Any]
    candidates_wanted: int
    max_candidates: int | None
    tried: list[str]
    age: float


def lock_exhausted(connection: Connection, limit: int, after: UUID) -> list[Exhausted]:
    """Lock subtasks that all of their models failed, by id, those after `after`."""
    rows = connection.execute(
        text(
            """
            WITH locked AS (
                SELECT s.id, s.capability, s.options, s.candidates_wanted, s.max_candidates FROM subtask AS s
                WHERE s.status = 'running' AND s.id > :after
                  AND NOT EXISTS (SELECT FROM candidate AS c WHERE c.subtask_id = s.id
                                  AND (c.finished_at IS NULL OR c.status = 'done') OFFSET 0)
                  AND EXISTS (SELECT FROM candidate AS c WHERE c.subtask_id = s.id OFFSET 0)
                ORDER BY s.id LIMIT :limit FOR UPDATE SKIP LOCKED
            )
            SELECT l.*, array_agg(c.model) AS tried,
                   extract(epoch FROM now() - max(c.finished_at))::double precision AS age
            FROM locked AS l JOIN candidate AS c ON c.subtask_id = l.id
            GROUP BY l.id, l.capability, l.options, l.candidates_wanted, l.max_candidates ORDER BY l.id
            """
        ),
        {"limit": limit, "after": after},
    )
    return [Exhausted(**row._mapping) for row in rows]  # noqa: SLF001 - the documented name


@dataclass(frozen=True, kw_only=True)
class Addition:
    """A model that is asked in place of others. Its rank follows those that were chosen first."""

    subtask_id: UUID
    model: str
    proposed_by: list[dict[str, Any]]
    max_attempts: int


def add_candidates(connection: Connection, additions: Sequence[Addition]) -> int:
    """Add chosen candidates to locked, running subtasks; they are sent by `send_waiting`. One statement."""
    if not additions:
        return 0
    rows = [{**vars(addition), "subtask_id": str(addition.subtask_id)} for addition in additions]
    return connection.execute(
        text(
            """
            INSERT INTO candidate (subtask_id, model, rank, proposed_by, max_attempts, status)
            SELECT r.subtask_id, r.model,
                   (SELECT coalesce(max(c.rank), -1) FROM candidate AS c WHERE c.subtask_id = r.subtask_id)
                       + row_number() OVER (PARTITION BY r.subtask_id ORDER BY r.n),
                   r.proposed_by, r.max_attempts, 'chosen'
            FROM (SELECT e.n, x.* FROM jsonb_array_elements(CAST(:rows AS jsonb)) WITH ORDINALITY AS e (value, n),
                  jsonb_to_record(e.value) AS x (subtask_id uuid, model text, proposed_by jsonb, max_attempts smallint)
                 ) AS r
            JOIN subtask AS s ON s.id = r.subtask_id AND s.status = 'running'
            ON CONFLICT (subtask_id, model) DO NOTHING
            """
        ),
        {"rows": json.dumps(rows)},
    ).rowcount


def take_back_unserved(connection: Connection, models: Sequence[str], seconds: float) -> int:
    """Candidates sent over `seconds` ago to models that nobody serves any more are chosen again, and due since then."""
    return connection.execute(
        text(
            """
            UPDATE candidate SET status = 'chosen', message_id = NULL, not_before = sent_at, sent_at = NULL,
                                 in_chord = false
            WHERE id IN (
                SELECT id FROM candidate WHERE model = ANY(CAST(:models AS text[])) AND message_id IS NOT NULL
                  AND finished_at IS NULL AND status = 'sent'
                  AND sent_at < now() - make_interval(secs => :seconds)
                ORDER BY id FOR UPDATE SKIP LOCKED)
            """
        ),
        {"models": list(models), "seconds": seconds},
    ).rowcount


@dataclass(frozen=True, kw_only=True)
class Overdue:
    """A subtask with candidates that wait too long for their models. It is locked, and the waiting ones are."""

    subtask_id: UUID
    capability: str
    options: dict[str, Any]
    quorum: int
    waiting: list[UUID]
    tried: list[str]  # models of all of its candidates
    done: int
    open: int  # unfinished, the waiting ones included


def lock_overdue(
    connection: Connection, models: Sequence[str], seconds: float, limit: int, after: UUID
) -> list[Overdue]:
    """Lock candidates that have been due for `seconds` on one of these models, which cannot be had, by subtask.

    Up to `limit` candidates, by id, those after `after`. A failed probe of a suspended model makes a candidate due
    anew: there the time since the model was suspended counts, too.
    """
    rows = connection.execute(
        text(
            """
            WITH waiting AS (
                SELECT c.id, c.subtask_id FROM candidate AS c JOIN model AS m ON m.name = c.model
                WHERE c.model = ANY(CAST(:models AS text[])) AND c.message_id IS NULL AND c.finished_at IS NULL
                  AND c.id > :after
                  AND CASE WHEN m.status = 'suspended' THEN greatest(c.created_at, m.suspended_at)
                           ELSE coalesce(c.not_before, c.created_at) END < now() - make_interval(secs => :seconds)
                ORDER BY c.id LIMIT :limit FOR UPDATE OF c SKIP LOCKED
            ), locked AS (  -- or a cancel, which locks from the subtask down, and `add_candidates` wait for each other
                SELECT id, capability, options, quorum FROM subtask
                WHERE id IN (SELECT subtask_id FROM waiting) AND status = 'running'
                ORDER BY id FOR UPDATE SKIP LOCKED
            ), grouped AS (
                SELECT subtask_id, array_agg(id ORDER BY id) AS waiting FROM waiting GROUP BY subtask_id
            )
            SELECT g.subtask_id, s.capability, s.options, s.quorum, g.waiting, array_agg(c.model) AS tried,
                   count(*) FILTER (WHERE c.status = 'done') AS done,
                   count(*) FILTER (WHERE c.finished_at IS NULL) AS open
            FROM locked AS s JOIN grouped AS g ON g.subtask_id = s.id JOIN candidate AS c ON c.subtask_id = s.id
            GROUP BY g.subtask_id, s.id, s.capability, s.options, s.quorum, g.waiting ORDER BY s.id
            """
        ),
        {"models": list(models), "seconds": seconds, "limit": limit, "after": after},
    )
    return [Overdue(**row._mapping) for row in rows]  # noqa: SLF001 - the documented name


def give_up(connection: Connection, ids: Sequence[UUID], reason: str) -> int:
    """End waiting candidates whose model cannot be had; the last error of the model stays with them."""
    return connection.execute(
        text(
            """
            UPDATE candidate SET status = 'cancelled', finished_at = now(), in_chord = false,
                   error = jsonb_build_object('kind', 'worker', 'code', 'model_unavailable', 'message',
                       CAST(:reason AS text) || coalesce(' Its last error: ' || (error ->> 'message'), ''))
            WHERE id = ANY(CAST(:ids AS uuid[])) AND status = 'chosen'
            """
        ),
        {"ids": list(ids), "reason": reason},
    ).rowcount
