"""Commands about the registry: models, models pull."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from db.engine import engine_of, transaction
from db.errors import BakeoffError, WeightsError
from db.queries import model_rows
from db.registry import ModelEntry, Registry
from db.settings import Settings, load_settings
from db.workers import live_queues, live_workers
from scheduler.cli.completing import MODELS, PROFILES
from scheduler.cli.metadata import import_command, refresh_command
from scheduler.cli.output import console, errors, is_live, print_json, short, state, table

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Profile = Annotated[str | None, typer.Option(help="Another profile than BAKEOFF_PROFILE.", autocompletion=PROFILES)]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    models = typer.Typer(help="The models of the registry, and who serves them.", invoke_without_command=True)
    models.callback()(list_command)
    models.command("pull")(pull_command)
    models.command("import")(import_command)
    models.command("refresh")(refresh_command)
    app.add_typer(models, name="models")


def list_command(
    context: typer.Context,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """The models of the profile: what they do, where their weights come from, whether a worker serves them."""
    if context.invoked_subcommand is not None:
        return
    settings = load_settings()
    registry = _registry(settings, profile)
    live, states = _live(settings)
    rows: list[dict[str, Any]] = [
        {
            "name": model.name,
            "capability": model.capability,
            "backend": model.backend,
            "source": str(model.source),
            "queue": model.queue,
            "memory_mb": model.memory_mb,
            "status": states.get(model.name, {}).get("status"),
            "live": None if live is None else model.queue in live,
            "judge": ", ".join(registry.capabilities[model.capability].judges),
        }
        for model in registry.models.values()
    ]
    if as_json:
        print_json(rows)
        return
    out = table(
        "model",
        "capability",
        "backend",
        "weights",
        "memory",
        "worker",
        "judge",
        wrap=("capability", "backend", "weights"),
    )
    for row in rows:
        worker = "" if row["live"] is None else state("live") if row["live"] else "none"
        memory = f"{row['memory_mb']} MB"
        out.add_row(
            row["name"], row["capability"], row["backend"], short(row["source"], 40), memory, worker, row["judge"]
        )
    console.print(out)


def _registry(settings: Settings, profile: str | None) -> Registry:
    return settings.registry if profile is None else settings.registry_of(profile)


def _live(settings: Settings) -> tuple[set[str] | None, dict[str, dict[str, object]]]:
    """Queues with a live worker and the models' states; None where nothing runs, which is no error here."""
    try:
        with transaction(engine_of(settings.dsn, "cli")) as connection:
            return set(live_queues(live_workers(connection, settings.worker_timeout))), model_rows(connection)
    except BakeoffError:
        return None, {}


def pull_command(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Models to fetch; default: all of the profile.", autocompletion=MODELS),
    ] = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Fetch, verify and convert weights into the cache; what is there already is only verified."""
    settings = load_settings()
    registry = _registry(settings, profile)
    models = [registry.model(name) for name in names] if names else list(registry.models.values())
    failed = pull(settings, models)
    if as_json:
        reasons = {model.name: str(error) for model, error in failed}
        print_json([{"model": m.name, "there": m.name not in reasons, "error": reasons.get(m.name)} for m in models])
    if failed:
        raise WeightsError("\n".join(f"{model.name}: {error}" for model, error in failed))


def pull(settings: Settings, models: list[ModelEntry]) -> list[tuple[ModelEntry, WeightsError]]:
    """Fetch what is missing, with a bar for each model; returns those that could not be had, and why.

    Where nothing can be drawn anew, a line per model says how it ended.
    """
    from worker.weights import fetch

    failed: list[tuple[ModelEntry, WeightsError]] = []
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    live = is_live(errors)
    with Progress(*columns, console=errors, redirect_stdout=False, disable=not live) as progress:
        for model in models:
            bar = progress.add_task(model.name, total=None)
            try:
                folder = fetch(model, settings.cache, _show(progress, bar, model.name))
            except WeightsError as error:
                failed.append((model, error))
                said = "failed"
            else:
                said = "there" if folder else "nothing to fetch"
            progress.update(bar, description=f"{model.name}: {said}", total=1, completed=int(said != "failed"))
            if not live:
                errors.print(f"{model.name}: {said}", soft_wrap=True)
    return failed


class _show:  # noqa: N801 - a function with a memory
    """Turn the fetcher's reports into one bar."""

    def __init__(self, progress: Progress, bar: TaskID, name: str) -> None:
        self._progress, self._bar, self._name = progress, bar, name

    def __call__(self, what: str, done: int, total: int | None) -> None:
        self._progress.update(self._bar, description=f"{self._name}: {what}", completed=done, total=total)
