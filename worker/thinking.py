"""One task at a time in the hands of a language model: claimed, held, stored under its token, tried again on failure.

What planning and integrating have in common. A second delivery of a message finds the task claimed, or moved on, and
does nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

from sqlalchemy import Connection

from db.errors import RefusedNow
from db.lease import Leased
from db.logs import get_logger
from db.states import TaskState
from db.thinking import Thought, claim_thinking, thinking_failed
from db.tracing import traced
from worker.backends import failure_from
from worker.cleaning import clean_text
from worker.process import ModelProcess
from worker.renewal import Renewal
from worker.traces import now, thinking_span

log = get_logger(__name__)

T = TypeVar("T")

#: What is to be stored of a thought.
Store = Callable[[Connection], bool]
SPANS = {TaskState.PLANNING: "plan", TaskState.INTEGRATING: "integrate"}


def think(
    process: ModelProcess,
    message: UUID,
    task: UUID,
    state: TaskState,
    work: Callable[[Thought], Store],
    timeout_of: Callable[[Thought], float],
    sender: str | None = None,
) -> None:
    """Claim a task that waits in `state`, do `work`, store what it returns. A failure is tried again, with a delay.

    `sender` is the span that sent the message.
    """
    settings, began = process.settings, now()

    def claim(connection: Connection) -> tuple[Thought | None, dict[UUID, str]]:
        return claim_thinking(connection, task, state, message, settings.lease_seconds), traced(connection, [task])

    thought, traces = process.stored(claim)
    if thought is None:
        log.info("Nothing to do", action="thinking_message_empty", task=str(task), state=str(state))
        return
    started = time.monotonic()
    with Renewal(process.engine, Leased.TASK, thought.token, settings.lease_seconds) as renewal:
        try:
            renewal.until(started + settings.start_allowance + timeout_of(thought))
            with thinking_span(SPANS[state], thought, traces, sender, began):
                store = work(thought)
        except Exception as error:
            log.exception(
                "A task could not be thought about",
                action="thinking_failed", state=str(state), task=str(task), attempt=thought.attempt,
            )  # fmt: skip
            _after_failure(process, thought, error)
            return
        finally:
            renewal.until(time.monotonic() + 2 * settings.lease_seconds)
        ours = process.stored(store)
    log.info(
        f"{state} took {time.monotonic() - started:.2f} s" if ours else "too late",
        action=f"{state}_stored" if ours else f"{state}_too_late",
        task=str(task),
        attempt=thought.attempt,
        seconds=round(time.monotonic() - started, 3),
    )


def _after_failure(process: ModelProcess, thought: Thought, error: Exception) -> None:
    """A planner that cannot be had keeps the task waiting, uncharged; any other failure uses an attempt up."""
    failure = failure_from(error)
    charged = not isinstance(error, RefusedNow)
    delay = process.settings.retry_delay * 2 ** max(0, thought.attempt - 1)
    said = {"code": failure.code, "message": clean_text(failure.message)}
    process.stored(lambda connection: thinking_failed(connection, thought, said, delay, charged=charged))
