"""Curation jobs over HTTP: made, listed, read, reported on, set going again. `bakeoff curate serve` runs them."""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict
from sqlalchemy import Connection

from db.curation import Job, jobs_before, read_job, reopen_job
from db.engine import transaction
from db.errors import InvalidRequest, NotFound, UsageError
from db.schema.curation import JobState
from scheduler.api.access import Admin, Caller
from scheduler.api.fields import Count, whole
from scheduler.api.problems import Conflict
from scheduler.api.services import Services, Shared, document
from scheduler.curation.confined import confined
from scheduler.curation.recipe import DEFAULT_STAGES, Input, JobName, Recipe, parse_recipe
from scheduler.curation.report import report_of
from scheduler.curation.runner import OtherRecipe, start_job
from scheduler.curation.status import described, status_of
from scheduler.requests import check_storable

router = APIRouter(prefix="/v1", tags=["curation"])

SOURCE = "curation:"
#: The page has a style and pictures in itself; a browser runs nothing in it, and asks nobody for more.
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'",
    "Cache-Control": "private, no-store",
}

NameInPath = Annotated[JobName, Path(description="The job's name.")]


class InputIn(Input):
    """Where records come from: names within BAKEOFF_CURATION_FOLDER."""

    model_config = ConfigDict(strict=True)

    file: Annotated[FilePath, Strict(strict=False)] = Field(description="JSON array or JSON lines.")
    image_root: Annotated[FilePath, Strict(strict=False)] | None = Field(
        None, description="Folder of the images; without it nobody looks at them."
    )
    limit: Count | None = Field(None, description="Records that are read at most.")
    per_type: Count | None = Field(None, description="Records of each type that are read at most.")


class RecipeIn(BaseModel):
    """A recipe as its TOML file says it: every key beside these is a stage's table."""

    model_config = ConfigDict(
        extra="allow",
        strict=True,
        json_schema_extra={
            "examples": [
                {
                    "name": "coco",
                    "stages": ["validate", "exact", "near", "questions"],
                    "input": {"file": "instructions.json"},
                    "questions": {"models": ["question-reward"], "keep": 0.3},
                }
            ]
        },
    )
    __pydantic_extra__: dict[str, dict[str, Any]]

    name: JobName
    input: InputIn
    stages: list[str] = Field(list(DEFAULT_STAGES), min_length=1, max_length=64)
    in_flight: Annotated[int, Field(ge=1, le=50_000), BeforeValidator(whole)] = Field(
        1000, description="Records whose tasks are open at once, at most."
    )

    def as_recipe(self) -> Recipe:
        """The recipe, checked whole. Raises `InvalidRequest`."""
        said = {"name": self.name, "input": self.input.model_dump(), "stages": self.stages, "in_flight": self.in_flight}
        try:
            return parse_recipe({**said, "tables": self.__pydantic_extra__}, "recipe")
        except UsageError as error:
            raise InvalidRequest(str(error)) from None


class AcceptedJob(BaseModel):
    """A job that is committed; a `bakeoff curate serve` takes it as soon as it has time."""

    name: JobName
    url: str


class ListedJob(BaseModel):
    """A job in a list."""

    name: JobName
    status: JobState
    stage: str | None = Field(description="The stage that is worked on.")
    records: int
    error: str | None
    running: bool = Field(description="Whether a process works on it now.")
    inputs: list[dict[str, Any]]
    notes: dict[str, Any] = Field(description="What stages say beside their records.")
    created_at: str
    finished_at: str | None


class JobOut(ListedJob):
    """How far a job is, as `bakeoff curate status --json`."""

    stages: list[dict[str, Any]] = Field(description="Records that came, passed, wait, and were dropped by each rule.")


class JobPage(BaseModel):
    """Jobs, the newest first. `next` is the `cursor` of the page after."""

    jobs: list[ListedJob]
    next: UUID | None


@router.post("/curation-jobs", status_code=202, response_model=AcceptedJob)
def create_job(body: RecipeIn, caller: Admin, shared: Shared, response: Response) -> AcceptedJob:
    """Store the job of a recipe. The same recipe again is the same job; another one under its name is refused."""
    files = {"file", "image_root"}
    names = [str(getattr(body.input, key)) for key in files]
    check_storable("body", [body.model_dump(exclude={"input": files}), names])
    caller.source_of(f"{SOURCE}{body.name}")
    recipe = confined(body.as_recipe(), shared.settings.curation_folder)
    try:
        job = start_job(shared.settings, recipe)
    except OtherRecipe:
        raise _taken(recipe.name) from None
    except UsageError as error:
        raise InvalidRequest(str(error)) from None
    if job.recipe != recipe.model_dump(mode="json"):  # another file, say: a digest knows no paths
        raise _taken(recipe.name)
    response.headers["Location"] = _url(job)
    return AcceptedJob(name=job.name, url=_url(job))


@router.get("/curation-jobs", response_model=JobPage)
def list_jobs(
    caller: Admin,
    shared: Shared,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[UUID | None, Query(description="`next` of the page before.")] = None,
) -> JSONResponse:
    """The newest first."""
    with transaction(shared.engine) as connection:
        jobs, following = jobs_of(connection, caller, limit, cursor)
    return document({"jobs": [described(job) for job in jobs], "next": following})


def jobs_of(connection: Connection, caller: Caller, limit: int, cursor: UUID | None) -> tuple[list[Job], UUID | None]:
    """The newest jobs that are theirs to see, and the cursor of the page after."""
    own = None if caller.source is None else caller.source.removeprefix(SOURCE)
    found = jobs_before(connection, cursor, limit + 1, own)
    jobs = [job for job in found[:limit] if caller.sees(job.source)]
    return jobs, found[limit - 1].id if len(found) > limit else None


@router.get("/curation-jobs/{name}", response_model=JobOut)
def show_job(name: NameInPath, caller: Admin, shared: Shared) -> JSONResponse:
    """How far a job is: how many records came to each stage and why they left it."""
    return _status(shared, caller, name)


@router.get(
    "/curation-jobs/{name}/report",
    response_class=HTMLResponse,
    responses={200: {"description": "The page.", "content": {"text/html": {"schema": {"type": "string"}}}}},
)
def read_report(name: NameInPath, caller: Admin, shared: Shared) -> HTMLResponse:
    """The report as far as the job is: funnel, scores, samples of what was kept and dropped, with reasons."""
    return report_page(name, caller, shared)


def report_page(name: str, caller: Caller, shared: Services) -> HTMLResponse:
    """The report, as any browser may show it."""
    with transaction(shared.engine) as connection:
        page = report_of(connection, seen_job(caller, read_job(connection, name)))
    return HTMLResponse(page.encode("utf-8", "replace"), headers=HEADERS)


@router.post("/curation-jobs/{name}/resume", status_code=202, response_model=JobOut)
def resume_job(name: NameInPath, caller: Admin, shared: Shared) -> JSONResponse:
    """Set a failed job going again, once what it failed for is mended."""
    resume_failed(name, caller, shared)
    return _status(shared, caller, name, 202)


def resume_failed(name: str, caller: Caller, shared: Services) -> None:
    """Set the job going. Raises `Conflict` for one that has not failed."""
    with transaction(shared.engine) as connection:
        job = seen_job(caller, read_job(connection, name))
        if job.status != JobState.FAILED:
            raise Conflict(f"The curation job {name!r} is {job.status}; only one that failed is set going again.")
        reopen_job(connection, job.id)


def _status(shared: Services, caller: Caller, name: str, status: int = 200) -> JSONResponse:
    with transaction(shared.engine) as connection:
        return document(status_of(connection, seen_job(caller, read_job(connection, name))), status)


def seen_job(caller: Caller, job: Job) -> Job:
    """The job, where the caller's key is of no other source."""
    if not caller.sees(job.source):
        raise NotFound(f"No curation job {job.name!r}; GET /v1/curation-jobs lists those there are.")
    return job


def _taken(name: str) -> Conflict:
    return Conflict(f"There is a curation job {name!r} with another recipe or input; give this one another name.")


def _url(job: Job) -> str:
    return f"/v1/curation-jobs/{job.name}"
