"""Servers and processes of its own for a measurement: started through the CLI, started again when they end.

Everything runs in the main thread, so that whatever is started here dies with its caller. Call `supervise` often.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import psycopg
import redis
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from db import migrate
from db.engine import engine_of, transaction
from db.errors import BakeoffError
from db.settings import DEFAULT_PROFILE, Settings
from scheduler.local.files import free_port, http_url
from scheduler.local.processes import spawn
from scheduler.local.servers import EmbeddedPostgres, EmbeddedRedis

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping, Sequence

RESTART_AFTER = 0.5  # seconds, as `bakeoff up` does at first
READY_WITHIN = 120.0
STOP_WITHIN = 20.0

#: What a server that is away, or an interrupted statement, raises.
AWAY = (BakeoffError, SQLAlchemyError, psycopg.Error, redis.RedisError)

_ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Member:
    """One supervised process."""

    name: str
    arguments: tuple[str, ...]
    process: subprocess.Popen[bytes]
    ended_at: float | None = None
    starts: int = 1


class Cluster:
    """A Postgres, a Redis, a registry and its processes, in a folder of their own."""

    def __init__(
        self, folder: Path, registry: str, settings: Mapping[str, str], *, profile: str = DEFAULT_PROFILE
    ) -> None:
        self.folder = folder
        self.profile = profile
        self.home = folder / "home"
        self.postgres = EmbeddedPostgres(folder / "postgres")
        self.redis = EmbeddedRedis(folder / "redis")
        self.members: dict[str, Member] = {}
        self._registry = folder / "models.toml"
        self._registry.write_text(registry)
        self._settings = {"BAKEOFF_PROFILE": profile, **settings}

    # --- its life

    def start_servers(self) -> None:
        """Start both servers and bring the database up to date. From the main thread."""
        self.postgres.start()
        self.redis.start()
        migrate.upgrade(self.postgres.url)

    def add(self, name: str, *arguments: str) -> None:
        """Start a process and keep it running."""
        self.members[name] = Member(name, arguments, self._spawn(name, arguments))

    def supervise(self) -> None:
        """Start again what ended a moment ago."""
        now = time.monotonic()
        for member in self.members.values():
            if member.process.poll() is None:
                continue
            if member.ended_at is None:
                member.ended_at = now
            elif now - member.ended_at >= RESTART_AFTER:
                member.process = self._spawn(member.name, member.arguments)
                member.ended_at = None
                member.starts += 1

    def wait_ready(self, within: float = READY_WITHIN) -> None:
        """Return when every process says that it is ready. Raises `BakeoffError` after so many seconds."""
        self._wait(self.all_ready, within)

    def add_api(self) -> str:
        """Start the HTTP API; returns its address once it can work. Raises `BakeoffError` where that takes too long."""
        port = free_port()
        url = http_url("127.0.0.1", port)
        self.add("api", "api", "--port", str(port))
        self._wait(lambda: _api_is_ready(url), READY_WITHIN)
        return url

    def _wait(self, ready: Callable[[], bool], within: float) -> None:
        deadline = time.monotonic() + within
        while not ready():
            if time.monotonic() > deadline:
                raise BakeoffError(f"Not everything was ready within {within:g} s; see the logs in {self.folder}")
            self.supervise()
            time.sleep(0.1)

    def all_ready(self) -> bool:
        """Whether every process runs and is ready for work."""
        try:
            ready = {row.pid for row in self.query("SELECT pid FROM worker WHERE status = 'ready'")}
        except AWAY:
            return False
        return all(m.process.poll() is None and m.process.pid in ready for m in self.members.values())

    def stop(self) -> list[psutil.Process]:
        """Ask everything to stop, in order; returns the processes of ours that outlived it, which are killed then."""
        for member in self.members.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(member.process.pid, signal.SIGCONT)
                member.process.terminate()
        deadline = time.monotonic() + STOP_WITHIN
        while time.monotonic() < deadline and any(m.process.poll() is None for m in self.members.values()):
            time.sleep(0.1)
        engine_of(self.postgres.url, "benchmark").dispose()
        engine_of(self.postgres.url, "submit").dispose()
        self.redis.stop()
        self.postgres.stop()
        time.sleep(0.5)  # what dies with its parent needs a moment
        left = self.processes()
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for member in self.members.values():
            member.process.wait()
        return left

    def processes(self) -> list[psutil.Process]:
        """Every process of ours that lives: it has our home in its environment, or our folder on its command line."""
        return [process for process in psutil.process_iter() if process.pid != os.getpid() and self._is_ours(process)]

    # --- what runs

    def child(self, name: str) -> psutil.Process | None:
        """The process that holds a worker's model; None while there is none."""
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self.members[name].process.pid).children():
                if "semaphore_tracker" not in " ".join(child.cmdline()):
                    return child
        return None

    def runs(self, name: str) -> bool:
        """Whether the process lives right now."""
        return self.members[name].process.poll() is None

    # --- its servers

    def settings(self) -> Settings:
        """What a client in this process needs."""
        return Settings(
            home=self.home,
            database_url=SecretStr(self.postgres.url),
            redis_url=SecretStr(self.redis.url),
            models_file=self._registry,
            profile=self.profile,
            blob_url=None,
        )

    def query(self, statement: str, **values: Any) -> Sequence[Any]:
        """Rows of one statement. Raises one of `AWAY`."""
        with transaction(engine_of(self.postgres.url, "benchmark")) as connection:
            result = connection.execute(text(statement), values)
            return result.all() if result.returns_rows else []

    def redis_client(self) -> redis.Redis:
        """A client that waits for nobody."""
        return redis.Redis.from_url(self.redis.url, socket_timeout=1, socket_connect_timeout=1)

    def _spawn(self, name: str, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "scheduler.cli", *arguments]
        return spawn(command, log=self.folder / f"{name}.log", env=self._environment(), folder=str(self.folder))

    def _environment(self) -> dict[str, str]:
        outer = {name: value for name, value in os.environ.items() if not name.startswith("BAKEOFF_")}
        return {
            "OMP_NUM_THREADS": "1",
            **outer,
            "PYTHONPATH": str(_ROOT),
            "BAKEOFF_DATABASE_URL": self.postgres.url,
            "BAKEOFF_REDIS_URL": self.redis.url,
            "BAKEOFF_HOME": str(self.home),
            "BAKEOFF_MODELS_FILE": str(self._registry),
            **self._settings,
        }

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            if process.environ().get("BAKEOFF_HOME") == str(self.home):
                return True
            return any(str(self.folder) in part for part in process.cmdline())
        except (psutil.Error, OSError):
            return False


def _api_is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False
