"""What a worker's parent process tells the database: that it is alive, and that it leaves."""

from __future__ import annotations

import os
import socket
import threading

from sqlalchemy.exc import SQLAlchemyError

from db.engine import make_engine, transaction
from db.errors import BakeoffError
from db.logs import get_logger
from db.settings import load_settings
from db.workers import beat, remove_worker
from worker.role import WorkerRole

log = get_logger(__name__)


class Heart:
    """Writes the worker's row from a thread of the parent, from the first moment to the last.

    A consumer that waits for Redis still beats, and so does one that finishes its batch after SIGTERM.
    """

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, role: WorkerRole) -> None:
        """Beat until `leave`."""
        self._thread = threading.Thread(target=self._run, args=(role,), name="heartbeat", daemon=True)
        self._thread.start()

    def leave(self, patience: float = 3.0) -> None:
        """Leave the list of workers. A Postgres that is away is not waited for: the row grows old by itself."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(patience)

    def _run(self, role: WorkerRole) -> None:
        settings = load_settings()
        engine = make_engine(settings.dsn, application=f"{role.name} heartbeat", pool_size=1)
        host, pid = socket.gethostname(), os.getpid()
        while not self._stop.wait(settings.heartbeat_seconds):
            try:
                with transaction(engine) as connection:
                    beat(connection, name=role.name, host=host, pid=pid, queues=role.queues)
            except (BakeoffError, SQLAlchemyError) as error:
                log.warning(f"No heartbeat: {error}", action="heartbeat_missed", worker=role.name)
        try:
            with transaction(engine) as connection:
                remove_worker(connection, role.name, pid)
        except (BakeoffError, SQLAlchemyError) as error:
            log.warning(f"Could not leave the list of workers: {error}", action="goodbye_failed", worker=role.name)


#: The heart of this process.
HEART = Heart()
