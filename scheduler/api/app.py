"""The application: routers, the door, one hub and one engine per process."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator
from importlib.metadata import version
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

import anyio.to_thread
from fastapi import FastAPI

from db.engine import make_engine
from db.logs import configure_logging
from db.settings import Settings, load_settings
from db.tracing import configure_tracing, flush, wanted
from scheduler.api import (
    attachments,
    chat,
    curation,
    events,
    health,
    metrics,
    models,
    preferences,
    problems,
    tasks,
)
from scheduler.api.access import Access
from scheduler.api.edge import QUIET, Edge
from scheduler.api.hub import Hub
from scheduler.api.pages import annotation, assets, blind, home
from scheduler.api.pages import curation as curation_pages
from scheduler.api.pages import leaderboard as leaderboard_page
from scheduler.api.pages import tasks as task_pages
from scheduler.api.services import Services
from scheduler.api.traffic import Traffic
from scheduler.api.webhooks import Deliverer

DESCRIPTION = (
    "Send one request. Several models answer it, each on its own queue. A judge keeps the best. The result waits in "
    "Postgres. Errors are problem documents (RFC 9457)."
)
LOOK = 1.0  # seconds
FLUSH = 3.0  # seconds that the last spans get
PROBLEM: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "A problem: what was wrong, and the way out.",
        "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
}


def make_app(settings: Settings | None = None) -> FastAPI:
    """The application of one process. uvicorn calls it without arguments in each of several."""
    one_of_several = settings is None
    if settings is None:
        settings = load_settings()
        configure_logging(settings.log_level, settings.log_format, content=settings.log_content)
    configure_tracing("api")
    engine = make_engine(settings.dsn, application="api", pool_size=settings.api_threads)
    hub = Hub(settings.dsn, engine)
    deliverer = Deliverer(settings, engine)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = settings.api_threads
        hub.start()
        deliverer.start()
        _end_streams_first(hub)
        parent = multiprocessing.parent_process() if one_of_several else None
        watching = asyncio.create_task(_leave_with(parent)) if parent is not None else None
        yield
        if watching is not None:
            watching.cancel()
        hub.close()
        await anyio.to_thread.run_sync(deliverer.close)
        await anyio.to_thread.run_sync(flush, FLUSH)
        engine.dispose()

    app = FastAPI(
        title="Bakeoff",
        version=version("bakeoff"),
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        responses=PROBLEM,
        telemetry={  # spans of requests, and nothing that quotes one
            "tracing": wanted(),
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
            "exclude": lambda scope: scope.get("path", "").startswith(QUIET),
        },
    )
    app.state.access = Access(settings, engine)
    app.state.services = Services(settings=settings, engine=engine, hub=hub)
    app.state.figures = metrics.Figures(app.state.services)
    app.state.traffic = Traffic()
    app.add_middleware(Edge, settings=settings, access=app.state.access, traffic=app.state.traffic)
    problems.install(app)
    for part in (tasks, attachments, events, models, preferences, chat, curation, health, metrics):
        app.include_router(part.router)
    for pages in (assets, home, blind, task_pages, leaderboard_page, curation_pages, annotation):
        app.include_router(pages.router)
    _describe(app)
    return app


def _describe(app: FastAPI) -> None:
    """Add to the schema what no endpoint returns by its type."""
    generated = app.openapi

    def openapi() -> dict[str, Any]:
        document = generated()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        if "Problem" not in schemas:
            said = problems.Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(said.pop("$defs", {}))
            schemas["Problem"] = said
        return document

    app.openapi = openapi  # type: ignore[method-assign] # the documented way


async def _leave_with(parent: BaseProcess) -> None:
    """Stop in order once the process that started this one has ended, even before this began: nobody else would."""
    while parent.is_alive():  # noqa: ASYNC110 - the end of another process is no event of ours
        await asyncio.sleep(LOOK)
    os.kill(os.getpid(), signal.SIGTERM)


def _end_streams_first(hub: Hub) -> None:
    """At SIGTERM and SIGINT end the streams, then let the server stop: it waits for what is open."""
    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)

        def stop(number: int, frame: FrameType | None, before: Any = before) -> None:
            hub.close_streams()
            if callable(before):
                before(number, frame)

        with contextlib.suppress(ValueError):  # not the main thread: somebody else's server runs us
            signal.signal(number, stop)
