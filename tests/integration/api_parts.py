"""A real API process, and how tests talk to it."""

from __future__ import annotations

import re
from typing import Any

import httpx

from db.engine import transaction
from db.keys import Scope, create_key
from tests.conftest import Installation, wait_until


def start_api(installation: Installation, name: str = "api", **settings: str) -> str:
    """Start `bakeoff api` on a free port; returns its URL once it can work."""
    before = dict(installation.settings)
    installation.settings.update({f"BAKEOFF_{key.upper()}": value for key, value in settings.items()})
    installation.start(name, "api", "--port", "0")
    installation.settings = before
    log = installation.folder / f"{name}.log"
    process = installation.processes[name]

    def url() -> str:
        found = re.findall(r"listens on (http://\S+)", log.read_text()) if log.exists() else []
        return str(found[-1]) if found else ""

    def ready() -> bool:
        assert process.poll() is None, installation.logs()
        return bool(url()) and is_ready(url())

    wait_until(ready, 60, installation.logs)
    return url()


def is_ready(url: str) -> bool:
    """Whether an API can work."""
    try:
        return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def make_key(installation: Installation, *scopes: Scope, source: str | None = None, name: str = "a test's") -> str:
    """A new key."""
    engine = installation.engine()
    with transaction(engine) as connection:
        _, key = create_key(connection, name=name, scopes=scopes, source=source)
    engine.dispose()
    return key


def client_of(url: str, key: str | None = None) -> httpx.Client:
    """A client with this key; patient, since machines are slow."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.Client(base_url=url, headers=headers, timeout=60)


def post(client: httpx.Client, request: str = "hello", headers: dict[str, str] | None = None, **fields: Any) -> Any:
    return client.post(
        "/v1/tasks", json={"request": request, "capability": "text-generation", **fields}, headers=headers
    )


def is_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    said: dict[str, Any] = response.json()
    assert (said["status"], said["code"], said["type"]) == (status, code, f"urn:bakeoff:problem:{code}")
    assert said["request_id"] == response.headers["x-request-id"]
    assert said["detail"]
    assert "Traceback" not in response.text
    assert "SELECT" not in response.text
    return said
