"""What a worker's parent process tells the database: that it is alive, that it stops, that its child was lost."""

from __future__ import annotations

import os
import socket
import threading
from uuid import UUID

from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import bootsteps
from celery.signals import task_failure
from sqlalchemy.exc import SQLAlchemyError

from db.engine import engine_of, make_engine, transaction
from db.errors import BakeoffError
from db.lease import end_message
from db.logs import get_logger
from db.settings import load_settings
from db.workers import beat, remove_worker
from worker.role import WorkerRole

log = get_logger(__name__)

LOST = (WorkerLostError, TimeLimitExceeded)  # the child is gone: killed by the system, by itself, or at the hard limit


@task_failure.connect(weak=False)  # type: ignore[untyped-decorator] # celery has no types
def _end_the_lease_of_a_lost_child(task_id: str, exception: BaseException, **_: object) -> None:
    """End a lost message's lease at once, from a thread: the parent's event loop waits for nobody."""
    if isinstance(exception, LOST):
        threading.Thread(target=_end_lease, args=(UUID(task_id),), daemon=True).start()


def _end_lease(message: UUID) -> None:
    try:
        with transaction(engine_of(load_settings().dsn, "lost child")) as connection:
            ended = end_message(connection, message)
    except (BakeoffError, SQLAlchemyError) as error:  # then it runs out by itself
        log.warning(f"A lost child's lease could not be ended: {error}", action="lease_not_ended", message=str(message))
    else:
        log.warning("The child was lost", action="child_lost", message=str(message), candidates=ended)


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
