"""This queue under the same work: three no-op models, a scripted judge, one scheduler, a process each."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

import psycopg

from benchmarks.overhead.driver import JUDGE, MODELS, Submitter, request
from benchmarks.overhead.fleet import Driver, Running
from db.settings import load_settings
from scheduler.local.cluster import Cluster
from scheduler.local.processes import end_process
from scheduler.submit import NewTask, submit, submit_many

if TYPE_CHECKING:
    from pathlib import Path

SCHEDULER = "scheduler"
STOP_STEPS = ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0))  # seconds
LARGEST_WAVE = 128
USUAL_WAVE = 32
WAVES = (1, 8, USUAL_WAVE, LARGEST_WAVE)

_HEAD = f"""
[profiles.demo]
models = [{", ".join(f'"{name}"' for name in MODELS)}]

[capabilities.text-generation]
input = "text"
instruction = "Answer the request."
judge = "longest"

[judges.longest]
method = "scripted"
"""

# The scheduler's wave size decides how much a message carries, so one registry serves all waves.
_MODEL = f"""
[models.{{name}}]
capability = "text-generation"
backend = "scripted"
max_batch = {LARGEST_WAVE}
window = 4
memory_mb = 64
params = {{{{ answer = "{{{{text}}}}{{{{text}}}}" }}}}
"""


class Ours(Cluster):
    """The servers of the benchmark, and our own processes while it is our turn."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, _HEAD + "".join(_MODEL.format(name=name) for name in MODELS), {})

    def start_workers(self) -> None:
        """Three models and the judge."""
        for name in MODELS:
            self.add(name, "worker", name, "--name", name)
        self.add(JUDGE, "worker", "--judge", "--name", JUDGE)

    def start_scheduler(self, wave: int) -> None:
        """One scheduler that sends waves of at most so many, and nothing else than the defaults."""
        self.end(SCHEDULER)
        self._settings["BAKEOFF_WAVE_SIZE"] = str(wave)
        self.add(SCHEDULER, SCHEDULER)
        self.wait_ready()

    def end(self, *names: str) -> None:
        """Stop these processes; all where none is named."""
        ending = [self.members.pop(name) for name in names or tuple(self.members) if name in self.members]
        for member in ending:
            member.process.terminate()
        for member in ending:
            end_process(member.process, STOP_STEPS)

    def running(self, name: str, wave: int) -> Running:
        """With a driver of its own."""
        workers = tuple(self.members[worker].process.pid for worker in (*MODELS, JUDGE))
        return Running(
            name=name,
            wave=wave,
            driver=Driver(
                sys.executable, "benchmarks.overhead.ours:Ourselves", self._environment(), self.folder / "driver.log"
            ),
            groups={"workers": workers, SCHEDULER: (self.members[SCHEDULER].process.pid,)},
            servers=self.servers,
        )

    @property
    def servers(self) -> dict[str, tuple[int, ...]]:
        """Process ids of Redis and Postgres."""
        found = {"redis": self.redis.process, "postgres": self.postgres.process}
        return {name: (process.pid,) for name, process in found.items() if process is not None}


class Ourselves(Submitter):
    """Submits as another Python program would."""

    def prepare(self) -> None:
        """Settings from the environment, and a connection to look with."""
        self._settings = load_settings()
        self._connection = psycopg.connect(self._settings.dsn, autocommit=True)

    def submit(self, numbers: range) -> None:
        """In calls as large as they may be."""
        size = self._settings.max_bulk
        for start in range(0, len(numbers), size):
            submit_many(self._settings, [NewTask(request=request(number)) for number in numbers[start : start + size]])

    def submit_one(self, number: int) -> str:
        return str(submit(self._settings, NewTask(request=request(number))))

    def finished(self, key: str) -> bool:
        found = self._connection.execute("SELECT FROM task WHERE id = %s AND status = 'done'", (key,))
        return found.rowcount > 0

    def all_finished(self) -> bool:
        """By the index of what is open; a task that failed ends the benchmark."""
        if self._connection.execute("SELECT FROM task WHERE finished_at IS NULL LIMIT 1").rowcount:
            return False
        failed = self._connection.execute(
            "SELECT id, status, error FROM task WHERE status <> 'done' LIMIT 1"
        ).fetchone()
        if failed is not None:
            raise RuntimeError(f"a task was not done: {failed}")
        return True
