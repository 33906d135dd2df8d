"""Transitions of candidates. Every statement that writes `candidate.status` is here or in `db.lease`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, text

from db.cache import HIT
from db.engine import CHANNEL
from db.subtasks import READ
from db.tasks import announce

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SLOW = 0.05  # seconds of a batch


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A model chosen for a subtask, and the message that will carry it."""

    subtask_id: UUID
    model: str
    rank: int
    proposed_by: list[dict[str, Any]]
    max_attempts: int
    message_id: UUID
    input_key: bytes | None = None  # where the model's outputs may come from the cache
    revision: str = ""  # of the model, for the cache


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What was stored as sent, and the subtasks that need no message: the cache holds all of their outputs."""

    messages: list[Message]
    answered: frozenset[UUID]


@dataclass(frozen=True, kw_only=True)
class Message:
    """Candidates of one model that travel together. `task_ids` and `subtask_ids` are for people who read Flower."""

    id: UUID
    model: str
    candidate_ids: list[UUID]
    subtask_ids: list[UUID]
    task_ids: list[UUID]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a worker needs to run one candidate: its inputs, by reference."""

    id: UUID
    subtask_id: UUID
    task_id: UUID
    capability: str
    request: str
    inputs: list[dict[str, Any]]
    attachments: list[dict[str, Any]]
    options: dict[str, Any]
    input_key: bytes | None
    results: dict[str, str] | None = None  # what the winners said whose output the inputs name
    attempt: int = 0  # entries into the model, this one counted


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of one candidate: `output`, or `error` (`{"kind", "code", "message"}`)."""

    id: UUID
    seconds: float
    output: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    usage: Mapping[str, float] = field(default_factory=dict)
    error: Mapping[str, str] | None = None


def choose_and_send(connection: Connection, choices: Sequence[Choice]) -> Sent:
    """Store the candidates of ready, locked subtasks as sent, and set the subtasks running. One statement.

    What the result cache holds is done at once and in no message. The rows are committed before anything is published:
    a scheduler that dies in between leaves messages that were never sent, which the reconciler sends again.
    """
    rows = connection.execute(
        text(
            f"""
            WITH given AS (
                SELECT r.subtask_id, r.model, r.rank, r.proposed_by, r.max_attempts, r.message_id,
                       decode(r.input_key, 'hex') AS input_key, r.revision
                FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (
                    subtask_id uuid, model text, rank smallint, proposed_by jsonb, max_attempts smallint,
                    message_id uuid, input_key text, revision text)
            ), looked_up AS (
                SELECT r.*, hit.*, count(hit.output) OVER (PARTITION BY r.subtask_id)
                                   = count(*) OVER (PARTITION BY r.subtask_id) AS answered
                FROM given AS r LEFT JOIN LATERAL ({HIT}) AS hit ON r.input_key IS NOT NULL
            ), chosen AS (
                INSERT INTO candidate (subtask_id, model, rank, proposed_by, max_attempts, input_key, status,
                                       message_id, sent_at, sends, in_chord, output, detail, usage, cached, seconds,
                                       revision, finished_at)
                SELECT subtask_id, model, rank, proposed_by, max_attempts, input_key,
                       CASE WHEN output IS NULL THEN 'sent' ELSE 'done' END,
                       CASE WHEN output IS NULL THEN message_id END,
                       CASE WHEN output IS NULL THEN now() END,
                       CASE WHEN output IS NULL THEN 1 ELSE 0 END,
                       NOT answered, output, detail, usage, output IS NOT NULL,
                       CASE WHEN output IS NOT NULL THEN 0 END,
                       CASE WHEN output IS NOT NULL THEN revision END,
                       CASE WHEN output IS NOT NULL THEN now() END
                FROM looked_up
                RETURNING id, subtask_id, model, message_id
            ), started AS (
                UPDATE subtask SET status = 'running'
                WHERE id = ANY(ARRAY(SELECT subtask_id FROM chosen)) AND status || '' = 'ready'
                RETURNING id, task_id
            )
            SELECT c.message_id, c.model, array_agg(c.id) AS candidate_ids, array_agg(s.id) AS subtask_ids,
                   array_agg(s.task_id) AS task_ids
            FROM chosen AS c JOIN started AS s ON s.id = c.subtask_id
            GROUP BY c.message_id, c.model
            """  # noqa: S608 - a constant
        ),
        {"rows": json.dumps([_choice_json(choice) for choice in choices])},
    ).all()
    waiting = {subtask for row in rows if row.message_id is not None for subtask in row.subtask_ids}
    everything = {subtask for row in rows for subtask in row.subtask_ids}
    return Sent(
        messages=[_message(row) for row in rows if row.message_id is not None],
        answered=frozenset(everything - waiting),
    )


def _choice_json(choice: Choice) -> dict[str, Any]:
    return {
        **vars(choice),
        "subtask_id": str(choice.subtask_id),
        "message_id": str(choice.message_id),
        "input_key": choice.input_key.hex() if choice.input_key else None,
    }


def send_waiting(connection: Connection, model: str, limit: int) -> Message | None:
    """Give one message's worth of chosen candidates of a model (retries, mostly) a message. None where none waits.

    A candidate marked `isolate` travels alone, when it is the first in line.
    """
    row = connection.execute(
        text(
            """
            WITH due AS (
                SELECT id, isolate, not_before FROM candidate
                WHERE model = :model AND message_id IS NULL AND finished_at IS NULL
                  AND (not_before IS NULL OR not_before <= now())
                ORDER BY not_before NULLS FIRST, id
                LIMIT :limit FOR UPDATE SKIP LOCKED
            ), first AS (
                SELECT id, isolate FROM due ORDER BY not_before NULLS FIRST, id LIMIT 1
            ), picked AS (
                SELECT due.id FROM due CROSS JOIN first
                WHERE CASE WHEN first.isolate THEN due.id = first.id ELSE NOT due.isolate END
            ), sent AS (
                UPDATE candidate SET status = 'sent', message_id = :message, sent_at = now(), in_chord = false,
                       sends = least(sends + 1, 30000)
                WHERE candidate.id IN (SELECT id FROM picked)
                RETURNING candidate.id, candidate.model, candidate.subtask_id, candidate.message_id
            )
            SELECT sent.message_id, sent.model, array_agg(sent.id) AS candidate_ids, array_agg(s.id) AS subtask_ids,
                   array_agg(s.task_id) AS task_ids
            FROM sent JOIN subtask AS s ON s.id = sent.subtask_id
            GROUP BY sent.message_id, sent.model
            """
        ),
        {"model": model, "limit": limit, "message": uuid4()},  # ours: a plan may evaluate SQL's once per row
    ).one_or_none()
    return _message(row) if row else None


def _message(row: Any) -> Message:
    return Message(
        id=row.message_id,
        model=row.model,
        candidate_ids=list(row.candidate_ids),
        subtask_ids=list(row.subtask_ids),
        task_ids=list(dict.fromkeys(row.task_ids)),
    )


def unsend(connection: Connection, messages: Sequence[UUID], backoff: float = 0.0) -> int:
    """Take back messages that could not be published, or were lost: their unclaimed candidates are chosen again.

    With a `backoff` (seconds) each further send of a candidate waits twice as long, up to a minute.
    """
    return connection.execute(
        text(
            """
            UPDATE candidate SET status = 'chosen', message_id = NULL, sent_at = NULL, in_chord = false,
                   not_before = now() + make_interval(secs => least(:backoff * 2 ^ least(sends, 10) / 2, 60))
            WHERE message_id = ANY(CAST(:messages AS uuid[])) AND finished_at IS NULL AND status = 'sent'
            """
        ),
        {"messages": list(messages), "backoff": backoff},
    ).rowcount


@dataclass(frozen=True, kw_only=True)
class MessageClaim:
    """What the claim of a message got: `work` is ours under `token`, in the order of the message.

    `held` above 0 means that this message was delivered twice and the first delivery still works on it.
    """

    token: UUID
    work: list[Work]
    held: int

    @property
    def ids(self) -> list[UUID]:
        """The candidates that are ours."""
        return [work.id for work in self.work]


def claim_message(
    connection: Connection, ids: Sequence[UUID], message: UUID, seconds: float, *, charge: bool
) -> MessageClaim:
    """Claim a message's candidates for `seconds` and read what they are about. One statement.

    Only rows that this very message carries are taken: a message sent again in the meantime carries another id.
    `charge`: they enter the model now, all of them, and an attempt is counted.
    """
    token = uuid4()
    rows = connection.execute(
        text(
            f"""
            WITH taken AS (
                UPDATE candidate SET status = 'running', token = :token, attempt = attempt + :charge,
                       lease_until = now() + make_interval(secs => :seconds)
                WHERE id = ANY(CAST(:ids AS uuid[])) AND status = 'sent' AND message_id = :message
                  AND finished_at IS NULL
                RETURNING id, subtask_id, input_key, attempt + 1 - :charge AS attempt
            )
            SELECT c.id, c.subtask_id, s.task_id, s.capability, t.request, s.inputs, t.attachments, s.options,
                   c.input_key, {READ} AS results, c.attempt, false AS held
            FROM taken AS c JOIN subtask AS s ON s.id = c.subtask_id JOIN task AS t ON t.id = s.task_id
            UNION ALL
            SELECT id, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, true FROM candidate
            WHERE id = ANY(CAST(:ids AS uuid[])) AND status = 'running' AND message_id = :message
              AND finished_at IS NULL AND lease_until > now()
            """  # noqa: S608 - a constant
        ),
        {"token": token, "charge": int(charge), "seconds": seconds, "ids": list(ids), "message": message},
    ).all()
    place = {candidate: number for number, candidate in enumerate(ids)}
    work = [
        Work(**{key: value for key, value in row._mapping.items() if key != "held"})  # noqa: SLF001
        for row in sorted(rows, key=lambda row: place[row.id])
        if not row.held
    ]
    return MessageClaim(token=token, work=work, held=sum(row.held for row in rows))


def store(
    connection: Connection,
    token: UUID,
    results: Sequence[Result],
    *,
    revision: str,
    retry_delay: float,
    in_chord: bool,
) -> list[UUID]:
    """Store what became of a batch, under the token of its claim. One statement, and a notice where somebody waits.

    Input errors are final; other errors go back to chosen with a growing delay until `max_attempts` entries into the
    model are used up. Outside of a chord nobody else calls the judge, so the scheduler is told. Returns the ids that
    were still ours: a late or repeated result changes no row.
    """
    rows = connection.execute(
        text(
            """
            WITH given AS (
                SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (
                    id uuid, output text, detail jsonb, usage jsonb, error jsonb, seconds double precision)
            ), fate AS (
                SELECT given.*, c.attempt,
                       CASE WHEN given.error IS NULL THEN 'done'
                            WHEN given.error ->> 'kind' = 'input' OR c.attempt >= c.max_attempts THEN 'error'
                            ELSE 'chosen' END AS next
                FROM given JOIN candidate AS c ON c.id = given.id AND c.token = :token
            )
            UPDATE candidate AS c SET
                status = f.next, output = f.output, detail = f.detail, usage = f.usage, error = f.error,
                seconds = f.seconds, revision = :revision, token = NULL, lease_until = NULL,
                message_id = CASE WHEN f.next = 'chosen' THEN NULL ELSE c.message_id END,
                in_chord = c.in_chord AND f.next <> 'chosen',
                finished_at = CASE WHEN f.next = 'chosen' THEN NULL ELSE now() END,
                not_before = CASE WHEN f.next = 'chosen' THEN
                    now() + make_interval(secs => least(:delay * 2 ^ (f.attempt - 1), 300) * (0.75 + random() / 2)) END
            FROM fate AS f
            WHERE c.id = f.id AND c.token = :token
            RETURNING c.id
            """
        ),
        {"rows": _as_json(results), "token": token, "revision": revision, "delay": retry_delay},
    ).all()
    if rows and not in_chord:
        announce(connection, "candidate")
    elif rows and sum(result.seconds for result in results) >= SLOW:
        _announce_room(connection)
    return [row.id for row in rows]


def _announce_room(connection: Connection) -> None:
    """A model has room for another message: tell the schedulers where something waits to be sent, and only there.

    Where the judge is slower than the model they would hear of it too late; a fast model's wave is judged in a moment,
    and the verdict tells them.
    """
    connection.execute(
        text("SELECT pg_notify(:channel, 'room') WHERE EXISTS (SELECT FROM subtask WHERE status = 'ready')"),
        {"channel": CHANNEL},
    )


def _as_json(results: Sequence[Result]) -> str:
    return json.dumps(
        [
            {
                "id": str(result.id),
                "output": result.output,
                "detail": dict(result.detail) if result.error is None else None,
                "usage": dict(result.usage) if result.error is None else None,
                "error": dict(result.error) if result.error else None,
                "seconds": result.seconds,
            }
            for result in results
        ]
    )


def expire_leases(connection: Connection, limit: int = 1000) -> dict[str, int]:
    """Candidates whose lease ran out: chosen again, or dead where `max_attempts` entries are used up.

    The attempt in progress was charged when its batch entered the model; a claim that never got that far costs nothing.
    Returns per model how many workers were lost while it ran (0: before it ran).
    """
    rows = connection.execute(
        text(
            """
            WITH late AS (
                SELECT id, model, token, attempt FROM candidate
                WHERE message_id IS NOT NULL AND finished_at IS NULL AND status = 'running' AND lease_until < now()
                ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED
            ), ended AS (
                UPDATE candidate AS c SET
                    status = CASE WHEN c.attempt >= max_attempts THEN 'dead' ELSE 'chosen' END,
                    error = CASE WHEN c.attempt >= max_attempts THEN jsonb_build_object(
                        'kind', 'worker', 'code', 'worker_lost',
                        'message', 'Its worker was lost ' || c.attempt || ' times while it ran.') END,
                    finished_at = CASE WHEN c.attempt >= max_attempts THEN now() END,
                    isolate = isolate OR c.attempt > 0, token = NULL, lease_until = NULL, message_id = NULL,
                    sent_at = NULL, in_chord = false, not_before = now()
                FROM late WHERE c.id = late.id
            )
            SELECT model, count(DISTINCT token) FILTER (WHERE attempt > 0) AS lost FROM late GROUP BY model
            """
        ),
        {"limit": limit},
    ).all()
    if rows:
        announce(connection, "candidate")
    return {row.model: row.lost for row in rows}
