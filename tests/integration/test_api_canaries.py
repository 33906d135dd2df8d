"""Words that must stay where they were put: in no log, problem document, message of Celery or event that Flower reads."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
import redis
from celery import Celery
from sqlalchemy.engine import make_url

from db.engine import transaction
from db.keys import Scope
from db.settings import Settings
from db.webhooks import add_webhook
from tests.conftest import SCRIPTED, Installation, make_installation, wait_until
from tests.integration.api_parts import client_of, make_key, start_api

pytestmark = [pytest.mark.integration, pytest.mark.api]

CANARY = "canary-7f3a91"
REGISTRY = SCRIPTED.replace(
    'params = { fail_on = "confuse the judge" }', 'params = { fail_on = "confuse the judge", fail = "quote" }'
).replace(
    'rules = [{ match = "all fail|two fail", fail = "model" }',
    'rules = [{ match = "all fail|two fail", fail = "quote" }',
)
FINAL = "SELECT count(*) AS n FROM task WHERE status NOT IN ('done', 'failed')"


@pytest.fixture(scope="module")
def here(servers: tuple[str, str], template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    for made in make_installation(servers, tmp_path_factory.mktemp("canaries"), template, REGISTRY):
        made.settings |= {"BAKEOFF_LOG_FORMAT": "json", "BAKEOFF_BIND_WAIT": "2", "BAKEOFF_SETTLE_SECONDS": "0"}
        yield made


@pytest.fixture(scope="module")
def said(here: Installation) -> dict[str, str]:
    """Everything that a busy day leaves behind: one text per place where it was said."""
    events: list[str] = []
    key = make_key(here, Scope.ADMIN, name="tests")
    engine = here.engine()
    with transaction(engine) as connection:
        _, secret = add_webhook(connection, f"http://127.0.0.1:9/{CANARY}", None)
    engine.dispose()
    here.start("intake", "worker", "--intake")
    here.start_all(("alpha", "beta", "reader-a", "reader-b"))
    url = start_api(here, webhook_hosts="127.0.0.1", webhook_networks="127.0.0.0/8", webhook_retry_delay="0.1")
    here.wait_ready(7)
    app = Celery("watcher", broker=here.redis_url)
    with overhearing(app, events):
        problems = by_http(url, key) + by_celery(here)
        here.query(
            "INSERT INTO task (request, capability, options) VALUES (:w, 'text-generation', '{\"oops\": \"x\"}')",
            w=CANARY,
        )
        here.query("INSERT INTO task (request, capability) VALUES (:w, :w)", w=CANARY)
        wait_until(lambda: here.query(FINAL)[0].n == 0, 90, lambda: str(here.query("SELECT * FROM task")) + here.logs())
        wait_until(lambda: here.query("SELECT 1 FROM webhook_delivery WHERE attempt > 1"), 60, here.logs)
        messages = waiting_messages(here)
        wait_until(lambda: {"task-received", "task-failed"} <= kinds(events), 60, lambda: str(kinds(events)))
    inspected = json.dumps(app.control.inspect(timeout=5).stats() or {})
    here.stop_all()
    wrong = make_url(here.database_url).set(password=CANARY, host="127.0.0.1").render_as_string(hide_password=False)
    told = here.run("results", env={"BAKEOFF_DATABASE_URL": wrong})
    config = here.run(
        "config", env={"BAKEOFF_DATABASE_URL": wrong, "BAKEOFF_REDIS_URL": f"redis://:{CANARY}@127.0.0.1:9/0"}
    )
    logs = {log.name: log.read_text() for log in here.folder.glob("*.log")}
    return {
        **logs, "events": "\n".join(events), "messages": messages, "inspected": inspected, "problems": "\n".join(problems),
        "command": told.out + told.err, "config": config.out + config.err, "key": key.rpartition("_")[2], "webhook": secret,
    }  # fmt: skip


@contextmanager
def overhearing(app: Celery, events: list[str]) -> Iterator[None]:
    """Note each event of workers. Redis keeps none, so somebody listens before there is one to hear."""
    with app.connection() as connection:
        receiver = app.events.Receiver(
            connection, handlers={"*": lambda event: events.append(json.dumps(event, default=str))}
        )
        thread = Thread(target=receiver.capture, kwargs={"wakeup": False}, daemon=True)
        thread.start()
        try:
            wait_until(lambda: events, 60)  # a heartbeat
            yield
        finally:
            receiver.should_stop = True
            thread.join(30)


def kinds(events: list[str]) -> set[str]:
    return {json.loads(event)["type"] for event in events}


def by_http(url: str, key: str) -> list[str]:
    """Tasks that go well and in every way badly; returns the problem documents."""
    documents = []
    with client_of(url, key) as client:
        png = b"\x89PNG\r\n\x1a\n" + CANARY.encode()
        digest = client.post("/v1/attachments", content=png).json()["sha256"]
        file = {"sha256": digest, "name": f"{CANARY}.png"}
        for request in ("fine", "two fail", "all fail", "confuse the judge"):
            task = {"request": f"{request} {CANARY}", "capability": "text-generation", "source": CANARY[:6]}
            assert client.post("/v1/tasks", json=task).status_code == 202
        assert (
            client.post("/v1/tasks", json={"capability": "image-to-text/ocr", "attachments": [file]}).status_code == 202
        )
        wrong: list[dict[str, Any]] = [
            {"request": CANARY, "capability": "poetry"},
            {"request": CANARY, "options": {"candidates": "many"}},
            {"request": CANARY, "priority": "high"},
            {"request": CANARY, "nonsense": 1},
            {"request": CANARY + "\x00"},
            {"request": CANARY, "capability": "text-generation", "attachments": [file]},
            {"request": {"words": CANARY}},
        ]
        documents += [client.post("/v1/tasks", json=task).text for task in wrong]
        documents.append(client.post("/v1/tasks", content=b'{"request": "' + CANARY.encode()).text)
        documents.append(client.get("/v1/tasks", params={"cursor": CANARY}).text)
        client.get("/v1/tasks", params={"source": CANARY})
    documents.append(httpx.get(f"{url}/v1/tasks", headers={"Authorization": f"Bearer {CANARY}"}).text)
    return documents


def by_celery(here: Installation) -> list[str]:
    """The same through the intake worker; returns nothing that anybody but the caller reads."""
    with Celery("elsewhere", broker=here.redis_url) as elsewhere:
        data = base64.b64encode(CANARY.encode()).decode()
        for kwargs in (
            {"request": f"by Celery {CANARY}", "capability": "text-generation"},
            {"request": CANARY, "capability": "poetry"},
            {"request": CANARY, "options": {"candidates": CANARY}},
            {"request": CANARY, "capability": "text-generation", "attachments": [{"name": CANARY, "data": data}]},
            {"request": CANARY, "wrong": CANARY},
        ):
            elsewhere.send_task("bakeoff.submit", kwargs=kwargs, argsrepr="()", kwargsrepr=repr(kwargs))
    wait_until(lambda: here.query("SELECT 1 FROM task WHERE source = 'celery'"), 60, here.logs)
    return []


def waiting_messages(here: Installation) -> str:
    """Whatever Redis still holds of our own queues."""
    client = redis.Redis.from_url(Settings(redis_url=here.redis_url).broker)
    found = [str(client.lrange(key, 0, -1)) for key in client.scan_iter("model.*")] + [
        str(client.lrange(queue, 0, -1)) for queue in ("judge", "planner", "integrator")
    ]
    client.close()
    return "\n".join(found)


PLACES = ["api.log", "scheduler.log", "judge.log", "alpha.log", "beta.log", "reader-a.log", "intake.log", "events",
          "messages", "inspected", "problems", "command", "config"]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_nothing_quotes_a_caller_a_model_or_a_secret(here: Installation, said: dict[str, str], place: str) -> None:
    for secret in (CANARY, said["key"], said["webhook"], str(make_url(here.database_url).password)):
        assert secret not in said[place], around(said[place], secret)


def around(text: str, word: str) -> str:
    place = text.index(word)
    return text[max(0, place - 1500) : place + 300]


def test_the_day_was_a_busy_one(said: dict[str, str], tmp_path: Path) -> None:
    """Or nothing would be proved by silence."""
    for place, action in {
        "alpha.log": "batch_failed", "judge.log": "judge_failed", "scheduler.log": "task_refused", "api.log": "webhook_failed",
        "intake.log": "raised unexpected: TypeError", "events": "task-received", "command": "password authentication failed",
    }.items():  # fmt: skip
        assert action in said[place], f"{place}: {said[place][-5000:]}"
    assert "bakeoff.submit" in said["events"]


def test_what_a_model_said_of_its_input_is_in_its_row(here: Installation, said: dict[str, str]) -> None:
    assert said
    rows = here.query("SELECT error->>'message' AS said FROM candidate WHERE error IS NOT NULL AND model = 'alpha'")
    assert any(CANARY in row.said for row in rows)
