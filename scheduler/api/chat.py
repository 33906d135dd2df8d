"""The OpenAI-compatible door: a chat completion is a task, and its answer the one that the judge likes best."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from db.engine import transaction
from db.errors import BakeoffError, InvalidRequest, WaitTimeout
from db.queries import task_story
from db.states import TaskState
from scheduler.api.access import Caller, Submitter
from scheduler.api.events import EVENT, HEADERS, KEEP_ALIVE
from scheduler.api.fields import Count, Priority, Seed, SourceName, whole
from scheduler.api.messages import Message, expectation, render
from scheduler.api.names import asked_by
from scheduler.api.problems import MEDIA_TYPE, ApiError, answer_to
from scheduler.api.services import Services, Shared
from scheduler.api.tasks import IdempotencyKey
from scheduler.requests import DEFAULT_CAPABILITY
from scheduler.submit import NewTask, submit
from worker.cleaning import clean_json

router = APIRouter(prefix="/v1", tags=["chat"])

PIECE = 200  # characters of one chunk
PARAMS = {"max_tokens": "max_new_tokens", "max_completion_tokens": "max_new_tokens", "temperature": "temperature",
          "top_p": "top_p", "seed": "seed"}  # fmt: skip


class BakeoffIn(BaseModel):
    """What OpenAI's words do not say: fields of a task."""

    model_config = ConfigDict(extra="forbid", strict=True)

    capability: str | None = Field(None, description="Left out: text-generation, or what reads the files that come.")
    source: SourceName | None = None
    priority: Priority = 0
    options: dict[str, Any] = Field({}, description="Options of the task, as POST /v1/tasks has them.")


class StreamOptions(BaseModel):
    """How a stream ends."""

    model_config = ConfigDict(extra="ignore", strict=True)

    include_usage: bool = False


class ChatIn(BaseModel):
    """A chat completion as OpenAI's clients write it; fields that nothing here reads are passed over."""

    model_config = ConfigDict(
        extra="ignore",
        strict=True,
        json_schema_extra={
            "examples": [{"model": "bakeoff", "messages": [{"role": "user", "content": "Name the capital of France."}]}]
        },
    )

    model: str = Field(min_length=1, max_length=200, description="An id of GET /v1/models.")
    messages: list[Message] = Field(min_length=1, max_length=1000)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[Literal[1] | None, BeforeValidator(whole)] = Field(
        None, description="Several models are asked; one answer comes back."
    )
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    seed: Seed | None = None
    response_format: dict[str, Any] | None = Field(
        None, description="json_object or json_schema: only answers that hold it can win."
    )
    tools: list[Any] | None = Field(None, max_length=0, description="None: the models here call no tools.")
    functions: list[Any] | None = Field(None, max_length=0)
    bakeoff: BakeoffIn = BakeoffIn()


class Verdicts(BaseModel):
    """Beside the answer: who gave it, who else was asked, and why it was chosen."""

    model_config = ConfigDict(extra="allow")

    task_id: UUID
    confidence: float | None
    fallback: bool | None
    needs_review: bool | None
    subtasks: list[dict[str, Any]]


class ChatOut(BaseModel):
    """A chat completion as OpenAI's clients read it, with the verdict in `bakeoff`."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: dict[str, int]
    bakeoff: Verdicts


class Unanswered(ApiError):
    """The task ended without an answer. To ask again the same way would end the same way."""

    status, code = 502, "unanswered"


@router.post(
    "/chat/completions",
    response_model=ChatOut,
    responses={200: {"content": {"text/event-stream": {"schema": EVENT}}}},
)
async def chat(
    body: ChatIn, request: Request, caller: Submitter, shared: Shared, idempotency_key: IdempotencyKey = None
) -> Response:
    """Ask several models; the answer is the one that the judge likes best, and the verdict is in `bakeoff`.

    With `stream` comments keep the connection open until the verdict, then the answer comes in chunks. Whoever hangs
    up, or waits too long (504), finds the task by its id: it goes on.
    """
    try:
        task = await run_in_threadpool(_store, shared, body, caller, idempotency_key)
    except BakeoffError as error:
        return _problem(request, error)
    if body.stream:
        include_usage = body.stream_options is not None and body.stream_options.include_usage
        events = _stream(shared, request, task, body.model, include_usage=include_usage)
        return StreamingResponse(events, headers=HEADERS, media_type="text/event-stream")
    try:
        async with aclosing(_waited(shared, task)) as waited:
            async for _ in waited:
                pass
        story = await run_in_threadpool(_answered, shared, task)
    except BakeoffError as error:
        return _problem(request, error, task_id=str(task))
    return JSONResponse(_completion(story, body.model))


def _problem(request: Request, failure: Exception, **more: Any) -> Response:
    """A problem with the member that OpenAI's clients look for, and without their retries where none would help."""
    response = answer_to(request, failure, **more)
    document = json.loads(bytes(response.body))
    code = document["code"]
    document["error"] = {"message": document["detail"], "type": code, "code": code, "param": None}
    headers = {name: value for name, value in response.headers.items() if name != "content-length"}
    response = JSONResponse(document, response.status_code, headers, MEDIA_TYPE)
    if isinstance(failure, Unanswered | WaitTimeout):
        response.headers["x-should-retry"] = "false"
    return response


def _store(shared: Services, body: ChatIn, caller: Caller, key: str | None) -> UUID:
    """The task of a chat. It is refused where no worker could answer it: nobody waits for nothing."""
    asked = asked_by(shared.settings, body.model)
    said = render(body.messages)
    options = dict(body.bakeoff.options)
    if asked.model is not None:
        options["models"] = [asked.model.name]
    if asked.judge is not None:
        options["judge"] = asked.judge
    given = {ours: value for theirs, ours in PARAMS.items() if (value := getattr(body, theirs)) is not None}
    if given:
        named = options.get("params", {})
        options["params"] = {**given, **(named if isinstance(named, Mapping) else {})}
    if (expected := expectation(body.response_format)) is not None:
        options.setdefault("expect", expected)
    capability = body.bakeoff.capability or (asked.model.capability if asked.model else None)
    if capability is None:
        capability = _reads_files(shared) if said.files else DEFAULT_CAPABILITY
    task = NewTask(
        request=said.request,
        capability=capability,
        source=caller.source_of(body.bakeoff.source),
        priority=body.bakeoff.priority,
        options=options,
        attachments=said.files,
        idempotency_key=key,
    )
    return submit(shared.settings, task, needs_worker=True)


def _reads_files(shared: Services) -> str | None:
    """Who reads the files of a chat that does not say: the planner decides, else the only capability that reads any."""
    registry = shared.settings.registry
    if registry.planner is not None:
        return None
    able = sorted(name for name in registry.served if registry.capabilities[name].input != "text")
    if len(able) != 1:
        raise InvalidRequest(
            f"A file comes with the messages; say in bakeoff.capability who reads it: {', '.join(able)}."
        )
    return able[0]


async def _waited(shared: Services, task: UUID) -> AsyncGenerator[None]:
    """Until a task has ended, something every few seconds. Raises `WaitTimeout`; the task goes on."""
    settings = shared.settings
    deadline = time.monotonic() + settings.api_chat_timeout
    grace = settings.stop_seconds / 2  # of a process that is asked to stop; the rest is for the answer
    every = min(settings.api_keep_alive, settings.api_chat_timeout, grace / 2)
    state = ""
    async with aclosing(shared.hub.progress(task, every, patient=True)) as progress:
        async for seen in progress:
            state = seen["status"] if seen else state
            if state and TaskState(state).final:
                return
            stopping = shared.hub.stopping_at
            if time.monotonic() >= (deadline if stopping is None else min(deadline, stopping + grace)):
                break
            yield
    raise WaitTimeout(
        f"No verdict after {settings.api_chat_timeout:g} s, or the server stops. The work goes on: /v1/tasks/{task}."
    )


def _answered(shared: Services, task: UUID) -> dict[str, Any]:
    """The story of a task that is done. Raises `Unanswered` where it ended otherwise."""
    with transaction(shared.engine) as connection:
        story = task_story(connection, task)
    if story["status"] != TaskState.DONE:
        reason = (story["error"] or {}).get("message", "")
        raise Unanswered(f"The task is {story['status']}. {reason}".strip())
    return story


def _completion(story: Mapping[str, Any], model: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": story["answer"], "refusal": None}
    return {
        "id": f"chatcmpl-{story['id']}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": _usage(story),
        "bakeoff": _verdicts(story),
    }


def _usage(story: Mapping[str, Any]) -> dict[str, int]:
    """Tokens of every model that was asked, where they count them: that is what the answer cost."""
    spent = [candidate["usage"] or {} for subtask in story["subtasks"] for candidate in subtask["candidates"]]
    read, written = (int(sum(one.get(key, 0) for one in spent)) for key in ("prompt_tokens", "output_tokens"))
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _verdicts(story: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("id", "model", "status", "seconds", "cached", "error")
    document = {
        "task_id": story["id"],
        "confidence": story["confidence"],
        "fallback": story["fallback"],
        "needs_review": story["needs_review"],
        "subtasks": [
            {
                "id": subtask["id"],
                "name": subtask["name"],
                "capability": subtask["capability"],
                "candidates": [{key: candidate[key] for key in kept} for candidate in subtask["candidates"]],
                "verdict": subtask["verdict"],
            }
            for subtask in story["subtasks"]
        ],
    }
    cleaned: dict[str, Any] = clean_json(document)
    return cleaned


async def _stream(
    shared: Services, request: Request, task: UUID, model: str, *, include_usage: bool
) -> AsyncIterator[bytes]:
    """Comments until the verdict, then chunks; a failure is an event with `error`, as OpenAI's clients read it."""
    try:
        async with aclosing(_waited(shared, task)) as waited:
            async for _ in waited:
                yield KEEP_ALIVE
        story = await run_in_threadpool(_answered, shared, task)
    except (BakeoffError, SQLAlchemyError) as error:
        yield _event(json.loads(bytes(_problem(request, error, task_id=str(task)).body)))
        return
    shared_fields = {
        "id": f"chatcmpl-{task}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": model,
    }

    def chunk(delta: dict[str, Any], reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        return _event({**shared_fields, "choices": [choice], **more})

    yield chunk({"role": "assistant", "content": ""})
    said: str = story["answer"]
    for start in range(0, len(said), PIECE):
        yield chunk({"content": said[start : start + PIECE]})
    yield chunk({}, "stop", bakeoff=_verdicts(story))
    if include_usage:
        yield _event({**shared_fields, "choices": [], "usage": _usage(story)})
    yield b"data: [DONE]\n\n"


def _event(document: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(document, ensure_ascii=False).encode() + b"\n\n"
