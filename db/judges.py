"""Judges in a row: a subtask goes on to the next of its list where the one before failed, or is suspended.

`subtask.judge` is who is asked now, `next_judges` who is left, `failed_judges` who was asked before, and why it did not
decide. Who was only passed over stands there as `suspended: ...`, and can be gone back to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import Connection, text

if TYPE_CHECKING:
    from collections.abc import Collection

#: A subtask whose candidates are all terminal. The queries are about the alias `s`.
COMPLETE = "NOT EXISTS (SELECT FROM candidate AS c WHERE c.subtask_id = s.id AND c.finished_at IS NULL OFFSET 0)"
#: Only between two is there something to ask: a single survivor wins unjudged, whatever the judge is like.
NEEDS_JUDGE = "(SELECT count(*) FROM candidate AS c WHERE c.subtask_id = s.id AND c.status = 'done') > 1"
JUDGE_SUSPENDED = "EXISTS (SELECT FROM judge AS j WHERE j.name = s.judge AND j.status = 'suspended')"
#: Judges of subtask `s` that may be asked in the place of its own: name, and place from 0. First who is left of its
#: list, then who was passed over and may be back; who failed on this very subtask is not among them.
LISTED = """
SELECT e.name, e.place - 1 AS place FROM jsonb_array_elements_text(s.next_judges) WITH ORDINALITY AS e (name, place)
UNION ALL
SELECT e.one ->> 'judge', jsonb_array_length(s.next_judges) + e.place - 1
FROM jsonb_array_elements(s.failed_judges) WITH ORDINALITY AS e (one, place)
WHERE starts_with(e.one ->> 'error', 'suspended: ')
"""
ABLE = "NOT EXISTS (SELECT FROM judge AS j WHERE j.name = n.name AND j.status = 'suspended')"
#: Its judge is suspended, and so is each other of its list that did not fail on it.
STUCK = f"{JUDGE_SUSPENDED} AND {NEEDS_JUDGE} AND NOT EXISTS (SELECT FROM ({LISTED}) AS n WHERE {ABLE})"
LISTS = f"EXISTS (SELECT FROM ({LISTED}) AS n WHERE n.name = :judge)"


def pass_over_suspended(connection: Connection, ids: Collection[UUID], to: str | None = None) -> int:
    """Running subtasks whose judge is suspended go on to the first of their list that is not; attempts start over.

    Those passed over on the way are named, too, and asked again where all others are suspended and they are not. With
    `to`, the subtasks go to that one, suspended or not: as a probe.
    """
    return connection.execute(
        text(
            f"""
            WITH passed AS (
                SELECT s.id, next.name, next.place, s.judge, s.next_judges
                FROM subtask AS s CROSS JOIN LATERAL (
                    SELECT n.name, n.place FROM ({LISTED}) AS n WHERE {"n.name = :to" if to else ABLE}
                    ORDER BY n.place LIMIT 1) AS next
                WHERE s.id = ANY(CAST(:ids AS uuid[])) AND s.status = 'running' AND {JUDGE_SUSPENDED} AND {NEEDS_JUDGE}
                ORDER BY s.id FOR UPDATE OF s SKIP LOCKED
            )
            UPDATE subtask AS s SET judge = p.name, attempt = 0,
                next_judges = p.next_judges - ARRAY(
                    SELECT n FROM jsonb_array_elements_text(p.next_judges) WITH ORDINALITY AS e (n, place)
                    WHERE place - 1 <= p.place),
                failed_judges = (
                    SELECT coalesce(jsonb_agg(e.one ORDER BY e.place), '[]')
                    FROM jsonb_array_elements(s.failed_judges) WITH ORDINALITY AS e (one, place)
                    WHERE e.one ->> 'judge' <> p.name
                ) || (
                    SELECT jsonb_agg(jsonb_build_object('judge', e.n, 'error', 'suspended: ' || coalesce(j.reason, ''))
                                     ORDER BY e.place)
                    FROM (SELECT p.judge AS n, 0 AS place UNION ALL
                          SELECT n, place FROM jsonb_array_elements_text(p.next_judges) WITH ORDINALITY AS e (n, place)
                          WHERE place - 1 < p.place) AS e
                    LEFT JOIN judge AS j ON j.name = e.n)
            FROM passed AS p WHERE s.id = p.id
            """  # noqa: S608 - no value is interpolated
        ),
        {"ids": list(ids), **({"to": to} if to else {})},
    ).rowcount


def keep_for_probes(connection: Connection, ids: Collection[UUID]) -> list[UUID]:
    """Of these complete, running subtasks one for each suspended judge that is due for a probe, so that there is one.

    It is due for a message of its own at once: the reconciler's next look is the probe.
    """
    return list(
        connection.execute(
            text(
                f"""
                UPDATE subtask SET not_before = now() WHERE id IN (
                    SELECT kept.id FROM judge AS j CROSS JOIN LATERAL (
                        SELECT s.id FROM subtask AS s
                        WHERE s.id = ANY(CAST(:ids AS uuid[])) AND s.judge = j.name AND s.status = 'running'
                          AND s.sent_at IS NULL AND {COMPLETE} AND {NEEDS_JUDGE}
                        ORDER BY s.id LIMIT 1 FOR UPDATE OF s SKIP LOCKED) AS kept
                    WHERE j.status = 'suspended' AND (j.probe_after IS NULL OR j.probe_after <= now()))
                RETURNING id
                """  # noqa: S608 - no value is interpolated
            ),
            {"ids": list(ids)},
        ).scalars()
    )


def ask_next_judge(connection: Connection, token: UUID, subtask: UUID, error: str) -> bool:
    """A judge failed on this claimed subtask for good: the next of its list is asked at once, its attempts start over.

    Returns whether it was still ours.
    """
    return bool(
        connection.execute(
            text(
                """
                UPDATE subtask SET status = 'running', token = NULL, lease_until = NULL, message_id = NULL,
                       sent_at = NULL, not_before = now(), attempt = 0,
                       judge = next_judges ->> 0, next_judges = next_judges - 0,
                       failed_judges = failed_judges
                                       || jsonb_build_object('judge', judge, 'error', CAST(:error AS text)),
                       error = jsonb_build_object('code', 'judge_failed', 'message', CAST(:error AS text))
                WHERE id = :id AND token = :token AND next_judges <> '[]'
                """
            ),
            {"id": subtask, "token": token, "error": error},
        ).rowcount
    )
