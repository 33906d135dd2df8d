"""The processes of one `up`: which ones a profile needs, and one of them while it runs."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil

from db.instance import ChildRef
from scheduler.local.backoff import Backoff
from scheduler.local.processes import end_group, last_lines, spawn

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping
    from pathlib import Path

    from db.registry import Registry

FLOWER_USER = "bakeoff"
FLOWER_ROWS = 5000  # that it keeps in memory
FLOWER_COLUMNS = "name,kwargs,state,received,runtime,worker,uuid"  # the arguments say task, subtask and model
GIVE_BACK_SECONDS = 10.0  # that a worker may take, after BAKEOFF_STOP_SECONDS, to give back what it could not finish


@dataclass(frozen=True, kw_only=True)
class ChildSpec:
    """A process to keep running: `python COMMAND`."""

    name: str  # also of its log file
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)  # on top of what all children get
    models: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()  # judge, planner, integrator
    reports: bool = False  # says by heartbeat when it is ready
    answers_at: tuple[str, int] | None = None  # where it listens once it is ready
    stop_rank: int = 0  # at the end the lower ranks stop first
    grace: float = 10.0  # seconds from SIGTERM to SIGKILL

    @property
    def title(self) -> str:
        """What a person calls it."""
        parts = [*(f"model {name}" for name in self.models), *(f"the {role}" for role in self.roles)]
        return " and ".join(parts) or self.name


class Child:
    """A child while it runs, ends and runs again."""

    def __init__(self, spec: ChildSpec, log: Path, environment: Mapping[str, str]) -> None:
        self.spec = spec
        self.log = log
        self._environment = {**environment, **spec.environment}
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self.backoff = Backoff()

    def start(self) -> None:
        """Start it now."""
        command = [sys.executable, *self.spec.command]
        # Not SIGTERM: a Celery worker that stops in order waits for a Redis that has just died with us. Its leases end.
        self._process = spawn(command, log=self.log, env=self._environment, on_parent_death=signal.SIGKILL)
        self._started = time.monotonic()

    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def due(self) -> bool:
        """Whether it ended and its delay is over."""
        return self._process is None and self.backoff.due()

    def ended(self) -> str | None:
        """Once after each end of its own: one line about it. It then becomes `due` after a growing delay."""
        if self._process is None or self._process.poll() is None:
            return None
        code = self._process.returncode
        end_group(self._process.pid)
        self._process = None
        delay = self.backoff.failed(time.monotonic() - self._started)
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        last = last_lines(self.log) or "nothing"
        return f"{self.spec.name} {how}, starts again in {delay:g} s; last line of {self.log}: {last}"

    def ref(self) -> ChildRef | None:
        """For `up.json`."""
        if self._process is None:
            return None
        try:
            started = psutil.Process(self._process.pid).create_time()
        except psutil.NoSuchProcess:
            return None
        return ChildRef(name=self.spec.name, pid=self._process.pid, start_time=started)

    def pids(self) -> set[int]:
        """Its process and what that one started."""
        if self._process is None:
            return set()
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self._process.pid).children(recursive=True)
            return {self._process.pid, *(child.pid for child in children)}
        return set()

    def ask_to_stop(self) -> None:
        """SIGTERM: finish or give back what it holds."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def kill(self) -> None:
        """End it and whatever it started, at once."""
        if self._process is not None:
            end_group(self._process.pid)
            self._process.wait()


def children_of(registry: Registry, profile: str, stop_seconds: float = 20.0) -> list[ChildSpec]:
    """What a profile needs beside the servers: scheduler, intake, one worker per model, judge, planner, integrator.

    Roles share the process, and so the weights, of the language models that they ask, where one asks what another does.
    A worker that is asked to stop gets `stop_seconds` for its batch, and then some to give it back.
    """
    grace = stop_seconds + GIVE_BACK_SECONDS
    chosen = registry.profile(profile).models
    served = {entry.capability for entry in registry.restricted_to(profile).models.values()}
    judges = {registry.capabilities[name].judge for name in served}
    restricted = registry.restricted_to(profile)
    roles = {"judge": restricted.asked_by_judges()} if judges else {}
    if restricted.planner is not None:
        roles["planner"] = set(restricted.planners[restricted.planner].asks)
    if restricted.integrator is not None:
        roles["integrator"] = set(restricted.integrators[restricted.integrator].asks)
    shared = _sharing(roles)
    asked = {model for _, models in shared for model in models}
    specs = [
        ChildSpec(name="scheduler", command=_bakeoff("scheduler"), reports=True, stop_rank=1),
        ChildSpec(name="intake", command=_bakeoff("worker", "--intake"), reports=True, grace=grace),
    ]
    specs += [_worker((name,), grace) for name in chosen if name not in asked]
    specs += [_worker(tuple(models), grace, names) for names, models in shared]
    return specs


def _sharing(roles: dict[str, set[str]]) -> list[tuple[tuple[str, ...], list[str]]]:
    """Roles that go into one process, since they ask the same models, and those models.

    One that asks nobody joins the role before it: it takes no memory to speak of.
    """
    together: list[tuple[list[str], set[str]]] = []
    for role, models in roles.items():
        near = [group for group in together if group[1] & models] if models else together[-1:]
        together = [group for group in together if group not in near]
        together.append(([*(name for names, _ in near for name in names), role], models.union(*(g[1] for g in near))))
    return [(tuple(names), sorted(models)) for names, models in together]


def flower_spec(port: int, password: str, *, app: str = "worker.app", most_rows: int = FLOWER_ROWS) -> ChildSpec:
    """Flower behind a password, unable to change anything, with bounded memory."""
    options = [
        "--conf=/dev/null",  # it would otherwise run a flowerconfig.py of the current folder
        "--address=127.0.0.1",
        f"--port={port}",
        "--read_only=True",
        "--persistent=False",
        f"--max_tasks={most_rows}",
        "--purge_offline_workers=300",
        f"--tasks_columns={FLOWER_COLUMNS}",
    ]
    return ChildSpec(
        name="flower",
        command=("-m", "celery", "--app", app, "flower", *options),
        environment={"FLOWER_BASIC_AUTH": f"{FLOWER_USER}:{password}", "FLOWER_UNAUTHENTICATED_API": "false"},
        stop_rank=2,
        grace=5.0,
    )


def api_spec(host: str, port: int, stop_seconds: float = 20.0) -> ChildSpec:
    """The HTTP API and its pages. It stops with the workers: what it accepted is in Postgres."""
    return ChildSpec(
        name="api",
        command=_bakeoff("api", "--host", host, "--port", str(port)),
        answers_at=({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port),  # noqa: S104 - everywhere is here, too
        grace=stop_seconds + GIVE_BACK_SECONDS,
    )


def threads_per_worker(workers: int) -> int:
    """CPU threads that each model process gets when nobody says how many."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        cores = os.cpu_count() or 1
    return max(1, cores // max(1, workers))


def _worker(models: tuple[str, ...], grace: float, roles: tuple[str, ...] = ()) -> ChildSpec:
    return ChildSpec(
        name="worker-" + "+".join(models or roles),
        command=_bakeoff("worker", *models, *(f"--{role}" for role in roles)),
        models=models,
        roles=roles,
        reports=True,
        grace=grace,
    )


def _bakeoff(*arguments: str) -> tuple[str, ...]:
    return ("-m", "scheduler.cli", *arguments)
