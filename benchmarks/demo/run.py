"""The demo from start to end: start everything, submit, watch, show, stop everything."""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.demo import report
from benchmarks.demo.client import DemoError, Installation, Tasks
from benchmarks.demo.inputs import DemoInput, render_images
from benchmarks.demo.memory import Watch
from benchmarks.demo.recordings import cache_folder, fetch, make_recordings
from benchmarks.demo.score import as_json
from db.states import TaskState

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType
    from uuid import UUID

_LOOK_EVERY = 0.5  # seconds
_SAY_EVERY = 5.0  # seconds, where the output is no terminal
_DEFAULT_WIDTH = 120  # columns, where the output is no terminal


@dataclass(frozen=True, kw_only=True)
class Options:
    """What can be said on the command line."""

    seed: int
    images: int
    recordings: int
    summary: Path
    home: Path | None  # empty: a temporary folder
    keep: bool  # leave the home folder, with database, blobs and logs
    profile: str = "demo"
    timeout: float = 900.0  # seconds for all tasks


def make_console() -> Console:
    """The terminal, or 120 columns of plain text."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_DEFAULT_WIDTH)


def run(options: Options, console: Console) -> int:
    """Run the demo; returns the exit code: 0 only when every task is done and nothing is left running."""
    began = time.monotonic()
    console.print(f"Demo with seed {options.seed}; another one: make demo SEED={options.seed + 1}")
    fetch(cache_folder())
    with _folder(options, console) as home:
        installation = Installation(home, options.profile, lambda line: console.print(line, soft_wrap=True))
        watch = Watch(lambda: installation.pid)
        left: list[psutil.Process] = []
        try:
            installation.start()
            watch.start()
            items = _make_inputs(options, home / "inputs")
            console.print(f"{len(items)} inputs in {home / 'inputs'}; starting servers, workers and judge ...")
            installation.wait_until_ready()
            ready = time.monotonic()
            stories = _work(home, items, options, console)
            worked = time.monotonic() - ready
        finally:
            left = _stop(installation, watch, console)
        report.print_inputs(console, items, stories)
        results = report.summaries(items, stories)
        report.print_summary(console, results)
    options.summary.write_text(json.dumps(as_json(results), indent=2) + "\n")
    _print_costs(console, watch, len(items), worked=worked, ready=ready - began, total=time.monotonic() - began)
    console.print(f"Summary written to {options.summary}", soft_wrap=True)
    return _verdict(console, stories, left)


def _make_inputs(options: Options, folder: Path) -> list[DemoInput]:
    images = render_images(folder, seed=options.seed, count=options.images)
    return images + make_recordings(folder, seed=options.seed, count=options.recordings, cache=cache_folder())


def _work(home: Path, items: Sequence[DemoInput], options: Options, console: Console) -> list[dict[str, Any]]:
    tasks = Tasks(home)
    try:
        ids = [tasks.submit(item, source=f"demo-{options.seed}") for item in items]
        _wait(tasks, ids, options.timeout, console)
        return tasks.stories(ids)
    finally:
        tasks.close()


def _wait(tasks: Tasks, ids: Sequence[UUID], timeout: float, console: Console) -> None:
    """Until every task is final, with a bar on a terminal and a line every few seconds elsewhere."""
    columns = (TextColumn("answering and judging"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    began = said = time.monotonic()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=len(ids))
        while True:
            states = [TaskState(state) for state in tasks.states(ids).values()]
            final = sum(state.final for state in states)
            progress.update(bar, completed=final)
            now = time.monotonic()
            if final == len(ids):
                return
            if now - began > timeout:
                raise DemoError(f"Only {final} of {len(ids)} tasks were final after {timeout:g} s.")
            if not console.is_terminal and now - said >= _SAY_EVERY:
                said = now
                console.print(f"  {final} of {len(ids)} tasks after {now - began:.0f} s")
            time.sleep(_LOOK_EVERY)


def _stop(installation: Installation, watch: Watch, console: Console) -> list[psutil.Process]:
    """Stop everything; returns the processes that outlived it. They are killed, so that nothing stays either way."""
    console.print("Stopping everything ...")
    try:
        installation.stop()
    finally:  # also when a second Ctrl-C ends the patience
        watch.stop()
        _, left = psutil.wait_procs(watch.left(), timeout=3)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
    return left


def _print_costs(console: Console, watch: Watch, count: int, *, worked: float, ready: float, total: float) -> None:
    console.print()
    console.print(
        f"Peak memory {watch.peak_bytes / 1e9:.2f} GB over {watch.peak_processes} processes. "
        f"Ready after {ready:.0f} s, {count} tasks in {worked:.0f} s, {total:.0f} s in all."
    )


def _verdict(console: Console, stories: Sequence[dict[str, Any]], left: Sequence[psutil.Process]) -> int:
    undone = [story for story in stories if story["status"] != TaskState.DONE]
    for story in undone:
        reason = (story.get("error") or {}).get("message", "")
        console.print(f"Task {story['id']} ended {story['status']}. {reason}", style="red", soft_wrap=True)
    if left:
        names = ", ".join(str(process.pid) for process in left)
        console.print(f"Left running after the stop, now killed: {names}", style="red", soft_wrap=True)
    if undone or left:
        return 1
    console.print(f"All {len(stories)} tasks are done; nothing is left running.")
    return 0


@contextmanager
def _folder(options: Options, console: Console) -> Iterator[Path]:
    if options.home is not None:
        yield options.home.absolute()
        return
    home = Path(tempfile.mkdtemp(prefix="bakeoff-demo-"))
    try:
        yield home
    finally:
        if options.keep:
            console.print(f"Kept: {home}; look again with BAKEOFF_HOME={home} bakeoff up", soft_wrap=True)
        else:
            shutil.rmtree(home, ignore_errors=True)


def stop_on_terminate() -> None:
    """Let SIGTERM end the demo as Ctrl-C does: in order."""

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
