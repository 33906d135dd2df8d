"""The breaker: a model or a judge whose calls fail one after the other is suspended, and probed until it works.

Counted are calls, not inputs: one bad input in a batch says nothing about the model, and a batch that fails whole says
it once. A suspended model gets nothing but a wave of one per `BAKEOFF_PROBE_SECONDS`; a call that works resumes it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from db.errors import NotFound
from db.states import ErrorKind, ModelState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from db.candidates import Result
    from db.settings import BreakerRules


class Guarded(StrEnum):
    """Tables whose rows have a breaker."""

    MODEL = "model"
    JUDGE = "judge"


def note_success(connection: Connection, guarded: Guarded, name: str) -> bool:
    """A call worked. Returns whether that resumed it; a healthy row is not written."""
    return bool(
        connection.execute(
            text(
                f"""
                UPDATE {guarded} SET consecutive_failures = 0, suspended_at = NULL, probe_after = NULL,
                    status = CASE WHEN status = 'suspended' THEN 'active' ELSE status END,
                    reason = CASE WHEN status = 'suspended' THEN NULL ELSE reason END
                WHERE name = :name AND (consecutive_failures > 0 OR status = 'suspended')
                """  # noqa: S608 - our enum
            ),
            {"name": name},
        ).rowcount
    )


def note_failure(
    connection: Connection, guarded: Guarded, name: str, reason: str, rules: BreakerRules, *, calls: int = 1
) -> bool:
    """Calls failed, through no fault of their inputs. Returns whether it is suspended now.

    What was sent to a model that is suspended by this is taken back, uncharged.
    """
    status = connection.execute(
        text(
            f"""
            UPDATE {guarded} SET consecutive_failures = consecutive_failures + :calls,
                status = CASE WHEN status = 'active' AND consecutive_failures + :calls >= :failures THEN 'suspended'
                              ELSE status END,
                reason = CASE WHEN status IN ('active', 'suspended') AND consecutive_failures + :calls >= :failures
                              THEN (consecutive_failures + :calls) || ' calls failed in a row; the last: '
                                   || CAST(:reason AS text)
                              ELSE reason END,
                suspended_at = CASE WHEN status = 'active' AND consecutive_failures + :calls >= :failures THEN now()
                                    ELSE suspended_at END,
                probe_after = CASE WHEN consecutive_failures + :calls >= :failures
                                   THEN now() + make_interval(secs => :probe) END
            WHERE name = :name RETURNING status
            """  # noqa: S608 - our enum
        ),
        {
            "name": name,
            "calls": calls,
            "failures": rules.failures,
            "reason": reason[:500],
            "probe": rules.probe_seconds,
        },
    ).scalar()
    suspended = status == ModelState.SUSPENDED
    if suspended:
        _take_back(connection, guarded, name)
    return suspended


def note_batch(connection: Connection, model: str, results: Sequence[Result], rules: BreakerRules) -> bool:
    """What a stored batch says about its model: one output is enough for a success, bad inputs alone say nothing.

    Returns whether the model is suspended now.
    """
    if any(result.error is None for result in results):
        note_success(connection, Guarded.MODEL, model)
        return False
    faults = [result.error for result in results if result.error and result.error["kind"] != ErrorKind.INPUT]
    return bool(faults) and note_failure(connection, Guarded.MODEL, model, faults[-1]["message"], rules)


def _take_back(connection: Connection, guarded: Guarded, name: str) -> None:
    if guarded is Guarded.MODEL:
        take_back_sent(connection, [name])
    else:
        connection.execute(
            text(
                """
                UPDATE subtask SET sent_at = NULL, message_id = NULL, not_before = now()
                WHERE id IN (SELECT id FROM subtask WHERE judge = :name AND status = 'running' AND sent_at IS NOT NULL
                             ORDER BY id FOR UPDATE SKIP LOCKED)
                """
            ),
            {"name": name},
        )


def take_back_sent(connection: Connection, models: list[str]) -> int:
    """Unclaimed candidates of these models are chosen again; the messages that carry them will claim nothing."""
    return connection.execute(
        text(
            """
            UPDATE candidate SET status = 'chosen', message_id = NULL, sent_at = NULL, in_chord = false,
                                 not_before = now()
            WHERE id IN (SELECT id FROM candidate WHERE model = ANY(CAST(:models AS text[])) AND message_id IS NOT NULL
                           AND finished_at IS NULL AND status = 'sent'
                         ORDER BY id FOR UPDATE SKIP LOCKED)
            """
        ),
        {"models": models},
    ).rowcount


def start_probe(connection: Connection, guarded: Guarded, name: str, rules: BreakerRules) -> None:
    """A probe is on its way; the next one is due `probe_seconds` from now."""
    connection.execute(
        text(
            f"UPDATE {guarded} SET probe_after = now() + make_interval(secs => :probe) "  # noqa: S608 - our enum
            "WHERE name = :name AND status = 'suspended'"
        ),
        {"name": name, "probe": rules.probe_seconds},
    )


def due_probes(connection: Connection, guarded: Guarded) -> list[str]:
    """Suspended ones that may be asked once now."""
    rows = connection.execute(
        text(
            f"SELECT name FROM {guarded} WHERE status = 'suspended' "  # noqa: S608 - our enum
            "AND (probe_after IS NULL OR probe_after <= now()) ORDER BY name"
        )
    )
    return list(rows.scalars())


def set_model_state(connection: Connection, model: str, state: ModelState, reason: str | None = None) -> str:
    """An operator pauses, drains or resumes a model; returns the state before. Raises `NotFound`.

    Paused: nothing is chosen for it, what is sent and unclaimed is taken back. Draining: nothing is chosen for it, what
    is bound to it still runs. Active: the breaker starts over.
    """
    before = connection.execute(
        text("SELECT status FROM model WHERE name = :name FOR NO KEY UPDATE"), {"name": model}
    ).scalar()
    if before is None:
        raise NotFound(f"No model {model!r} is known to this database; `bakeoff models` lists them.")
    connection.execute(
        text(
            """
            UPDATE model SET status = :state, reason = :reason, consecutive_failures = 0, suspended_at = NULL,
                             probe_after = NULL
            WHERE name = :name
            """
        ),
        {"name": model, "state": str(state), "reason": reason},
    )
    if state is ModelState.PAUSED:
        take_back_sent(connection, [model])
    return str(before)
