"""Everything that the scheduler, workers, judges, clients and operators ask the database, once or a few times.

The real code runs wherever it can be called: planning, sending, reconciling, `run_message`, `judge_wave`.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from sqlalchemy import text

from benchmarks.scale import clients
from benchmarks.scale.registry import NoBroker, everybody_is_ready
from db import blobs, breaker, candidates, endings, lease, prune, queries, verdicts
from db.candidates import Message
from db.engine import make_engine, transaction
from db.errors import BacklogFull
from db.lease import Leased
from db.states import ModelState
from scheduler.dispatch import Dispatcher
from scheduler.planning import plan_pending
from scheduler.reconcile import Reconciler
from scheduler.submit import NewTask, submit, submit_many
from worker.judging import judge_wave
from worker.process import ModelProcess
from worker.role import WorkerRole
from worker.run import run_message

if TYPE_CHECKING:
    from db.settings import Settings

LOOKS = 4  # of a scheduler: retries, and models asked in place of others, come with the later ones
RETRY_DELAY = 0.01  # seconds
LONG_AGO = 10 * 365 * 86_400.0  # seconds; nothing is that old, so nothing is pruned
URGENT = 100  # before any backlog


class Life:
    """A scheduler, a worker of every model, a judge, a client and an operator in one process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.model_copy(update={"retry_delay": RETRY_DELAY})
        self._engine = make_engine(settings.dsn, application="scale", pool_size=2)
        self._broker = NoBroker(self._settings)
        self._process = ModelProcess(self._settings, WorkerRole(name="scale"), self._engine)
        with transaction(self._engine) as connection:
            everybody_is_ready(connection, self._settings)

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def live(self) -> None:
        """Everything, once."""
        tasks = self._submit()
        for _ in range(LOOKS):
            self._look()
            self._work()
            time.sleep(2 * RETRY_DELAY)
        self._lose()
        self._read(tasks)
        self._operate()
        self._look()

    def _submit(self) -> list[UUID]:
        soon = datetime.now(UTC) + timedelta(seconds=0.05)
        task = NewTask(request="What is said here?", source="source 1", priority=URGENT)
        kinds = [
            task,
            replace(task, idempotency_key=f"key {uuid4()}"),
            replace(task, request="all fail on this"),
            replace(task, request="retry this"),
            replace(task, deadline=soon, run_at=soon - timedelta(seconds=1)),
        ]
        tasks = [submit(self._settings, kind) for kind in kinds]
        submit(self._settings, kinds[1])  # once more: its key is known
        with transaction(self._engine) as connection:  # as for an attachment
            digest = uuid4().hex * 2
            blobs.touch_artifacts(connection, [digest])
            blobs.artifacts_of(connection, [digest])
            blobs.record_artifacts(connection, [blobs.Artifact(sha256=digest, size=1, media_type="image/png")])
        with suppress(BacklogFull):
            submit(self._settings.model_copy(update={"max_backlog": 1}), task)
        return tasks + submit_many(self._settings, [task] * 100)

    def _look(self) -> None:
        """What a scheduler does in one look, its sweep included; one model cannot be had meanwhile."""
        with transaction(self._engine) as connection:
            plan_pending(connection, self._settings, 256)
            breaker.set_model_state(connection, "spare", ModelState.PAUSED, "not now")
        Reconciler(self._settings, self._engine, self._broker).reconcile()
        with transaction(self._engine) as connection:
            breaker.set_model_state(connection, "spare", ModelState.ACTIVE)
        dispatcher = Dispatcher(self._settings, self._engine, self._broker)
        todo = dispatcher.look()
        dispatcher.send_waiting(todo)
        dispatcher.dispatch(todo)

    def _work(self) -> None:
        """Run and judge what was sent; where nothing was, since windows are full, a wave that waits."""
        sent = self._broker.messages or self._waiting_wave()
        judgings = self._broker.judgings or [(None, sent[0][0].subtask_ids)] if sent else []
        for message, in_chord in sent[:6]:
            run_message(
                self._process, message=message.id, model=message.model, ids=message.candidate_ids, in_chord=in_chord
            )
        for message_id, subtasks in judgings[:4]:
            judge_wave(self._process, message_id or uuid4(), list(subtasks))
        self._broker.forget()

    def _waiting_wave(self) -> list[tuple[Message, bool]]:
        with self._engine.connect() as connection:
            rows = connection.execute(
                text(
                    """
                    WITH wave AS (
                        SELECT subtask_id FROM candidate WHERE status = 'sent' AND message_id = (
                            SELECT message_id FROM candidate WHERE status = 'sent' LIMIT 1)
                    )
                    SELECT c.message_id AS id, c.model, array_agg(c.id) AS candidate_ids,
                           array_agg(c.subtask_id) AS subtask_ids, array_agg(s.task_id) AS task_ids
                    FROM candidate AS c JOIN subtask AS s ON s.id = c.subtask_id
                    WHERE c.status = 'sent' AND c.subtask_id IN (SELECT subtask_id FROM wave)
                    GROUP BY c.message_id, c.model
                    """
                )
            )
            return [(Message(**row._mapping), True) for row in rows]  # noqa: SLF001 - the documented name

    def _lose(self) -> None:
        """Leases that run out, end early, are renewed or given back; messages that cannot be published."""
        sent = self._waiting_wave()
        with transaction(self._engine) as connection:
            for message, _ in sent[:1]:
                candidates.claim_message(connection, message.candidate_ids, message.id, 0.0, charge=False)
            for leased in Leased:
                lease.renew(connection, leased, uuid4(), 60.0)
                lease.give_back(connection, leased, uuid4())
            lease.end_message(connection, uuid4())
            lease.return_message(connection, uuid4())
            for message, _ in sent[1:2]:
                candidates.unsend(connection, [message.id])
            verdicts.unsend_judging(connection, uuid4())
            verdicts.judge_failed(connection, uuid4(), [uuid4()], "no answer", 1.0)
            breaker.note_failure(connection, breaker.Guarded.JUDGE, "longest", "no answer", self._settings.breaker)
            breaker.note_success(connection, breaker.Guarded.JUDGE, "longest")

    def _read(self, tasks: list[UUID]) -> None:
        """What clients and `bakeoff results` ask."""
        with transaction(self._engine) as connection:
            middle = connection.execute(
                text("SELECT finished_at, id FROM task WHERE finished_at < now() - interval '10 days' LIMIT 1")
            ).one()
            clients.poll(connection, tasks[0])
            clients.page_by_time(connection, (middle.finished_at, middle.id), 100)
            clients.page_by_transaction(connection, "3", middle.id, 100)
            clients.latest_of_source(connection, "source 7", 10)
            clients.latest_of_source(connection, "nobody", 10)
            queries.task_status(connection, tasks)
            queries.task_story(connection, middle.id)
            queries.task_situation(connection, tasks[0])
            queries.tasks_starting_with(connection, str(middle.id)[:13])
            queries.latest_results(connection, limit=20)
            for source in ("source 7", "nobody"):
                queries.latest_results(connection, limit=20, source=source)
            for status in ("done", "failed", "pending"):
                queries.latest_results(connection, limit=20, status=status)
            queries.latest_results(connection, limit=20, source="source 1", status="done", before=middle.id)

    def _operate(self) -> None:
        """What `bakeoff status`, `watch`, `cancel`, `retry`, `prune` and the models' states ask."""
        with transaction(self._engine) as connection:
            queries.open_counts(connection)
            queries.backlogs(connection)
            queries.open_tasks(connection, 30)
            queries.model_rows(connection)
            queries.judge_rows(connection)
            queries.recent_verdicts(connection)
            mine = queries.open_of_source(connection, "source 1", 10)
            endings.cancel_tasks(connection, mine)
            for task in mine[:1]:
                endings.retry_task(connection, task)
            breaker.set_model_state(connection, "beta", ModelState.PAUSED)
            breaker.set_model_state(connection, "beta", ModelState.ACTIVE)
            prune.count_finished(connection, LONG_AGO)
            prune.delete_finished(connection, LONG_AGO, 500)
            digests = prune.files_after(connection, "", 500)
            prune.delete_unnamed_files(connection, digests or ["0" * 64])
            prune.delete_gone_workers(connection, LONG_AGO)
