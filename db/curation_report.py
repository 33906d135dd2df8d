"""A curation job in figures: how many records came to each stage and why they left it, scores, samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID


def funnel(connection: Connection, job: UUID, stages: Sequence[str]) -> list[dict[str, Any]]:
    """Per stage: how many records came to it, how many it dropped by which rule, how many wait, how many passed."""
    rows = connection.execute(
        text(
            """
            SELECT stage, rule, type, count(*) AS n FROM curation_record WHERE job_id = :job GROUP BY stage, rule, type
            """
        ),
        {"job": job},
    ).all()
    out = []
    for number, name in enumerate(stages):
        here = [row for row in rows if row.stage == number]
        rules = sorted({row.rule for row in here if row.rule})
        types = sorted({row.type for row in rows})
        out.append(
            {
                "stage": name,
                "came": sum(row.n for row in rows if row.stage >= number),
                "dropped": {rule: sum(row.n for row in here if row.rule == rule) for rule in rules},
                "waiting": sum(row.n for row in here if row.rule is None),
                "passed": sum(row.n for row in rows if row.stage > number),
                "passed_by_type": {
                    kind: n for kind in types if (n := sum(r.n for r in rows if r.stage > number and r.type == kind))
                },
            }
        )
    return out


def histograms(connection: Connection, job: UUID, bins: int) -> dict[str, dict[str, Any]]:
    """By stage that gave scores: those in equal bins from the least to the greatest, with how many of each were kept.

    Read in one pass: a job's records are many, and wide.
    """
    rows = connection.execute(
        text(
            """
            WITH given AS MATERIALIZED (
                SELECT s.key AS name, CAST(s.value AS float8) AS score, r.fate = 'kept' AS kept
                FROM curation_record AS r CROSS JOIN LATERAL jsonb_each_text(r.scores) AS s
                WHERE r.job_id = :job
            ), ends AS (
                SELECT name, min(score) AS low, max(score) AS high, count(*) AS n FROM given GROUP BY name
            )
            SELECT name, low, high, ends.n AS scored, count(*) AS n, count(*) FILTER (WHERE kept) AS kept,
                   CAST(least(:bins - 1,
                              floor((score - low) / coalesce(nullif(high - low, 0), 1) * :bins)) AS int) AS bin
            FROM given JOIN ends USING (name) GROUP BY name, low, high, scored, bin
            """
        ),
        {"job": job, "bins": bins},
    )
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        empty = {"low": row.low, "high": row.high, "n": row.scored, "bins": [{"n": 0, "kept": 0} for _ in range(bins)]}
        found.setdefault(row.name, empty)["bins"][row.bin] = {"n": row.n, "kept": row.kept}
    return found


def samples(connection: Connection, job: UUID, most: int) -> list[dict[str, Any]]:
    """Some kept records, and some dropped by each rule of each stage: the first ones by key, so as good as drawn."""
    rows = connection.execute(
        text(
            """
            SELECT position, type, data, fate, rule, reason, scores, found, stage FROM (
                SELECT *, row_number() OVER (PARTITION BY fate, stage, rule ORDER BY key, position) AS place
                FROM (SELECT job_id, position, type, data, fate, rule, reason, scores, found, stage, key
                      FROM curation_record WHERE job_id = :job AND fate <> 'pending') AS r) AS ranked
            WHERE place <= :most ORDER BY stage DESC, fate, rule, place
            """
        ),
        {"job": job, "most": most},
    )
    return [dict(row._mapping) for row in rows]  # noqa: SLF001 - the documented name


def kept_counts(connection: Connection, jobs: Sequence[UUID]) -> dict[UUID, int]:
    """Records that passed all stages, by job; those of a job that still runs stand at its stages instead."""
    rows = connection.execute(
        text(
            """
            SELECT job_id, count(*) AS n FROM curation_record
            WHERE fate = 'kept' AND job_id = ANY(CAST(:jobs AS uuid[])) GROUP BY job_id
            """
        ),
        {"jobs": list(jobs)},
    )
    return {row.job_id: row.n for row in rows}


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast a job's tasks end. `lately`: those that ended in the last `seconds`."""

    open: int
    lately: int
    seconds: float

    @property
    def per_minute(self) -> float:
        """Tasks that end in a minute."""
        return 60 * self.lately / self.seconds


def pace_of(connection: Connection, source: str, seconds: float = 120.0) -> Pace:
    """The pace of a job's tasks in the last seconds, by index: what is open, and what ended lately."""
    row = connection.execute(
        text(
            """
            SELECT (SELECT count(*) FROM task WHERE source = :source AND finished_at IS NULL) AS open,
                   (SELECT count(*) FROM task
                    WHERE source = :source AND finished_at > now() - make_interval(secs => :seconds)) AS lately
            """
        ),
        {"source": source, "seconds": seconds},
    ).one()
    return Pace(open=row.open, lately=row.lately, seconds=seconds)
