"""Callbacks of other Celery applications: which may be named at all, and their messages once a task has ended.

A caller names a Celery task and a queue, and both go to the same Redis as ours. So a callback is taken only where the
operator has listed the pair in BAKEOFF_CALLBACKS: nobody can reach a task of ours, another team's, or a key of Redis
that is no queue.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from db.callbacks import PAGE, Callback, Due, claim_callbacks, release_callbacks, settle_callback
from db.engine import transaction
from db.errors import InvalidRequest, Unreachable
from db.logs import get_logger
from db.watching import TOLD
from scheduler.requests import check_storable
from worker.cleaning import clean_json

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from db.settings import Settings
    from scheduler.publishing import Publisher

log = get_logger(__name__)

AT_ONCE = 100
LEASE = 60.0  # seconds
LONGEST_QUEUE = 1000  # messages: a receiver that is away fills no Redis
PAUSE = 10.0  # seconds until a queue that is full is looked at again
LARGEST = 10_000  # characters of a callback's own arguments, as JSON
FORM = '{"task": "shop.finished", "options": {"queue": "shop"}, "kwargs": {}}'


def parse_callback(settings: Settings, said: Any) -> Callback | None:
    """A callback as a Celery signature states it, in JSON. Raises `InvalidRequest`."""
    if said is None:
        return None
    if not isinstance(said, Mapping) or not isinstance(said.get("options", {}), Mapping):
        raise InvalidRequest(f"callback must be a Celery signature as JSON, such as {FORM}.")
    unknown = [f"callback.{name}" for name in said.keys() - {"task", "args", "kwargs", "options", "immutable"}
               if said[name] is not None]  # fmt: skip
    options = {name: value for name, value in said.get("options", {}).items() if value is not None}
    unknown += [f"callback.options.{name}" for name in options.keys() - {"queue"}]
    if unknown:
        raise InvalidRequest(f"{min(unknown)} is not supported; a callback is no more than {FORM}.")
    name, queue = said.get("task"), options.get("queue")
    args, kwargs = said.get("args") or [], said.get("kwargs") or {}
    if not (isinstance(name, str) and isinstance(queue, str)):
        raise InvalidRequest(
            f"callback needs the names of a task and its queue: {FORM}; in Celery task.s().set(queue=...)."
        )
    if not (isinstance(args, list | tuple) and isinstance(kwargs, Mapping)):
        raise InvalidRequest("callback.args must be a list, and callback.kwargs an object.")
    check_storable("callback", {"args": list(args), "kwargs": dict(kwargs)})
    if len(json.dumps([list(args), dict(kwargs)])) > LARGEST:
        raise InvalidRequest(
            f"callback: its own arguments have over {LARGEST} characters; send an id of yours instead."
        )
    callback = Callback(
        name=name, queue=queue, args=list(args), kwargs=dict(kwargs), immutable=bool(said.get("immutable"))
    )
    if callback.address not in settings.callbacks:
        known = ", ".join(settings.callbacks) or "nobody"
        raise InvalidRequest(
            f"callback: {callback.address[:200]} is not among BAKEOFF_CALLBACKS, which allows {known}."
        )
    return callback


class Callbacks:
    """Sends what is due. Every scheduler does; rows decide who sends what."""

    def __init__(self, settings: Settings, engine: Engine, publisher: Publisher) -> None:
        self._settings = settings
        self._engine = engine
        self._publisher = publisher
        self._full: dict[str, float] = {}  # queue → when it is looked at again: it keeps nobody else's waiting

    def send(self) -> bool:
        """One look. Returns whether there may be more to do at once. Raises `Unreachable` without Redis."""
        self._full = {queue: until for queue, until in self._full.items() if until > time.monotonic()}
        with transaction(self._engine) as connection:
            released = release_callbacks(connection)
            due = claim_callbacks(connection, AT_ONCE, LEASE, self._full)
        more = released == PAGE or len(due) == AT_ONCE
        try:
            waiting = self._publisher.queue_lengths(sorted({one.callback.queue for one in due})) if due else {}
            while due:
                self._send(due[0], waiting)
                del due[0]
        except Unreachable as error:  # for the rest, too: each would wait for Redis as long
            for one in due:
                self._settle(one, str(error), PAUSE)
            raise
        return more

    def _send(self, due: Due, waiting: dict[str, int]) -> None:
        queue, length = due.callback.queue, waiting[due.callback.queue]
        if due.callback.address not in self._settings.callbacks:
            self._settle(due, f"{due.callback.address} is not among BAKEOFF_CALLBACKS any more.", None)
        elif length >= LONGEST_QUEUE:
            self._full[queue] = time.monotonic() + PAUSE
            self._settle(due, f"{length} messages wait on {queue} already; it is sent when they go.", PAUSE)
        else:
            told = clean_json({key: due.result[key] for key in TOLD})
            args = [*due.callback.args] if due.callback.immutable else [told, *due.callback.args]
            self._publisher.send_callback(due.task_id, due.callback, args)
            self._settle(due, None, None)
            waiting[queue] += 1

    def _settle(self, due: Due, error: str | None, again_in: float | None) -> None:
        with transaction(self._engine) as connection:
            settle_callback(connection, due, error=error, again_in=again_in)
        if error is not None:
            log.warning(f"A callback was not sent: {error}", action="callback_failed", task=str(due.task_id))
