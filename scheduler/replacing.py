"""Other models for subtasks whose own failed (back-fill), or cannot be had for too long (late binding)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection

from db.flight import models_with_work
from db.logs import get_logger
from db.registry import queue_of
from db.replacing import (
    Addition,
    Exhausted,
    Overdue,
    add_candidates,
    give_up,
    lock_exhausted,
    lock_overdue,
    take_back_unserved,
)
from db.settings import Settings
from db.states import ModelState
from db.verdicts import fail_exhausted
from db.workers import live_queues, live_workers, model_states
from scheduler.choosing import Chooser
from scheduler.dispatch import able_models
from scheduler.selectors import Chosen

log = get_logger(__name__)

LOOK = 256  # subtasks, or waiting candidates, per look
FIRST = UUID(int=0)


@dataclass(frozen=True, kw_only=True)
class Availability:
    """Models of the registry that can be chosen now, and those whose candidates wait in vain.

    A draining model is neither: nothing new is chosen for it, what is bound to it runs.
    """

    free: frozenset[str]
    away: frozenset[str]  # paused, suspended, or without a live worker
    unserved: frozenset[str]  # without a live worker


def availability(connection: Connection, settings: Settings) -> Availability:
    """Who can be had right now; a model that left the registry and has no worker cannot. A few small queries."""
    models = settings.registry.models
    states = model_states(connection, list(models))
    live = live_queues(live_workers(connection, settings.worker_timeout))
    unserved = {name for name, model in models.items() if model.queue not in live}
    unserved |= {name for name in models_with_work(connection) if name not in models and queue_of(name) not in live}
    stopped = {name for name, row in states.items() if row.status in {ModelState.PAUSED, ModelState.SUSPENDED}}
    free = {name for name, row in states.items() if row.status == ModelState.ACTIVE} - unserved
    return Availability(free=frozenset(free), away=frozenset(unserved | stopped), unserved=frozenset(unserved))


def others(
    chooser: Chooser,
    settings: Settings,
    subtask: Exhausted | Overdue,
    among: frozenset[str],
) -> list[Chosen]:
    """Models that could take over, best first: able, `among` these, untried, and within what the subtask may try.

    Its share of a task's `max_calls` counts calls: a candidate that never ran may be replaced beyond it.
    """
    able = able_models(settings.registry, subtask.capability, subtask.options)
    untried = [model for model in able if model.name in among and model.name not in subtask.tried]
    share = subtask.max_candidates if isinstance(subtask, Exhausted) else None
    room = min(settings.max_candidates, share or settings.max_candidates) - len(subtask.tried)
    options = {**subtask.options, "adaptive": None}
    return chooser.choose(subtask.capability, options, room, untried) if room > 0 and untried else []


@dataclass
class Place:
    """How far a look came, by subtask id: what only waits must not hide what comes behind it."""

    after: UUID = FIRST

    def next(self, seen: Sequence[UUID]) -> None:
        """Go on after these, or from the beginning where fewer than LOOK were left."""
        self.after = max(seen) if len(seen) >= LOOK else FIRST


def back_fill(
    connection: Connection, settings: Settings, place: Place | None = None, chooser: Chooser | None = None
) -> tuple[int, int]:
    """Give subtasks that all of their models failed to others, or fail them with every reason.

    Where untried models exist and none can be had, it waits for them up to BAKEOFF_BIND_WAIT. Returns how many
    candidates were added and how many subtasks failed.
    """
    place = place or Place()
    exhausted = lock_exhausted(connection, LOOK, place.after)
    place.next([subtask.id for subtask in exhausted])
    if not exhausted:
        return 0, 0
    can_be_had = availability(connection, settings)
    chooser = chooser or Chooser(settings)
    chooser.begin()
    additions: list[Addition] = []
    failed: list[UUID] = []
    for subtask in exhausted:
        untried = others(chooser, settings, subtask, can_be_had.free)
        if untried:
            additions += _additions(subtask.id, untried[: subtask.candidates_wanted], "back-fill")
        elif not _worth_waiting(chooser, settings, subtask):
            failed.append(subtask.id)
    return add_candidates(connection, additions), fail_exhausted(connection, failed) if failed else 0


def _worth_waiting(chooser: Chooser, settings: Settings, subtask: Exhausted) -> bool:
    everybody = frozenset(settings.registry.models)
    return subtask.age < settings.bind_wait and bool(others(chooser, settings, subtask, everybody))


def rebind(
    connection: Connection, settings: Settings, place: Place | None = None, chooser: Chooser | None = None
) -> tuple[int, int]:
    """Bind candidates that have waited BAKEOFF_BIND_WAIT for a model that cannot be had to another one.

    Where there is no other, a candidate is given up if the subtask has its quorum and waits for nothing else; if not,
    it waits on. Returns how many were replaced and how many were given up.
    """
    can_be_had = availability(connection, settings)
    if not can_be_had.away:
        return 0, 0
    chooser = chooser or Chooser(settings)
    chooser.begin()
    take_back_unserved(connection, sorted(can_be_had.unserved), settings.bind_wait)
    place = place or Place()
    additions: list[Addition] = []
    ended: list[UUID] = []
    overdue = lock_overdue(connection, sorted(can_be_had.away), settings.bind_wait, LOOK, place.after)
    place.next([candidate for subtask in overdue for candidate in subtask.waiting])
    for subtask in overdue:
        found = others(chooser, settings, subtask, can_be_had.free)
        replaced = found[: len(subtask.waiting)]
        additions += _additions(subtask.subtask_id, replaced, "bind-wait")
        ended += subtask.waiting if _enough_without(subtask) else subtask.waiting[: len(replaced)]
    given_up = give_up(connection, ended, f"Its model could not be had for {settings.bind_wait:g} s.") if ended else 0
    added = add_candidates(connection, additions)
    return added, given_up - added


def _enough_without(subtask: Overdue) -> bool:
    """Whether the subtask can be judged once the waiting candidates are gone."""
    return subtask.done >= subtask.quorum and subtask.open == len(subtask.waiting)


def _additions(subtask: UUID, chosen: Sequence[Chosen], why: str) -> list[Addition]:
    return [
        Addition(
            subtask_id=subtask,
            model=one.model.name,
            proposed_by=[{**proposal, "reason": why} for proposal in one.proposed_by],
            max_attempts=one.model.max_attempts,
        )
        for one in chosen
    ]
