"""The world of the state machine: transactions that stay open, a broker that loses messages, workers and judges.

Nothing here decides anything: a rule of the machine says what happens next, `World.act` makes it happen in one
transaction, now or left open beside others. What a process learns, it learns at the commit.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import OperationalError

from db.candidates import Message
from db.engine import make_engine
from db.errors import BakeoffError, Unreachable
from db.registry import ModelEntry
from db.settings import Settings
from db.states import WorkerState
from db.verdicts import JudgeMessage, ToJudge
from db.workers import beat, set_worker_state, sync_registry
from worker.role import JUDGE_QUEUE

MODELS = ("alpha", "beta", "gamma", "delta", "epsilon")
JUDGES = ("longest", "strict")
CACHING = ("alpha", "beta")  # whose outputs for the first step of equal requests are not computed twice
REVISION = "1"
LEASE = 60.0
LOCK_TIMEOUT = "100ms"  # who waits longer for a row has failed, and its transaction with it
MOST_OPEN = 3

REGISTRY = """
[profiles.demo]
models = ["alpha", "beta", "gamma", "delta", "epsilon"]

[capabilities.text-generation]
input = "text"
instruction = "Answer the request."
judge = "longest"

[judges.longest]
method = "scripted"

[judges.strict]
method = "scripted"
""" + "".join(
    f'\n[models.{name}]\ncapability = "text-generation"\nbackend = "scripted"\n'
    f"priority = {n}\nmax_batch = 3\nmax_attempts = {2 + n % 2}\n"
    for n, name in enumerate(MODELS)
)

Statement = Callable[[Connection], Any]
Then = Callable[[Any], None]


def _ignore(_: Any) -> None:
    """Nobody learns anything from it."""


def world_engine(dsn: str) -> Engine:
    """An engine whose statements give up soon where a row is locked, and find deadlocks at once."""
    engine = make_engine(dsn, application="world", pool_size=MOST_OPEN + 3)

    @event.listens_for(engine, "connect")
    def _patience(connection: Any, _: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
            cursor.execute("SELECT current_setting('is_superuser')")
            if cursor.fetchone()[0] == "on":
                cursor.execute("SET deadlock_timeout = '20ms'")
        connection.commit()

    return engine


class Opened:
    """A transaction that was begun and not ended yet. Its statement may wait for a lock that another one holds."""

    def __init__(self, engine: Engine, statement: Statement, then: Then) -> None:
        self.then = then
        self._connection = engine.connect()
        self._transaction = self._connection.begin()
        self._connection.execute(text("SET LOCAL lock_timeout = 0"))  # until the other one ends
        self.pid: int = self._connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        self._thread = ThreadPoolExecutor(1)
        self.result: Future[Any] = self._thread.submit(statement, self._connection)

    def commit(self) -> None:
        """Commit; what was learned is learned now."""
        said = self.result.result()
        self._transaction.commit()
        self._close()
        self.then(said)

    def roll_back(self) -> None:
        """The process died, or its connection did."""
        with contextlib.suppress(OperationalError, BakeoffError):
            self.result.result()
        self._transaction.rollback()
        self._close()

    def _close(self) -> None:
        self._connection.close()
        self._thread.shutdown()


@dataclass(frozen=True)
class Envelope:
    """A message as the broker holds it."""

    message: Message
    in_chord: bool


@dataclass
class Held:
    """What one worker claimed, and how far it came. Nobody tells it that its lease is gone."""

    token: UUID
    ids: list[UUID]
    message: UUID
    model: str
    in_chord: bool
    charged: list[UUID] = field(default_factory=list)
    stored: set[UUID] = field(default_factory=set)


@dataclass
class Judging:
    """What one judge claimed."""

    token: UUID
    message: UUID
    subtasks: list[ToJudge]
    charged: set[UUID] = field(default_factory=set)


class Broker:
    """A publisher whose messages arrive when the test says so: once, twice, late, never."""

    def __init__(self, settings: Settings) -> None:
        self._queue_of = settings.registry.queues
        self.down = False
        self.history: list[Envelope] = []
        self.calls: list[tuple[UUID, list[UUID]]] = []  # of judges: message, subtasks
        self.queues: dict[str, list[Any]] = {}

    def wipe(self) -> None:
        """Redis loses everything that waits in it."""
        self.queues.clear()

    def queue_lengths(self, queues: Sequence[str]) -> dict[str, int]:
        return {queue: len(self.queues.get(queue, ())) for queue in queues}

    def send_wave(self, messages: Sequence[Message], subtasks: Sequence[UUID], _: dict[str, ModelEntry]) -> None:
        self._reach()
        for message in messages:
            self.post(message, in_chord=True)
        self.calls.append((uuid4(), list(subtasks)))  # the callback comes when it comes

    def send_again(self, message: Message, _: ModelEntry) -> None:
        self._reach()
        self.post(message, in_chord=False)

    def send_judging(self, message: JudgeMessage) -> None:
        self._reach()
        call = (message.id, message.subtask_ids)
        self.calls.append(call)
        self.queues.setdefault(JUDGE_QUEUE, []).append(call)

    def post(self, message: Message, *, in_chord: bool) -> None:
        envelope = Envelope(message, in_chord)
        self.history.append(envelope)
        self.queues.setdefault(self._queue_of[message.model], []).append(envelope)

    def waiting(self) -> list[Any]:
        """What is on the queues, of workers and judges."""
        return [letter for letters in self.queues.values() for letter in letters]

    def taken(self, letter: Any) -> None:
        """A worker took it: it waits no more, if it still did."""
        for waiting in self.queues.values():
            if letter in waiting:
                waiting.remove(letter)

    def _reach(self) -> None:
        if self.down:
            raise Unreachable("Redis is away.")


class World:
    """One example: an empty database, and everybody who works on it."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.engine = engine
        self.settings = settings
        self.broker = Broker(settings)
        self.opened: list[Opened] = []
        self.held: list[Held] = []
        self.judging: list[Judging] = []
        self.tasks: list[UUID] = []
        self.outputs: dict[UUID, str] = {}  # what the database said it stored
        self.finals: dict[tuple[str, UUID], dict[str, Any]] = {}  # as they were when first seen final
        self.entries: dict[UUID, int] = {}  # of a candidate into its model
        self.open_ids: set[str] = set()  # of rows that were not final at the last look
        self.raced = False  # transactions overlapped since strays were last ended
        self.numbers: Iterator[int] = count(1)
        with engine.begin() as connection:
            connection.execute(text("TRUNCATE task, model, judge, worker CASCADE"))
            sync_registry(connection, settings.registry)
        self.start_workers()

    def start_workers(self) -> None:
        """Every model and the judges have a ready worker."""
        with self.engine.begin() as connection:
            for name in (*MODELS, "judge"):
                queue = self.settings.registry.queues.get(name, JUDGE_QUEUE)
                beat(connection, name=name, host="here", pid=1, queues=[queue])
                set_worker_state(connection, name, WorkerState.READY)

    def act(self, statement: Statement, then: Then = _ignore, *, stay_open: bool = False) -> None:
        """One transaction of somebody: committed at once, or left open where there is room for that.

        A lock that cannot be had and a deadlock are that somebody's failure; so is an error of ours that says what
        the caller did wrong. Anything else is a bug.
        """
        if stay_open and len(self.opened) < MOST_OPEN:
            self.raced = True
            self.opened.append(Opened(self.engine, statement, then))
            self.settle()
            return
        try:
            with self.engine.begin() as connection:
                result = statement(connection)
        except (OperationalError, BakeoffError):
            return
        finally:
            self.settle()
        then(result)

    def attempt(self, step: Callable[[], Any]) -> None:
        """Something that makes its own transactions; it fails where `act` would."""
        with contextlib.suppress(OperationalError, BakeoffError):
            step()
        self.settle()

    def end(self, opened: Opened, *, commit: bool) -> None:
        """End an open transaction. One that waits for a lock cannot be committed, only killed."""
        done = opened.result.done()
        if commit and not done:
            return
        self.opened.remove(opened)
        if commit:
            opened.commit()
        else:
            if not done:
                with self.engine.begin() as connection:
                    connection.execute(text("SELECT pg_cancel_backend(:pid)"), {"pid": opened.pid})
            opened.roll_back()
        self.settle()

    def settle(self) -> None:
        """Wait until every open statement is done or waits for a lock; those that failed are rolled back."""
        for opened in list(self.opened):
            limit = time.monotonic() + 20
            while not opened.result.done() and not self._waits_for_a_lock(opened.pid):
                assert time.monotonic() < limit, "a statement neither ends nor waits for a lock"
                time.sleep(0.001)
            if opened.result.done() and (problem := opened.result.exception()) is not None:
                self.opened.remove(opened)
                opened.roll_back()
                assert isinstance(problem, OperationalError | BakeoffError), problem
                self.settle()  # those that waited for it
                return

    def _waits_for_a_lock(self, pid: int) -> bool:
        with self.engine.begin() as connection:
            return bool(
                connection.execute(text("SELECT cardinality(pg_blocking_pids(:pid))"), {"pid": pid}).scalar_one()
            )

    def pass_time(self, seconds: float) -> None:
        """`seconds` pass: every time of what is not final moves into the past. Rows that are locked stay behind."""
        row_times = ("created_at", "lease_until", "not_before", "sent_at")
        with self.engine.begin() as connection:
            for table, times, which in (
                ("task", (*row_times, "deadline", "run_at"), "finished_at IS NULL"),
                ("subtask", (*row_times, "deadline"), "finished_at IS NULL"),
                ("candidate", (*row_times, "finished_at"), UNDECIDED),
                ("model", ("probe_after", "suspended_at"), "true"),
                ("judge", ("probe_after", "suspended_at"), "true"),
            ):
                key = "name" if table in {"model", "judge"} else "id"
                moved = ", ".join(f"{name} = {name} - make_interval(secs => :seconds)" for name in times)
                connection.execute(
                    text(
                        f"UPDATE {table} SET {moved} WHERE {key} IN "
                        f"(SELECT {key} FROM {table} WHERE {which} FOR UPDATE SKIP LOCKED)"
                    ),
                    {"seconds": seconds},
                )


UNDECIDED = "EXISTS (SELECT FROM subtask AS s WHERE s.id = candidate.subtask_id AND s.finished_at IS NULL)"
