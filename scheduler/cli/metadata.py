"""Commands that learn figures about models: models import, models refresh."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from db.errors import InvalidRequest
from db.metadata import Catalogue, hub_id, metadata_file, read_metadata, updated, write_metadata
from db.registry import ModelEntry, read_registry
from db.settings import load_settings
from scheduler.cli.output import console, print_json, table

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def import_command(
    source: Annotated[
        Path, typer.Argument(metavar="FILE", help="JSON lines as HuggingGPT lists models, or one model's own folder.")
    ],
    named: Annotated[
        str | None,
        typer.Option("--id", help="The folder's hub id, or its name in the registry, where nothing says it."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Learn downloads, likes, scores and descriptions of models from a file; selectors and planners read them.

    They are kept beside the registry in `models.metadata.json`, by hub id; what models.toml itself says comes first.
    """
    from scheduler.metadata.folder import read_folder
    from scheduler.metadata.listed import read_list

    if not source.exists():
        raise InvalidRequest(f"FILE = {str(source)!r} does not exist.")
    if source.is_file() and named is not None:
        raise InvalidRequest(f"--id = {named!r} is for a model's folder; {source} names its models itself.")
    found = read_folder(source, named, _now()) if source.is_dir() else read_list(source, _now())
    path = metadata_file(load_settings().registry_file)
    write_metadata(path, updated(read_metadata(path), found))
    ours = {name: key for name, model in _models().items() if (key := _key(name, model, found)) is not None}
    if as_json:
        print_json({"file": str(path), "imported": len(found), "models": ours})
        return
    said = f"{len(found)} models into {path}; {len(ours)} of them are in the registry{_listed(ours)}"
    console.print(said, soft_wrap=True)


def refresh_command(
    endpoint: Annotated[str | None, typer.Option(help="The hub; default: HF_ENDPOINT, else the public one.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also models that were imported and are not in the registry.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Ask a hub for downloads, likes and trending of the registry's models that name a hub id."""
    from scheduler.metadata.hub import fetch_metadata

    path = metadata_file(load_settings().registry_file)
    known = read_metadata(path)
    ids = {key for model in _models().values() if (key := _hub_id(model)) is not None}
    if everything:
        ids |= {key for key in known if hub_id({"hub": key}) is not None}
    if not ids:
        raise InvalidRequest('No model of the registry names a hub id: source = { hub = "org/name" }.')
    fetched = fetch_metadata(sorted(ids), endpoint, _now())
    write_metadata(path, updated(known, fetched.models))
    if as_json:
        print_json({"file": str(path), "models": {k: m.known() for k, m in fetched.models.items()},
                    "failed": fetched.failed})  # fmt: skip
    else:
        _print(fetched.models, fetched.failed)
    if fetched.failed:
        raise typer.Exit(1)


def _print(models: Catalogue, failed: dict[str, str]) -> None:
    out = table("model", "downloads", "likes", "trending", "")
    for key, model in models.items():
        out.add_row(key, *("" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
                           for value in (model.downloads, model.likes, model.trending)), "")  # fmt: skip
    for key, reason in failed.items():
        out.add_row(key, "", "", "", reason)
    console.print(out)


def _models() -> dict[str, ModelEntry]:
    """The models of every profile."""
    return read_registry(load_settings().registry_file).models


def _hub_id(model: ModelEntry) -> str | None:
    return hub_id(model.source.model_dump())


def _key(name: str, model: ModelEntry, found: Catalogue) -> str | None:
    return next((key for key in (name, _hub_id(model)) if key in found), None)


def _listed(names: dict[str, str]) -> str:
    return f": {', '.join(sorted(names))}." if names else "."


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
