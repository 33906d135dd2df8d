"""Flower as `bakeoff up` starts it, in a real browser: who gets in, what its pages say, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import pytest
from celery import Celery
from playwright.sync_api import Browser, Page, expect
from sqlalchemy.engine import make_url

from scheduler.local import files
from scheduler.local.children import FLOWER_USER, Child, flower_spec
from tests.conftest import Installation, make_installation, wait_until

pytestmark = pytest.mark.browser

PASSWORD = "its-own-password"  # noqa: S105 - of a server that lives as long as this module
MODELS = ("alpha", "beta", "gamma")
ROWS = 12  # that this Flower keeps, of which a task with three models and a judge takes four
#: A slow machine loses nothing: a message that is sent again would be a row more, a model that seems away one less.
PATIENT = {f"BAKEOFF_{name}": "120" for name in ("JUDGE_GRACE", "LOST_AFTER", "LEASE_SECONDS", "WORKER_TIMEOUT")}
PATIENCE = 60_000  # milliseconds that a page may take on a slow machine

expect.set_options(timeout=PATIENCE)


@dataclass(frozen=True)
class Watched:
    """A running system, and Flower beside it."""

    system: Installation
    url: str
    flower: Child


@pytest.fixture(scope="module")
def watched(servers: tuple[str, str], template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    for system in make_installation(servers, tmp_path_factory.mktemp("watched"), template):
        system.settings.update(PATIENT)
        port = files.free_port()
        flower = Child(flower_spec(port, PASSWORD, most_rows=ROWS), system.folder / "flower.log", system.environment)
        flower.start()
        try:
            system.start("intake", "worker", "--intake")
            system.start_all(MODELS)
            system.wait_ready(len(MODELS) + 3)
            url = f"http://127.0.0.1:{port}"
            wait_until(partial(_listening, url), 60, system.logs)
            wait_until(partial(_knows_workers, url), 60, system.logs)
            yield Watched(system, url, flower)
        finally:
            flower.kill()


@pytest.fixture
def page(browser: Browser, watched: Watched) -> Iterator[Page]:
    """A tab of somebody who has typed the password."""
    context = browser.new_context(
        base_url=watched.url, http_credentials={"username": FLOWER_USER, "password": PASSWORD}
    )
    context.set_default_timeout(PATIENCE)
    yield context.new_page()
    context.close()


def _listening(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthcheck").status_code == 200
    except httpx.TransportError:
        return False


def _knows_workers(url: str) -> bool:
    """Whether Flower has asked every worker which queues it reads."""
    known = ask(url, "/api/workers?refresh=1").json()
    queues = {queue["name"] for worker in known.values() for queue in worker.get("active_queues") or []}
    return {"judge", *(f"model.{name}" for name in MODELS)} <= queues


def ask(url: str, path: str) -> httpx.Response:
    return httpx.get(f"{url}{path}", auth=(FLOWER_USER, PASSWORD), timeout=60)


def submit(watched: Watched, request: str) -> str:
    """A task that is done; its id."""
    done = watched.system.run("submit", request, "--wait", "--json", timeout=120)
    assert done.code == 0, done.err + watched.system.logs()
    return str(done.json["id"])


def rows_of(page: Page, search: str) -> Any:
    """The rows of the tasks page that a search finds."""
    page.goto("/tasks")
    page.get_by_role("searchbox").fill(search)
    return page.locator("#tasks-table tbody tr:has(td:nth-child(3))")


def test_nobody_gets_in_without_the_password(browser: Browser, watched: Watched) -> None:
    for credentials in (None, {"username": FLOWER_USER, "password": "a guess"}):
        context = browser.new_context(
            base_url=watched.url, **({"http_credentials": credentials} if credentials else {})
        )
        page = context.new_page()
        for path in ("/workers", "/tasks", "/broker", "/api/workers", "/api/tasks"):
            answer = page.request.get(path)
            assert answer.status == 401, path
            assert "model." not in answer.text()
        context.close()


def test_the_workers_page_has_every_model_and_the_judge(page: Page) -> None:
    page.goto("/workers")

    for name in (*MODELS, "judge"):
        row = page.locator("#workers-table tbody tr", has_text=f"{name}@")
        expect(row).to_have_count(1)
        expect(row).to_contain_text("Online")


def test_the_broker_page_has_a_queue_per_model(watched: Watched, page: Page) -> None:
    page.goto("/broker")

    table = page.get_by_role("table")
    for name in (*(f"model.{name}" for name in MODELS), "judge"):
        row = table.get_by_role("row").filter(has_text=name)
        expect(row).to_have_count(1)
        expect(row.get_by_role("cell").nth(1)).to_have_text("0")  # waiting: nothing was asked
    password = make_url(watched.system.redis_url).password
    assert password is None or password not in page.content()


def test_a_task_is_followed_from_its_row_to_its_models_and_judge(watched: Watched, page: Page) -> None:
    # given
    task = submit(watched, "hello from a browser")
    subtask, *_ = watched.system.query("SELECT id FROM subtask WHERE task_id = :task", task=task)[0]

    # when its id is searched for
    rows = rows_of(page, task)

    # then there is a row per model and one of the judge, each with task, subtask and model
    expect(rows).to_have_count(len(MODELS) + 1)
    for name in MODELS:
        row = rows.filter(has_text=f"'model': '{name}'")
        expect(row).to_have_count(1)
        expect(row).to_contain_text("bakeoff.run_candidates")
        expect(row).to_contain_text(f"'task': '{task}', 'subtask': '{subtask}'")
        expect(row).to_contain_text("SUCCESS")
    judged = rows.filter(has_text="bakeoff.judge_subtasks")
    expect(judged).to_contain_text(f"'models': {list(MODELS)!r}, 'task': '{task}', 'subtask': '{subtask}'")

    # and its page tells the same, and which worker ran it
    rows.filter(has_text="'model': 'beta'").get_by_role("link").last.click()
    expect(page.get_by_role("region", name="Task details")).to_contain_text(task)
    expect(page.get_by_role("region", name="Task details")).to_contain_text("beta@")

    # and so does the search for one model's
    expect(rows_of(page, f"kwargs:model=beta {task}")).to_have_count(1)


def test_what_people_asked_is_not_shown(watched: Watched, page: Page) -> None:
    # given a request on the command line, and one from another Celery app, whose messages would show it
    task = submit(watched, "my secret recipe")
    other = Celery(broker=watched.system.redis_url, backend=watched.system.redis_url)
    sent = other.send_task("bakeoff.submit", kwargs={"request": "their secret recipe"})
    sent.get(timeout=60)
    other.close()

    # then
    for search in (task, sent.id):
        expect(rows_of(page, search).first).to_be_visible()
        assert "secret recipe" not in page.content()
    assert "secret recipe" not in ask(watched.url, "/api/tasks").text


def test_it_forgets_the_oldest_rows(watched: Watched, page: Page) -> None:
    # given more rows than it keeps
    tasks = [submit(watched, f"the {place}. of four") for place in range(1, 5)]

    # then the newest are there, and no others
    expect(rows_of(page, tasks[-1])).to_have_count(4)
    expect(rows_of(page, "bakeoff")).to_have_count(ROWS)
    expect(rows_of(page, tasks[0])).to_have_count(0)


def test_nothing_can_be_changed(watched: Watched, page: Page) -> None:
    # given
    task = submit(watched, "look, do not touch")
    worker = next(name for name in ask(watched.url, "/api/workers").json() if name.startswith("alpha@"))
    rows_of(page, f"kwargs:model=alpha {task}").get_by_role("link").last.click()
    expect(page.get_by_role("region", name="Task details")).to_be_visible()

    # then no page offers it
    expect(page.get_by_role("button", name="Revoke")).to_have_count(0)
    expect(page.get_by_role("button", name="Terminate")).to_have_count(0)
    page.goto(f"/worker/{worker}")
    expect(page.locator("body")).to_contain_text(worker)
    for label in ("Shut Down", "Shutdown", "Restart", "Grow", "Apply", "Cancel Consumer"):
        expect(page.get_by_role("button", name=label)).to_have_count(0)

    # and a page that asks all the same is refused
    for path, body in DESTRUCTIVE.items():
        status = page.evaluate(POST, [path.format(worker=worker, task=task), body])
        assert status == 403, path
    assert watched.system.processes["alpha"].poll() is None
    submit(watched, "and it still works")


#: A POST of Flower's own page, as its buttons send it.
POST = "([path, body]) => fetch(path, {method: 'POST', body}).then(answer => answer.status)"
DESTRUCTIVE = {
    "/api/worker/shutdown/{worker}": "",
    "/api/worker/pool/restart/{worker}": "",
    "/api/worker/pool/grow/{worker}?n=3": "",
    "/api/worker/queue/add-consumer/{worker}?queue=celery": "",
    "/api/worker/queue/cancel-consumer/{worker}?queue=model.alpha": "",
    "/api/task/revoke/{task}?terminate=true": "",
    "/api/task/abort/{task}": "",
    "/api/task/timeout/bakeoff.run_candidates?hard=1": "",
    "/api/task/rate-limit/bakeoff.run_candidates?ratelimit=0": "",
    "/api/task/send-task/bakeoff.submit": json.dumps({"kwargs": {"request": "from nobody"}}),
    "/api/task/async-apply/bakeoff.submit": json.dumps({"kwargs": {"request": "from nobody"}}),
    "/api/task/apply/bakeoff.submit": json.dumps({"kwargs": {"request": "from nobody"}}),
}
