"""How a worker ends: SIGTERM lets the batch finish, for a while; then it is given back and the process ends.

Celery's own warm shutdown waits for the batch, the child and the broker for ever, so a thread beside it keeps time and
ends the process where that takes too long. What Redis still holds unacknowledged is harmless by then: the rows of a
message that was given back no longer carry its id.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn
from uuid import UUID

import psutil
from celery import bootsteps
from celery.signals import worker_shutting_down
from celery.worker import state as requests
from sqlalchemy.exc import SQLAlchemyError

from db.engine import engine_of, transaction
from db.errors import BakeoffError
from db.lease import return_message
from db.logs import get_logger
from db.settings import load_settings
from db.states import WorkerState
from db.tracing import flush, wanted
from db.workers import set_worker_state
from worker.heartbeat import HEART
from worker.role import WorkerRole

log = get_logger(__name__)

QUIET = 1.0  # seconds that Celery gets to end by itself when nothing runs; its child alone sleeps a second at its end
PATIENCE = 3.0  # seconds that Postgres gets for the last word
LOOK = 0.1
SIGNAL, CLOSING = "signal", "closing"


class Stopping(bootsteps.StartStopStep):  # type: ignore[misc] # celery has no types
    """Keeps time from the moment that the worker is asked to stop, by a signal or through Celery's remote control."""

    requires = {"celery.worker.components:Pool"}  # noqa: RUF012 - celery's own hook

    def __init__(self, parent: object, **kwargs: object) -> None:
        super().__init__(parent, **kwargs)
        self._asked: queue.SimpleQueue[str] = queue.SimpleQueue()  # the one that a signal handler may use

    def start(self, parent: object) -> None:  # noqa: ARG002 - celery's own hook
        """SIGINT and SIGQUIT mean what SIGTERM means."""
        role = WorkerRole.of_this_process()
        if role is None:
            return
        worker_shutting_down.connect(self._on_signal, weak=False)
        for number in (signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, signal.getsignal(signal.SIGTERM))
        threading.Thread(target=self._run, args=(role,), name="stopping", daemon=True).start()

    def close(self, parent: object) -> None:  # noqa: ARG002 - celery's own hook
        """Celery begins its warm shutdown, whoever asked for it."""
        self._asked.put(CLOSING)

    def _on_signal(self, **_: object) -> None:
        self._asked.put(SIGNAL)

    def _run(self, role: WorkerRole) -> None:
        signals = int(self._asked.get() == SIGNAL)
        settings = load_settings()
        log.info("The worker was asked to stop", action="worker_stopping", worker=role.name)
        threading.Thread(target=_say_stopping, args=(role,), daemon=True).start()
        now = busy = time.monotonic()
        deadline = now + settings.stop_seconds
        while now < deadline and now < busy + QUIET and signals < 2:
            with contextlib.suppress(queue.Empty):
                signals += self._asked.get(timeout=LOOK) == SIGNAL
            now = time.monotonic()
            if requests.active_requests:
                busy = now
        if not role.intake:
            _within(PATIENCE, lambda: _give_back(role))
        if wanted() and not requests.active_requests:
            psutil.wait_procs(_models(), PATIENCE)  # the child sends its last spans
        end_process(0)


def _models() -> list[psutil.Process]:
    """Children that end by themselves when nothing is left to do; Python's own helper lives as long as we do."""
    found = []
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if not any("_tracker" in word for word in process.cmdline()):
                found.append(process)
    return found


def _say_stopping(role: WorkerRole) -> None:
    try:
        with transaction(engine_of(load_settings().dsn, "stopping")) as connection:
            set_worker_state(connection, role.name, WorkerState.STOPPING)
    except (BakeoffError, SQLAlchemyError) as error:
        log.warning(f"Could not say that it stops: {error}", action="goodbye_failed", worker=role.name)


def _give_back(role: WorkerRole) -> None:
    """Before the child is killed: its late result changes no row, and a lost child would be charged."""
    for message in _active():
        try:
            with transaction(engine_of(load_settings().dsn, "stopping")) as connection:
                rows = return_message(connection, message)
        except (BakeoffError, SQLAlchemyError) as error:  # then its lease runs out
            log.warning(f"A message could not be given back: {error}", action="goodbye_failed", worker=role.name)
        else:
            log.warning("A batch was given back", action="message_given_back", message=str(message), rows=rows)


def _active() -> list[UUID]:
    while True:
        try:
            return [UUID(request.id) for request in list(requests.active_requests)]
        except RuntimeError:  # it changed meanwhile
            continue


def _within(seconds: float, action: Callable[[], Any]) -> None:
    """Do something that may hang; go on without it after `seconds`."""
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    thread.join(seconds)


def end_process(code: int) -> NoReturn:
    """End this worker now: its child and what that started, its row, itself, without another word with the broker."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    flush(PATIENCE)  # an intake's; a model's spans are its child's
    HEART.leave(PATIENCE)
    sys.stderr.flush()
    os._exit(code)
