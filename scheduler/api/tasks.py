"""Tasks over HTTP: store one or many, read, list, cancel, retry, why."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from db.blobs import AttachmentRef
from db.endings import cancel_tasks, retry_task
from db.engine import transaction
from db.errors import BacklogFull, InvalidRequest
from db.queries import latest_results, task_status, task_story
from db.states import TaskState
from scheduler.api.access import Caller, Reader, Submitter
from scheduler.api.fields import Moment, Priority, SourceName
from scheduler.api.problems import Conflict
from scheduler.api.services import Services, Shared, check_sees, document
from scheduler.jsonl import moment
from scheduler.requests import TaskOptions
from scheduler.situation import explain
from scheduler.submit import NewTask, submit, submit_many

router = APIRouter(prefix="/v1", tags=["tasks"])

MOST_LISTED = 500
OPTIONS = "; ".join(f"`{name}`: {field.description}" for name, field in TaskOptions.model_fields.items())


class TaskIn(BaseModel):
    """A request, as its caller states it. Everything but the request, or a file, may be left out."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {
                    "request": "Name the capital of France.",
                    "capability": "text-generation",
                    "options": {"candidates": 3},
                }
            ]
        },
    )

    request: str = Field("", description="The request in words; may be empty where a file says it all.")
    capability: str | None = Field(None, description="Such as image-to-text/ocr; left out, a planner decides.")
    source: SourceName | None = Field(
        None, description="Who asks; the queue is fair between sources. Left out: the key's own, else `api`."
    )
    priority: Priority = Field(0, description="Higher runs first.")
    options: dict[str, Any] = Field({}, description=OPTIONS)
    attachments: list[AttachmentRef] = Field([], description="Files stored before, by POST /v1/attachments.")
    run_at: Moment | None = Field(None, description="Not before this time.")
    deadline: Moment | None = Field(None, description="Judge what exists by then, or expire.")

    def as_new(self, caller: Caller, idempotency_key: str | None) -> NewTask:
        """What is stored. Raises `InvalidRequest`, or `Forbidden` for another source than the key's."""
        return NewTask(
            request=self.request,
            capability=self.capability,
            source=caller.source_of(self.source),
            priority=self.priority,
            options=self.options,
            attachments=[reference.model_dump() for reference in self.attachments],
            idempotency_key=idempotency_key,
            run_at=moment("run_at", self.run_at),
            deadline=moment("deadline", self.deadline),
        )


class BatchItem(TaskIn):
    """A task of a batch; its idempotency key stands in it."""

    idempotency_key: str | None = Field(None, min_length=1, max_length=200)


class BatchIn(BaseModel):
    """Tasks to be stored in one call."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"tasks": [{"request": "Say hello.", "capability": "text-generation"}]}]},
    )

    tasks: list[BatchItem] = Field(min_length=1, max_length=10_000)


class Accepted(BaseModel):
    """A task that is committed: nothing loses it any more."""

    id: UUID
    url: str


class BatchProblem(BaseModel):
    """Why one task of a batch was not stored."""

    code: str
    detail: str


class BatchResult(BaseModel):
    """What became of one task of a batch."""

    id: UUID | None = None
    url: str | None = None
    problem: BatchProblem | None = None


class BatchOut(BaseModel):
    """What became of each task of a batch, in its order."""

    stored: int
    refused: int
    tasks: list[BatchResult]


class Listed(BaseModel):
    """A task in a list."""

    model_config = ConfigDict(extra="allow")

    task_id: UUID
    source: str
    status: TaskState
    request: str
    answer: str | None
    error: dict[str, Any] | None
    created_at: str
    finished_at: str | None


class Page(BaseModel):
    """A page of a list; `next` leads to the one after it."""

    tasks: list[Listed]
    next: str | None = Field(description="Give it as `cursor`; null: this was the last page.")


class Story(BaseModel):
    """Everything stored about a task."""

    model_config = ConfigDict(extra="allow")

    id: UUID
    status: TaskState
    source: str
    request: str
    capability: str | None
    answer: str | None
    confidence: float | None
    error: dict[str, Any] | None
    subtasks: list[dict[str, Any]] = Field(description="Each with its candidates and its verdict.")


class Cancelled(BaseModel):
    """A task that is cancelled. `cancelled`: by this call; false where it was before."""

    id: UUID
    status: Literal["cancelled"]
    cancelled: bool


class Retried(Accepted):
    """A new task that asks the same again."""

    retry_of: UUID


class Why(BaseModel):
    """What a task waits for, in one sentence."""

    id: UUID
    status: TaskState
    why: str


IdempotencyKey = Annotated[
    str | None,
    Header(min_length=1, max_length=200, description="The same key and request of a source is stored once."),
]


def _url(task: UUID) -> str:
    return f"/v1/tasks/{task}"


@router.post("/tasks", status_code=202, response_model=Accepted)
def create_task(
    body: TaskIn, caller: Submitter, shared: Shared, response: Response, idempotency_key: IdempotencyKey = None
) -> Accepted:
    """Store a task. The answer comes after the commit: from then on it is never lost."""
    id_ = submit(shared.settings, body.as_new(caller, idempotency_key))
    response.headers["Location"] = _url(id_)
    return Accepted(id=id_, url=_url(id_))


@router.post(
    "/task-batches",
    status_code=202,
    response_model=BatchOut,
    responses={207: {"model": BatchOut, "description": "Some were refused; the others are stored."}},
)
def create_tasks(body: BatchIn, caller: Submitter, shared: Shared, response: Response) -> BatchOut:
    """Store many tasks. Those that are wrong are refused one by one; the others are stored."""
    if len(body.tasks) > shared.settings.max_bulk:
        raise InvalidRequest(f"{len(body.tasks)} tasks in one call; BAKEOFF_MAX_BULK is {shared.settings.max_bulk}.")
    results: list[BatchResult] = [BatchResult() for _ in body.tasks]
    ready: list[tuple[int, NewTask]] = []
    for number, item in enumerate(body.tasks):
        try:
            ready.append((number, item.as_new(caller, item.idempotency_key)))
        except InvalidRequest as error:
            results[number] = _refused(error)
    _store(shared, ready, results)
    stored = sum(result.id is not None for result in results)
    if stored < len(results):
        response.status_code = 207
    return BatchOut(stored=stored, refused=len(results) - stored, tasks=results)


def _store(shared: Services, items: Sequence[tuple[int, NewTask]], results: list[BatchResult]) -> None:
    """Store all in one transaction; where one is wrong each half by itself, until the wrong one is alone."""
    if not items:
        return
    try:
        ids = submit_many(shared.settings, [task for _, task in items])
    except InvalidRequest as error:
        if len(items) == 1:
            results[items[0][0]] = _refused(error)
            return
        half = len(items) // 2
        _store(shared, items[:half], results)
        _store(shared, items[half:], results)
    except BacklogFull as error:
        if all(result.id is None for result in results):
            raise  # nothing is stored, and the header says when to come back
        for number, _ in items:
            results[number] = _refused(error)
    else:
        for (number, _), id_ in zip(items, ids, strict=True):
            results[number] = BatchResult(id=id_, url=_url(id_))


def _refused(error: InvalidRequest | BacklogFull) -> BatchResult:
    return BatchResult(problem=BatchProblem(code=error.code, detail=str(error)))


@router.get("/tasks", response_model=Page)
def list_tasks(
    caller: Reader,
    shared: Shared,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 50,
    status: Annotated[TaskState | None, Query(description="In this state only.")] = None,
    source: Annotated[str | None, Query(min_length=1, max_length=100, description="Of this source only.")] = None,
    since: Annotated[Moment | None, Query(description="Stored at this time or later.")] = None,
    cursor: Annotated[str | None, Query(description="The `next` of the page before.")] = None,
) -> JSONResponse:
    """The latest tasks, the newest first."""
    before = None if cursor is None else _decoded(cursor)
    start = moment("since", since)
    if source is not None:
        source = caller.source_of(source)
    with transaction(shared.engine) as connection:
        rows = latest_results(connection, limit=limit + 1, source=source or caller.source, status=status, before=before)
    if start is not None:  # ids are times: what is too old comes last
        rows = [row for row in rows if (moment("created_at", row["created_at"]) or start) >= start]
    more = len(rows) > limit
    rows = rows[:limit]
    return document({"tasks": rows, "next": _encoded(UUID(rows[-1]["task_id"])) if more else None})


def _encoded(task: UUID) -> str:
    return base64.urlsafe_b64encode(task.bytes).decode().rstrip("=")


def _decoded(cursor: str) -> UUID:
    try:
        return UUID(bytes=base64.b64decode(cursor + "==", altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        raise InvalidRequest("cursor: it is not the `next` of a page; start again without it.") from None


@router.get("/tasks/{task_id}", response_model=Story)
def get_task(task_id: UUID, caller: Reader, shared: Shared) -> JSONResponse:
    """Everything about one task: its plan, candidates, verdicts with reasons, answer."""
    with transaction(shared.engine) as connection:
        check_sees(connection, caller, task_id)
        return document(task_story(connection, task_id))


@router.get("/tasks/{task_id}/why", response_model=Why)
def why_task(task_id: UUID, caller: Reader, shared: Shared) -> JSONResponse:
    """What a task waits for, in one sentence."""
    with transaction(shared.engine) as connection:
        check_sees(connection, caller, task_id)
        return document(explain(connection, shared.settings, task_id))


@router.post("/tasks/{task_id}/cancel", response_model=Cancelled)
def cancel_task(task_id: UUID, caller: Submitter, shared: Shared) -> Cancelled:
    """Cancel a task and everything under it. A result that came first stays, and the answer is 409."""
    with transaction(shared.engine) as connection:
        check_sees(connection, caller, task_id)
        done = bool(cancel_tasks(connection, [task_id]))
        state = task_status(connection, [task_id])[task_id]
    if state != TaskState.CANCELLED:
        raise Conflict(f"Task {task_id} is {state} already.")
    return Cancelled(id=task_id, status="cancelled", cancelled=done)


@router.post("/tasks/{task_id}/retry", status_code=202, response_model=Retried)
def retry(task_id: UUID, caller: Submitter, shared: Shared, response: Response) -> Retried:
    """Ask a finished task again, as a new one that names the old."""
    with transaction(shared.engine) as connection:
        check_sees(connection, caller, task_id)
        state = task_status(connection, [task_id])[task_id]
        if not TaskState(state).final:
            raise Conflict(f"Task {task_id} is {state}; only a finished one can be tried again.")
        new = retry_task(connection, task_id)
    response.headers["Location"] = _url(new)
    return Retried(id=new, url=_url(new), retry_of=task_id)
