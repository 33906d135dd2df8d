"""Commands for the operator's hand: why, cancel, retry, pause, drain, resume, prune."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from db.blobs import blob_store
from db.breaker import Guarded, note_success, set_model_state
from db.endings import cancel_tasks, retry_task
from db.engine import engine_of, transaction
from db.errors import InvalidRequest, WaitTimeout
from db.prune import count_finished, delete_finished, delete_gone_workers, delete_unnamed_files, files_after
from db.queries import backlogs, open_of_source, task_status
from db.settings import Settings, load_settings
from db.states import ModelState
from db.workers import sync_registry
from scheduler.cli.completing import GUARDED, MODELS, OPEN_TASKS, SOURCES, TASKS
from scheduler.cli.live import happening
from scheduler.cli.output import console, print_json
from scheduler.cli.tasks import find_task
from scheduler.cli.times import seconds_of
from scheduler.situation import explain

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Tasks = Annotated[list[str] | None, typer.Argument(help="Task ids, or their beginnings.", autocompletion=TASKS)]
OpenTasks = Annotated[
    list[str] | None, typer.Argument(help="Task ids, or their beginnings.", autocompletion=OPEN_TASKS)
]
ModelName = Annotated[str, typer.Argument(help="A model of the registry.", autocompletion=MODELS)]
Reason = Annotated[str | None, typer.Option(help="Shown by status and why.")]

TOGETHER = 500  # rows of one transaction: short enough that nobody waits for it


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("why")(why_command)
    app.command("cancel")(cancel_command)
    app.command("retry")(retry_command)
    app.command("pause")(pause_command)
    app.command("drain")(drain_command)
    app.command("resume")(resume_command)
    app.command("prune")(prune_command)


def why_command(
    task: Annotated[str, typer.Argument(help="A task id, or its beginning.", autocompletion=TASKS)],
    as_json: AsJson = False,
) -> None:
    """What a task waits for, in one sentence."""
    settings = load_settings()
    found = find_task(settings, task)
    with transaction(engine_of(settings.dsn, "cli")) as connection:
        said = explain(connection, settings, found)
    if as_json:
        print_json(said)
    else:
        console.print(said["why"], soft_wrap=True)


def cancel_command(
    tasks: OpenTasks = None,
    source: Annotated[str | None, typer.Option(help="Every open task of this source.", autocompletion=SOURCES)] = None,
    as_json: AsJson = False,
) -> None:
    """Cancel tasks and everything under them; a result that came first stays."""
    settings = load_settings()
    if bool(tasks) == bool(source):
        raise InvalidRequest("Say which tasks: ids, or --source NAME.")
    rows = _cancel_source(settings, source) if source else _cancel(settings, tasks or [])
    if as_json:
        print_json(rows)
    for row in [] if as_json else rows:
        console.print(f"{row['id']}  {'cancelled' if row['cancelled'] else row['status'] + ' already'}")
    if not as_json and not rows:
        console.print(f"Nothing of {source!r} is open.")


def _cancel(settings: Settings, tasks: list[str]) -> list[dict[str, Any]]:
    ids = list(dict.fromkeys(find_task(settings, task) for task in tasks))
    with transaction(engine_of(settings.dsn, "cli")) as connection:
        cancelled = set(cancel_tasks(connection, ids))
        states = task_status(connection, ids)
    return [{"id": task, "status": states[task], "cancelled": task in cancelled} for task in ids]


def _cancel_source(settings: Settings, source: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    while True:
        with transaction(engine_of(settings.dsn, "cli")) as connection:
            ids = open_of_source(connection, source, TOGETHER)
            cancelled = cancel_tasks(connection, ids)
        if not ids:
            return rows
        rows += [{"id": task, "status": "cancelled", "cancelled": True} for task in cancelled]


def retry_command(tasks: Tasks = None, as_json: AsJson = False) -> None:
    """Ask finished tasks again, each as a new task that names the old one."""
    settings = load_settings()
    if not tasks:
        raise InvalidRequest("Say which tasks; `bakeoff results --status failed` lists those that failed.")
    ids = [find_task(settings, task) for task in tasks]
    with transaction(engine_of(settings.dsn, "cli")) as connection:
        rows = [{"retry_of": old, "id": retry_task(connection, old)} for old in dict.fromkeys(ids)]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        console.print(f"{row['id']}  asks {row['retry_of']} again", soft_wrap=True)


def pause_command(model: ModelName, reason: Reason = None, as_json: AsJson = False) -> None:
    """Choose and send a model no longer; what is sent and not yet taken comes back."""
    before = _set(model, ModelState.PAUSED, reason)
    if as_json:
        print_json({"model": model, "status": ModelState.PAUSED, "was": before})
        return
    console.print(f"{model} is paused; `bakeoff resume {model}` lets it go on.")


def drain_command(
    model: ModelName,
    reason: Reason = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until nothing is bound to it any more.")] = False,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds to wait at most; exit code 4 after that.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Choose a model no longer; what is bound to it still runs. Then its worker can be stopped or upgraded."""
    before = _set(model, ModelState.DRAINING, reason)
    settings = load_settings()
    started = time.monotonic()
    with happening(f"{model} is draining") as say:
        while wait and (left := _bound(settings, model)):
            say(f"{model} is draining: {left} candidate(s) left")
            if timeout is not None and time.monotonic() - started > timeout:
                raise WaitTimeout(f"{left} candidates are still bound to {model}; it goes on draining.")
            time.sleep(min(settings.poll_seconds, 0.5))
    if as_json:
        print_json({"model": model, "status": ModelState.DRAINING, "was": before, "bound": _bound(settings, model)})
        return
    console.print(f"{model} is {'drained' if wait else 'draining'}; `bakeoff resume {model}` lets it go on.")


def resume_command(
    name: Annotated[str, typer.Argument(help="A model or a judge of the registry.", autocompletion=GUARDED)],
    as_json: AsJson = False,
) -> None:
    """Choose and send a model again, whether it was paused, draining or suspended; ask a suspended judge again."""
    settings = load_settings()
    registry = settings.registry
    resumed: list[dict[str, Any]] = []
    if name in registry.judges:
        with transaction(engine_of(settings.dsn, "cli")) as connection:
            was_suspended = note_success(connection, Guarded.JUDGE, name)
        said = f"Judge {name} is {'asked again' if was_suspended else 'active already'}."
        before = ModelState.SUSPENDED if was_suspended else ModelState.ACTIVE
        resumed.append({"judge": name, "status": ModelState.ACTIVE, "was": before, "said": said})
    if name in registry.models or name not in registry.judges:
        was = _set(name, ModelState.ACTIVE, None)
        said = f"{name} is active" + (" already." if was == ModelState.ACTIVE else f" again (was {was}).")
        resumed.append({"model": name, "status": ModelState.ACTIVE, "was": was, "said": said})
    for one in resumed:
        if not as_json:
            console.print(one["said"], soft_wrap=True)
    if as_json:
        print_json([{key: value for key, value in one.items() if key != "said"} for one in resumed])


def _set(model: str, state: ModelState, reason: str | None) -> str:
    settings = load_settings()
    settings.registry.model(model)
    with transaction(engine_of(settings.dsn, "cli")) as connection:
        sync_registry(connection, settings.registry)
        return set_model_state(connection, model, state, reason)


def _bound(settings: Settings, model: str) -> int:
    with transaction(engine_of(settings.dsn, "cli")) as connection:
        backlog = backlogs(connection)[model]
    return backlog.chosen + backlog.sent + backlog.running


def prune_command(
    older_than: Annotated[str, typer.Option("--older-than", help="Age of what goes, such as 30d.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many tasks would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete finished tasks of that age, files that no task names any more, and workers that are long gone.

    In small transactions, so that nothing waits for it; it can be stopped and run again at any time.
    """
    settings = load_settings()
    seconds = seconds_of("--older-than", older_than)
    if dry_run:
        with transaction(engine_of(settings.dsn, "cli")) as connection:
            report = {"tasks": count_finished(connection, seconds), "files": None, "workers": None}
    else:
        report = {
            "tasks": _prune_tasks(settings, seconds),
            "files": _prune_files(settings),
            "workers": _prune_workers(settings, seconds),
        }
    if as_json:
        print_json(report)
    elif dry_run:
        console.print(f"{report['tasks']} finished task(s) are older than {older_than}; nothing was deleted.")
    else:
        console.print(
            f"Deleted {report['tasks']} task(s), {report['files']} file(s), {report['workers']} gone worker(s)."
        )


def _prune_tasks(settings: Settings, seconds: float) -> int:
    deleted = 0
    while True:
        with transaction(engine_of(settings.dsn, "cli")) as connection:
            batch = delete_finished(connection, seconds, TOGETHER)
        if not batch:
            return deleted
        deleted += batch


def _prune_files(settings: Settings) -> int:
    """The blobs go inside of the transaction that deletes their rows: see `delete_unnamed_files`."""
    blobs = blob_store(settings.blobs)
    deleted, last = 0, ""
    while True:
        with transaction(engine_of(settings.dsn, "cli")) as connection:
            digests = files_after(connection, last, TOGETHER)
            gone = delete_unnamed_files(connection, digests)
            for digest in gone:
                blobs.delete(digest)
        if not digests:
            return deleted
        deleted, last = deleted + len(gone), digests[-1]


def _prune_workers(settings: Settings, seconds: float) -> int:
    with transaction(engine_of(settings.dsn, "cli")) as connection:
        return delete_gone_workers(connection, max(seconds, settings.worker_timeout * 10))
