"""Commands that run something: up, down, worker, scheduler."""

from __future__ import annotations

import math
import os
import signal
import socket
import threading
from typing import Annotated, NoReturn

import psutil
import typer

from db.engine import engine_of, transaction, wait_for_postgres
from db.errors import InvalidRequest, SettingsError
from db.settings import Settings, load_settings
from db.states import WorkerState
from db.workers import beat, live_workers, set_worker_state, sync_registry
from scheduler.cli.completing import MODELS, PROFILES
from scheduler.cli.models import pull
from scheduler.cli.output import console
from scheduler.cli.typos import warn_of_typos
from scheduler.limits import check_limits
from scheduler.local.memory import refuse_if_too_large
from worker.heartbeat import HEART
from worker.role import WorkerRole


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("up")(up_command)
    app.command("down")(down_command)
    app.command("worker")(worker_command)
    app.command("scheduler")(scheduler_command)


def _echo(line: str) -> None:
    console.print(line, soft_wrap=True, markup=False)


def up_command(
    profile: Annotated[
        str | None,
        typer.Option(help="Models of the registry to run; default: BAKEOFF_PROFILE.", autocompletion=PROFILES),
    ] = None,
    flower: Annotated[bool, typer.Option("--flower/--no-flower", help="Run Flower too.")] = True,
    api: Annotated[bool, typer.Option("--api/--no-api", help="Run the HTTP API and its pages too.")] = True,
) -> None:
    """Start everything on this machine: servers, scheduler, a worker per model, judge, API, Flower. Ctrl-C stops it."""
    from scheduler.local.up import run_up

    settings = load_settings()
    warn_of_typos()
    registry = settings.registry_of(profile or settings.active_profile)
    check_limits(settings, registry)
    for model, error in pull(settings, list(registry.models.values())):
        _echo(f"{model.name} starts without its weights: {error}")
    raise typer.Exit(run_up(settings, profile, flower=flower, api=api, echo=_echo))


def down_command() -> None:
    """Stop the `bakeoff up` of this folder; its data stays."""
    from scheduler.local.up import run_down

    raise typer.Exit(run_down(load_settings().home, echo=_echo))


def worker_command(
    models: Annotated[
        list[str] | None, typer.Argument(help="Models of the registry to hold.", autocompletion=MODELS)
    ] = None,
    judge: Annotated[bool, typer.Option("--judge", help="Judge, too.")] = False,
    planner: Annotated[bool, typer.Option("--planner", help="Split requests into subtasks, too.")] = False,
    integrator: Annotated[bool, typer.Option("--integrator", help="Write answers from chosen results, too.")] = False,
    intake: Annotated[bool, typer.Option("--intake", help="Take tasks in from Celery: bakeoff.submit.")] = False,
    name: Annotated[str | None, typer.Option(help="Name of this worker; default: what it holds.")] = None,
    device: Annotated[
        str | None,
        typer.Option(help="Where its models run: cpu, cuda:0 ...; default: BAKEOFF_DEVICE."),
    ] = None,
) -> None:
    """Run a worker: one child process that loads the models once and answers what their queues bring."""
    if device is not None:
        os.environ["BAKEOFF_DEVICE"] = device  # the child is a fresh interpreter, and reads it there
        load_settings.cache_clear()
    settings = load_settings()
    roles = {"judge": judge, "planner": planner, "integrator": integrator, "intake": intake}
    parts = [*(models or []), *(part for part, wanted in roles.items() if wanted)]
    if not parts:
        known = ", ".join(settings.registry.models)
        raise InvalidRequest(
            f"Say what the worker is for: a model ({known}), --judge, --planner, --integrator or --intake."
        )
    if intake and len(parts) > 1:
        raise InvalidRequest("--intake goes alone: it holds no model. Start a second worker for the models.")
    for model in models or []:
        settings.registry.model(model)
    warn_of_typos()
    check_limits(settings)
    role = WorkerRole(
        name=_free_name(settings, name or "+".join(parts)),
        models=tuple(models or ()),
        **roles,
        imports=("scheduler.intake",) if intake else (),
    )
    refuse_if_too_large([settings.registry.model(model) for model in sorted(role.held(settings.registry))])
    for number in (signal.SIGTERM, signal.SIGINT):  # until Celery is there to hear them
        signal.signal(number, _end)
    try:
        _first_heartbeat(settings, role)
        HEART.start(role)
        _run_celery(settings, role)
    finally:
        HEART.leave()


def _end(*_: object) -> NoReturn:
    raise SystemExit(0)


def _free_name(settings: Settings, wanted: str) -> str:
    """A name that no live worker has: NAME@HOST, NAME-2@HOST ..."""
    host = socket.gethostname()
    with transaction(engine_of(settings.dsn, "worker")) as connection:
        taken = {
            worker.name
            for worker in live_workers(connection, settings.worker_timeout)
            if worker.host != host or psutil.pid_exists(worker.pid)
        }
    number = 1
    while (name := f"{wanted}{'' if number == 1 else f'-{number}'}@{host}") in taken:
        number += 1
    return name


def _first_heartbeat(settings: Settings, role: WorkerRole) -> None:
    """Say `starting` before anything slow, so that a task submitted now waits for this worker.

    Raises `Unreachable` where Postgres is away: a worker without it could do nothing.
    """
    with transaction(engine_of(settings.dsn, "worker")) as connection:
        sync_registry(connection, settings.registry)
        beat(connection, name=role.name, host=socket.gethostname(), pid=os.getpid(), queues=role.queues)
        set_worker_state(connection, role.name, WorkerState.STARTING)


def _run_celery(settings: Settings, role: WorkerRole) -> None:
    role.announce()
    os.environ["CELERY_CUSTOM_WORKER_POOL"] = "worker.pool:ModelPool"  # Celery reads it when it is imported
    from celery.signals import setup_logging, worker_ready

    from worker.app import app
    from worker.loading import LoadWatch
    from worker.stopping import Stopping
    from worker.watch import MemoryWatch, StallWatch

    setup_logging.connect(lambda **_: None, weak=False)  # ours is configured already
    if role.intake:
        say_ready = threading.Thread(target=_say_ready, args=(settings, role), daemon=True)
        worker_ready.connect(lambda **_: say_ready.start(), weak=False)
    app.steps["worker"].update((Stopping, LoadWatch, MemoryWatch, StallWatch))
    pool = ["--pool", "threads", "--concurrency", "4"] if role.intake else ["--pool", "custom", "--concurrency", "1"]
    app.worker_main(
        ["--quiet", "worker", "--hostname", role.name, "--events", "--without-gossip", "--without-mingle"]  # noqa: RUF005
        + [*pool, "--loglevel", settings.log_level]
    )


def _say_ready(settings: Settings, role: WorkerRole) -> None:
    """Intake has no child that would say it; a Postgres that is away at this moment is waited for."""

    @wait_for_postgres(math.inf)
    def attempt() -> None:
        with transaction(engine_of(settings.dsn, "worker")) as connection:
            set_worker_state(connection, role.name, WorkerState.READY)

    attempt()


def scheduler_command() -> None:
    """Run a scheduler; any number may run side by side."""
    from scheduler.loop import Scheduler

    settings = load_settings()
    warn_of_typos()
    check_limits(settings)
    if not settings.registry.models:
        raise SettingsError(f"Profile {settings.active_profile!r} holds no models; there is nothing to schedule.")
    Scheduler(settings).run()
