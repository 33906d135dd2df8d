"""Transitions of subtasks from running to a verdict: every statement that judges, fails or gives back one."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, text

from db.lease import Claim
from db.tasks import finish_tasks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: A subtask whose candidates are all terminal. The queries are about the alias `s`.
COMPLETE = "NOT EXISTS (SELECT FROM candidate AS c WHERE c.subtask_id = s.id AND c.finished_at IS NULL)"
ANY_DONE = "EXISTS (SELECT FROM candidate AS c WHERE c.subtask_id = s.id AND c.status = 'done')"


@dataclass(frozen=True, kw_only=True)
class Attempted:
    """A successful candidate, as the judge will see it."""

    id: UUID
    model: str
    output: str
    rank: int


@dataclass(frozen=True, kw_only=True)
class ToJudge:
    """A claimed subtask with its successful candidates, by rank. `attempt` counts how often a judge was asked."""

    id: UUID
    task_id: UUID
    capability: str
    judge: str
    request: str
    attempt: int
    max_attempts: int
    failed: int
    candidates: list[Attempted]


@dataclass(frozen=True, kw_only=True)
class VerdictRow:
    """A verdict to be stored."""

    subtask_id: UUID
    winner_id: UUID
    ranking: list[UUID]
    scores: Mapping[UUID, float]
    reason: str
    method: str
    judge: str
    seconds: float
    judge_model: str | None = None
    prompt_version: str | None = None
    orders: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    confidence: float | None = None
    fallback: bool = False


def claim_judging(connection: Connection, ids: Sequence[UUID], seconds: float) -> Claim:
    """Claim those of `ids` that can be judged now: all candidates terminal, one of them done. One statement."""
    token = uuid4()
    rows = connection.execute(
        text(
            f"""
            UPDATE subtask SET status = 'judging', token = :token,
                   lease_until = now() + make_interval(secs => :seconds)
            WHERE id IN (
                SELECT s.id FROM subtask AS s
                WHERE s.id = ANY(CAST(:ids AS uuid[])) AND s.status = 'running' AND {COMPLETE} AND {ANY_DONE}
                ORDER BY s.id FOR UPDATE SKIP LOCKED)
            RETURNING id
            """  # noqa: S608 - no value is interpolated
        ),
        {"ids": list(ids), "token": token, "seconds": seconds},
    )
    return Claim(token=token, ids=[row.id for row in rows], held=0)


def load_to_judge(connection: Connection, token: UUID) -> list[ToJudge]:
    """The subtasks claimed under `token`, with what the judge reads. One statement."""
    rows = connection.execute(
        text(
            """
            SELECT s.id, s.task_id, s.capability, s.judge, t.request, s.attempt, s.max_attempts,
                   count(*) FILTER (WHERE c.status <> 'done') AS failed,
                   jsonb_agg(jsonb_build_object('id', c.id, 'model', c.model, 'output', c.output, 'rank', c.rank)
                             ORDER BY c.rank) FILTER (WHERE c.status = 'done') AS candidates
            FROM subtask AS s
            JOIN task AS t ON t.id = s.task_id
            JOIN candidate AS c ON c.subtask_id = s.id
            WHERE s.token = :token AND s.status = 'judging'
            GROUP BY s.id, t.id ORDER BY s.attempt, s.id  -- one that cost its judge the life goes last
            """
        ),
        {"token": token},
    )
    return [
        ToJudge(
            **{key: value for key, value in row._mapping.items() if key != "candidates"},  # noqa: SLF001
            candidates=[
                Attempted(id=UUID(c["id"]), model=c["model"], output=c["output"], rank=c["rank"])
                for c in row.candidates
            ],
        )
        for row in rows
    ]


def store_verdicts(connection: Connection, token: UUID, verdicts: Sequence[VerdictRow]) -> list[UUID]:
    """Store verdicts under the token of their claim, end what still runs for them, and finish their tasks.

    Returns the subtasks that were still ours; a late or repeated verdict changes no row.
    """
    rows = connection.execute(
        text(
            """
            WITH given AS (
                SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (
                    subtask_id uuid, winner_id uuid, ranking jsonb, scores jsonb, reason text, method text, judge text,
                    judge_model text, prompt_version text, orders jsonb, confidence double precision, fallback boolean,
                    seconds double precision)
            ), mine AS (
                UPDATE subtask AS s SET status = 'done', finished_at = now(), token = NULL, lease_until = NULL,
                       error = NULL
                FROM given WHERE s.id = given.subtask_id AND s.token = :token AND s.status = 'judging'
                RETURNING s.id, s.task_id
            ), stored AS (
                INSERT INTO verdict (subtask_id, winner_id, ranking, scores, reason, method, judge, judge_model,
                                     prompt_version, orders, confidence, fallback, seconds)
                SELECT g.subtask_id, g.winner_id, g.ranking, g.scores, g.reason, g.method, g.judge, g.judge_model,
                       g.prompt_version, g.orders, g.confidence, g.fallback, g.seconds
                FROM given AS g JOIN mine ON mine.id = g.subtask_id
                ON CONFLICT (subtask_id) DO NOTHING
            ), decided AS (
                UPDATE candidate SET status = 'cancelled', finished_at = now(), token = NULL, lease_until = NULL,
                       error = '{"kind": "model", "code": "decided", "message": "The verdict came first."}'
                WHERE subtask_id IN (SELECT id FROM mine) AND finished_at IS NULL
            )
            SELECT id, task_id FROM mine
            """
        ),
        {"rows": json.dumps([_verdict_json(verdict) for verdict in verdicts]), "token": token},
    ).all()
    if rows:
        finish_tasks(connection, list({row.task_id for row in rows}))
    return [row.id for row in rows]


def _verdict_json(verdict: VerdictRow) -> dict[str, Any]:
    return {
        **vars(verdict),
        "subtask_id": str(verdict.subtask_id),
        "winner_id": str(verdict.winner_id),
        "ranking": [str(candidate) for candidate in verdict.ranking],
        "scores": {str(candidate): score for candidate, score in verdict.scores.items()},
        "orders": [dict(order) for order in verdict.orders],
    }


def judge_failed(connection: Connection, token: UUID, ids: Sequence[UUID], message: str, delay: float) -> int:
    """A judge failed on these claimed subtasks: they wait `delay` seconds, then are sent to it again."""
    return connection.execute(
        text(
            """
            UPDATE subtask SET status = 'running', token = NULL, lease_until = NULL, message_id = NULL, sent_at = NULL,
                   not_before = now() + make_interval(secs => :delay),
                   error = jsonb_build_object('code', 'judge_failed', 'message', CAST(:message AS text))
            WHERE id = ANY(CAST(:ids AS uuid[])) AND token = :token
            """
        ),
        {"ids": list(ids), "token": token, "delay": delay, "message": message},
    ).rowcount


def fail_exhausted(connection: Connection, ids: Sequence[UUID] | None = None) -> int:
    """Fail running subtasks whose candidates are all terminal and none done; of the given ones, or whichever there are.

    The error keeps every candidate's reason. Their tasks are finished in the same transaction.
    """
    rows = connection.execute(
        text(
            f"""
            UPDATE subtask AS s SET status = 'failed', finished_at = now(), error = jsonb_build_object(
                'code', 'all_candidates_failed',
                'message', (SELECT 'no candidate succeeded (' || coalesce(string_agg(c.model || ': '
                                   || coalesce(c.error ->> 'message', c.status), '; ' ORDER BY c.rank), '') || ')'
                            FROM candidate AS c WHERE c.subtask_id = s.id),
                'candidates', (SELECT jsonb_object_agg(c.model, c.error) FROM candidate AS c WHERE c.subtask_id = s.id))
            WHERE s.id IN (
                SELECT s.id FROM subtask AS s
                WHERE s.status = 'running' {"AND s.id = ANY(CAST(:ids AS uuid[]))" if ids is not None else ""}
                  AND EXISTS (SELECT FROM candidate AS c WHERE c.subtask_id = s.id)
                  AND {COMPLETE} AND NOT {ANY_DONE}
                ORDER BY s.id FOR UPDATE SKIP LOCKED)
            RETURNING s.task_id
            """  # noqa: S608 - no value is interpolated
        ),
        {"ids": list(ids)} if ids is not None else {},
    ).all()
    if rows:
        finish_tasks(connection, list({row.task_id for row in rows}))
    return len(rows)


def expire_judging(connection: Connection) -> int:
    """Subtasks whose judge's lease ran out go back to running and are due at once."""
    return connection.execute(
        text(
            """
            UPDATE subtask SET status = 'running', token = NULL, lease_until = NULL, message_id = NULL, sent_at = NULL,
                   not_before = now()
            WHERE id IN (SELECT id FROM subtask WHERE status = 'judging' AND lease_until < now()
                         ORDER BY id FOR UPDATE SKIP LOCKED)
            """
        )
    ).rowcount


def send_judging(
    connection: Connection, *, grace: float, lost_after: float, queue_empty: bool, limit: int
) -> list[UUID]:
    """Give complete, unjudged subtasks a judge message of their own; returns their ids.

    What a chord's callback should judge is left to it for `grace` seconds; what completed outside of a chord is due at
    once. Such a message is sent again where the judge's queue is empty and nobody claimed it for `lost_after` seconds.
    """
    rows = connection.execute(
        text(
            f"""
            WITH due AS (
                SELECT s.id FROM subtask AS s
                WHERE s.status = 'running' AND {COMPLETE} AND {ANY_DONE}
                  AND ((s.sent_at IS NULL AND coalesce(s.not_before, (
                            SELECT max(c.finished_at) FROM candidate AS c WHERE c.subtask_id = s.id)
                            + make_interval(secs => :grace)) <= now())
                       OR (:queue_empty AND s.sent_at < now() - make_interval(secs => :lost_after)))
                ORDER BY s.priority DESC, s.created_at
                LIMIT :limit FOR UPDATE SKIP LOCKED
            )
            UPDATE subtask SET sent_at = now(), message_id = gen_random_uuid()
            WHERE id IN (SELECT id FROM due) RETURNING id
            """  # noqa: S608 - no value is interpolated
        ),
        {"grace": grace, "lost_after": lost_after, "queue_empty": queue_empty, "limit": limit},
    )
    return [row.id for row in rows]


def unsend_judging(connection: Connection, ids: Sequence[UUID]) -> None:
    """Judge messages that could not be published are due again."""
    connection.execute(
        text(
            """
            UPDATE subtask SET sent_at = NULL, message_id = NULL, not_before = now()
            WHERE id = ANY(CAST(:ids AS uuid[])) AND status = 'running'
            """
        ),
        {"ids": list(ids)},
    )
