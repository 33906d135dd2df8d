"""Models in the shape of OpenAI's list, with what Bakeoff knows beside it; and the leaderboard."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from db.engine import transaction
from db.errors import NotFound
from db.queries import model_rows
from db.registry import ModelEntry
from db.workers import live_queues, live_workers
from scheduler.api.access import Reader
from scheduler.api.names import BEST, judged_by
from scheduler.api.services import Services, Shared, document
from scheduler.leaderboard import leaderboard

router = APIRouter(prefix="/v1", tags=["models"])


class Model(BaseModel):
    """Something that a chat completion may name as its model."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str
    description: str | None = None
    capability: str | None = None
    backend: str | None = None
    status: str | None = Field(None, description="Whether the scheduler may choose it: active, paused, suspended ...")
    live: bool | None = Field(None, description="Whether a worker serves it now.")


class Models(BaseModel):
    """A list as OpenAI's clients read it."""

    object: Literal["list"] = "list"
    data: list[Model]


class Boards(BaseModel):
    """The leaderboard of each capability, the strongest model first."""

    boards: list[dict[str, Any]]


@router.get("/models", response_model=Models)
def list_models(_: Reader, shared: Shared) -> JSONResponse:
    """What a chat completion may name: `bakeoff` (the best of several), a judge's, or one model alone."""
    return document({"object": "list", "data": [one.model_dump() for one in _models(shared)]})


@router.get("/models/{name:path}", response_model=Model)
def read_model(name: Annotated[str, Path(max_length=100)], _: Reader, shared: Shared) -> JSONResponse:
    """One of the list."""
    for one in _models(shared):
        if one.id == name:
            return document(one.model_dump())
    raise NotFound(f"No model {name!r}; GET /v1/models lists those there are.")


def _models(shared: Services) -> list[Model]:
    registry = shared.settings.registry
    with transaction(shared.engine) as connection:
        states = model_rows(connection)
        live = live_queues(live_workers(connection, shared.settings.worker_timeout))
    return [
        Model(id=BEST, owned_by="bakeoff", description="The answer that a judge likes best, of several models'."),
        *(
            Model(id=judged_by(name), owned_by="bakeoff", description=f"The same, and {name} judges.")
            for name in registry.judges
        ),
        *(_model(entry, states, live) for entry in registry.models.values() if entry.name not in registry.asked_only),
    ]


def _model(entry: ModelEntry, states: dict[str, dict[str, Any]], live: dict[str, int]) -> Model:
    return Model(
        id=entry.name,
        owned_by=entry.backend,
        description=entry.metadata.get("description"),
        capability=entry.capability,
        backend=entry.backend,
        status=states.get(entry.name, {}).get("status"),
        live=entry.queue in live,
    )


@router.get("/leaderboard", response_model=Boards)
def read_leaderboard(
    _: Reader,
    shared: Shared,
    capability: Annotated[str | None, Query(max_length=100, description="This one only.")] = None,
    days: Annotated[float | None, Query(gt=0, le=36_500, description="What finished in this time only.")] = None,
    latest: Annotated[int, Query(ge=1, le=100_000, description="Verdicts, and preferences, per capability.")] = 10_000,
) -> JSONResponse:
    """Which models win, how sure that is, and what they cost; as `bakeoff leaderboard --json`."""
    with transaction(shared.engine) as connection:
        boards = leaderboard(connection, capability, since=None if days is None else days * 86_400, latest=latest)
    return document({"boards": [asdict(board) for board in boards]})
