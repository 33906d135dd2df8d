"""Transitions of subtasks from running to a verdict: every statement that judges, fails or gives back one."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, text

from db.endings import finish_tasks
from db.judges import COMPLETE, JUDGE_SUSPENDED, LISTS, NEEDS_JUDGE, STUCK, keep_for_probes, pass_over_suspended
from db.lease import Claim
from db.states import Seen
from db.subtasks import READ, unblock_after
from db.tasks import announce

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

ANY_DONE = "EXISTS (SELECT FROM candidate AS c WHERE c.subtask_id = s.id AND c.status = 'done' OFFSET 0)"
#: Capabilities whose output says what is in a file.
DESCRIBING = {
    "automatic-speech-recognition": Seen.TRANSCRIPT,
    "image-to-text/caption": Seen.CAPTION,
    "image-to-text": Seen.CAPTION,
    "image-to-text/ocr": Seen.TEXT,
}
#: The files of subtask `s` of task `t`, each with what winners of the same task said of it; null where it has none.
FILES = """
CASE WHEN s.inputs @? '$[*].attachment' THEN (
    SELECT jsonb_agg(jsonb_build_object(
        'name', coalesce(a.file ->> 'name', ''), 'sha256', coalesce(a.file ->> 'sha256', ''),
        'media_type', coalesce(r.media_type, ''), 'said', coalesce((
            SELECT jsonb_agg(jsonb_build_object('capability', o.capability, 'text', w.output) ORDER BY o.position)
            FROM subtask AS o JOIN verdict AS v ON v.subtask_id = o.id JOIN candidate AS w ON w.id = v.winner_id
            WHERE o.task_id = s.task_id AND o.id <> s.id AND o.inputs @> jsonb_build_array(i.reference)
              AND o.capability = ANY(CAST(:describing AS text[]))), '[]')) ORDER BY i.n)
    FROM jsonb_array_elements(s.inputs) WITH ORDINALITY AS i (reference, n)
    CROSS JOIN LATERAL (SELECT t.attachments -> CAST(i.reference ->> 'attachment' AS integer) AS file) AS a
    LEFT JOIN artifact AS r ON r.sha256 = a.file ->> 'sha256'
    WHERE i.reference ->> 'attachment' IS NOT NULL) END
"""


@dataclass(frozen=True, kw_only=True)
class Attempted:
    """A successful candidate, as the judge will see it."""

    id: UUID
    model: str
    output: str
    rank: int


@dataclass(frozen=True, kw_only=True)
class Attached:
    """A file of a subtask. `said` is what other subtasks of the task made of it: [{"capability", "text"}]."""

    name: str
    sha256: str
    media_type: str
    said: list[dict[str, str]]


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
    inputs: list[dict[str, Any]] = field(default_factory=list)
    results: dict[str, str] | None = None  # what the winners said whose output the inputs name
    expect: dict[str, Any] | None = None  # what an answer must hold (`worker.judges.expecting`)
    next_judges: list[str] = field(default_factory=list)
    failed_judges: list[dict[str, Any]] = field(default_factory=list)  # [{"judge", "error"}]
    files: list[Attached] = field(default_factory=list)


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
    seen: str | None = None  # of the subtask's files (`db.states.Seen`)
    needs_review: bool = False  # whatever the confidence is


def claim_judging(connection: Connection, ids: Sequence[UUID], message: UUID, seconds: float) -> Claim:
    """Claim those of `ids` that can be judged now: all candidates terminal, one of them done.

    Subtasks of a suspended judge go to the next of their list that is not suspended; without one they are left alone,
    but for the one whose own message this is: the probe. One is left to be the probe where that is due.
    """
    token = uuid4()
    claimed = _claim(connection, ids, token, message, seconds)
    if rest := set(ids) - set(claimed):
        rest -= set(keep_for_probes(connection, rest))
        if pass_over_suspended(connection, rest):
            claimed += _claim(connection, rest, token, message, seconds)
    return Claim(token=token, ids=claimed)


def _claim(connection: Connection, ids: Collection[UUID], token: UUID, message: UUID, seconds: float) -> list[UUID]:
    return list(
        connection.execute(
            text(
                f"""
            UPDATE subtask SET status = 'judging', token = :token, message_id = :message,
                   lease_until = now() + make_interval(secs => :seconds)
            WHERE id IN (
                SELECT s.id FROM subtask AS s
                WHERE s.id = ANY(CAST(:ids AS uuid[])) AND s.status = 'running' AND {COMPLETE} AND {ANY_DONE}
                  AND (s.message_id = :message OR NOT {JUDGE_SUSPENDED} OR NOT {NEEDS_JUDGE})
                ORDER BY s.id FOR UPDATE OF s SKIP LOCKED)
            RETURNING id
            """  # noqa: S608 - no value is interpolated
            ),
            {"ids": list(ids), "token": token, "message": message, "seconds": seconds},
        ).scalars()
    )


def load_to_judge(connection: Connection, claim: Claim) -> list[ToJudge]:
    """The subtasks of a claim, with what the judge reads, and of files what other subtasks said. One statement."""
    rows = connection.execute(
        text(
            f"""
            SELECT s.id, s.task_id, s.capability, s.judge, t.request, s.attempt, s.max_attempts, s.inputs,
                   s.expect, s.next_judges, s.failed_judges, {READ} AS results, {FILES} AS files,
                   count(*) FILTER (WHERE c.status <> 'done') AS failed,
                   jsonb_agg(jsonb_build_object('id', c.id, 'model', c.model, 'output', c.output, 'rank', c.rank)
                             ORDER BY c.rank) FILTER (WHERE c.status = 'done') AS candidates
            FROM subtask AS s
            JOIN task AS t ON t.id = s.task_id
            JOIN candidate AS c ON c.subtask_id = s.id
            WHERE s.id = ANY(CAST(:ids AS uuid[])) AND s.token = :token
            GROUP BY s.id, t.id ORDER BY s.attempt, s.id  -- one that cost its judge the life goes last
            """  # noqa: S608 - a constant
        ),
        {"ids": claim.ids, "token": claim.token, "describing": list(DESCRIBING)},
    )
    return [
        ToJudge(
            **{key: value for key, value in row._mapping.items() if key not in {"candidates", "files"}},  # noqa: SLF001
            files=[Attached(**file) for file in row.files or ()],
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
                    seconds double precision, seen text, needs_review boolean)
            ), mine AS (
                UPDATE subtask AS s SET status = 'done', finished_at = now(), token = NULL, lease_until = NULL,
                       error = NULL,
                       needs_review = given.needs_review OR (coalesce(given.confidence, 0) < s.min_confidence) IS TRUE
                FROM given WHERE s.id = given.subtask_id AND s.token = :token AND s.status = 'judging'
                RETURNING s.id, s.task_id
            ), stored AS (
                INSERT INTO verdict (subtask_id, winner_id, ranking, scores, reason, method, judge, judge_model,
                                     prompt_version, orders, confidence, fallback, seconds, seen)
                SELECT g.subtask_id, g.winner_id, g.ranking, g.scores, g.reason, g.method, g.judge, g.judge_model,
                       g.prompt_version, g.orders, g.confidence, g.fallback, g.seconds, g.seen
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
        tasks = list({row.task_id for row in rows})
        if finish_tasks(connection, tasks) < len(tasks):
            unblock_after(connection, [row.id for row in rows])
            announce(connection, "subtask")
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


def judge_failed(
    connection: Connection, token: UUID, ids: Sequence[UUID], message: str, delay: float, *, charged: bool = True
) -> int:
    """A judge failed on these claimed subtasks: they wait `delay` seconds, then are sent to it again.

    Not `charged` where the judge could not be had, or fails on everything: that is not these subtasks' fault.
    """
    return connection.execute(
        text(
            """
            UPDATE subtask SET status = 'running', token = NULL, lease_until = NULL, message_id = NULL, sent_at = NULL,
                   not_before = now() + make_interval(secs => :delay),
                   attempt = greatest(attempt - CASE WHEN :charged THEN 0 ELSE 1 END, 0),
                   error = jsonb_build_object('code', 'judge_failed', 'message', CAST(:message AS text))
            WHERE id = ANY(CAST(:ids AS uuid[])) AND token = :token
            """
        ),
        {"ids": list(ids), "token": token, "delay": delay, "message": message, "charged": charged},
    ).rowcount


def fail_exhausted(connection: Connection, ids: Sequence[UUID]) -> int:
    """Fail those of these running subtasks whose candidates are all terminal and none done.

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
                WHERE s.id = ANY(CAST(:ids AS uuid[])) AND s.status = 'running'
                  AND EXISTS (SELECT FROM candidate AS c WHERE c.subtask_id = s.id)
                  AND {COMPLETE} AND NOT {ANY_DONE}
                ORDER BY s.id FOR UPDATE SKIP LOCKED)
            RETURNING s.task_id
            """  # noqa: S608 - no value is interpolated
        ),
        {"ids": list(ids)},
    ).all()
    if rows:
        finish_tasks(connection, list({row.task_id for row in rows}))
    return len(rows)


def expire_judging(connection: Connection) -> dict[str, int]:
    """Subtasks whose judge's lease ran out go back to running and are due at once.

    Returns per judge how many processes were lost while they judged (0: before they did).
    """
    rows = connection.execute(
        text(
            """
            WITH late AS (
                SELECT id, judge, token, attempt FROM subtask WHERE status = 'judging' AND lease_until < now()
                ORDER BY id FOR UPDATE SKIP LOCKED
            ), ended AS (
                UPDATE subtask SET status = 'running', token = NULL, lease_until = NULL, message_id = NULL,
                       sent_at = NULL, not_before = now()
                WHERE id IN (SELECT id FROM late)
            )
            SELECT judge, count(DISTINCT token) FILTER (WHERE attempt > 0) AS lost FROM late GROUP BY judge
            """
        )
    )
    return {row.judge: row.lost for row in rows}


@dataclass(frozen=True, kw_only=True)
class JudgeMessage:
    """Subtasks that one judge message of its own carries. `task_ids` are for people who read Flower."""

    id: UUID
    subtask_ids: list[UUID]
    task_ids: list[UUID]


#: Running subtasks `s` that are complete and due for a judge message of their own.
DUE = f"""
s.status = 'running' AND {COMPLETE} AND {ANY_DONE}
AND CASE WHEN s.sent_at IS NULL THEN coalesce(s.not_before, (
              SELECT CASE WHEN bool_and(c.in_chord) THEN max(c.finished_at) + make_interval(secs => :grace)
                          ELSE now() END
              FROM candidate AS c WHERE c.subtask_id = s.id)) <= now()
         ELSE (:queue_empty AND s.sent_at < now() - make_interval(secs => :lost_after))
              OR s.sent_at < now() - make_interval(secs => :resend_after * 2 ^ least(s.sends, 6)) END
"""  # noqa: S608 - no value is interpolated


@dataclass(frozen=True, kw_only=True)
class Patience:
    """When a subtask is due for a judge message (seconds).

    What a chord's callback should judge is left to it for `grace`; what completed outside of a chord is due at once. A
    message is sent again where the judges' queue is empty and nobody claimed it for `lost_after`, and after
    `resend_after` in any case, twice as long each time: a second one claims nothing.
    """

    grace: float
    lost_after: float
    resend_after: float = 60.0
    queue_empty: bool = False


def send_judging(connection: Connection, patience: Patience, limit: int) -> JudgeMessage | None:
    """Give complete, unjudged subtasks a judge message of their own. None where there are none.

    Those of a suspended judge go on to the next of their list; without one they wait: see `send_judge_probe`.
    """
    message = _send_judging(
        connection,
        patience,
        f"NOT ({STUCK}) ORDER BY s.priority DESC, s.created_at",
        {"limit": limit},
    )
    if message is not None:
        pass_over_suspended(connection, message.subtask_ids)
    return message


def send_judge_probe(connection: Connection, patience: Patience, judge: str) -> JudgeMessage | None:
    """Give one subtask of a suspended judge a message: the one that was tried least, so that none is always it.

    Where none waits for it, one that waits for another suspended judge and lists this one.
    """
    first, one = "ORDER BY s.sends, s.created_at", {"limit": 1, "judge": judge}
    probe = _send_judging(connection, patience, f"s.judge = :judge AND {NEEDS_JUDGE} {first}", one)
    if probe is None:
        probe = _send_judging(connection, patience, f"{STUCK} AND {LISTS} {first}", one)
        if probe is not None:
            pass_over_suspended(connection, probe.subtask_ids, to=judge)
    return probe


def _send_judging(
    connection: Connection, patience: Patience, which: str, values: Mapping[str, Any]
) -> JudgeMessage | None:
    message = uuid4()
    rows = connection.execute(
        text(
            f"""
            UPDATE subtask SET sent_at = now(), message_id = :message, sends = least(sends + 1, 30000)
            WHERE id IN (SELECT s.id FROM subtask AS s WHERE {DUE} AND {which}
                         LIMIT :limit FOR UPDATE OF s SKIP LOCKED)
            RETURNING id, task_id
            """  # noqa: S608 - no value is interpolated
        ),
        {**vars(patience), **values, "message": message},
    ).all()
    subtasks, tasks = [row.id for row in rows], list(dict.fromkeys(row.task_id for row in rows))
    return JudgeMessage(id=message, subtask_ids=subtasks, task_ids=tasks) if rows else None


def unsend_judging(connection: Connection, message: UUID) -> None:
    """A judge message that could not be published is due again."""
    connection.execute(
        text(
            """
            UPDATE subtask SET sent_at = NULL, message_id = NULL, not_before = now()
            WHERE message_id = :message AND status = 'running'
            """
        ),
        {"message": message},
    )
