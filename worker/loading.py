"""What the parent says of a child that never gets ready: killed while it loads, again and again, or loading for ever.

Nothing else would: a child that is killed says nothing, it has claimed nothing that could be charged, and `starting`
counts as about to serve, so its model would keep others waiting for it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import SQLAlchemyError

from db.engine import engine_of, transaction
from db.errors import BakeoffError
from db.logs import get_logger
from db.states import WorkerState
from db.workers import live_workers, set_worker_state
from worker.watch import Watch, children

if TYPE_CHECKING:
    from db.settings import Settings
    from worker.role import WorkerRole

log = get_logger(__name__)

LOOK = 1.0  # seconds
BELIEVED = 15.0  # seconds after its start: by then a new child has said that it is starting
LOSSES = 2  # children lost in a row before they were ready; one may have been somebody's doing


class LoadWatch(Watch):
    """Calls a worker broken whose child does not get ready; it becomes ready by itself when one does."""

    def watch(self, parent: Any, role: WorkerRole, settings: Settings) -> None:
        if not role.computes:
            return
        loading = Loading(settings.start_allowance)
        while True:
            time.sleep(LOOK)
            try:
                _look(loading, children(parent.pool), role, settings)
            except (BakeoffError, SQLAlchemyError) as error:
                log.warning(f"Could not look after the child: {error}", action="look_failed", worker=role.name)


def _look(loading: Loading, pids: list[int], role: WorkerRole, settings: Settings) -> None:
    if not loading.wants_to_know(time.monotonic(), pids):
        return
    with transaction(engine_of(settings.dsn, "watch")) as connection:
        mine = (w for w in live_workers(connection, settings.worker_timeout) if w.name == role.name)
        status = next((worker.status for worker in mine), None)
        problem = loading.problem(time.monotonic(), ready=status == WorkerState.READY)
        if problem is not None and status == WorkerState.STARTING:
            set_worker_state(connection, role.name, WorkerState.BROKEN, problem)
            log.error(problem, action="model_broken", worker=role.name)


class Loading:
    """How long the present child has been loading, and how many before it were lost while they did."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._pid: int | None = None
        self._since = 0.0
        self._ready = False
        self._losses = 0

    def wants_to_know(self, now: float, pids: list[int]) -> bool:
        """Take the children into account; returns whether it matters what the present one says of itself."""
        if pids and pids[0] != self._pid:
            self._losses += self._pid is not None and not self._ready
            self._pid, self._since, self._ready = pids[0], now, False
        return self._pid is not None and not self._ready

    def problem(self, now: float, *, ready: bool) -> str | None:
        """What is wrong, in one sentence for `status`.

        For a moment the row may still say what the child before this one said: `ready` is believed when it stays.
        """
        if ready:
            if now - self._since >= BELIEVED:
                self._ready, self._losses = True, 0
            return None
        if self._losses >= LOSSES:
            return f"{self._losses} model processes in a row ended before the model was loaded; the log says how."
        if now - self._since > self._patience:
            return (
                f"The model has been loading for over {self._patience:g} s (BAKEOFF_START_ALLOWANCE); others serve "
                "meanwhile."
            )
        return None
