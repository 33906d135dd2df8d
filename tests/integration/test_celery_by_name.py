"""Another Celery application, in a folder and a process of its own, which knows our Redis and the name of a task."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from db.callbacks import Callback
from db.errors import InvalidRequest
from db.settings import Settings
from scheduler.callbacks import parse_callback
from tests.conftest import Installation, make_installation, wait_until

pytestmark = pytest.mark.integration

#: The whole of the other application. Its worker writes a line for each call that reaches it.
SHOP = """
import json, os, pathlib
from celery import Celery

shop = Celery("shop", broker=os.environ["SHOP_REDIS"], backend=os.environ["SHOP_REDIS"])
shop.conf.task_default_queue = "shop"


def note(**call):
    with pathlib.Path("calls.jsonl").open("a") as file:
        file.write(json.dumps(call) + "\\n")


@shop.task(name="shop.stored")
def stored(said, order):
    note(task="stored", task_id=said["task_id"], order=order)


@shop.task(name="shop.not_stored", bind=True)
def not_stored(self, failed, order):
    result = self.app.AsyncResult(failed)
    note(task="not_stored", error=str(result.result), order=order)


@shop.task(name="shop.finished", bind=True)
def finished(self, result, order):
    note(task="finished", id=self.request.id, order=order, **result)


"""

#: What its web process does: it sends, and waits for nothing.
ORDER = """
import sys
from shop import finished, not_stored, shop, stored

def here(task):
    # Called by others, so it says where it is at home.
    return task.s(order=number).set(queue="shop")


number, request, capability = int(sys.argv[1]), sys.argv[2], sys.argv[3]
shop.send_task(
    "bakeoff.submit",
    queue="intake",
    kwargs={"request": request, "capability": capability, "source": "shop", "callback": here(finished)},
    link=here(stored),
    link_error=here(not_stored),
)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("shop")
    (made / "shop.py").write_text(SHOP)
    (made / "order.py").write_text(ORDER)
    return made


@pytest.fixture(scope="module")
def running(
    servers: tuple[str, str], template: str, tmp_path_factory: pytest.TempPathFactory, folder: Path
) -> Iterator[Installation]:
    """An installation that allows the shop's callback, and the shop's own worker."""
    for made in make_installation(servers, tmp_path_factory.mktemp("running"), template):
        made.settings["BAKEOFF_CALLBACKS"] = "shop.finished@shop, crm.closed@crm"
        made.start("intake", "worker", "--intake")
        made.start_all(["alpha", "beta"])
        made.wait_ready(5)
        with (folder / "shop.log").open("wb") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "shop", "worker", "-P", "solo", "-Q", "shop"],
                cwd=folder, env=environment(made), stdout=log, stderr=log,
            )  # fmt: skip
        yield made
        worker.terminate()
        worker.wait(30)


def environment(installation: Installation) -> dict[str, str]:
    """Nothing of ours: no path to our code, no setting."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("BAKEOFF_", "PYTHON"))}
    return {**clean, "SHOP_REDIS": installation.redis_url}


def order(installation: Installation, folder: Path, number: int, request: str, capability: str) -> None:
    subprocess.run(
        [sys.executable, "order.py", str(number), request, capability],
        cwd=folder, env=environment(installation), check=True, timeout=60,
    )  # fmt: skip


def calls(folder: Path, number: int) -> dict[str, dict[str, Any]]:
    """What reached the shop about an order, by the name of its task."""
    file = folder / "calls.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")] if file.exists() else []
    return {line["task"]: line for line in lines if line.get("order") == number}


@pytest.mark.api
def test_a_callback_gets_the_answer_once_it_is_there(running: Installation, folder: Path) -> None:
    order(running, folder, 7, "Name a colour.", "text-generation")

    wait_until(lambda: set(calls(folder, 7)) == {"stored", "finished"}, 60, running.logs)
    said = calls(folder, 7)["finished"]
    assert (said["status"], said["answer"], said["source"]) == ("done", "beta says more: Name a colour.", "shop")
    assert said["task_id"] == said["id"] == calls(folder, 7)["stored"]["task_id"]


@pytest.mark.api
def test_link_error_hears_why_a_request_was_refused(running: Installation, folder: Path) -> None:
    order(running, folder, 8, "x", "mind-reading")

    wait_until(lambda: calls(folder, 8), 60, running.logs)
    assert "No capability 'mind-reading'" in calls(folder, 8)["not_stored"]["error"]


@pytest.mark.api
def test_a_callback_that_nobody_allowed_is_refused_with_those_that_are(running: Installation) -> None:
    app = Celery(broker=running.redis_url, backend=running.redis_url)
    callback = {"task": "bakeoff.run_candidates", "options": {"queue": "model.alpha"}}
    sent = app.send_task("bakeoff.submit", kwargs={"request": "x", "callback": callback})

    with pytest.raises(Exception, match=r"not among BAKEOFF_CALLBACKS, which allows shop\.finished@shop"):
        sent.get(timeout=30)
    assert running.query("SELECT FROM task WHERE request = 'x'") == []


# --- what may be named


ALLOWED = Settings(callbacks=("shop.finished@shop",))
GOOD: dict[str, Any] = {"task": "shop.finished", "options": {"queue": "shop"}}


def test_a_signature_of_celery_is_a_callback() -> None:
    signature = Celery().signature("shop.finished", args=(1,), kwargs={"order": 7}, queue="shop", immutable=True)

    assert parse_callback(ALLOWED, json.loads(json.dumps(signature))) == Callback(
        name="shop.finished", queue="shop", args=[1], kwargs={"order": 7}, immutable=True
    )
    assert parse_callback(ALLOWED, None) is None


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("shop.finished", "must be a Celery signature"),
        ({"task": "shop.finished"}, "names of a task and its queue"),
        ({**GOOD, "options": {"queue": "unacked"}}, "shop.finished@unacked is not among BAKEOFF_CALLBACKS"),
        ({**GOOD, "options": {"queue": "shop", "countdown": 3}}, "callback.options.countdown is not supported"),
        ({**GOOD, "subtask_type": "chord"}, "callback.subtask_type is not supported"),
        ({**GOOD, "args": {"a": 1}}, "callback.args must be a list"),
        ({**GOOD, "kwargs": {"a": "\0"}}, "callback"),
        ({**GOOD, "kwargs": {"a": "x" * 10_001}}, "over 10000 characters"),
    ],
)
def test_anything_else_is_refused_with_a_sentence(said: Any, sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        parse_callback(ALLOWED, said)
