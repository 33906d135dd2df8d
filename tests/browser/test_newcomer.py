"""The path of somebody new: start it, ask in all five ways, read each answer with SQL, look at it in a browser.

`make newcomer` runs it on a fresh checkout, after the installation that it times too, and prints what each step took.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from openai import OpenAI
from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import Browser, HttpCredentials, expect

from db.instance import Instance, read_instance
from tests.conftest import wait_until

pytestmark = [pytest.mark.newcomer, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120.0  # seconds for one answer: the first call of an engine is slow
WAYS = ("HTTP", "Celery", "SQL", "CLI", "OpenAI")

#: What another system's own process runs: it has a Celery and the broker's address, and nothing of ours.
CELERY = """
import base64, os, sys
from celery import Celery
queue = Celery(broker=os.environ["REDIS"], backend=os.environ["REDIS"])
file = {"name": "receipt.png", "data": base64.b64encode(open(sys.argv[1], "rb").read()).decode()}
sent = queue.send_task(
    "bakeoff.submit", kwargs={"capability": "image-to-text/ocr", "attachments": [file], "source": "shop"}
)
print(sent.get(timeout=60)["task_id"])
"""


@dataclass
class Journey:
    """What was done so far, and how long each step took."""

    folder: Path
    instance: Instance
    steps: dict[str, float] = field(default_factory=dict)
    tasks: dict[str, str] = field(default_factory=dict)  # the task's id by the way in which it was asked

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step."""
        begun = time.monotonic()
        yield
        self.steps[name] = time.monotonic() - begun

    def result_of(self, task: str) -> tuple[Any, ...]:
        """Its row of the view `results`, once it has ended."""
        found: list[tuple[Any, ...]] = []

        def ended() -> bool:
            with psycopg.connect(self.instance.database_url) as connection:
                found[:] = connection.execute(
                    "SELECT status, answer, error FROM results WHERE task_id = %s AND finished_at IS NOT NULL", [task]
                ).fetchall()
            return bool(found)

        wait_until(ended, PATIENCE)
        return found[0]


def environment(folder: Path) -> dict[str, str]:
    """Of a shell in which nothing is set."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("BAKEOFF_", "OPENAI_"))}
    return {**clean, "BAKEOFF_HOME": str(folder / "home"), "BAKEOFF_API_PORT": "0"}


def bakeoff(folder: Path, *arguments: str) -> str:
    """Standard output of a command."""
    done = subprocess.run(
        [sys.executable, "-m", "scheduler.cli", *arguments],
        env=environment(folder), cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def receipt(folder: Path, number: int) -> Path:
    """A picture with a line of text."""
    image = Image.new("RGB", (560, 90), "white")
    ImageDraw.Draw(image).text((16, 20), f"Total {number} euros", fill="black", font=ImageFont.load_default(40))
    path = folder / f"receipt-{number}.png"
    image.save(path)
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journey]:
    """`bakeoff up` with the engines of the demo, until everything is ready."""
    folder = tmp_path_factory.mktemp("newcomer")
    log = folder / "up.log"
    begun = time.monotonic()
    with log.open("w") as file:
        up = subprocess.Popen(
            [sys.executable, "-m", "scheduler.cli", "up"],
            env=environment(folder), cwd=ROOT, stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip
    try:
        wait_until(lambda: "Ready in" in log.read_text() or up.poll() is not None, 600, log.read_text)
        assert up.poll() is None, log.read_text()
        instance = read_instance(folder / "home")
        assert instance is not None
        made = Journey(folder, instance, {"bakeoff up": time.monotonic() - begun})
        yield made
        with made.step("bakeoff down"):
            bakeoff(folder, "down")
        print("", *(f"{seconds:7.1f} s  {name}" for name, seconds in made.steps.items()), sep="\n")
    finally:
        if up.poll() is None:
            up.terminate()
        up.wait(PATIENCE)


def test_all_five_ways_in(path: Journey, tmp_path: Path) -> None:
    ways: dict[str, Callable[[Path], str]] = {
        "HTTP": lambda file: over_http(path, file),
        "Celery": lambda file: from_celery(path, file),
        "SQL": lambda _: with_sql(path),
        "CLI": lambda file: json.loads(
            bakeoff(path.folder, "submit", "-c", "image-to-text/ocr", "--attach", str(file), "--json")
        )["id"],
        "OpenAI": lambda _: with_openai(path),
    }
    for number, way in enumerate(WAYS):
        with path.step(f"ask by {way}, until its row of results says done"):
            path.tasks[way] = ways[way](receipt(tmp_path, 4710 + number))
            status, answer, error = path.result_of(path.tasks[way])
        assert (status, error) == ("done", None)
        assert answer
        if way in {"HTTP", "Celery", "CLI"}:
            assert str(4710 + number) in answer


def over_http(path: Journey, file: Path) -> str:
    with httpx.Client(base_url=str(path.instance.api_url), timeout=PATIENCE) as client:
        stored = client.post("/v1/attachments", content=file.read_bytes()).raise_for_status().json()
        body = {
            "capability": "image-to-text/ocr",
            "attachments": [{"sha256": stored["sha256"], "name": file.name}],
            "source": "web",
        }
        return str(client.post("/v1/tasks", json=body).raise_for_status().json()["id"])


def from_celery(path: Journey, file: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-I", "-c", CELERY, str(file)],
        env={"REDIS": path.instance.redis_url}, cwd=path.folder, capture_output=True, text=True, timeout=PATIENCE,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def with_sql(path: Journey) -> str:
    with psycopg.connect(path.instance.database_url) as connection:
        row = connection.execute(
            "INSERT INTO task (request, capability, source) VALUES (%s, 'text-generation', 'crm') RETURNING id",
            ["Name a colour."],
        ).fetchone()
    assert row is not None
    return str(row[0])


def with_openai(path: Journey) -> str:
    client = OpenAI(base_url=f"{path.instance.api_url}/v1", api_key="none is needed", timeout=PATIENCE)
    question = [{"role": "user", "content": "Name the capital of France."}]
    done = client.chat.completions.create(model="bakeoff", messages=question, max_tokens=24)  # type: ignore[arg-type]
    assert done.choices[0].message.content
    return str(done.bakeoff["task_id"])  # type: ignore[attr-defined]


def test_each_task_is_on_the_results_page(path: Journey, browser: Browser) -> None:
    with path.step("see all five on the results page"), browser.new_page(base_url=path.instance.api_url) as page:
        page.set_default_timeout(PATIENCE * 1000)
        for task in path.tasks.values():
            page.goto(f"/tasks?q={task}")
            page.get_by_role("main").locator(f"a[href*='{task}']").first.click()
            _, answer, _ = path.result_of(task)
            expect(page.get_by_role("main")).to_contain_text("done")
            expect(page.get_by_role("main")).to_contain_text(" ".join(answer.split()))


def test_each_task_is_in_flower(path: Journey, browser: Browser) -> None:
    who = HttpCredentials(username=str(path.instance.flower_user), password=str(path.instance.flower_password))
    with path.step("see all five in Flower"), browser.new_context(http_credentials=who) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        for task in path.tasks.values():
            page.goto(f"{path.instance.flower_url}/tasks")
            page.get_by_role("searchbox").fill(task)
            expect(page.locator("#tasks-table tbody tr", has_text=task).first).to_be_visible()
