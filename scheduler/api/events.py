"""Server-sent events: how one task goes, and which tasks end. A client that comes back misses none of the ends."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, TypeVar
from uuid import UUID

from fastapi import APIRouter, Header
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from starlette.concurrency import run_in_threadpool

from db.errors import InvalidRequest
from db.watching import Ended, Place
from scheduler.api.access import Caller, Reader
from scheduler.api.services import Services, Shared

router = APIRouter(prefix="/v1", tags=["events"])

KEEP_ALIVE = b": keep-alive\n\n"
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
EVENT = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("event", "data", "id")},
    "required": ["data"],
    "description": "One event of the stream; `data` is a JSON document.",
}
STREAM: dict[int | str, dict[str, Any]] = {
    200: {"description": "Events, until the task ends or a while has passed.",
          "content": {"text/event-stream": {"schema": EVENT}}}
}  # fmt: skip
LARGEST_XID = 2**63

T = TypeVar("T")

LastEventId = Annotated[
    str | None, Header(max_length=100, description="The id of the last event that was seen; browsers send it.")
]


@router.get("/tasks/{task_id}/events", response_class=StreamingResponse, responses=STREAM)
async def task_events(
    task_id: UUID, caller: Reader, shared: Shared, last_event_id: LastEventId = None
) -> StreamingResponse:
    """How a task goes: an event `progress` now and at each change, the last one with its final status.

    An event holds the whole progress, so a client that comes back needs none of those that it missed.
    """
    await run_in_threadpool(shared.check_sees, caller, task_id)
    return StreamingResponse(_progress(shared, task_id, last_event_id), headers=HEADERS, media_type="text/event-stream")


async def _progress(shared: Services, task: UUID, seen: str | None) -> AsyncIterator[bytes]:
    async with aclosing(shared.hub.progress(task, _patience(shared))) as stream:
        async for progress in _for_a_while(shared, stream):
            if progress is None:
                yield KEEP_ALIVE
                continue
            data = json.dumps(progress)
            id_ = hashlib.sha256(data.encode()).hexdigest()[:16]
            if id_ != seen:
                yield format_sse_event(data_str=data, event="progress", id=id_)
            seen = id_


async def _for_a_while(shared: Services, stream: AsyncGenerator[T]) -> AsyncIterator[T]:
    """What a stream gives, for as long as one may last."""
    until = time.monotonic() + shared.settings.api_stream_seconds
    async for one in stream:
        yield one
        if time.monotonic() >= until:
            return


def _patience(shared: Services) -> float:
    return min(shared.settings.api_keep_alive, shared.settings.api_stream_seconds)


@router.get("/events", response_class=StreamingResponse, responses=STREAM)
async def events(caller: Reader, shared: Shared, last_event_id: LastEventId = None) -> StreamingResponse:
    """Every task that ends, as an event `ended`, from now on, or from the event that was seen last.

    In the order of their commits, none left out. What a transaction that is still open could come before waits for it.
    The stream begins with an id and no event: who comes back with it misses nothing that ended before the first event.
    """
    place = await shared.hub.now() if last_event_id is None else _place(last_event_id)
    return StreamingResponse(_ended(shared, caller, place), headers=HEADERS, media_type="text/event-stream")


async def _ended(shared: Services, caller: Caller, place: Place) -> AsyncIterator[bytes]:
    yield format_sse_event(comment="keep-alive", id=_id(place))
    async with aclosing(shared.hub.ended(place, caller.source, _patience(shared))) as stream:
        async for one in _for_a_while(shared, stream):
            if one is None:
                yield KEEP_ALIVE
            else:
                yield format_sse_event(data_str=json.dumps(_said(one)), event="ended", id=_id(one.place))


def _said(one: Ended) -> dict[str, Any]:
    return {
        "id": str(one.place.task),
        "status": one.status,
        "source": one.source,
        "finished_at": one.finished_at.isoformat(),
        "error": one.error,
    }


def _id(place: Place) -> str:
    return f"{place.xid}-{place.task}"


def _place(said: str) -> Place:
    xid, _, task = said.partition("-")
    try:
        number, id_ = int(xid), UUID(task)
    except ValueError:
        number, id_ = -1, None
    if id_ is None or not 0 <= number < LARGEST_XID:
        raise InvalidRequest(
            "Last-Event-ID: it is not the id of an event of this stream; leave it out to begin with now."
        )
    return Place(xid=number, task=id_)
