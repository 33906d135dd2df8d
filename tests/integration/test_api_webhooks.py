"""Webhooks, posted by a real API process to a real receiver: signed, tried again, replayed, stopped."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID

import httpx
import pytest

from db.engine import transaction
from db.webhooks import add_webhook, replay
from scheduler.api.webhooks import sign
from tests.conftest import Installation, make_installation, wait_until
from tests.integration.api_parts import client_of, start_api

pytestmark = pytest.mark.integration


class Receiver:
    """A webhook's receiver: keeps what it gets, and answers with the statuses that it was told, then 204."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
                status = receiver.answers.pop(0) if receiver.answers else 204
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def served(
    servers: tuple[str, str], template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Installation, httpx.Client]]:
    """An API without workers: to cancel a task ends it too."""
    for made in make_installation(servers, tmp_path_factory.mktemp("webhooks"), template):
        url = start_api(
            made, webhook_hosts="127.0.0.1,localhost", webhook_networks="127.0.0.0/8,::1/128", webhook_retry_delay="0.1"
        )
        with client_of(url) as client:
            yield made, client


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def add(installation: Installation, url: str, source: str | None) -> tuple[UUID, bytes]:
    engine = installation.engine()
    with transaction(engine) as connection:
        id_, secret = add_webhook(connection, url, source)
    engine.dispose()
    return id_, base64.b64decode(secret.removeprefix("whsec_"))


def end_one(client: httpx.Client, source: str) -> str:
    """Store a task and cancel it."""
    task = {"request": "x", "capability": "text-generation", "source": source}
    id_ = str(client.post("/v1/tasks", json=task).json()["id"])
    assert client.post(f"/v1/tasks/{id_}/cancel").status_code == 200
    return id_


def deliveries(installation: Installation, webhook: UUID) -> list[Any]:
    return installation.query(
        "SELECT status, attempt, answered, error, task_id, id FROM webhook_delivery WHERE webhook_id = :id ORDER BY id",
        id=webhook,
    )


def wait_settled(installation: Installation, webhook: UUID, status: str) -> Any:
    """Wait until the only delivery of a webhook has this status; returns it."""
    wait_until(lambda: [row.status for row in deliveries(installation, webhook)] == [status], 60, installation.logs)
    return deliveries(installation, webhook)[0]


def test_a_webhook_is_signed_tried_again_and_replayed(
    served: tuple[Installation, httpx.Client], receiver: Receiver
) -> None:
    installation, client = served
    webhook, secret = add(installation, receiver.url, "hooked")
    receiver.answers = [500, 302]

    end_one(client, "not for this one")
    task = end_one(client, "hooked")

    row = wait_settled(installation, webhook, "delivered")
    assert (row.attempt, row.answered, str(row.task_id)) == (3, 204, task)
    assert len(receiver.got) == 3
    for headers, body in receiver.got:
        id_, moment = headers["webhook-id"], int(headers["webhook-timestamp"])
        assert (id_, abs(time.time() - moment) < 300) == (str(row.id), True)
        assert headers["webhook-signature"] == sign(secret, id_, moment, body)
        said = json.loads(body)
        assert (said["type"], said["data"]["task_id"], said["data"]["source"]) == ("task.cancelled", task, "hooked")
        assert "request" not in said["data"]

    engine = installation.engine()
    with transaction(engine) as connection:
        replay(connection, row.id)
    engine.dispose()
    wait_until(lambda: len(receiver.got) == 4, 60, installation.logs)
    assert receiver.got[3][0]["webhook-id"] == str(row.id)


def test_a_receiver_that_is_gone_is_asked_no_more(
    served: tuple[Installation, httpx.Client], receiver: Receiver
) -> None:
    installation, client = served
    webhook, _ = add(installation, receiver.url.replace("127.0.0.1", "localhost"), "leaving")
    receiver.answers = [410]

    end_one(client, "leaving")

    row = wait_settled(installation, webhook, "failed")
    (hook,) = installation.query("SELECT stopped_at, reason FROM webhook WHERE id = :id", id=webhook)
    assert (row.answered, hook.stopped_at is not None, "410" in hook.reason) == (410, True, True)


def test_a_host_that_is_allowed_no_more_gets_nothing(
    served: tuple[Installation, httpx.Client], receiver: Receiver
) -> None:
    installation, client = served
    webhook, _ = add(installation, "https://hooks.example.com/", "elsewhere")

    end_one(client, "elsewhere")

    wait_until(lambda: any(row.error for row in deliveries(installation, webhook)), 60, installation.logs)
    (row,) = deliveries(installation, webhook)
    assert (row.answered, "BAKEOFF_WEBHOOK_HOSTS" in row.error) == (None, True)
    assert receiver.got == []
