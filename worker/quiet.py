"""What Celery tells of our messages to whoever listens to its events, as Flower does."""

from __future__ import annotations

from typing import Any

from celery.worker.request import Request

from db.logs import kind_of


class QuietRequest(Request):  # type: ignore[misc] # celery has no types
    """A message whose events name an error's kind alone: its words, and a traceback's last line, may quote a caller."""

    def send_event(self, type: str, **fields: Any) -> None:  # noqa: A002 - celery's own
        """An event about this message."""
        if "exception" in fields:
            fields |= {"exception": kind_of(fields["exception"]), "traceback": None}
        super().send_event(type, **fields)
