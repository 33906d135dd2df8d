"""What the demo asks of Bakeoff: start, submit, look, stop. The only module of the demo that knows its interfaces."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from db.engine import engine_of, transaction
from db.errors import BakeoffError
from db.queries import task_status, task_story
from db.settings import Settings
from scheduler.submit import NewTask, submit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from uuid import UUID

    from benchmarks.demo.inputs import DemoInput

_CLI = (sys.executable, "-m", "scheduler.cli")
_ROOT = Path(__file__).resolve().parents[2]
_START_SECONDS = 1800.0  # the first start may fetch and convert weights
_STOP_SECONDS = 180.0
# The demo has servers of its own: these would send it to somebody else's, or change what is compared.
_FOREIGN = ("DATABASE_URL", "REDIS_URL", "BLOB_URL", "PROFILE", "MODELS_FILE", "CANDIDATES")


class DemoError(BakeoffError):
    """The demo cannot go on."""

    code = "demo"


class Installation:
    """A `bakeoff up` of its own in `home`. Everything it says goes to `home/up.log`, which holds its passwords."""

    def __init__(self, home: Path, profile: str, say: Callable[[str], None]) -> None:
        self.home = home
        self.profile = profile
        self._say = say
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    @property
    def pid(self) -> int | None:
        """Process id of `up` while it runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Start; `wait_until_ready` says when it can work."""
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._process = subprocess.Popen(
            [*_CLI, "up", "--no-api", "--profile", self.profile],
            env=environment(os.environ, self.home),
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C reaches the demo only, which then stops this in order
        )
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        log = os.open(self.home / "up.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(log, "w", buffering=1) as file:
            for line in process.stdout or ():
                file.write(line)
                self._lines.put(line.rstrip())
        self._lines.put(None)

    def wait_until_ready(self) -> None:
        """Return when every worker is ready. Raises `DemoError` with what `up` said where that does not happen."""
        deadline = time.monotonic() + _START_SECONDS
        last = ""
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise DemoError(f"Not ready after {_START_SECONDS:g} s; the last word was: {last or 'none'}") from None
            if line is None:
                raise DemoError(f"`bakeoff up` ended before it was ready; its last word: {last or 'none'}")
            if line.startswith("Ready"):
                if "Broken" in line:
                    raise DemoError(f"Not every worker can work. {line}")
                self._say(line)
                return
            last = line or last

    def stop(self) -> None:
        """`bakeoff down`, and a kill where that does not end it."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            command = [*_CLI, "down"]
            try:
                subprocess.run(
                    command,
                    env=environment(os.environ, self.home),
                    cwd=_ROOT,
                    timeout=_STOP_SECONDS,
                    capture_output=True,
                    check=False,
                )
                process.wait(10)
            except subprocess.TimeoutExpired:
                self._say("`bakeoff down` did not end it in time; killing it.")
                process.kill()
        process.wait()


class Tasks:
    """Submitting and reading, through the functions that the CLI uses."""

    def __init__(self, home: Path) -> None:
        # Nothing given: the addresses are those of the `up` that runs in this home.
        self._settings = Settings(
            home=home, database_url=None, redis_url=None, blob_url=None, profile=None, models_file=None
        )

    def submit(self, item: DemoInput, source: str) -> UUID:
        """Store one task and return its id."""
        return submit(self._settings, NewTask(capability=item.capability, source=source, attachments=[item.path]))

    def submit_steps(self, request: str, items: Sequence[DemoInput], steps: Sequence[Mapping[str, Any]]) -> UUID:
        """Store one task of these steps, which read the items as its attachments; returns its id."""
        files = [item.path for item in items]
        return submit(self._settings, NewTask(request=request, attachments=files, options={"subtasks": list(steps)}))

    def states(self, ids: Sequence[UUID]) -> dict[UUID, str]:
        """Status of each task."""
        with transaction(engine_of(self._settings.dsn, "demo")) as connection:
            return task_status(connection, list(ids))

    def stories(self, ids: Sequence[UUID]) -> list[dict[str, Any]]:
        """What `bakeoff submit --wait --json` prints, for each task."""
        with transaction(engine_of(self._settings.dsn, "demo")) as connection:
            return [task_story(connection, task) for task in ids]

    def close(self) -> None:
        """Give the connections back before the server stops."""
        engine_of(self._settings.dsn, "demo").dispose()
        engine_of(self._settings.dsn, "submit").dispose()


def environment(outer: Mapping[str, str], home: Path) -> dict[str, str]:
    """Environment of the demo's own `bakeoff`: the caller's, without what names other servers."""
    foreign = {f"BAKEOFF_{name}" for name in _FOREIGN}
    kept = {name: value for name, value in outer.items() if name not in foreign}
    return {"HF_HUB_OFFLINE": "1", **kept, "BAKEOFF_HOME": str(home), "PYTHONUNBUFFERED": "1"}
