"""A thread that holds a lease while its batch is within its own deadline, and ends the process of one that is not."""

from __future__ import annotations

import os
import signal
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

OVERRUN_GRACE = 5.0  # seconds after its deadline that a batch may still end by itself


class Renewal:
    """Renews every quarter of a lease until the deadline of the batch passes; kills the process soon after it.

    Nothing else frees a process whose batch hangs: the parent sees a lost child, ends the lease and starts a fresh
    one. A batch that hangs in C code with the interpreter's lock stops this thread, too; it is ended by the message's
    hard limit, and its lease by itself.
    """

    def __init__(self, engine: Engine, leased: Leased, token: UUID, seconds: float) -> None:
        self._engine = engine
        self._leased = leased
        self._token = token
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._ours = True
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
        quarter = self._seconds / 4
        due = time.monotonic() + quarter
        while not self._stop.wait(min(1.0, quarter)):
            now = time.monotonic()
            if now > self._deadline + OVERRUN_GRACE:
                self._end_process()
            elif self._ours and due <= now <= self._deadline:
                self._renew()
                due = now + quarter

    def _renew(self) -> None:
        try:
            with transaction(self._engine) as connection:
                if renew(connection, self._leased, self._token, self._seconds) == 0:
                    self._ours = False
                    log.warning("The lease is somebody else's", action="lease_lost", token=str(self._token))
        except (BakeoffError, SQLAlchemyError) as problem:
            log.warning(f"A lease could not be renewed: {problem}", action="renewal_failed")

    def _end_process(self) -> None:
        if self._stop.is_set():
            return
        log.error(
            "A batch is over its time: its process ends, a fresh one starts",
            action="batch_overrun",
            token=str(self._token),
        )
        os.kill(os.getpid(), signal.SIGKILL)
