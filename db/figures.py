"""Figures for a monitor: small queries over open rows and over what was judged in the last minutes, whatever is stored.

What happened is counted over a window here: counting every row ever stored would cost more the longer the system is
used. Counts since ever are in `db.tally`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, text

WINDOW = 600.0  # seconds
MOST_VERDICTS = 5000  # of one window
MOST_PREFERENCES = 500  # per capability


@dataclass(frozen=True, kw_only=True)
class Recent:
    """What one model did for the subtasks judged in the window. `seconds` in the model, cached outputs left out."""

    model: str
    done: int
    cached: int
    judged: int  # with at least one other
    wins: int
    seconds: float
    inputs: int  # that messages carried
    messages: int


def recent_work(connection: Connection) -> list[Recent]:
    """Per model, over the latest verdicts of the window. One statement, which begins at an index of times."""
    rows = connection.execute(
        text(
            """
            WITH latest AS MATERIALIZED (
                SELECT subtask_id, winner_id FROM verdict
                WHERE created_at > now() - make_interval(secs => :window) ORDER BY created_at DESC LIMIT :most
            ), ran AS (
                SELECT c.model, c.status, c.cached, c.seconds, c.message_id, c.id = l.winner_id AS won,
                       count(*) FILTER (WHERE c.status = 'done') OVER (PARTITION BY c.subtask_id) AS rivals
                FROM latest AS l JOIN candidate AS c ON c.subtask_id = l.subtask_id
            )
            SELECT model, count(*) FILTER (WHERE status = 'done') AS done, count(*) FILTER (WHERE cached) AS cached,
                   count(*) FILTER (WHERE status = 'done' AND rivals > 1) AS judged,
                   count(*) FILTER (WHERE won AND rivals > 1) AS wins,
                   coalesce(sum(seconds) FILTER (WHERE NOT cached), 0)::float8 AS seconds,
                   count(message_id) AS inputs, count(DISTINCT message_id) AS messages
            FROM ran GROUP BY model
            """
        ),
        {"window": WINDOW, "most": MOST_VERDICTS},
    )
    return [Recent(**row._mapping) for row in rows]  # noqa: SLF001 - the documented name


def recent_failures(connection: Connection) -> dict[tuple[str, str], int]:
    """Candidates that failed in the window, by model and kind of error; `worker`: their worker was lost, for good."""
    rows = connection.execute(
        text(
            """
            SELECT m.name AS model, f.kind, count(*) AS failed
            FROM model AS m CROSS JOIN LATERAL (
                SELECT c.error ->> 'kind' AS kind FROM candidate AS c
                WHERE c.model = m.name AND c.error IS NOT NULL AND c.finished_at IS NOT NULL
                  AND c.finished_at > now() - make_interval(secs => :window) AND c.status IN ('error', 'dead')
                ORDER BY c.finished_at DESC LIMIT :most) AS f
            GROUP BY m.name, f.kind
            """
        ),
        {"window": WINDOW, "most": MOST_VERDICTS},
    )
    return {(row.model, row.kind or "model"): row.failed for row in rows}


def lost_leases(connection: Connection) -> dict[str, int]:
    """Candidates per model that a worker holds no more, or lost before and that are tried again."""
    rows = connection.execute(
        text(
            """
            SELECT model, count(*) AS lost FROM (
                SELECT model FROM candidate
                WHERE message_id IS NOT NULL AND finished_at IS NULL AND status = 'running' AND lease_until < now()
                UNION ALL
                SELECT model FROM candidate
                WHERE message_id IS NULL AND finished_at IS NULL AND error ->> 'kind' = 'worker') AS c
            GROUP BY model
            """
        )
    )
    return {row.model: row.lost for row in rows}


def oldest_open(connection: Connection) -> dict[str, float]:
    """Age in seconds of the oldest task in each open state that a queue of ours serves."""
    rows = connection.execute(
        text(
            """
            SELECT s.status, extract(epoch FROM now() - t.created_at)::float8 AS age
            FROM unnest(ARRAY['pending', 'planning', 'integrating']) AS s (status)
            CROSS JOIN LATERAL (  -- not `status = s.status`: where none is in it, Postgres would look through them all
                SELECT status, created_at FROM task WHERE (task.status, task.id) > (s.status, CAST(:first AS uuid))
                ORDER BY task.status, task.id LIMIT 1) AS t
            WHERE t.status = s.status
            """
        ),
        {"first": UUID(int=0)},
    )
    return {row.status: row.age for row in rows}


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How often people who compared two of a subtask's outputs agreed with its judge."""

    judge: str
    agreed: int
    compared: int


def judge_agreement(connection: Connection, capabilities: Sequence[str]) -> list[Agreement]:
    """Per judge, over the latest preferences of people in these capabilities that its verdict ranks both sides of."""
    rows = connection.execute(
        text(
            """
            WITH latest AS MATERIALIZED (
                SELECT p.* FROM unnest(CAST(:capabilities AS text[])) AS k (name) CROSS JOIN LATERAL (
                    SELECT subtask_id, better ->> 'model' AS better, worse ->> 'model' AS worse FROM preference
                    WHERE capability = k.name AND origin = 'human' AND subtask_id IS NOT NULL
                    ORDER BY created_at DESC LIMIT :most) AS p
            ), placed AS (
                SELECT v.judge, array_position(k.ids, CAST(b.id AS text)) AS better,
                       array_position(k.ids, CAST(w.id AS text)) AS worse
                FROM latest AS l JOIN verdict AS v ON v.subtask_id = l.subtask_id AND NOT v.fallback
                CROSS JOIN LATERAL (SELECT ARRAY(SELECT jsonb_array_elements_text(v.ranking)) AS ids) AS k
                JOIN candidate AS b ON b.subtask_id = l.subtask_id AND b.model = l.better
                JOIN candidate AS w ON w.subtask_id = l.subtask_id AND w.model = l.worse
            )
            SELECT judge, count(*) FILTER (WHERE better < worse) AS agreed, count(*) AS compared
            FROM placed WHERE better IS NOT NULL AND worse IS NOT NULL GROUP BY judge
            """
        ),
        {"capabilities": list(capabilities), "most": MOST_PREFERENCES},
    )
    return [Agreement(**row._mapping) for row in rows]  # noqa: SLF001 - the documented name


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Unfinished work of a queue that no model serves. `oldest` in seconds."""

    waiting: int = 0
    sent: int = 0
    running: int = 0
    oldest: float = 0.0


def judge_backlog(connection: Connection) -> Standing:
    """Subtasks whose candidates have all ended and that no verdict has yet, and how long the first has been so.

    `sent`: a message of their own carries them. What a chord's callback will judge says nothing of itself: it waits.
    """
    row = connection.execute(
        text(
            """
            SELECT count(*) FILTER (WHERE s.status = 'running' AND s.message_id IS NULL) AS waiting,
                   count(*) FILTER (WHERE s.status = 'running' AND s.message_id IS NOT NULL) AS sent,
                   count(*) FILTER (WHERE s.status = 'judging') AS running,
                   coalesce(extract(epoch FROM now() - min(k.since)), 0)::float8 AS oldest
            FROM subtask AS s CROSS JOIN LATERAL (
                SELECT bool_and(finished_at IS NOT NULL) AND bool_or(status = 'done') AS complete,
                       max(finished_at) AS since
                FROM candidate WHERE subtask_id = s.id) AS k
            WHERE s.status IN ('running', 'judging') AND (k.complete OR s.status = 'judging')
            """
        )
    ).one()
    return Standing(**row._mapping)  # noqa: SLF001 - the documented name


def thinking_backlogs(connection: Connection) -> dict[str, Standing]:
    """Tasks in `planning` and in `integrating`, and the age of the oldest of each."""
    rows = connection.execute(
        text(
            """
            SELECT status, count(*) FILTER (WHERE message_id IS NULL AND token IS NULL) AS waiting,
                   count(*) FILTER (WHERE message_id IS NOT NULL AND token IS NULL) AS sent,
                   count(*) FILTER (WHERE token IS NOT NULL) AS running,
                   extract(epoch FROM now() - min(created_at))::float8 AS oldest
            FROM task WHERE status IN ('planning', 'integrating') GROUP BY status
            """
        )
    )
    return {
        row.status: Standing(waiting=row.waiting, sent=row.sent, running=row.running, oldest=row.oldest) for row in rows
    }


def message_sizes(connection: Connection) -> dict[str, list[int]]:
    """Per model, how many inputs each message carried for the subtasks judged in the window."""
    rows = connection.execute(
        text(
            """
            WITH latest AS MATERIALIZED (
                SELECT subtask_id FROM verdict
                WHERE created_at > now() - make_interval(secs => :window) ORDER BY created_at DESC LIMIT :most
            ), carried AS (
                SELECT c.model, c.message_id, count(*) AS inputs
                FROM latest AS l JOIN candidate AS c ON c.subtask_id = l.subtask_id
                WHERE c.message_id IS NOT NULL GROUP BY c.model, c.message_id
            )
            SELECT model, array_agg(inputs) AS sizes FROM carried GROUP BY model
            """
        ),
        {"window": WINDOW, "most": MOST_VERDICTS},
    )
    return {row.model: list(row.sizes) for row in rows}


@dataclass(frozen=True, kw_only=True)
class Deliveries:
    """Webhooks that have not arrived: on their way, and given up. `oldest` of the pending, in seconds."""

    pending: int
    failed: int
    oldest: float


def open_deliveries(connection: Connection) -> Deliveries:
    """What partial indexes hold of the deliveries."""
    row = connection.execute(
        text(
            """
            SELECT p.pending, p.oldest, f.failed
            FROM (SELECT count(*) AS pending, coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8 AS oldest
                  FROM webhook_delivery WHERE status = 'pending') AS p
            CROSS JOIN (SELECT count(*) AS failed FROM webhook_delivery WHERE status = 'failed') AS f
            """
        )
    ).one()
    return Deliveries(**row._mapping)  # noqa: SLF001 - the documented name
