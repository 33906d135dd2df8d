"""What can go wrong, one tree.

BakeoffError
├── Refused        429 or 503: not now; nothing was stored. Tried again by itself, and raised when that did not help
├── Invalid        400, 413 or 422: the request can never work as it is; `errors` names the places
├── Unauthorized   401 or 403: no key, an unknown one, or one that does not open this
├── NotFound       404
├── Conflict       409: the idempotency key came with another request, or the task is in another state
├── Fault          any other answer that is no success: a fault of the server, or of a proxy before it
├── Unreachable    no answer at all: nobody listens, the connection broke, or the time was up
├── WaitTimedOut   `wait` had to end before the task did; the task goes on
├── TaskFailed     `Task.check` of a task that ended without an answer
└── BadSignature   `verify_webhook`: the delivery is not from who holds the secret, or it is old
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

MOST_SHOWN = 200  # characters of an answer that is no problem document


@dataclass(frozen=True, kw_only=True)
class FieldError:
    """One thing that is wrong with a document. `pointer`: `body`, `query`, `path` or `header`, then a JSON pointer."""

    pointer: str
    detail: str


class BakeoffError(Exception):
    """Everything that this package raises.

    `code` is stable and meant for programs, `detail` is a sentence for people, `request_id` finds the request in the
    server's log, `retry_after` is the number of seconds after which it may work. `task_id` names the task that it is
    about, where the server says so.
    """

    code = "error"

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        errors: tuple[FieldError, ...] = (),
        task_id: UUID | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.code
        self.status = status
        self.request_id = request_id
        self.retry_after = retry_after
        self.errors = errors
        self.task_id = task_id


class Refused(BakeoffError):
    """Not now; nothing was stored."""

    code = "refused"


class Invalid(BakeoffError):
    """The request can never work as it is."""

    code = "invalid_request"


class Unauthorized(BakeoffError):
    """No key, an unknown one, or one that does not open this."""

    code = "unauthorized"


class NotFound(BakeoffError):
    """There is no such task, file or model, or it is another source's."""

    code = "not_found"


class Conflict(BakeoffError):
    """The idempotency key came with another request, or the task is in another state."""

    code = "conflict"


class Fault(BakeoffError):
    """A fault of the server, or of a proxy before it."""

    code = "fault"


class Unreachable(BakeoffError):
    """No answer at all."""

    code = "unreachable"


class WaitTimedOut(BakeoffError):
    """The time to wait was over before the task was; it goes on."""

    code = "wait_timeout"


class TaskFailed(BakeoffError):
    """A task that ended without an answer. `code` is its own error's, or its state."""

    code = "failed"


class BadSignature(BakeoffError):
    """A delivery that is not from who holds the secret, or that is old."""

    code = "bad_signature"


KINDS: dict[int, type[BakeoffError]] = {
    400: Invalid,
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    409: Conflict,
    413: Invalid,
    422: Invalid,
    429: Refused,
    503: Refused,
}


def error_of(status: int, headers: Mapping[str, str], document: Any, text: str) -> BakeoffError:
    """The error that an answer is: by its problem document (RFC 9457), or by its status where it brings none."""
    problem = document if isinstance(document, dict) else {}
    shown = " ".join(text.split())[:MOST_SHOWN]
    return KINDS.get(status, Fault)(
        str(problem.get("detail") or f"The server answered {status}: {shown or 'nothing more'}"),
        code=problem.get("code"),
        status=status,
        request_id=problem.get("request_id") or headers.get("x-request-id"),
        retry_after=_seconds(headers.get("retry-after")),
        errors=tuple(
            FieldError(pointer=str(one.get("pointer", "")), detail=str(one.get("detail", "")))
            for one in problem.get("errors") or ()
            if isinstance(one, dict)
        ),
        task_id=_id(problem.get("task_id")),
    )


def _seconds(header: str | None) -> float | None:
    """`Retry-After` in seconds; a date, which Bakeoff never sends, is no reason to fail."""
    try:
        return None if header is None else max(0.0, float(header))
    except ValueError:
        return None


def _id(value: Any) -> UUID | None:
    try:
        return None if value is None else UUID(str(value))
    except ValueError:
        return None
