"""Whatever goes wrong becomes a problem document that says what to do, and nothing about our inside."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import psycopg
import pytest
from sqlalchemy.exc import DataError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from db.errors import (
    BacklogFull,
    BakeoffError,
    InvalidRequest,
    NotFound,
    NoWorker,
    RefusedNow,
    RegistryError,
    Unreachable,
)
from db.settings import Settings
from db.tasks import IdempotencyConflict
from scheduler.api.app import make_app

SQL = "SELECT secret FROM task WHERE request = 'what a user wrote'"


def answer_to(error: Exception, path: str = "/boom", **settings: Any) -> httpx.Response:
    """What the application answers where an endpoint raises."""
    app = make_app(Settings(database_url="postgresql://nobody:pw@127.0.0.1:1/none", **settings))

    def boom() -> None:
        raise error

    app.add_api_route("/boom", boom)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get(path)

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after"),
    [
        (InvalidRequest("No."), 422, "invalid_request", None),
        (IdempotencyConflict("Twice."), 409, "idempotency_conflict", None),
        (NotFound("Nobody."), 404, "not_found", None),
        (BacklogFull("shop", 10, 7), 429, "backlog_full", "7"),
        (RefusedNow("Later."), 429, "refused", "10"),
        (NoWorker("Nobody works."), 503, "no_worker", "30"),
        (Unreachable("Postgres at db.internal:5432 does not answer."), 503, "unreachable", "5"),
        (PoolTimeout("no connection left"), 503, "unreachable", "5"),
        (OperationalError(SQL, {}, psycopg.OperationalError("gone")), 503, "unreachable", "5"),
        (DataError(SQL, {}, psycopg.DataError("out of range")), 422, "invalid_request", None),
        (ProgrammingError(SQL, {}, psycopg.ProgrammingError('relation "x" does not exist')), 503, "schema", "60"),
        (ProgrammingError(SQL, {}, psycopg.ProgrammingError("syntax error")), 500, "fault", None),
        (RegistryError("models.toml is wrong."), 500, "fault", None),
        (BakeoffError("Something."), 500, "fault", None),
        (ZeroDivisionError("secret of ours"), 500, "fault", None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_an_error_has_its_status_and_no_secret(
    error: Exception, status: int, code: str, retry_after: str | None
) -> None:
    answer = answer_to(error)

    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    said = answer.json()
    assert (said["status"], said["code"], said["type"]) == (status, code, f"urn:bakeoff:problem:{code}")
    assert said["request_id"] == answer.headers["x-request-id"]
    assert answer.headers.get("retry-after") == retry_after
    for inside in ("Traceback", "SELECT", "db.internal", "5432", "secret", "what a user wrote", "models.toml"):
        assert inside not in answer.text


def test_a_process_that_holds_as_many_requests_as_it_may_says_so() -> None:
    app = make_app(Settings(database_url="postgresql://nobody@127.0.0.1:1/none", api_max_requests=1))

    async def ask() -> list[httpx.Response]:
        begun, ended = asyncio.Event(), asyncio.Event()

        async def hold() -> str:
            begun.set()
            await ended.wait()
            return "done"

        app.add_api_route("/hold", hold)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            first = asyncio.create_task(client.get("/hold"))
            await begun.wait()
            answers = [await client.get("/hold"), await client.get("/healthz")]
            ended.set()
            return [await first, *answers]

    first, second, health = asyncio.run(ask())

    assert (first.json(), health.status_code) == ("done", 200)
    assert (second.status_code, second.json()["code"], second.headers["retry-after"]) == (503, "busy", "1")


def test_it_lives_without_a_database_and_is_not_ready() -> None:
    assert answer_to(NotFound("x"), "/healthz").json() == {"status": "ok"}
    answer = answer_to(NotFound("x"), "/readyz")
    assert (answer.status_code, answer.json()["code"]) == (503, "unreachable")
