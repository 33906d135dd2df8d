"""What the parent watches: that its child lives, what memory it takes, and that messages which wait are started."""

from __future__ import annotations

import os
import threading
import time
from abc import abstractmethod
from typing import Any
from uuid import UUID

import psutil
import redis
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import bootsteps
from celery.signals import task_failure
from celery.worker import state as requests
from sqlalchemy.exc import SQLAlchemyError

from db.engine import engine_of, transaction
from db.errors import BakeoffError
from db.lease import end_message
from db.logs import get_logger
from db.settings import Settings, load_settings
from db.states import WorkerState
from db.workers import live_workers
from worker.role import WorkerRole
from worker.stopping import end_process

log = get_logger(__name__)

MEGABYTE = 1024 * 1024
LEAST_LIMIT = 512 * MEGABYTE  # an interpreter with torch in it is no runaway
MEMORY_LOOK = 0.2  # seconds; a loop that allocates takes 1 to 2 GB per second
STALLED = 75  # exit code: try again


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


class Watch(bootsteps.StartStopStep):  # type: ignore[misc] # celery has no types
    """A daemon thread beside Celery's loop, for as long as the process lives."""

    abstract = True
    requires = {"celery.worker.components:Pool"}  # noqa: RUF012 - celery's own hook

    def start(self, parent: Any) -> None:
        """Begin to look."""
        role = WorkerRole.of_this_process()
        if role is not None:
            name = type(self).__name__
            threading.Thread(target=self.watch, args=(parent, role, load_settings()), name=name, daemon=True).start()

    @abstractmethod
    def watch(self, parent: Any, role: WorkerRole, settings: Settings) -> None:
        """Look until the process ends."""


class MemoryWatch(Watch):
    """Kills a child that takes far more memory than its models need, before the kernel kills somebody else."""

    def watch(self, parent: Any, role: WorkerRole, settings: Settings) -> None:
        limit = memory_limit(settings, role)
        while True:
            time.sleep(MEMORY_LOOK)
            for process in children(parent.pool):
                _kill_above(process, limit)


def memory_limit(settings: Settings, role: WorkerRole) -> int:
    """Bytes that a worker's child may hold: a multiple of what the registry says of all models that it loads."""
    registry = settings.registry
    wanted = sum(registry.model(name).memory_mb for name in role.held(registry)) * MEGABYTE
    return max(LEAST_LIMIT, int(settings.memory_factor * wanted))


def children(pool: Any) -> list[int]:
    """Process ids of the pool; none where it runs threads."""
    inner = getattr(pool, "_pool", None)
    return [process.pid for process in list(getattr(inner, "_pool", ())) if process.pid]


def _kill_above(pid: int, limit: int) -> None:
    try:
        process = psutil.Process(pid)
        used = process.memory_info().rss
        if used > limit:
            log.error(
                f"The model process holds {used // MEGABYTE} MB, over its limit of {limit // MEGABYTE} MB: it is "
                "killed; see memory_mb in the registry and BAKEOFF_MEMORY_FACTOR",
                action="memory_exceeded",
                pid=pid,
                used_mb=used // MEGABYTE,
                limit_mb=limit // MEGABYTE,
            )
            process.kill()
    except psutil.NoSuchProcess:
        return


class StallWatch(Watch):
    """Ends a worker that takes nothing although its queue holds messages, so that its supervisor starts it again."""

    def watch(self, parent: Any, role: WorkerRole, settings: Settings) -> None:  # noqa: ARG002 - of the base class
        timeout = settings.publish_timeout
        client = redis.Redis.from_url(settings.broker, socket_timeout=timeout, socket_connect_timeout=timeout)
        stall = Stall(settings.stall_seconds)
        while True:
            time.sleep(min(10.0, max(0.2, settings.stall_seconds / 10)))
            idle = not requests.active_requests
            started = requests.all_total_count[0]
            waiting = idle and _waiting(client, role.queues) and _ready(settings, role)
            if stall.after(time.monotonic(), started=started, could_start=waiting):
                log.critical(
                    f"Messages wait, and {role.name} has started none for {settings.stall_seconds:g} s: it ends",
                    action="worker_stalled",
                    worker=role.name,
                )
                end_process(STALLED)


class Stall:
    """Whether a worker has started nothing for `seconds` although it could have at every look."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None
        self._started = -1

    def after(self, now: float, *, started: int, could_start: bool) -> bool:
        """Take one look into account: how many messages were ever started, and whether one could be right now."""
        if not could_start:
            self._since = None
        elif self._since is None or started != self._started:
            self._since = now
        self._started = started
        return self._since is not None and now - self._since >= self._seconds


def _waiting(client: redis.Redis, queues: list[str]) -> bool:
    """Whether messages wait. A Redis that does not answer holds none that could be started."""
    try:
        return any(client.llen(queue) for queue in queues)
    except redis.RedisError:
        return False


def _ready(settings: Settings, role: WorkerRole) -> bool:
    try:
        with transaction(engine_of(settings.dsn, "watch")) as connection:
            workers = live_workers(connection, settings.worker_timeout)
    except (BakeoffError, SQLAlchemyError):
        return False
    mine = (role.name, os.getpid(), WorkerState.READY)
    return any((worker.name, worker.pid, worker.status) == mine for worker in workers)
