"""Tasks that wait for a planner or an integrator: sent to one, a bounded number at a time.

A state whose queue nobody consumes sends nothing: its tasks wait in Postgres.
"""

from __future__ import annotations

from sqlalchemy import Connection, Engine

from db.engine import transaction
from db.errors import Unreachable
from db.logs import get_logger, ids
from db.settings import Settings
from db.states import TaskState
from db.thinking import send_thinking, thinking_in_flight, unsend_thinking
from db.verdicts import Patience
from db.workers import live_queues, live_workers
from scheduler.publishing import THINKERS, Publisher

log = get_logger(__name__)


class Thinking:
    """Sends what waits to be thought about."""

    def __init__(self, settings: Settings, engine: Engine, publisher: Publisher) -> None:
        self._settings = settings
        self._engine = engine
        self._publisher = publisher

    def send(self, waiting: dict[str, int]) -> int:
        """Send tasks of the states in `waiting` (how many wait, by state). Returns how many left.

        Raises `Unreachable` where Redis is away; what was not published is due again.
        """
        return sum(self._send(TaskState(state)) for state, count in waiting.items() if count)

    def _send(self, state: TaskState) -> int:
        _, queue = THINKERS[state]
        length = self._publisher.queue_lengths([queue])[queue]
        with transaction(self._engine) as connection:
            room = self._room(connection, state, queue, length)
            patience = Patience(grace=0, lost_after=self._settings.lost_after, queue_empty=length == 0)
            messages = send_thinking(connection, state, patience, room) if room > 0 else []
        for number, message in enumerate(messages):
            try:
                self._publisher.send_thinking(message, state)
            except Unreachable:
                with transaction(self._engine) as connection:
                    unsend_thinking(connection, [later.id for later in messages[number:]])
                raise
        if messages:
            log.info(
                f"Sent {len(messages)} to the {queue}",
                action=f"{state}_sent",
                tasks=ids(message.task_id for message in messages),
                messages=ids(message.id for message in messages),
            )
        return len(messages)

    def _room(self, connection: Connection, state: TaskState, queue: str, length: int) -> int:
        workers = live_queues(live_workers(connection, self._settings.worker_timeout))[queue]
        busy = max(thinking_in_flight(connection).get(state, 0), length)
        # What was lost counts as busy: a window's worth may always be sent again where the queue is empty.
        return self._settings.thinking_window * workers - (0 if length == 0 else busy)
