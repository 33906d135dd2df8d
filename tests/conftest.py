"""Fixtures of all tests: real servers, a real installation with scripted models, its processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url

from db import migrate
from db.engine import make_engine
from db.settings import load_settings

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as shells give it to what they start in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what tests start would be deaf to it, too

SCRIPTED = """
[profiles.demo]
models = ["alpha", "beta", "gamma", "reader-a", "reader-b", "hearer", "lonely"]

[capabilities.text-generation]
input = "text"
instruction = "Answer the request."
judge = "longest"

[capabilities."image-to-text/ocr"]
input = "image"
instruction = "Read the text in the picture."
judge = "longest"

[capabilities."image-to-text/caption"]
input = "image"
instruction = "Describe the picture."
judge = "longest"

[capabilities.automatic-speech-recognition]
input = "audio"
instruction = "Write down what is said."
judge = "longest"

[judges.longest]
method = "scripted"
params = { fail_on = "confuse the judge" }

[models.alpha]
capability = "text-generation"
backend = "scripted"
priority = 1
params = { answer = "alpha: {text}", rules = [{ match = "all fail|two fail", fail = "model" }, { match = "slow", sleep = 0.4 }] }

[models.beta]
capability = "text-generation"
backend = "scripted"
priority = 2
params = { answer = "beta says more: {text}", rules = [{ match = "all fail|one fails|two fail", fail = "input" }] }

[models.gamma]
capability = "text-generation"
backend = "scripted"
priority = 3
params = { answer = "{text}", rules = [{ match = "all fail", fail = "model" }, { match = "once", fail = "model", times = 1 }] }

[models.reader-a]
capability = "image-to-text/ocr"
backend = "scripted"
params = { answer = "read {name}" }

[models.reader-b]
capability = "image-to-text/ocr"
backend = "scripted"
params = { answer = "read the picture {name}" }

[models.hearer]
capability = "automatic-speech-recognition"
backend = "scripted"
params = { answer = "heard {name}" }

[models.lonely]
capability = "image-to-text/caption"
backend = "scripted"
"""


@dataclass(frozen=True)
class Completed:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Installation:
    """A database, a Redis, a registry of scripted models, and the processes that a test starts."""

    folder: Path
    database_url: str
    redis_url: str
    models_file: Path
    settings: dict[str, str] = field(default_factory=dict)
    work_folder: Path | None = None  # where commands are run, if that matters
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("BAKEOFF_")}
        return {
            **clean,
            "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
            "BAKEOFF_DATABASE_URL": self.database_url,
            "BAKEOFF_REDIS_URL": self.redis_url,
            "BAKEOFF_HOME": str(self.folder / "home"),
            "BAKEOFF_MODELS_FILE": str(self.models_file),
            "BAKEOFF_RETRY_DELAY": "0.2",
            "BAKEOFF_LEASE_SECONDS": "4",
            "BAKEOFF_LOST_AFTER": "1.5",
            "BAKEOFF_JUDGE_GRACE": "1",
            "BAKEOFF_HEARTBEAT_SECONDS": "1",
            "BAKEOFF_WORKER_TIMEOUT": "5",
            **self.settings,
        }

    def engine(self) -> Engine:
        return make_engine(self.database_url, application="test")

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "scheduler.cli", *arguments]

    def run(self, *arguments: str, timeout: float = 60, env: Mapping[str, str] | None = None) -> Completed:
        done = subprocess.run(
            self.command(*arguments),
            env={**self.environment, **(env or {})},
            cwd=self.work_folder,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Completed(done.returncode, done.stdout, done.stderr)

    def start(self, name: str, *arguments: str) -> None:
        log = (self.folder / f"{name}.log").open("ab")
        self.processes[name] = subprocess.Popen(
            self.command(*arguments), env=self.environment, stdout=log, stderr=log, start_new_session=True
        )

    def start_all(self, models: Sequence[str] = ("alpha", "beta", "gamma", "reader-a", "reader-b")) -> None:
        """A scheduler, the judge, and a worker per model; returns when all of them are ready."""
        self.start("scheduler", "scheduler")
        self.start("judge", "worker", "--judge")
        for model in models:
            self.start(model, "worker", model)
        self.wait_ready(len(models) + 2)

    def wait_ready(self, count: int, timeout: float = 120) -> None:
        """Wait for `count` ready processes; fails at once where one of those that a test started has ended."""

        def ready() -> bool:
            ended = [name for name, process in self.processes.items() if process.poll() is not None]
            assert not ended, f"{', '.join(ended)} ended\n{self.logs()}"
            return len(self.query("SELECT name FROM worker WHERE status = 'ready'")) >= count

        wait_until(ready, timeout, self.logs)

    def query(self, statement: str, **values: Any) -> list[Any]:
        engine = self.engine()
        try:
            with engine.begin() as connection:
                result = connection.execute(text(statement), values)
                return list(result) if result.returns_rows else []
        finally:
            engine.dispose()

    def stop(self, name: str, number: int = signal.SIGTERM, timeout: float = 30) -> int:
        process = self.processes.pop(name)
        os.killpg(process.pid, number)
        return process.wait(timeout)

    def stop_all(self) -> None:
        for process in self.processes.values():
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for process in self.processes.values():
            process.wait(10)
        self.processes.clear()

    def logs(self) -> str:
        return "\n".join(f"== {log.name}\n{log.read_text()[-3000:]}" for log in sorted(self.folder.glob("*.log")))


def wait_until(condition: Any, timeout: float = 30, explain: Any = lambda: "") -> None:
    """Look ten times a second until a condition holds; fails with an explanation after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not so within {timeout} s\n{explain()}"
        time.sleep(0.1)


@pytest.fixture(autouse=True)
def fresh_settings() -> Iterator[None]:
    """A process reads its settings once; a test reads its own."""
    load_settings.cache_clear()
    yield
    load_settings.cache_clear()


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A Postgres and a Redis for the whole session: yours by BAKEOFF_TEST_*_URL, else the embedded ones."""
    given = os.environ.get("BAKEOFF_TEST_DATABASE_URL"), os.environ.get("BAKEOFF_TEST_REDIS_URL")
    if given[0] and given[1]:
        yield given[0], given[1]
        return
    from scheduler.local.servers import embedded

    with embedded(tmp_path_factory.mktemp("servers")) as urls:
        yield urls


@pytest.fixture(scope="session")
def template(servers: tuple[str, str]) -> Iterator[str]:
    """Name of an empty database with our schema, which the others are copies of: that is quicker than migrating."""
    with _own_database(servers[0]) as url:
        migrate.upgrade(url)
        yield str(make_url(url).database)


@pytest.fixture
def database(servers: tuple[str, str], template: str) -> Iterator[Engine]:
    """A database of its own with our schema and nothing in it."""
    with _own_database(servers[0], template) as url:
        engine = make_engine(url, application="test")
        yield engine
        engine.dispose()


@pytest.fixture
def installation(servers: tuple[str, str], template: str, tmp_path: Path) -> Iterator[Installation]:
    """An empty database and Redis, and a registry of scripted models; nothing runs yet."""
    yield from make_installation(servers, tmp_path, template)


@pytest.fixture(scope="module")
def running(
    servers: tuple[str, str], template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """An installation whose scheduler, judge and workers run; shared by the tests of a module."""
    for made in make_installation(servers, tmp_path_factory.mktemp("running"), template):
        made.start("intake", "worker", "--intake")
        made.start_all()
        made.wait_ready(8)
        yield made


def make_installation(
    servers: tuple[str, str], folder: Path, template: str, registry: str = SCRIPTED
) -> Iterator[Installation]:
    """An installation of its own, for a generator fixture."""
    client = redis.Redis.from_url(servers[1])
    client.flushdb()
    client.close()
    models_file = folder / "models.toml"
    models_file.write_text(registry)
    with _own_database(servers[0], template) as database_url:
        made = Installation(folder, database_url, servers[1], models_file)
        try:
            yield made
        finally:
            made.stop_all()


@contextmanager
def _own_database(server_url: str, template: str = "template1") -> Iterator[str]:
    name = f"test_{uuid4().hex[:12]}"
    admin = make_engine(server_url, application="test").execution_options(isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
    try:
        yield make_url(server_url).set(database=name).render_as_string(hide_password=False)
    finally:
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()
