"""A thread that holds a lease while its batch is within its own deadline, and lets it go afterwards."""

from __future__ import annotations

import os
import threading
import time
from types import TracebackType
from typing import Self
from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from db.engine import transaction
from db.errors import BakeoffError
from db.lease import Leased, renew
from db.logs import get_logger

log = get_logger(__name__)


class Renewal:
    """Renews every quarter of a lease, until the deadline of the batch passes or the worker's parent is gone.

    A batch that hangs in C code may hold the interpreter or not: its lease ends either way, since either this
    thread cannot run or it sees the deadline.
    """

    def __init__(self, engine: Engine, leased: Leased, token: UUID, seconds: float) -> None:
        self._engine = engine
        self._leased = leased
        self._token = token
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._parent = os.getppid()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="renewal", daemon=True)

    def until(self, deadline: float) -> None:
        """Renew until this moment of the monotonic clock."""
        self._deadline = deadline

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stop.wait(self._seconds / 4):
            if time.monotonic() > self._deadline:  # the next batch may move it
                log.warning("A batch is over its time: its lease ends", action="lease_dropped", token=str(self._token))
                continue
            if os.getppid() != self._parent:
                return
            try:
                with transaction(self._engine) as connection:
                    if renew(connection, self._leased, self._token, self._seconds) == 0:
                        log.warning("The lease is somebody else's", action="lease_lost", token=str(self._token))
                        return
            except (BakeoffError, SQLAlchemyError) as problem:
                log.warning(f"A lease could not be renewed: {problem}", action="renewal_failed")
