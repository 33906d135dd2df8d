"""Tasks as JSON lines: one object per line, with the fields of a task as `bakeoff.submit` names them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from db.errors import InvalidRequest
from scheduler.submit import NewTask

FIELDS = ("request", "capability", "source", "priority", "options", "attachments", "idempotency_key", "run_at",
          "deadline")  # fmt: skip


def read_tasks(lines: Iterable[str], folder: Path, defaults: Mapping[str, Any]) -> Iterator[tuple[int, NewTask]]:
    """Line numbers (the first is 1) and tasks; blank lines are passed over.

    `attachments` holds paths, relative to `folder`, and references (`{"sha256": ..., "name": ...}`). `defaults` fills
    in what a line leaves out. Raises `InvalidRequest`, which names the line.
    """
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield number, _task(line, folder, defaults)
            except InvalidRequest as error:
                raise InvalidRequest(f"Line {number}: {error}") from None


def _task(line: str, folder: Path, defaults: Mapping[str, Any]) -> NewTask:
    try:
        read = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"not JSON ({error}).") from None
    if not isinstance(read, dict):
        raise InvalidRequest(f'{line.strip()[:60]} is not an object such as {{"request": "..."}}.')
    for key in read:
        if key not in FIELDS:
            raise InvalidRequest(f"{key!r} is not a field of a task; there are: {', '.join(FIELDS)}.")
    fields = {**defaults, **read}
    attachments = fields.get("attachments", ())
    if not isinstance(attachments, list | tuple):
        raise InvalidRequest("attachments must be a list.")
    return NewTask(
        **{
            **fields,
            "attachments": [folder / item if isinstance(item, str) else item for item in attachments],
            "run_at": moment("run_at", fields.get("run_at")),
            "deadline": moment("deadline", fields.get("deadline")),
        }
    )


def moment(field: str, value: Any) -> datetime | None:
    """A time of a JSON document, ISO 8601 with its zone. Raises `InvalidRequest`."""
    if value is None or isinstance(value, datetime):
        return value
    try:
        read = datetime.fromisoformat(value)
    except (ValueError, TypeError):
        raise InvalidRequest(f"{field} = {value!r} is not a time in ISO 8601, such as 2026-11-22T18:30:00Z.") from None
    if read.tzinfo is None:
        raise InvalidRequest(f"{field} = {value!r} has no time zone; add Z or an offset such as +01:00.")
    return read
