"""What a capability's models did lately: counts, times, and who beat whom.

Bounded (the latest verdicts, and preferences, of one capability) and by index: `ix_subtask_done`,
`ix_candidate_failed`, `ix_preference_capability_created_at`. What a win is, and what is left out, is as in `db.track`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

#: The candidates of the latest subtasks that are done. `place` is 0 for what the winner said and largest for failures;
#: it is null where no judge decided, and for an output that the judge did not rank.
TRIED = """
latest AS MATERIALIZED (
    SELECT id, finished_at FROM subtask
    WHERE capability = :capability AND status = 'done'
      AND finished_at >= coalesce(now() - make_interval(secs => CAST(:since AS float8)), '-infinity')
    ORDER BY finished_at DESC LIMIT :limit
), tried AS MATERIALIZED (
    SELECT c.subtask_id, c.model, c.status, c.seconds, c.cached, c.usage -> 'output_tokens' AS tokens,
           CASE WHEN v.id IS NULL THEN NULL
                WHEN c.status <> 'done' THEN 1000000
                WHEN c.output = w.output THEN 0
                ELSE (SELECT p.n - 1 FROM jsonb_array_elements_text(v.ranking) WITH ORDINALITY AS p (id, n)
                      WHERE p.id = CAST(c.id AS text)) END AS place
    FROM latest AS l
    JOIN candidate AS c ON c.subtask_id = l.id AND c.status IN ('done', 'error', 'dead')
    LEFT JOIN verdict AS v ON v.subtask_id = l.id AND NOT v.fallback
    LEFT JOIN candidate AS w ON w.id = v.winner_id
), placed AS (
    SELECT subtask_id, model, place, count(*) OVER (PARTITION BY subtask_id) AS size FROM tried WHERE place IS NOT NULL
)
"""


@dataclass(frozen=True, kw_only=True)
class ModelFigures:
    """What one model did. Times are of calls that gave an output and came from no cache."""

    model: str
    tried: int
    done: int
    failed: int
    cached: int
    judged: int  # subtasks that a judge decided between this model and at least one other
    wins: int  # of those: it won, or said what the winner said
    median_seconds: float | None
    p95_seconds: float | None
    mean_output_tokens: float | None


@dataclass(frozen=True, kw_only=True)
class Games:
    """How often one model was put before another by an `origin`: `verdict`, `human`, `import`, `judge`.

    `weight` is their count, but for verdicts, where the pairs of one ranking of n models weigh n - 1 together.
    """

    better: str
    worse: str
    origin: str
    count: int
    weight: float


def model_figures(connection: Connection, capability: str, since: float | None, limit: int) -> list[ModelFigures]:
    """Figures per model over the latest `limit` subtasks done in the last `since` seconds. One statement.

    Failures in subtasks that failed altogether are counted over the same time, the latest `limit` per model.
    """
    rows = connection.execute(
        text(
            f"""
            WITH {TRIED}, start AS (
                SELECT CASE WHEN count(*) >= :limit THEN min(finished_at) ELSE
                       coalesce(now() - make_interval(secs => CAST(:since AS float8)), '-infinity') END AS moment
                FROM latest
            ), lost AS (
                SELECT m.name AS model, count(*) AS failed
                FROM model AS m
                CROSS JOIN LATERAL (
                    SELECT c.subtask_id FROM candidate AS c
                    WHERE c.model = m.name AND c.error IS NOT NULL AND c.finished_at IS NOT NULL
                      AND c.finished_at >= (SELECT moment FROM start) AND c.status IN ('error', 'dead')
                    ORDER BY c.finished_at DESC LIMIT :limit) AS f
                JOIN subtask AS s ON s.id = f.subtask_id AND s.status = 'failed' AND s.capability = :capability
                WHERE m.capability = :capability
                GROUP BY m.name
            ), ran AS (
                SELECT model, count(*) AS tried, count(*) FILTER (WHERE status = 'done') AS done,
                       count(*) FILTER (WHERE status <> 'done') AS failed, count(*) FILTER (WHERE cached) AS cached,
                       percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY seconds)
                           FILTER (WHERE status = 'done' AND NOT cached) AS seconds,
                       avg(CASE WHEN jsonb_typeof(tokens) = 'number' THEN CAST(tokens AS float8) END)
                           FILTER (WHERE status = 'done') AS tokens
                FROM tried GROUP BY model
            ), played AS (
                SELECT model, count(*) AS judged, count(*) FILTER (WHERE place = 0) AS wins
                FROM placed WHERE size > 1 GROUP BY model
            )
            SELECT model, coalesce(r.tried, 0) + coalesce(l.failed, 0) AS tried, coalesce(r.done, 0) AS done,
                   coalesce(r.failed, 0) + coalesce(l.failed, 0) AS failed, coalesce(r.cached, 0) AS cached,
                   coalesce(p.judged, 0) AS judged, coalesce(p.wins, 0) AS wins, r.seconds[1] AS median_seconds,
                   r.seconds[2] AS p95_seconds, r.tokens AS mean_output_tokens
            FROM ran AS r FULL JOIN lost AS l USING (model) LEFT JOIN played AS p USING (model)
            ORDER BY model
            """  # noqa: S608 - a constant
        ),
        {"capability": capability, "since": since, "limit": limit},
    )
    return [ModelFigures(**row._mapping) for row in rows]  # noqa: SLF001 - the documented name


def games_between_models(connection: Connection, capability: str, since: float | None, limit: int) -> list[Games]:
    """Who beat whom, in the latest `limit` verdicts and as many preferences of the last `since` seconds.

    One statement. What a judge preferred in a subtask of ours is left out: its verdict says it already.
    """
    rows = connection.execute(
        text(
            f"""
            WITH {TRIED}, preferred AS (
                SELECT better, worse, origin, subtask_id FROM preference
                WHERE capability = :capability
                  AND created_at >= coalesce(now() - make_interval(secs => CAST(:since AS float8)), '-infinity')
                ORDER BY created_at DESC LIMIT :limit
            )
            SELECT a.model AS better, b.model AS worse, 'verdict' AS origin, count(*) AS count,
                   CAST(sum(2.0 / a.size) AS float8) AS weight
            FROM placed AS a JOIN placed AS b ON b.subtask_id = a.subtask_id AND a.place < b.place
            GROUP BY a.model, b.model
            UNION ALL
            SELECT better ->> 'model', worse ->> 'model', origin, count(*), CAST(count(*) AS float8)
            FROM preferred
            WHERE better ->> 'model' <> worse ->> 'model' AND NOT (origin = 'judge' AND subtask_id IS NOT NULL)
            GROUP BY 1, 2, 3
            ORDER BY 1, 2, 3
            """  # noqa: S608 - a constant
        ),
        {"capability": capability, "since": since, "limit": limit},
    )
    return [_games(row) for row in rows]


def _games(row: Any) -> Games:
    better, worse, origin, count, weight = row  # `Row.count` is a method of tuples
    return Games(better=better, worse=worse, origin=origin, count=count, weight=weight)


def known_capabilities(connection: Connection) -> list[str]:
    """Capabilities of models, of subtasks that are done and of preferences. Reads an index entry of each."""
    rows = connection.execute(
        text(
            """
            WITH RECURSIVE done AS (
                (SELECT capability FROM subtask WHERE status = 'done' ORDER BY capability LIMIT 1)
                UNION ALL
                SELECT (SELECT s.capability FROM subtask AS s WHERE s.status = 'done' AND s.capability > d.capability
                        ORDER BY s.capability LIMIT 1)
                FROM done AS d WHERE d.capability IS NOT NULL
            ), preferred AS (
                (SELECT capability FROM preference ORDER BY capability LIMIT 1)
                UNION ALL
                SELECT (SELECT p.capability FROM preference AS p WHERE p.capability > d.capability
                        ORDER BY p.capability LIMIT 1)
                FROM preferred AS d WHERE d.capability IS NOT NULL
            )
            SELECT capability FROM done WHERE capability IS NOT NULL
            UNION SELECT capability FROM preferred WHERE capability IS NOT NULL
            UNION SELECT capability FROM model
            ORDER BY capability
            """
        )
    )
    return list(rows.scalars())
