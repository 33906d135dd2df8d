"""Stages that ask models: a task per question about a record, a bounded number of records open at once.

A record goes from new (nothing done) to asked (its tasks are stored) to scored (they ended and were read). A task's key
is stage, position and turn: whoever is killed between storing tasks and noting it stores nothing twice.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from db.curation_records import (
    Dropped,
    Scored,
    any_came_through,
    ask_again,
    count_asked,
    count_at,
    drop,
    mark_asked,
    mark_scored,
    page_of,
    pass_scored,
)
from db.curation_tasks import ended_by_key, outcomes_of
from db.errors import BacklogFull, BakeoffError
from db.logs import get_logger
from db.schema.curation import Step
from db.states import TaskState
from db.workers import live_queues, live_workers
from scheduler.curation.stages import O, Stage
from scheduler.replacing import availability
from scheduler.submit import NewTask, submit_many
from scheduler.waiting import POLL_SECONDS, Notices

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import Connection

    from db.curation_records import Record
    from db.curation_tasks import Outcome
    from db.settings import Settings
    from scheduler.curation.run import Run

log = get_logger(__name__)

MOST_AGAIN = 5  # repetitions of a task whose models were not all there
PAGE = 250  # records whose tasks are stored, or read, together


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One question about a record; `turn` tells it from the record's others."""

    turn: int
    request: str
    capability: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def wants(self) -> int:
        """How many models must have been asked."""
        named = len(set(self.options.get("models", ()))) or 1
        return min(named, self.options.get("candidates") or named)


def of_one(models: Sequence[str]) -> dict[str, Any]:
    """Options of a task that one model answers: the one that a recipe names, or any that can."""
    return {"candidates": 1, "models": list(models)} if models else {"candidates": 1}


class Asking(Stage[O]):
    """Asks, reads what came, and lets pass or drops when everything is there."""

    @abstractmethod
    def asks(self, record: Record) -> list[Ask]:
        """The questions about a record; none where nothing is to be asked."""

    @abstractmethod
    def settle(self, record: Record, outcomes: Sequence[Outcome]) -> Scored | Dropped:
        """What the outcomes, in the order of `asks`, come to."""

    def close(self, run: Run) -> None:
        """Every record is scored: let them pass, all by default."""
        with run.changing() as connection:
            pass_scored(connection, run.job.id, self.number)

    def prepare(self) -> None:
        """Check what the stage needs. Raises `UsageError`."""

    def run(self, run: Run) -> None:
        """Ask about every record that stands before the stage. Raises `BakeoffError` where every task failed."""
        self.names = run.recipe.input
        self.prepare()
        with run.changing() as connection:
            ask_again(connection, run.job.id, self.number)
            left = count_at(connection, run.job.id, self.number).get(Step.NEW, 0)
        if left:
            self._warn_where_nobody_serves(run)
            self._ask_all(run, left)
        self.close(run)

    def _ask_all(self, run: Run, left: int) -> None:
        total, failed, done = left, 0, 0
        with Notices(run.settings.dsn) as notices:
            while True:
                with run.reading() as connection:
                    asked = count_asked(connection, run.job.id, self.number)
                if not left and not asked:
                    return
                room = min(PAGE, run.recipe.in_flight - asked)
                sent = self._send(run, room) if left and room > 0 else 0
                left -= sent
                read, lost = self._read_ended(run)
                done, failed = done + read, failed + lost
                if failed == done and failed >= min(total, 20) and not self._any_came_through(run):
                    raise BakeoffError(
                        f"Stage {self.name}: the tasks of all {failed} records so far failed; see `bakeoff results "
                        f"--source {run.job.source}` and mend what they say, then give the job another name."
                    )
                run.progress(self.name, done, total)
                if not sent and not read:
                    with run.changing():  # which holds the lease while we wait
                        pass
                    notices.doze(POLL_SECONDS)

    def _any_came_through(self, run: Run) -> bool:
        """Whether this run or one before it got a result for any record."""
        with run.reading() as connection:
            return any_came_through(connection, run.job.id, self.number)

    def _send(self, run: Run, room: int) -> int:
        """Store the tasks of the next records; those that nothing is asked about are settled at once.

        Where the backlog has no room for all of them, of as many as it has: the others' turn comes when some ended.
        """
        with run.reading() as connection:
            page = page_of(connection, run.job.id, self.number, Step.NEW, room)
        asks = {record.position: self.asks(record) for record in page}
        unfit = [one for place, own in asks.items() if (one := _unfit(place, own, run.settings)) is not None]
        for one in unfit:
            del asks[one.position]
        page = [record for record in page if record.position in asks]
        while page:
            own = ((record.position, ask) for record in page for ask in asks[record.position])
            try:
                self._submit(run, [self._task(run, self.key(place, ask.turn), ask) for place, ask in own])
            except BacklogFull:
                page = page[: len(page) // 2]
            else:
                break
        silent = [record for record in page if not asks[record.position]]
        with run.changing() as connection:
            self._store(run, connection, [*unfit, *(self.settle(record, []) for record in silent)])
            asked_now = [record.position for record in page if asks[record.position]]
            mark_asked(connection, run.job.id, self.number, asked_now)
        return len(page) + len(unfit)

    def _submit(self, run: Run, tasks: Sequence[NewTask]) -> None:
        """Store tasks, as many in one call as may be. Raises `BacklogFull`; those that are stored are no obstacle."""
        size = min(run.settings.max_bulk, run.settings.max_backlog)
        for start in range(0, len(tasks), size):
            submit_many(run.settings, tasks[start : start + size])

    def _read_ended(self, run: Run) -> tuple[int, int]:
        """Read the records whose tasks have all ended: how many there were, and how many of them came to nothing."""
        read = lost = 0
        after = -1
        while True:
            with run.reading() as connection:
                page = page_of(connection, run.job.id, self.number, Step.ASKED, PAGE, after)
                if not page:
                    return read, lost
                after = page[-1].position
                ended, gone = self._ended(run, connection, page)
                free = availability(connection, run.settings).free if ended else frozenset()
            again = [self._again(run, record, found, free) for record, found in ended]
            with suppress(BacklogFull):  # what finds no room now is looked at again
                self._submit(run, [*gone, *(task for tasks in again for task in tasks or ())])
            ready = [one for one, tasks in zip(ended, again, strict=True) if tasks is None]
            settled = [self.settle(record, [outcome for _, outcome in found]) for record, found in ready]
            if ready:
                with run.changing() as connection:
                    self._store(run, connection, settled)
            read += len(ready)
            lost += sum(not any(outcome.said for _, outcome in found) for _, found in ready)

    def _ended(
        self, run: Run, connection: Connection, page: Sequence[Record]
    ) -> tuple[list[tuple[Record, list[tuple[str, Outcome]]]], list[NewTask]]:
        """The records of a page whose latest tasks all ended, with key and outcome of each.

        And the tasks of the page that are not there: they were pruned before they were read, and are asked anew.
        """
        asks = {
            record.position: {self.key(record.position, ask.turn): ask for ask in self.asks(record)} for record in page
        }
        latest = latest_of(connection, run.job.source, [base for own in asks.values() for base in own])
        gone = [self._task(run, base, ask) for own in asks.values() for base, ask in own.items() if base not in latest]
        ready = [record for record in page if all(latest.get(base, ("", False))[1] for base in asks[record.position])]
        keys = {record.position: [latest[base][0] for base in asks[record.position]] for record in ready}
        outcomes = outcomes_of(connection, run.job.source, [key for own in keys.values() for key in own])
        ended = [
            (record, [(key, outcomes[key]) for key in keys[record.position]])
            for record in ready
            if all(key in outcomes for key in keys[record.position])  # nobody pruned them since
        ]
        return ended, gone

    def _again(
        self, run: Run, record: Record, found: Sequence[tuple[str, Outcome]], free: Collection[str]
    ) -> list[NewTask] | None:
        """Tasks in the place of those that did not ask everybody: a model was away or paused, and nobody chose it.

        None where nothing is to be repeated; no task while somebody is still away. What a model said before is answered
        from the stored outputs where it caches.
        """
        asks = zip(self.asks(record), found, strict=True)
        short = [
            (ask, key)
            for ask, (key, outcome) in asks
            if outcome.asked < ask.wants and _number(key) < MOST_AGAIN and outcome.status != TaskState.CANCELLED
        ]
        if not short:
            return None
        if not all(self._served(run, ask, free) for ask, _ in short):
            return []
        return [self._task(run, f"{self.key(record.position, ask.turn)}/{_number(key) + 1}", ask) for ask, key in short]

    def _served(self, run: Run, ask: Ask, free: Collection[str]) -> bool:
        """Whether everybody who is named can be asked now; where nobody is, whether anybody can."""
        if named := ask.options.get("models", ()):
            return all(name in free for name in named)
        return any(model.name in free for model in run.settings.registry.candidates_for(ask.capability))

    def _store(self, run: Run, connection: Any, settled: Sequence[Scored | Dropped]) -> None:
        drop(connection, run.job.id, self.number, [one for one in settled if isinstance(one, Dropped)])
        scored = [one for one in settled if isinstance(one, Scored)]
        mark_scored(connection, run.job.id, self.number, self.name, scored)

    def key(self, position: int, turn: int) -> str:
        """The key of a record's first task about a turn."""
        return f"{self.name}/{position}/{turn}"

    def _task(self, run: Run, key: str, ask: Ask) -> NewTask:
        return NewTask(
            request=ask.request,
            capability=ask.capability,
            source=run.job.source,
            options=ask.options,
            idempotency_key=key,
        )

    def _warn_where_nobody_serves(self, run: Run) -> None:
        """Tasks wait for a worker; whoever looks at the log should know which."""
        with run.reading() as connection:
            page = page_of(connection, run.job.id, self.number, Step.NEW, 1)
            live = live_queues(live_workers(connection, run.settings.worker_timeout))
        for ask in self.asks(page[0])[:1] if page else []:
            named = ask.options.get("models") or [m.name for m in run.settings.registry.candidates_for(ask.capability)]
            missing = [name for name in named if run.settings.registry.model(name).queue not in live]
            if missing:
                log.warning(
                    f"{self.name} waits for a worker: `bakeoff worker {' '.join(missing)}`",
                    action="curation_waits",
                    job=run.job.name,
                )


def latest_of(connection: Connection, source: str, bases: Sequence[str]) -> dict[str, tuple[str, bool]]:
    """Of each of these keys that has a task: the key of its latest one, and whether that ended."""
    variants = {f"{base}/{number}" if number else base: base for base in bases for number in range(MOST_AGAIN + 1)}
    found: dict[str, tuple[str, bool]] = {}
    for key, ended in sorted(ended_by_key(connection, source, list(variants)).items(), key=lambda one: _number(one[0])):
        found[variants[key]] = (key, ended)
    return found


def _number(key: str) -> int:
    """Which repetition a key is of, 0 for the first task: `answers/17/0` and `answers/17/0/2`."""
    parts = key.split("/")
    return int(parts[3]) if len(parts) > 3 else 0


def _unfit(position: int, asks: Sequence[Ask], settings: Settings) -> Dropped | None:
    """A record about which no task can be stored: one record must not stop all others."""
    for ask in asks:
        size = len(json.dumps(ask.options))
        if not ask.request.strip():
            return Dropped(position=position, rule="unfit", reason=f"Turn {ask.turn + 1} asks nothing.")
        if len(ask.request) > settings.max_request_chars or size > settings.max_options_bytes:
            reason = (
                f"Turn {ask.turn + 1} makes a request of {len(ask.request)} characters with {size} bytes of options, "
                "which is more than BAKEOFF_MAX_REQUEST_CHARS or BAKEOFF_MAX_OPTIONS_BYTES allows."
            )
            return Dropped(position=position, rule="unfit", reason=reason)
    return None


def failed(record: Record, outcome: Outcome, what: str) -> Dropped:
    """A record whose task has no result is dropped, with the task's own words."""
    why = outcome.error or f"its task is {outcome.status}"
    return Dropped(position=record.position, rule="no_answer", reason=f"No {what}: {why}")
