"""A system of its own for a measurement: servers, a scheduler and workers, started through the command line."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Self

from db.engine import engine_of
from scheduler.local.cluster import READY_WITHIN, Cluster
from scheduler.submit import submit_many
from scheduler.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType
    from uuid import UUID

    from db.settings import Settings
    from scheduler.submit import NewTask

    Progress = Callable[[int, int], None]

SCHEDULER, JUDGE = "scheduler", "judge"
OVER = frozenset({"done", "failed", "expired", "cancelled"})
STOP_WITHIN = 30.0
LONGEST_NAME = 56  # of a model's name in a registry, with room for what tells two of them apart


class System:
    """The running system; use it as a context, from the main thread. `workers`: name → arguments of its process."""

    def __init__(
        self,
        folder: Path,
        registry: str,
        own: Mapping[str, str],
        *,
        profile: str,
        workers: Mapping[str, Sequence[str]],
        ready_within: float = READY_WITHIN,
    ) -> None:
        folder.chmod(0o755)  # Postgres runs as somebody else where we are root
        self.cluster = Cluster(folder, registry, {"BAKEOFF_THREADS": "1"} | dict(own), profile=profile)
        self._workers = workers
        self._ready_within = ready_within

    def __enter__(self) -> Self:
        """Start everything; returns when all models are loaded."""
        try:
            self.cluster.start_servers()
            self.cluster.add(SCHEDULER, SCHEDULER)
            for name, arguments in self._workers.items():
                self.add_worker(name, *arguments)
            self.cluster.wait_ready(self._ready_within)
        except BaseException:
            self.cluster.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        engine_of(self.settings.dsn, "wait").dispose()
        self.cluster.stop()

    @property
    def settings(self) -> Settings:
        """What a client in this process needs."""
        return self.cluster.settings()

    def add_worker(self, name: str, *arguments: str) -> None:
        """Start a worker."""
        self.cluster.add(name, "worker", *arguments, "--name", name)

    def stop_member(self, name: str) -> None:
        """End a process for good."""
        member = self.cluster.members.pop(name)
        member.process.terminate()
        member.process.wait(STOP_WITHIN)

    def submit(self, tasks: Sequence[NewTask]) -> list[UUID]:
        """Store tasks; returns their ids, in order."""
        return submit_many(self.settings, tasks)

    def wait(self, ids: Sequence[UUID], within: float, progress: Progress) -> None:
        """Wait until tasks have ended, and start again what dies. Raises `WaitTimeout`."""

        def look(states: Mapping[UUID, str]) -> None:
            self.cluster.supervise()
            progress(sum(state in OVER for state in states.values()), len(ids))

        wait_for(self.settings, ids, within, look)


def plain_name(model: str) -> str:
    """A published model's name as a registry takes it."""
    return re.sub(r"[^a-z0-9._-]+", "-", model.lower()).lstrip("._-")[:LONGEST_NAME]


def as_toml(tables: Mapping[str, Any]) -> str:
    """Sections of named tables as TOML."""
    lines = []
    for section, entries in tables.items():
        for name, entry in entries.items():
            lines.append(f"[{_value(section)}.{_value(name)}]")
            lines += [f"{_value(key)} = {_value(value)}" for key, value in entry.items()]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_value(key)} = {_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return json.dumps(value)  # texts, numbers, true and false are written as in TOML
