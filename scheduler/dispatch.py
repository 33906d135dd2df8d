"""From ready subtasks to messages: choose models, form waves, send them; and send again what waits or was lost."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from sqlalchemy import Connection, Engine

from db.candidates import Choice, Message, choose_and_send, in_flight, send_waiting, unsend, waiting_models
from db.engine import transaction
from db.errors import Unreachable
from db.logs import get_logger
from db.registry import ModelEntry
from db.settings import Settings
from db.states import ModelState
from db.subtasks import ReadySubtask, lock_ready, ready_capabilities
from db.workers import live_queues, live_workers, lock_models
from scheduler.limits import largest_message
from scheduler.publishing import Publisher
from scheduler.selectors import SELECTORS

log = get_logger(__name__)

LOOK = 256  # ready subtasks locked in one look
SELECTOR = "priority"


@dataclass(frozen=True, kw_only=True)
class Wave:
    """Subtasks that share models and judge, and leave as one chord."""

    models: tuple[ModelEntry, ...]
    subtasks: tuple[ReadySubtask, ...]


@dataclass(kw_only=True)
class Room:
    """Messages that each model's queue still takes, and which models may be chosen at all."""

    models: dict[str, ModelEntry]  # live, active
    left: dict[str, int] = field(default_factory=dict)

    def take(self, models: Sequence[ModelEntry]) -> bool:
        """Take one message's room from every model, or from none."""
        if any(self.left.get(model.name, 0) < 1 for model in models):
            return False
        for model in models:
            self.left[model.name] -= 1
        return True


class Dispatcher:
    """Sends waves. Every scheduler has one; they share rows through locks, not through a leader."""

    def __init__(self, settings: Settings, engine: Engine, publisher: Publisher) -> None:
        self._settings = settings
        self._engine = engine
        self._publisher = publisher
        self._started = time.monotonic()

    def dispatch(self) -> int:
        """Send what can be sent now. Returns how many subtasks left. Raises `Unreachable` where Redis is away."""
        with transaction(self._engine) as connection:
            capabilities = ready_capabilities(connection)
        if not capabilities:
            return 0
        names = [m.name for m in self._settings.registry.models.values() if m.capability in capabilities]
        lengths = self._queue_lengths(names)
        with transaction(self._engine) as connection:
            room = self._room(connection, names, lengths)
            waves = list(self._waves(connection, room))
            messages = choose_and_send(connection, list(self._choices(waves))) if waves else []
        self._publish(waves, messages)
        return sum(len(wave.subtasks) for wave in waves)

    def send_waiting(self) -> int:
        """Send candidates that were chosen before: retries, and what a lost message or lease gave back."""
        with transaction(self._engine) as connection:
            names = [name for name in waiting_models(connection) if name in self._settings.registry.models]
        if not names:
            return 0
        lengths = self._queue_lengths(names)
        with transaction(self._engine) as connection:
            room = self._room(connection, names, lengths)
            waiting = [
                message
                for model in room.models.values()
                if room.take([model])
                and (message := send_waiting(connection, model.name, self._largest([model]))) is not None
            ]
        for number, message in enumerate(waiting):
            try:
                self._publisher.send_again(message, self._settings.registry.models[message.model])
            except Unreachable:
                self._take_back(waiting[number:])
                raise
        return sum(len(message.candidate_ids) for message in waiting)

    def _queue_lengths(self, names: Sequence[str]) -> dict[str, int]:
        queues = self._settings.registry.queues
        lengths = self._publisher.queue_lengths([queues[name] for name in names])
        return {name: lengths[queues[name]] for name in names}

    def _room(self, connection: Connection, names: Sequence[str], lengths: dict[str, int]) -> Room:
        """Lock the models' rows, then see which are live and how much room their windows have."""
        states = lock_models(connection, names)
        live = live_queues(live_workers(connection, self._settings.worker_timeout))
        registry = self._settings.registry.models
        models = {
            name: registry[name]
            for name, status in states.items()
            if status == ModelState.ACTIVE and registry[name].queue in live
        }
        busy = in_flight(connection)
        left = {name: model.window - max(busy.get(name, 0), lengths[name]) for name, model in models.items()}
        return Room(models=models, left=left)

    def _waves(self, connection: Connection, room: Room) -> Iterator[Wave]:
        """Waves for what is ready and has room. A group that is stuck holds back no other."""
        stuck: list[str] = []  # groups that had their turn
        while True:
            ready = lock_ready(connection, LOOK, stuck)
            groups: dict[tuple[tuple[str, ...], str], list[ReadySubtask]] = defaultdict(list)
            for subtask in ready:
                models = self._select(subtask, room)
                if models:
                    groups[tuple(model.name for model in models), subtask.judge].append(subtask)
            for (names, _), subtasks in groups.items():
                yield from self._waves_of([room.models[name] for name in names], subtasks, room)
            if len(ready) < LOOK:
                return
            stuck.extend({subtask.group for subtask in ready})

    def _waves_of(self, models: list[ModelEntry], subtasks: list[ReadySubtask], room: Room) -> Iterator[Wave]:
        size = min(self._settings.wave_size, self._largest(models))
        for start in range(0, len(subtasks), size):
            if not room.take(models):
                return
            yield Wave(models=tuple(models), subtasks=tuple(subtasks[start : start + size]))

    def _largest(self, models: Sequence[ModelEntry]) -> int:
        return min(min(model.max_batch, largest_message(self._settings, model)) for model in models)

    def _select(self, subtask: ReadySubtask, room: Room) -> list[ModelEntry]:
        """The first k live models of the subtask's capability; none while the scheduler still waits for some."""
        able = [model for model in self._settings.registry.models.values() if model.capability == subtask.capability]
        if only := subtask.options.get("models"):
            able = [model for model in able if model.name in only]
        live = SELECTORS[SELECTOR]([model for model in able if model.name in room.models])
        wanted = min(subtask.candidates_wanted, self._settings.max_candidates)
        settling = time.monotonic() - self._started < self._settings.settle_seconds
        if settling and len(live) < min(wanted, len(able)):
            return []
        return live[:wanted]

    def _choices(self, waves: Sequence[Wave]) -> Iterator[Choice]:
        for wave in waves:
            for rank, model in enumerate(wave.models):
                message = uuid4()
                for subtask in wave.subtasks:
                    yield Choice(
                        subtask_id=subtask.id,
                        model=model.name,
                        rank=rank,
                        proposed_by=[{"selector": SELECTOR, "rank": rank}],
                        max_attempts=model.max_attempts,
                        message_id=message,
                    )

    def _publish(self, waves: Sequence[Wave], messages: Sequence[Message]) -> None:
        """Publish committed waves. What cannot be published goes back, and `Unreachable` is raised."""
        of_subtask: dict[UUID, list[Message]] = defaultdict(list)
        for message in messages:
            of_subtask[message.subtask_ids[0]].append(message)
        for number, wave in enumerate(waves):
            ids = [subtask.id for subtask in wave.subtasks]
            ours = [message for subtask in ids for message in of_subtask[subtask]]
            try:
                self._publisher.send_wave(ours, ids, self._settings.registry.models)
            except Unreachable:
                rest = [s.id for later in waves[number:] for s in later.subtasks]
                self._take_back([message for subtask in rest for message in of_subtask[subtask]])
                raise
            log.info(
                f"Sent a wave of {len(ids)} to {', '.join(model.name for model in wave.models)}",
                action="wave_sent",
                models=[model.name for model in wave.models],
                subtasks=[str(subtask) for subtask in ids],
            )

    def _take_back(self, messages: Sequence[Message]) -> None:
        with transaction(self._engine) as connection:
            unsend(connection, [message.id for message in messages])
