"""Tasks on their way in: stored, taken by turns, planned, refused. How they end is in `db.endings`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import Connection, text

from db.engine import CHANNEL
from db.errors import BacklogFull, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence


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
    traceparent: str | None = None


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
    next_judges: tuple[str, ...] = ()  # who is asked where it fails
    expect: dict[str, Any] | None = None  # what an answer must hold
    input_key: bytes | None = None  # see `db.cache`
    needs: tuple[str, ...] = ()  # names of subtasks of the same task
    max_candidates: int | None = None  # its share of the task's `max_calls`
    note: str | None = None
    grace: float | None = None
    min_confidence: float | None = None


class IdempotencyConflict(InvalidRequest):
    """The same idempotency key came with another body."""

    code = "idempotency_conflict"


def insert_task(connection: Connection, row: TaskRow, max_backlog: int | None = None) -> tuple[UUID, bool]:
    """Store one task. Returns its id and whether it is new. See `insert_tasks`."""
    return insert_tasks(connection, [row], max_backlog)[0]


def insert_tasks(
    connection: Connection, rows: Sequence[TaskRow], max_backlog: int | None = None
) -> list[tuple[UUID, bool]]:
    """Store tasks, all or none. Returns each one's id and whether it is new, in order; new ones take one statement.

    A row with the idempotency key of a stored one (same source) is not stored again: its id is returned where the
    bodies agree, `IdempotencyConflict` is raised where they do not. The unique index decides, so two callers that race
    get one task. Raises `BacklogFull` where a source would have over `max_backlog` open tasks; callers that race may
    pass it by their number.
    """
    if not rows:
        return []
    new = {
        row.n: row.id
        for row in connection.execute(
            text(
                """
                WITH given AS MATERIALIZED (
                    SELECT bakeoff_uuid7() AS id, r.* FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (
                        n integer, request text, capability text, source text, priority smallint, options jsonb,
                        attachments jsonb, idempotency_key text, run_at timestamptz, deadline timestamptz,
                        retry_of uuid, traceparent text)
                ), fitting AS (
                    SELECT g.source FROM (SELECT source, count(*) AS n FROM given GROUP BY source) AS g
                    WHERE CAST(:max_backlog AS bigint) IS NULL OR g.n + (
                        SELECT count(*) FROM (SELECT FROM task WHERE source = g.source AND finished_at IS NULL
                                              LIMIT :max_backlog) AS open) <= :max_backlog
                ), stored AS (
                    INSERT INTO task (id, request, capability, source, priority, options, attachments, idempotency_key,
                                      run_at, deadline, retry_of, traceparent)
                    SELECT id, request, capability, source, priority, options, attachments, idempotency_key, run_at,
                           deadline, retry_of, traceparent
                    FROM given WHERE source IN (SELECT source FROM fitting) ORDER BY n
                    ON CONFLICT (source, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
                    RETURNING id
                )
                SELECT given.n, given.id FROM given JOIN stored ON stored.id = given.id
                """
            ),
            {
                "rows": json.dumps([{**_values(row), "n": n} for n, row in enumerate(rows)], allow_nan=False),
                "max_backlog": max_backlog,
            },
        )
    }
    return [
        (new[n], True) if n in new else (_stored_before(connection, row, max_backlog or 0), False)
        for n, row in enumerate(rows)
    ]


def count_open(connection: Connection, source: str, most: int) -> int:
    """Open tasks of a source, counted up to `most`."""
    count: int = connection.execute(
        text(
            "SELECT count(*) FROM (SELECT FROM task WHERE source = :source AND finished_at IS NULL LIMIT :most) AS open"
        ),
        {"source": source, "most": most},
    ).scalar_one()
    return count


def _stored_before(connection: Connection, row: TaskRow, max_backlog: int) -> UUID:
    """The task that has this row's idempotency key. Raises `BacklogFull` where there is none: it did not fit."""
    stored = connection.execute(
        text(
            """
            SELECT id, (request = :request AND capability IS NOT DISTINCT FROM CAST(:capability AS text)
                        AND options = CAST(:options AS jsonb) AND attachments = CAST(:attachments AS jsonb)) AS same
            FROM task WHERE source = :source AND idempotency_key = :idempotency_key
            """
        ),
        {**vars(row), "options": json.dumps(row.options), "attachments": json.dumps(row.attachments)},
    ).one_or_none()
    if stored is None:
        raise BacklogFull(row.source, max_backlog, _retry_after(connection, row.source, max_backlog))
    if not stored.same:
        raise IdempotencyConflict(
            f"idempotency_key {row.idempotency_key!r} of source {row.source!r} belongs to task {stored.id}, which asks "
            "for something else; use a new key for a new request."
        )
    found: UUID = stored.id
    return found


def _retry_after(connection: Connection, source: str, limit: int) -> int:
    """Seconds until a tenth of the backlog is gone, at the pace of the last minute; 1 to 300, 60 where nothing ends."""
    finished: int = connection.execute(
        text("SELECT count(*) FROM task WHERE finished_at > now() - interval '1 minute' AND source = :source"),
        {"source": source},
    ).scalar_one()
    return max(1, min(300, round(60 * limit / 10 / finished))) if finished else 60


def _values(row: TaskRow) -> dict[str, Any]:
    """JSON-ready values by column."""
    return {
        **vars(row),
        "run_at": _iso(row.run_at),
        "deadline": _iso(row.deadline),
        "retry_of": str(row.retry_of) if row.retry_of else None,
    }


def lock_pending(connection: Connection, limit: int) -> list[UUID]:
    """Lock up to `limit` pending tasks for this transaction; other schedulers skip them.

    Order: priority; then the sources in turn, so that one that floods delays no other; then age. Found as in
    `db.subtasks.lock_ready`. What has a `run_at` joins when its time has come.
    """
    rows = connection.execute(
        text(
            """
            WITH RECURSIVE pair AS (
                (SELECT priority, source FROM task WHERE status = 'pending' AND run_at IS NULL
                 ORDER BY priority DESC, source LIMIT 1)
                UNION ALL
                SELECT n.* FROM pair CROSS JOIN LATERAL (
                    (SELECT priority, source FROM task WHERE status = 'pending' AND run_at IS NULL
                       AND priority = pair.priority AND source > pair.source ORDER BY source LIMIT 1)
                    UNION ALL
                    (SELECT priority, source FROM task WHERE status = 'pending' AND run_at IS NULL
                       AND priority < pair.priority ORDER BY priority DESC, source LIMIT 1)
                    LIMIT 1) AS n
            ), shares AS (
                SELECT p.*, least(:limit, greatest(1, 4 * :limit / count(*) OVER (PARTITION BY priority))) AS share
                FROM (SELECT * FROM pair LIMIT 16 * :limit) AS p
            ), due AS (
                SELECT p.* FROM shares AS s CROSS JOIN LATERAL (
                    SELECT id, source, priority, created_at FROM task
                    WHERE status = 'pending' AND run_at IS NULL AND priority = s.priority AND source = s.source
                    ORDER BY created_at LIMIT s.share) AS p
                UNION ALL
                (SELECT id, source, priority, run_at FROM task
                 WHERE status = 'pending' AND run_at <= now() ORDER BY run_at LIMIT :limit)
            ), ranked AS (
                SELECT due.*, row_number() OVER (PARTITION BY source, priority ORDER BY created_at, id) AS turn
                FROM due ORDER BY priority DESC, turn, created_at LIMIT :limit
            )
            SELECT t.id FROM task AS t JOIN ranked AS r ON r.id = t.id
            WHERE t.status || '' = 'pending'  -- by id: docs/decisions/rows-by-id-alone.md
            ORDER BY r.priority DESC, r.turn, r.created_at
            FOR UPDATE OF t SKIP LOCKED
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


def start_tasks(
    connection: Connection,
    subtasks: Sequence[SubtaskRow],
    max_subtasks: int = 256,
    known: Mapping[UUID, Collection[str]] | None = None,
) -> None:
    """Store the subtasks of locked tasks that are pending, or whose plan is stored, and set the tasks running.

    A subtask that needs others is blocked until they are done, the rest is ready. `known` are subtasks of these tasks
    that were stored before. One statement. Raises `InvalidRequest` where a task has over `max_subtasks`, or a subtask
    needs one that its task does not have.
    """
    if not subtasks:
        return
    _check_plans(subtasks, max_subtasks, known or {})
    connection.execute(
        text(
            """
            WITH given AS (
                SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (
                    task_id uuid, position smallint, name text, capability text, inputs jsonb, options jsonb,
                    source text, priority smallint, candidates_wanted smallint, quorum smallint, judge text,
                    deadline timestamptz, input_key text, needs jsonb, max_candidates smallint, note text,
                    grace double precision, min_confidence double precision, next_judges jsonb, expect jsonb)
            ), planned AS (
                INSERT INTO subtask (task_id, position, name, capability, inputs, options, source, priority,
                                     candidates_wanted, quorum, judge, deadline, input_key, status, max_candidates,
                                     note, grace, min_confidence, next_judges, expect)
                SELECT task_id, position, name, capability, inputs, options, source, priority,
                       candidates_wanted, quorum, judge, deadline, decode(input_key, 'hex'),
                       CASE WHEN needs = '[]' THEN 'ready' ELSE 'blocked' END, max_candidates, note, grace,
                       min_confidence, next_judges, nullif(expect, 'null')
                FROM given
                RETURNING id, task_id, name
            ), edges AS (
                INSERT INTO subtask_need (subtask_id, needs_id)
                SELECT p.id, coalesce(needed.id, before.id)
                FROM given AS g
                JOIN planned AS p ON p.task_id = g.task_id AND p.name = g.name
                CROSS JOIN LATERAL jsonb_array_elements_text(g.needs) AS e (name)
                LEFT JOIN planned AS needed ON needed.task_id = g.task_id AND needed.name = e.name
                LEFT JOIN subtask AS before ON before.task_id = g.task_id AND before.name = e.name
            )
            UPDATE task SET status = 'running', planned = false
            WHERE id = ANY(ARRAY(SELECT task_id FROM planned))
              AND (status || '' = 'pending' OR (status || '' = 'planning' AND planned))
            """
        ),
        {"rows": json.dumps([_subtask_json(row) for row in subtasks], allow_nan=False)},
    )


def _subtask_json(row: SubtaskRow) -> dict[str, Any]:
    return {
        **vars(row),
        "task_id": str(row.task_id),
        "deadline": _iso(row.deadline),
        "input_key": row.input_key.hex() if row.input_key else None,
        "needs": list(row.needs),
        "next_judges": list(row.next_judges),
    }


def _check_plans(subtasks: Sequence[SubtaskRow], max_subtasks: int, before: Mapping[UUID, Collection[str]]) -> None:
    names: dict[UUID, set[str]] = {}
    for row in subtasks:
        names.setdefault(row.task_id, set(before.get(row.task_id, ()))).add(row.name)
    for task, known in names.items():
        if len(known) > max_subtasks:
            raise InvalidRequest(
                f"The plan of task {task} has {len(known)} subtasks; BAKEOFF_MAX_SUBTASKS allows {max_subtasks}."
            )
    for row in subtasks:
        for name in row.needs:
            if name not in names[row.task_id] or name == row.name:
                raise InvalidRequest(f"Subtask {row.name!r} needs {name!r}, which is no other subtask of its task.")


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def reject_tasks(connection: Connection, reasons: dict[UUID, dict[str, str]]) -> None:
    """End locked tasks, pending or planned, that can never run; each keeps its reason (`{"code", "message"}`)."""
    if not reasons:
        return
    connection.execute(
        text(
            """
            UPDATE task SET status = 'failed', error = r.error, planned = false, finished_at = now(),
                            finished_xid = pg_current_xact_id()
            FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (id uuid, error jsonb)
            WHERE task.id = r.id AND (task.status || '' = 'pending' OR task.planned)
            """
        ),
        {"rows": json.dumps([{"id": str(task), "error": error} for task, error in reasons.items()])},
    )
    announce(connection, "result")


def announce(connection: Connection, what: str) -> None:
    """Tell listeners at commit. The payload is a constant: it only shortens a wait, polling finds the same."""
    connection.execute(text("SELECT pg_notify(:channel, :what)"), {"channel": CHANNEL, "what": what})
