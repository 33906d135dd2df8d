"""What the endpoints of one process share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

from fastapi import Depends, Request
from fastapi.responses import JSONResponse
from sqlalchemy import Engine

from db.engine import transaction
from db.errors import NotFound
from db.settings import Settings
from db.watching import source_of
from scheduler.api.hub import Hub
from worker.cleaning import clean_json

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from scheduler.api.access import Caller


@dataclass(frozen=True, kw_only=True)
class Services:
    """Settings, the engine and the hub of events of this process."""

    settings: Settings
    engine: Engine
    hub: Hub

    def check_sees(self, caller: Caller, task: UUID) -> None:
        """Raise `NotFound` where there is no such task, or it is another source's: that is nobody's business."""
        with transaction(self.engine) as connection:
            check_sees(connection, caller, task)


def check_sees(connection: Connection, caller: Caller, task: UUID) -> None:
    """The same within a transaction."""
    source = source_of(connection, task)
    if source is None or not caller.sees(source):
        raise NotFound(f"No task {task}.")


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Shared = Annotated[Services, Depends(_services)]


def document(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> JSONResponse:
    """A JSON document, with ids and times as text and without numbers that are none."""
    return JSONResponse(clean_json(value), status, headers)
