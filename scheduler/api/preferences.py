"""A person prefers one candidate to others, over HTTP; as `bakeoff prefer` has it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, Strict

from db.engine import transaction
from db.prefer import comparable_subtasks
from scheduler.api.access import Submitter
from scheduler.api.services import Shared, check_sees, document
from scheduler.preferring import prefer
from scheduler.requests import check_storable

router = APIRouter(prefix="/v1", tags=["preferences"])


class PreferenceIn(BaseModel):
    """What is better than what."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {
                    "subtask": "01a214f1-90cd-7960-8bc8-7fed3b07c870",
                    "better": "alpha",
                    "over": ["beta"],
                    "annotator": "ann",
                }
            ]
        },
    )

    subtask: Annotated[UUID, Strict(strict=False)] = Field(
        description="The id of a subtask, or of a task with one subtask to compare."
    )
    better: str = Field(
        description="The better candidate: its id, which tells nothing of its model, or its model.", max_length=100
    )
    over: list[str] = Field([], max_length=64, description="Better than these; left out: than all that are done.")
    annotator: str | None = Field(None, max_length=100, description="Who says so; left out: the key's name.")


class StoredPreferences(BaseModel):
    """How many are new, changed by this annotator, or were there already."""

    new: int
    changed: int
    known: int


class PreferenceOut(BaseModel):
    """What was stored: models by name, now that it is said. The verdict stays what it is."""

    subtask_id: UUID
    task_id: UUID
    capability: str
    better: str
    over: list[str]
    annotator: str | None
    stored: StoredPreferences


@router.post("/preferences", status_code=201, response_model=PreferenceOut)
def store_preference(body: PreferenceIn, caller: Submitter, shared: Shared) -> JSONResponse:
    """Say which candidate of a subtask is better. Saying the opposite replaces what the same annotator said before."""
    check_storable("body", body.model_dump(mode="json"))
    with transaction(shared.engine) as connection:
        for found in comparable_subtasks(connection, body.subtask, body.subtask):
            check_sees(connection, caller, found.task_id)
        said = prefer(connection, str(body.subtask), body.better, body.over, annotator=body.annotator or caller.name)
    return document(asdict(said), 201)
