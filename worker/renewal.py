"""A thread that holds leases while their batches are within their own deadlines, and ends the process of one that is
not.

Nothing else frees a process whose batch hangs: the parent sees a lost child, ends the lease and starts a fresh one. A
batch that hangs in C code with the interpreter's lock stops this thread, too; it is ended by the message's hard limit,
and its lease by itself.
"""

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
    """Renewed every quarter of a lease until the deadline of its batch passes; ends the process soon after that."""

    def __init__(self, engine: Engine, leased: Leased, token: UUID, seconds: float) -> None:
        self._engine = engine
        self._leased = leased
        self._token = token
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._due = time.monotonic() + seconds / 4
        self._ours = True

    def until(self, deadline: float) -> None:
        """Renew until this moment of the monotonic clock."""
        self._deadline = deadline

    def __enter__(self) -> Self:
        THREAD.watch(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        THREAD.forget(self)

    @property
    def pause(self) -> float:
        """Seconds between two looks at it, at most."""
        return self._seconds / 4

    def look(self) -> None:
        """Renew what is due; end the process where the batch is over its time."""
        now = time.monotonic()
        if now > self._deadline + OVERRUN_GRACE:
            self._end_process()
        elif self._ours and self._due <= now <= self._deadline:
            self._renew()
            self._due = now + self._seconds / 4

    def _renew(self) -> None:
        try:
            with transaction(self._engine) as connection:
                if renew(connection, self._leased, self._token, self._seconds) == 0:
                    self._ours = False
                    log.warning("The lease is somebody else's", action="lease_lost", token=str(self._token))
        except (BakeoffError, SQLAlchemyError) as problem:
            log.warning(f"A lease could not be renewed: {problem}", action="renewal_failed")

    def _end_process(self) -> None:
        if not THREAD.watches(self):
            return
        log.error(
            "A batch is over its time: its process ends, a fresh one starts",
            action="batch_overrun",
            token=str(self._token),
        )
        os.kill(os.getpid(), signal.SIGKILL)


class _Thread:
    """One thread of the process looks at every renewal: a message is over before a thread of its own has started."""

    def __init__(self) -> None:
        self._watched: set[Renewal] = set()
        self._pause = 1.0  # seconds between two looks
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def watch(self, renewal: Renewal) -> None:
        """Look at it from now on."""
        with self._lock:
            self._watched.add(renewal)
            self._pause = min(self._pause, renewal.pause)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="renewal", daemon=True)
                self._thread.start()

    def forget(self, renewal: Renewal) -> None:
        """Look at it no more; a renewal under way may still end, and finds nothing."""
        with self._lock:
            self._watched.discard(renewal)

    def watches(self, renewal: Renewal) -> bool:
        """Whether its batch is still under way."""
        return renewal in self._watched

    def _run(self) -> None:
        while True:
            time.sleep(self._pause)
            with self._lock:
                watched = list(self._watched)
            for renewal in watched:
                try:
                    renewal.look()
                except Exception:  # this thread holds every lease of the process
                    log.exception("A lease could not be looked after", action="renewal_failed")


THREAD = _Thread()
