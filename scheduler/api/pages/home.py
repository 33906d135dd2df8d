"""The address without a path leads to the tasks."""

from __future__ import annotations

from fastapi import APIRouter, Response

from scheduler.api.pages.base import back

router = APIRouter(include_in_schema=False)


@router.get("/")
def home() -> Response:
    """To the list of tasks."""
    return back("/tasks")
