"""What happens to the records of a curation job: stored, passed on, dropped, asked about, scored, ranked, kept.

Set-based: a page of records is one statement, a whole stage one where SQL can say it. Read by keyset, so that a page
costs the same at the end of 158,000 records as at the beginning.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Connection, text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID

    import psycopg

EXACT = "exact_duplicate"
BELOW = "below_cut"


@dataclass(frozen=True, kw_only=True)
class NewRecord:
    """A record as it is read. `data` is its JSON, as it came."""

    position: int
    key: str
    type: str
    data: str


@dataclass(frozen=True, kw_only=True)
class Record:
    """A record as a stage sees it."""

    position: int
    key: str
    type: str
    data: Any
    scores: dict[str, Any] = field(default_factory=dict)
    found: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """Why a record is dropped: a short name for counting, a sentence for people."""

    position: int
    rule: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What the tasks of a record came to: its score under the stage's name, and what was found (`answers` ...)."""

    position: int
    score: float | None = None
    found: dict[str, Any] = field(default_factory=dict)


def _patient(connection: Connection) -> None:
    """What one statement does to all records of a job may take longer than what other processes wait for."""
    connection.execute(text("SET LOCAL statement_timeout = '15min'"))


def add_records(connection: Connection, job: UUID, rows: Iterable[NewRecord]) -> None:
    """Store new records by COPY."""
    raw = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
    with (
        raw.cursor() as cursor,
        cursor.copy("COPY curation_record (job_id, position, key, type, data) FROM STDIN") as copy,
    ):
        for row in rows:
            copy.write_row((str(job), row.position, row.key, row.type, row.data))


def page_of(connection: Connection, job: UUID, stage: int, step: int, limit: int, after: int = -1) -> list[Record]:
    """Pending records at a stage and step, by position."""
    rows = connection.execute(
        text(
            """
            SELECT position, key, type, data, scores, found FROM curation_record
            WHERE job_id = :job AND fate = 'pending' AND stage = :stage AND step = :step AND position > :after
            ORDER BY position LIMIT :limit
            """
        ),
        {"job": job, "stage": stage, "step": step, "after": after, "limit": limit},
    )
    return [Record(**row._mapping) for row in rows]  # noqa: SLF001 - the documented name


def records_at(connection: Connection, job: UUID, positions: Sequence[int]) -> list[Record]:
    """These records, whatever became of them."""
    rows = connection.execute(
        text(
            """
            SELECT position, key, type, data, scores, found FROM curation_record
            WHERE job_id = :job AND position = ANY(CAST(:positions AS bigint[])) ORDER BY position
            """
        ),
        {"job": job, "positions": list(positions)},
    )
    return [Record(**row._mapping) for row in rows]  # noqa: SLF001 - the documented name


def count_at(connection: Connection, job: UUID, stage: int) -> dict[int, int]:
    """Pending records at a stage, by step."""
    rows = connection.execute(
        text(
            """
            SELECT step, count(*) AS n FROM curation_record
            WHERE job_id = :job AND fate = 'pending' AND stage = :stage GROUP BY step
            """
        ),
        {"job": job, "stage": stage},
    )
    return {row.step: row.n for row in rows}


def count_asked(connection: Connection, job: UUID, stage: int) -> int:
    """Records whose tasks are stored and not read yet: a few of many, so that looking again costs nothing."""
    count: int = connection.execute(
        text(
            """
            SELECT count(*) FROM curation_record
            WHERE job_id = :job AND fate = 'pending' AND stage = :stage AND step = 1
            """
        ),
        {"job": job, "stage": stage},
    ).scalar_one()
    return count


def any_came_through(connection: Connection, job: UUID, stage: int) -> bool:
    """Whether a stage has settled any record without dropping it, now or when there was less input."""
    found: bool = connection.execute(
        text(
            """
            SELECT EXISTS (SELECT FROM curation_record WHERE job_id = :job AND fate = 'pending'
                             AND (stage = :stage AND step = 2 OR stage > :stage))
            """
        ),
        {"job": job, "stage": stage},
    ).scalar_one()
    return found


def pass_page(
    connection: Connection, job: UUID, stage: int, page: Sequence[Record], dropped: Sequence[Dropped]
) -> None:
    """A page of a stage that looks at each record alone: those in `dropped` are dropped, the others pass."""
    drop(connection, job, stage, dropped)
    out = {one.position for one in dropped}
    connection.execute(
        text(
            """
            UPDATE curation_record SET stage = :stage + 1, step = 0
            WHERE job_id = :job AND position = ANY(CAST(:positions AS bigint[])) AND stage = :stage
              AND fate = 'pending'
            """
        ),
        {"job": job, "stage": stage, "positions": [one.position for one in page if one.position not in out]},
    )


def drop(connection: Connection, job: UUID, stage: int, dropped: Sequence[Dropped]) -> None:
    """Drop pending records of a stage, each with its rule and its reason."""
    if not dropped:
        return
    connection.execute(
        text(
            """
            UPDATE curation_record AS r SET fate = 'dropped', rule = d.rule, reason = d.reason
            FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS d (position bigint, rule text, reason text)
            WHERE r.job_id = :job AND r.position = d.position AND r.stage = :stage AND r.fate = 'pending'
            """
        ),
        {"job": job, "stage": stage, "rows": json.dumps([vars(one) for one in dropped])},
    )


def mark_asked(connection: Connection, job: UUID, stage: int, positions: Sequence[int]) -> None:
    """The tasks of these records are stored."""
    connection.execute(
        text(
            """
            UPDATE curation_record SET step = 1
            WHERE job_id = :job AND position = ANY(CAST(:positions AS bigint[])) AND stage = :stage AND step = 0
              AND fate = 'pending'
            """
        ),
        {"job": job, "stage": stage, "positions": list(positions)},
    )


def ask_again(connection: Connection, job: UUID, stage: int) -> None:
    """Records whose tasks were stored by a run that ended: they are stored again, which changes nothing where they are.

    Where they were pruned meanwhile, nobody would ever answer.
    """
    connection.execute(
        text(
            """
            UPDATE curation_record SET step = 0
            WHERE job_id = :job AND fate = 'pending' AND stage = :stage AND step = 1
            """
        ),
        {"job": job, "stage": stage},
    )


def mark_scored(connection: Connection, job: UUID, stage: int, name: str, scored: Sequence[Scored]) -> None:
    """The tasks of these records ended: keep what they came to."""
    if not scored:
        return
    connection.execute(
        text(
            """
            UPDATE curation_record AS r SET step = 2, found = r.found || s.found,
                   scores = CASE WHEN s.score IS NULL THEN r.scores
                                 ELSE r.scores || jsonb_build_object(CAST(:name AS text), s.score) END
            FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS s (position bigint, score double precision, found jsonb)
            WHERE r.job_id = :job AND r.position = s.position AND r.stage = :stage AND r.fate = 'pending'
            """
        ),
        {"job": job, "stage": stage, "name": name, "rows": json.dumps([vars(one) for one in scored])},
    )


def pass_scored(connection: Connection, job: UUID, stage: int) -> None:
    """Every record whose tasks ended passes."""
    _patient(connection)
    connection.execute(
        text(
            """
            UPDATE curation_record SET stage = :stage + 1, step = 0
            WHERE job_id = :job AND fate = 'pending' AND stage = :stage AND step = 2
            """
        ),
        {"job": job, "stage": stage},
    )


def drop_exact(connection: Connection, job: UUID, stage: int) -> None:
    """Of the records that came as far as this stage and share a key, the first stays; the others are dropped.

    Records that passed it before count: more input repeats nothing.
    """
    _patient(connection)
    connection.execute(
        text(
            """
            WITH first AS (
                SELECT key, min(position) AS position FROM curation_record
                WHERE job_id = :job AND (stage > :stage OR (stage = :stage AND fate = 'pending'))
                GROUP BY key
            )
            UPDATE curation_record AS r SET
                stage = CASE WHEN f.position = r.position THEN :stage + 1 ELSE :stage END,
                fate = CASE WHEN f.position = r.position THEN 'pending' ELSE 'dropped' END,
                rule = CASE WHEN f.position <> r.position THEN CAST(:rule AS text) END,
                reason = CASE WHEN f.position <> r.position THEN 'The same image and turns as record '
                                                                  || f.position || '.' END
            FROM first AS f
            WHERE r.job_id = :job AND r.stage = :stage AND r.fate = 'pending' AND f.key = r.key
            """
        ),
        {"job": job, "stage": stage, "rule": EXACT},
    )


def select_top(connection: Connection, job: UUID, stage: int, name: str, share: float, *, per_type: bool) -> None:
    """Of all records that have this stage's score, the best `share` pass (at least one of each type), the others drop.

    Ranked by score, then key, then position. Records that had passed before more input came are ranked again: they
    drop where better ones came, and the result is that of one run on everything.
    """
    _patient(connection)
    connection.execute(
        text(
            """
            WITH ranked AS (
                SELECT position, stage, fate, (scores ->> :name)::float8 AS score,
                       row_number() OVER (PARTITION BY CASE WHEN :per_type THEN type END
                                          ORDER BY (scores ->> :name)::float8 DESC, key, position) AS place,
                       count(*) OVER (PARTITION BY CASE WHEN :per_type THEN type END) AS n
                FROM curation_record WHERE job_id = :job AND scores ? :name
            ), judged AS (
                SELECT *, greatest(1, ceil(n * CAST(:share AS numeric))) AS room FROM ranked
            )
            UPDATE curation_record AS r SET
                stage = CASE WHEN j.place <= j.room THEN :stage + 1 ELSE :stage END,
                step = CASE WHEN j.place <= j.room THEN 0 ELSE 2 END,
                fate = CASE WHEN j.place <= j.room THEN 'pending' ELSE 'dropped' END,
                rule = CASE WHEN j.place > j.room THEN CAST(:rule AS text) END,
                reason = CASE WHEN j.place > j.room
                              THEN 'Place ' || j.place || ' of ' || j.n
                                   || CASE WHEN :per_type THEN ' of its type with ' ELSE ' with ' END
                                   || round(j.score::numeric, 4) || '; ' || j.room || ' pass.' END
            FROM judged AS j
            WHERE r.job_id = :job AND r.position = j.position
              AND ((r.stage = :stage AND r.fate = 'pending' AND r.step = 2)
                   OR (r.stage = :stage AND r.rule = :rule)
                   OR (r.stage > :stage AND j.place > j.room))
            """
        ),
        {"job": job, "stage": stage, "name": name, "share": share, "per_type": per_type, "rule": BELOW},
    )


def pending_again(connection: Connection, job: UUID) -> None:
    """Records that had passed everything stand at the end again: more input may change their rank."""
    _patient(connection)
    connection.execute(
        text("UPDATE curation_record SET fate = 'pending' WHERE job_id = :job AND fate = 'kept'"), {"job": job}
    )


def keep_rest(connection: Connection, job: UUID, stages: int) -> None:
    """Records that passed all stages are kept."""
    _patient(connection)
    connection.execute(
        text(
            """
            UPDATE curation_record SET fate = 'kept'
            WHERE job_id = :job AND fate = 'pending' AND stage = :stages
            """
        ),
        {"job": job, "stages": stages},
    )


def kept_page(connection: Connection, job: UUID, limit: int, after: int) -> list[Record]:
    """Kept records, by position."""
    rows = connection.execute(
        text(
            """
            SELECT position, key, type, data, scores, found FROM curation_record
            WHERE job_id = :job AND fate = 'kept' AND position > :after ORDER BY position LIMIT :limit
            """
        ),
        {"job": job, "after": after, "limit": limit},
    )
    return [Record(**row._mapping) for row in rows]  # noqa: SLF001 - the documented name


def entered(connection: Connection, job: UUID, stage: int, mark: str, rule: str) -> list[tuple[int, str]]:
    """(position, key) of the records whose `found` has the mark of a stage and that it may choose among, by key.

    Those that it chose or dropped by `rule` when there was less input are among them.
    """
    _patient(connection)
    rows = connection.execute(
        text(
            """
            SELECT position, key FROM curation_record
            WHERE job_id = :job AND found ? :mark
              AND (stage > :stage OR (stage = :stage AND (rule = :rule OR (fate = 'pending' AND step = 2))))
            ORDER BY key, position
            """
        ),
        {"job": job, "stage": stage, "mark": mark, "rule": rule},
    )
    return [(row.position, row.key) for row in rows]


def decide(
    connection: Connection, job: UUID, stage: int, rule: str, chosen: Sequence[int], dropped: Sequence[Dropped]
) -> None:
    """What a stage that sees all records together decides: `chosen` pass, the others drop, wherever they stand."""
    _patient(connection)
    connection.execute(
        text(
            """
            UPDATE curation_record SET stage = :stage + 1, step = 0, fate = 'pending', rule = NULL, reason = NULL
            WHERE job_id = :job AND position = ANY(CAST(:positions AS bigint[])) AND stage = :stage
              AND (fate = 'pending' OR rule = :rule)
            """
        ),
        {"job": job, "stage": stage, "rule": rule, "positions": list(chosen)},
    )
    connection.execute(
        text(
            """
            UPDATE curation_record AS r SET stage = :stage, step = 2, fate = 'dropped', rule = d.rule, reason = d.reason
            FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS d (position bigint, rule text, reason text)
            WHERE r.job_id = :job AND r.position = d.position AND r.stage >= :stage
            """
        ),
        {"job": job, "stage": stage, "rows": json.dumps([vars(one) for one in dropped])},
    )
