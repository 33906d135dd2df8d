"""A real Chromium, and an installation whose pages it looks at: the API, a scheduler, a judge and scripted models."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from benchmarks.browser import MISSING, browser_arguments, browser_path
from db.keys import Scope
from db.states import TaskState
from tests.browser.pages_registry import MODELS, REGISTRY
from tests.conftest import Installation, make_installation, wait_until
from tests.integration.api_parts import client_of, make_key, start_api

PATIENCE = 30_000  # milliseconds: a page may wait for a model


@dataclass(frozen=True, kw_only=True)
class Served:
    """An API that asks for keys, whose installation answers."""

    installation: Installation
    url: str
    key: str  # may do everything, for every source

    def made_key(self, *scopes: Scope, source: str | None = None) -> str:
        """Another key."""
        return make_key(self.installation, *scopes, source=source)

    def ask(self, request: str, *, wait: bool = True, key: str | None = None, **fields: Any) -> str:
        """Store a task, and wait until it has ended; returns its id."""
        with client_of(self.url, key or self.key) as client:
            body = {"request": request, "capability": "text-generation", **fields}
            stored = client.post("/v1/tasks", json={name: value for name, value in body.items() if value is not None})
            assert stored.status_code == 202, stored.text
            id_ = str(stored.json()["id"])
        if wait:
            wait_until(lambda: TaskState(self.story(id_)["status"]).final, 60, self.installation.logs)
        return id_

    def upload(self, content: bytes) -> str:
        """Store a file; returns its digest."""
        with client_of(self.url, self.key) as client:
            return str(client.post("/v1/attachments", content=content).json()["sha256"])

    def story(self, task: str) -> dict[str, Any]:
        """Everything stored about a task."""
        with client_of(self.url, self.key) as client:
            found: dict[str, Any] = client.get(f"/v1/tasks/{task}").json()
            return found

    def get(self, path: str, name: str = "ann", key: str | None = None) -> httpx.Response:
        """What the server sends to a browser, as it is."""
        return httpx.get(f"{self.url}{path}", auth=(name, key or self.key), timeout=60)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The browser, without a window."""
    path = browser_path()
    if path is None:
        if os.environ.get("CI"):
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=browser_arguments())
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def served(servers: tuple[str, str], template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """An installation that answers, and its API; shared by the tests of a module."""
    for installation in make_installation(servers, tmp_path_factory.mktemp("browser"), template, REGISTRY):
        key = make_key(installation, Scope.ADMIN, name="researchers")
        url = start_api(installation, api_rate="0")
        installation.start("scheduler", "scheduler")
        installation.start("everybody", "worker", "--judge", *MODELS)  # one process: a slow machine starts fewer
        installation.wait_ready(2)
        yield Served(installation=installation, url=url, key=key)


@contextmanager
def signed_in(browser: Browser, served: Served, name: str = "ann", **options: Any) -> Iterator[Page]:
    """A page of somebody who signs in with a name and a key; fails where the page met an error of script or policy."""
    key = options.pop("key", served.key)
    context: BrowserContext = browser.new_context(
        base_url=served.url, http_credentials={"username": name, "password": key}, **options
    )
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    try:
        yield page
    finally:
        context.close()
    wrong = [error for error in errors if "status of 4" not in error]  # a refusal that a test asked for
    assert not wrong, wrong


@pytest.fixture
def page(browser: Browser, served: Served) -> Iterator[Page]:
    """A page of `ann`, who may do everything."""
    with signed_in(browser, served) as opened:
        yield opened
