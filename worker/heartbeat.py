"""A worker's parent process says every few seconds that it is alive, and takes its name off the list when it stops."""

from __future__ import annotations

import os
import socket
import threading

from celery import bootsteps
from sqlalchemy.exc import SQLAlchemyError

from db.engine import make_engine, transaction
from db.errors import BakeoffError
from db.logs import get_logger
from db.settings import load_settings
from db.workers import beat, remove_worker
from worker.role import WorkerRole

log = get_logger(__name__)


class Heartbeat(bootsteps.StartStopStep):  # type: ignore[misc] # celery has no types
    """Writes the worker's row from a thread of the parent: a consumer that waits for Redis still beats."""

    requires = {"celery.worker.components:Pool"}  # noqa: RUF012 - celery's own hook

    def __init__(self, parent: object, **kwargs: object) -> None:
        super().__init__(parent, **kwargs)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, parent: object) -> None:  # noqa: ARG002 - celery's own hook
        """Beat until stopped."""
        role = WorkerRole.of_this_process()
        if role is not None:
            self._thread = threading.Thread(target=self._run, args=(role,), name="heartbeat", daemon=True)
            self._thread.start()

    def stop(self, parent: object) -> None:  # noqa: ARG002 - celery's own hook
        """Leave the list."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=3)

    terminate = stop

    def _run(self, role: WorkerRole) -> None:
        settings = load_settings()
        engine = make_engine(settings.dsn, application=f"{role.name} heartbeat", pool_size=1)
        host, pid = socket.gethostname(), os.getpid()
        while True:
            try:
                with transaction(engine) as connection:
                    beat(connection, name=role.name, host=host, pid=pid, queues=role.queues)
            except (BakeoffError, SQLAlchemyError) as error:
                log.warning(f"No heartbeat: {error}", action="heartbeat_missed", worker=role.name)
            if self._stop.wait(settings.heartbeat_seconds):
                break
        try:
            with transaction(engine) as connection:
                remove_worker(connection, role.name, pid)
        except (BakeoffError, SQLAlchemyError) as error:
            log.warning(f"Could not leave the list of workers: {error}", action="goodbye_failed", worker=role.name)
