"""A job as JSON says it: what `curate status --json` prints, and what the API answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from db.curation_report import funnel

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from db.curation import Job


def status_of(connection: Connection, job: Job) -> dict[str, Any]:
    """How far a job is: how many records came to each stage and why they left it."""
    return {**described(job), "stages": funnel(connection, job.id, job.recipe["stages"])}


def described(job: Job) -> dict[str, Any]:
    """The job alone."""
    return {
        "name": job.name,
        "status": job.status,
        "stage": job.stage,
        "records": record_count(job),
        "error": job.error,
        "running": job.lease_left is not None and job.lease_left > 0,
        "inputs": [{key: one[key] for key in ("name", "sha256", "records")} for one in job.inputs],
        "notes": job.counts,
        "created_at": job.created_at,
        "finished_at": job.finished_at,
    }


def record_count(job: Job) -> int:
    """How many records of its input are stored."""
    return sum(int(one["records"]) for one in job.inputs)
