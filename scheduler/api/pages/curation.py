"""Curation in a browser: the jobs, and one job's funnel, scores and progress. For who may see them over HTTP."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Response
from fastapi.responses import HTMLResponse

from db.curation import Job, read_job
from db.curation_records import count_at
from db.curation_report import Pace, histograms, kept_counts, pace_of
from db.engine import transaction
from db.errors import NotFound
from db.keys import Scope
from db.schema.curation import JobState, Step
from scheduler.api.curation import jobs_of, report_page, resume_failed, seen_job
from scheduler.api.pages.base import Page, Posting, Visitor, back, page, visitor_of
from scheduler.api.pages.plots import Stage, funnel, histogram
from scheduler.api.services import Shared
from scheduler.curation.recipe import parse_recipe
from scheduler.curation.report import BINS, notes_of
from scheduler.curation.run import SECONDS
from scheduler.curation.status import described, status_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

router = APIRouter(prefix="/curation", route_class=Page, include_in_schema=False)

LISTED = 50


def _admin(visitor: Annotated[Visitor, Depends(visitor_of)]) -> Visitor:
    visitor.caller.check_may(Scope.ADMIN)
    return visitor


Looking = Annotated[Visitor, Depends(_admin)]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the stage is that is worked on, in records. `minutes`: what is left of it at this pace, if it has one."""

    done: int
    left: int
    pace: Pace
    minutes: float | None


@router.get("")
def list_jobs(visitor: Looking, shared: Shared, before: str = "") -> Response:
    """The newest jobs first."""
    with transaction(shared.engine) as connection:
        jobs, older = jobs_of(connection, visitor.caller, LISTED, _cursor(before))
        kept = kept_counts(connection, [job.id for job in jobs])
    return page(
        "curation.html.j2",
        visitor,
        jobs=[described(job) | {"kept": kept.get(job.id, 0)} for job in jobs],
        older=older,
        first=not before,
    )


def _cursor(said: str) -> UUID | None:
    try:
        return UUID(said) if said else None
    except ValueError:
        raise NotFound(f"before = {said[:60]!r} is no job's id.") from None


@router.get("/{name}")
def show_job(name: str, visitor: Looking, shared: Shared) -> Response:
    """How far a job is: how many records came to each stage, why they left it, and what they scored."""
    with transaction(shared.engine) as connection:
        job = seen_job(visitor.caller, read_job(connection, name))
        status = status_of(connection, job)
        stages = status["stages"]
        scores = _scores(connection, job)
        progress = _progress(connection, job, stages) if job.status == JobState.RUNNING else None
    return page(
        "curation_job.html.j2",
        visitor,
        job=status,
        funnel=funnel([Stage(name=one["stage"], came=one["came"], passed=one["passed"]) for one in stages]),
        scores=scores,
        progress=progress,
        seconds=job.counts.get(SECONDS, {}),
        notes=_json(notes) if (notes := notes_of(job)) else "",
        recipe=_json(parse_recipe(job.recipe, f"the recipe of {name}").shown),
    )


def _json(said: Mapping[str, Any]) -> str:
    return json.dumps(said, indent=2, ensure_ascii=False)


def _scores(connection: Connection, job: Job) -> list[dict[str, Any]]:
    """Histograms of the stages that gave scores."""
    found = histograms(connection, job.id, BINS)
    return [
        {
            "stage": stage,
            "n": scored["n"],
            "kept": sum(one["kept"] for one in scored["bins"]),
            "plot": histogram([(one["n"], one["kept"]) for one in scored["bins"]], scored["low"], scored["high"]),
        }
        for stage in job.recipe["stages"]
        if (scored := found.get(stage)) is not None
    ]


def _progress(connection: Connection, job: Job, stages: Sequence[Mapping[str, Any]]) -> Progress | None:
    """None where no stage is worked on: the input is still read, or nobody runs the job."""
    names = [one["stage"] for one in stages]
    if job.stage not in names:
        return None
    number = names.index(job.stage)
    steps = count_at(connection, job.id, number)
    left, asked = steps.get(Step.NEW, 0) + steps.get(Step.ASKED, 0), steps.get(Step.ASKED, 0)
    pace = pace_of(connection, job.source)
    minutes = None
    if asked and pace.open and pace.lately:
        minutes = left * (pace.open / asked) / pace.per_minute
    return Progress(done=stages[number]["came"] - left, left=left, pace=pace, minutes=minutes)


@router.get("/{name}/report")
def read_report(name: str, visitor: Looking, shared: Shared) -> HTMLResponse:
    """The report, as the API gives it: a page without a navigation, to be kept."""
    return report_page(name, visitor.caller, shared)


@router.post("/{name}/resume")
def resume(name: str, visitor: Posting, shared: Shared) -> Response:
    """Set a failed job going again."""
    visitor.caller.check_may(Scope.ADMIN)
    resume_failed(name, visitor.caller, shared)
    return back(f"/curation/{name}")
