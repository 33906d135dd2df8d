"""The Celery way in: other systems call `bakeoff.submit` by name, with JSON keyword arguments.

The Celery task id is the default idempotency key, so a message that is delivered twice stores one task.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.exc import OperationalError
from structlog.contextvars import bound_contextvars

from db.engine import wait_for_postgres
from db.errors import BacklogFull, InvalidRequest, RefusedNow
from db.settings import load_settings
from db.tracing import called_by, configure_tracing
from scheduler.jsonl import moment
from scheduler.submit import NewTask, Upload, submit
from worker.app import app
from worker.quiet import QuietRequest
from worker.traces import sender_of


class UnseenRequest(QuietRequest):
    """A message whose arguments no event tells: what people ask is not for everybody who may look at Flower."""

    argsrepr = "()"
    kwargsrepr = "{...}"

    def info(self, safe: bool = False) -> dict[str, Any]:  # noqa: ARG002, FBT001, FBT002 - celery's own
        """What `inspect active` and Flower's page of a worker show."""
        return {**super().info(safe=True), "args": self.argsrepr, "kwargs": self.kwargsrepr}


@app.task(  # type: ignore[untyped-decorator] # celery has no types
    name="bakeoff.submit",
    bind=True,
    Request="scheduler.intake:UnseenRequest",
    autoretry_for=(RefusedNow, OperationalError),  # safe: the task id is the idempotency key
    dont_autoretry_for=(BacklogFull,),  # to be kept here would be another backlog; the caller hears when to come back
    default_retry_delay=0,  # to the end of the queue: Celery would keep a delayed message in its memory
    max_retries=None,
    throws=(InvalidRequest, BacklogFull),
)
def submit_task(
    self: Any,
    request: str = "",
    *,
    capability: str | None = None,
    source: str = "celery",
    priority: int = 0,
    options: Mapping[str, Any] | None = None,
    attachments: Sequence[Mapping[str, Any]] = (),
    idempotency_key: str | None = None,
    run_at: str | None = None,
    deadline: str | None = None,
    callback: Mapping[str, Any] | None = None,
    traceparent: str | None = None,
) -> dict[str, str]:
    """Store a task; returns `{"task_id": ...}`.

    `attachments` holds `{"name", "data"}` with the file's bytes in base64, or `{"sha256"}` of a stored file. Times are
    ISO 8601. `callback` is a Celery signature, to be called with the result once there is one; the operator has listed
    it in BAKEOFF_CALLBACKS. `traceparent` names the caller's span, where its message has no header of that name. Raises
    `InvalidRequest`, and `BacklogFull` with the seconds to wait, which the caller sees as a failed Celery task with its
    sentence.
    """
    configure_tracing("intake")
    settings = load_settings()
    new = NewTask(
        request=request,
        capability=capability,
        source=source,
        priority=priority,
        options=options or {},
        attachments=[_attachment(number, item) for number, item in enumerate(attachments)],
        idempotency_key=idempotency_key or self.request.id,
        run_at=moment("run_at", run_at),
        deadline=moment("deadline", deadline),
        callback=callback,
    )
    patient = wait_for_postgres(settings.intake_visibility / 2)  # so a long outage fills the queue, not this process
    with called_by(sender_of(self.request) or traceparent), bound_contextvars(message=self.request.id):
        return {"task_id": str(patient(lambda: submit(settings, new))())}


def _attachment(number: int, item: Mapping[str, Any]) -> Upload | Mapping[str, Any]:
    if "data" not in item:
        return item
    try:
        data = base64.b64decode(item["data"], validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise InvalidRequest(f"attachments.{number}.data is not base64.") from None
    return Upload(name=str(item.get("name", f"attachment-{number}")), data=data)
