"""From pending tasks to ready subtasks: one subtask per task, of the capability that the caller named."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from db.blobs import Artifact, artifacts_of
from db.errors import InvalidRequest
from db.logs import get_logger
from db.settings import Settings
from db.tasks import PendingTask, SubtaskRow, lock_pending, reject_tasks, start_tasks
from scheduler.requests import check_request, parse_attachments, parse_options

log = get_logger(__name__)


def plan_pending(connection: Connection, settings: Settings, limit: int) -> int:
    """Check and start up to `limit` pending tasks; what can never run fails. Returns how many it saw."""
    tasks = lock_pending(connection, limit)
    if not tasks:
        return 0
    digests = [item["sha256"] for task in tasks for item in task.attachments if _has_digest(item)]
    known = artifacts_of(connection, digests) if digests else {}
    rows: list[SubtaskRow] = []
    refused: dict[UUID, dict[str, str]] = {}
    for task in tasks:
        try:
            rows.append(_only_subtask(settings, task, known))
        except InvalidRequest as error:
            refused[task.id] = {"code": error.code, "message": str(error)}
            log.info(f"Refused: {error}", action="task_refused", task=str(task.id))
    start_tasks(connection, rows)
    reject_tasks(connection, refused)
    return len(tasks)


def _has_digest(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("sha256"), str)


def _only_subtask(settings: Settings, task: PendingTask, known: dict[str, Artifact]) -> SubtaskRow:
    options = parse_options(task.options)
    references = parse_attachments(task.attachments)
    for reference in references:
        if reference.sha256 not in known:
            raise InvalidRequest(f"attachments: no file {reference.sha256} is stored; upload it first.")
    entry = check_request(
        settings.registry,
        settings,
        request=task.request,
        capability=task.capability,
        options=options,
        media_types=[(reference.name, known[reference.sha256].media_type) for reference in references],
    )
    inputs: list[dict[str, Any]] = [{"request": True}] if task.request else []
    inputs += [{"attachment": number} for number in range(len(references))]
    return SubtaskRow(
        task_id=task.id,
        position=0,
        name=entry.name,
        capability=entry.name,
        inputs=inputs,
        options={"params": options.params, "models": list(options.models)},
        source=task.source,
        priority=task.priority,
        candidates_wanted=options.candidates or len(options.models) or entry.candidates or settings.candidates,
        quorum=1,
        judge=options.judge or entry.judge,
        deadline=task.deadline,
    )
