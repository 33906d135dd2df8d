"""Waiting for tasks to end: LISTEN shortens the wait, polling alone finds the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Self
from uuid import UUID

import psycopg
from sqlalchemy.exc import OperationalError

from db.engine import engine_of, listen, transaction
from db.errors import Unreachable, WaitTimeout
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
    states: dict[UUID, str] = {}
    with Notices(settings.dsn) as notices:
        while True:
            try:
                with transaction(engine) as connection:
                    states = task_status(connection, list(tasks))
            except (Unreachable, OperationalError):
                if not states:  # it never answered: say so; later it may restart under a long wait
                    raise
            if on_look is not None and states:
                on_look(states)
            if states and all(TaskState(state).final for state in states.values()):
                return states
            left = POLL_SECONDS if deadline is None else min(POLL_SECONDS, deadline - time.monotonic())
            if left <= 0:
                open_ones = [str(task) for task, state in states.items() if not TaskState(state).final]
                raise WaitTimeout(
                    f"Not finished after {timeout:g} s: {', '.join(open_ones)}. The work goes on; look again with "
                    f"`bakeoff show {open_ones[0]}`."
                )
            notices.doze(left)


class Notices:
    """Notices where a connection can be had, sleep where not: they only shorten a wait."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: psycopg.Connection[tuple[object, ...]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()

    def doze(self, seconds: float) -> None:
        """Wait for a notice, or for `seconds`."""
        try:
            if self._connection is None:
                self._connection = listen(self._dsn)
            for _ in self._connection.notifies(timeout=seconds, stop_after=1):
                pass
        except (Unreachable, psycopg.Error):
            self._connection = None
            time.sleep(seconds)
