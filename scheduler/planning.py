"""From pending tasks to ready subtasks: one subtask per task, of the capability that the caller named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from db.blobs import Artifact, artifacts_of
from db.cache import input_key
from db.errors import InvalidRequest
from db.logs import get_logger
from db.registry import CapabilityEntry
from db.settings import Settings
from db.tasks import PendingTask, SubtaskRow, lock_pending, read_pending, reject_tasks, start_tasks
from scheduler.requests import TaskOptions, candidates_of, check_request, parse_attachments, parse_options
from worker.cleaning import clean_text

log = get_logger(__name__)

LONGEST_REASON = 1000  # characters of a refusal: it may quote what the caller wrote


def plan_pending(connection: Connection, settings: Settings, limit: int) -> int:
    """Check and start up to `limit` pending tasks; what can never run fails. Returns how many it saw.

    Rows come from anybody who may insert: one that cannot even be read (a number of 5,000 digits, objects nested a
    thousand deep) makes its batch be planned one by one, and fails alone.
    """
    ids = lock_pending(connection, limit)
    if not ids:
        return 0
    if _planned(connection, settings, ids) is not None:
        for task in ids:
            problem = _planned(connection, settings, [task])
            if problem is not None:
                reason = f"The task cannot be read ({type(problem).__name__}: {' '.join(str(problem).split())[:200]})."
                reject_tasks(connection, {task: {"code": InvalidRequest.code, "message": clean_text(reason)}})
                log.warning(reason, action="task_unreadable", task=str(task))
    return len(ids)


def _planned(connection: Connection, settings: Settings, ids: Sequence[UUID]) -> Exception | None:
    """Plan these tasks in a savepoint; returns what a row's content raised, where nothing was stored then.

    Raises what a lost connection raises.
    """
    try:
        with connection.begin_nested():
            _plan(connection, settings, read_pending(connection, ids))
    except OperationalError:
        raise
    except Exception as problem:  # noqa: BLE001 - whatever a stranger's row makes Python or Postgres raise
        return problem
    return None


def _plan(connection: Connection, settings: Settings, tasks: Sequence[PendingTask]) -> None:
    digests = [item["sha256"] for task in tasks for item in task.attachments if _has_digest(item)]
    known = artifacts_of(connection, digests) if digests else {}
    rows: list[SubtaskRow] = []
    refused: dict[UUID, dict[str, str]] = {}
    for task in tasks:
        try:
            rows.append(_only_subtask(settings, task, known))
        except InvalidRequest as error:
            refused[task.id] = {"code": error.code, "message": clean_text(str(error))[:LONGEST_REASON]}
            log.info("Refused a task", action="task_refused", task=str(task.id), reason=str(error)[:LONGEST_REASON])
    start_tasks(connection, rows, settings.max_subtasks)
    reject_tasks(connection, refused)


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
        candidates_wanted=candidates_of(entry, options, settings),
        quorum=options.quorum,
        judge=options.judge or entry.judge,
        deadline=task.deadline,
        input_key=_input_key(settings, task, entry, options, [known[reference.sha256] for reference in references]),
    )


def _input_key(
    settings: Settings, task: PendingTask, entry: CapabilityEntry, options: TaskOptions, files: Sequence[Artifact]
) -> bytes | None:
    """The key of the result cache; None where the caller wants none, or what is read is too much to keep."""
    size = len(task.request) + sum(file.size for file in files)
    if not options.cache or size > settings.cache_max_bytes:
        return None
    return input_key(
        capability=entry.name,
        instruction=entry.instruction,
        texts=[task.request],
        files=[(item["sha256"], item.get("name", "")) for item in task.attachments],
        params=options.params,
    )
