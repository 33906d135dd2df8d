"""What verdicts and preferences say about models: read for the selectors that learn from them.

Bounded (the latest of one capability) and by index: `ix_subtask_done`, `ix_preference_capability_created_at`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

TEXT_CHARS = 4000  # of a request: what it is about stands at its beginning


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A judged subtask: its task's request, and the models that tried, best first, as groups of equals.

    The winner's group holds every model that said the same; `failed` are those that ended in an error of their own.
    """

    request: str
    ranking: tuple[tuple[str, ...], ...]
    failed: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Preferred:
    """One model's output was preferred to another's, by a `human`, a `judge` or an `import`ed label."""

    better: str
    worse: str
    origin: str


def judged_subtasks(connection: Connection, capability: str, limit: int) -> list[Judged]:
    """The latest `limit` subtasks of a capability that a judge decided, the latest first. One statement.

    A verdict that a fallback made says nothing about the models and is left out; so are cancelled candidates, whose
    model was not there, or too late.
    """
    rows = connection.execute(
        text(
            """
            WITH latest AS MATERIALIZED (
                SELECT id, task_id, finished_at FROM subtask
                WHERE capability = :capability AND status = 'done' ORDER BY finished_at DESC LIMIT :limit
            )
            SELECT left(t.request, :chars) AS request, v.ranking, v.scores, a.candidates
            FROM latest AS l
            JOIN task AS t ON t.id = l.task_id
            JOIN verdict AS v ON v.subtask_id = l.id AND NOT v.fallback
            JOIN candidate AS w ON w.id = v.winner_id
            CROSS JOIN LATERAL (
                SELECT jsonb_agg(jsonb_build_array(c.id, c.model, c.status, c.output = w.output)) AS candidates
                FROM candidate AS c WHERE c.subtask_id = l.id AND c.status IN ('done', 'error', 'dead')) AS a
            ORDER BY l.finished_at DESC
            """
        ),
        {"capability": capability, "limit": limit, "chars": TEXT_CHARS},
    )
    return [_judged(row.request, row.ranking, row.scores, row.candidates) for row in rows]


def _judged(request: str, ranking: list[str], scores: dict[str, float], candidates: list[list[Any]]) -> Judged:
    places: dict[str, int] = {}
    before = None
    for place, candidate in enumerate(ranking):
        # Equals are ranked in the selectors' own order, which must not teach itself.
        equal = before is not None and candidate in scores and scores[candidate] == scores.get(before)
        places[candidate] = places[before] if before is not None and equal else place
        before = candidate
    groups: dict[int, list[str]] = {}
    failed = []
    for candidate, model, status, like_winner in candidates:
        if status != "done":
            failed.append(model)
        elif like_winner:
            groups.setdefault(0, []).append(model)
        elif candidate in places:
            groups.setdefault(places[candidate], []).append(model)
    return Judged(
        request=request,
        ranking=tuple(tuple(sorted(groups[place])) for place in sorted(groups)),
        failed=tuple(sorted(failed)),
    )


def preferences_between_models(connection: Connection, capability: str, limit: int) -> list[Preferred]:
    """The latest `limit` preferences of a capability that name two models, the latest first. One statement.

    What a judge preferred in a subtask of ours is left out: its verdict says it already.
    """
    rows = connection.execute(
        text(
            """
            SELECT better ->> 'model' AS better, worse ->> 'model' AS worse, origin
            FROM (SELECT better, worse, origin, subtask_id, created_at FROM preference WHERE capability = :capability
                  ORDER BY created_at DESC LIMIT :limit) AS latest
            WHERE better ->> 'model' <> worse ->> 'model' AND NOT (origin = 'judge' AND subtask_id IS NOT NULL)
            ORDER BY created_at DESC
            """
        ),
        {"capability": capability, "limit": limit},
    )
    return [Preferred(**row._mapping) for row in rows]  # noqa: SLF001 - the documented name
