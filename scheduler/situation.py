"""What a task waits for, with everything looked up that `scheduler.why` needs to say it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from db.queries import judge_rows, model_rows, task_situation
from db.states import WorkerState
from db.workers import live_queues, live_workers
from scheduler.why import Surroundings, why

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection

    from db.settings import Settings


def explain(connection: Connection, settings: Settings, task: UUID) -> dict[str, Any]:
    """A task's id, its status, and one sentence about what it waits for. Raises `NotFound`."""
    situation = task_situation(connection, task)
    workers = live_workers(connection, settings.worker_timeout)
    around = Surroundings(
        registry=settings.registry,
        scheduler=any(w.name.startswith("scheduler") and w.status == WorkerState.READY for w in workers),
        live=frozenset(live_queues(workers)),
        models=model_rows(connection),
        judges=judge_rows(connection),
        bind_wait=settings.bind_wait,
    )
    return {"id": task, "status": situation["status"], "why": why(situation, around)}
