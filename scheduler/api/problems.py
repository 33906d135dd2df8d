"""Every error as a problem document (RFC 9457): a cause that the caller can act on, no trace, no SQL, no address.

A document that the schema refuses is 400; one that is well formed and asks for what this installation cannot do is 422.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from db.errors import (
    BacklogFull,
    BakeoffError,
    InvalidRequest,
    NotFound,
    NoWorker,
    RefusedNow,
    SchemaBehind,
    Unreachable,
    WaitTimeout,
)
from db.logs import get_logger
from db.tasks import IdempotencyConflict

log = get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
DATABASE_AWAY = "The database does not answer; nothing was stored. Try again."
FAULT = "A fault of Bakeoff's own; its log has the trace under this request's id."
MOST_ERRORS = 20


class FieldError(BaseModel):
    """One thing that is wrong with a document."""

    pointer: str = Field(description="Where: `body`, `query`, `path` or `header`, then a JSON pointer.")
    detail: str


class Problem(BaseModel):
    """A problem document of RFC 9457."""

    type: str = Field(examples=["urn:bakeoff:problem:invalid_request"])
    title: str = Field(examples=["Unprocessable Content"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["No capability 'poetry'. There are: text-generation."])
    code: str = Field(description="The last part of `type`; stable.", examples=["invalid_request"])
    request_id: str | None = Field(None, description="Also in the header X-Request-Id and in the log.")
    errors: list[FieldError] | None = None
    task_id: str | None = Field(None, description="The task that goes on, or that failed.")
    error: dict[str, Any] | None = Field(None, description="The same as OpenAI's clients read it; of /v1/chat only.")


class ApiError(BakeoffError):
    """Something that only HTTP can get wrong."""

    status = 400

    def __init__(self, sentence: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.headers = dict(headers or {})


class Said(HTTPException):
    """An error that comes up while a body is read, where FastAPI lets no other kind through."""

    def __init__(self, error: Exception) -> None:
        super().__init__(getattr(error, "status", 500), str(error))
        self.error = error


class Unauthorized(ApiError):
    """No key, or none that is known."""

    status, code = 401, "unauthorized"

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, {"WWW-Authenticate": 'Bearer realm="bakeoff"'})


class Forbidden(ApiError):
    """A key that does not open this."""

    status, code = 403, "forbidden"


class Conflict(ApiError):
    """Right words, and what they are about is in another state."""

    status, code = 409, "conflict"


class TooSlow(ApiError):
    """A body that does not come."""

    status, code = 408, "too_slow"


class TooLarge(ApiError):
    """A body over its limit."""

    status, code = 413, "too_large"


class TooMany(ApiError):
    """More requests than this key may send."""

    status, code = 429, "too_many_requests"

    def __init__(self, sentence: str, retry_after: float) -> None:
        super().__init__(sentence, {"Retry-After": str(max(1, math.ceil(retry_after)))})


class Busy(ApiError):
    """This process holds as many requests as it may."""

    status, code = 503, "busy"

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, {"Retry-After": "1"})


#: Errors of the rest of the system: status, and seconds after which it may work, where it may.
STATUSES: tuple[tuple[type[BakeoffError], int, int | None], ...] = (
    (IdempotencyConflict, 409, None),
    (InvalidRequest, 422, None),
    (NotFound, 404, None),
    (NoWorker, 503, 30),
    (Unreachable, 503, 5),
    (SchemaBehind, 503, 60),
    (RefusedNow, 429, 10),
    (WaitTimeout, 504, None),
)


def answer(
    request: Request,
    status: int,
    code: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    errors: Sequence[FieldError] | None = None,
    **more: Any,
) -> JSONResponse:
    """The response of a problem."""
    problem = Problem(
        type=f"urn:bakeoff:problem:{code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        request_id=getattr(request.state, "request_id", None),
        errors=list(errors) if errors else None,
        **more,
    )
    document = problem.model_dump(exclude_none=True)
    return JSONResponse(document, status, dict(headers or {}), MEDIA_TYPE)


def answer_to(request: Request, error: Exception, **more: Any) -> JSONResponse:
    """The response of an error that somebody raised; one that nobody foresaw is 500, and logged."""
    if isinstance(error, ApiError):
        return answer(request, error.status, error.code, str(error), headers=error.headers, **more)
    if isinstance(error, BacklogFull):
        headers = {"Retry-After": str(error.retry_after)}
        return answer(request, 429, error.code, str(error), headers=headers, **more)
    if isinstance(error, Unreachable | OperationalError | PoolTimeout):
        log.warning(f"Postgres or the file store is away: {error}", action="api_unreachable")
        return answer(request, 503, "unreachable", DATABASE_AWAY, headers={"Retry-After": "5"}, **more)
    for kind, status, retry_after in STATUSES:
        if isinstance(error, kind):
            headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
            return answer(request, status, error.code, str(error), headers=headers, **more)
    return _of_database_or_ours(request, error, **more)


def _of_database_or_ours(request: Request, error: Exception, **more: Any) -> JSONResponse:
    if isinstance(error, DataError | IntegrityError):
        log.warning(f"Postgres refused a value: {type(error.orig).__name__}", action="api_refused")
        return answer(request, 422, "invalid_request", "The database cannot hold what the request says.", **more)
    if isinstance(error, ProgrammingError) and "does not exist" in str(error.orig):
        detail = "The database has another schema than this version; its operator runs `bakeoff db upgrade`."
        return answer(request, 503, "schema", detail, headers={"Retry-After": "60"}, **more)
    log.error("A request ended by a fault of ours", action="api_fault", exc_info=error)
    return answer(request, 500, "fault", FAULT, **more)


def install(app: FastAPI) -> None:
    """Let every error of this application become a problem."""

    async def foreseen(request: Request, error: Exception) -> JSONResponse:
        return answer_to(request, error)

    for kind in (BakeoffError, DBAPIError, PoolTimeout):
        app.add_exception_handler(kind, foreseen)
    app.add_exception_handler(Exception, _fault)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(RequestValidationError, _of_document)


async def _fault(request: Request, error: Exception) -> JSONResponse:
    """Outside of everything that would add the id; the server logs the trace itself."""
    response = answer(request, 500, "fault", FAULT)
    response.headers["X-Request-Id"] = getattr(request.state, "request_id", "")
    log.error(f"A fault of ours: {type(error).__name__}", action="api_fault")
    return response


CODES = {404: "not_found", 405: "method_not_allowed", 408: "too_slow", 413: "too_large"}
SENTENCES = {
    404: "Nothing is here; /openapi.json says what there is.",
    405: "This address knows other methods; the header Allow names them.",
}


async def _of_http(request: Request, error: Exception) -> JSONResponse:
    """404, 405 and the like, of the framework."""
    if not isinstance(error, HTTPException):
        return await _fault(request, error)
    if isinstance(error, Said):
        return answer_to(request, error.error)
    code = CODES.get(error.status_code, "malformed")
    detail = SENTENCES.get(error.status_code, str(error.detail))
    allowed = _allowed(request) or (error.headers or {}).get("Allow", "")
    headers = {"Allow": allowed} if error.status_code == 405 else error.headers
    return answer(request, error.status_code, code, detail, headers=headers)


def _allowed(request: Request) -> str:
    """Every method of an address: the framework names those of the first endpoint that has it."""
    methods = {
        method.upper()
        for path, endpoints in request.app.openapi()["paths"].items()
        if compile_path(path)[0].match(request.url.path)
        for method in endpoints
    }
    return ", ".join(sorted(methods))


async def _of_document(request: Request, error: Exception) -> JSONResponse:
    """What the schema refused: where, and why, without what was given."""
    if not isinstance(error, RequestValidationError):
        return await _fault(request, error)
    found = [_field(one) for one in error.errors()[:MOST_ERRORS]]
    detail = f"{found[0].pointer}: {found[0].detail}." if found else "The document is not what the schema says."
    more = len(error.errors()) - 1
    if more > 0:
        detail += f" {more} more in `errors`."
    return answer(request, 400, "malformed", detail, errors=found)


def _field(error: Mapping[str, Any]) -> FieldError:
    place, *rest = error["loc"]
    if error["type"] == "json_invalid":
        return FieldError(pointer="body", detail=f"not JSON ({error['ctx']['error']} at character {rest[0]})")
    path = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in rest)
    return FieldError(pointer=f"{place}{path}", detail=str(error["msg"]).removeprefix("Value error, "))
