"""What every request passes before anything else looks at it: an id, the limits of its size and number, one log line.

Plain ASGI: a middleware of Starlette's own kind would hold back streams.
"""

from __future__ import annotations

import re
import time
from secrets import token_hex
from typing import TYPE_CHECKING

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request

from db.logs import get_logger
from scheduler.api.problems import Busy, TooLarge, answer_to

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from db.settings import Settings

log = get_logger(__name__)

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
FILES = "/v1/attachments"
QUIET = ("/healthz", "/readyz", "/metrics")  # asked every few seconds: no line for each


class Edge:
    """The outermost layer."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        given = request.headers.get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else token_hex(8)
        request.state.request_id = request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        started, status = time.monotonic(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        self._held += 1
        try:
            await self._admit(request, scope, receive, send_with_id)
        finally:
            self._held -= 1
            if not scope["path"].startswith(QUIET):
                status = status or 500  # nothing was answered: a fault, or a client that left
                log.info(
                    f"{scope['method']} {scope['path']} {status}",
                    action="request",
                    status=status,
                    ms=round(1000 * (time.monotonic() - started), 1),
                )

    async def _admit(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        limit = self._settings.api_max_body_bytes
        if scope["path"].startswith(FILES):
            limit = self._settings.max_attachment_bytes
        length = request.headers.get("content-length", "")
        if self._held > self._settings.api_max_requests and not scope["path"].startswith(QUIET):
            busy = Busy("This server holds as many requests as it may; try again in a second.")
            await answer_to(request, busy)(scope, receive, send)
            return
        if length.isdigit() and int(length) > limit:
            await answer_to(request, _too_large(limit))(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                said = _too_large(limit)
                raise HTTPException(said.status, str(said), said.headers)  # FastAPI lets no other kind through
            return message

        await self._app(scope, counted, send)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body has over {limit} bytes, which is the limit here.", {"Connection": "close"})
