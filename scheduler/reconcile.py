"""What makes every message dispensable: rules that find what stopped on its way, each one set-based statement.

No leader: every scheduler runs every rule, rows are taken with `FOR UPDATE SKIP LOCKED`.
"""

from __future__ import annotations

from sqlalchemy import Engine

from db.candidates import expire_leases, lost_messages, unsend
from db.engine import transaction
from db.errors import Unreachable
from db.logs import get_logger
from db.settings import Settings
from db.tasks import finish_tasks
from db.verdicts import expire_judging, fail_exhausted, send_judging, unsend_judging
from db.workers import live_queues, live_workers
from scheduler.publishing import Publisher
from worker.role import JUDGE_QUEUE

log = get_logger(__name__)

JUDGED_TOGETHER = 64  # subtasks of one judge message


class Reconciler:
    """Runs the rules."""

    def __init__(self, settings: Settings, engine: Engine, publisher: Publisher) -> None:
        self._settings = settings
        self._engine = engine
        self._publisher = publisher

    def reconcile(self) -> None:
        """Run every rule once. Raises `Unreachable` where Postgres or Redis is away; what was done stays done."""
        with transaction(self._engine) as connection:
            self._note("candidate_leases_expired", expire_leases(connection))
        with transaction(self._engine) as connection:
            self._note("judge_leases_expired", expire_judging(connection))
        with transaction(self._engine) as connection:
            self._note("subtasks_exhausted", fail_exhausted(connection))
        with transaction(self._engine) as connection:
            self._note("tasks_finished", finish_tasks(connection))
        self._find_lost_messages()
        self._judge_what_is_unjudged()

    def _find_lost_messages(self) -> None:
        registry = self._settings.registry
        with transaction(self._engine) as connection:
            ready = live_queues(live_workers(connection, self._settings.worker_timeout), ready_only=True)
        serving = [model.name for model in registry.models.values() if model.queue in ready]
        lengths = self._publisher.queue_lengths([registry.queues[name] for name in serving]) if serving else {}
        empty = [name for name in serving if lengths[registry.queues[name]] == 0]
        with transaction(self._engine) as connection:
            lost = lost_messages(connection, empty, self._settings.lost_after)
            self._note("messages_lost", unsend(connection, lost) if lost else 0)

    def _judge_what_is_unjudged(self) -> None:
        waiting = self._publisher.queue_lengths([JUDGE_QUEUE])[JUDGE_QUEUE]
        with transaction(self._engine) as connection:
            ids = send_judging(
                connection,
                grace=self._settings.judge_grace,
                lost_after=self._settings.lost_after,
                queue_empty=waiting == 0,
                limit=JUDGED_TOGETHER,
            )
        if not ids:
            return
        try:
            self._publisher.send_judging(ids)
        except Unreachable:
            with transaction(self._engine) as connection:
                unsend_judging(connection, ids)
            raise
        self._note("judging_sent", len(ids))

    @staticmethod
    def _note(action: str, count: int) -> None:
        if count:
            log.info(f"{action.replace('_', ' ')}: {count}", action=action, count=count)
