"""The one lease: claim, renew, charge, give back, for tasks, subtasks and candidates alike.

A claim writes a fresh token; every later write names it, so a stale worker's write changes no row. Times are the
database's. Storing a result ends the lease in the same statement (`db.candidates.store`, `db.verdicts.store`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import Connection, text

if TYPE_CHECKING:
    from collections.abc import Sequence


class Leased(Enum):
    """A table with lease columns, the condition of rows that are held, and the state in which they are given back."""

    CANDIDATE = (
        "candidate",
        "status = 'running' AND message_id IS NOT NULL AND finished_at IS NULL",  # as their partial index says it
        "'chosen'",
    )
    SUBTASK = ("subtask", "status = 'judging'", "'running'")
    TASK = ("task", "status IN ('planning', 'integrating') AND token IS NOT NULL", "status")

    def __init__(self, table: str, held: str, returns: str) -> None:
        self.table = table
        self.held = held
        self.returns = returns


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a claim got: `ids` are ours under `token`."""

    token: UUID
    ids: list[UUID]


def renew(connection: Connection, leased: Leased, token: UUID, seconds: float) -> int:
    """Hold the rows of a token `seconds` longer. Returns how many are still ours."""
    return connection.execute(
        text(
            f"UPDATE {leased.table} SET lease_until = now() + make_interval(secs => :seconds) "  # noqa: S608 - our enum
            f"WHERE token = :token AND {leased.held}"
        ),
        {"token": token, "seconds": seconds},
    ).rowcount


def charge(connection: Connection, leased: Leased, token: UUID, ids: Sequence[UUID]) -> list[UUID]:
    """Count an attempt for the rows of one batch, at the moment it enters the model. Returns those still ours."""
    rows = connection.execute(
        text(
            f"UPDATE {leased.table} SET attempt = attempt + 1 "  # noqa: S608 - our enum
            "WHERE id = ANY(CAST(:ids AS uuid[])) AND token = :token RETURNING id"
        ),
        {"ids": list(ids), "token": token},
    )
    return [row.id for row in rows]


def end_message(connection: Connection, message: UUID) -> int:
    """End the leases of a message whose worker's child is known to be dead, instead of waiting for them to run out.

    Returns how many rows it held; the reconciler gives them back with their attempts as charged.
    """
    return sum(
        connection.execute(
            text(
                f"UPDATE {leased.table} SET lease_until = now() "  # noqa: S608 - our enum
                f"WHERE message_id = :message AND {leased.held}"
            ),
            {"message": message},
        ).rowcount
        for leased in Leased
    )


def return_message(connection: Connection, message: UUID) -> int:
    """Give back everything that a message holds, because its worker was asked to stop: nothing stays charged.

    Returns how many rows went back; they are due at once.
    """
    return sum(
        connection.execute(
            text(
                f"UPDATE {leased.table} SET status = {leased.returns}, token = NULL, "  # noqa: S608 - our enum
                "lease_until = NULL, message_id = NULL, sent_at = NULL, not_before = now(), "
                "attempt = greatest(attempt - 1, 0) "
                f"WHERE message_id = :message AND {leased.held}"
            ),
            {"message": message},
        ).rowcount
        for leased in Leased
    )


def give_back(
    connection: Connection, leased: Leased, token: UUID, delay: float = 0.0, uncharge: Sequence[UUID] = ()
) -> int:
    """End a lease whose rows were not worked on; they are due again after `delay` seconds.

    Nothing is charged; those in `uncharge` had been, for a batch that was not begun. Returns how many rows went back.
    """
    return connection.execute(
        text(
            f"UPDATE {leased.table} SET status = {leased.returns}, token = NULL, "  # noqa: S608 - our enum
            "lease_until = NULL, message_id = NULL, sent_at = NULL, "
            "not_before = now() + make_interval(secs => :delay), "
            "attempt = greatest(attempt - CASE WHEN id = ANY(CAST(:uncharge AS uuid[])) THEN 1 ELSE 0 END, 0) "
            f"WHERE token = :token AND {leased.held}"
        ),
        {"token": token, "delay": delay, "uncharge": list(uncharge)},
    ).rowcount
