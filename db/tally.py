"""Counts that never go back: what ended since ever, whatever `bakeoff prune` deletes.

No transaction of the queue pays for them. Whoever reads the figures follows the row of ended tasks
(`ix_task_finished_xid_id`) from the place up to which everything is counted, as webhooks do, and adds what is new: each
task once, in the transaction that moves the place on. Candidates, wins and verdicts are counted with their task.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, text

AT_ONCE = 2000  # tasks of one statement


@dataclass(frozen=True, kw_only=True)
class Count:
    """One count: `name` says of what (`tasks`, `candidates`, `wins` ...), `label` and `kind` of which."""

    name: str
    label: str
    kind: str
    value: float


def count_ended(connection: Connection, limit: int = AT_ONCE) -> int:
    """Count up to `limit` more tasks that ended. Returns how many there were; none where somebody else counts."""
    counted: int = connection.execute(
        text(
            """
            WITH place AS MATERIALIZED (
                SELECT seen_xid, seen_task FROM tally_place FOR UPDATE SKIP LOCKED
            ), ended AS MATERIALIZED (
                SELECT t.id, t.status, t.finished_xid FROM place CROSS JOIN LATERAL (
                    SELECT id, status, finished_xid FROM task
                    WHERE finished_xid IS NOT NULL
                      AND (finished_xid, id) > (CAST(CAST(seen_xid AS text) AS xid8), seen_task)
                      AND finished_xid < pg_snapshot_xmin(pg_current_snapshot())
                    ORDER BY finished_xid, id LIMIT :limit) AS t
            ), ran AS MATERIALIZED (
                SELECT c.model, c.status, c.cached, c.seconds, v.judge, v.fallback, c.id = v.winner_id AS won,
                       count(*) FILTER (WHERE c.status = 'done') OVER (PARTITION BY c.subtask_id) AS rivals
                FROM ended AS e JOIN subtask AS s ON s.task_id = e.id JOIN candidate AS c ON c.subtask_id = s.id
                LEFT JOIN verdict AS v ON v.subtask_id = s.id
            ), counted (name, label, kind, value) AS (
                SELECT 'tasks', status, '', count(*) FROM ended GROUP BY status
                UNION ALL SELECT 'candidates', model, status, count(*) FROM ran GROUP BY model, status
                UNION ALL SELECT 'cached', model, '', count(*) FROM ran WHERE cached GROUP BY model
                UNION ALL SELECT 'seconds', model, '', sum(seconds) FROM ran WHERE seconds > 0 GROUP BY model
                UNION ALL SELECT 'compared', model, '', count(*) FROM ran
                    WHERE status = 'done' AND rivals > 1 AND judge IS NOT NULL GROUP BY model
                UNION ALL SELECT 'wins', model, '', count(*) FROM ran WHERE won AND rivals > 1 GROUP BY model
                UNION ALL SELECT 'verdicts', judge, CASE WHEN fallback THEN 'fallback' ELSE 'judged' END, count(*)
                    FROM ran WHERE won GROUP BY judge, fallback
            ), stored AS (
                INSERT INTO tally (name, label, kind, value) SELECT name, label, kind, value FROM counted
                ON CONFLICT (name, label, kind) DO UPDATE SET value = tally.value + excluded.value
            ), moved AS (
                UPDATE tally_place SET seen_xid = CAST(CAST(last.finished_xid AS text) AS bigint), seen_task = last.id
                FROM (SELECT finished_xid, id FROM ended ORDER BY finished_xid DESC, id DESC LIMIT 1) AS last
            )
            SELECT count(*) FROM ended
            """
        ),
        {"limit": limit},
    ).scalar_one()
    return counted


def counts(connection: Connection) -> list[Count]:
    """Everything counted so far."""
    rows = connection.execute(text("SELECT name, label, kind, value FROM tally ORDER BY name, label, kind"))
    return [Count(**row._mapping) for row in rows]  # noqa: SLF001 - the documented name
