"""The read side: a task's whole story, lists of results, and the operator's figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from db.errors import NotFound

STORY = """
SELECT t.id, t.status, t.source, t.request, t.capability, t.attachments, t.answer, t.confidence, t.fallback, t.error,
       t.created_at, t.finished_at, t.retry_of, t.plan, t.integration, t.needs_review,
       coalesce((
           SELECT jsonb_agg(jsonb_build_object(
               'id', s.id, 'name', s.name, 'capability', s.capability, 'status', s.status, 'error', s.error,
               'inputs', s.inputs, 'note', s.note, 'needs_review', s.needs_review, 'expect', s.expect,
               'judges', jsonb_build_object('asked', s.judge, 'next', s.next_judges, 'failed', s.failed_judges),
               'needs', coalesce((SELECT jsonb_agg(n.name ORDER BY n.position) FROM subtask_need AS e
                                  JOIN subtask AS n ON n.id = e.needs_id WHERE e.subtask_id = s.id), '[]'),
               'candidates', coalesce((
                   SELECT jsonb_agg(jsonb_build_object(
                       'id', c.id, 'model', c.model, 'status', c.status, 'output', c.output, 'detail', c.detail,
                       'usage', c.usage, 'error', c.error, 'seconds', c.seconds, 'attempt', c.attempt, 'rank', c.rank,
                       'proposed_by', c.proposed_by, 'cached', c.cached) ORDER BY c.rank)
                   FROM candidate AS c WHERE c.subtask_id = s.id), '[]'),
               'verdict', (
                   SELECT jsonb_build_object(
                       'winner', v.winner, 'winner_id', v.winner_id, 'method', v.method, 'judge', v.judge,
                       'judge_model', v.judge_model, 'prompt_version', v.prompt_version, 'ranking', v.ranking,
                       'scores', v.scores, 'reason', v.reason, 'confidence', v.confidence, 'fallback', v.fallback,
                       'seconds', v.seconds, 'seen', v.seen, 'checks', v.checks, 'failed_judges', v.failed_judges)
                   FROM verdicts AS v WHERE v.subtask_id = s.id)
           ) ORDER BY s.position)
           FROM subtask AS s WHERE s.task_id = t.id), '[]') AS subtasks
FROM task AS t
"""


def task_story(connection: Connection, task: UUID) -> dict[str, Any]:
    """Everything stored about one task, as JSON-ready values. Raises `NotFound`."""
    row = connection.execute(text(STORY + "WHERE t.id = :task"), {"task": task}).one_or_none()
    if row is None:
        raise NotFound(f"No task {task}; `bakeoff results` lists the latest ones.")
    story: dict[str, Any] = _plain(dict(row._mapping))  # noqa: SLF001 - the documented name
    return story


def task_status(connection: Connection, tasks: list[UUID]) -> dict[UUID, str]:
    """Status of each of these tasks; unknown ids are left out."""
    rows = connection.execute(
        text("SELECT id, status FROM task WHERE id = ANY(CAST(:tasks AS uuid[]))"), {"tasks": tasks}
    )
    return {row.id: row.status for row in rows}


def tasks_starting_with(connection: Connection, prefix: str) -> list[UUID]:
    """Up to two tasks whose id starts with `prefix` (hexadecimal digits and dashes), for people who type."""
    low, high = prefix, prefix
    shape = "00000000-0000-0000-0000-000000000000"
    low += shape[len(prefix) :]
    high += shape[len(prefix) :].replace("0", "f")
    rows = connection.execute(
        text("SELECT id FROM task WHERE id BETWEEN CAST(:low AS uuid) AND CAST(:high AS uuid) ORDER BY id LIMIT 2"),
        {"low": low, "high": high},
    )
    return list(rows.scalars())


def latest_results(
    connection: Connection,
    *,
    limit: int,
    source: str | None = None,
    status: str | None = None,
    before: UUID | None = None,
) -> list[dict[str, Any]]:
    """The newest tasks first, by id (which is time); `before` is the last id of the page before."""
    conditions = []
    if source is not None:
        conditions.append("source = :source")
    if status is not None:
        conditions.append("status = :status")
    if before is not None:
        conditions.append("task_id < :before")
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    rows = connection.execute(
        text(
            f"""
            SELECT task_id, source, status, request, answer, winners, confidence, fallback, error, created_at,
                   finished_at, retry_of
            FROM results {where} ORDER BY task_id DESC LIMIT :limit
            """  # noqa: S608 - only the fixed conditions above
        ),
        {"limit": limit, "source": source, "status": status, "before": before},
    )
    return [_plain(dict(row._mapping)) for row in rows]  # noqa: SLF001 - the documented name


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """Unfinished work of one model. Ages in seconds."""

    model: str
    chosen: int
    sent: int
    running: int
    oldest: float | None
    last_error: str | None


def backlogs(connection: Connection) -> dict[str, Backlog]:
    """Unfinished candidates per model, with the latest error of the last hour."""
    rows = connection.execute(
        text(
            """
            SELECT m.name AS model, coalesce(w.chosen, 0) AS chosen, coalesce(w.sent, 0) AS sent,
                   coalesce(w.running, 0) AS running, w.oldest, e.message AS last_error
            FROM model AS m
            LEFT JOIN (
                SELECT model, count(*) FILTER (WHERE status = 'chosen') AS chosen,
                       count(*) FILTER (WHERE status = 'sent') AS sent,
                       count(*) FILTER (WHERE status = 'running') AS running,
                       extract(epoch FROM now() - min(created_at))::double precision AS oldest
                FROM (SELECT model, status, created_at FROM candidate WHERE message_id IS NULL AND finished_at IS NULL
                      UNION ALL
                      SELECT model, status, created_at FROM candidate
                      WHERE message_id IS NOT NULL AND finished_at IS NULL) AS c
                GROUP BY model) AS w ON w.model = m.name
            LEFT JOIN LATERAL (
                SELECT c.error ->> 'message' AS message FROM candidate AS c
                WHERE c.model = m.name AND c.error IS NOT NULL AND c.status IN ('error', 'dead')
                  AND c.finished_at > now() - interval '1 hour'
                ORDER BY c.finished_at DESC LIMIT 1) AS e ON true
            ORDER BY m.name
            """
        )
    )
    return {row.model: Backlog(**row._mapping) for row in rows}  # noqa: SLF001 - the documented name


def open_tasks(connection: Connection, limit: int) -> list[UUID]:
    """The newest unfinished tasks."""
    rows = connection.execute(
        text(
            """
            SELECT t.id FROM unnest(ARRAY['pending', 'planning', 'running', 'integrating']) AS s (status)
            CROSS JOIN LATERAL (
                SELECT id FROM task WHERE task.status = s.status ORDER BY id DESC LIMIT :limit) AS t
            ORDER BY t.id DESC LIMIT :limit
            """
        ),
        {"limit": limit},
    )
    return list(rows.scalars())


def open_of_source(connection: Connection, source: str, limit: int) -> list[UUID]:
    """Up to `limit` unfinished tasks of a source."""
    rows = connection.execute(
        text("SELECT id FROM task WHERE source = :source AND finished_at IS NULL LIMIT :limit"),
        {"source": source, "limit": limit},
    )
    return list(rows.scalars())


def open_counts(connection: Connection) -> dict[str, dict[str, int]]:
    """How many unfinished tasks and subtasks there are in each state."""
    rows = connection.execute(
        text(
            """
            SELECT 'task' AS what, status, count(*) AS n FROM task
            WHERE status IN ('pending', 'planning', 'running', 'integrating') GROUP BY status
            UNION ALL
            SELECT 'subtask', status, count(*) FROM subtask WHERE finished_at IS NULL GROUP BY status
            """
        )
    )
    counts: dict[str, dict[str, int]] = {"task": {}, "subtask": {}}
    for row in rows:
        counts[row.what][row.status] = row.n
    return counts


def model_rows(connection: Connection) -> dict[str, dict[str, Any]]:
    """The table `model`, by name: state, why it is in it, and seconds until a suspended one is probed."""
    rows = connection.execute(text(f"SELECT name, {BREAKER}, seconds_per_item FROM model"))  # noqa: S608 - a constant
    return {row.name: dict(row._mapping) for row in rows}  # noqa: SLF001 - the documented name


def judge_rows(connection: Connection) -> dict[str, dict[str, Any]]:
    """The table `judge`, by name."""
    rows = connection.execute(text(f"SELECT name, {BREAKER} FROM judge"))  # noqa: S608 - a constant
    return {row.name: dict(row._mapping) for row in rows}  # noqa: SLF001 - the documented name


BREAKER = """status, reason, consecutive_failures,
             CASE WHEN status = 'suspended' THEN greatest(extract(epoch FROM probe_after - now()), 0)::float8 END
             AS probe_in"""


@dataclass(frozen=True, kw_only=True)
class RecentVerdicts:
    """Verdicts of the last ten minutes. A high share of fallbacks is an alarm: the judge fails on what it is given."""

    verdicts: int
    fallbacks: int

    @property
    def share(self) -> float:
        """Fallbacks per verdict, 0 to 1."""
        return self.fallbacks / self.verdicts if self.verdicts else 0.0


def recent_verdicts(connection: Connection) -> RecentVerdicts:
    """How many subtasks were judged in the last ten minutes, and how many of them by fallback."""
    row = connection.execute(
        text(
            """
            SELECT count(*) AS verdicts, count(*) FILTER (WHERE fallback) AS fallbacks FROM verdict
            WHERE created_at > now() - interval '10 minutes'
            """
        )
    ).one()
    return RecentVerdicts(verdicts=row.verdicts, fallbacks=row.fallbacks)


def task_situation(connection: Connection, task: UUID) -> dict[str, Any]:
    """Where a task and everything under it stands, ages and waits in seconds. Raises `NotFound`."""
    row = connection.execute(
        text(
            """
            SELECT t.id, t.status, t.error, t.winners, t.plan,
                   extract(epoch FROM now() - t.sent_at)::float8 AS sent, t.token IS NOT NULL AS held,
                   extract(epoch FROM t.not_before - now())::float8 AS due_in,
                   extract(epoch FROM t.run_at - now())::float8 AS starts_in,
                   extract(epoch FROM t.deadline - now())::float8 AS deadline_in,
                   coalesce((
                       SELECT jsonb_agg(jsonb_build_object(
                           'name', s.name, 'capability', s.capability, 'status', s.status, 'judge', s.judge,
                           'options', s.options, 'error', s.error, 'next_judges', s.next_judges,
                           'failed_judges', s.failed_judges,
                           'due_in', extract(epoch FROM s.not_before - now()),
                           'sent', extract(epoch FROM now() - s.sent_at),
                           'needs', (SELECT jsonb_agg(n.name ORDER BY n.position) FROM subtask_need AS e
                                     JOIN subtask AS n ON n.id = e.needs_id
                                     WHERE e.subtask_id = s.id AND n.status <> 'done'),
                           'candidates', (SELECT jsonb_agg(jsonb_build_object(
                               'model', c.model, 'status', c.status, 'error', c.error, 'attempt', c.attempt,
                               'due_in', extract(epoch FROM c.not_before - now()),
                               'sent', extract(epoch FROM now() - c.sent_at)) ORDER BY c.rank)
                               FROM candidate AS c WHERE c.subtask_id = s.id)
                       ) ORDER BY s.position)
                       FROM subtask AS s WHERE s.task_id = t.id), '[]') AS subtasks
            FROM task AS t WHERE t.id = :task
            """
        ),
        {"task": task},
    ).one_or_none()
    if row is None:
        raise NotFound(f"No task {task}; `bakeoff results` lists the latest ones.")
    return dict(row._mapping)  # noqa: SLF001 - the documented name


def _plain(value: Any) -> Any:
    """UUIDs and times as text, so that `json.dumps` takes it."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, UUID):
        return str(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return value
