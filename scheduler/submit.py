"""Taking tasks in: check everything, store the blobs, then one row in one transaction. Nothing is half stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import Engine

from db.blobs import Artifact, artifacts_of, blob_store, digest_of, record_artifacts, touch_artifacts
from db.engine import engine_of, transaction
from db.errors import InvalidRequest, NoWorker
from db.settings import Settings
from db.tasks import TaskRow, insert_task
from db.workers import live_queues, live_workers
from scheduler.media import sniff
from scheduler.requests import (
    DEFAULT_CAPABILITY,
    check_request,
    check_storable,
    parse_attachments,
    parse_options,
)

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


def submit(settings: Settings, task: NewTask, *, needs_worker: bool = False) -> UUID:
    """Store a task and return its id; a scheduler picks it up at once.

    Raises `InvalidRequest` for a task that can never run, `Unreachable` where Postgres or the blob store is away,
    `BacklogFull` where the source has too many open tasks, `db.tasks.IdempotencyConflict`, and with `needs_worker`
    `NoWorker` where no live worker serves it right now.
    """
    engine = engine_of(settings.dsn, "submit")
    _check_fields(task)
    options = parse_options(task.options)
    if not isinstance(task.attachments, list | tuple):  # a Celery message may hold anything
        raise InvalidRequest("attachments must be a list.")
    uploads = [_read(item, settings) for item in task.attachments if not isinstance(item, Mapping)]
    references = parse_attachments([item for item in task.attachments if isinstance(item, Mapping)])
    digests = [digest_of(upload.data) for upload in uploads]
    with transaction(engine) as connection:
        touch_artifacts(connection, [*digests, *(reference.sha256 for reference in references)])
        known = artifacts_of(connection, [reference.sha256 for reference in references])
    for reference in references:
        if reference.sha256 not in known:
            raise InvalidRequest(f"attachments: no file {reference.sha256} is stored; upload it first.")
    types = [sniff(upload.data) for upload in uploads]
    check_request(
        settings.registry,
        settings,
        request=task.request,
        capability=task.capability,
        options=options,
        media_types=[
            *zip((upload.name for upload in uploads), types, strict=True),
            *((reference.name, known[reference.sha256].media_type) for reference in references),
        ],
    )
    if needs_worker:
        _require_worker(engine, settings, task.capability, options.models)
    blobs = blob_store(settings.blobs)
    for upload in uploads:
        blobs.put(upload.data)
    stored = [
        Artifact(sha256=digest, size=len(upload.data), media_type=media_type)
        for digest, upload, media_type in zip(digests, uploads, types, strict=True)
    ]
    row = TaskRow(
        request=task.request,
        capability=task.capability,
        source=task.source,
        priority=task.priority,
        options=dict(task.options),
        attachments=[
            *({"sha256": d, "name": upload.name} for d, upload in zip(digests, uploads, strict=True)),
            *(reference.model_dump() for reference in references),
        ],
        idempotency_key=task.idempotency_key,
        run_at=task.run_at,
        deadline=task.deadline,
    )
    with transaction(engine) as connection:
        record_artifacts(connection, stored)
        task_id, _ = insert_task(connection, row, settings.max_backlog)
    return task_id


def _require_worker(engine: Engine, settings: Settings, capability: str | None, models: Sequence[str]) -> None:
    wanted = capability or DEFAULT_CAPABILITY
    able = [model for model in settings.registry.models.values() if model.capability == wanted]
    if models:
        able = [model for model in able if model.name in models]
    with transaction(engine) as connection:
        live = live_queues(live_workers(connection, settings.worker_timeout))
    if not any(model.queue in live for model in able):
        names = " ".join(model.name for model in able)
        raise NoWorker(
            f"No live worker serves {wanted}. Start one with `bakeoff worker {names}` (or all with `bakeoff up`), "
            "or store the task all the same with --without-worker: it waits until a worker comes."
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
