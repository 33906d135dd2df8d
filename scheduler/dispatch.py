"""From ready subtasks to messages: choose models, form waves, send them; and send again what waits or was lost."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, Engine

from db.breaker import Guarded, start_probe
from db.candidates import Choice, Message, Sent, choose_and_send, send_waiting, unsend
from db.engine import transaction
from db.errors import Unreachable
from db.flight import Look, in_flight, look
from db.logs import get_logger, ids
from db.registry import ModelEntry, Registry
from db.settings import Settings
from db.states import ModelState
from db.subtasks import ReadySubtask, lock_ready
from db.tracing import NOTHING, Span, is_on, traced, wave_span
from db.workers import live_queues, live_workers, model_states
from scheduler.choosing import Chooser
from scheduler.limits import largest_message
from scheduler.publishing import Publisher
from scheduler.selectors import Chosen
from worker.role import JUDGE_QUEUE

log = get_logger(__name__)

LOOK = 256  # ready subtasks locked in one look, at most
LEAST_LOOK = 32
PROBED = {"selector": "probe", "rank": 0}


def _tell(what: str, action: str, messages: Sequence[Message]) -> None:
    models = ids(message.model for message in messages)
    subtasks = ids(subtask for message in messages for subtask in message.subtask_ids)
    log.info(
        f"{what} of {len(subtasks)} to {', '.join(models)}",
        action=action,
        models=models,
        messages=ids(message.id for message in messages),
        tasks=ids(task for message in messages for task in message.task_ids),
        subtasks=subtasks,
    )


@dataclass(frozen=True, kw_only=True)
class Wave:
    """Subtasks that share models and judge, and leave as one chord."""

    models: tuple[ModelEntry, ...]
    subtasks: tuple[tuple[ReadySubtask, tuple[Chosen, ...]], ...]  # each with its models in its own order

    @property
    def ids(self) -> list[UUID]:
        """Of its subtasks."""
        return [subtask.id for subtask, _ in self.subtasks]


@dataclass(kw_only=True)
class Room:
    """Messages that each model's queue and the judges' still take, and which models may be chosen at all."""

    models: dict[str, ModelEntry]  # live and active: chosen and sent
    draining: dict[str, ModelEntry] = field(default_factory=dict)  # what is bound to them is sent, nothing is chosen
    probes: dict[str, ModelEntry] = field(default_factory=dict)  # suspended: one candidate may find out
    left: dict[str, int] = field(default_factory=dict)
    judge_left: int = 1
    seconds: dict[str, float] = field(default_factory=dict)  # per input, of the models that were measured

    def open_to(self, capabilities: Sequence[str]) -> list[str]:
        """Those of these capabilities for which at least one more message could leave."""
        able = (*self.models.values(), *self.probes.values()) if self.judge_left > 0 else ()
        served = {model.capability for model in able if self.left.get(model.name, 0) > 0}
        return [capability for capability in capabilities if capability in served]

    def take(self, models: Sequence[ModelEntry], *, judge: bool = False) -> bool:
        """Take one message's room from every model (and the judges' queue), or from none."""
        if (judge and self.judge_left < 1) or any(self.left.get(model.name, 0) < 1 for model in models):
            return False
        self.judge_left -= judge
        for model in models:
            self.left[model.name] -= 1
        return True


def able_models(registry: Registry, capability: str, options: Mapping[str, Any]) -> list[ModelEntry]:
    """Models that serve a capability; those that the caller named, where it named some."""
    only = options.get("models")
    return [model for model in registry.candidates_for(capability) if not only or model.name in only]


class Dispatcher:
    """Sends waves. Every scheduler has one; they share rows through locks, not through a leader."""

    def __init__(
        self, settings: Settings, engine: Engine, publisher: Publisher, chooser: Chooser | None = None
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._publisher = publisher
        self._chooser = chooser or Chooser(settings)
        self._started = time.monotonic()
        self._looked_deeper = float("-inf")
        self.answered = 0  # subtasks that the result cache answered whole: they wait for a judge and for nothing else

    def look(self) -> Look:
        """See what there is to send, in a transaction of its own."""
        with transaction(self._engine) as connection:
            return look(connection)

    def dispatch(self, todo: Look) -> int:
        """Send what is ready and has room. Returns how many subtasks left. Raises `Unreachable` where Redis is away."""
        capabilities = todo.ready
        if not capabilities:
            return 0
        names = [m.name for m in self._settings.registry.models.values() if m.capability in capabilities]
        lengths = self._queue_lengths(names)
        self._chooser.refresh(capabilities)
        self._chooser.begin()
        with transaction(self._engine) as connection:
            room = self._room(connection, names, lengths)
            waves = list(self._waves(connection, room, capabilities))
            if not waves:
                return 0
            sent = choose_and_send(connection, list(self._choices(waves, room)))
            self._note_probes(connection, {model.name for wave in waves for model in wave.models} - set(room.models))
        self.answered += len(sent.answered)
        self._publish(waves, sent)
        return sum(len(wave.subtasks) for wave in waves)

    def send_waiting(self, todo: Look) -> int:
        """Send candidates that were chosen before: retries, and what a lost message or lease gave back."""
        names = [name for name in todo.waiting if name in self._settings.registry.models]
        if not names:
            return 0
        lengths = self._queue_lengths(names)
        with transaction(self._engine) as connection:
            room = self._room(connection, names, lengths)
            waiting = list(self._waiting(connection, room))
        for number, message in enumerate(waiting):
            try:
                with self._span([message]):
                    self._publisher.send_again(message, self._settings.registry.models[message.model])
            except Unreachable:
                self._take_back(waiting[number:])
                raise
            _tell("Sent again", "message_sent_again", [message])
        return sum(len(message.candidate_ids) for message in waiting)

    def _waiting(self, connection: Connection, room: Room) -> Iterator[Message]:
        """A message per model with room; a suspended model's probe carries one candidate."""
        for model in (*room.models.values(), *room.draining.values(), *room.probes.values()):
            limit = 1 if model.name in room.probes else self._largest([model], room)
            if room.take([model]) and (message := send_waiting(connection, model.name, limit)) is not None:
                self._note_probes(connection, {model.name} & set(room.probes))
                yield message

    def _note_probes(self, connection: Connection, models: set[str]) -> None:
        for model in sorted(models):
            start_probe(connection, Guarded.MODEL, model, self._settings.breaker)
            log.info(f"{model} is suspended and probed", action="model_probed", model=model)

    def _queue_lengths(self, names: Sequence[str]) -> dict[str, int]:
        """Messages waiting per model, and under the judges' queue's own name for them."""
        queues = self._settings.registry.queues
        lengths = self._publisher.queue_lengths([*(queues[name] for name in names), JUDGE_QUEUE])
        return {**{name: lengths[queues[name]] for name in names}, JUDGE_QUEUE: lengths[JUDGE_QUEUE]}

    def _room(self, connection: Connection, names: Sequence[str], lengths: dict[str, int]) -> Room:
        """Lock the models' rows, then see which are live and how much room their windows have."""
        states = model_states(connection, names, lock=True)
        live = live_queues(live_workers(connection, self._settings.worker_timeout))
        registry = self._settings.registry.models
        served = {name: registry[name] for name in states if registry[name].queue in live}
        busy = in_flight(connection)
        left = {  # a window of its own for each worker of a queue
            name: model.window * live[model.queue] - max(busy.get(name, 0), lengths[name])
            for name, model in served.items()
        }
        probes = {name: model for name, model in served.items() if states[name].probe_due and not busy.get(name)}
        return Room(
            models={name: model for name, model in served.items() if states[name].status == ModelState.ACTIVE},
            draining={name: model for name, model in served.items() if states[name].status == ModelState.DRAINING},
            probes=probes,
            left=left,
            judge_left=self._settings.judge_window - lengths[JUDGE_QUEUE],
            seconds={name: row.seconds_per_item for name, row in states.items() if row.seconds_per_item},
        )

    def _waves(self, connection: Connection, room: Room, capabilities: Sequence[str]) -> Iterator[Wave]:
        """Waves for what is ready and has room. A group that is stuck holds back no other.

        A look behind the stuck groups reads through their backlog, so there is one such round per poll interval.
        """
        stuck: list[str] = []  # groups that had their turn
        while wanted := room.open_to(capabilities):
            ready = lock_ready(connection, self._limit(room, wanted), wanted, stuck)
            texts = self._chooser.texts_of(connection, ready)
            groups: dict[tuple[tuple[str, ...], str], list[tuple[ReadySubtask, tuple[Chosen, ...]]]] = defaultdict(list)
            for subtask in ready:
                chosen = self._select(subtask, room, texts.get(subtask.id, ""))
                if chosen:
                    names = tuple(sorted(one.model.name for one in chosen))
                    groups[names, subtask.judge].append((subtask, tuple(chosen)))
            for (names, _), subtasks in groups.items():
                yield from self._waves_of([self._settings.registry.models[name] for name in names], subtasks, room)
            if not ready or not (stuck or self._may_look_deeper()):
                return
            stuck.extend({subtask.group for subtask in ready})

    def _limit(self, room: Room, capabilities: Sequence[str]) -> int:
        """Subtasks to look at: no more than there is room for, but enough to find those that others do not hold up."""
        most = dict.fromkeys(capabilities, 0)  # messages that leave for each capability
        for name, left in room.left.items():
            capability = self._settings.registry.models[name].capability
            if capability in most:
                most[capability] = max(most[capability], left)
        return min(LOOK, max(LEAST_LOOK, self._settings.wave_size * sum(most.values())))

    def _may_look_deeper(self) -> bool:
        now = time.monotonic()
        if now - self._looked_deeper < self._settings.poll_seconds:
            return False
        self._looked_deeper = now
        return True

    def _waves_of(
        self, models: list[ModelEntry], subtasks: list[tuple[ReadySubtask, tuple[Chosen, ...]]], room: Room
    ) -> Iterator[Wave]:
        size = min(self._settings.wave_size, self._largest(models, room))
        for start in range(0, len(subtasks), size):
            if not room.take(models, judge=True):
                return
            yield Wave(models=tuple(models), subtasks=tuple(subtasks[start : start + size]))

    def _largest(self, models: Sequence[ModelEntry], room: Room) -> int:
        """Candidates of one message that each of these models takes, and by what was measured works off in time."""
        return min(
            min(
                model.max_batch,
                largest_message(self._settings, model),
                max(1, int(self._settings.wave_seconds / room.seconds.get(model.name, 1e-9))),
            )
            for model in models
        )

    def _select(self, subtask: ReadySubtask, room: Room, text: str) -> list[Chosen]:
        """Up to k live models of the subtask's capability; none while the scheduler still waits for some.

        Where a suspended model is due for a probe, the next subtask that it can serve takes it along, as one more: a
        healthy model is not kept waiting by it.
        """
        if not self._chooser.knows(subtask.capability, subtask.options):
            return []  # at the next look
        able = able_models(self._settings.registry, subtask.capability, subtask.options)
        live = [model for model in able if model.name in room.models]
        wanted = min(subtask.candidates_wanted, self._settings.max_candidates)
        settling = time.monotonic() - self._started < self._settings.settle_seconds
        spent = bool(live) and wanted == subtask.max_candidates  # its share of `max_calls`: one more is one too many
        probe = None if spent else next((model for model in able if model.name in room.probes), None)
        if probe is not None:
            del room.probes[probe.name]
            wanted = min(wanted, self._settings.max_candidates - 1)
        elif settling and len(live) < min(wanted, len(able)):
            return []
        chosen = self._chooser.choose(
            subtask.capability,
            subtask.options,
            wanted,
            live,
            text=text,
            least=subtask.quorum,
            seed=subtask.id.int,
        )
        return chosen if probe is None else [*chosen, Chosen(model=probe, proposed_by=[PROBED])]

    def _choices(self, waves: Sequence[Wave], room: Room) -> Iterator[Choice]:
        for wave in waves:
            messages = {model.name: uuid4() for model in wave.models}
            for subtask, chosen in wave.subtasks:
                for rank, one in enumerate(chosen):
                    model = one.model
                    probes = model.name not in room.models and len(chosen) > 1  # it may fail once; others answer
                    yield Choice(
                        subtask_id=subtask.id,
                        model=model.name,
                        rank=rank,
                        proposed_by=one.proposed_by,
                        max_attempts=1 if probes else model.max_attempts,
                        message_id=messages[model.name],
                        # A stored output says nothing about a suspended model: its probe runs.
                        input_key=subtask.input_key if model.caches and model.name in room.models else None,
                        revision=model.exact_revision,
                    )

    def _publish(self, waves: Sequence[Wave], sent: Sent) -> None:
        """Publish committed waves. What cannot be published goes back, and `Unreachable` is raised."""
        of_subtask: dict[UUID, list[Message]] = defaultdict(list)
        for message in sent.messages:
            of_subtask[message.subtask_ids[0]].append(message)
        for number, wave in enumerate(waves):
            subtasks = [subtask for subtask in wave.ids if subtask not in sent.answered]
            ours = [message for subtask in subtasks for message in of_subtask[subtask]]
            if not ours:
                continue
            try:
                with self._span(ours):
                    self._publisher.send_wave(ours, subtasks, self._settings.registry.models)
            except Unreachable:
                rest = [subtask for later in waves[number:] for subtask in later.ids]
                self._take_back([message for subtask in rest for message in of_subtask[subtask]])
                raise
            _tell("Sent a wave", "wave_sent", ours)

    def _span(self, messages: Sequence[Message]) -> AbstractContextManager[Span]:
        """Around the sending of messages that belong together, where somebody traces one of their tasks."""
        if not is_on():
            return nullcontext(NOTHING)
        tasks = {task for message in messages for task in message.task_ids}
        with transaction(self._engine) as connection:
            traces = traced(connection, tasks)
        return wave_span(
            "dispatch",
            "PRODUCER",
            list(dict.fromkeys(traces.values())),
            messaging__system="celery",
            messaging__operation__type="send",
            messaging__batch__message_count=len(messages),
            bakeoff__models=sorted(message.model for message in messages),
            bakeoff__subtasks=len({subtask for message in messages for subtask in message.subtask_ids}),
            bakeoff__tasks=len(tasks),
        )

    def _take_back(self, messages: Sequence[Message]) -> None:
        with transaction(self._engine) as connection:
            unsend(connection, [message.id for message in messages])
