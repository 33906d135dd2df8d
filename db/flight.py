"""What is under way, by what the candidates' rows say: messages in flight, lost ones, models with work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID


def lost_messages(connection: Connection, empty_queues_of: Sequence[str], seconds: float) -> list[UUID]:
    """Messages sent over `seconds` ago that no worker will ever see (DESIGN: waves).

    One that left later on the same queue is being worked on, or the model's queue is empty, nothing of it is running,
    and a worker is ready for it.
    """
    rows = connection.execute(
        text(
            """
            WITH busy AS MATERIALIZED (
                SELECT model, max(sent_at) AS latest FROM candidate
                WHERE message_id IS NOT NULL AND finished_at IS NULL AND status = 'running' GROUP BY model
            )
            SELECT DISTINCT c.message_id FROM candidate AS c LEFT JOIN busy ON busy.model = c.model
            WHERE c.message_id IS NOT NULL AND c.finished_at IS NULL AND c.status = 'sent'
              AND c.sent_at < now() - make_interval(secs => :seconds)
              AND (c.sent_at < busy.latest OR (busy.model IS NULL AND c.model = ANY(CAST(:empty AS text[]))))
            """
        ),
        {"seconds": seconds, "empty": list(empty_queues_of)},
    )
    return [row.message_id for row in rows]


def in_flight(connection: Connection) -> dict[str, int]:
    """Unfinished messages per model, by what the rows say."""
    rows = connection.execute(
        text(
            """
            SELECT model, count(DISTINCT message_id) AS messages FROM candidate
            WHERE message_id IS NOT NULL AND finished_at IS NULL GROUP BY model
            """
        )
    )
    return {row.model: row.messages for row in rows}


@dataclass(frozen=True, kw_only=True)
class Look:
    """What there is to do: capabilities with ready subtasks, models with chosen candidates that are due, and whether
    plans wait to become subtasks, or tasks to be planned or integrated."""

    ready: list[str]
    waiting: list[str]
    planned: bool
    thinking: bool


def look(connection: Connection) -> Look:
    """See what there is to do. One statement: a few probes of partial indexes."""
    row = connection.execute(
        text(
            """
            WITH RECURSIVE ready AS (
                (SELECT capability FROM subtask WHERE status = 'ready' ORDER BY capability LIMIT 1)
                UNION ALL
                SELECT (SELECT s.capability FROM subtask AS s WHERE s.status = 'ready' AND s.capability > r.capability
                        ORDER BY s.capability LIMIT 1)
                FROM ready AS r WHERE r.capability IS NOT NULL
            )
            SELECT ARRAY(SELECT capability FROM ready WHERE capability IS NOT NULL) AS ready,
                   ARRAY(SELECT DISTINCT model FROM candidate
                         WHERE message_id IS NULL AND finished_at IS NULL
                           AND (not_before IS NULL OR not_before <= now())) AS waiting,
                   EXISTS (SELECT FROM task WHERE planned) AS planned,
                   EXISTS (SELECT FROM task WHERE status IN ('planning', 'integrating')) AS thinking
            """
        )
    ).one()
    return Look(ready=list(row.ready), waiting=list(row.waiting), planned=row.planned, thinking=row.thinking)


def models_with_work(connection: Connection) -> list[str]:
    """Models with unfinished candidates: one probe of an index for each."""
    rows = connection.execute(
        text(
            " UNION ".join(
                f"""
                (WITH RECURSIVE named AS (
                    (SELECT model FROM candidate WHERE {which} ORDER BY model LIMIT 1)
                    UNION ALL
                    SELECT (SELECT c.model FROM candidate AS c WHERE {which} AND c.model > n.model
                            ORDER BY c.model LIMIT 1)
                    FROM named AS n WHERE n.model IS NOT NULL)
                SELECT model FROM named WHERE model IS NOT NULL)
                """  # noqa: S608 - one of two constants
                for which in (
                    "message_id IS NULL AND finished_at IS NULL",
                    "message_id IS NOT NULL AND finished_at IS NULL",
                )
            )
        )
    )
    return list(rows.scalars())
