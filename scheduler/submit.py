"""Taking tasks in: check everything, store the blobs, then the rows in one transaction. Nothing is half stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Connection, Engine

from db.blobs import (
    Artifact,
    AttachmentRef,
    artifacts_of,
    blob_store,
    digest_of,
    record_artifacts,
    touch_artifacts,
)
from db.callbacks import Callback, store_callback
from db.engine import engine_of, transaction
from db.errors import InvalidRequest, NoWorker
from db.logs import get_logger, portions
from db.plan import Plan
from db.settings import Settings
from db.tasks import TaskRow, insert_tasks
from db.tracing import here, span
from db.workers import live_queues, live_workers
from scheduler.admission import ADMISSION
from scheduler.callbacks import parse_callback
from scheduler.media import check_media, sniff
from scheduler.requests import (
    NOBODY,
    TaskOptions,
    check_request,
    check_storable,
    options_of,
    parse_attachments,
    parse_options,
)
from worker.role import INTEGRATOR_QUEUE, PLANNER_QUEUE

log = get_logger(__name__)

THINKERS = {PLANNER_QUEUE: "plans", INTEGRATOR_QUEUE: "integrates"}
LONGEST_NAME = 255  # what db.blobs.AttachmentRef takes
NAMES_OF_KINDS = {str: "a text", int: "a whole number", Mapping: "an object"}


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A file that comes with a request."""

    name: str
    data: bytes


@dataclass(frozen=True, kw_only=True)
class NewTask:
    """A request, as a caller states it.

    `attachments` are paths, uploads, or references to stored blobs (`{"sha256": ..., "name": ...}`).
    `callback` is a Celery signature as JSON (`scheduler.callbacks`).
    """

    request: str = ""
    capability: str | None = None
    source: str = "python"
    priority: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    attachments: Sequence[Path | Upload | Mapping[str, Any]] = ()
    idempotency_key: str | None = None
    run_at: datetime | None = None
    deadline: datetime | None = None
    callback: Mapping[str, Any] | None = None


def submit(settings: Settings, task: NewTask, *, needs_worker: bool = False) -> UUID:
    """Store a task and return its id; a scheduler picks it up at once.

    Raises `InvalidRequest` for a task that can never run, `Unreachable` where Postgres or the blob store is away,
    `BacklogFull` where the source has too many open tasks, `db.tasks.IdempotencyConflict`, and with `needs_worker`
    `NoWorker` where no live worker serves it right now.
    """
    return submit_many(settings, [task], needs_worker=needs_worker)[0]


def submit_many(settings: Settings, tasks: Sequence[NewTask], *, needs_worker: bool = False) -> list[UUID]:
    """Store many tasks, all or none, in one transaction; returns their ids in order.

    Raises what `submit` raises; where there are several tasks the sentence names the one at fault by its position.
    """
    if len(tasks) > settings.max_bulk:
        raise InvalidRequest(f"{len(tasks)} tasks in one call; BAKEOFF_MAX_BULK allows {settings.max_bulk}.")
    engine = engine_of(settings.dsn, "submit")
    drafts = [_of(number, len(tasks), partial(_draft, task, settings)) for number, task in enumerate(tasks)]
    references = {reference.sha256 for draft in drafts for reference in draft.references}
    named = references | {file.artifact.sha256 for draft in drafts for file in draft.files}
    known: dict[str, Artifact] = {}
    if named:
        with transaction(engine) as connection:
            touch_artifacts(connection, named)
            known = artifacts_of(connection, references)
    needed: dict[tuple[str, tuple[str, ...]], None] = {}  # capabilities and models
    for number, draft in enumerate(drafts):
        plan = _of(number, len(tasks), partial(_check, draft, settings, known))
        needed |= dict.fromkeys(_needed(draft, plan))
    if needs_worker:
        _require_workers(engine, settings, list(needed))
    files = [file for draft in drafts for file in draft.files]
    for file in files:
        _put(file, settings)
    with (
        span("submit", "PRODUCER", parent=here(), bakeoff__tasks=len(drafts)) as spanned,
        transaction(engine) as connection,
    ):
        record_artifacts(connection, [file.artifact for file in files])
        bound = ADMISSION.bound(connection, (draft.task.source for draft in drafts), settings.max_backlog)
        rows = [_row(draft, here()) for draft in drafts]
        stored = insert_tasks(connection, rows, bound)
        _store_callbacks(connection, stored, drafts)
        if len(stored) == 1:
            spanned.set(bakeoff__task=str(stored[0][0]))
    for new, says in ((True, "Stored"), (False, "Known already")):
        for some in portions(task for task, is_new in stored if is_new is new):
            log.info(f"{says}: {len(some)}", action="tasks_stored" if new else "tasks_known", tasks=some)
    return [task for task, _ in stored]


@dataclass(frozen=True, kw_only=True)
class _NewFile:
    """A file that a task brings. Its bytes are read again when they are stored: many tasks hold none of them."""

    name: str
    origin: Path | Upload
    artifact: Artifact


@dataclass(frozen=True, kw_only=True)
class _Draft:
    """A task whose own words are checked, not yet what they refer to."""

    task: NewTask
    options: TaskOptions
    files: list[_NewFile]
    references: list[AttachmentRef]
    callback: Callback | None


T = TypeVar("T")


def _of(number: int, count: int, step: Callable[[], T]) -> T:
    """Take a step for one of `count` tasks, and name the task where the step refuses it."""
    try:
        return step()
    except InvalidRequest as error:
        if count == 1:
            raise
        raise type(error)(f"Task {number} of {count} (the first is 0): {error}") from None


def _draft(task: NewTask, settings: Settings) -> _Draft:
    _check_fields(task)
    options = parse_options(task.options)
    if not isinstance(task.attachments, list | tuple):  # a Celery message may hold anything
        raise InvalidRequest("attachments must be a list.")
    return _Draft(
        task=task,
        options=options,
        files=[_new_file(item, settings) for item in task.attachments if not isinstance(item, Mapping)],
        references=parse_attachments([item for item in task.attachments if isinstance(item, Mapping)]),
        callback=parse_callback(settings, task.callback),
    )


def _new_file(item: Path | Upload, settings: Settings) -> _NewFile:
    upload = _read(item, settings)
    artifact = Artifact(sha256=digest_of(upload.data), size=len(upload.data), media_type=sniff(upload.data))
    try:
        check_media(BytesIO(upload.data), artifact.media_type, settings)
    except InvalidRequest as error:
        raise InvalidRequest(f"{upload.name}: {error}") from None
    return _NewFile(name=upload.name, origin=item if isinstance(item, Path) else upload, artifact=artifact)


def _check(draft: _Draft, settings: Settings, known: Mapping[str, Artifact]) -> Plan | None:
    for reference in draft.references:
        if reference.sha256 not in known:
            raise InvalidRequest(f"attachments: no file {reference.sha256} is stored; upload it first.")
    return check_request(
        settings.registry,
        settings,
        request=draft.task.request,
        capability=draft.task.capability,
        options=draft.options,
        media_types=[
            *((file.name, file.artifact.media_type) for file in draft.files),
            *((reference.name, known[reference.sha256].media_type) for reference in draft.references),
        ],
    )


def _put(file: _NewFile, settings: Settings) -> None:
    if blob_store(settings.blobs).put(_read(file.origin, settings).data) != file.artifact.sha256:
        raise InvalidRequest(f"{file.name} changed while it was read; submit it again when it is whole.")


def _store_callbacks(connection: Connection, stored: Sequence[tuple[UUID, bool]], drafts: Sequence[_Draft]) -> None:
    for (task, _), draft in zip(stored, drafts, strict=True):
        if draft.callback is not None:
            store_callback(connection, task, draft.callback)


def _row(draft: _Draft, traceparent: str | None) -> TaskRow:
    task = draft.task
    return TaskRow(
        request=task.request,
        capability=task.capability,
        source=task.source,
        priority=task.priority,
        options=dict(task.options),
        attachments=[
            *({"sha256": file.artifact.sha256, "name": file.name} for file in draft.files),
            *(reference.model_dump() for reference in draft.references),
        ],
        idempotency_key=task.idempotency_key,
        run_at=task.run_at,
        deadline=task.deadline,
        traceparent=traceparent,
    )


def _needed(draft: _Draft, plan: Plan | None) -> list[tuple[str, tuple[str, ...]]]:
    """Who has to be there for a task: models of each step's capability, and by their queue a planner, an integrator."""
    if plan is None:
        return [(PLANNER_QUEUE, ())]
    needed = [(step.capability, options_of(step, draft.options).models) for step in plan.steps]
    asks_one = draft.options.integrate not in {None, NOBODY}
    return [*needed, (INTEGRATOR_QUEUE, ())] if asks_one else needed


def _require_workers(engine: Engine, settings: Settings, needed: Sequence[tuple[str, tuple[str, ...]]]) -> None:
    with transaction(engine) as connection:
        live = live_queues(live_workers(connection, settings.worker_timeout))
    for capability, models in needed:
        if capability in THINKERS:
            if capability not in live:
                raise NoWorker(
                    f"No live worker {THINKERS[capability]}. Start one with `bakeoff worker --{capability}` (or all "
                    "with `bakeoff up`), or store the task all the same with --without-worker: it waits."
                )
            continue
        able = settings.registry.candidates_for(capability)
        able = [model for model in able if not models or model.name in models]
        if not any(model.queue in live for model in able):
            names = " ".join(model.name for model in able)
            raise NoWorker(
                f"No live worker serves {capability}. Start one with `bakeoff worker {names}` (or all with `bakeoff "
                "up`), or store the task all the same with --without-worker: it waits until a worker comes."
            )


def _check_fields(task: NewTask) -> None:
    """Types and ranges: a task may come from a Celery message, where a field can hold anything."""
    for name, kind in (("request", str), ("source", str), ("priority", int), ("options", Mapping)):
        value = getattr(task, name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InvalidRequest(f"{name} = {value!r:.100} must be {NAMES_OF_KINDS[kind]}.")
    for name in ("capability", "idempotency_key"):
        value = getattr(task, name)
        if value is not None and not isinstance(value, str):
            raise InvalidRequest(f"{name} = {value!r:.100} must be a text.")
    if not 1 <= len(task.source) <= 100:
        raise InvalidRequest(f"source = {task.source!r:.120} must have 1 to 100 characters.")
    if not -100 <= task.priority <= 100:
        raise InvalidRequest(f"priority = {task.priority} must be from -100 to 100; higher runs first.")
    if task.idempotency_key is not None and not 1 <= len(task.idempotency_key) <= 200:
        raise InvalidRequest("idempotency_key must have 1 to 200 characters.")
    _check_times(task)
    for name in ("request", "source", "capability", "idempotency_key", "options"):
        check_storable(name, getattr(task, name))


def _check_times(task: NewTask) -> None:
    for name in ("run_at", "deadline"):
        moment = getattr(task, name)
        if moment is not None and moment.tzinfo is None:
            raise InvalidRequest(f"{name} = {moment} has no time zone.")
    if task.run_at and task.deadline and task.deadline <= task.run_at:
        raise InvalidRequest(f"deadline = {task.deadline} must be after run_at = {task.run_at}.")


def _read(item: Path | Upload | Mapping[str, Any], settings: Settings) -> Upload:
    if isinstance(item, Path):
        try:
            size = item.stat().st_size
            if item.is_dir():
                raise InvalidRequest(f"{item} is a folder; attach a file.")
            _check_size(str(item), size, settings)
            item = Upload(name=item.name, data=item.read_bytes())
        except OSError as error:
            raise InvalidRequest(f"Cannot read {item}: {error.strerror}.") from None
    if not isinstance(item, Upload):
        raise InvalidRequest(f"attachments: {type(item).__name__} is neither a path nor an upload.")
    if len(item.name) > LONGEST_NAME:
        raise InvalidRequest(f"attachments: the name {item.name[:40]!r}... has over {LONGEST_NAME} characters.")
    item = Upload(name=item.name.encode("utf-8", "replace").decode().replace("\x00", ""), data=item.data)
    _check_size(item.name, len(item.data), settings)
    return item


def _check_size(name: str, size: int, settings: Settings) -> None:
    if size == 0:
        raise InvalidRequest(f"{name} is empty.")
    if size > settings.max_attachment_bytes:
        raise InvalidRequest(
            f"{name} has {size} bytes; BAKEOFF_MAX_ATTACHMENT_BYTES allows {settings.max_attachment_bytes}."
        )
