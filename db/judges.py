"""Judges in a row: a subtask goes on to the next of its list where the one before failed, or is suspended.

`subtask.judge` is who is asked now, `next_judges` who is left, `failed_judges` who was asked before, and why it did not
decide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import Connection, text

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Only between two is there something to ask: a single survivor wins unjudged, whatever the judge is like.
NEEDS_JUDGE = "(SELECT count(*) FROM candidate AS c WHERE c.subtask_id = s.id AND c.status = 'done') > 1"
JUDGE_SUSPENDED = "EXISTS (SELECT FROM judge AS j WHERE j.name = s.judge AND j.status = 'suspended')"
#: The first of subtask `s`'s next judges that is not suspended: its name, and its place from 0.
NEXT = """
SELECT n.name, n.place - 1 AS place FROM jsonb_array_elements_text(s.next_judges) WITH ORDINALITY AS n (name, place)
WHERE NOT EXISTS (SELECT FROM judge AS j WHERE j.name = n.name AND j.status = 'suspended')
ORDER BY n.place LIMIT 1
"""
HAS_NEXT = f"EXISTS ({NEXT})"  # a judge of its list that could be asked


def pass_over_suspended(connection: Connection, ids: Sequence[UUID], message: UUID | None = None) -> int:
    """Running subtasks whose judge is suspended go on to the next of their list that is not; their attempts start over.

    Those passed over on the way are named, too. Left alone is the subtask whose own message `message` is: it was sent
    to whom it names, as a probe.
    """
    return connection.execute(
        text(
            f"""
            WITH passed AS (
                SELECT s.id, next.name, next.place, s.judge, s.next_judges
                FROM subtask AS s CROSS JOIN LATERAL ({NEXT}) AS next
                WHERE s.id = ANY(CAST(:ids AS uuid[])) AND s.status = 'running'
                  AND s.message_id IS DISTINCT FROM :message
                  AND {JUDGE_SUSPENDED} AND {NEEDS_JUDGE}
                ORDER BY s.id FOR UPDATE OF s SKIP LOCKED
            )
            UPDATE subtask AS s SET judge = p.name, attempt = 0,
                next_judges = p.next_judges - ARRAY(
                    SELECT n FROM jsonb_array_elements_text(p.next_judges) WITH ORDINALITY AS e (n, place)
                    WHERE place - 1 <= p.place),
                failed_judges = s.failed_judges || (
                    SELECT jsonb_agg(jsonb_build_object('judge', e.n, 'error', 'suspended: ' || coalesce(j.reason, ''))
                                     ORDER BY e.place)
                    FROM (SELECT p.judge AS n, 0 AS place UNION ALL
                          SELECT n, place FROM jsonb_array_elements_text(p.next_judges) WITH ORDINALITY AS e (n, place)
                          WHERE place - 1 < p.place) AS e
                    LEFT JOIN judge AS j ON j.name = e.n)
            FROM passed AS p WHERE s.id = p.id
            """  # noqa: S608 - no value is interpolated
        ),
        {"ids": list(ids), "message": message},
    ).rowcount


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
