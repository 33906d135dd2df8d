"""`bakeoff up`: one machine, everything in it, started and stopped together. `bakeoff down` stops it from elsewhere."""

from __future__ import annotations

import os
import signal
import socket
import time
from typing import TYPE_CHECKING

import psutil
from sqlalchemy.exc import SQLAlchemyError

from db import migrate
from db.engine import engine_of, transaction
from db.errors import BakeoffError, RefusedNow
from db.registry import read_registry
from db.states import WorkerState
from db.workers import live_workers
from scheduler.local.children import api_spec, children_of, threads_per_worker
from scheduler.local.files import remembered_port
from scheduler.local.instance import forget_instance, only_up, stop_leftovers, supervisor_of
from scheduler.local.memory import refuse_if_too_large
from scheduler.local.servers import EmbeddedPostgres, EmbeddedRedis
from scheduler.local.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from db.instance import ProcessRef
    from db.settings import Settings
    from scheduler.local.children import ChildSpec

# Postgres, Valkey, scheduler, intake, API and Flower when idle; a model's worker is in its memory_mb.
BESIDE_MB = 600

_DOWN_TIMEOUT = 150.0  # seconds; the graces of everything that is stopped in turn are less
_HEARD_WITHIN = 30.0  # seconds since a worker's last heartbeat


def run_up(
    settings: Settings,
    profile: str | None = None,
    *,
    flower: bool = True,
    api: bool = True,
    echo: Callable[[str], None],
) -> int:
    """Run until Ctrl-C, SIGTERM or `bakeoff down`; returns the exit code.

    An explicit `database_url` or `redis_url` wins over the embedded server, each on its own. Raises `BakeoffError`:
    `RefusedNow` when this home is in use or the models do not fit into memory.
    """
    profile = profile or settings.active_profile
    home = settings.home.absolute()
    registry = read_registry(settings.registry_file)
    specs = children_of(registry, profile, settings.stop_seconds)
    models = [registry.model(name) for name in sorted({name for spec in specs for name in spec.models})]
    database_url, redis_url = settings.database_url, settings.redis_url
    return Supervisor(
        home=home,
        profile=profile,
        models_file=str(settings.registry_file.absolute()),
        blob_url=settings.blob_url or "",
        children=specs,
        environment=child_environment(settings, profile, specs),
        database=database_url.get_secret_value() if database_url else EmbeddedPostgres(home / "postgres"),
        redis=redis_url.get_secret_value() if redis_url else EmbeddedRedis(home / "redis"),
        flower=flower,
        api=(lambda: _api_spec(settings, home)) if api else None,
        check=lambda: refuse_if_too_large(models, beside_mb=BESIDE_MB),
        migrate=migrate.upgrade,
        states=worker_states,
        echo=echo,
    ).run()


def run_down(home: Path, *, echo: Callable[[str], None]) -> int:
    """Stop the `up` of this home and wait for its end; returns the exit code. Nothing to stop is no error."""
    home = home.absolute()
    supervisor = _supervisor(home)
    if supervisor is None:
        left = _stop_what_is_left(home) if home.exists() else []
        if left:
            echo(f"Bakeoff was killed before; stopped what it left running in {home}: {', '.join(left)}.")
        else:
            echo(f"Nothing is running in {home}.")
        return 0
    started = time.monotonic()
    try:
        psutil.Process(supervisor.pid).send_signal(signal.SIGTERM)
    except psutil.NoSuchProcess:
        pass
    except psutil.AccessDenied:
        raise RefusedNow(f"Bakeoff in {home} (pid {supervisor.pid}) was started by another user.") from None
    while supervisor.alive():
        if time.monotonic() - started > _DOWN_TIMEOUT:
            raise BakeoffError(
                f"Bakeoff in {home} (pid {supervisor.pid}) did not stop in {_DOWN_TIMEOUT:g} s. Run `bakeoff down` "
                "again to kill what it still waits for."
            )
        time.sleep(0.05)
    seconds = time.monotonic() - started
    echo(f"Stopped Bakeoff in {home} (pid {supervisor.pid}) in {seconds:.1f} s; its data stays there.")
    return 0


def child_environment(settings: Settings, profile: str, specs: Sequence[ChildSpec]) -> dict[str, str]:
    """What every child process gets, but for the addresses of the servers."""
    threads = settings.threads or threads_per_worker(sum(1 for spec in specs if spec.models))
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    return {
        **limits,  # engines that read no setting of ours; an explicit one in the environment wins
        **os.environ,
        **settings.environment(),
        "BAKEOFF_HOME": str(settings.home.absolute()),
        "BAKEOFF_CACHE": str(settings.cache.absolute()),
        "BAKEOFF_MODELS_FILE": str(settings.registry_file.absolute()),
        "BAKEOFF_PROFILE": profile,
        "BAKEOFF_THREADS": str(threads),
        "PYTHONUNBUFFERED": "1",
    }


def _api_spec(settings: Settings, home: Path) -> ChildSpec:
    """On the port of the settings, or where somebody else has that one on a port of this home."""
    host = settings.api_host
    return api_spec(host, remembered_port(home / "api.port", settings.api_port, host), settings.stop_seconds)


def worker_states(database_url: str) -> dict[int, str]:
    """By process id, what the workers of this machine say of themselves: "ready", "broken: why" ..."""
    try:
        with transaction(engine_of(database_url, "up")) as connection:
            workers = live_workers(connection, _HEARD_WITHIN)
    except (BakeoffError, SQLAlchemyError):
        return {}  # asked again soon; a Postgres that is away is the supervisor's business elsewhere
    host = socket.gethostname()
    return {
        worker.pid: f"broken: {worker.error}" if worker.status == WorkerState.BROKEN else worker.status
        for worker in workers
        if worker.host == host
    }


def _supervisor(home: Path) -> ProcessRef | None:
    try:
        return supervisor_of(home)
    except PermissionError:
        raise RefusedNow(f"{home} belongs to another user; set BAKEOFF_HOME to a folder of your own.") from None


def _stop_what_is_left(home: Path) -> list[str]:
    with only_up(home):
        left = stop_leftovers(home)
        for server in (EmbeddedPostgres(home / "postgres"), EmbeddedRedis(home / "redis")):
            if server.folder.exists() and server.stop_leftover():
                left.append(server.name)
        forget_instance(home)
    return left
