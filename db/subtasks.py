"""Subtasks on their way: what is ready, what waits for others, what never gets a turn, what needs other models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import Connection, text

from db.endings import finish_tasks

if TYPE_CHECKING:
    from collections.abc import Sequence


#: What the winners said whose output subtask `s` reads, by the name of their subtask; null where it reads none.
READ = """
CASE WHEN s.inputs @? '$[*].output' THEN (
    SELECT jsonb_object_agg(n.name, w.output) FROM subtask_need AS e JOIN subtask AS n ON n.id = e.needs_id
    JOIN verdict AS v ON v.subtask_id = n.id JOIN candidate AS w ON w.id = v.winner_id
    WHERE e.subtask_id = s.id) END
"""


@dataclass(frozen=True, kw_only=True)
class ReadySubtask:
    """A subtask whose inputs are there."""

    id: UUID
    task_id: UUID
    capability: str
    options: dict[str, Any]
    candidates_wanted: int
    max_candidates: int | None
    quorum: int
    judge: str
    input_key: bytes | None
    group: str  # capability, and the models that the caller named: what can be stuck together


def lock_ready(
    connection: Connection, limit: int, capabilities: Sequence[str], skip: Sequence[str] = ()
) -> list[ReadySubtask]:
    """Lock up to `limit` ready subtasks of these capabilities, but none of the groups in `skip`.

    Order: priority; then fair share, which gives the next turn to the source with the least in flight; then age. The
    (priority, source) pairs of each capability are found by a loose index scan, highest priority first, and each pair
    contributes its own first ones, so neither a flood of one source nor a long backlog is read through.
    """
    rows = connection.execute(
        text(
            """
            WITH pairs AS (
                SELECT c.capability, p.* FROM unnest(CAST(:capabilities AS text[])) AS c (capability)
                CROSS JOIN LATERAL (
                    WITH RECURSIVE pair AS (
                        (SELECT priority, source FROM subtask WHERE status = 'ready' AND capability = c.capability
                         ORDER BY priority DESC, source LIMIT 1)
                        UNION ALL
                        SELECT n.* FROM pair CROSS JOIN LATERAL (
                            (SELECT priority, source FROM subtask
                             WHERE status = 'ready' AND capability = c.capability AND priority = pair.priority
                               AND source > pair.source ORDER BY source LIMIT 1)
                            UNION ALL
                            (SELECT priority, source FROM subtask
                             WHERE status = 'ready' AND capability = c.capability AND priority < pair.priority
                             ORDER BY priority DESC, source LIMIT 1)
                            LIMIT 1) AS n
                    )
                    SELECT * FROM pair LIMIT 16 * :limit) AS p
            ), shares AS (
                SELECT pairs.*, least(:limit, greatest(1, 4 * :limit / count(*) OVER (PARTITION BY priority))) AS share
                FROM pairs
            ), flying AS (
                SELECT source, count(*) AS n FROM subtask WHERE status IN ('running', 'judging') GROUP BY source
            ), ranked AS (
                SELECT r.id, s.priority, r.created_at,
                       coalesce(f.n, 0) + row_number() OVER (
                           PARTITION BY s.source, s.priority ORDER BY r.created_at, r.id) AS turn
                FROM shares AS s
                CROSS JOIN LATERAL (
                    SELECT id, created_at FROM subtask
                    WHERE status = 'ready' AND capability = s.capability AND priority = s.priority
                      AND source = s.source
                      AND capability || coalesce(options ->> 'models', '') <> ALL(CAST(:skip AS text[]))
                    ORDER BY created_at LIMIT s.share) AS r
                LEFT JOIN flying AS f ON f.source = s.source
                ORDER BY s.priority DESC, turn, r.created_at
                LIMIT :limit
            )
            SELECT s.id, s.task_id, s.capability, s.options, s.candidates_wanted, s.max_candidates, s.quorum, s.judge,
                   s.input_key,
                   s.capability || coalesce(s.options ->> 'models', '') AS "group"
            FROM subtask AS s JOIN ranked ON ranked.id = s.id
            WHERE s.status || '' = 'ready'  -- by id: docs/decisions/rows-by-id-alone.md
            ORDER BY ranked.priority DESC, ranked.turn, ranked.created_at
            FOR UPDATE OF s SKIP LOCKED
            """
        ),
        {"limit": limit, "capabilities": list(capabilities), "skip": list(skip)},
    )
    return [ReadySubtask(**row._mapping) for row in rows]  # noqa: SLF001 - the documented name


def requests_of(connection: Connection, subtasks: Sequence[UUID]) -> dict[UUID, str]:
    """The request of each of these subtasks' tasks."""
    rows = connection.execute(
        text(
            "SELECT s.id, t.request FROM subtask AS s JOIN task AS t ON t.id = s.task_id "
            "WHERE s.id = ANY(CAST(:ids AS uuid[]))"
        ),
        {"ids": list(subtasks)},
    )
    return {row.id: row.request for row in rows}


def stop_waiting(connection: Connection) -> int:
    """Subtasks with a `grace` that have had their quorum for that long: what is not in by then is cancelled.

    They are complete then, and due for a judge. Returns how many candidates were cancelled.
    """
    return connection.execute(
        text(
            """
            WITH patient AS (
                SELECT s.id FROM subtask AS s
                WHERE s.status = 'running' AND s.grace IS NOT NULL AND (
                    SELECT c.finished_at FROM candidate AS c WHERE c.subtask_id = s.id AND c.status = 'done'
                    ORDER BY c.finished_at OFFSET s.quorum - 1 LIMIT 1) <= now() - make_interval(secs => s.grace)
                ORDER BY s.id FOR UPDATE SKIP LOCKED
            )
            UPDATE candidate SET status = 'cancelled', finished_at = now(), token = NULL, lease_until = NULL,
                   in_chord = false, error = '{"kind": "model", "code": "late", "message":
                       "The quorum was in, and the grace for others was over."}'
            WHERE id IN (SELECT c.id FROM candidate AS c JOIN patient AS p ON p.id = c.subtask_id
                         WHERE c.finished_at IS NULL ORDER BY c.id FOR UPDATE OF c)
            """
        )
    ).rowcount


def unblock_after(connection: Connection, done: Sequence[UUID]) -> int:
    """What waited for these subtasks, and for nothing else, becomes ready at once.

    Two parents that finish at the same moment do not see each other: their child is left to `unblock`.
    """
    return connection.execute(
        text(
            """
            UPDATE subtask SET status = 'ready'
            WHERE id IN (
                SELECT s.id FROM subtask AS s
                WHERE s.id IN (SELECT subtask_id FROM subtask_need WHERE needs_id = ANY(CAST(:done AS uuid[])))
                  AND s.status || '' = 'blocked' AND NOT EXISTS (
                    SELECT FROM subtask_need AS n JOIN subtask AS needed ON needed.id = n.needs_id
                    WHERE n.subtask_id = s.id AND needed.status <> 'done')
                ORDER BY s.id FOR UPDATE SKIP LOCKED)
            """
        ),
        {"done": list(done)},
    ).rowcount


def unblock(connection: Connection) -> int:
    """Blocked subtasks whose needs are all done become ready. Two parents that finish at once cannot strand a child."""
    return connection.execute(
        text(
            """
            UPDATE subtask SET status = 'ready'
            WHERE id IN (
                SELECT s.id FROM subtask AS s
                WHERE s.status = 'blocked' AND NOT EXISTS (
                    SELECT FROM subtask_need AS n JOIN subtask AS needed ON needed.id = n.needs_id
                    WHERE n.subtask_id = s.id AND needed.status <> 'done')
                ORDER BY s.id FOR UPDATE SKIP LOCKED)
            """
        )
    ).rowcount


def skip_unreachable(connection: Connection) -> int:
    """Blocked subtasks that need one which ended without a result are skipped, and so are those that need these."""
    skipped = 0
    while rows := connection.execute(
        text(
            """
            UPDATE subtask AS s SET status = 'skipped', finished_at = now(), error = jsonb_build_object(
                'code', 'need_not_met',
                'message', (SELECT 'it needs ' || needed.name || ', which is ' || needed.status
                            FROM subtask_need AS n JOIN subtask AS needed ON needed.id = n.needs_id
                            WHERE n.subtask_id = s.id AND needed.finished_at IS NOT NULL AND needed.status <> 'done'
                            ORDER BY needed.position LIMIT 1))
            WHERE s.id IN (
                SELECT b.id FROM subtask AS b
                WHERE b.status = 'blocked' AND EXISTS (
                    SELECT FROM subtask_need AS n JOIN subtask AS needed ON needed.id = n.needs_id
                    WHERE n.subtask_id = b.id AND needed.finished_at IS NOT NULL AND needed.status <> 'done')
                ORDER BY b.id FOR UPDATE SKIP LOCKED)
            RETURNING s.task_id
            """
        )
    ).all():
        skipped += len(rows)
        finish_tasks(connection, list({row.task_id for row in rows}))
    return skipped


def expire_subtasks(connection: Connection, grace: float, limit: int = 1000) -> int:
    """Subtasks past their deadline: what has its quorum is judged with what exists, the rest expires.

    Candidates that are not finished are cancelled either way. A subtask that has its quorum expires too where no judge
    has taken it `grace` seconds after the deadline. Returns how many expired.
    """
    expired = connection.execute(
        text(
            """
            WITH late AS (
                SELECT id FROM subtask
                WHERE finished_at IS NULL AND deadline <= now() AND status <> 'judging'
                ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED
            ), stopped AS (
                UPDATE candidate SET status = 'cancelled', finished_at = now(), token = NULL, lease_until = NULL,
                       in_chord = false,
                       error = '{"kind": "model", "code": "deadline", "message": "The deadline passed first."}'
                WHERE subtask_id IN (SELECT id FROM late) AND finished_at IS NULL
            ), counted AS (
                SELECT late.id, count(c.id) FILTER (WHERE c.status = 'done') AS done, count(c.id) AS tried
                FROM late LEFT JOIN candidate AS c ON c.subtask_id = late.id GROUP BY late.id
            )
            UPDATE subtask AS s SET status = 'expired', finished_at = now(), error = jsonb_build_object(
                'code', 'deadline_passed', 'message', 'the deadline passed; ' || CASE
                    WHEN n.tried = 0 THEN 'no model had been asked'
                    WHEN n.done < s.quorum THEN n.done || ' of ' || n.tried || ' candidates were done, the quorum is '
                        || s.quorum
                    ELSE 'no judge was to be had' END)
            FROM counted AS n
            WHERE s.id = n.id AND (n.done < s.quorum OR s.deadline <= now() - make_interval(secs => :grace))
            RETURNING s.task_id
            """
        ),
        {"grace": grace, "limit": limit},
    ).all()
    if expired:
        finish_tasks(connection, list({row.task_id for row in expired}))
    return len(expired)


def end_stray_candidates(connection: Connection) -> int:
    """Unfinished candidates of finished subtasks are cancelled. There are none, unless two statements raced."""
    return connection.execute(
        text(
            """
            UPDATE candidate SET status = 'cancelled', finished_at = now(), token = NULL, lease_until = NULL,
                   error = '{"kind": "model", "code": "decided", "message": "The verdict came first."}'
            WHERE id IN (
                SELECT c.id FROM candidate AS c
                WHERE c.finished_at IS NULL AND c.id IN (
                    SELECT o.id FROM (  -- two branches for two partial indexes
                        SELECT id, subtask_id FROM candidate WHERE message_id IS NOT NULL AND finished_at IS NULL
                        UNION ALL
                        SELECT id, subtask_id FROM candidate WHERE message_id IS NULL AND finished_at IS NULL) AS o
                    WHERE EXISTS (SELECT FROM subtask AS s
                                  WHERE s.id = o.subtask_id AND s.finished_at IS NOT NULL OFFSET 0))
                ORDER BY c.id FOR UPDATE OF c SKIP LOCKED)
            """
        )
    ).rowcount
