"""Deleting what is old: finished tasks with everything under them, files that no task names, workers long gone.

In batches, each a short transaction of its own, so that nothing waits for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from db.tally import count_ended

if TYPE_CHECKING:
    from collections.abc import Sequence

#: A file is kept this long after a caller named it last: the task that names it may be about to be stored.
FILE_GRACE_SECONDS = 86_400


def count_finished(connection: Connection, seconds: float) -> int:
    """Tasks that finished over `seconds` ago."""
    count: int = connection.execute(
        text("SELECT count(*) FROM task WHERE finished_at < now() - make_interval(secs => :seconds)"),
        {"seconds": seconds},
    ).scalar_one()
    return count


def delete_finished(connection: Connection, seconds: float, limit: int) -> int:
    """Delete up to `limit` tasks that finished over `seconds` ago, oldest first; preferences stay.

    They are counted first: what is deleted stays in the counts since ever.
    """
    count_ended(connection, 2 * limit)
    return connection.execute(
        text(
            """
            DELETE FROM task WHERE id IN (
                SELECT id FROM task WHERE finished_at < now() - make_interval(secs => :seconds)
                ORDER BY finished_at, id LIMIT :limit FOR UPDATE SKIP LOCKED)
            """
        ),
        {"seconds": seconds, "limit": limit},
    ).rowcount


def files_after(connection: Connection, digest: str, limit: int) -> list[str]:
    """The next `limit` digests of stored files that nobody named lately, in order."""
    rows = connection.execute(
        text(
            """
            SELECT sha256 FROM artifact
            WHERE sha256 > :digest AND used_at < now() - make_interval(secs => :grace) ORDER BY sha256 LIMIT :limit
            """
        ),
        {"digest": digest, "limit": limit, "grace": FILE_GRACE_SECONDS},
    )
    return list(rows.scalars())


def delete_unnamed_files(connection: Connection, digests: Sequence[str]) -> list[str]:
    """Delete the rows of those files that no task names, and return their digests.

    The rows stay locked until the caller's transaction ends, so it deletes the blobs in it: whoever stores such a file
    again waits, and then writes it anew (`db.blobs.touch_artifacts`).
    """
    rows = connection.execute(
        text(
            """
            DELETE FROM artifact AS a
            WHERE a.sha256 = ANY(CAST(:digests AS text[])) AND a.used_at < now() - make_interval(secs => :grace)
              AND NOT EXISTS (
                  SELECT FROM task AS t WHERE t.attachments <> '[]'
                    AND t.attachments @> jsonb_build_array(jsonb_build_object('sha256', a.sha256)))
            RETURNING a.sha256
            """
        ),
        {"digests": list(digests), "grace": FILE_GRACE_SECONDS},
    )
    return list(rows.scalars())


def delete_gone_workers(connection: Connection, seconds: float) -> int:
    """Delete the rows of workers not heard of for `seconds`: they were killed and never came back under that name."""
    return connection.execute(
        text("DELETE FROM worker WHERE heartbeat_at < now() - make_interval(secs => :seconds)"), {"seconds": seconds}
    ).rowcount
