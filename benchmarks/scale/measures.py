"""One turn on one database: what submitting, asking, paging, sending and reconciling cost right now."""

from __future__ import annotations

import gc
import statistics
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import psutil
import psycopg
from sqlalchemy import Connection, text

from benchmarks.harness import percentile
from benchmarks.scale import clients, fill
from benchmarks.scale.plans import EXPLAINED, scanned_tables
from benchmarks.scale.registry import NoBroker, everybody_is_ready
from db.engine import connect, engine_of, make_engine, transaction
from db.flight import look
from db.logs import configure_logging
from db.queries import latest_results
from scheduler.dispatch import Dispatcher
from scheduler.loop import PLANNED_AT_ONCE
from scheduler.planning import plan_pending
from scheduler.reconcile import Reconciler
from scheduler.submit import NewTask, submit, submit_many

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from benchmarks.harness import Figures
    from db.settings import Settings

REQUEST = ("How does a queue behave when it holds a million tasks? " * 4)[:200]
SOURCE = "source 0"  # whose backlog is the longest
PATIENCE = 3.0  # seconds


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """How often everything is done in one turn."""

    submitted: int = 720
    together: int = 240  # tasks of one call
    singles: int = 48
    polls: int = 400
    pages: int = 40
    page: int = 100  # rows
    looks: int = 3  # of the scheduler, each plans 256 tasks and sends 256 subtasks
    passes: int = 3  # of the reconciler


WARM_UP = Amounts(submitted=240, singles=16, polls=100, pages=10, looks=1, passes=1)


class Bench:
    """A client, and a scheduler's planning, sending and reconciling, on one database."""

    def __init__(self, settings: Settings) -> None:
        configure_logging("error", "json")
        self._settings = settings
        self._amounts = WARM_UP
        self._engine = make_engine(settings.dsn, application="scale", pool_size=2)
        self._broker = NoBroker(settings)
        self._dispatcher = Dispatcher(settings, self._engine, self._broker)
        with transaction(self._engine) as connection:
            everybody_is_ready(connection, settings)
            self._places = _some_places(connection, Amounts().polls)

    def run(self, amounts: Amounts) -> Figures:
        """Every figure once. What was submitted is finished in the end, so the next turn finds the same."""
        self._amounts = amounts
        gc.collect()
        figures = {
            "submit_per_s": self._submit_per_s(),
            "submit_one_ms": self._submit_one_ms(),
            "poll_p99_ms": self._poll_p99_ms(),
            "page_p99_ms": self._page_p99_ms(),
            "dispatch_per_s": self._dispatch_per_s(),
            "reconcile_ms": self._reconcile_ms(),
        }
        with self._admin() as connection:
            fill.finish_running(connection)
        self._broker.forget()
        gc.collect()
        return {**figures, "scheduler_rss_mb": psutil.Process().memory_info().rss / 1e6}

    def scanning_plans(self) -> list[str]:
        """Prepared statements whose plan for any values, which Postgres keeps, has a sequential scan: "table: SQL"."""
        found = []
        for engine in (self._engine, *(engine_of(self._settings.dsn, name) for name in ("submit", "client"))):
            with engine.connect() as connection:
                raw = connection.connection.driver_connection
                found += _scanning_plans(raw) if raw is not None else []
        return found

    def _submit_per_s(self) -> float:
        """Tasks per second in calls of `together`, by the median call."""
        amounts = self._amounts
        tasks = [NewTask(request=REQUEST, source=SOURCE)] * amounts.together
        calls = [partial(submit_many, self._settings, tasks)] * (amounts.submitted // amounts.together)
        return 1000 * amounts.together / statistics.median(_milliseconds(calls))

    def _submit_one_ms(self) -> float:
        call = partial(submit, self._settings, NewTask(request=REQUEST, source=SOURCE))
        return statistics.median(_milliseconds([call] * self._amounts.singles))

    def _poll_p99_ms(self) -> float:
        places = self._places[: self._amounts.polls]
        with engine_of(self._settings.dsn, "client").connect() as connection:
            return percentile(_milliseconds(partial(clients.poll, connection, task) for _, task in places), 0.99)

    def _page_p99_ms(self) -> float:
        """Both ways to read on: what finished after a place, and what is older than a task."""
        size = self._amounts.page
        with engine_of(self._settings.dsn, "client").connect() as connection:
            reads: list[Callable[[], object]] = []
            for place in self._places[: self._amounts.pages]:
                reads.append(partial(clients.page_by_time, connection, place, size))
                reads.append(partial(latest_results, connection, limit=size, before=place[1]))
            return percentile(_milliseconds(reads), 0.99)

    def _dispatch_per_s(self) -> float:
        """Subtasks per second, planned and sent, by the median look; the seconds of planning and sending count."""
        rates = []
        for number in range(self._amounts.looks):
            if number:
                with self._admin() as connection:
                    fill.finish_running(connection)  # there is room again
            started = time.perf_counter()
            with transaction(self._engine) as connection:
                plan_pending(connection, self._settings, PLANNED_AT_ONCE)
                todo = look(connection)
            self._dispatcher.send_waiting(todo)
            sent = self._dispatcher.dispatch(todo)
            rates.append(sent / (time.perf_counter() - started))
        return statistics.median(rates)

    def _reconcile_ms(self) -> float:
        """One pass with full windows. Each is the first of its reconciler, so it sweeps, too."""
        passes = [Reconciler(self._settings, self._engine, self._broker) for _ in range(self._amounts.passes)]
        return statistics.median(_milliseconds(reconciler.reconcile for reconciler in passes))

    def _admin(self) -> psycopg.Connection[tuple[object, ...]]:
        return connect(self._settings.dsn, "scale")


def _milliseconds(calls: Iterable[Callable[[], object]]) -> list[float]:
    """How long each call takes. Where they are slow, of so many as `PATIENCE` allows."""
    times = []
    give_up = time.perf_counter() + PATIENCE
    for call in calls:
        started = time.perf_counter()
        call()
        ended = time.perf_counter()
        times.append(1000 * (ended - started))
        if ended > give_up:
            break
    return times


def _some_places(connection: Connection, count: int) -> list[clients.Place]:
    """So many finished tasks, from all over the table."""
    rows = connection.execute(
        text("SELECT finished_at, id FROM task WHERE finished_at IS NOT NULL ORDER BY md5(id::text) LIMIT :count"),
        {"count": count},
    )
    return [(row.finished_at, row.id) for row in rows]


def _scanning_plans(connection: psycopg.Connection) -> list[str]:
    found = []
    kept = connection.execute("SELECT statement FROM pg_prepared_statements WHERE generic_plans > 0").fetchall()
    for (statement,) in kept:
        if EXPLAINED.match(statement):
            rows = connection.execute(f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {statement}").fetchall()
            found += [f"{table}: {' '.join(statement.split())}" for table in scanned_tables(rows[0][0][0]["Plan"])]
    return found
