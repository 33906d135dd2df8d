"""`python -m benchmarks.pictures [FOLDER]`: the README's pictures of the results page, of what the demo's engines said.

It starts a Bakeoff of its own with the demo profile, asks it about pictures and recordings, and looks at what came of
it in Chromium. Which readings come out is the engines' doing; the inputs are drawn from a seed. The picture of a
curation job is of `benchmarks.curation`'s records, generated with planted faults and scored by a scripted model.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from benchmarks.browser import MISSING, browser_arguments, browser_path
from benchmarks.curation.__main__ import REGISTRY, measured
from benchmarks.demo.client import DemoError, Installation, Tasks, environment
from benchmarks.demo.inputs import DemoInput, render_images
from benchmarks.demo.recordings import cache_folder, make_recordings
from db.states import TaskState
from scheduler.local.cluster import Cluster

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "pictures"
LARGEST = 150_000  # bytes of a picture
SEED = 3
RECORDS = 4000  # of the curation job
PATIENCE = 600.0  # seconds for all tasks
STEPS: list[dict[str, Any]] = [
    {"id": "read-sign", "capability": "image-to-text/ocr", "inputs": [{"attachment": 0}]},
    {"id": "read-note", "capability": "image-to-text/ocr", "inputs": [{"attachment": 1}]},
    {"id": "hear-caller", "capability": "automatic-speech-recognition", "inputs": [{"attachment": 2}]},
    {
        "id": "title",
        "capability": "text-generation",
        "inputs": [{"text": "Write a short title:"}, {"output": "read-sign"}, {"output": "hear-caller"}],
        "options": {"params": {"max_new_tokens": 16}},
    },
]


def main() -> int:
    """Make the pictures; returns the exit code."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = browser_path()
    if path is None:
        print(MISSING, file=sys.stderr)
        return 1
    with (
        tempfile.TemporaryDirectory(prefix="bakeoff-pictures-") as home,
        _answered(Path(home)) as (url, dag, readings),
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=path, args=browser_arguments())
        page = browser.new_page(base_url=url, viewport={"width": 1200, "height": 800}, color_scheme="light")
        page.goto("/tasks")
        _keep(page, folder / "tasks.png")
        page.set_viewport_size({"width": 1200, "height": 1000})  # down to the steps
        page.goto(f"/tasks/{dag}")
        _keep(page, folder / "task.png")
        page.goto(f"/tasks/{_best(page, readings)}")
        _keep(page, folder / "candidates.png", whole=True)
        page.goto("/leaderboard?capability=image-to-text/ocr")
        page.locator("summary").click()
        _keep(page, folder / "leaderboard.png", whole=True)
        with tempfile.TemporaryDirectory(prefix="bakeoff-pictures-") as other, _curated(Path(other)) as job:
            page.goto(job)
            _keep(page, folder / "curation.png")
        browser.close()
    return 0


@contextmanager
def _answered(home: Path) -> Iterator[tuple[str, UUID, Sequence[UUID]]]:
    """A Bakeoff that has answered: the address of its API, the task of several steps, the tasks of one."""
    installation = Installation(home, "demo", print)
    try:
        installation.start()
        items = render_images(home / "inputs", seed=SEED, count=24)
        spoken = make_recordings(home / "inputs", seed=SEED, count=3, cache=cache_folder())
        installation.wait_until_ready()
        tasks = Tasks(home)
        try:
            singles = [tasks.submit(item, source) for item, source in _sources([*items, *spoken])]
            dag = tasks.submit_steps("What do the sign, the note and the caller say?", [*items[:2], spoken[0]], STEPS)
            _wait(tasks, [*singles, dag])
            with _api(home) as url:
                yield url, dag, singles[: len(items)]
        finally:
            tasks.close()
    finally:
        installation.stop()


@contextmanager
def _curated(folder: Path) -> Iterator[str]:
    """A curation job that is through: the address of its page."""
    folder.chmod(0o755)  # Postgres runs as somebody else where we are root
    cluster = Cluster(folder, REGISTRY, {})
    try:
        cluster.start_servers()
        cluster.add("scheduler", "scheduler")
        cluster.add("worker", "worker", "rewarder", "--judge")
        cluster.wait_ready()
        measured(cluster, RECORDS, SEED, ask=True)
        yield f"{cluster.add_api()}/curation/scale-{RECORDS}"
    finally:
        cluster.stop()


def _sources(items: Sequence[DemoInput]) -> Iterator[tuple[DemoInput, str]]:
    for place, item in enumerate(items):
        yield item, ("scanner", "mailroom", "hotline")[2 if item.path.suffix == ".wav" else place % 2]


def _wait(tasks: Tasks, ids: Sequence[UUID]) -> None:
    until = time.monotonic() + PATIENCE
    while not all(TaskState(state).final for state in tasks.states(ids).values()):
        if time.monotonic() > until:
            raise DemoError(f"Not every task has ended after {PATIENCE:g} s.")
        time.sleep(0.5)


@contextmanager
def _api(home: Path) -> Iterator[str]:
    """An API of the installation in this home; gives its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "scheduler.cli", "api", "--port", "0"],
        env=environment(os.environ, home),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        for line in process.stdout or ():
            if found := re.search(r"listens on (http://\S+)", line):
                # who writes into a pipe that nobody reads stands still
                threading.Thread(target=list, args=(process.stdout,), daemon=True).start()
                yield found[1]
                break
        else:
            raise DemoError("The API ended before it listened.")
    finally:
        process.terminate()
        process.wait(30)


def _best(page: Page, tasks: Sequence[UUID]) -> UUID:
    """The task whose candidates differ most in a few words: that shows what marks are for."""

    def marks(task: UUID) -> int:
        page.goto(f"/tasks/{task}")
        return min(page.locator("article ins").count(), 6) + 3 * page.locator("article:has(ins)").count()

    return max(tasks, key=marks)


def _keep(page: Page, path: Path, *, whole: bool = False) -> None:
    """A picture in 256 colours: pages have no more. Raises `DemoError` where it is too large all the same."""
    page.evaluate("document.activeElement.blur()")
    page.screenshot(path=path, full_page=whole)
    with Image.open(path) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size} bytes")
    if path.stat().st_size > LARGEST:
        raise DemoError(f"{path} has over {LARGEST} bytes.")


if __name__ == "__main__":
    sys.exit(main())
