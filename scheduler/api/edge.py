"""What every request passes before anything else looks at it: an id, the limits of its size and number, one log line.

Plain ASGI: a middleware of Starlette's own kind would hold back streams.
"""

from __future__ import annotations

import re
import time
from contextlib import ExitStack
from secrets import token_hex
from typing import TYPE_CHECKING

import anyio
import structlog
from starlette.requests import Request

from db.logs import get_logger
from db.tracing import called_by
from scheduler.api.access import brought
from scheduler.api.problems import Busy, Said, TooLarge, TooMany, TooSlow, answer_to

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from db.settings import Settings
    from scheduler.api.access import Access
    from scheduler.api.traffic import Traffic

log = get_logger(__name__)

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
FILES = "/v1/attachments"
SLOWEST = 1000  # bytes a second that a body may come at
CLOSE = {"Connection": "close"}
#: What a browser is told of every answer: it is what it says it is, is framed and kept by nobody, and runs nothing.
GUARDS = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
DRAINED = 8_000_000  # bytes of a body that is refused
DRAIN_SECONDS = 5.0
QUIET = ("/healthz", "/readyz", "/metrics")  # asked every few seconds: no line for each


class Edge:
    """The outermost layer."""

    def __init__(self, app: ASGIApp, settings: Settings, access: Access, traffic: Traffic) -> None:
        self._app = app
        self._access = access
        self._traffic = traffic
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
        started = answered = time.monotonic()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status, answered = message["status"], time.monotonic()
                message["headers"] = [*_guarded(message["headers"]), (b"x-request-id", request_id.encode())]
            await send(message)

        self._held += 1
        try:
            with called_by(request.headers.get("traceparent")):
                await self._admit(request, scope, receive, send_with_id)
        finally:
            self._held -= 1
            self._traffic.took(scope, status or 500, answered - started)
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
        if length in {"", "0"} and "transfer-encoding" not in request.headers:
            await self._app(scope, self._limited(receive, limit), send)
            return
        try:
            caller = await self._access.known(request, brought(request)[1])
        except Exception as error:  # noqa: BLE001 - the endpoint says it, or whoever asks for the body
            await self._app(scope, _never(error), send)
            return
        with ExitStack() as held:
            try:
                held.enter_context(self._access.holding(caller, "bodies"))
            except TooMany as error:
                await answer_to(request, error)(scope, receive, send)
                return
            if length.isdigit() and int(length) > limit:
                if "expect" not in request.headers:  # who asks first has sent nothing yet
                    await _drain(receive)
                await answer_to(request, _too_large(limit))(scope, receive, send)
                return
            await self._app(scope, self._limited(receive, limit), send)

    def _limited(self, receive: Receive, limit: int) -> Receive:
        """A body that ends at its limit, and does not keep anybody waiting."""
        seen, whole, started = 0, False, time.monotonic()
        patience = self._settings.api_receive_seconds

        async def limited() -> Message:
            nonlocal seen, whole
            if whole:
                return await receive()  # the end of the connection, for which a stream may wait long
            left = started + patience + seen / SLOWEST - time.monotonic()
            message: Message | None = None
            with anyio.move_on_after(min(patience, max(0.0, left))):
                message = await receive()
            if message is None:
                raise Said(TooSlow(f"The body did not come within {patience:g} s and its bytes' time.", CLOSE))
            seen += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if seen > limit:
                raise Said(_too_large(limit))
            return message

        return limited


def _never(error: Exception) -> Receive:
    """The body of somebody who has no key that is known: not a byte of it is waited for or held."""

    async def never() -> Message:
        raise Said(error)

    return never


def _guarded(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """An answer's headers, with what a browser must be told where the endpoint says nothing else."""
    said = list(headers)
    names = {name.lower() for name, _ in said}
    return [*said, *((name, value) for name, value in GUARDS if name not in names)]


async def _drain(receive: Receive) -> None:
    """Read what is on its way already, within bounds: a connection that is closed on it can lose the answer."""
    left = DRAINED
    with anyio.move_on_after(DRAIN_SECONDS):
        while left > 0:
            message = await receive()
            left -= len(message.get("body", b""))
            if not message.get("more_body", False):
                return


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body has over {limit} bytes, which is the limit here.", CLOSE)
