"""Waiting for tasks to end: LISTEN shortens the wait, polling alone finds the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from uuid import UUID

import psycopg

from db.engine import engine_of, listen, transaction
from db.errors import WaitTimeout
from db.queries import task_status
from db.settings import Settings
from db.states import TaskState

POLL_SECONDS = 0.5


def wait_for(
    settings: Settings,
    tasks: Sequence[UUID],
    timeout: float | None,
    on_look: Callable[[dict[UUID, str]], None] | None = None,
) -> dict[UUID, str]:
    """Wait until every task is final; returns their states. Raises `WaitTimeout` after `timeout` seconds."""
    deadline = None if timeout is None else time.monotonic() + timeout
    engine = engine_of(settings.dsn, "wait")
    with listen(settings.dsn) as notices:
        while True:
            with transaction(engine) as connection:
                states = task_status(connection, list(tasks))
            if on_look is not None:
                on_look(states)
            if all(TaskState(state).final for state in states.values()):
                return states
            left = POLL_SECONDS if deadline is None else min(POLL_SECONDS, deadline - time.monotonic())
            if left <= 0:
                open_ones = [str(task) for task, state in states.items() if not TaskState(state).final]
                raise WaitTimeout(
                    f"Not finished after {timeout:g} s: {', '.join(open_ones)}. The work goes on; look again with "
                    f"`bakeoff show {open_ones[0]}`."
                )
            _doze(notices, left)


def _doze(notices: psycopg.Connection[tuple[object, ...]], seconds: float) -> None:
    for _ in notices.notifies(timeout=seconds, stop_after=1):
        pass
