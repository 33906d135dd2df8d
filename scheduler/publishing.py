"""Messages to Celery: a wave as one chord, and single messages for what has to be sent again. Ids only.

Publishing never blocks the scheduler for more than `BAKEOFF_PUBLISH_TIMEOUT`, and raises `Unreachable` where it fails;
the rows go back then.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any
from uuid import UUID

import redis
from celery import Celery, chord, signature
from kombu.exceptions import KombuError
from kombu.exceptions import OperationalError as KombuOperationalError

from db.callbacks import Callback
from db.candidates import Message
from db.errors import Unreachable
from db.registry import ModelEntry
from db.settings import Settings
from db.states import TaskState
from db.thinking import ThinkingMessage
from db.tracing import headers_here
from db.verdicts import JudgeMessage
from scheduler.limits import SOFT_BEFORE_HARD, hard_limit
from scheduler.queues import broker_client, queue_lengths
from worker.role import INTEGRATOR_QUEUE, JUDGE_QUEUE, PLANNER_QUEUE

#: state in which a task waits → Celery task and queue
THINKERS = {
    TaskState.PLANNING: ("bakeoff.plan_task", PLANNER_QUEUE),
    TaskState.INTEGRATING: ("bakeoff.integrate_task", INTEGRATOR_QUEUE),
}
NAMED = 16  # tasks, and subtasks, that a row of Flower names at most: it keeps thousands of rows in memory
FAILURES = (redis.RedisError, KombuOperationalError, KombuError, OSError)


class Publisher:
    """Sends to the broker, and asks it how long its queues are."""

    def __init__(self, settings: Settings, app: Celery) -> None:
        self._settings = settings
        self._app = app

    @cached_property
    def _redis(self) -> redis.Redis:
        return broker_client(self._settings)

    def queue_lengths(self, queues: Sequence[str]) -> dict[str, int]:
        """Messages waiting on each queue, in one round trip. Raises `Unreachable`."""
        try:
            return queue_lengths(self._redis, queues)
        except FAILURES as error:
            raise self._unreachable(error) from None

    def send_wave(self, messages: Sequence[Message], subtasks: Sequence[UUID], registry: dict[str, ModelEntry]) -> None:
        """One chord: a message per model, and a callback that judges the subtasks. Raises `Unreachable`."""
        header = [self._run(message, registry[message.model], in_chord=True) for message in messages]
        tasks = list(dict.fromkeys(task for message in messages for task in message.task_ids))
        models = sorted({message.model for message in messages})
        try:
            chord(header, app=self._app)(self._judge(subtasks, tasks, models))
        except FAILURES as error:
            raise self._unreachable(error) from None

    def send_again(self, message: Message, model: ModelEntry) -> None:
        """A message without a chord. Raises `Unreachable`."""
        try:
            self._run(message, model, in_chord=False).apply_async()
        except FAILURES as error:
            raise self._unreachable(error) from None

    def send_judging(self, message: JudgeMessage) -> None:
        """A judge message without a chord. Raises `Unreachable`."""
        try:
            self._judge(message.subtask_ids, message.task_ids).apply_async(task_id=str(message.id))
        except FAILURES as error:
            raise self._unreachable(error) from None

    def send_thinking(self, message: ThinkingMessage, state: TaskState) -> None:
        """A message to the planners or the integrators about one task. Raises `Unreachable`."""
        name, queue = THINKERS[state]
        sent = signature(
            name,
            kwargs={"task": str(message.task_id)},
            options={
                "queue": queue,
                "task_id": str(message.id),
                "time_limit": self._settings.message_limit,
                "soft_time_limit": self._settings.message_limit - SOFT_BEFORE_HARD,
            },
            immutable=True,
            app=self._app,
        )
        try:
            sent.apply_async()
        except FAILURES as error:
            raise self._unreachable(error) from None

    def send_callback(self, task: UUID, callback: Callback, args: Sequence[Any]) -> None:
        """Call another application's Celery task about the end of one of ours. Raises `Unreachable`."""
        try:
            self._app.send_task(
                callback.name,
                args=[*args],
                kwargs={**callback.kwargs},
                queue=callback.queue,
                task_id=str(task),  # sent twice, it is the same
                ignore_result=True,
                argsrepr=f"(<the result of task {task}>,)",
                kwargsrepr="{}",
            )
        except FAILURES as error:
            raise self._unreachable(error) from None

    def _run(self, message: Message, model: ModelEntry, *, in_chord: bool) -> Any:
        hard = hard_limit(self._settings, model, len(message.candidate_ids))
        return signature(
            "bakeoff.run_candidates",
            kwargs={
                "model": message.model,
                "tasks": [str(task) for task in message.task_ids],
                "subtasks": [str(subtask) for subtask in message.subtask_ids],
                "candidates": [str(candidate) for candidate in message.candidate_ids],
                "in_chord": in_chord,
            },
            options={
                "queue": model.queue,
                "task_id": str(message.id),
                "time_limit": hard,
                "soft_time_limit": hard - SOFT_BEFORE_HARD,
                "ignore_result": True,  # a chord counts its parts all the same; results are rows
                "kwargsrepr": in_flower([message.model], message.task_ids, message.subtask_ids),
                **_sender(),
            },
            immutable=True,
            app=self._app,
        )

    def _judge(self, subtasks: Sequence[UUID], tasks: Sequence[UUID], models: Sequence[str] = ()) -> Any:
        return signature(
            "bakeoff.judge_subtasks",
            kwargs={"tasks": [str(task) for task in tasks], "subtasks": [str(subtask) for subtask in subtasks]},
            options={
                "queue": JUDGE_QUEUE,
                "time_limit": self._settings.message_limit,
                "soft_time_limit": self._settings.message_limit - SOFT_BEFORE_HARD,
                "kwargsrepr": in_flower(models, tasks, subtasks),
                **_sender(),
            },
            immutable=True,
            app=self._app,
        )

    def _unreachable(self, error: BaseException) -> Unreachable:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return Unreachable(f"Redis does not take messages ({reason}). Start it, or check BAKEOFF_REDIS_URL.")


def _sender() -> dict[str, dict[str, str]]:
    """Options of a message that is sent from within a span."""
    headers = headers_here()
    return {"headers": headers} if headers else {}


def in_flower(models: Sequence[str], tasks: Sequence[UUID], subtasks: Sequence[UUID]) -> str:
    """What a row of Flower says of a message. It stays a dictionary, which Flower's `kwargs:model=NAME` can search."""
    said: dict[str, Any] = {"model": models[0]} if len(models) == 1 else {"models": list(models)} if models else {}
    for what, ids in (("task", tasks), ("subtask", subtasks)):
        named = [str(one) for one in ids[:NAMED]]
        said[what] = named[0] if len(ids) == 1 else named
        if len(ids) > NAMED:
            said[f"more {what}s"] = len(ids) - NAMED
    return repr(said)
