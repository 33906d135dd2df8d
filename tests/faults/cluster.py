"""Real processes under a small supervisor, on servers that a test may kill: where faults are made."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg
import redis
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from db.engine import make_engine, transaction
from db.errors import Unreachable
from scheduler.local.servers import EmbeddedPostgres, EmbeddedRedis
from tests.conftest import Installation, wait_until
from tests.faults.registry import MODELS, WIDE

RESTART_AFTER = 0.5  # seconds, as `bakeoff up` does at first
MEMORY_LIMIT = 6 * 1024**3  # bytes of address space: a model that allocates without end must not end the machine
READY_WITHIN = 60.0
QUIET_WITHIN = 15.0
SILENT = {"api"}  # it has no heartbeat: whoever starts it asks it

SETTINGS = {
    "BAKEOFF_SETTLE_SECONDS": "1",
    "BAKEOFF_START_ALLOWANCE": "6",  # over the grace of a batch that hangs: it ends as it would in production
    "BAKEOFF_BIND_WAIT": "3",
    "BAKEOFF_PROBE_SECONDS": "2",
    "BAKEOFF_STALL_SECONDS": "15",
    "BAKEOFF_STOP_SECONDS": "5",
    "BAKEOFF_INTAKE_VISIBILITY": "5",
    "BAKEOFF_WAVE_SIZE": os.environ.get("BAKEOFF_FAULT_WAVE", "32"),
}

_RECENT = """
SELECT {what}, count(*) FROM {table} WHERE created_at > now() - interval '2 minutes' GROUP BY {what} ORDER BY {what}
"""
_UNFINISHED = """
SELECT model, status, attempt, isolate, message_id, token, lease_until - now() AS lease, not_before - now() AS wait,
       now() - sent_at AS sent, error
FROM candidate WHERE finished_at IS NULL ORDER BY id LIMIT 20
"""

AWAY = (DBAPIError, Unreachable, psycopg.Error, redis.RedisError)


@dataclass(frozen=True)
class Ended:
    """A process that ended while it was supervised."""

    name: str
    pid: int
    code: int


@dataclass
class Servers:
    """Postgres and Redis, each of which may be killed and comes back on its port. Start them in the main thread."""

    postgres: EmbeddedPostgres
    redis: EmbeddedRedis

    @classmethod
    def in_folder(cls, folder: Path) -> Servers:
        return cls(EmbeddedPostgres(folder / "postgres", durable=False), EmbeddedRedis(folder / "redis", durable=False))

    def start(self) -> None:
        self.postgres.start()
        self.redis.start()

    def stop(self) -> None:
        self.redis.stop()
        self.postgres.stop()

    def forget_redis(self) -> None:
        """What a stopped Redis wrote to its disk is lost."""
        shutil.rmtree(self.redis.data)


@dataclass
class Cluster(Installation):
    """An installation whose processes are started again when they end, as `bakeoff up` would."""

    servers: Servers = field(kw_only=True)
    switches: Path = field(kw_only=True)
    ended: list[Ended] = field(default_factory=list)
    _commands: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _closing: threading.Event = field(default_factory=threading.Event)
    _own_engine: Engine | None = None

    # --- its life

    def start_everything(self) -> None:
        """A scheduler, the judge, and a worker per model, supervised; returns when all are ready."""
        threading.Thread(target=self._supervise, name="supervisor", daemon=True).start()
        self.start("scheduler", "scheduler")
        self.start("judge", "worker", "--judge")
        for model in MODELS:
            self.start(model, "worker", model, WIDE[model], "--name", model)
        self.wait_all_ready()

    def close(self) -> None:
        self._closing.set()
        with self._lock:
            for process in self.processes.values():
                _signal_group(process.pid, signal.SIGCONT)
            self.stop_all()
            for orphans in self.ended:
                _signal_group(orphans.pid, signal.SIGKILL)
        if self._own_engine is not None:
            self._own_engine.dispose()

    def start(self, name: str, *arguments: str) -> None:
        """Start a process and keep it running."""
        with self._lock:
            self._commands[name] = arguments
            super().start(name, *arguments)
            resource.prlimit(self.processes[name].pid, resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))

    def retire(self, name: str, number: signal.Signals = signal.SIGTERM) -> int:
        """End a process for good: the supervisor forgets it. Returns the exit code."""
        with self._lock:
            self._commands.pop(name, None)
            process = self.processes.pop(name)
        if number == signal.SIGKILL:
            _signal_group(process.pid, number)
        else:
            process.send_signal(number)
        try:
            return process.wait(30)
        finally:
            _signal_group(process.pid, signal.SIGKILL)

    @contextmanager
    def also(self, name: str, *arguments: str) -> Iterator[None]:
        """One more process for the length of a block."""
        self.start(name, *arguments)
        self.wait_all_ready()
        try:
            yield
        finally:
            self.retire(name)

    def run_module(self, module: str, *arguments: str, timeout: float = 60) -> int:
        """Run a Python module of the suite with the cluster's settings until it ends. Returns its exit code."""
        with (self.folder / f"{module.rpartition('.')[2]}.log").open("ab") as log:
            return subprocess.run(
                [sys.executable, "-m", module, *arguments],
                env=self.environment,
                stdout=log,
                stderr=log,
                timeout=timeout,
                check=False,
            ).returncode

    def _supervise(self) -> None:
        ended_at: dict[int, float] = {}
        while not self._closing.wait(0.05):
            with self._lock:
                for name, process in list(self.processes.items()):
                    if (code := process.poll()) is None or self._closing.is_set():
                        continue
                    if process.pid not in ended_at:
                        ended_at[process.pid] = time.monotonic()
                        self.ended.append(Ended(name, process.pid, code))
                    if time.monotonic() - ended_at[process.pid] >= RESTART_AFTER:
                        self.start(name, *self._commands[name])

    # --- what runs

    def pid(self, name: str) -> int:
        with self._lock:
            return self.processes[name].pid

    def child(self, name: str) -> psutil.Process:
        """The process that holds a worker's model."""
        wait_until(lambda: len(self._children(name)) == 1, 20, self.logs)
        return self._children(name)[0]

    def _children(self, name: str) -> list[psutil.Process]:
        try:
            children = psutil.Process(self.pid(name)).children(recursive=True)
            return [child for child in children if "semaphore_tracker" not in " ".join(child.cmdline())]
        except psutil.Error:
            return []

    def kill(self, name: str) -> None:
        """`kill -9` of the process itself; what it started is left to look after itself."""
        os.kill(self.pid(name), signal.SIGKILL)

    def ask_to_stop(self, name: str, *, group: bool = False) -> int:
        """SIGTERM, to the process or to its whole group, and its exit code; it is started again."""
        pid = self.pid(name)
        (os.killpg if group else os.kill)(pid, signal.SIGTERM)
        wait_until(lambda: any(gone.pid == pid for gone in self.ended), 30, self.logs)
        return next(gone.code for gone in self.ended if gone.pid == pid)

    def freeze(self, name: str) -> None:
        """SIGSTOP to a process and its children."""
        os.killpg(self.pid(name), signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        os.killpg(self.pid(name), signal.SIGCONT)

    @contextmanager
    def switched(self, name: str) -> Iterator[None]:
        """Something of the registry fails for the length of the block."""
        switch = self.switches / name
        switch.touch()
        try:
            yield
        finally:
            switch.unlink()

    def wait_all_ready(self) -> None:
        wait_until(self.all_ready, READY_WITHIN, self.explain)

    def all_ready(self) -> bool:
        """Whether every process that should run says that it is ready."""
        try:
            ready = {row.pid for row in self.query("SELECT pid FROM worker WHERE status = 'ready'")}
        except AWAY:
            return False
        with self._lock:
            return all(
                process.poll() is None and (process.pid in ready or name in SILENT)
                for name, process in self.processes.items()
            )

    def quiet(self) -> bool:
        """Whether everything runs and nothing is left to do."""
        if not self.all_ready():
            return False
        unfinished = self.query(
            """
            SELECT FROM task WHERE finished_at IS NULL
            UNION ALL SELECT FROM subtask WHERE finished_at IS NULL
            UNION ALL SELECT FROM candidate WHERE finished_at IS NULL
            """
        )
        return not unfinished and not any(self.queue_lengths().values())

    # --- what it stores

    def query(self, statement: str, **values: Any) -> list[Any]:
        if self._own_engine is None:
            self._own_engine = make_engine(self.database_url, application="test", pool_size=1)
        with transaction(self._own_engine) as connection:
            result = connection.execute(text(statement), values)
            return list(result) if result.returns_rows else []

    def redis_client(self) -> redis.Redis:
        return redis.Redis.from_url(self.redis_url, socket_timeout=5)

    def queue_lengths(self) -> dict[str, int]:
        with self.redis_client() as client:
            queues = ["judge", "intake", *(f"model.{name}" for name in (*MODELS, *WIDE.values()))]
            return {queue: int(client.llen(queue)) for queue in queues}

    def resume_everything(self) -> None:
        """Forget what an earlier test made the breakers do."""
        for table in ("model", "judge"):
            self.query(
                f"UPDATE {table} SET status = 'active', reason = NULL, consecutive_failures = 0, suspended_at = NULL, "
                "probe_after = NULL"
            )

    # --- what to say when a test fails

    def explain(self) -> str:
        """Where everything stands, for the message of a failed test."""
        parts = [f"ended: {self.ended[-10:]}"]
        for title, look in (
            ("tasks", _RECENT.format(what="source, status", table="task")),
            ("subtasks", _RECENT.format(what="source, status", table="subtask")),
            ("candidates", _RECENT.format(what="model, status, attempt", table="candidate")),
            ("workers", "SELECT name, pid, status, error, now() - heartbeat_at AS age FROM worker ORDER BY name"),
            ("models", "SELECT name, status, reason, consecutive_failures FROM model ORDER BY name"),
            ("judges", "SELECT name, status, reason, consecutive_failures FROM judge ORDER BY name"),
            ("unfinished candidates", _UNFINISHED),
        ):
            parts.append(f"{title}:\n  " + "\n  ".join(self._said(lambda look=look: self.query(look))))  # type: ignore[misc]
        parts.append(f"queues: {self._said(lambda: [self.queue_lengths()])[0]}")
        return "\n".join([*parts, self.logs()])

    def logs(self) -> str:
        """The last warnings and errors of every process, and its last lines."""
        return "\n".join(f"== {log.name}\n{_worth_reading(log)}" for log in sorted(self.folder.glob("*.log")))

    def times_logged(self, words: str) -> int:
        """How often the logs hold these words."""
        return sum(log.read_text(errors="replace").count(words) for log in self.folder.glob("*.log"))

    @staticmethod
    def _said(look: Callable[[], list[Any]]) -> list[str]:
        try:
            return [str(row) for row in look()] or ["none"]
        except AWAY as error:
            return [f"unknown: {' '.join(str(error).split())[:200]}"]


def _worth_reading(log: Path, width: int = 400) -> str:
    lines = log.read_text(errors="replace").splitlines()
    problems = [line for line in lines if '"level": "info"' not in line]
    return "\n".join(line[:width] for line in [*problems[-12:], "...", *lines[-3:]])


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return


def gone(process: psutil.Process) -> bool:
    """Whether a process has ended; one that only waits to be buried has."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
