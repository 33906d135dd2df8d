"""One listener per process for everybody who waits: a thread that a notice wakes, or a second, and that reads once.

A stream costs no thread and no connection. What a task's progress is, and which tasks ended, is read once a look for
all who wait for it, and handed to each. Polling alone finds the same: LISTEN only shortens the wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from db.engine import transaction
from db.errors import BakeoffError
from db.logs import get_logger
from db.states import TaskState
from db.watching import Ended, Place, end_of_row, ended_after, progress_of
from scheduler.waiting import Notices

if TYPE_CHECKING:
    from sqlalchemy import Engine

log = get_logger(__name__)

LOOK = 1.0  # seconds between two looks, notice or not
SHORTEST = 0.05  # seconds between two looks: notices that come together are one
PAGE = 500  # ended tasks of one look
MOST_KEPT = 2000  # events that a slow reader may be behind before it reads for itself again


class Watcher:
    """Somebody who waits, on the event loop. `None` among what it gets means: nothing came for a while."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, patient: bool = False) -> None:
        self._loop = loop
        self.patient = patient  # it waits on while the process stops
        self._there = asyncio.Event()
        self.kept: deque[Any] = deque()
        self.lost = False  # it was too slow, and something was thrown away
        self.closed = False

    def hand(self, values: list[Any]) -> None:
        """Give it something, from the hub's thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._take, values)

    def close(self) -> None:
        """The process stops."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._end)

    def _take(self, values: list[Any]) -> None:
        self.kept.extend(values)
        if len(self.kept) > MOST_KEPT:
            self.kept.clear()
            self.lost = True
        self._there.set()

    def _end(self) -> None:
        self.closed = True
        self._there.set()

    async def wait(self, seconds: float) -> bool:
        """Wait until there is something, or `seconds`; returns whether there is."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._there.wait(), seconds)
        self._there.clear()
        return bool(self.kept) or self.closed or self.lost


class Hub:
    """The listener of this process."""

    def __init__(self, dsn: str, engine: Engine) -> None:
        self._dsn = dsn
        self._engine = engine
        self._lock = threading.RLock()  # `close` is called by a signal, maybe while its own thread holds it
        self._tasks: dict[UUID, set[Watcher]] = {}
        self._seen: dict[UUID, dict[str, Any]] = {}
        self._feeds: set[Watcher] = set()
        self._place: Place | None = None  # up to where the feeds were told
        self._stop = threading.Event()
        self.stopping_at: float | None = None
        self._thread = threading.Thread(target=self._run, name="hub", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def close_streams(self) -> None:
        """The process is asked to stop: streams end, and their clients resume elsewhere; the patient wait on."""
        self.stopping_at = time.monotonic()
        with self._lock:
            watchers = [*self._feeds, *(one for some in self._tasks.values() for one in some)]
        for watcher in watchers:
            if not watcher.patient:
                watcher.close()

    def close(self) -> None:
        """End everything."""
        self.close_streams()
        self._stop.set()

    # --- for the endpoints

    async def progress(
        self, task: UUID, keep_alive: float, *, patient: bool = False
    ) -> AsyncGenerator[dict[str, Any] | None]:
        """Where a task stands, now and at every change, until it has ended; None where nothing came for a while.

        It ends when the process is asked to stop, unless `patient`: then whoever reads decides.
        """
        with self._watch(task, patient=patient) as watcher:
            last = await run_in_threadpool(self._read, task)
            if last is None:
                return
            yield last
            while not TaskState(last["status"]).final and not watcher.closed:
                if not await watcher.wait(keep_alive):
                    yield None
                if watcher.lost:
                    watcher.lost = False
                    watcher.kept.append(await run_in_threadpool(self._read, task) or last)
                while watcher.kept:
                    if (fresh := watcher.kept.popleft()) != last:
                        last = fresh
                        yield last

    async def now(self) -> Place:
        """The place that only tasks ending from now on come after."""
        return await run_in_threadpool(self._end_of_row)

    async def ended(self, at: Place, source: str | None, keep_alive: float) -> AsyncGenerator[Ended | None]:
        """Tasks that end after a place, in order, none left out and none twice."""
        with self._follow() as watcher:
            behind = True
            while not watcher.closed:
                if behind or watcher.lost:
                    watcher.lost = False
                    page = await run_in_threadpool(self._page, at, source)
                    behind = len(page) == PAGE
                elif await watcher.wait(keep_alive):
                    page = list(watcher.kept)
                    watcher.kept.clear()
                else:
                    page = []
                    yield None
                for one in page:
                    if one.place > at:
                        at = one.place
                        if source is None or one.source == source:
                            yield one

    def _read(self, task: UUID) -> dict[str, Any] | None:
        with transaction(self._engine) as connection:
            return progress_of(connection, [task]).get(task)

    def _end_of_row(self) -> Place:
        with transaction(self._engine) as connection:
            return end_of_row(connection)

    def _page(self, place: Place, source: str | None) -> list[Ended]:
        with transaction(self._engine) as connection:
            return ended_after(connection, place, PAGE, source)

    @contextlib.contextmanager
    def _watch(self, task: UUID, *, patient: bool) -> Iterator[Watcher]:
        watcher = Watcher(asyncio.get_running_loop(), patient=patient)
        with self._lock:
            self._tasks.setdefault(task, set()).add(watcher)
        watcher.closed = self.stopping_at is not None and not patient
        try:
            yield watcher
        finally:
            with self._lock:
                self._tasks[task].discard(watcher)
                if not self._tasks[task]:
                    del self._tasks[task]
                    self._seen.pop(task, None)

    @contextlib.contextmanager
    def _follow(self) -> Iterator[Watcher]:
        watcher = Watcher(asyncio.get_running_loop())
        with self._lock:
            self._feeds.add(watcher)
        watcher.closed = self.stopping_at is not None
        try:
            yield watcher
        finally:
            with self._lock:
                self._feeds.discard(watcher)

    # --- the thread

    def _run(self) -> None:
        with Notices(self._dsn) as notices:
            while not self._stop.is_set():
                try:
                    self._look()
                except (BakeoffError, SQLAlchemyError, psycopg.Error) as error:
                    log.warning(f"A look for those who wait failed: {error}", action="hub_failed")
                    self._stop.wait(LOOK)
                except Exception:
                    log.exception("A look for those who wait failed by a fault of ours", action="hub_fault")
                    self._stop.wait(LOOK)
                notices.doze(LOOK)
                self._stop.wait(SHORTEST)

    def _look(self) -> None:
        with self._lock:
            tasks, followed = list(self._tasks), bool(self._feeds)
        if tasks:
            with transaction(self._engine) as connection:
                found = progress_of(connection, tasks)
            self._tell_of_tasks(found)
        if followed:
            self._tell_of_ends()
        else:
            self._place = None

    def _tell_of_ends(self) -> None:
        """Hand on what ended since the last look.

        To all who follow after it is read: one who joins later reads later, for itself. At the first look there is
        nothing to hand on, and everybody reads once more.
        """
        first = self._place is None
        page: list[Ended] = []
        with transaction(self._engine) as connection:
            if self._place is None:
                self._place = end_of_row(connection)
            else:
                page = ended_after(connection, self._place, PAGE)
        if page:
            self._place = page[-1].place
        with self._lock:
            for watcher in self._feeds if first or page else ():
                watcher.lost |= first
                watcher.hand(page)

    def _tell_of_tasks(self, found: dict[UUID, dict[str, Any]]) -> None:
        with self._lock:
            for task, progress in found.items():
                if task in self._tasks and self._seen.get(task) != progress:
                    self._seen[task] = progress
                    for watcher in self._tasks[task]:
                        watcher.hand([progress])
