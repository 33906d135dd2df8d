"""What became of a curation job's tasks: the read side, by idempotency key, a page of records in one statement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, kw_only=True)
class Said:
    """One candidate that has an output. `score` is the judge's, None where no judge was asked."""

    model: str
    text: str
    score: float | None
    won: bool
    detail: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A task that ended, and what its models said, the winner first, then by the judge's ranking.

    `asked` counts the models that were asked; one that could not be had was not.
    """

    status: str
    error: str | None
    asked: int
    said: list[Said]

    @property
    def winner(self) -> Said | None:
        """What the judge chose."""
        return next((one for one in self.said if one.won), None)


def outcomes_of(connection: Connection, source: str, keys: Sequence[str]) -> dict[str, Outcome]:
    """The tasks of these keys that ended, by key."""
    rows = connection.execute(
        text(
            """
            SELECT t.idempotency_key AS key, t.status, t.error ->> 'message' AS error, coalesce((
                SELECT jsonb_agg(jsonb_build_object(
                           'model', c.model, 'text', c.output, 'score', v.scores -> c.id::text,
                           'won', c.id = v.winner_id, 'detail', coalesce(c.detail, '{}'))
                       ORDER BY c.id <> v.winner_id, place.n, c.rank)
                FROM subtask AS s JOIN candidate AS c ON c.subtask_id = s.id JOIN verdict AS v ON v.subtask_id = s.id
                LEFT JOIN LATERAL jsonb_array_elements_text(v.ranking) WITH ORDINALITY AS place (id, n)
                       ON place.id = c.id::text
                WHERE s.task_id = t.id AND c.status = 'done'), '[]') AS said, (
                SELECT count(*) FROM subtask AS s JOIN candidate AS c ON c.subtask_id = s.id
                WHERE s.task_id = t.id AND c.error ->> 'code' IS DISTINCT FROM 'model_unavailable') AS asked
            FROM task AS t
            WHERE t.source = :source AND t.idempotency_key = ANY(CAST(:keys AS text[])) AND t.finished_at IS NOT NULL
            """
        ),
        {"source": source, "keys": list(keys)},
    )
    return {
        row.key: Outcome(status=row.status, error=row.error, asked=row.asked, said=[Said(**one) for one in row.said])
        for row in rows
    }


def ended_by_key(connection: Connection, source: str, keys: Sequence[str]) -> dict[str, bool]:
    """Of those of these keys that have a task, whether it ended."""
    rows = connection.execute(
        text(
            """
            SELECT idempotency_key AS key, finished_at IS NOT NULL AS ended FROM task
            WHERE source = :source AND idempotency_key = ANY(CAST(:keys AS text[]))
            """
        ),
        {"source": source, "keys": list(keys)},
    )
    return {row.key: row.ended for row in rows}


def asked_of(connection: Connection, source: str) -> dict[str, dict[str, Any]]:
    """`models` that have an output in this source's tasks, at which revision; `judges` that decided, asking whom."""
    connection.execute(text("SET LOCAL statement_timeout = '15min'"))
    models = connection.execute(
        text(
            """
            SELECT c.model, string_agg(DISTINCT coalesce(c.revision, ''), ' ') AS revision
            FROM task AS t JOIN subtask AS s ON s.task_id = t.id JOIN candidate AS c ON c.subtask_id = s.id
            WHERE t.source = :source AND c.status = 'done' GROUP BY c.model ORDER BY c.model
            """
        ),
        {"source": source},
    )
    revisions = {row.model: row.revision for row in models}
    judges = connection.execute(
        text(
            """
            SELECT v.judge, string_agg(DISTINCT v.method, ' ') AS method,
                   string_agg(DISTINCT v.judge_model, ' ') AS model,
                   string_agg(DISTINCT v.prompt_version, ' ') AS prompt
            FROM task AS t JOIN subtask AS s ON s.task_id = t.id JOIN verdict AS v ON v.subtask_id = s.id
            WHERE t.source = :source AND v.method NOT IN ('only_candidate', 'fallback')
            GROUP BY v.judge ORDER BY v.judge
            """
        ),
        {"source": source},
    )
    return {
        "models": revisions,
        "judges": {row.judge: {"method": row.method, "model": row.model, "prompt": row.prompt} for row in judges},
    }


def merged(known: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """What two looks of `asked_of` found together: tasks that the first one saw may be pruned. A text is its words."""
    out = dict(known)
    for key, value in found.items():
        if isinstance(value, Mapping):
            out[key] = merged(out.get(key, {}), value)
        else:
            words = {*(out.get(key) or "").split(), *(value or "").split()}
            out[key] = " ".join(sorted(words)) if words else value
    return out
