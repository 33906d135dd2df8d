"""What makes every message dispensable: rules that find what stopped on its way, each one set-based statement.

No leader: every scheduler runs every rule, rows are taken with `FOR UPDATE SKIP LOCKED`.
"""

from __future__ import annotations

import time

from sqlalchemy import Connection, Engine

from db.breaker import Guarded, due_probes, note_failure, start_probe
from db.candidates import expire_leases, unsend
from db.endings import expire_pending, finish_tasks, unfinished_business
from db.engine import transaction
from db.errors import Unreachable
from db.flight import lost_messages
from db.logs import get_logger, ids
from db.settings import Settings
from db.subtasks import end_stray_candidates, expire_subtasks, skip_unreachable, stop_waiting, unblock
from db.thinking import expire_thinking
from db.verdicts import (
    JudgeMessage,
    Patience,
    expire_judging,
    send_judge_probe,
    send_judging,
    unsend_judging,
)
from db.workers import live_queues, live_workers
from scheduler.publishing import Publisher
from scheduler.replacing import Place, back_fill, rebind
from worker.role import JUDGE_QUEUE

log = get_logger(__name__)

JUDGED_TOGETHER = 64  # subtasks of one judge message
JUDGE_MESSAGES = 8  # of one look: what a judge that was away has left is not handed out drop by drop
SWEEP_SECONDS = 10.0  # between two looks for what only a race can leave behind; they see every open row


class Reconciler:
    """Runs the rules."""

    def __init__(self, settings: Settings, engine: Engine, publisher: Publisher) -> None:
        self._settings = settings
        self._engine = engine
        self._publisher = publisher
        self._swept = float("-inf")
        self._exhausted, self._overdue = Place(), Place()
        self._found = False

    def reconcile(self) -> bool:
        """Run every rule once. Returns whether one of them found something, so that another look is worth it.

        Raises `Unreachable` where Postgres or Redis is away; what was done stays done.
        """
        self._found = False
        for rule in (self._expire_leases, self._expire_judging, self._expire_thinking, self._pass_deadlines,
                     self._follow_the_plan, self._ask_other_models, self._sweep):  # fmt: skip
            with transaction(self._engine) as connection:
                rule(connection)
        self._find_lost_messages()
        self.judge_what_is_unjudged()
        return self._found

    def _expire_leases(self, connection: Connection) -> None:
        lost = expire_leases(connection)
        self._note("candidate_leases_expired", len(lost))
        self._note_lost(connection, Guarded.MODEL, lost)

    def _expire_judging(self, connection: Connection) -> None:
        lost = expire_judging(connection)
        self._note("judge_leases_expired", len(lost))
        self._note_lost(connection, Guarded.JUDGE, lost)

    def _note_lost(self, connection: Connection, guarded: Guarded, lost: dict[str, int]) -> None:
        for name, calls in sorted(lost.items()):
            if calls and note_failure(
                connection, guarded, name, "its worker was lost", self._settings.breaker, calls=calls
            ):
                log.error(f"{name} is suspended: its workers were lost", action=f"{guarded}_suspended", name=name)

    def _pass_deadlines(self, connection: Connection) -> None:
        self._note("tasks_expired", expire_pending(connection))
        self._note("subtasks_expired", expire_subtasks(connection, self._settings.deadline_grace))

    def _expire_thinking(self, connection: Connection) -> None:
        self._note("thinking_expired", expire_thinking(connection))

    def _follow_the_plan(self, connection: Connection) -> None:
        self._note("late_candidates_cancelled", stop_waiting(connection))
        self._note("subtasks_skipped", skip_unreachable(connection))
        self._note("subtasks_unblocked", unblock(connection))

    def _ask_other_models(self, connection: Connection) -> None:
        added, failed = back_fill(connection, self._settings, self._exhausted)
        self._note("candidates_back_filled", added)
        self._note("subtasks_exhausted", failed)
        replaced, given_up = rebind(connection, self._settings, self._overdue)
        self._note("candidates_rebound", replaced)
        self._note("candidates_given_up", given_up)

    def _sweep(self, connection: Connection) -> None:
        if time.monotonic() - self._swept < SWEEP_SECONDS:
            return
        self._note("stray_candidates_ended", end_stray_candidates(connection))
        self._note("tasks_finished", finish_tasks(connection, unfinished_business(connection)))
        self._swept = time.monotonic()

    def _find_lost_messages(self) -> None:
        registry = self._settings.registry
        with transaction(self._engine) as connection:
            ready = live_queues(live_workers(connection, self._settings.worker_timeout), ready_only=True)
        serving = [model.name for model in registry.models.values() if model.queue in ready]
        lengths = self._publisher.queue_lengths([registry.queues[name] for name in serving]) if serving else {}
        empty = [name for name in serving if lengths[registry.queues[name]] == 0]
        with transaction(self._engine) as connection:
            lost = lost_messages(connection, empty, self._settings.lost_after)
            unsent = unsend(connection, lost, self._settings.retry_delay) if lost else 0
            self._note("messages_lost", unsent, messages=ids(lost))

    def judge_what_is_unjudged(self) -> None:
        """Send what is complete, and no chord will judge, to the judges. Raises `Unreachable`."""
        waiting = self._publisher.queue_lengths([JUDGE_QUEUE])[JUDGE_QUEUE]
        patience = Patience(
            grace=self._settings.judge_grace,
            lost_after=self._settings.lost_after,
            resend_after=self._settings.lease_seconds,
            queue_empty=waiting == 0,
        )
        self._probe_judges(patience)
        for number in range(JUDGE_MESSAGES):
            if waiting + number >= self._settings.judge_window:
                return
            with transaction(self._engine) as connection:
                message = send_judging(connection, patience, JUDGED_TOGETHER)
            if message is None:
                return
            self._send_judging(message)
            if len(message.subtask_ids) < JUDGED_TOGETHER:
                return

    def _probe_judges(self, patience: Patience) -> None:
        """Ask each suspended judge that is due about one subtask."""
        with transaction(self._engine) as connection:
            due = due_probes(connection, Guarded.JUDGE)
        for judge in due:
            with transaction(self._engine) as connection:
                probe = send_judge_probe(connection, patience, judge)
                if probe is not None:
                    start_probe(connection, Guarded.JUDGE, judge, self._settings.breaker)
            if probe is not None:
                log.info(f"{judge} is suspended and probed", action="judge_probed", judge=judge)
                self._send_judging(probe)

    def _send_judging(self, message: JudgeMessage) -> None:
        try:
            self._publisher.send_judging(message)
        except Unreachable:
            with transaction(self._engine) as connection:
                unsend_judging(connection, message.id)
            raise
        self._note(
            "judging_sent",
            len(message.subtask_ids),
            message=str(message.id),
            tasks=ids(message.task_ids),
            subtasks=ids(message.subtask_ids),
        )

    def _note(self, action: str, count: int, **named: str | list[str]) -> None:
        if count:
            self._found = True
            log.info(f"{action.replace('_', ' ')}: {count}", action=action, count=count, **named)
