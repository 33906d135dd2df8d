"""The scheduler process: plan, dispatch, reconcile, then wait for a notice or a second."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from types import FrameType

import psycopg
from sqlalchemy.exc import SQLAlchemyError

from db.engine import listen, make_engine, transaction
from db.errors import BakeoffError
from db.flight import look
from db.logs import get_logger
from db.settings import Settings
from db.states import WorkerState
from db.thinking import waiting_to_think
from db.tracing import configure_tracing, flush
from db.workers import beat, remove_worker, set_worker_state, sync_registry
from scheduler.callbacks import Callbacks
from scheduler.choosing import Chooser
from scheduler.dispatch import LOOK, Dispatcher
from scheduler.planning import plan_pending, start_planned
from scheduler.publishing import Publisher
from scheduler.reconcile import Reconciler
from scheduler.selectors import Histories
from scheduler.thinking import Thinking
from worker.app import app

log = get_logger(__name__)

PLANNED_AT_ONCE = 256
FLUSH = 3.0  # seconds that the last spans get
LONGEST_BACKOFF = 2.0  # seconds: a look at a server that is away costs little, and everybody waits for us


class Scheduler:
    """One scheduler. Any number may run at once; none of them leads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._engine = make_engine(settings.dsn, application="scheduler", pool_size=2)
        publisher = Publisher(settings, app)
        self._dispatcher = Dispatcher(settings, self._engine, publisher, Chooser(settings, Histories(self._engine)))
        self._thinking = Thinking(settings, self._engine, publisher)
        self._new_first = False
        self._at_once = PLANNED_AT_ONCE
        self._reconciler = Reconciler(settings, self._engine, publisher)
        self._callbacks = Callbacks(settings, self._engine, publisher)
        self._stop = threading.Event()
        self._listening: psycopg.Connection[tuple[object, ...]] | None = None
        self._to_call = False
        self._reconciled = float("-inf")
        self._said_alive = float("-inf")
        self._name = f"scheduler-{os.getpid()}@{socket.gethostname()}"

    def run(self) -> None:
        """Work until SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        configure_tracing("scheduler")
        self._sync()
        log.info("The scheduler runs", action="scheduler_started", models=len(self._settings.registry.models))
        failures = 0
        while not self._stop.is_set():
            try:
                busy = self.tick()
                failures = 0
                if not busy:
                    self._wait()
            except (BakeoffError, SQLAlchemyError, psycopg.Error) as error:
                failures += 1
                self._close_listening()
                log.warning(f"A look failed: {error}", action="look_failed", failures=failures)
            except Exception:
                failures += 1
                self._close_listening()
                log.exception("A look failed by a fault of ours", action="look_fault", failures=failures)
            if failures:
                self._stop.wait(min(0.5 * 2 ** min(failures, 10), LONGEST_BACKOFF))
        self._close_listening()
        self._leave()
        self._engine.dispose()
        flush(FLUSH)
        log.info("The scheduler stopped", action="scheduler_stopped")

    def tick(self) -> bool:
        """One look at everything. Returns whether there may be more to do at once."""
        self._say_alive()
        at_once = self._at_once
        self._at_once = max(1, at_once // 8)  # unless this look succeeds: tasks too large to be planned together
        with transaction(self._engine) as connection:
            planned = plan_pending(connection, self._settings, at_once)
            todo = look(connection)
            if todo.planned:
                planned = max(planned, start_planned(connection, self._settings, at_once))
                todo = look(connection)
            waiting = waiting_to_think(connection, self._settings.lost_after) if todo.thinking else {}
        self._at_once = min(PLANNED_AT_ONCE, 2 * at_once)
        begun = self._thinking.send(waiting) if waiting else 0
        # What was begun (retries, back-fill) and what is new take turns at being first, so that neither starves.
        self._new_first = not self._new_first
        new = self._dispatcher.dispatch(todo) if self._new_first else 0
        begun += self._dispatcher.send_waiting(todo)
        new += 0 if self._new_first else self._dispatcher.dispatch(todo)
        if self._dispatcher.answered:
            self._dispatcher.answered = 0
            self._reconciler.judge_what_is_unjudged()
        changed = False
        if time.monotonic() - self._reconciled >= self._settings.poll_seconds:
            changed = self._reconciler.reconcile()  # last: a new task need not wait for it
            self._reconciled = time.monotonic()
            self._to_call = True
        if self._to_call:
            self._to_call = False  # unless this look says that there is more
            self._to_call = self._callbacks.send()
        return planned == at_once or new >= LOOK or begun > 0 or changed or self._to_call

    def _say_alive(self) -> None:
        """Appear among the workers, without a queue."""
        if time.monotonic() - self._said_alive < self._settings.heartbeat_seconds:
            return
        with transaction(self._engine) as connection:
            beat(connection, name=self._name, host=socket.gethostname(), pid=os.getpid(), queues=[])
            set_worker_state(connection, self._name, WorkerState.READY)
        self._said_alive = time.monotonic()

    def _leave(self) -> None:
        with contextlib.suppress(BakeoffError, SQLAlchemyError), transaction(self._engine) as connection:
            remove_worker(connection, self._name, os.getpid())

    def _sync(self) -> None:
        """Bring the table `model` up to date; a database that is not there yet is waited for."""
        while not self._stop.is_set():
            try:
                with transaction(self._engine) as connection:
                    sync_registry(connection, self._settings.registry)
            except (BakeoffError, SQLAlchemyError) as error:
                log.warning(f"Waiting for the database: {error}", action="database_awaited")
                self._stop.wait(2)
            else:
                return

    def _wait(self) -> None:
        """Sleep until a notice or for a second, whichever comes first; notices that piled up are one."""
        if self._listening is None:
            self._listening = listen(self._settings.dsn)
        for _ in self._listening.notifies(timeout=self._settings.poll_seconds, stop_after=1):
            pass

    def _close_listening(self) -> None:
        if self._listening is not None:
            self._listening.close()
            self._listening = None

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stop.set()
